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
extern void bbm_notify_at_commit(const char *json);

#endif							/* BBM_HOOKS_H */
