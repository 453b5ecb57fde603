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

/* A part of one partition, bounds inclusive. */
typedef struct BbmRange
{
	BbmBound	min;
	BbmBound	max;
	int64		key_count;		/* keys seen in it */
} BbmRange;

/* Where a cut begins and ends. */
typedef struct BbmAllocation
{
	const BbmBound *after;		/* the last bound cut so far, or NULL: at the migration's first */
	const BbmBound *max;		/* not beyond this */
	int			size;			/* keys wanted */
	bool		verifies;		/* the pass only looks */
	bool		open_below;		/* without "after", at the first key there is, if that is less */
} BbmAllocation;

typedef struct BbmStrategy
{
	const char *name;
	bool		one_at_a_time;	/* jobs have no range of their own, so they run one by one */
	bool		has_key;		/* cuts along a key of columns */
	bool		table_scans;			/* rows move between ranges: done when a look at all finds none */

	/* Resolves what of the migration is the strategy's own, if anything; an error says what does not fit. */
	void		(*resolve) (BbmTarget *target);

	/* What a table with rows, open and locked, has to have for it; an error says what it lacks.  NULL: nothing. */
	void		(*check_table) (BbmTarget *target, Relation rel);

	/*
	 * Where rows move: before a pass that works is cut in a partition, after a batch, and before a
	 * look (at all pages).
	 */
	void		(*begin_pass) (BbmTarget *target, BbmPartition *partition, int pass);
	void		(*after_batch) (BbmTarget *target, BbmPartition *partition);
	void		(*begin_check) (BbmTarget *target, BbmPartition *partition, bool at_all);

	/* The next range of a partition; false when there is none. */
	bool		(*next_range) (BbmTarget *target, BbmPartition *partition, const BbmAllocation *cut, BbmRange *range);

	/* The first n keys of the rest of a job's range, to be done in one commit; rest->min is done if "after". */
	void		(*first_sub_batch) (BbmTarget *target, BbmPartition *partition, const BbmRange *rest, bool after, int n,
									BbmRange *part);

	/* A predicate over a job's parameters, for rows of a partition called "alias". */
	char	   *(*predicate) (BbmTarget *target, BbmPartition *partition, const char *alias);

	/* An expression that tells of a row that was updated whether it is still to be done; NULL for none. */
	char	   *(*undone) (BbmTarget *target, const char *alias);

	/* Of so many rows, how many keys the migration is about. */
	double		(*share) (BbmTarget *target, double rows);
} BbmStrategy;

typedef enum BbmJobForm
{
	BBM_JOB_STATEMENT,			/* $1 … are the bounds */
	BBM_JOB_RANGE_FUNCTION,		/* (min, max) */
	BBM_JOB_REGISTRY_FUNCTION,	/* (table_name, column_name, min, max, batch_size) */
	BBM_JOB_COMPOSED,			/* an UPDATE or DELETE of ours */
	BBM_JOB_NONE				/* the rows are only looked at */
} BbmJobForm;

/* Which rows of a range the job is about. */
typedef enum BbmRepairs
{
	BBM_REPAIRS_NONE,			/* those it is about by itself */
	BBM_REPAIRS_FILTER,			/* those that verification has found to meet the filter still */
	BBM_REPAIRS_CHECK			/* ... or not to meet the check */
} BbmRepairs;

/*
 * A table with rows of its own, resolved: the migration's table, or one
 * partition or child of it.
 */
struct BbmPartition
{
	MemoryContext context;
	Oid			relid;
	char		relkind;
	bool		as_one_table;	/* with all that is below it */
	BbmRepairs	repairs;		/* what its plan is about */
	bool		is_foreign;		/* has rows on another server */
	bool		checks_key;		/* a trigger could change the key: each batch tells of rows that have left its range */
	char	   *name;			/* quoted, qualified */
	char	   *source;			/* what to read and write instead, in SQL, ... */
	char	   *own_rows;		/* ... and a condition for the rows of the partition in it; NULL: all */
	Oid			index;			/* to walk; InvalidOid: ask the table with a query */
	bool		backwards;
	SPIPlanPtr	plan;			/* the job's */
	int			plan_generation;	/* of the plan that bbm_plan_choose has seen */
	SPIPlanPtr	left_plan;		/* counts rows that are still to be done; NULL until needed */
	SPIPlanPtr	check_plan;		/* counts rows that do not meet the check; NULL until needed */
	SPIPlanPtr	keys_plan[2];	/* keys from a bound on, and after it; NULL until needed */
	SPIPlanPtr	probe;			/* the strategy's own, if it has one */
	XLogRecPtr	clean_lsn;		/* block ranges: pages unchanged since are clean ... */
	Oid			filenode;		/* ... in these files ... */
	BlockNumber end_block;		/* ... and where the pass ends */
	double		rows;			/* as the planner sees it */
	int			cuts;			/* by this process */
};

/*
 * A migration resolved against the database: what the engine needs to cut and
 * to execute.  Lives in a context of its own; see target.c.
 */
struct BbmTarget
{
	MemoryContext context;
	BbmMigration *migration;
	const BbmStrategy *strategy;
	Oid			relid;
	char	   *alias;			/* what the table is called in texts, quoted */
	bool		has_partitions; /* partitioned, or has children */
	BbmPartitionOrder order;	/* how its leaves are gone over, should it have any; see target/order.c */
	bool		per_partition;	/* cut partition by partition; else as one table */
	bool		rounds;			/* rows may be missed: a check over all partitions tells what is left */
	BbmRepairs	repairs;		/* what the job at hand is about */
	bool		as_owner;		/* rows are asked for with the owner's rights, and of a tree through its root */
	BbmRights  *rights;			/* target/rights.c's */
	int			partitions;		/* of a tree that is cut as one table */
	bool		moves_rows;		/* into other partitions: the statement names the root, and its partition by tableoid */
	AttrNumber	attnum;			/* of the null strategy's column */
	BbmKey		key;
	Oid			column_type;	/* what $1 and $2 are without a key of columns */
	BbmJobForm	form;
	char	   *call;			/* of a function, with its parameters */
	bool		returns_count;	/* a function that returns how many rows it changed */
	bool		fixed;			/* composed: whether a row is to be done changes with the row alone */
	BbmPartition *partition;	/* the one opened last */
	BbmSizing	sizing;			/* of a batch whose size follows the measured time */
	int			reduced_sub_batch_size;		/* keys a commit, when cut down in this process; 0 not */
	bool		has_triggers;	/* BEFORE UPDATE, of the table itself */
	bool		planned_anew;	/* since a plan was last refused; see target/plan_guard.c */
	bool		claim_apart;	/* an error was met: no claim in the transaction of a batch */
	bool		cpus_are_short; /* as this process has met them; sizes go by it */
	bool		has_worked;		/* a job was run in this process; see may_have_ended */
	int			merge_in;		/* jobs until this process merges old ones; 0 not drawn yet */
	int			failures_in_row;
	int			requeues_in_row;
	TimestampTz hold_until;		/* after many of them */
	TimestampTz table_since;	/* since when we have had the table, 0 when somebody else has */
	struct BbmThrottle *throttle;	/* throttle/throttle.c's; NULL until asked for */
	struct BbmLockSet *locks;	/* target/lockset.c's; NULL before the first batch */
	LOCKMODE	lock_mode;		/* of its tables, when they are resolved */
	TimestampTz next_poll;		/* when to look for jobs left over; 0 with the next claim */
};

#endif							/* BBM_TARGET_TARGET_H */
