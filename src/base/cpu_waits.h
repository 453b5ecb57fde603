/*-------------------------------------------------------------------------
 *
 * cpu_waits.h
 *		How long this process has waited for a CPU.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_CPU_WAITS_H
#define BBM_BASE_CPU_WAITS_H

#include "base/bbm.h"

/* What the system counts of a process since it began. */
typedef struct BbmCpuTimes
{
	int64		ran_ns;
	int64		waited_ns;		/* ready to run, and without a CPU */
	int64		turns;			/* how often it has got a CPU */
} BbmCpuTimes;

extern PGDLLEXPORT bool bbm_cpu_parse_times(const char *text, BbmCpuTimes *times);
extern bool bbm_cpu_waits(BbmCpuTimes *times);

#endif							/* BBM_BASE_CPU_WAITS_H */
