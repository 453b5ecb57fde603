/*-------------------------------------------------------------------------
 *
 * cpu_use.h
 *		Does anybody but bbm need a CPU, and how many?
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_CPU_USE_H
#define BBM_BASE_CPU_USE_H

#include "base/bbm.h"

#include "utils/backend_status.h"

#include "base/shared.h"

/* When nobody else has needed a CPU for so long, the CPUs are ours. */
#define BBM_CPUS_OURS_US (300 * 1000)

extern PGDLLEXPORT int64 bbm_cpu_idle_for(const PgBackendStatus *status, TimestampTz now);
extern PGDLLEXPORT void bbm_cpu_find_ours(BbmProcesses *ours, TimestampTz now);
extern PGDLLEXPORT bool bbm_cpu_parse_stat(const char *text, int64 *programs, int64 *idle);
extern PGDLLEXPORT double bbm_cpu_ran_between(const BbmProcesses *before, const BbmProcesses *after, double passed_us,
											  int *workers);
extern PGDLLEXPORT void bbm_cpu_use(TimestampTz now, BbmCpuUse *use);
extern PGDLLEXPORT int64 bbm_cpus_are_ours_for(TimestampTz now);

#endif							/* BBM_BASE_CPU_USE_H */
