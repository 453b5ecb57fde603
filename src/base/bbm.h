/*-------------------------------------------------------------------------
 *
 * bbm.h
 *		Names, codes and row structs that every file of bbm shares.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_H
#define BBM_H

#include "postgres.h"

#include "access/htup_details.h"
#include "datatype/timestamp.h"
#include "storage/block.h"
#include "storage/itemptr.h"
#include "utils/elog.h"

/* The version of the library; pg_extension.extversion must be the same. */
#define BBM_VERSION "1.0"

/* A name is shown in logs, notifications and error messages: keep it readable. */
#define BBM_MAX_NAME_LENGTH 512
#define BBM_MAX_WORKERS_PER_MIGRATION 256
#define BBM_MAX_ATTEMPTS 100

/* batched_background_migrations.status, and that of a job (1 is "new" there) */
typedef enum BbmStatus
{
	BBM_PAUSED = 0,
	BBM_ACTIVE = 1,
	BBM_FINISHED = 2,
	BBM_FAILED = 3,
	BBM_RUNNING = 4
} BbmStatus;

#define BBM_JOB_NEW BBM_ACTIVE

/* failure_error_code, in both tables */
typedef enum BbmFailureCode
{
	BBM_CODE_UNKNOWN = 0,
	BBM_CODE_TABLE = 1,
	BBM_CODE_COLUMN = 2,
	BBM_CODE_SIGNATURE = 3,
	BBM_CODE_ATTEMPTS = 4,
	BBM_CODE_STRATEGY = 5
} BbmFailureCode;

/* The settings that a migration has of its own; see base/overrides.c. */
typedef struct BbmOverrides BbmOverrides;

/* What happens to a job that has used up its attempts. */
typedef enum BbmOnError
{
	BBM_ON_ERROR_FAIL,			/* the migration fails */
	BBM_ON_ERROR_BISECT,			/* bisect: everything is done except the rows that fail */
	BBM_ON_ERROR_SKIP			/* the range is quarantined */
} BbmOnError;

/* The order in which the partitions, or child tables, of a table are processed: partition_order. */
typedef enum BbmPartitionOrder
{
	BBM_ORDER_UNDECIDED,		/* not started yet */
	BBM_ORDER_AS_ONE_TABLE,		/* in the order of the key over all */
	BBM_ORDER_BY_FILTER,		/* one by one, then all verified for rows that others have moved */
	BBM_ORDER_BY_KEY,			/* one by one, since a row that moves gets another key */
	BBM_ORDER_ROWS_STAY			/* one by one, since the user has declared that no row moves */
} BbmPartitionOrder;

/*
 * A round of a migration has two phases: it processes rows, and then verifies
 * what it has done.  Most migrations consist of the first phase alone.
 */
typedef struct BbmPhase
{
	int			round;			/* from 1 on; 0: none */
	bool		verifies;
} BbmPhase;

#define BBM_WORK(round) ((BbmPhase) {(round), false})
#define BBM_VERIFY(round) ((BbmPhase) {(round), true})

static inline bool
bbm_phase_is(BbmPhase a, BbmPhase b)
{
	return a.round == b.round && a.verifies == b.verifies;
}

static inline bool
bbm_phase_precedes(BbmPhase a, BbmPhase b)
{
	return a.round < b.round || (a.round == b.round && !a.verifies && b.verifies);
}

/* The value of the column "phase". */
static inline const char *
bbm_phase_name(BbmPhase phase)
{
	return phase.verifies ? "verify" : "work";
}

/*
 * One end of a range, inclusive.  If the key is one integer, or a block of the
 * table, "number" is its value.  For any other key, "key" is a text[] of the
 * values of its columns, and "number" counts the ranges.
 */
typedef struct BbmBound
{
	int64		number;
	Datum		key;			/* text[]; 0 without */
} BbmBound;

/* A row of batched_background_migrations, as far as C needs it. */
typedef struct BbmMigration
{
	int64		id;
	char	   *name;
	BbmStatus	status;
	TimestampTz updated_at;		/* 0 when NULL; shows whether the row has changed */
	TimestampTz changed_at;		/* the same, or when it was inserted */
	BbmBound	min;
	BbmBound	max;
	bool		min_found;		/* the bound was not given: it was read from the table */
	bool		max_found;
	int			batch_size;
	int			sub_batch_size; /* 0: one commit a job */
	double		target_ms;		/* time that a batch may take; 0: its size is fixed */
	int			min_batch_size;
	int			max_batch_size;
	int64		max_batch_wal;	/* bytes; 0 for no limit */
	char	   *job;
	char	   *operation;		/* "update" or "delete": we compose the statement; NULL: job is the user's */
	char	   *set_clause;
	char	   *filter;	/* a finished row does not satisfy it; NULL: none */
	char	   *row_check;	/* what verification requires of rows; NULL: that they do not satisfy filter */
	bool		verify;
	bool		followed;		/* max has been moved because of "follow" */
	bool		follow;			/* also process rows that were added since the start */
	bool		allow_key_change;
	bool		rows_stay;
	bool		skip_null_keys; /* rows that are in no range are left unchanged */
	BbmPartitionOrder partition_order;
	char	   *table_name;
	char	   *column_name;
	char	   *index_name;		/* the index that ranges are read from; NULL: any suitable one */
	char	   *key_order;		/* the sort order of ranges; NULL: not fixed, or an integer's */
	char	   *strategy;		/* NULL for the default */
	BbmPhase	phase;
	int			workers;
	int			max_attempts;
	BbmOnError	on_error;
	int			max_errors;
	double		max_failed_share;	/* of the newest jobs; negative: no limit */
	bool		share_table;
	bool		synchronous;
	bool		allow_full_scan;	/* a batch may read the whole table */
	char	   *search_path;
	Datum		job_settings;	/* text[] of name=value; 0: those of the session apply */
	Oid			owner;
	char	   *origin;			/* where it was started, or defined */
	bool		restored;		/* its row came with a dump, and it was not started since */
	Oid			table_oid;		/* the table here when the migration was started; InvalidOid: not yet */
	int64		total;			/* estimated number of its rows; negative: not estimated yet */
	bool		was_started;		/* started_at is set: a worker has started it once */
	bool		was_done;		/* finished_at is set: status is "finished" because the work was done */
	const BbmOverrides *overrides;	/* NULL: the server's settings apply */
	bool		unlimited;		/* its owner is a superuser: the server's settings do not limit its own */
	char	   *shard_record;	/* of a distributed table: what records what is done in each shard; else NULL */
	int64		shard_id;		/* it is about this shard alone; 0: not, or about the distributed table */
	int64		shard_epoch;	/* fencing token: another node that takes the shard over raises it in the record */
	char	   *unreached_nodes;	/* of a distributed table, paused or failed: nodes yet to be reached; or NULL */
} BbmMigration;

/* Is it about a distributed table as a whole?  Then it has no batches of its own: see engine/cluster.c. */
static inline bool
bbm_is_of_cluster(const BbmMigration *migration)
{
	return migration->shard_record != NULL && migration->shard_id == 0;
}

/* What a job's range is of; the column "kind". */
typedef enum BbmJobKind
{
	BBM_JOB_RANGE,				/* the migration's: the newest one shows up to where ranges are allocated */
	BBM_JOB_REPAIR,				/* rows that verification has found in it */
	BBM_JOB_RETRY				/* rows that were quarantined */
} BbmJobKind;

/*
 * Some keys of a range of an integer key, as they were when the range was
 * allocated: a commit can end at any of them without another walk along the
 * keys.  Nothing but the sizes of the commits depends on what was there.
 */
typedef struct BbmMarks
{
	int			size;			/* of a commit then ... */
	int			parts;			/* ... which has so many marks, at equal distances */
	bool		unique;			/* no two rows have the same key */
	bool		is_open;		/* the range goes on beyond all keys that were there */
	int			n;
	int64	   *keys;
} BbmMarks;

/* How many keys of the range there were before the i-th mark, and it, from 0 on. */
static inline int64
bbm_keys_to_mark(const BbmMarks *marks, int i)
{
	return (int64) (i + 1) * marks->size / marks->parts;
}

/* A row of batched_background_migration_jobs that this process has claimed. */
typedef struct BbmJob
{
	int64		id;
	int64		migration_id;
	BbmPhase	phase;
	Oid			relation;		/* the partition that the range belongs to, or InvalidOid */
	char	   *relation_name;	/* quoted, or NULL */
	BbmBound	min;
	BbmBound	max;
	bool		has_cursor;		/* a part of the range is done and committed ... */
	BbmBound	cursor;			/* ... up to and including this key */
	int			batch_size;		/* the batch size when the range was allocated */
	int			attempts;
	BbmJobKind	kind;
	bool		bisect;			/* it has used up its attempts: rows that fail are quarantined */
	int			claim_epoch;		/* fencing token: a claim by another process raises it */
	int64		key_count;
	int			reduced_sub_batch_size; /* keys per commit, when reduced; 0: not reduced */
	int			no_progress;	/* the weight of its requeues since the last progress; see engine/outcome.h */
	int			requeues_in_row;	/* ... and their number */
	int			ran_size;		/* keys in its last batch; 0: it never started */
	bool		ran_from_known;	/* it is known where that began: with the job, or (has_cursor) here ... */
	BbmBound	ran_from;
	bool		caught_cancel;	/* its last batch caught the cancel that was meant to end it */
	BbmMarks   *marks;			/* in its range; NULL: none, or another process has allocated it */
	ItemPointerData tid;		/* of its row, while we have locked it */
} BbmJob;

/*
 * The counts of changed rows that batches report are added up and shown to
 * everybody, and a function may report any number.  We accept no more rows
 * than a table can have.
 */
#define BBM_MOST_ROWS ((int64) MaxBlockNumber * MaxHeapTuplesPerPage)

static inline int64
bbm_row_count(int64 rows)
{
	return Max(Min(rows, BBM_MOST_ROWS), 0);
}

/* The sum of two counts, capped at the largest int64. */
static inline int64
bbm_add_counts(int64 a, int64 b)
{
	return b > PG_INT64_MAX - a ? PG_INT64_MAX : a + b;
}

/*
 * How far "to" is behind "from", negative if it is before it.  Near the ends of
 * int64 a double does not tell neighbours apart, but it does tell their distance.
 */
static inline double
bbm_distance(int64 from, int64 to)
{
	return to >= from ? (double) ((uint64) to - (uint64) from) : -(double) ((uint64) from - (uint64) to);
}

/*
 * Converts an estimate to a count.  A value that is not a number, or is out of
 * range, becomes the nearest possible count.
 */
static inline int64
bbm_count_of(double value)
{
	/* written this way because of NaN */
	if (!(value > 0))
		return 0;
	return value < (double) PG_INT64_MAX ? (int64) value : PG_INT64_MAX;
}

#endif							/* BBM_H */
