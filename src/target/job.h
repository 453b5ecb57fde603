/*-------------------------------------------------------------------------
 *
 * job.h
 *		A migration's job: a statement, a function, or what is composed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_JOB_H
#define BBM_TARGET_JOB_H

#include "base/bbm.h"

#include "target/key.h"
#include "target/target.h"

/* the bounds, a size, and the two names that the GitLab container registry's functions take */
#define BBM_MAX_JOB_ARGS (2 * BBM_MAX_KEY_COLUMNS + 3)

extern void bbm_job_check_text(const char *job);
extern void bbm_job_resolve(BbmTarget *target);
extern void bbm_job_prepare(BbmTarget *target, BbmPartition *partition);
extern void bbm_job_revalidate(BbmTarget *target, BbmPartition *partition);
extern char *bbm_job_found(const BbmTarget *target);
extern char *bbm_job_sql(BbmTarget *target, BbmPartition *partition);
extern char *bbm_job_statement(BbmTarget *target, BbmPartition *partition);
extern char *bbm_job_rows_sql(BbmTarget *target, BbmPartition *partition);
extern int	bbm_job_types(const BbmTarget *target, Oid *types);
extern void bbm_job_bind(const BbmTarget *target, const BbmPartition *partition, const BbmRange *range, int size,
						 Datum *values);
extern int	bbm_range_bind(const BbmTarget *target, const BbmRange *range, int size, Datum *values, Oid *types);
extern SPIPlanPtr bbm_job_left_plan(BbmTarget *target, BbmPartition *partition);
extern SPIPlanPtr bbm_job_check_plan(BbmTarget *target, BbmPartition *partition);

#endif							/* BBM_TARGET_JOB_H */
