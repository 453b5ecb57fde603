/*-------------------------------------------------------------------------
 *
 * job_guard.c
 *		The guards of the jobs, of TRUNCATE, and of what replication brings.
 *
 *-------------------------------------------------------------------------
 */
#include "base/bbm.h"

#include "commands/trigger.h"
#include "executor/spi.h"
#include "replication/logicalworker.h"
#include "utils/timestamp.h"

#include "base/user.h"
#include "catalog/errors.h"
#include "catalog/extension.h"
#include "catalog/jobs.h"
#include "catalog/merge.h"
#include "catalog/migrations.h"
#include "catalog/partitions.h"
#include "catalog/totals.h"
#include "engine/event.h"
#include "sql/access.h"
#include "sql/columns.h"
#include "sql/guards.h"
#include "sql/row.h"
#include "strategy/strategy.h"

PG_FUNCTION_INFO_V1(bbm_job_guard);
PG_FUNCTION_INFO_V1(bbm_job_deleted);
PG_FUNCTION_INFO_V1(bbm_truncate_guard);
PG_FUNCTION_INFO_V1(bbm_replica_guard);

/*
 * The counts are added up, and increased later: a user may write nothing that
 * no job can have.
 */
static void
check_counts(BbmRow row)
{
	static const char *const counts[] = {
		"attempts", "claim_epoch", "keys_done", "key_count", "row_count", "wal_bytes", "merged_jobs", "requeued", "failures",
		"reduced_sub_batch_size", "no_progress", "requeues_in_row"
	};
	/* in milliseconds; more than any job has */
	const double longest = 1e15;
	bool		isnull;
	double		run_ms;

	for (int i = 0; i < lengthof(counts); i++)
	{
		if (bbm_row_int(row, counts[i]) < 0)
			bbm_row_out_of_range(row, counts[i], "It is a count.", "Leave it as its worker has written it.");
	}
	run_ms = DatumGetFloat8(bbm_row_get(row, "run_ms", &isnull));
	/* in this form for a NaN */
	if (!isnull && !(run_ms >= 0 && run_ms <= longest))
		bbm_row_out_of_range(row, "run_ms", "It is the time of an execution, in milliseconds.",
							 "Leave it as its worker has written it.");
}

static void
refuse_job_write(const char *what, const BbmMigration *migration)
{
	const char *other = strcmp(what, "update") == 0 ? " " BBM_OTHER_WORKER : "";

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot %s jobs of migration \"%s\"", what, migration->name),
			 errdetail("bbm owns this table: jobs are written by its workers, and the migration is %s.",
					   bbm_status_word(migration->status)),
			 migration->status == BBM_FINISHED ? errhint("Use bbm_drop to remove it and its jobs.%s", other) :
			 errhint("Pause it first, or use bbm_retry to run failed jobs again, or bbm_drop to remove it.%s", other)));
}

/*
 * A dump loads the jobs before their migrations, as no foreign key determines
 * the order; it does so by COPY or INSERT, as the owner of the table.  A job
 * of ours has been claimed, or is for rows that verification has found, or that
 * were quarantined and are tried again.
 */
static bool
may_come_first(BbmRow row)
{
	return bbm_may_restore() &&
		(bbm_row_int(row, "claim_epoch") > 0 || bbm_job_kind(bbm_row_text(row, "kind")) != BBM_JOB_RANGE);
}

/* A user's UPDATE of a job: the new row, without what is not theirs to change. */
static HeapTuple
checked_update(BbmRow row, HeapTuple newtuple)
{
	BbmRow		new = {newtuple, row.desc};

	if (bbm_row_int(new, "batched_background_migration_id") != bbm_row_int(row, "batched_background_migration_id"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a job cannot be given to another migration"),
				 errdetail("Its range is one of the migration that allocated it."),
				 errhint("Define a migration for the range instead.")));
	/* the worker says who runs it, and processes are signalled by this value */
	bbm_row_set(&new, "worker_pid", Int32GetDatum((int) bbm_row_int(row, "worker_pid")), bbm_row_is_null(row, "worker_pid"));
	bbm_row_set(&new, "worker_id", Int32GetDatum((int) bbm_row_int(row, "worker_id")), bbm_row_is_null(row, "worker_id"));
	bbm_row_set(&new, "claim_epoch", Int32GetDatum((int) bbm_row_int(row, "claim_epoch")), false);
	check_counts(new);
	bbm_row_set(&new, "updated_at", TimestampTzGetDatum(GetCurrentTimestamp()), false);
	return new.tuple;
}

/*
 * The migration of a job that a user writes; NULL when there is none.  Unless
 * the job is new, it stays as it is until the transaction ends: nobody starts
 * it, and no worker takes a job for the newest that is not there any more.
 */
static BbmMigration *
migration_of(BbmRow row, bool insert)
{
	int64		id = bbm_row_int(row, "batched_background_migration_id");
	BbmMigration *migration = bbm_migration_by_id(id, CurrentMemoryContext);
	BbmStatus	status;

	if (migration == NULL || insert)
		return migration;
	bbm_check_owner(migration->owner, migration->name);
	return bbm_migration_lock(id, &status) ? bbm_migration_by_id(id, CurrentMemoryContext) : NULL;
}

/* BEFORE INSERT OR UPDATE OR DELETE ON batched_background_migration_jobs FOR EACH ROW */
Datum
bbm_job_guard(PG_FUNCTION_ARGS)
{
	TriggerData *data;
	bool		update;
	bool		insert;
	BbmRow		row;
	BbmMigration *migration;
	HeapTuple	changed = NULL;
	bool		copy;

	data = bbm_trigger_data(fcinfo, "bbm_job_guard");
	update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	insert = TRIGGER_FIRED_BY_INSERT(data->tg_event);
	row.desc = RelationGetDescr(data->tg_relation);
	row.tuple = data->tg_trigtuple;
	if (bbm_engine_writes())
		return PointerGetDatum(update ? data->tg_newtuple : data->tg_trigtuple);

	if (update)
		changed = checked_update(row, data->tg_newtuple);
	else if (insert)
		check_counts(row);
	SPI_connect();
	migration = migration_of(row, insert);
	/* a dump loads the jobs of a cloned or restored migration; DELETE of a migration deletes its jobs */
	copy = migration && bbm_migration_is_copy(migration->origin, migration->restored);
	if (migration && !(insert && copy && bbm_may_restore()))
		bbm_check_owner(migration->owner, migration->name);
	if (migration == NULL && insert && !may_come_first(row))
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("cannot insert a job of migration " INT64_FORMAT ", which does not exist",
						bbm_row_int(row, "batched_background_migration_id")),
				 errdetail("bbm owns this table: its workers allocate the ranges and write the jobs."),
				 errhint("A dump is loaded by the owner of the table. %s", BBM_OTHER_WORKER)));
	if (migration && insert && !(copy && bbm_may_restore()))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot insert jobs of migration \"%s\"", migration->name),
				 errdetail("bbm owns this table: its workers allocate the ranges and write the jobs."),
				 errhint("Start the migration with UPDATE ... SET status = 1 or bbm_start. %s", BBM_OTHER_WORKER)));
	if (migration && !copy && migration->status != BBM_PAUSED)
		refuse_job_write(update ? "update" : "delete", migration);
	/* the owner of the tables may correct them */
	if (update && !bbm_may_restore())
		bbm_check_job_columns(data->tg_relation, row.tuple, changed);
	/* its sums may include the job; nobody adds it to them before we commit */
	if (migration && !insert)
		bbm_totals_forget(migration->id);
	SPI_finish();
	if (insert)
		return PointerGetDatum(bbm_columns_restore_job(data->tg_relation, data->tg_trigtuple));
	return PointerGetDatum(update ? changed : data->tg_trigtuple);
}

/*
 * AFTER DELETE ON batched_background_migration_jobs FOR EACH ROW WHEN
 * (OLD.status <> 2): a user has deleted a job that is not done.
 *
 * Ranges are allocated after that of the newest job: so if a later job is still
 * there, the range would be left out, and the migration finish.  What has been
 * allocated in a partition, and what was quarantined, is not read again at
 * all.  Without ranges along a key, the rows themselves show what is left.
 *
 * The row's BEFORE trigger has locked the migration, which is paused, until we
 * commit: meanwhile nobody allocates another range, and none is claimed.
 */
Datum
bbm_job_deleted(PG_FUNCTION_ARGS)
{
	TriggerData *data = bbm_trigger_data(fcinfo, "bbm_job_deleted");
	BbmRow		row = {data->tg_trigtuple, RelationGetDescr(data->tg_relation)};
	BbmMigration *migration;
	const BbmStrategy *strategy;

	if (bbm_engine_writes())
		return PointerGetDatum(NULL);
	SPI_connect();
	migration = bbm_migration_by_id(bbm_row_int(row, "batched_background_migration_id"), CurrentMemoryContext);
	strategy = migration ? bbm_strategy_find(migration->strategy) : NULL;
	if (strategy && strategy->has_key &&
		(bbm_job_kind(bbm_row_text(row, "kind")) == BBM_JOB_RETRY || !bbm_row_is_null(row, "relation") ||
		 bbm_job_is_followed(migration->id, bbm_row_int(row, "id"))))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot delete job " INT64_FORMAT " of migration \"%s\"", bbm_row_int(row, "id"), migration->name),
				 errdetail("Its range is not done, and would be left out, since later ones have been allocated."),
				 errhint("Start the migration, or use bbm_retry, and the job is done; bbm_alter(..., restart => true) begins anew; bbm_drop removes the migration.")));
	SPI_finish();
	return PointerGetDatum(NULL);
}

/* BEFORE TRUNCATE on both tables */
Datum
bbm_truncate_guard(PG_FUNCTION_ARGS)
{
	TriggerData *data = bbm_trigger_data(fcinfo, "bbm_truncate_guard");
	List	   *unpaused;
	ListCell   *cell;

	SPI_connect();
	/* no policy limits a TRUNCATE to one's own rows */
	foreach(cell, bbm_migrations_with_status(list_make1_int(BBM_PAUSED)))
	{
		BbmMigration *migration = lfirst(cell);

		if (!bbm_may_restore())
			bbm_check_owner(migration->owner, migration->name);
	}
	unpaused = bbm_migrations_with_status(list_make4_int(BBM_ACTIVE, BBM_FINISHED, BBM_FAILED, BBM_RUNNING));
	if (unpaused != NIL)
		refuse_job_write("truncate", linitial(unpaused));
	/* the ranges that were allocated are forgotten, and no migration leaves its jobs behind */
	if (RelationGetRelid(data->tg_relation) == bbm_catalog()->migrations)
		bbm_jobs_forget(0);
	bbm_totals_forget(0);
	bbm_partitions_forget(0);
	bbm_errors_forget(0);
	SPI_finish();
	return PointerGetDatum(NULL);
}

/*
 * A row that is inserted where the guards do not fire.  Of a dump, it is
 * restored as they would; anything else is taken as it is.
 */
static HeapTuple
inserted_unguarded(Relation rel, HeapTuple tuple)
{
	const BbmCatalog *catalog = bbm_catalog();
	BbmRow		row = {tuple, RelationGetDescr(rel)};
	HeapTuple	restored = NULL;

	if (RelationGetRelid(rel) == catalog->migrations)
		restored = bbm_restored_migration(row);
	else if (RelationGetRelid(rel) == catalog->jobs)
		restored = bbm_columns_restore_job(rel, tuple);
	return restored ? restored : tuple;
}

/*
 * BEFORE INSERT OR UPDATE OR DELETE on our tables, where
 * session_replication_role is replica.  A publication FOR ALL TABLES includes
 * our tables, too; its ids are another server's, and must neither collide with
 * the migrations here nor change them.  The owner of the tables may load data
 * with that setting; another role may have been granted the setting, and the
 * guards do not fire with it.
 *
 * ENABLE TRIGGER ALL, as pg_restore --disable-triggers has it, makes this a
 * trigger that fires where the guards do, which leave it nothing to do.
 */
Datum
bbm_replica_guard(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	Datum		row;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", "bbm_replica_guard"),
				 errdetail("It guards the tables of extension \"bbm\"."),
				 errhint("There is no need to call it.")));
	if (IsLogicalWorker())
		return PointerGetDatum(NULL);
	row = PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple);
	if (SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA)
		return row;
	if (!bbm_may_restore())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to write table \"%s\" with session_replication_role \"replica\"",
						RelationGetRelationName(data->tg_relation)),
				 errdetail("The table's guards do not fire with it."),
				 errhint("RESET session_replication_role.")));
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		return PointerGetDatum(inserted_unguarded(data->tg_relation, data->tg_trigtuple));
	return row;
}
