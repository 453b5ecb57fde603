/*-------------------------------------------------------------------------
 *
 * strategy.h
 *		How a table is cut into ranges: a table of functions, one file each.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_STRATEGY_H
#define BBM_STRATEGY_H

#include "bbm.h"

#include "catalog.h"
#include "executor/spi.h"

typedef struct BbmTarget BbmTarget;

typedef struct BbmRange
{
	int64		min_value;		/* inclusive */
	int64		max_value;		/* inclusive */
	int64		key_count;		/* keys seen in it */
} BbmRange;

typedef struct BbmStrategy
{
	const char *name;
	bool		one_at_a_time;	/* jobs have no range of their own, so they run one by one */

	/* Resolves the key of an opened table into the target; an error says what does not fit. */
	void		(*resolve) (BbmTarget *target);

	/* The bounds of the table now; false when it has no row to do. */
	bool		(*bounds) (BbmTarget *target, int64 *min_value, int64 *max_value);

	/* The next range after what has been cut; false when there is none. */
	bool		(*next_range) (BbmTarget *target, const BbmClaimState *state, BbmRange *range);

	/* The first n keys of the rest of a job's range, to be done in one commit. */
	void		(*first_of) (BbmTarget *target, const BbmRange *rest, int n, BbmRange *part);

	/* Of the table's estimated rows, those the migration is about. */
	double		(*share) (BbmTarget *target);
} BbmStrategy;

typedef enum BbmJobForm
{
	BBM_JOB_STATEMENT,			/* $1 and $2 are the bounds */
	BBM_JOB_RANGE_FUNCTION,		/* (min, max) */
	BBM_JOB_REGISTRY_FUNCTION	/* (table_name, column_name, min, max, batch_size) */
} BbmJobForm;

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
	AttrNumber	attnum;			/* the column named */
	Oid			key_type;		/* int2, int4 or int8; what $1 and $2 are */
	Oid			index;			/* that orders the key; InvalidOid without */
	BbmJobForm	form;
	SPIPlanPtr	plan;			/* the job's */
	SPIPlanPtr	probe;			/* the strategy's own, if it has one */
	bool		returns_count;	/* a function that returns how many rows it changed */
	bool		claim_apart;	/* an error was met: no claim in the transaction of a batch */
	TimestampTz table_since;	/* since when we have had the table, 0 when somebody else has */
	struct BbmPressure *pressure;	/* pressure.c's; NULL until asked for */
	TimestampTz next_look;		/* when to look for jobs left over; 0 with the next claim */
};

/* strategy.c; NULL when there is none of that name */
extern const BbmStrategy *bbm_strategy_find(const char *name);
extern bool bbm_strategy_is_keyed(const BbmStrategy *strategy);

/* one file each */
extern const BbmStrategy bbm_strategy_serial;
extern const BbmStrategy bbm_strategy_null;

/* keyscan.c: walking a unique btree index on an integer column */
extern Oid	bbm_key_index(Oid relid, AttrNumber attnum);
extern bool bbm_key_end(BbmTarget *target, bool highest, int64 *key);
extern int64 bbm_key_walk(BbmTarget *target, int64 from, int64 to, int64 limit, int64 *last);

#endif							/* BBM_STRATEGY_H */
