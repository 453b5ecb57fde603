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

#endif							/* BBM_BASE_BACKENDS_H */
