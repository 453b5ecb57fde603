/*-------------------------------------------------------------------------
 *
 * cpu_use.h
 *		Does anybody but bbm need a CPU?
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_CPU_USE_H
#define BBM_BASE_CPU_USE_H

#include "base/bbm.h"

extern PGDLLEXPORT int64 bbm_cpus_are_ours_for(TimestampTz now);

#endif							/* BBM_BASE_CPU_USE_H */
