/*-------------------------------------------------------------------------
 *
 * keyquery.c
 *		The keys of a table in their order, by a query.
 *
 * For what has no index of its own to walk: a foreign table, and a partitioned
 * table that is cut as a whole, where the server merges what its partitions'
 * indexes give.  The query is the owner's: it runs in the settings of a job.
 *
 *-------------------------------------------------------------------------
 */
#include "strategy.h"

#include "lib/stringinfo.h"

#include "spi.h"
#include "target.h"
#include "txn.h"

/* The text; *nargs parameters: the lower bound first, then the upper, as far as they are given. */
static char *
query_text(const BbmKeyWalk *walk, bool backwards, int *nargs)
{
	const BbmKey *key = &walk->target->key;
	StringInfoData sql;
	const char *word = " WHERE ";

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s%s FROM %s%s AS k", walk->distinct ? "DISTINCT " : "",
					 bbm_key_list_sql(key, "k", false, false),
					 walk->leaf->whole_tree ? "" : "ONLY ", walk->leaf->name);
	*nargs = 0;
	if (walk->from)
	{
		appendStringInfo(&sql, "%s%s", word, bbm_key_compare_sql(key, "k", walk->after ? ">" : ">=", 1));
		*nargs += key->n;
		word = " AND ";
	}
	if (walk->to)
	{
		appendStringInfo(&sql, "%s%s", word, bbm_key_compare_sql(key, "k", "<=", *nargs + 1));
		*nargs += key->n;
	}
	appendStringInfo(&sql, " ORDER BY %s FETCH FIRST " INT64_FORMAT " ROWS %s",
					 bbm_key_list_sql(key, "k", true, backwards), walk->limit,
					 walk->distinct || backwards ? "ONLY" : "WITH TIES");
	return sql.data;
}

static void
read_bound(const BbmKey *key, uint64 row, BbmBound *bound)
{
	Datum		values[BBM_MAX_KEY_COLUMNS];

	for (int i = 0; i < key->n; i++)
	{
		bool		isnull;

		values[i] = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, i + 1, &isnull);
		if (isnull)
			bbm_key_has_null(&key->columns[i]);
	}
	bbm_key_bound(key, values, bound);
}

/* Walks as asked, or (backwards) finds the last key.  Needs a transaction and SPI. */
void
bbm_key_query(BbmKeyWalk *walk, bool backwards)
{
	const BbmKey *key = &walk->target->key;
	Oid			types[2 * BBM_MAX_KEY_COLUMNS];
	Datum		values[2 * BBM_MAX_KEY_COLUMNS];
	int			nargs;
	int			n = 0;
	char	   *sql = query_text(walk, backwards, &nargs);
	int			level;
	int			result;

	if (walk->from)
		bbm_key_values(key, walk->from, &values[n]), n += key->n;
	if (walk->to)
		bbm_key_values(key, walk->to, &values[n]), n += key->n;
	for (int i = 0; i < n; i++)
		types[i] = key->columns[i % key->n].type;
	level = bbm_job_settings(walk->target->migration);
	result = bbm_spi_execute_with_args(sql, nargs, types, values, false);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not look for keys: %s", SPI_result_code_string(result));
	bbm_user_settings_end(level);
	walk->count = SPI_processed;
	if (walk->count > 0)
		read_bound(key, 0, &walk->first);
	if (walk->count >= walk->limit)
		read_bound(key, walk->count - 1, &walk->last);
	SPI_freetuptable(SPI_tuptable);
}
