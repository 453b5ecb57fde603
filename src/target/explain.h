/*-------------------------------------------------------------------------
 *
 * explain.h
 *		The plan of a job, to be shown.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_EXPLAIN_H
#define BBM_TARGET_EXPLAIN_H

#include "base/bbm.h"

#include "target/target.h"

extern char *bbm_job_explain(BbmTarget *target, BbmPartition *partition, const BbmRange *range, int size);

#endif							/* BBM_TARGET_EXPLAIN_H */
