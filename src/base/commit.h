/*-------------------------------------------------------------------------
 *
 * commit.h
 *		Actions at commit.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_COMMIT_H
#define BBM_BASE_COMMIT_H

#include "postgres.h"

extern void bbm_wake_at_commit(Oid owner);
extern void bbm_notify_at_commit(const char *json, const char *line);
extern void bbm_commit_install(void);

#endif							/* BBM_BASE_COMMIT_H */
