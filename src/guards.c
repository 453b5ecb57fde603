/*-------------------------------------------------------------------------
 *
 * guards.c
 *		The triggers of our tables: who may write what, and what follows.
 *
 * NOTES
 *	  A plain UPDATE is as good as a function, so the rules are here and the
 *	  functions rely on them.  Our engine's own statements pass (they are told
 *	  apart by a flag in this process that no SQL can set).
 *
 *	  The row that a BEFORE trigger sees is locked already.  It then takes the
 *	  migration's lock, in the order that everybody keeps, and holds it until
 *	  the transaction ends: a claim waits for a steering transaction that has
 *	  not ended, and sees what it has committed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/json.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalog.h"
#include "columns.h"
#include "guards.h"
#include "guc.h"
#include "holds.h"
#include "hooks.h"
#include "locks.h"
#include "record.h"
#include "strategy.h"
#include "trouble.h"
#include "txn.h"

PG_FUNCTION_INFO_V1(bbm_migration_guard);
PG_FUNCTION_INFO_V1(bbm_migration_event);
PG_FUNCTION_INFO_V1(bbm_job_guard);
PG_FUNCTION_INFO_V1(bbm_truncate_guard);
PG_FUNCTION_INFO_V1(bbm_replica_guard);

/* A tuple under change. */
typedef struct Row
{
	HeapTuple	tuple;
	TupleDesc	desc;
} Row;

static Datum
get(Row row, const char *column, bool *isnull)
{
	int			attnum = SPI_fnumber(row.desc, column);

	if (attnum <= 0)
		elog(ERROR, "column \"%s\" is missing", column);
	return SPI_getbinval(row.tuple, row.desc, attnum, isnull);
}

static int64
get_int(Row row, const char *column)
{
	bool		isnull;
	Datum		datum = get(row, column, &isnull);

	if (isnull)
		return 0;
	switch (TupleDescAttr(row.desc, SPI_fnumber(row.desc, column) - 1)->atttypid)
	{
		case INT2OID:
			return DatumGetInt16(datum);
		case INT4OID:
			return DatumGetInt32(datum);
		case OIDOID:
			return DatumGetObjectId(datum);
		default:
			return DatumGetInt64(datum);
	}
}

static bool
is_null(Row row, const char *column)
{
	bool		isnull;

	(void) get(row, column, &isnull);
	return isnull;
}

/* NULL when NULL. */
static char *
get_text(Row row, const char *column)
{
	return SPI_getvalue(row.tuple, row.desc, SPI_fnumber(row.desc, column));
}

static bool
same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static void
set(Row *row, const char *column, Datum value, bool isnull)
{
	int			attnum = SPI_fnumber(row->desc, column);

	row->tuple = heap_modify_tuple_by_cols(row->tuple, row->desc, 1, &attnum, &value, &isnull);
}

static void
set_status(Row *row, BbmStatus status)
{
	set(row, "status", Int16GetDatum((int16) status), false);
}

static Datum
name_datum(const char *text)
{
	Name		name = palloc0(NAMEDATALEN);

	namestrcpy(name, text);
	return NameGetDatum(name);
}

/* ----------------------------------------------------------------
 * What the row itself shows
 * ----------------------------------------------------------------
 */

static void
out_of_range(Row row, const char *column, const char *detail, const char *hint)
{
	char	   *value = get_text(row, column);

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid %s: %s", column, value ? value : "null"),
			 errdetail("%s", detail),
			 errhint("%s", hint)));
}

static void
check_name(Row row)
{
	char	   *name = get_text(row, "name");

	/* its NOT NULL constraint has the word */
	if (name == NULL)
		return;
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("the name of a migration must not be empty"),
				 errdetail("It is what the functions and the log call it."),
				 errhint("Give it a name of 1 to %d bytes.", BBM_MAX_NAME_LENGTH)));
	if (strlen(name) > BBM_MAX_NAME_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("the name of a migration is too long"),
				 errdetail("It has %zu bytes.", strlen(name)),
				 errhint("Give it a name of 1 to %d bytes.", BBM_MAX_NAME_LENGTH)));
}

/* What a size that follows is held to. */
static void
check_size(Row row)
{
	if (get_int(row, "min_batch_size") < 1 || get_int(row, "min_batch_size") > get_int(row, "max_batch_size"))
		out_of_range(row, "min_batch_size", "A batch has at least one key, and no more than max_batch_size.",
					 "Use a number from 1 to max_batch_size.");
	if (!is_null(row, "max_batch_wal") && get_int(row, "max_batch_wal") <= 0)
		out_of_range(row, "max_batch_wal", "It is the WAL that a batch may write, in bytes.",
					 "Use a positive number, or NULL for no limit.");
	if (!is_null(row, "target_duration"))
	{
		bool		isnull;
		Interval   *target = DatumGetIntervalP(get(row, "target_duration", &isnull));

		if (target->month != 0 || target->day < 0 || target->day > 1 || target->time < 0 ||
			target->time > (1 - target->day) * USECS_PER_DAY || (target->day == 0 && target->time < 1000))
			out_of_range(row, "target_duration", "It is what a batch is to take.",
						 "Use an interval from 1 millisecond to 1 day, or NULL for batches of exactly batch_size keys.");
	}
}

/* What bbm_update and bbm_delete are composed of. */
static void
check_parts(Row row)
{
	char	   *operation = get_text(row, "operation");
	bool		isnull;

	if (operation && strcmp(operation, "update") != 0 && strcmp(operation, "delete") != 0)
		out_of_range(row, "operation", "It is what bbm_update or bbm_delete has composed.",
					 "Leave it NULL, and write the statement into job_signature_name.");
	if (operation && (strcmp(operation, "update") == 0) == is_null(row, "set_clause"))
		out_of_range(row, "set_clause", "An update sets something, a delete nothing.",
					 "Use bbm_update or bbm_delete.");
	if (DatumGetBool(get(row, "verify", &isnull)) && is_null(row, "filter") && is_null(row, "row_check"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("nothing tells how rows should be"),
				 errdetail("Verification counts rows that still meet \"where\", or that do not meet \"check\"."),
				 errhint("Give one of them.")));
}

static void
check_on_error(Row row)
{
	char	   *on_error = get_text(row, "on_error");
	char	   *name = get_text(row, "batching_strategy");
	const BbmStrategy *strategy = bbm_strategy_find(name);

	if (strcmp(on_error, "fail") != 0 && strcmp(on_error, "split") != 0 && strcmp(on_error, "skip") != 0)
		out_of_range(row, "on_error", "It is what becomes of a job that has used up its attempts.",
					 "Use fail, split or skip.");
	if (strcmp(on_error, "fail") != 0 && strategy && !strategy->has_key)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("on_error %s does not fit %s", on_error, strategy->name),
				 errdetail("A row that is put aside is known by its key."),
				 errhint("Use SerialKeySetBatchingStrategy or LooseIndexScanBatchingStrategy.")));
	if (get_int(row, "max_errors") < 1)
		out_of_range(row, "max_errors", "It is how many rows or ranges may be put aside.",
					 "Use a number from 1 to 2147483647.");
}

static void
check_settings(Row row)
{
	bool		isnull;
	Datum		entries = get(row, "settings", &isnull);

	if (!isnull)
		bbm_overrides_check(DatumGetArrayTypeP(entries));
}

/*
 * Does what is written now keep to the server's limits?  A dump's row is taken as
 * it is: what goes beyond them does not hold while it runs.
 */
static void
check_limits(Row row)
{
	bool		isnull;
	Datum		entries = get(row, "settings", &isnull);

	if (!isnull)
		bbm_overrides_check_limits(DatumGetArrayTypeP(entries), (Oid) get_int(row, "owner_oid"));
}

/* Settings that were given before the server's were lowered do not keep the rest of the row from being changed. */
static void
check_new_limits(Row old, Row new)
{
	char	   *before = get_text(old, "settings");
	char	   *after = get_text(new, "settings");

	if (before == NULL || after == NULL || strcmp(before, after) != 0)
		check_limits(new);
}

static void
check_row(Row row)
{
	static const char *const required[] = {
		"status", "batch_size", "workers", "max_attempts", "min_value", "max_value", "min_batch_size", "max_batch_size",
		"verify", "on_error", "max_errors", "sub_batch_size"
	};
	int64		status = get_int(row, "status");

	check_name(row);
	check_settings(row);
	/* a NULL is for the column's constraint to tell */
	for (int i = 0; i < lengthof(required); i++)
	{
		if (is_null(row, required[i]))
			return;
	}
	if (status < BBM_PAUSED || status > BBM_RUNNING)
		out_of_range(row, "status", "The codes are 0 paused, 1 active, 2 finished, 3 failed, 4 running.",
					 "Set 1 to start a migration, 0 to pause it.");
	if (get_int(row, "batch_size") <= 0)
		out_of_range(row, "batch_size", "A batch has at least one key.", "Use a number from 1 to 2147483647.");
	if (get_int(row, "sub_batch_size") < 0)
		out_of_range(row, "sub_batch_size", "It is how many keys a commit has.",
					 "Use a number from 1 to 2147483647, or 0 for one commit a job.");
	if (get_int(row, "workers") < 1 || get_int(row, "workers") > BBM_MAX_WORKERS_PER_MIGRATION)
		out_of_range(row, "workers", "It is how many jobs of the migration may run at once.",
					 "Use a number from 1 to 256; bbm.max_workers limits the whole server.");
	if (get_int(row, "max_attempts") < 1 || get_int(row, "max_attempts") > BBM_MAX_ATTEMPTS)
		out_of_range(row, "max_attempts", "It is how often a job may be executed before the migration fails.",
					 "Use a number from 1 to 100.");
	if (get_int(row, "total_tuple_count") < 0)
		out_of_range(row, "total_tuple_count", "It is how many rows the table is taken to have.",
					 "Leave it NULL, and a worker estimates it.");
	check_size(row);
	check_parts(row);
	check_on_error(row);
	if (get_int(row, "min_value") > get_int(row, "max_value"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("min_value is above max_value"),
				 errdetail("The range is " INT64_FORMAT " to " INT64_FORMAT ".",
						   get_int(row, "min_value"), get_int(row, "max_value")),
				 errhint("Both are inclusive; a range of one key has the same value twice.")));
}

/* ----------------------------------------------------------------
 * Ownership
 * ----------------------------------------------------------------
 */

/*
 * A row may be written for oneself or for a role that one may SET ROLE to.  A
 * restored one may name a role that is not here, or that is not the restorer's
 * to be: it waits, and belongs to nobody until a superuser starts it.
 */
static void
set_owner(Row *row, Oid before, bool restored)
{
	char	   *name = get_text(*row, "owner");
	Oid			owner = name ? get_role_oid(name, true) : bbm_acting_user();

	if (restored && !(OidIsValid(owner) && bbm_can_set_role(bbm_acting_user(), owner)))
		owner = InvalidOid;
	else if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" does not exist", name),
				 errhint("The owner is the role that the job runs as.")));
	if (OidIsValid(owner))
	{
		if (owner != before)
		{
			bbm_check_definer(owner, get_text(*row, "name"));
			bbm_catalog_check_trust(owner);
		}
		set(row, "owner", name_datum(GetUserNameFromId(owner, false)), false);
	}
	set(row, "owner_oid", ObjectIdGetDatum(owner), false);
}

/* The OID is what counts; the name follows a role that was renamed. */
static void
refresh_owner(Row *row)
{
	char	   *known = get_text(*row, "owner");
	char	   *name = GetUserNameFromId((Oid) get_int(*row, "owner_oid"), true);

	if (name && (known == NULL || strcmp(known, name) != 0))
		set(row, "owner", name_datum(name), false);
}

/* A row of a dump, which says where it was started. */
static void
restore(Row *row)
{
	char	   *origin = get_text(*row, "origin");

	/* zero and less have a meaning of their own in places */
	if (get_int(*row, "id") <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid id of a migration: " INT64_FORMAT, get_int(*row, "id")),
				 errdetail("An id is positive."),
				 errhint("Leave it out, and it is the next one.")));
	set_owner(row, InvalidOid, true);
	/*
	 * Even loaded into the same database it is a copy: what it works on may
	 * still be loading.  OIDs of elsewhere say nothing here.
	 */
	if (strncmp(origin, "copy of ", 8) != 0)
		set(row, "origin", CStringGetTextDatum(psprintf("copy of %s", origin)), false);
	set(row, "table_oid", (Datum) 0, true);
}

static Datum
guard_insert(Relation rel, Row row)
{
	check_row(row);
	if (!is_null(row, "origin") && bbm_may_restore())
	{
		restore(&row);
		return PointerGetDatum(row.tuple);
	}
	set(&row, "id", Int64GetDatum(bbm_new_id(rel, get_int(row, "id"))), false);
	row.tuple = bbm_columns_insert(rel, row.tuple);
	set_owner(&row, InvalidOid, false);
	check_limits(row);
	set(&row, "origin", CStringGetTextDatum(bbm_origin()), false);
	return PointerGetDatum(row.tuple);
}

static bool
at_origin(Row row)
{
	char	   *origin = get_text(row, "origin");

	return origin != NULL && strcmp(origin, bbm_origin()) == 0;
}

/* Did its row come with a dump?  Else it is in a copy of the database's files, where OIDs are its original's. */
static bool
is_loaded(Row row)
{
	char	   *origin = get_text(row, "origin");

	return origin != NULL && strncmp(origin, "copy of ", 8) == 0;
}

/* Another pass that works, and a number left out before it (see pass.c). */
static void
work_anew(Row *row)
{
	int32		pass = (int32) get_int(*row, "pass");

	set(row, "pass", Int32GetDatum(pass + (BBM_PASS_VERIFIES(pass) ? 3 : 4)), false);
}

/*
 * A verification has failed.  What it has found is done before the next: along a
 * key, those rows (bbm_migration_event makes jobs of them); where a row tells by
 * itself whether it is done, all that are left.
 */
static void
verify_anew(Row *row)
{
	const BbmStrategy *strategy = bbm_strategy_find(get_text(*row, "batching_strategy"));
	int32		pass = (int32) get_int(*row, "pass");

	if (strategy && !strategy->has_key)
		work_anew(row);
	else
		set(row, "pass", Int32GetDatum(pass + 1), false);
}

/* Started here, which makes a copy a migration of this database. */
static void
start_here(Row *row)
{
	if (!at_origin(*row))
	{
		bool		foreign = !is_null(*row, "origin");

		/* a table of another database; the one that has its name here is what goes on */
		if (is_loaded(*row))
			set(row, "table_oid", (Datum) 0, true);
		set(row, "origin", CStringGetTextDatum(bbm_origin()), false);
		/* another cluster's OIDs say nothing here */
		if (foreign)
		{
			const BbmStrategy *strategy = bbm_strategy_find(get_text(*row, "batching_strategy"));

			set_owner(row, (Oid) get_int(*row, "owner_oid"), false);
			/* nor do its blocks: what is not done there is found by a pass from the start */
			if (strategy && strategy->table_scans && !is_null(*row, "started_at"))
				work_anew(row);
		}
	}
}

static void
clear_error(Row *row)
{
	static const char *const columns[] = {
		"failure_error_code", "error_sqlstate", "error_message", "error_detail", "error_hint"
	};

	for (int i = 0; i < lengthof(columns); i++)
		set(row, columns[i], (Datum) 0, true);
}

/* Who writes what only workers write may be the registry's own, left running. */
#define BBM_OTHER_WORKER \
	"If it is the container registry's own worker, turn that off: database.backgroundmigrations.enabled: false in its configuration."

/* The rules for a status that a user sets. */
static void
guard_status(Row old, Row *new)
{
	BbmStatus	from = (BbmStatus) get_int(old, "status");
	int			to = (int) get_int(*new, "status");
	bool		copy = !is_null(old, "origin") && !at_origin(old);
	char	   *name = get_text(*new, "name");

	if (is_null(*new, "status"))
		return;

	/* a copy was never started here, whatever its status says */
	if (copy && to == BBM_ACTIVE && from != BBM_FINISHED)
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
				if (BBM_PASS_VERIFIES((int32) get_int(*new, "pass")) && !is_null(*new, "failure_error_code"))
					verify_anew(new);
				start_here(new);
				clear_error(new);
			}
			break;
	}
}

/* Does the new row differ from the old in anything but the time of the change? */
static bool
is_changed(Row old, Row new)
{
	for (int i = 0; i < old.desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(old.desc, i);
		bool		old_null;
		bool		new_null;
		Datum		a;
		Datum		b;

		if (attribute->attisdropped || strcmp(NameStr(attribute->attname), "updated_at") == 0)
			continue;
		a = SPI_getbinval(old.tuple, old.desc, i + 1, &old_null);
		b = SPI_getbinval(new.tuple, new.desc, i + 1, &new_null);
		if (old_null != new_null ||
			(!old_null && !datum_image_eq(a, b, attribute->attbyval, attribute->attlen)))
			return true;
	}
	return false;
}

static bool
is_same(Row old, Row new, const char *column)
{
	return same_text(get_text(old, column), get_text(new, column));
}

/* What tells the rows that are done from the others cannot become something else when some are. */
static void
keep_what_is_begun(Row old, Row new)
{
	static const char *const columns[] = {
		"filter", "set_clause", "operation", "min_key", "key_order", "column_name"
	};

	if (is_null(old, "started_at"))
		return;
	for (int i = 0; i < lengthof(columns); i++)
	{
		if (is_same(old, new, columns[i]))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s of migration \"%s\" cannot be changed", columns[i], get_text(old, "name")),
				 errdetail("It has been started, and part of it may be done."),
				 errhint("Drop it, and define another one for what is left.")));
	}
}

/*
 * A bound that a user changes is given, and no longer what the table had.  Until
 * it is begun, a migration may be given another table.
 */
static void
keep_found(Row old, Row *new)
{
	bool		isnull;

	set(new, "min_found", BoolGetDatum(DatumGetBool(get(old, "min_found", &isnull)) &&
									   is_same(old, *new, "min_value") && is_same(old, *new, "min_key")), false);
	set(new, "max_found", BoolGetDatum(DatumGetBool(get(old, "max_found", &isnull)) &&
									   is_same(old, *new, "max_value") && is_same(old, *new, "max_key")), false);
	if (is_null(old, "started_at") && !is_same(old, *new, "table_name"))
		set(new, "table_oid", (Datum) 0, true);
}

/* Who may say what it does, and until when. */
static void
guard_definition(Relation rel, Row old, Row new)
{
	const char *column = bbm_columns_redefined(rel, old.tuple, new.tuple);

	if (column || bbm_columns_retuned(rel, old.tuple, new.tuple))
		bbm_check_definer((Oid) get_int(old, "owner_oid"), get_text(old, "name"));
	if (column == NULL)
		return;
	/* what is relied on is that this has been done, and nothing else */
	if (get_int(old, "status") == BBM_FINISHED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s of migration \"%s\" cannot be changed", column, get_text(old, "name")),
				 errdetail("It is finished and stays so."),
				 errhint("Define another one for what is still to be done.")));
}

static Datum
guard_update(Relation rel, Row old, Row new)
{
	Oid			owner = (Oid) get_int(old, "owner_oid");

	bbm_check_owner(owner, get_text(old, "name"));
	check_name(new);
	if (get_int(new, "id") != get_int(old, "id"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the id of a migration cannot be changed"),
				 errhint("Its name can.")));

	keep_what_is_begun(old, new);
	new.tuple = bbm_columns_update(rel, old.tuple, new.tuple);
	guard_definition(rel, old, new);
	keep_found(old, &new);
	if (is_null(new, "owner") || !same_text(get_text(new, "owner"), get_text(old, "owner")))
		set_owner(&new, owner, false);
	else if (at_origin(old))
		refresh_owner(&new);

	guard_status(old, &new);
	check_row(new);
	check_new_limits(old, new);
	/* workers take a new time for a changed row, and what they know of the old one for void */
	if (is_changed(old, new))
		set(&new, "updated_at", TimestampTzGetDatum(GetCurrentTimestamp()), false);
	else
		set(&new, "updated_at", TimestampTzGetDatum(get_int(old, "updated_at")), is_null(old, "updated_at"));

	bbm_lock_migration(bbm_lock_class(), get_int(new, "id"));
	return PointerGetDatum(new.tuple);
}

/*
 * Anybody who may execute a trigger function can put it on a table of his own
 * and feed it rows of his own making, so each works on our tables only.
 */
TriggerData *
bbm_trigger_data(FunctionCallInfo fcinfo, const char *function)
{
	TriggerData *data;

	/* nothing of the trigger data may be read before this */
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", function)));
	data = (TriggerData *) fcinfo->context;
	if (getExtensionOfObject(RelationRelationId, RelationGetRelid(data->tg_relation)) != bbm_catalog()->extension)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" works on the tables of extension \"bbm\" alone", function)));
	return data;
}

/* BEFORE INSERT OR UPDATE OR DELETE ON batched_background_migrations FOR EACH ROW */
Datum
bbm_migration_guard(PG_FUNCTION_ARGS)
{
	TriggerData *data;
	Row			old;
	Row			new;

	data = bbm_trigger_data(fcinfo, "bbm_migration_guard");
	old.desc = new.desc = RelationGetDescr(data->tg_relation);
	old.tuple = data->tg_trigtuple;
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		return guard_insert(data->tg_relation, old);
	if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
	{
		bbm_check_owner((Oid) get_int(old, "owner_oid"), get_text(old, "name"));
		/*
		 * No claim adds a job from here on.  The DELETE waits for a batch in
		 * flight, which is to make way.
		 */
		bbm_lock_migration(bbm_lock_class(), get_int(old, "id"));
		SPI_connect();
		(void) bbm_cancel_running(get_int(old, "id"));
		bbm_partitions_forget(get_int(old, "id"));
		bbm_errors_forget(get_int(old, "id"));
		SPI_finish();
		return PointerGetDatum(old.tuple);
	}
	new.tuple = data->tg_newtuple;
	if (bbm_engine_writes())
	{
		refresh_owner(&new);
		set(&new, "updated_at", TimestampTzGetDatum(GetCurrentTimestamp()), false);
		return PointerGetDatum(new.tuple);
	}
	return guard_update(data->tg_relation, old, new);
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

static void
tell_event(Row row, const char *event)
{
	BbmStatus	status = (BbmStatus) get_int(row, "status");

	bbm_tell_event(get_int(row, "id"), get_text(row, "name"), event, status, (Oid) get_int(row, "owner_oid"),
				   status == BBM_FAILED ? get_text(row, "error_message") : NULL);
}

/* AFTER INSERT OR UPDATE OR DELETE ON batched_background_migrations FOR EACH ROW */
Datum
bbm_migration_event(PG_FUNCTION_ARGS)
{
	TriggerData *data;
	Row			old;
	Row			now;

	data = bbm_trigger_data(fcinfo, "bbm_migration_event");
	old.desc = now.desc = RelationGetDescr(data->tg_relation);
	old.tuple = now.tuple = data->tg_trigtuple;
	SPI_connect();
	if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
	{
		tell_event(old, "dropped");
		bbm_jobs_forget(get_int(old, "id"));
	}
	else if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
	{
		bbm_hold_forget(get_int(now, "id"));
		bbm_trouble_forget(get_int(now, "id"));
		/* a dump brings its own events along, and what else there is of it */
		if (is_null(now, "origin") || at_origin(now))
		{
			/* nobody's, if there are any; they would tell it where to go on */
			bbm_jobs_forget(get_int(now, "id"));
			bbm_partitions_forget(get_int(now, "id"));
			bbm_errors_forget(get_int(now, "id"));
			tell_event(now, "created");
		}
	}
	else
	{
		int64		from = get_int(old, "status");
		int64		to;

		now.tuple = data->tg_newtuple;
		to = get_int(now, "status");
		if (from != to || (at_origin(now) && !at_origin(old)))
			tell_event(now, event_word((BbmStatus) to));
		else if (!bbm_engine_writes() && is_changed(old, now))
			tell_event(now, "altered");
		/* a copy that is started here */
		if (at_origin(now) && !is_null(old, "origin") && !at_origin(old))
			bbm_partitions_settle(get_int(now, "id"), is_loaded(old));
		/* its verification has failed: see verify_anew */
		if (get_int(now, "pass") == get_int(old, "pass") + 1 && !bbm_engine_writes())
			bbm_jobs_repair(get_int(now, "id"), (int) get_int(old, "pass"), (int) get_int(now, "pass"));
		/* a failed one that is started, now or after a pause, gets fresh attempts */
		if (to == BBM_ACTIVE && from != to && (from == BBM_FAILED || !is_null(old, "failure_error_code")))
			(void) bbm_jobs_refresh(get_int(now, "id"));
	}
	SPI_finish();

	if (!TRIGGER_FIRED_BY_DELETE(data->tg_event) && at_origin(now) &&
		(get_int(now, "status") == BBM_ACTIVE || get_int(now, "status") == BBM_RUNNING) &&
		!bbm_engine_writes())
		bbm_wake_at_commit((Oid) get_int(now, "owner_oid"));
	return PointerGetDatum(NULL);
}

/* ----------------------------------------------------------------
 * The workers' own table
 * ----------------------------------------------------------------
 */

/*
 * What is counted there is added up, and more is added to it: nothing that a
 * user writes may be what no job can have.
 */
static void
check_counts(Row row)
{
	static const char *const counts[] = {
		"attempts", "claim_epoch", "key_count", "row_count", "wal_bytes", "merged_jobs", "requeued", "reduced_sub_batch_size", "no_progress"
	};
	/* in milliseconds; more than anybody has */
	const double longest = 1e15;
	bool		isnull;
	double		run_ms;

	for (int i = 0; i < lengthof(counts); i++)
	{
		if (get_int(row, counts[i]) < 0)
			out_of_range(row, counts[i], "It is a count.", "Leave it as its worker has written it.");
	}
	run_ms = DatumGetFloat8(get(row, "run_ms", &isnull));
	/* in this form for a NaN */
	if (!isnull && !(run_ms >= 0 && run_ms <= longest))
		out_of_range(row, "run_ms", "It is the time of an execution, in milliseconds.",
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
			 migration->status == BBM_FINISHED ? errhint("Use bbm_drop to be rid of it and its jobs.%s", other) :
			 errhint("Pause it first, or use bbm_retry to run failed jobs again and bbm_drop to be rid of it.%s", other)));
}

/*
 * A dump loads the jobs before their migrations, which no foreign key orders; by
 * COPY or INSERT, as who owns the table.  A job of ours has been claimed, or is
 * of rows that were put aside and then taken up again, which has a negative id.
 */
static bool
may_come_first(Row row)
{
	return bbm_may_restore() &&
		(get_int(row, "claim_epoch") > 0 || get_int(row, "id") < 0);
}

/* BEFORE INSERT OR UPDATE OR DELETE ON batched_background_migration_jobs FOR EACH ROW */
Datum
bbm_job_guard(PG_FUNCTION_ARGS)
{
	TriggerData *data;
	bool		update;
	bool		insert;
	Row			row;
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
	{
		Row			new = {data->tg_newtuple, row.desc};

		if (get_int(new, "batched_background_migration_id") != get_int(row, "batched_background_migration_id"))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a job cannot be given to another migration"),
					 errhint("Define a migration for the range instead.")));
		/* who runs it is the worker's to say, and processes are signalled by it */
		set(&new, "worker_pid", Int32GetDatum((int) get_int(row, "worker_pid")), is_null(row, "worker_pid"));
		set(&new, "worker_id", Int32GetDatum((int) get_int(row, "worker_id")), is_null(row, "worker_id"));
		set(&new, "claim_epoch", Int32GetDatum((int) get_int(row, "claim_epoch")), false);
		check_counts(new);
		set(&new, "updated_at", TimestampTzGetDatum(GetCurrentTimestamp()), false);
		changed = new.tuple;
	}
	else if (insert)
		check_counts(row);
	SPI_connect();
	migration = bbm_migration_by_id(get_int(row, "batched_background_migration_id"), CurrentMemoryContext);
	/* a dump loads the jobs of a copy; DELETE of a migration takes its jobs along */
	copy = migration && migration->origin && strcmp(migration->origin, bbm_origin()) != 0;
	if (migration && !(insert && copy && bbm_may_restore()))
		bbm_check_owner(migration->owner, migration->name);
	if (migration == NULL && insert && !may_come_first(row))
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("cannot insert a job of migration " INT64_FORMAT ", which does not exist",
						get_int(row, "batched_background_migration_id")),
				 errdetail("bbm owns this table: its workers cut the ranges and write the jobs."),
				 errhint("A dump is loaded by the owner of the table. %s", BBM_OTHER_WORKER)));
	if (migration && insert && !(copy && bbm_may_restore()))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot insert jobs of migration \"%s\"", migration->name),
				 errdetail("bbm owns this table: its workers cut the ranges and write the jobs."),
				 errhint("Start the migration with UPDATE … SET status = 1 or bbm_start. %s", BBM_OTHER_WORKER)));
	if (migration && !copy && migration->status != BBM_PAUSED)
		refuse_job_write(update ? "update" : "delete", migration);
	/* who owns the tables may mend them */
	if (update && !bbm_may_restore())
		bbm_check_job_columns(data->tg_relation, row.tuple, changed);
	/* a range that nobody has done is no longer known by its job */
	if (migration && !insert)
		bbm_partition_unclean(migration->id, InvalidOid);
	SPI_finish();
	if (insert)
		return PointerGetDatum(bbm_columns_restore_job(data->tg_relation, data->tg_trigtuple));
	return PointerGetDatum(update ? changed : data->tg_trigtuple);
}

/* BEFORE TRUNCATE on both tables */
Datum
bbm_truncate_guard(PG_FUNCTION_ARGS)
{
	TriggerData *data = bbm_trigger_data(fcinfo, "bbm_truncate_guard");
	List	   *unpaused;
	ListCell   *cell;

	SPI_connect();
	/* no policy keeps a TRUNCATE to rows of one's own */
	foreach(cell, bbm_migrations_with_status(list_make1_int(BBM_PAUSED), CurrentMemoryContext))
	{
		BbmMigration *migration = lfirst(cell);

		if (!bbm_may_restore())
			bbm_check_owner(migration->owner, migration->name);
	}
	unpaused = bbm_migrations_with_status(list_make4_int(BBM_ACTIVE, BBM_FINISHED, BBM_FAILED, BBM_RUNNING),
										  CurrentMemoryContext);
	if (unpaused != NIL)
		refuse_job_write("truncate", linitial(unpaused));
	/* what was cut is forgotten, and no migration leaves its jobs behind */
	if (RelationGetRelid(data->tg_relation) == bbm_catalog()->migrations)
		bbm_jobs_forget(0);
	bbm_partitions_forget(0);
	bbm_errors_forget(0);
	SPI_finish();
	return PointerGetDatum(NULL);
}

/*
 * BEFORE INSERT OR UPDATE OR DELETE on our tables, where session_replication_role
 * is replica.  A publication FOR ALL TABLES has our tables, too; its ids are
 * another server's, and must neither meet nor change the migrations here.  Who
 * owns the tables and loads data with that setting is let through; another role
 * may have been granted the setting, and the guards do not fire with it.
 */
Datum
bbm_replica_guard(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", "bbm_replica_guard")));
	if (IsLogicalWorker())
		return PointerGetDatum(NULL);
	if (!bbm_may_restore())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to write table \"%s\" with session_replication_role \"replica\"",
						RelationGetRelationName(data->tg_relation)),
				 errdetail("The table's guards do not fire with it."),
				 errhint("RESET session_replication_role.")));
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple);
}
