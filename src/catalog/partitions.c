/*-------------------------------------------------------------------------
 *
 * partitions.c
 *		SQL over bbm_partitions: the state of each partition of a migration.
 *
 * Claims write these rows, under the migration's lock, together with the job
 * that they create: nobody else writes between a read and what follows from
 * it.  The exception is bbm_partition_clean, in a job during which no range is
 * allocated.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/partitions.h"

#include "catalog/pg_type_d.h"
#include "utils/array.h"

#include "catalog/errors.h"
#include "catalog/sql.h"
#include "catalog/totals.h"

#define PARTITION_COLUMNS \
	"relation, relation_name, round::bigint, started_round::bigint, end_block, joined, " \
	"low_value IS NOT NULL, low_value, high_value, low_key, high_key, phase = 'verify', attached"

static BbmPartitionState *
read_entry(uint64 row)
{
	BbmPartitionState *entry = palloc0(sizeof(BbmPartitionState));

	entry->relation = bbm_sql_oid(row, 1);
	entry->name = bbm_sql_text(row, 2, CurrentMemoryContext);
	entry->phase.round = bbm_sql_int64(row, 3);
	entry->started_round = bbm_sql_int64(row, 4);
	entry->end_block = (BlockNumber) bbm_sql_int64(row, 5);
	entry->joined = bbm_sql_bool(row, 6);
	entry->has_extent = bbm_sql_bool(row, 7);
	entry->low.number = bbm_sql_int64(row, 8);
	entry->high.number = bbm_sql_int64(row, 9);
	entry->low.key = bbm_sql_array(row, 10, CurrentMemoryContext);
	entry->high.key = bbm_sql_array(row, 11, CurrentMemoryContext);
	entry->phase.verifies = bbm_sql_bool(row, 12);
	entry->attached = bbm_sql_bool(row, 13);
	return entry;
}

/* Returns a list of BbmPartitionState. */
List *
bbm_partitions(int64 migration_id)
{
	static BbmSql sql = {
		"SELECT " PARTITION_COLUMNS " FROM @.bbm_partitions WHERE migration_id = $1 ORDER BY relation",
		1, {INT8OID}
	};
	List	   *list = NIL;

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id));
	for (uint64 i = 0; i < SPI_processed; i++)
		list = lappend(list, read_entry(i));
	return list;
}

/* NULL when there is no row. */
BbmPartitionState *
bbm_partition_state(int64 migration_id, Oid relation)
{
	static BbmSql sql = {
		"SELECT " PARTITION_COLUMNS " FROM @.bbm_partitions WHERE migration_id = $1 AND relation = $2",
		2, {INT8OID, OIDOID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id), ObjectIdGetDatum(relation));
	return SPI_processed == 0 ? NULL : read_entry(0);
}

void
bbm_partition_add(int64 migration_id, Oid relation, const char *name, bool joined)
{
	static BbmSql sql = {
		"INSERT INTO @.bbm_partitions (migration_id, relation, relation_name, joined) VALUES ($1, $2, $3, $4)",
		4, {INT8OID, OIDOID, TEXTOID, BOOLOID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(migration_id), ObjectIdGetDatum(relation), CStringGetTextDatum(name),
				BoolGetDatum(joined));
}

/* A round begins on the partition. */
void
bbm_partition_begin(int64 migration_id, Oid relation, int round, BlockNumber end_block)
{
	static BbmSql sql = {
		"UPDATE @.bbm_partitions SET started_round = $3, end_block = $4 WHERE migration_id = $1 AND relation = $2",
		4, {INT8OID, OIDOID, INT4OID, INT8OID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(migration_id), ObjectIdGetDatum(relation), Int32GetDatum(round),
				Int64GetDatum((int64) end_block));
}

/* All ranges of the partition are allocated in this phase. */
void
bbm_partition_done(int64 migration_id, Oid relation, BbmPhase phase)
{
	static BbmSql sql = {
		"UPDATE @.bbm_partitions SET phase = $3, round = $4 WHERE migration_id = $1 AND relation = $2",
		4, {INT8OID, OIDOID, TEXTOID, INT4OID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(migration_id), ObjectIdGetDatum(relation),
				CStringGetTextDatum(bbm_phase_name(phase)), Int32GetDatum(phase.round));
}

/* The partition was attached again, or detached. */
void
bbm_partition_attached(int64 migration_id, Oid relation, bool attached)
{
	static BbmSql sql = {
		"UPDATE @.bbm_partitions SET attached = $3 WHERE migration_id = $1 AND relation = $2",
		3, {INT8OID, OIDOID, BOOLOID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(migration_id), ObjectIdGetDatum(relation), BoolGetDatum(attached));
}

/* The partition has another name now; a restored database finds it by its name. */
void
bbm_partition_rename(int64 migration_id, Oid relation, const char *name)
{
	static BbmSql entry = {
		"UPDATE @.bbm_partitions SET relation_name = $3 WHERE migration_id = $1 AND relation = $2",
		3, {INT8OID, OIDOID, TEXTOID}
	};
	static BbmSql jobs = {
		"UPDATE @.batched_background_migration_jobs SET relation_name = $3 "
		"WHERE batched_background_migration_id = $1 AND relation = $2 AND status <> 4",
		3, {INT8OID, OIDOID, TEXTOID}
	};
	Datum		values[] = {Int64GetDatum(migration_id), ObjectIdGetDatum(relation), CStringGetTextDatum(name)};

	bbm_sql_run_values(&entry, values, NULL, true);
	bbm_sql_run_values(&jobs, values, NULL, true);
}

/*
 * The verification of this round has found nothing left in the partition; one
 * that has not been processed is left unchanged.
 */
void
bbm_partition_clean(int64 migration_id, Oid relation, int round)
{
	static BbmSql sql = {
		"UPDATE @.bbm_partitions SET phase = 'verify', round = $3 "
		"WHERE migration_id = $1 AND relation = $2 AND attached AND round > 0",
		3, {INT8OID, OIDOID, INT4OID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(migration_id), ObjectIdGetDatum(relation), Int32GetDatum(round));
}

/* The first phase has a new end: every partition may have more ranges to allocate. */
void
bbm_partitions_reopen(int64 migration_id)
{
	static BbmSql sql = {
		"UPDATE @.bbm_partitions SET round = 0 WHERE migration_id = $1 AND round > 0",
		1, {INT8OID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(migration_id));
}

/* Deletes those of this migration, or (0) of all. */
void
bbm_partitions_forget(int64 migration_id)
{
	static BbmSql all = {"DELETE FROM @.bbm_partitions", 0, {0}};
	static BbmSql one = {
		"DELETE FROM @.bbm_partitions WHERE migration_id = $1",
		1, {INT8OID}
	};

	bbm_sql_run(migration_id == 0 ? &all : &one, true, Int64GetDatum(migration_id));
}

/*
 * A migration of a restored database is started here: its tables, which have
 * other OIDs there, are found by their names.  A database that was cloned from
 * files (a template, pg_upgrade) has the OIDs of its original.
 */
void
bbm_partitions_accept(int64 migration_id)
{
	static BbmSql partitions = {
		"UPDATE @.bbm_partitions SET relation = coalesce(to_regclass(relation_name)::oid, 0) WHERE migration_id = $1",
		1, {INT8OID}
	};
	static BbmSql jobs = {
		"UPDATE @.batched_background_migration_jobs SET relation = coalesce(to_regclass(relation_name)::oid, 0) "
		"WHERE batched_background_migration_id = $1 AND relation IS NOT NULL",
		1, {INT8OID}
	};

	bbm_sql_run(&partitions, true, Int64GetDatum(migration_id));
	bbm_sql_run(&jobs, true, Int64GetDatum(migration_id));
	bbm_errors_accept(migration_id);
}

/*
 * Jobs of these partitions that were detached have to be done after all.  The
 * caller has bbm_migration_lock.
 */
void
bbm_jobs_revive(int64 migration_id, List *partitions)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migration_jobs SET status = 1, detached = false, attempts = 0, "
		"no_progress = 0, requeues_in_row = 0, finished_at = NULL, updated_at = clock_timestamp() "
		"WHERE batched_background_migration_id = $1 AND detached AND relation = ANY ($2)",
		2, {INT8OID, OIDARRAYOID}
	};
	Datum	   *oids = palloc(list_length(partitions) * sizeof(Datum));
	Datum		values[2] = {Int64GetDatum(migration_id)};
	ListCell   *cell;

	foreach(cell, partitions)
		oids[foreach_current_index(cell)] = ObjectIdGetDatum(lfirst_oid(cell));
	values[1] = PointerGetDatum(construct_array(oids, list_length(partitions), OIDOID, sizeof(Oid), true,
												TYPALIGN_INT));
	bbm_sql_run_values(&sql, values, NULL, true);
	if (SPI_processed > 0)
		bbm_totals_forget(migration_id);
}

/* Stores the first and the last key that a partition has when its first range is allocated. */
void
bbm_partition_extent(int64 migration_id, Oid relation, const BbmBound *low, const BbmBound *high)
{
	static BbmSql sql = {
		"UPDATE @.bbm_partitions SET low_value = $3, high_value = $4, low_key = $5, high_key = $6 "
		"WHERE migration_id = $1 AND relation = $2",
		6, {INT8OID, OIDOID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(migration_id), ObjectIdGetDatum(relation), Int64GetDatum(low->number),
				Int64GetDatum(high->number), low->key, high->key);
}

/*
 * Reads the end of a partition's last range in a phase, or (round 0) in that
 * phase of any round; false when it has none.
 * Ranges that were allocated when the root had no child table yet belong to
 * the root itself.
 */
bool
bbm_jobs_last(int64 migration_id, Oid root, Oid relation, BbmPhase phase, BbmBound *last)
{
	static BbmSql sql = {
		"SELECT max_value, max_key FROM @.batched_background_migration_jobs "
		"WHERE batched_background_migration_id = $1 AND coalesce(relation, $3) = $2 AND phase = $4 "
		"AND (round = $5 OR $5 = 0) AND kind = 'range' "
		"ORDER BY id DESC LIMIT 1",
		5, {INT8OID, OIDOID, OIDOID, TEXTOID, INT4OID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id), ObjectIdGetDatum(relation), ObjectIdGetDatum(root),
				CStringGetTextDatum(bbm_phase_name(phase)), Int32GetDatum(phase.round));
	if (SPI_processed == 0)
		return false;
	last->number = bbm_sql_int64(0, 1);
	last->key = bbm_sql_array(0, 2, CurrentMemoryContext);
	return true;
}

/*
 * The number of rows that the jobs have changed since the migration was last
 * started, in one partition or (InvalidOid) in all.
 */
int64
bbm_jobs_rows(int64 migration_id, Oid relation)
{
	static BbmSql sql = {
		"SELECT bbm_internal.bbm_as_bigint(coalesce(sum(row_count), 0)) FROM @.batched_background_migration_jobs "
		"WHERE batched_background_migration_id = $1 AND (relation = $2 OR $2 = 0) AND created_at >= "
		" (SELECT coalesce(updated_at, '-infinity') FROM @.batched_background_migrations WHERE id = $1)",
		2, {INT8OID, OIDOID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id), ObjectIdGetDatum(relation));
	return bbm_sql_int64(0, 1);
}
