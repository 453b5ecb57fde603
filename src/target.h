/*-------------------------------------------------------------------------
 *
 * target.h
 *		Resolving a migration: its strategy, table, key, leaves and job.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_H
#define BBM_TARGET_H

#include "relation.h"
#include "strategy.h"

struct BbmStatementParts;

extern BbmTarget *bbm_target_open(const BbmMigration *migration);
extern BbmTarget *bbm_target_open_to_read(const BbmMigration *migration);
extern void bbm_target_close(BbmTarget *target);
extern bool bbm_target_is_current(BbmTarget *target);
extern void bbm_target_check_partitions(BbmTarget *target);
extern int64 bbm_target_estimate(BbmTarget *target);
extern bool bbm_target_bounds(BbmTarget *target, BbmBound *min, BbmBound *max);
extern BbmPartition *bbm_partition_open(BbmTarget *target, Oid relid);
extern BbmPartition *bbm_partitions_open_as_one(BbmTarget *target);
extern const char *bbm_index_name(const BbmTarget *target, const BbmPartition *partition);
extern void bbm_size_limits(const BbmTarget *target, BbmSizeLimits *limits);
extern bool bbm_size_follows(const BbmMigration *migration);
extern int	bbm_size_now(BbmTarget *target, const BbmClaimState *state);
extern int	bbm_job_size(const BbmTarget *target, const BbmJob *job);
extern void bbm_check_follow(const char *strategy);

/* The settings a job's text is read and run with, until bbm_user_settings_end. */
extern int	bbm_job_settings(const BbmMigration *migration);

/* A text that a user wrote and the server is to read, for bbm_user_text_error. */
typedef struct BbmUserText
{
	const char *text;
	const char *what;			/* what messages call it */
	int			prefix;			/* how many characters of ours the server reads before it */
	const char *syntax_hint;
} BbmUserText;

/* job.c */
extern void bbm_user_text_error(void *arg);
extern void bbm_job_check_text(const char *job);
extern void bbm_job_resolve(BbmTarget *target);
extern void bbm_job_prepare(BbmTarget *target, BbmPartition *partition);
extern void bbm_job_parts(const BbmMigration *migration, struct BbmStatementParts *parts);
extern char *bbm_job_found(const BbmTarget *target);
extern char *bbm_job_sql(BbmTarget *target, BbmPartition *partition);
extern void bbm_job_bind(const BbmTarget *target, const BbmPartition *partition, const BbmRange *range, int size, Datum *values);
extern int	bbm_range_bind(const BbmTarget *target, const BbmRange *range, int size, Datum *values, Oid *types);
extern SPIPlanPtr bbm_job_left_plan(BbmTarget *target, BbmPartition *partition);
extern SPIPlanPtr bbm_job_check_plan(BbmTarget *target, BbmPartition *partition);

/* bounds, a size, and the registry's names */
#define BBM_MAX_JOB_ARGS (2 * BBM_MAX_KEY_COLUMNS + 3)

#endif							/* BBM_TARGET_H */
