/*-------------------------------------------------------------------------
 *
 * hooks.h
 *		Commands of the server that our processes must know of.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_HOOKS_H
#define BBM_HOOKS_H

extern void bbm_hooks_install(void);

/* Events of this transaction, told to the launcher when it has committed. */
extern void bbm_wake_at_commit(Oid owner);
extern void bbm_tell_at_commit(void);

#endif							/* BBM_HOOKS_H */
