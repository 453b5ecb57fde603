/*-------------------------------------------------------------------------
 *
 * key_query.c
 *		The keys of a table in their order, by a query.
 *
 * For tables without an index of their own to walk: a foreign table, a
 * partitioned table that is split into ranges as a whole, where the server
 * merges the entries of its partitions' indexes, and a table of which the
 * owner may not see all rows.  The query is the owner's: it runs with the
 * settings of a job.
 *
 * It has no LIMIT, except where it is not the server that executes it, and is
 * read only as far as necessary: so one plan serves for any number of keys, and
 * is kept.  With many partitions, planning it
 * again for each range would cost more than a batch.
 *
 *-------------------------------------------------------------------------
 */
#include "target/key_query.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/portal.h"

#include "base/guc.h"
#include "base/spi.h"
#include "base/user.h"
#include "target/key.h"
#include "target/key_sql.h"
#include "target/lockset.h"
#include "target/target.h"

/* The number of keys fetched at a time, and of keys that tie with the last one. */
#define BBM_FETCH_KEYS 1000
#define BBM_FETCH_TIES 50

/* Citus reads a result to its end, however little of it is fetched. */
static bool
is_limited(const BbmKeyWalk *walk)
{
	return walk->target->is_reference;
}

/* The query's text; its parameters are the lower bound, then the upper bound, if they are given. */
static char *
query_text(const BbmKeyWalk *walk, bool backwards)
{
	const BbmKey *key = &walk->target->key;
	const char *alias = walk->target->alias;
	StringInfoData sql;
	const char *word = " WHERE ";
	int			nargs = 0;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s%s FROM %s AS %s", walk->distinct ? "DISTINCT " : "",
					 bbm_key_list_sql(key, alias, false, false), walk->partition->source, alias);
	if (walk->partition->own_rows)
	{
		appendStringInfo(&sql, "%s%s", word, walk->partition->own_rows);
		word = " AND ";
	}
	if (walk->from)
	{
		appendStringInfo(&sql, "%s%s", word, bbm_key_compare_sql(key, alias, walk->after ? ">" : ">=", 1));
		nargs += key->n;
		word = " AND ";
	}
	if (walk->to)
	{
		appendStringInfo(&sql, "%s%s", word, bbm_key_compare_sql(key, alias, "<=", nargs + 1));
		word = " AND ";
	}
	/* no bound excludes them: rows with a null key are in no range; IS NOT NULL asks for parts of a composite value */
	if (!walk->from && !walk->to)
	{
		appendStringInfo(&sql, "%s%s.%s IS DISTINCT FROM NULL", word, alias, quote_identifier(key->columns[0].name));
		word = " AND ";
	}
	/* the condition may end in a comment */
	if (walk->condition)
		appendStringInfo(&sql, "%s(%s\n)", word, walk->condition);
	appendStringInfo(&sql, " ORDER BY %s", bbm_key_list_sql(key, alias, true, backwards));
	if (is_limited(walk))
		appendStringInfo(&sql, " FETCH FIRST " INT64_FORMAT " ROWS WITH TIES", walk->limit);
	return sql.data;
}

/*
 * The plan for the walk.  A plan for ranges is kept with the partition; *kept
 * says whether this one is.  A batch has plans of its own: the locks of a kept
 * plan are those that it was made with, and a claim's are too weak for a batch
 * (target/lockset.c).
 */
static SPIPlanPtr
query_plan(BbmKeyWalk *walk, bool backwards, int nargs, Oid *types, bool *kept)
{
	BbmPartition *partition = walk->partition;
	SPIPlanPtr *keep = &partition->keys_plan[bbm_lockset_is_on()][walk->after];
	SPIPlanPtr	plan;

	/* only the plans of the target's open partition are freed with it */
	*kept = partition == walk->target->partition && walk->from && walk->to && !backwards && !is_limited(walk) &&
		(walk->condition != NULL) == (partition->repairs != BBM_REPAIRS_NONE);
	if (*kept && *keep)
		return *keep;
	/* returns the first keys soon, rather than sorting all of them */
	plan = bbm_spi_prepare(query_text(walk, backwards), nargs, types,
						   CURSOR_OPT_FAST_PLAN | (*kept ? CURSOR_OPT_GENERIC_PLAN : 0));
	if (*kept)
	{
		bbm_spi_keep(plan);
		*keep = plan;
	}
	return plan;
}

static void
read_values(const BbmKey *key, uint64 row, Datum *values)
{
	for (int i = 0; i < key->n; i++)
	{
		bool		isnull;

		values[i] = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, i + 1, &isnull);
		if (isnull)
			bbm_key_has_null(&key->columns[i]);
	}
}

/* Counts the following keys that tie with the last one. */
static void
count_ties(BbmKeyWalk *walk, Portal portal)
{
	const BbmKey *key = &walk->target->key;
	Datum		last[BBM_MAX_KEY_COLUMNS];
	Datum		values[BBM_MAX_KEY_COLUMNS];
	uint64		n;
	bool		tie = true;

	bbm_key_values(key, &walk->last, last);
	while (tie && (n = bbm_spi_cursor_fetch(portal, BBM_FETCH_TIES)) > 0)
	{
		for (uint64 i = 0; i < n && tie; i++)
		{
			read_values(key, i, values);
			tie = bbm_key_compare(key, values, last) == 0;
			walk->count += tie;
		}
		tie &= n == BBM_FETCH_TIES;
		SPI_freetuptable(SPI_tuptable);
	}
}

/* Reads the requested keys. */
static void
read_keys(BbmKeyWalk *walk, Portal portal, bool with_ties)
{
	const BbmKey *key = &walk->target->key;
	Datum		values[BBM_MAX_KEY_COLUMNS];

	while (walk->count < walk->limit)
	{
		int64		wanted = Min(walk->limit - walk->count, BBM_FETCH_KEYS);
		uint64		n = bbm_spi_cursor_fetch(portal, wanted);

		if (n > 0 && walk->count == 0)
		{
			read_values(key, 0, values);
			bbm_key_bound(key, values, &walk->first);
		}
		walk->count += n;
		if (n > 0 && walk->count == walk->limit)
		{
			read_values(key, n - 1, values);
			bbm_key_bound(key, values, &walk->last);
		}
		SPI_freetuptable(SPI_tuptable);
		if (n < wanted)
			return;
	}
	if (with_ties)
		count_ties(walk, portal);
}

/* Does the requested walk, or (backwards) finds the last key.  Needs a transaction and SPI. */
void
bbm_key_query(BbmKeyWalk *walk, bool backwards)
{
	const BbmKey *key = &walk->target->key;
	Oid			types[2 * BBM_MAX_KEY_COLUMNS];
	Datum		values[2 * BBM_MAX_KEY_COLUMNS];
	int			n = 0;
	int			level;
	SPIPlanPtr	plan;
	Portal		portal;
	bool		kept;

	if (walk->from)
		bbm_key_values(key, walk->from, &values[n]), n += key->n;
	if (walk->to)
		bbm_key_values(key, walk->to, &values[n]), n += key->n;
	for (int i = 0; i < n; i++)
		types[i] = key->columns[i % key->n].type;
	walk->count = 0;
	level = bbm_job_settings(walk->target->migration);
	bbm_guc_set("cursor_tuple_fraction", "0", true);
	bbm_guc_set("jit", "off", true);
	plan = query_plan(walk, backwards, n, types, &kept);
	portal = bbm_spi_cursor_open(plan, values);
	read_keys(walk, portal, !walk->distinct && !backwards);
	bbm_spi_cursor_close(portal);
	if (!kept)
		SPI_freeplan(plan);
	bbm_user_settings_end(level);
}
