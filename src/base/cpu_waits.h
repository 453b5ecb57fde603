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

extern bool bbm_cpu_waits(int64 *ns, int64 *times);

#endif							/* BBM_BASE_CPU_WAITS_H */
