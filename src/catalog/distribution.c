/*-------------------------------------------------------------------------
 *
 * distribution.c
 *		How Citus has distributed a table: its shards, and a value of the
 *		distribution column that hashes into each.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/distribution.h"

#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "catalog/shards.h"

/* How many values are tried at first, for each shard, and at most. */
#define FIRST_VALUES 64
#define MOST_VALUES 1000000

/* Reads how Citus has distributed the table; false if it has not.  Needs SPI. */
bool
bbm_distribution(Oid relid, BbmDistribution *d)
{
	memset(d, 0, sizeof(BbmDistribution));
	if (!bbm_citus_is_here() ||
		bbm_cluster_query(GetUserId(),
						  psprintf("SELECT p.partmethod, p.repmodel, p.colocationid, a.attname, "
								   "(SELECT count(*) FROM pg_catalog.pg_dist_shard s WHERE s.logicalrelid = p.logicalrelid), "
								   "(SELECT count(*) FROM pg_catalog.pg_dist_shard s JOIN pg_catalog.pg_dist_placement l "
								   " ON l.shardid = s.shardid WHERE s.logicalrelid = p.logicalrelid), "
								   "EXISTS (SELECT FROM pg_catalog.pg_dist_schema n JOIN pg_catalog.pg_class c ON c.relnamespace = n.schemaid "
								   " WHERE c.oid = p.logicalrelid), "
								   "format_type(a.atttypid, a.atttypmod), nullif(a.attcollation, 0)::regcollation::text "
								   "FROM pg_catalog.pg_dist_partition p LEFT JOIN pg_catalog.pg_attribute a ON p.partkey IS NOT NULL "
								   "AND a.attrelid = p.logicalrelid AND a.attname = column_to_column_name(p.logicalrelid, p.partkey) "
								   "WHERE p.logicalrelid = %u", relid)) == 0)
		return false;
	d->method = bbm_cluster_text(0, 1)[0];
	d->replication = bbm_cluster_text(0, 2)[0];
	d->colocation = (int) bbm_cluster_int64(0, 3);
	d->column = bbm_cluster_text(0, 4);
	d->shards = (int) bbm_cluster_int64(0, 5);
	d->placements = (int) bbm_cluster_int64(0, 6);
	d->of_tenant = bbm_cluster_bool(0, 7);
	d->type = bbm_cluster_text(0, 8);
	d->collation = bbm_cluster_text(0, 9);
	return true;
}

/* ----------------------------------------------------------------
 * Keys that hash into a shard
 * ----------------------------------------------------------------
 */

/* The first positive integer that a numeric of this precision and scale cannot have, of those that are tried. */
static int
too_large_for_numeric(int32 typmod)
{
	int			digits = (((typmod - VARHDRSZ) >> 16) & 0xffff) - (((((typmod - VARHDRSZ) & 0x7ff)) ^ 1024) - 1024);
	int			limit = 1;

	while (digits-- > 0 && limit <= MOST_VALUES)
		limit *= 10;
	return limit;
}

/*
 * An expression that makes values of the column from the number i; NULL if we
 * know none.  A domain may forbid them.  The cast makes of each what the column
 * can have, as its length may be limited.
 */
static char *
value_expression(Oid relid, const BbmDistribution *d)
{
	Oid			type;
	int32		typmod;
	Oid			collation;
	char		category;
	bool		preferred;

	get_atttypetypmodcoll(relid, get_attnum(relid, d->column), &type, &typmod, &collation);
	if (type == UUIDOID)
		return pstrdup("pg_catalog.md5(i::pg_catalog.text)::pg_catalog.uuid");
	if (type == INT2OID)
		return pstrdup("(i % 32768)::pg_catalog.int2");
	if (type == NUMERICOID && typmod >= VARHDRSZ)
		return psprintf("(i %% %d)::%s", too_large_for_numeric(typmod), d->type);
	if (type == DATEOID || type == TIMESTAMPOID || type == TIMESTAMPTZOID)
		return psprintf("('2000-01-01'::pg_catalog.date + i::pg_catalog.int4)::%s", d->type);
	get_type_category_preferred(type, &category, &preferred);
	if (get_typtype(type) != TYPTYPE_DOMAIN && (category == TYPCATEGORY_NUMERIC || category == TYPCATEGORY_STRING))
		return psprintf("i::pg_catalog.text::%s", d->type);
	return NULL;
}

static BbmDistributionShard *
shard_of(List *shards, int64 id)
{
	ListCell   *cell;

	foreach(cell, shards)
	{
		if (((BbmDistributionShard *) lfirst(cell))->id == id)
			return lfirst(cell);
	}
	return NULL;
}

/* Returns a list of BbmDistributionShard, without values.  Needs SPI. */
List *
bbm_distribution_shards(Oid relid)
{
	List	   *shards = NIL;

	(void) bbm_cluster_query(GetUserId(),
							 psprintf("SELECT shardid, coalesce(shardminvalue, ''), coalesce(shardmaxvalue, '') "
									  "FROM pg_catalog.pg_dist_shard WHERE logicalrelid = %u ORDER BY shardid", relid));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		BbmDistributionShard *shard = palloc0(sizeof(BbmDistributionShard));

		shard->id = bbm_cluster_int64(i, 1);
		shard->low = bbm_cluster_text(i, 2);
		shard->high = bbm_cluster_text(i, 3);
		shards = lappend(shards, shard);
	}
	return shards;
}

static int
without_value(List *shards)
{
	int			n = 0;
	ListCell   *cell;

	foreach(cell, shards)
		n += ((BbmDistributionShard *) lfirst(cell))->value == NULL;
	return n;
}

/* Sets the values of the last statement, (shard, value). */
static void
set_values(List *shards)
{
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		BbmDistributionShard *shard = shard_of(shards, bbm_cluster_int64(i, 1));

		if (shard && shard->value == NULL)
			shard->value = bbm_cluster_text(i, 2);
	}
}

/* A text that format() shows as it is. */
static char *
for_format(const char *text)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (; *text != '\0'; text++)
		appendStringInfo(&buf, "%s%c", *text == '%' ? "%" : "", *text);
	return buf.data;
}

/*
 * Finds a value for each shard: Citus says where one goes.  A shard of few
 * hash values, as a single tenant's, is hardly hit by chance: a row of its own
 * has such a value.  A shard that is empty, too, remains without.
 */
void
bbm_distribution_values(Oid user, Oid relid, const BbmDistribution *d, List *shards)
{
	int			least = list_length(shards) * FIRST_VALUES;
	char	   *value;
	char	   *column;
	char	   *command;
	ListCell   *cell;

	if (d->column == NULL)
	{
		foreach(cell, shards)
			((BbmDistributionShard *) lfirst(cell))->value = "0";
		return;
	}
	value = value_expression(relid, d);
	for (int n = least, from = 1; value && without_value(shards) > 0 && n <= MOST_VALUES; from = n + 1, n *= 8)
	{
		(void) bbm_cluster_query(GetUserId(),
								 psprintf("SELECT shard, min(value::text) FROM (SELECT v.value, "
										  "get_shard_id_for_distribution_column(%u::regclass, v.value) AS shard "
										  "FROM (SELECT %s AS value FROM generate_series(%d, %d) i) v) s GROUP BY shard",
										  relid, value, from, n));
		set_values(shards);
	}
	if (without_value(shards) == 0)
		return;
	/* run_command_on_shards puts in the shard's name with format() */
	column = for_format(quote_identifier(d->column));
	command = psprintf("SELECT %s::text FROM %%s WHERE %s IS NOT NULL LIMIT 1", column, column);
	(void) bbm_cluster_query(user,
							 psprintf("SELECT shardid, result FROM run_command_on_shards(%u::regclass, %s) WHERE success AND result <> ''",
									  relid, quote_literal_cstr(command)));
	set_values(shards);
}

/* Where the shards of the table are, as a text that is the same as long as they are the same shards, there. */
char *
bbm_shard_places(Oid relid)
{
	(void) bbm_cluster_query(GetUserId(),
							 psprintf("SELECT coalesce(string_agg(s.shardid || ' ' || p.groupid, ', ' ORDER BY s.shardid, p.groupid), '') "
									  "FROM pg_catalog.pg_dist_shard s JOIN pg_catalog.pg_dist_placement p ON p.shardid = s.shardid "
									  "WHERE s.logicalrelid = %u", relid));
	return bbm_cluster_text(0, 1);
}
