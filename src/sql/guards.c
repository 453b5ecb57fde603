/*-------------------------------------------------------------------------
 *
 * guards.c
 *		The triggers of our tables: who may write what, and what follows.
 *
 * NOTES
 *	  A plain UPDATE is as good as a function, so the rules are here and the
 *	  functions rely on them.  The triggers accept the statements of our own
 *	  engine (which they recognize by a flag in this process that no SQL can
 *	  set).
 *
 *	  The row that a BEFORE trigger sees is locked already.  The trigger then
 *	  takes the migration's lock, in the order that everybody follows, and
 *	  holds it until the transaction ends: a claim waits for a transaction that
 *	  controls the migration and has not ended, and sees what it has committed.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/guards.h"

#include "access/sysattr.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "base/bbm.h"
#include "base/commit.h"
#include "base/compat.h"
#include "base/locks.h"
#include "base/spi.h"
#include "base/trouble.h"
#include "base/user.h"
#include "base/wait_state.h"
#include "catalog/errors.h"
#include "catalog/extension.h"
#include "catalog/jobs.h"
#include "catalog/merge.h"
#include "catalog/options.h"
#include "catalog/partitions.h"
#include "engine/event.h"
#include "engine/outcome.h"
#include "sql/access.h"
#include "sql/cluster_guard.h"
#include "sql/columns.h"
#include "sql/doctor.h"
#include "sql/row.h"
#include "sql/row_checks.h"
#include "strategy/strategy.h"
#include "target/key_order.h"

PG_FUNCTION_INFO_V1(bbm_migration_guard);
PG_FUNCTION_INFO_V1(bbm_migration_event);
PG_FUNCTION_INFO_V1(bbm_migration_summary);

static void
set_status(BbmRow *row, BbmStatus status)
{
	bbm_row_set(row, "status", Int16GetDatum((int16) status), false);
}

static Datum
name_datum(const char *text)
{
	Name		name = palloc0(NAMEDATALEN);

	namestrcpy(name, text);
	return NameGetDatum(name);
}

/* ----------------------------------------------------------------
 * Ownership
 * ----------------------------------------------------------------
 */

/*
 * The role that is to own the row.  The OID of a dump's row is of the server
 * that the dump was taken from: if that is this one, it means the owner, who
 * may have been renamed, and somebody else have got the name.  Elsewhere there
 * is only the name.
 */
static Oid
role_of(BbmRow row, bool restored)
{
	char	   *name = bbm_row_text(row, "owner");
	char	   *origin = bbm_row_text(row, "origin");
	Oid			known = (Oid) bbm_row_int(row, "owner_oid");

	/* a row that was restored there has an OID of there, and an origin of elsewhere */
	if (restored && !bbm_row_is_restored(row) && bbm_is_of_this_server(origin) && GetUserNameFromId(known, true))
		return known;
	return name ? get_role_oid(name, true) : bbm_acting_user();
}

/*
 * A user may write a row for himself or for a role that he may SET ROLE to.  A
 * restored row may name a role that does not exist here, or that the restoring
 * user may not use: the migration waits, and belongs to nobody until a
 * superuser starts it.
 */
static void
set_owner(BbmRow *row, Oid before, bool restored)
{
	Oid			owner = role_of(*row, restored);

	if (restored && !(OidIsValid(owner) && member_can_set_role(bbm_acting_user(), owner)))
		owner = InvalidOid;
	else if (!OidIsValid(owner))
		bbm_no_such_owner(bbm_row_text(*row, "owner"));
	if (OidIsValid(owner))
	{
		if (owner != before)
		{
			bbm_check_new_owner(owner, bbm_row_text(*row, "name"));
			bbm_catalog_check_trust(owner);
		}
		bbm_row_set(row, "owner", name_datum(GetUserNameFromId(owner, false)), false);
	}
	bbm_row_set(row, "owner_oid", ObjectIdGetDatum(owner), false);
}

/* The OID is what counts; the name is updated when the role was renamed. */
static void
refresh_owner(BbmRow *row)
{
	char	   *known = bbm_row_text(*row, "owner");
	char	   *name = GetUserNameFromId((Oid) bbm_row_int(*row, "owner_oid"), true);

	if (name && (known == NULL || strcmp(known, name) != 0))
		bbm_row_set(row, "owner", name_datum(name), false);
}

/*
 * A row of a dump, which says where it was started, if the user may load one;
 * else NULL.  The row has been checked.
 */
HeapTuple
bbm_restored_migration(BbmRow row)
{
	if (bbm_row_is_null(row, "origin") || !bbm_may_restore())
		return NULL;
	/* zero and negative ids have a meaning of their own in some places */
	if (bbm_row_int(row, "id") <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid id of a migration: " INT64_FORMAT, bbm_row_int(row, "id")),
				 errdetail("An id is positive."),
				 errhint("Leave it out, and it is the next one.")));
	set_owner(&row, InvalidOid, true);

	/*
	 * Even a row loaded into the same database counts as restored: the table it
	 * works on may still be loading.  OIDs of elsewhere mean nothing here.
	 */
	bbm_row_set(&row, "restored", BoolGetDatum(true), false);
	bbm_row_set(&row, "table_oid", (Datum) 0, true);
	if (!bbm_row_is_null(row, "key_order"))
		bbm_row_set(&row, "key_order", CStringGetTextDatum(bbm_key_order_without_oids(bbm_row_text(row, "key_order"))), false);
	return row.tuple;
}

static Datum
guard_insert(Relation rel, BbmRow row)
{
	HeapTuple	restored;

	bbm_check_row(row);
	restored = bbm_restored_migration(row);
	if (restored)
		return PointerGetDatum(restored);
	bbm_row_set(&row, "id", Int64GetDatum(bbm_new_id(rel, bbm_row_int(row, "id"))), false);
	row.tuple = bbm_columns_insert(rel, row.tuple);
	bbm_show_composed(NULL, &row);
	set_owner(&row, InvalidOid, false);
	bbm_check_settings(row);
	bbm_notice_units(NULL, row);
	bbm_row_set(&row, "origin", CStringGetTextDatum(bbm_origin()), false);
	return PointerGetDatum(row.tuple);
}

static bool
verifies(BbmRow row)
{
	return strcmp(bbm_row_text(row, "phase"), "verify") == 0;
}

/*
 * A verification has failed.  The rows that it has found are processed before
 * the next verification: along a key, those rows (bbm_migration_event makes
 * jobs of them); where a row itself shows whether it is done, all that are
 * left, with a round skipped before it (see engine/completion.c).
 */
static void
verify_anew(BbmRow *row)
{
	const BbmStrategy *strategy = bbm_strategy_find(bbm_row_text(*row, "batching_strategy"));
	int			rounds = strategy && !strategy->has_key ? 2 : 1;

	bbm_row_set(row, "phase", CStringGetTextDatum("work"), false);
	bbm_row_set(row, "round", Int32GetDatum((int32) bbm_row_int(*row, "round") + rounds), false);
}

/* Starts the migration here, which makes a cloned or restored one a migration of this database. */
static void
start_here(BbmRow *row)
{
	/* all nodes start it, or none does */
	bbm_row_set(row, "unreached_nodes", (Datum) 0, true);
	if (!bbm_row_at_origin(*row))
	{
		bool		foreign = !bbm_row_is_null(*row, "origin");

		/* this is a table of another database; the migration goes on with the one that has its name here */
		if (bbm_row_is_restored(*row))
			bbm_row_set(row, "table_oid", (Datum) 0, true);
		bbm_row_set(row, "restored", BoolGetDatum(false), false);
		bbm_row_set(row, "origin", CStringGetTextDatum(bbm_origin()), false);
		/* another cluster's OIDs mean nothing here */
		if (foreign)
			set_owner(row, (Oid) bbm_row_int(*row, "owner_oid"), false);
	}
}

static void
clear_error(BbmRow *row)
{
	static const char *const columns[] = {
		"failure_error_code", "error_sqlstate", "error_message", "error_detail", "error_hint"
	};

	for (int i = 0; i < lengthof(columns); i++)
		bbm_row_set(row, columns[i], (Datum) 0, true);
}

/* Has the statement a value for this column, be it the one that it has had? */
static bool
is_written(const TriggerData *data, const char *column)
{
	return bms_is_member(SPI_fnumber(RelationGetDescr(data->tg_relation), column) - FirstLowInvalidHeapAttributeNumber,
						 data->tg_updatedcols);
}

/* The rules for a status that a user sets; "written": the statement names it. */
static void
guard_status(BbmRow old, BbmRow *new, bool written)
{
	BbmStatus	from = (BbmStatus) bbm_row_int(old, "status");
	int			to = (int) bbm_row_int(*new, "status");
	bool		copy = !bbm_row_is_null(old, "origin") && !bbm_row_at_origin(old);
	char	   *name = bbm_row_text(*new, "name");

	if (bbm_row_is_null(*new, "status"))
		return;

	/*
	 * A cloned or restored migration was never started here, whatever its
	 * status says; one that says it is active is not started by a change of
	 * something else.
	 */
	if (copy && to == BBM_ACTIVE && from != BBM_FINISHED && (written || from != BBM_ACTIVE))
	{
		start_here(new);
		clear_error(new);
		return;
	}
	switch (bbm_transition(from, to))
	{
		case BBM_KEEP:
			set_status(new, from);
			break;
		case BBM_KEEP_FINISHED:
			set_status(new, BBM_FINISHED);
			ereport(WARNING,
					(errcode(ERRCODE_WARNING),
					 errmsg("migration \"%s\" is finished and stays so", name),
					 errhint("To do it again, define another one.")));
			break;
		case BBM_REFUSE:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("status %d of migration \"%s\" cannot be set", to, name),
					 errdetail("bbm owns this table: its workers set 2 (finished), 3 (failed) and 4 (running)."),
					 errhint("Set 1 to start a migration, 0 to pause it. %s", BBM_OTHER_WORKER)));
			break;
		case BBM_CHANGE:
			if (to == BBM_ACTIVE)
			{
				if (verifies(*new) && !bbm_row_is_null(*new, "failure_error_code"))
					verify_anew(new);
				start_here(new);
				clear_error(new);
			}
			break;
	}
}

/* Does the new row differ from the old in anything but the time of the change? */
static bool
is_changed(BbmRow old, BbmRow new)
{
	for (int i = 0; i < old.desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(old.desc, i);

		if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), "updated_at") != 0 &&
			bbm_tuples_differ(old.desc, old.tuple, new.tuple, i + 1))
			return true;
	}
	return false;
}

/*
 * Do the ranges of both strategies mean the same: keys, blocks of the table, or
 * nothing?  Of one that does not exist there are no ranges.
 */
static bool
same_ranges(const char *before, const char *after)
{
	const BbmStrategy *x = bbm_strategy_find(before);
	const BbmStrategy *y = bbm_strategy_find(after);

	return x == NULL || (y && x->has_key == y->has_key && x->table_scans == y->table_scans);
}

/* What distinguishes the rows that are done from the others cannot change when some are done. */
static void
keep_what_is_started(Relation rel, BbmRow old, BbmRow new)
{
	const char *column;

	if (bbm_row_is_null(old, "started_at"))
		return;
	column = bbm_columns_changed(rel, old.tuple, new.tuple, BBM_FIXED);
	if (column == NULL && !same_ranges(bbm_row_text(old, "batching_strategy"), bbm_row_text(new, "batching_strategy")))
		column = "batching_strategy";
	if (column)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s of migration \"%s\" cannot be changed", column, bbm_row_text(old, "name")),
				 errdetail("It has been started, and part of it may be done."),
				 errhint("Drop it, and define another one for what is left.")));
}

/*
 * Ranges are allocated up to the end in the first phase; after it, further keys
 * would be verified without having been processed.
 */
static void
keep_end(BbmRow old, BbmRow new)
{
	if (!verifies(old) && bbm_row_int(old, "round") == 1)
		return;
	if (bbm_row_int(new, "max_value") > bbm_row_int(old, "max_value") || !bbm_row_same(old, new, "max_key"))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the last key of migration \"%s\" cannot be changed", bbm_row_text(old, "name")),
				 errdetail("It has processed its range, and verifies it."),
				 errhint("Define another migration for the keys beyond it.")));
}

/*
 * A bound that a user changes becomes a given one, and is no longer the one
 * that the table had.  Until it is started, a migration may be given another
 * table.
 */
static void
keep_found(BbmRow old, BbmRow *new)
{
	bool		isnull;

	bbm_row_set(new, "min_found", BoolGetDatum(DatumGetBool(bbm_row_get(old, "min_found", &isnull)) &&
											   bbm_row_same(old, *new, "min_value") && bbm_row_same(old, *new, "min_key")), false);
	bbm_row_set(new, "max_found", BoolGetDatum(DatumGetBool(bbm_row_get(old, "max_found", &isnull)) &&
											   bbm_row_same(old, *new, "max_value") && bbm_row_same(old, *new, "max_key")), false);
	/* how many keys there are is estimated anew, at the latest when it is started */
	if (!bbm_row_same(old, *new, "max_value") || !bbm_row_same(old, *new, "max_key"))
		bbm_row_set(new, "total_tuple_count", (Datum) 0, true);
	if (bbm_row_is_null(old, "started_at") && !bbm_row_same(old, *new, "table_name"))
		bbm_row_set(new, "table_oid", (Datum) 0, true);
}

/* Who may change what it does, and until when. */
static void
guard_definition(Relation rel, BbmRow old, BbmRow new)
{
	const char *column = bbm_columns_changed(rel, old.tuple, new.tuple, BBM_WHAT);

	if (column || bbm_columns_changed(rel, old.tuple, new.tuple, BBM_HOW))
		bbm_check_definer((Oid) bbm_row_int(old, "owner_oid"), bbm_row_text(old, "name"));
	if (column == NULL)
		return;
	/* others rely on exactly this definition having been executed */
	if (bbm_row_int(old, "status") == BBM_FINISHED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s of migration \"%s\" cannot be changed", column, bbm_row_text(old, "name")),
				 errdetail("It is finished and stays so."),
				 errhint("Define another one for what is still to be done.")));
}

static Datum
guard_update(const TriggerData *data, BbmRow old, BbmRow new)
{
	Relation	rel = data->tg_relation;
	Oid			owner = (Oid) bbm_row_int(old, "owner_oid");

	bbm_check_owner(owner, bbm_row_text(old, "name"));
	bbm_check_name(new);
	if (bbm_row_int(new, "id") != bbm_row_int(old, "id"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the id of a migration cannot be changed"),
				 errdetail("Its jobs refer to it."),
				 errhint("Its name can be changed.")));

	keep_what_is_started(rel, old, new);
	bbm_cluster_guard_update(rel, old, new);
	keep_end(old, new);
	new.tuple = bbm_columns_update(rel, old.tuple, new.tuple);
	guard_definition(rel, old, new);
	keep_found(old, &new);
	if (bbm_row_is_null(new, "owner") || !bbm_row_same(old, new, "owner"))
		set_owner(&new, owner, false);
	else if (bbm_row_at_origin(old))
		refresh_owner(&new);

	guard_status(old, &new, is_written(data, "status"));
	bbm_check_row(new);
	bbm_show_composed(&old, &new);
	bbm_check_new_settings(old, new);
	bbm_notice_units(&old, new);
	/* workers notice a changed row by its new time, and discard what they know about the old one */
	if (is_changed(old, new))
		bbm_row_set(&new, "updated_at", TimestampTzGetDatum(GetCurrentTimestamp()), false);
	else
		bbm_row_set(&new, "updated_at", TimestampTzGetDatum(bbm_row_int(old, "updated_at")), bbm_row_is_null(old, "updated_at"));

	bbm_lock_migration(bbm_lock_class(), bbm_row_int(new, "id"));
	return PointerGetDatum(new.tuple);
}

static Datum
guard(TriggerData *data)
{
	BbmRow		old;
	BbmRow		new;

	old.desc = new.desc = RelationGetDescr(data->tg_relation);
	old.tuple = data->tg_trigtuple;
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		return guard_insert(data->tg_relation, old);
	if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
	{
		bbm_check_owner((Oid) bbm_row_int(old, "owner_oid"), bbm_row_text(old, "name"));
		/*
		 * No claim adds a job from here on.  The DELETE waits for a batch in
		 * flight, which is to be cancelled.
		 */
		bbm_lock_migration(bbm_lock_class(), bbm_row_int(old, "id"));
		SPI_connect();
		(void) bbm_cancel_running(bbm_row_int(old, "id"));
		bbm_partitions_forget(bbm_row_int(old, "id"));
		bbm_errors_forget(bbm_row_int(old, "id"));
		SPI_finish();
		return PointerGetDatum(old.tuple);
	}
	new.tuple = data->tg_newtuple;
	if (bbm_engine_writes())
	{
		refresh_owner(&new);
		bbm_row_set(&new, "updated_at", TimestampTzGetDatum(GetCurrentTimestamp()), false);
		return PointerGetDatum(new.tuple);
	}
	return guard_update(data, old, new);
}

/* BEFORE INSERT OR UPDATE OR DELETE ON batched_background_migrations FOR EACH ROW */
Datum
bbm_migration_guard(PG_FUNCTION_ARGS)
{
	TriggerData *data = bbm_trigger_data(fcinfo, "bbm_migration_guard");
	ErrorContextCallback *context = error_context_stack;
	Datum		row;

	/* who has called bbm_create with a bad option has not written our INSERT */
	if (bbm_our_statement())
		context = bbm_spi_hide_statement();
	row = guard(data);
	error_context_stack = context;
	return row;
}

/* ----------------------------------------------------------------
 * What follows from a change
 * ----------------------------------------------------------------
 */

static const char *
event_word(BbmStatus status)
{
	switch (status)
	{
		case BBM_PAUSED:
			return "paused";
		case BBM_ACTIVE:
			return "started";
		case BBM_FINISHED:
			return "finished";
		case BBM_FAILED:
			return "failed";
		case BBM_RUNNING:
			return "running";
	}
	return "altered";
}

/* What is quarantined, in words; NULL when nothing is. */
static const char *
quarantined(int64 migration_id)
{
	const char *words = bbm_quarantined_to_string(migration_id);

	/* without what separates it from the status */
	return words[0] == '\0' ? NULL : words + strlen(", ");
}

static void
report_event(BbmRow row, const char *event)
{
	BbmStatus	status = (BbmStatus) bbm_row_int(row, "status");

	const char *detail = NULL;

	if (status == BBM_FAILED || (status == BBM_PAUSED && bbm_engine_writes()))
		detail = bbm_row_text(row, "error_message");
	/* rows that were not done must not look like success */
	else if (status == BBM_FINISHED && strcmp(event, event_word(status)) == 0)
		detail = quarantined(bbm_row_int(row, "id"));
	if (bbm_engine_writes())
		bbm_report_event(bbm_row_int(row, "id"), bbm_row_text(row, "name"), event, status,
						 (Oid) bbm_row_int(row, "owner_oid"), detail);
	else
		bbm_report_act(bbm_row_int(row, "id"), bbm_row_text(row, "name"), event, status,
					   (Oid) bbm_row_int(row, "owner_oid"), detail);
}

/*
 * What a user's own statement has done so far; for its end.  A statement that
 * is begun by a trigger of another one begins anew, and the other one then
 * reports only what it does after that.
 */
static struct
{
	int			rows;
	int			started;
	int			paused;
}			summary;

static void
count_for_summary(BbmStatus from, BbmStatus to, bool started_here)
{
	summary.rows++;
	if ((from != to || started_here) && to == BBM_ACTIVE)
		summary.started++;
	else if (from != to && to == BBM_PAUSED)
		summary.paused++;
}

static void
report_summary(int n, const char *one, const char *many)
{
	int			others = summary.rows - summary.started - summary.paused;

	if (n > 0 && summary.rows > 1)
		ereport(NOTICE,
				(errmsg_plural(one, many, n, n),
				 others > 0 ? errdetail_plural("%d other row is as it was.", "%d other rows are as they were.", others,
											   others) : 0));
}

/*
 * BEFORE and AFTER INSERT OR UPDATE ON batched_background_migrations FOR EACH
 * STATEMENT: what a user should know of a statement as a whole, since an
 * UPDATE without a WHERE is easily written.  The functions report for
 * themselves.
 */
Datum
bbm_migration_summary(PG_FUNCTION_ARGS)
{
	TriggerData *data = bbm_trigger_data(fcinfo, "bbm_migration_summary");

	if (TRIGGER_FIRED_AFTER(data->tg_event) && !bbm_our_statement())
	{
		if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		{
			report_summary(summary.started, "%d migration started", "%d migrations started");
			report_summary(summary.paused, "%d migration paused", "%d migrations paused");
		}
		if (summary.started > 0)
			bbm_warn_if_nothing_runs();
	}
	memset(&summary, 0, sizeof(summary));
	return PointerGetDatum(NULL);
}

/* A migration was inserted; needs SPI. */
static void
inserted(BbmRow now)
{
	int64		id = bbm_row_int(now, "id");

	bbm_wait_state_forget(id);
	bbm_trouble_forget(id);
	/* a dump brings its own events along, and the migration's other rows */
	if (!bbm_row_is_null(now, "origin") && !bbm_row_at_origin(now))
		return;
	/* if there are any, they are nobody's; they would determine where the migration goes on */
	bbm_jobs_forget(id);
	bbm_partitions_forget(id);
	bbm_errors_forget(id);
	report_event(now, "created");
	if (!bbm_our_statement())
		count_for_summary(BBM_PAUSED, (BbmStatus) bbm_row_int(now, "status"), false);
}

/* A migration was updated; needs SPI. */
static void
updated(Relation rel, BbmRow old, BbmRow now)
{
	int64		id = bbm_row_int(now, "id");
	int64		from = bbm_row_int(old, "status");
	int64		to = bbm_row_int(now, "status");
	/* a copy that is taken for the original from now on */
	bool		accepted = bbm_row_at_origin(now) && !bbm_row_at_origin(old);

	bbm_cluster_changed(rel, old, now);
	if (from != to || accepted)
		report_event(now, event_word((BbmStatus) to));
	else if (!bbm_engine_writes() && is_changed(old, now))
		report_event(now, "altered");
	if (!bbm_our_statement())
		count_for_summary((BbmStatus) from, (BbmStatus) to, accepted);
	/* a restored migration that is started here */
	if (accepted && !bbm_row_is_null(old, "origin") && bbm_row_is_restored(old))
		bbm_partitions_accept(id);
	/* ranges may be left to allocate in partitions whose ranges have all been allocated up to the last key of then */
	if (!bbm_engine_writes() && !verifies(now) && bbm_row_int(now, "round") == 1 &&
		(!bbm_row_same(old, now, "max_value") || !bbm_row_same(old, now, "max_key")))
		bbm_partitions_reopen(id);
	/* its verification has failed: see verify_anew */
	if (bbm_row_int(now, "round") == bbm_row_int(old, "round") + 1 && !bbm_engine_writes())
		bbm_jobs_repair(id, (int) bbm_row_int(old, "round"));
	/* a failed migration that is started, now or after a pause, gets fresh attempts */
	if (to == BBM_ACTIVE && from != to && (from == BBM_FAILED || !bbm_row_is_null(old, "failure_error_code")))
		(void) bbm_jobs_refresh(id);
}

/* AFTER INSERT OR UPDATE OR DELETE ON batched_background_migrations FOR EACH ROW */
Datum
bbm_migration_event(PG_FUNCTION_ARGS)
{
	TriggerData *data;
	BbmRow		old;
	BbmRow		now;

	data = bbm_trigger_data(fcinfo, "bbm_migration_event");
	old.desc = now.desc = RelationGetDescr(data->tg_relation);
	old.tuple = now.tuple = data->tg_trigtuple;
	SPI_connect();
	if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
	{
		report_event(old, "dropped");
		bbm_jobs_forget(bbm_row_int(old, "id"));
		bbm_cluster_deleted(old);
	}
	else if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		inserted(now);
	else
	{
		now.tuple = data->tg_newtuple;
		updated(data->tg_relation, old, now);
	}
	SPI_finish();

	if (!TRIGGER_FIRED_BY_DELETE(data->tg_event) && bbm_row_at_origin(now) &&
		(bbm_row_int(now, "status") == BBM_ACTIVE || bbm_row_int(now, "status") == BBM_RUNNING) &&
		!bbm_engine_writes())
		bbm_wake_at_commit((Oid) bbm_row_int(now, "owner_oid"));
	return PointerGetDatum(NULL);
}
