/*-------------------------------------------------------------------------
 *
 * target.h
 *		A migration resolved: its table, key, job and strategy, as structs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_TARGET_H
#define BBM_TARGET_TARGET_H

#include "base/bbm.h"

#include "access/xlogdefs.h"
#include "executor/spi.h"
#include "storage/block.h"
#include "storage/lockdefs.h"

#include "base/rates.h"
#include "target/key.h"

typedef struct BbmTarget BbmTarget;
typedef struct BbmPartition BbmPartition;
typedef struct BbmRights BbmRights;

/* A range of keys in one partition, bounds inclusive. */
typedef struct BbmRange
{
	BbmBound	min;
	BbmBound	max;
	int64		key_count;		/* number of keys counted in it */
	BbmMarks   *marks;			/* NULL: none */
} BbmRange;

/* Where the allocation of a range begins and ends. */
typedef struct BbmAllocation
{
	const BbmBound *after;		/* the last bound allocated so far; NULL: begin at the migration's first */
	const BbmBound *max;		/* do not allocate beyond this */
	int			size;			/* number of keys wanted */
	bool		verifies;		/* the phase only verifies */
	bool		open_below;		/* without "after", begin at the first existing key, if that is less */
} BbmAllocation;

typedef struct BbmStrategy
{
	const char *name;
	bool		one_at_a_time;	/* jobs have no range of their own, so they run one at a time */
	bool		has_key;		/* allocates ranges along key columns */
	bool		table_scans;			/* rows move between ranges: finished when a verification finds none */

	/* Resolves what is specific to the strategy, if anything; raises an error if something does not fit. */
	void		(*resolve) (BbmTarget *target);

	/*
	 * Raises an error if a table with rows, open and locked, lacks something
	 * the strategy needs.  NULL: needs nothing.
	 */
	void		(*check_table) (BbmTarget *target, Relation rel);

	/* Where rows move: called before a range to be processed is allocated in a partition. */
	void		(*begin_round) (BbmTarget *target, BbmPartition *partition, int round);

	/* Allocates the next range of a partition; false when there is none. */
	bool		(*next_range) (BbmTarget *target, BbmPartition *partition, const BbmAllocation *allocation,
							   BbmRange *range);

	/* The first n keys of what is left of a job's range, for one commit; rest->min is done already if "after". */
	void		(*first_sub_batch) (BbmTarget *target, BbmPartition *partition, const BbmRange *rest, bool after, int n,
									BbmRange *sub_batch);

	/* A predicate over a job's parameters, for rows of a partition with this alias. */
	char	   *(*predicate) (BbmTarget *target, BbmPartition *partition, const char *alias);

	/* An expression that shows whether an updated row is still to be done; NULL for none. */
	char	   *(*undone) (BbmTarget *target, const char *alias);

	/* How many keys of this many rows the migration is about. */
	double		(*share) (BbmTarget *target, double rows);
} BbmStrategy;

typedef enum BbmJobForm
{
	BBM_JOB_STATEMENT,			/* $1 ... are the bounds */
	BBM_JOB_RANGE_FUNCTION,		/* (min, max) */
	BBM_JOB_REGISTRY_FUNCTION,	/* (table_name, column_name, min, max, batch_size) */
	BBM_JOB_COMPOSED,			/* an UPDATE or DELETE composed by us */
	BBM_JOB_NONE				/* the rows are only read */
} BbmJobForm;

/* Which rows of a range the job is about. */
typedef enum BbmRepairs
{
	BBM_REPAIRS_NONE,			/* those that its text is about */
	BBM_REPAIRS_FILTER,			/* those that still meet the filter, as verification has found */
	BBM_REPAIRS_CHECK			/* ... or do not meet the check */
} BbmRepairs;

/*
 * A table with rows of its own, resolved: the migration's table, or one of its
 * partitions or child tables.
 */
struct BbmPartition
{
	MemoryContext context;
	Oid			relid;
	char		relkind;
	bool		as_one_table;	/* together with everything below it */
	BbmRepairs	repairs;		/* the rows that its plan is about */
	bool		is_foreign;		/* has rows on another server */
	bool		checks_key;		/* a trigger could change the key: each batch reports rows that have left its range */
	char	   *name;			/* quoted and qualified */
	char	   *source;			/* what to read and write instead, in SQL, ... */
	char	   *own_rows;		/* ... and a condition for the partition's own rows in it; NULL: all rows */
	Oid			index;			/* to walk; InvalidOid: read the keys with a query */
	bool		backwards;
	SPIPlanPtr	plan;			/* of the job */
	bool		same_plan;		/* for each range; else it is planned for each */
	SPIPlanPtr	left_plan;		/* counts rows that are still to be done; NULL until needed */
	SPIPlanPtr	check_plan;		/* counts rows that do not meet the check; NULL until needed */
	/* keys from a bound on, and after it; the second pair is for batches; NULL until needed */
	SPIPlanPtr	keys_plan[2][2];
	SPIPlanPtr	probe;			/* for the strategy's own query, if it has one */
	BlockNumber end_block;		/* block ranges: the round ends before this block */
	double		rows;			/* the planner's estimate */
	int			allocations;	/* ranges allocated in it by this process */
};

/*
 * A migration resolved against the database: what the engine needs to allocate
 * ranges and to execute jobs.  Has its own memory context; see
 * strategy/resolve.c.
 */
struct BbmTarget
{
	MemoryContext context;
	BbmMigration *migration;
	const BbmStrategy *strategy;
	Oid			relid;
	char	   *alias;			/* the table's quoted name in texts */
	bool		has_partitions; /* partitioned, or has child tables */
	bool		is_reference;	/* a reference table of Citus: each node has a copy, and statements go to all */
	BbmPartitionOrder order;	/* how its partitions, if any, are processed; see target/order.c */
	bool		per_partition;	/* ranges are allocated partition by partition; else as one table */
	bool		rounds;			/* rows may be missed: a check over all partitions finds what is left */
	BbmRepairs	repairs;		/* the rows that the current job is about */
	bool		as_owner;		/* rows are read with the owner's privileges, those of partitions through the root */
	BbmRights  *rights;			/* of target/rights.c */
	int			partitions;		/* their number, if ranges are allocated as one table */
	bool		moves_rows;		/* to other partitions: the statement names the root, and the partition by tableoid */
	AttrNumber	attnum;			/* the null strategy's column */
	BbmKey		key;
	Oid			column_type;	/* the type of $1 and $2 if there are no key columns */
	BbmJobForm	form;
	char	   *call;			/* the call of a function, with its parameters */
	bool		returns_count;	/* the function returns how many rows it changed */
	BbmPartition *partition;	/* the one opened last */
	BbmSizing	sizing;			/* of the adaptive batch size */
	int			reduced_sub_batch_size;		/* keys per commit, when this process has reduced it; 0 not */
	bool		has_triggers;	/* BEFORE UPDATE, of the table itself, or of all that are worked on as one table */
	bool		claim_apart;	/* after an error: do not claim in the transaction of a batch */
	bool		has_worked;		/* this process has run a job; see may_have_ended */
	int			failures_in_row;
	int			batches_without_rows;	/* its first so many batches changed no row; -1: of no interest any more */
	int			requeues_in_row;
	TimestampTz throttled_until;		/* do not continue before this, after many requeues in a row */
	TimestampTz table_since;	/* since when this process has had the table; 0 if another one has it */
	struct BbmThrottle *throttle;	/* of throttle/throttle.c; NULL until needed */
	struct BbmShard *shard;		/* of catalog/shards.c; NULL: the table is no shard of a distributed one */
	struct BbmStatementParts *reads;	/* of target/reads.c; NULL: the statement reads no other table of the cluster */
	struct BbmLockSet *locks;	/* of target/lockset.c; NULL before the first batch */
	LOCKMODE	lock_mode;		/* for its tables, when they are resolved */
	char	   *activity;		/* what its processes show; NULL: the sums are not known yet */
	int			title_length;	/* of its beginning, which is the title of a worker */
	bool		starts;			/* this process has just set it to running, and has not worked on it yet */
	TimestampTz sums_due;		/* when to bring the sums over the jobs up to date; 0: this process is to begin */
	TimestampTz next_poll;		/* when to check for leftover jobs; 0 with the next claim */
	int			locked_polls;	/* how often in a row a job that is due was found locked */
	TimestampTz locked_until;	/* it is not checked again before this */
	const char *locked_by;
};

#endif							/* BBM_TARGET_TARGET_H */
