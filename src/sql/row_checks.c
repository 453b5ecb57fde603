/*-------------------------------------------------------------------------
 *
 * row_checks.c
 *		Checks of what a migration's row itself shows, which read neither the
 *		table nor the job.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/row_checks.h"

#include "catalog/pg_type_d.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/bbm.h"
#include "base/guc.h"
#include "base/user.h"
#include "catalog/options.h"
#include "strategy/strategy.h"

void
bbm_check_name(BbmRow row)
{
	char	   *name = bbm_row_text(row, "name");

	/* its NOT NULL constraint reports this */
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

/* The parts that bbm_update and bbm_delete are composed of. */
static void
check_statement_parts(BbmRow row)
{
	char	   *operation = bbm_row_text(row, "operation");
	bool		isnull;

	if (operation && (strcmp(operation, "update") == 0) == bbm_row_is_null(row, "set_clause"))
		bbm_row_out_of_range(row, "set_clause", "An update sets something, a delete nothing.",
							 "Use bbm_update or bbm_delete.");
	if (operation && strcmp(operation, "delete") == 0 && bbm_row_is_null(row, "filter"))
		bbm_row_out_of_range(row, "filter", "It says which rows are to be deleted.", "For all of them, use true.");
	if (DatumGetBool(bbm_row_get(row, "verify", &isnull)) && bbm_row_is_null(row, "filter") && bbm_row_is_null(row, "row_check"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("verification needs \"filter\" or \"row_check\""),
				 errdetail("Verification counts rows that still meet \"filter\", or that do not meet \"row_check\"."),
				 errhint("Give one of them.")));
}

/*
 * What a composed migration runs is in other columns: its job_signature_name
 * shows it, and must not show anything else.  Our functions write it as it
 * will be; for a user's row (old is NULL for a new one) it is put together
 * here.  The row has been checked.
 */
void
bbm_show_composed(const BbmRow *old, BbmRow *new)
{
	static const char *const columns[] = {"operation", "set_clause", "filter", "table_name"};
	char	   *operation = bbm_row_text(*new, "operation");
	char	   *table = bbm_row_text(*new, "table_name");
	char	   *filter = bbm_row_text(*new, "filter");
	bool		same = old != NULL;
	char	   *job;

	/* if there is no table, its constraint reports this */
	if (operation == NULL || table == NULL || bbm_our_statement())
		return;
	for (int i = 0; i < lengthof(columns); i++)
		same = same && bbm_row_same(*old, *new, columns[i]);
	if (same && bbm_row_same(*old, *new, "job_signature_name"))
		return;
	if (same)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the job of migration \"%s\" cannot be changed", bbm_row_text(*new, "name")),
				 errdetail("bbm_%s composed it from its arguments.", operation),
				 errhint("Define another migration.")));
	job = strcmp(operation, "delete") == 0 ? psprintf("DELETE FROM %s", table) :
		psprintf("UPDATE %s SET %s", table, bbm_row_text(*new, "set_clause"));
	/* a text may end in a comment */
	bbm_row_set(new, "job_signature_name",
				CStringGetTextDatum(filter ? psprintf("%s\nWHERE (%s\n)", job, filter) : job), false);
}

static void
check_on_error(BbmRow row)
{
	char	   *on_error = bbm_row_text(row, "on_error");
	char	   *name = bbm_row_text(row, "batching_strategy");
	const BbmStrategy *strategy = bbm_strategy_find(name);

	if (strcmp(on_error, "fail") != 0 && strategy && !strategy->has_key)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("on_error %s does not fit %s", on_error, strategy->name),
				 errdetail("A row that is quarantined is known by its key."),
				 errhint("Use SerialKeySetBatchingStrategy or LooseIndexScanBatchingStrategy.")));
}

/* NULL without. */
static const ArrayType *
settings_of(BbmRow row)
{
	bool		isnull;
	Datum		entries = bbm_row_get(row, "settings", &isnull);

	return isnull ? NULL : DatumGetArrayTypeP(entries);
}

PG_FUNCTION_INFO_V1(bbm_session_settings);

/* () → text[]: the column job_settings, as this session defines it. */
Datum
bbm_session_settings(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(bbm_session_settings_now());
}

static void
check_job_settings(BbmRow row)
{
	bool		isnull;
	Datum		entries = bbm_row_get(row, "job_settings", &isnull);

	/* its NOT NULL constraint reports the other case */
	if (!isnull)
		bbm_job_settings_check(entries);
}

static void
check_overrides(BbmRow row)
{
	const ArrayType *settings = settings_of(row);

	if (settings == NULL)
		return;
	bbm_overrides_check(settings);
	bbm_overrides_check_limits(settings, (Oid) bbm_row_int(row, "owner_oid"));
}

/*
 * Are the settings valid, and do they keep to the server's limits?  A dump's
 * row is taken as it is: values beyond the limits have no effect while it runs,
 * and see bbm_overrides_read about those that are not valid here.
 */
void
bbm_check_settings(BbmRow row)
{
	check_overrides(row);
	check_job_settings(row);
}

/*
 * Settings that were valid when they were given, and that the server's limits
 * allowed then, do not prevent changes of the other columns: least of all a
 * pause.
 */
void
bbm_check_new_settings(BbmRow old, BbmRow new)
{
	if (!bbm_row_same(old, new, "settings"))
		check_overrides(new);
	if (!bbm_row_same(old, new, "job_settings"))
		check_job_settings(new);
}

/* Checks each column by itself; false when one is NULL that must not be, which its constraint reports. */
static bool
check_columns(BbmRow row)
{
	bbm_each_option(option)
	{
		bool		isnull;
		Datum		value = bbm_row_get(row, option->column, &isnull);

		if (isnull && (option->flags & BBM_USERS) && (option->flags & BBM_NOT_NULL))
			return false;
		if (!isnull)
			bbm_option_check(option, value, option->type);
	}
	return true;
}

void
bbm_check_row(BbmRow row)
{
	bbm_check_name(row);
	if (!check_columns(row))
		return;
	if (bbm_row_int(row, "min_batch_size") > bbm_row_int(row, "max_batch_size"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("min_batch_size is above max_batch_size"),
				 errdetail("They are " INT64_FORMAT " and " INT64_FORMAT ".",
						   bbm_row_int(row, "min_batch_size"), bbm_row_int(row, "max_batch_size")),
				 errhint("Set both, as one of them may have its default; for batches of one size, give batch_size without target_duration.")));
	check_statement_parts(row);
	check_on_error(row);
	if (bbm_row_int(row, "min_value") > bbm_row_int(row, "max_value"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("min_value is above max_value"),
				 errdetail("The range is " INT64_FORMAT " to " INT64_FORMAT ".",
						   bbm_row_int(row, "min_value"), bbm_row_int(row, "max_value")),
				 errhint("Both are inclusive; a range of one key has the same value twice.")));
}

/* From this on, an interval is probably a number of milliseconds without a unit. */
#define LONG_TARGET_US (10 * USECS_PER_SEC)

static void
notice_target(BbmRow row)
{
	bool		isnull;
	Datum		value = bbm_row_get(row, "target_duration", &isnull);
	Interval   *target = isnull ? NULL : DatumGetIntervalP(value);

	if (target && target->day == 0 && target->time >= LONG_TARGET_US)
		ereport(NOTICE,
				(errmsg("target_duration of migration \"%s\" is %s", bbm_row_text(row, "name"),
						bbm_row_text(row, "target_duration")),
				 errhint("A number without a unit is in seconds. Milliseconds are \"%d ms\".",
						 (int) (target->time / USECS_PER_SEC))));
}

/* Nothing is written in less than a page of WAL, so a smaller number is probably one of kilobytes or megabytes. */
static void
notice_batch_wal(BbmRow row)
{
	bool		isnull;
	int64		bytes = DatumGetInt64(bbm_row_get(row, "max_batch_wal", &isnull));

	if (!isnull && bytes < XLOG_BLCKSZ)
		ereport(NOTICE,
				(errmsg("max_batch_wal of migration \"%s\" is " INT64_FORMAT " bytes", bbm_row_text(row, "name"), bytes),
				 errhint("It is a number of bytes. Megabytes are " INT64_FORMAT " * 1024 * 1024.", bytes)));
}

/*
 * Reports what a user has written and surely not meant: numbers without a
 * unit, which are of another unit than he thinks.  "old" is NULL for a new row.
 */
void
bbm_notice_units(const BbmRow *old, BbmRow new)
{
	if (old == NULL || !bbm_row_same(*old, new, "target_duration"))
		notice_target(new);
	if (old == NULL || !bbm_row_same(*old, new, "max_batch_wal"))
		notice_batch_wal(new);
	if (settings_of(new) && (old == NULL || !bbm_row_same(*old, new, "settings")))
		bbm_overrides_notice(settings_of(new), bbm_row_text(new, "name"));
}
