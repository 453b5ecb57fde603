/*-------------------------------------------------------------------------
 *
 * hooks.h
 *		Commands of the server that affect our processes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SERVER_HOOKS_H
#define BBM_SERVER_HOOKS_H

#include "base/bbm.h"

extern void bbm_hooks_install(void);

#endif							/* BBM_SERVER_HOOKS_H */
