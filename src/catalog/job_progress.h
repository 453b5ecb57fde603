/*-------------------------------------------------------------------------
 *
 * job_progress.h
 *		Recording a commit of a job that is not its last.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_JOB_PROGRESS_H
#define BBM_CATALOG_JOB_PROGRESS_H

#include "base/bbm.h"

#include "catalog/job_record.h"

extern void bbm_job_progress(const BbmJob *job, const BbmBound *cursor, int reduced_sub_batch_size,
							 const BbmCost *cost);

#endif							/* BBM_CATALOG_JOB_PROGRESS_H */
