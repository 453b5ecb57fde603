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

/* There are hardly more processes of bbm, and those that are do not belong to it then. */
#define BBM_MOST_PROCESSES 64

/* When nobody else has needed a CPU for so long, the CPUs are ours. */
#define BBM_CPUS_OURS_US (300 * 1000)

/* How busy the CPUs have been in the last seconds. */
typedef struct BbmCpuUse
{
	int			cpus;			/* the machine has; 0: it is not known */
	double		others;			/* CPUs that are busy on average, but not with processes of bbm */
	int			workers;		/* processes of bbm that have run meanwhile */
} BbmCpuUse;

/* The processes of bbm. */
typedef struct BbmCpuProcesses
{
	int			n;
	pid_t		pid[BBM_MOST_PROCESSES];
	double		ran_us[BBM_MOST_PROCESSES]; /* since it began, where that was read */
} BbmCpuProcesses;

extern PGDLLEXPORT int64 bbm_cpu_idle_for(const PgBackendStatus *status, TimestampTz now);
extern PGDLLEXPORT bool bbm_cpu_parse_stat(const char *text, int64 *programs, int64 *idle);
extern PGDLLEXPORT double bbm_cpu_ran_between(const BbmCpuProcesses *before, const BbmCpuProcesses *after,
											  double passed_us, int *workers);
extern PGDLLEXPORT void bbm_cpu_use(TimestampTz now, BbmCpuUse *use);
extern PGDLLEXPORT int64 bbm_cpus_are_ours_for(TimestampTz now);

#endif							/* BBM_BASE_CPU_USE_H */
