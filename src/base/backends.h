/*-------------------------------------------------------------------------
 *
 * backends.h
 *		What the server shows of its processes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_BACKENDS_H
#define BBM_BASE_BACKENDS_H

#include "postgres.h"

#include "utils/backend_status.h"

extern PgBackendStatus *bbm_status_of_process(int pid);
extern PGDLLEXPORT void bbm_waits_read(void);
extern bool bbm_wait_of_process(int pid, uint32 *event);

#endif							/* BBM_BASE_BACKENDS_H */
