/*-------------------------------------------------------------------------
 *
 * catalog.h
 *		All SQL over our own tables, to and from structs.
 *
 * Every function that reads or writes needs a transaction and SPI connected,
 * runs its statement as the extension's owner, and allocates what it returns
 * in the memory context it is given.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_H
#define BBM_CATALOG_H

#include "bbm.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/array.h"

/* Our tables, in the order in which a transaction locks them. */
typedef enum BbmTable
{
	BBM_MIGRATIONS,
	BBM_JOBS,
	BBM_PARTITIONS,
	BBM_ROW_ERRORS,
	BBM_EVENTS,
	BBM_TABLES
} BbmTable;

/* Where the extension is in this database. */
typedef struct BbmCatalog
{
	Oid			extension;
	Oid			owner;			/* of the two tables that are the registry's too: who may write them */
	Oid			owners[BBM_TABLES];
	Oid			migrations;		/* batched_background_migrations; also the space of our locks */
	Oid			jobs;			/* batched_background_migration_jobs */
	Oid			tables[BBM_TABLES];
	Oid			migrations_key; /* index on id */
	Oid			migrations_by_table;	/* index on table_oid */
	Oid			jobs_key;		/* index on id */
	Oid			jobs_newest;	/* index on migration and id, highest first */
	char	   *schema;			/* quoted */
	char	   *version;		/* what the SQL is */
	char	   *stranger;		/* why a trigger of our tables is not to fire; or NULL */
	char	   *flaw;			/* what our tables lack, so that nothing can run; or NULL */
	char	   *flaw_hint;
} BbmCatalog;

/* catalog.c */
extern const BbmCatalog *bbm_catalog_find(void);
extern const BbmCatalog *bbm_catalog(void);
extern void bbm_catalog_forget(void);
extern bool bbm_extension_is_here(void);
extern bool bbm_catalog_matches(const BbmCatalog *catalog);
extern const char *bbm_origin(void);
extern Oid	bbm_lock_class(void);
extern bool bbm_catalog_trusts(Oid role);
extern void bbm_catalog_check_trust(Oid role);
extern const char *bbm_table_name(BbmTable table);

/* catalog_shape.c */
extern bool bbm_shape_has_column(BbmTable table, const char *name);
extern char *bbm_shape_flaw(const BbmCatalog *catalog, char **hint);
extern Oid	bbm_shape_index(Oid relid, const char *first, const char *second);

/* catalog_migrations.c */
typedef struct BbmRunnable
{
	int64		id;
	BbmStatus	status;
	int			workers;
	int			others;			/* other processes at it; the engine's */
	int			position;		/* the same */
} BbmRunnable;

/* What bbm_create writes and bbm_alter changes; unset fields are NULL. */
typedef struct BbmDefinition
{
	const char *name;
	const char *table_name;
	const char *column_name;
	const char *job;
	const char *strategy;
	const char *search_path;
	const char *owner;
	const char *index_name;
	const char *key_order;
	const char *operation;
	const char *set_clause;
	const char *filter;
	const char *row_check;
	const BbmBound *min;
	const BbmBound *max;
	const int  *batch_size;
	const int  *sub_batch_size;
	const Interval *target_duration;
	bool		fixed_size;		/* bbm_alter: no target any more */
	const int  *min_batch_size;
	const int  *max_batch_size;
	const int64 *max_batch_wal;
	const int  *workers;
	const int  *max_attempts;
	const char *on_error;
	const int  *max_errors;
	const bool *share_table;
	const bool *synchronous;
	const bool *verify;
	const bool *follow;
	const bool *allow_key_change;
	const bool *allow_full_scan;
	const bool *rows_stay;
	const bool *skip_null_keys;
	const ArrayType *settings;
} BbmDefinition;

extern BbmMigration *bbm_migration_by_name(const char *name, MemoryContext context);
extern BbmMigration *bbm_migration_by_id(int64 id, MemoryContext context);
extern List *bbm_migrations_runnable(Oid owner, MemoryContext context);
extern List *bbm_migrations_with_status(List *statuses, MemoryContext context);
extern List *bbm_migrations_begun(MemoryContext context);
extern List *bbm_runnable_owners(MemoryContext context);
extern bool bbm_migration_lock(int64 id, BbmStatus *status);
extern void bbm_migration_set_started(int64 id, int64 total, Oid table, const BbmBound *min, const BbmBound *max,
									  const char *key_order, BbmPartitionOrder partition_order);
extern void bbm_migration_defined(int64 id, Oid table, bool min_found, bool max_found);
extern void bbm_migration_restart(int64 id, Oid table, const char *job, const BbmBound *min, const BbmBound *max,
								  const char *key_order);
extern void bbm_migration_set_pass(int64 id, int pass, const BbmBound *verify_max);
extern void bbm_migration_extend(int64 id, const BbmBound *max, bool follow);
extern void bbm_migration_finish(int64 id);
extern void bbm_migration_fail(int64 id, int code, const ErrorData *error);
extern void bbm_migration_reopen(int64 id);
extern bool bbm_migration_set_status(int64 id, BbmStatus status);
extern int64 bbm_migration_insert(const BbmDefinition *definition, Oid owner, BbmStatus status);
extern void bbm_migration_alter(int64 id, const BbmDefinition *definition);
extern void bbm_migration_delete(int64 id);

/* How far a migration is, in words. */
typedef struct BbmProgress
{
	char	   *percent;
	int64		rows;
	int64		jobs;
	char	   *sqlstate;		/* of the error that failed it, or NULL */
	char	   *error;
	char	   *detail;
	char	   *hint;
} BbmProgress;

extern void bbm_migration_progress(int64 id, MemoryContext context, BbmProgress *progress);
extern void bbm_event_add(int64 migration_id, const char *name, const char *event, BbmStatus status,
						  Oid owner, const char *detail);
extern void bbm_events_prune(void);

/* catalog_jobs.c */
typedef struct BbmClaimState
{
	BbmStatus	status;
	TimestampTz updated_at;
	int			pass;
	BbmBound	min;
	BbmBound	max;
	bool		min_found;
	bool		is_wide;		/* the pass verifies rows beyond min and max as well, ... */
	BbmBound	verify_max;		/* ... up to here */
	int			batch_size;
	bool		has_job;		/* a job has been cut, in whichever pass */
	bool		has_last;		/* ... in this pass ... */
	BbmBound	last;			/* ... up to here ... */
	Oid			last_relation;	/* ... of this leaf, when the migration is cut by leaf */
	int			last_size;		/* what was asked for then; 0 without a job, in whichever pass */
	int64		last_id;		/* the newest job's, in whichever pass; 0 without */
} BbmClaimState;

/* Another migration that may have batches on the table. */
typedef struct BbmCompetitor
{
	Oid			owner;
	int64		id;
	int			workers;
	bool		share_table;
} BbmCompetitor;

typedef struct BbmRunningJob
{
	int64		id;
	int64		migration_id;
	int			attempts;
	int			pid;
	int32		worker_id;
	Oid			owner;
} BbmRunningJob;

typedef struct BbmUnfinished
{
	int64		jobs;			/* new or failed */
	int64		failed;
	TimestampTz due;			/* the earliest; DT_NOEND without jobs */
	char	   *error;			/* of the earliest, or NULL */
} BbmUnfinished;

#define BBM_WAITS_FOR_RETRY "retry of a failed job"

/* Why a batch was given back; what requeue_reasons of a job is indexed by. */
typedef enum BbmRequeueReason
{
	BBM_REQUEUE_LOCK_TIMEOUT = 1,
	BBM_REQUEUE_DEADLOCK,
	BBM_REQUEUE_BLOCKING,		/* others waited too long for its locks */
	BBM_REQUEUE_TIME,			/* it took too long */
	BBM_REQUEUE_CANCELLED,		/* also a pause between two parts */
	BBM_REQUEUE_OTHER
} BbmRequeueReason;

typedef struct BbmCost
{
	int64		rows;
	double		ms;
	int64		wal;
} BbmCost;

/* What a job has used, and when. */
typedef struct BbmSpent
{
	int64		rows;
	int64		wal;
	TimestampTz since;
	TimestampTz until;
} BbmSpent;

extern int	bbm_jobs_spent(int64 migration_id, BbmSpent *spent, int room);
extern bool bbm_claim_state(int64 migration_id, BbmClaimState *state);
extern List *bbm_competing_migrations(int64 migration_id, Oid table);
extern List *bbm_jobs_running(int64 migration_id, MemoryContext context);
extern void bbm_job_insert(BbmJob *job, int32 worker_id, int64 after);
extern bool bbm_job_ids_are_behind(const ErrorData *error);
extern void bbm_job_ids_catch_up(void);
extern bool bbm_job_reclaim(int64 migration_id, int status, TimestampTz now, int32 worker_id, MemoryContext context,
							BbmJob *job);
extern bool bbm_job_orphan(int64 id, TimestampTz due);
extern bool bbm_job_take_back(int64 id);
extern void bbm_jobs_unfinished(int64 migration_id, BbmUnfinished *unfinished);
extern char *bbm_unfinished_to_string(const BbmUnfinished *unfinished);
extern bool bbm_job_lock(BbmJob *job);
extern bool bbm_job_is_locked(int64 id);
extern void bbm_job_progress(const BbmJob *job, const BbmBound *cursor, int reduced_sub_batch_size, const BbmCost *cost);
extern void bbm_job_finish(const BbmJob *job, const BbmCost *cost, bool detached);
extern int64 bbm_jobs_rows(int64 migration_id, Oid relation);
extern void bbm_jobs_revive(int64 migration_id, List *partitions);
extern bool bbm_job_fail(const BbmJob *job, int code, const ErrorData *error, TimestampTz due, bool bisect);
extern bool bbm_job_skip(const BbmJob *job);
extern void bbm_error_values(const ErrorData *error, Datum *values, char *nulls);
extern bool bbm_job_release_unstarted(const BbmJob *job);
extern bool bbm_job_requeue(const BbmJob *job, BbmRequeueReason why, const ErrorData *error, TimestampTz due);
extern int64 bbm_jobs_refresh(int64 migration_id);
extern void bbm_jobs_forget(int64 migration_id);
extern bool bbm_jobs_idle(int64 migration_id, int n);
extern void bbm_jobs_merge(int64 migration_id, int retention);
extern int64 bbm_jobs_found(int64 migration_id, int pass);
extern void bbm_jobs_repair(int64 migration_id, int found_in, int pass);
extern char *bbm_job_range_to_string(const BbmJob *job);
extern void bbm_partition_extent(int64 migration_id, Oid relation, const BbmBound *low, const BbmBound *high);
extern bool bbm_jobs_last(int64 migration_id, Oid root, Oid relation, int pass, BbmBound *last);
extern int64 *bbm_jobs_checks(int64 migration_id, int pass, int *n);

/* catalog_errors.c */
extern void bbm_error_add(const BbmJob *job, const BbmBound *min, const BbmBound *max, const ErrorData *error);
extern int64 bbm_errors_count(int64 migration_id);
extern int64 bbm_errors_retry(int64 migration_id);
extern void bbm_errors_forget(int64 migration_id);
extern void bbm_errors_settle(int64 migration_id);

/* catalog_stalled.c */
typedef struct BbmStalled
{
	int64		id;
	char	   *name;
	BbmStatus	status;
	Oid			owner;
	char	   *since;			/* when something has happened last */
	TimestampTz since_at;
	char	   *waiting_on;
	char	   *last_error;		/* or NULL */
} BbmStalled;

extern List *bbm_migrations_stalled(MemoryContext context);

/* catalog_parts.c: what is known of each leaf of a migration */
typedef struct BbmPartitionState
{
	Oid			relation;
	char	   *name;
	int			pass;			/* the last in which it was cut to its end; 0 none */
	int			begun;			/* the last that has begun on it */
	XLogRecPtr	begun_lsn;		/* when the last pass that works began on it */
	XLogRecPtr	clean_lsn;		/* the same of the one before: pages unchanged since are clean */
	int64		end_block;		/* of the pass that has begun */
	Oid			filenode;		/* the LSNs are of these files */
	bool		joined;			/* it came while the migration ran */
	bool		has_extent;		/* where a key tells the partitions, it had keys when it was begun ... */
	BbmBound	low;			/* ... from here ... */
	BbmBound	high;			/* ... to here */
} BbmPartitionState;

extern List *bbm_partitions(int64 migration_id);
extern BbmPartitionState *bbm_partition_state(int64 migration_id, Oid relation);
extern void bbm_partition_add(int64 migration_id, Oid relation, const char *name, bool joined);
extern void bbm_partition_begin(int64 migration_id, const BbmPartitionState *part);
extern void bbm_partition_done(int64 migration_id, Oid relation, int pass);
extern void bbm_partition_rename(int64 migration_id, Oid relation, const char *name);
extern void bbm_partition_clean(int64 migration_id, Oid relation, int pass);
extern void bbm_partition_unclean(int64 migration_id, Oid relation);
extern void bbm_partitions_reopen(int64 migration_id, int pass);
extern void bbm_partitions_forget(int64 migration_id);
extern void bbm_partitions_settle(int64 migration_id, bool loaded);

#endif							/* BBM_CATALOG_H */
