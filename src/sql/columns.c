/*-------------------------------------------------------------------------
 *
 * columns.c
 *		Which columns of our tables users may set.
 *
 * NOTES
 *	  A role that may INSERT or UPDATE a row of our tables sets what a user
 *	  defines, and nothing else.  All columns of ours that are not named here
 *	  are recorded by bbm.  A column that somebody has added to the tables is
 *	  that user's: bbm takes its value as it is.
 *
 *	  batched_background_migrations
 *		what a user defines		taken as it is, checked for what the row shows; catalog/options.c says who may
 *								change it, and until when
 *		status					any code in an INSERT; 0 or 1 in an UPDATE
 *		owner					a role that the user may SET ROLE to
 *		id						the sequence's next, or an ERROR; never changed
 *		everything else			as GENERATED would: the column's default in an
 *								INSERT, what it was in an UPDATE
 *	  batched_background_migration_jobs, of a migration that is paused
 *		next_attempt_at			taken as it is
 *		one that was added		the same
 *		updated_at				the time of the change
 *		worker_pid, worker_id, claim_epoch	what they were
 *		everything else			an ERROR, except for the owner of the tables
 *		a new row				an ERROR, except in a restore
 *	  bbm_partitions, bbm_row_errors, bbm_events
 *		every column			an ERROR, except for the owner of the tables
 *
 *	  A restore is an INSERT (or COPY) by the owner of the tables, of a row that
 *	  says where it was started: the row is taken as it is, except for what is
 *	  only true elsewhere.  This requires no superuser, since the owner of a
 *	  table could disable its triggers as well; the engine checks what such an
 *	  owner may write in another role's name (see bbm_catalog_check_trust).
 *
 *	  Our own functions have checked what they insert for a user, including
 *	  key_order.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/columns.h"

#include "access/htup_details.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "optimizer/optimizer.h"
#include "replication/logicalworker.h"
#include "rewrite/rewriteHandler.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/point.h"
#include "base/user.h"
#include "catalog/extension.h"
#include "catalog/migrations.h"
#include "catalog/options.h"
#include "catalog/shape.h"
#include "sql/access.h"
#include "sql/row.h"

PG_FUNCTION_INFO_V1(bbm_record_guard);

static bool
is_among(const char *name, const char *const *names, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

/* Does the user set this column of a migration? */
static bool
is_users(const char *name)
{
	const BbmOption *option = bbm_option_of_column(name);

	return option == NULL || (option->flags & BBM_USERS);
}

/* The value of the column when an INSERT does not name it. */
static Datum
default_of(Relation rel, int attnum, bool *isnull)
{
	Node	   *expression = build_column_default(rel, attnum);
	ExprContext *context;
	Datum		value;

	*isnull = true;
	if (expression == NULL)
		return (Datum) 0;
	context = CreateStandaloneExprContext();
	value = ExecEvalExpr(ExecInitExpr(expression_planner((Expr *) expression), NULL), context, isnull);
	if (!*isnull)
		value = datumCopy(value, TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attbyval,
						  TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attlen);
	FreeExprContext(context, true);
	return value;
}

/*
 * The id of a new row.  Raises an error unless this session has just got it
 * from the sequence, as the column's default does: an id that a user chose may
 * be that of the next INSERT, or may have been another migration's.  An id
 * that a restore has brought along, ahead of the sequence, is skipped.  A
 * session that gets an id between our check and the row has it from the
 * sequence, and so has a different one.
 */
int64
bbm_new_id(Relation rel, int64 id)
{
	Oid			sequence = getIdentitySequence(rel, SPI_fnumber(RelationGetDescr(rel), "id"), false);
	MemoryContext caller = CurrentMemoryContext;
	volatile bool known = false;
	volatile int64 last = 0;
	BbmUserSwitch user_switch;

	bbm_switch_to_extension_owner(&user_switch, bbm_catalog()->owner, false);
	PG_TRY();
	{
		last = DatumGetInt64(DirectFunctionCall1(currval_oid, ObjectIdGetDatum(sequence)));
		known = true;
	}
	PG_CATCH();
	{
		/* the session has not used the sequence; what follows is an error as well */
		MemoryContextSwitchTo(caller);
		if (geterrcode() != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
			PG_RE_THROW();
		FlushErrorState();
	}
	PG_END_TRY();
	if (!known || id != last)
		ereport(ERROR,
				(errcode(ERRCODE_GENERATED_ALWAYS),
				 errmsg("the id of a migration cannot be chosen"),
				 errdetail("It is the next of its sequence."),
				 errhint("Omit it. Only the owner of the tables may choose ids, as a restore does.")));
	SPI_connect();
	while (bbm_migration_by_id(last, CurrentMemoryContext) != NULL)
		last = nextval_internal(sequence, false);
	SPI_finish();
	BBM_POINT("id-checked");
	bbm_restore_user(&user_switch);
	return last;
}

/*
 * A user's row in which the columns that bbm maintains have the values of the
 * old row, or (NULL) their defaults.
 */
static HeapTuple
keep_ours(Relation rel, HeapTuple row, HeapTuple old)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			n = 0;
	int		   *columns = palloc(desc->natts * sizeof(int));
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc(desc->natts * sizeof(bool));

	for (int attnum = 1; attnum <= desc->natts; attnum++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, attnum - 1);
		const char *name = NameStr(attribute->attname);

		if (attribute->attisdropped || is_users(name) ||
			(old == NULL && strcmp(name, "key_order") == 0 && bbm_our_statement()))
			continue;
		values[n] = old ? heap_getattr(old, attnum, desc, &nulls[n]) : default_of(rel, attnum, &nulls[n]);
		columns[n++] = attnum;
	}
	return heap_modify_tuple_by_cols(row, desc, n, columns, values, nulls);
}

/* A user's new row, or one that our functions insert for the user. */
HeapTuple
bbm_columns_insert(Relation rel, HeapTuple row)
{
	return keep_ours(rel, row, NULL);
}

/* A user's change. */
HeapTuple
bbm_columns_update(Relation rel, HeapTuple old, HeapTuple new)
{
	return keep_ours(rel, new, old);
}

/* Returns the first column with one of these flags that has changed; NULL when there is none. */
const char *
bbm_columns_changed(Relation rel, HeapTuple old, HeapTuple new, int flags)
{
	return bbm_columns_changed_but(rel, old, new, flags, NULL);
}

/* The same, leaving out the columns that "may" is true for. */
const char *
bbm_columns_changed_but(Relation rel, HeapTuple old, HeapTuple new, int flags, bool (*may) (const char *column))
{
	TupleDesc	desc = RelationGetDescr(rel);

	bbm_each_option(option)
	{
		if ((option->flags & flags) && !(may && may(option->column)) &&
			bbm_tuples_differ(desc, old, new, SPI_fnumber(desc, option->column)))
			return option->column;
	}
	return NULL;
}

/* The job of a dump: the process that ran it does not exist here. */
HeapTuple
bbm_columns_restore_job(Relation rel, HeapTuple row)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			columns[] = {SPI_fnumber(desc, "worker_pid"), SPI_fnumber(desc, "worker_id")};
	Datum		values[] = {(Datum) 0, (Datum) 0};
	bool		nulls[] = {true, true};

	return heap_modify_tuple_by_cols(row, desc, lengthof(columns), columns, values, nulls);
}

/* Raises an error when a user makes a change of a job that only workers make. */
void
bbm_check_job_columns(Relation rel, HeapTuple old, HeapTuple new)
{
	static const char *const users[] = {
		"next_attempt_at", "updated_at", "worker_pid", "worker_id", "claim_epoch", "batched_background_migration_id"
	};
	TupleDesc	desc = RelationGetDescr(rel);

	for (int attnum = 1; attnum <= desc->natts; attnum++)
	{
		const char *name = NameStr(TupleDescAttr(desc, attnum - 1)->attname);

		if (TupleDescAttr(desc, attnum - 1)->attisdropped || is_among(name, users, lengthof(users)) ||
			!bbm_shape_job_has(name) || !bbm_tuples_differ(desc, old, new, attnum))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("column \"%s\" of a job cannot be changed", name),
				 errdetail("Its migration's workers write it, and rely on it."),
				 errhint("bbm_retry gives failed jobs fresh attempts.")));
	}
}

/*
 * BEFORE INSERT OR UPDATE OR DELETE FOR EACH ROW, and BEFORE TRUNCATE, on the
 * tables that users do not write at all.
 */
Datum
bbm_record_guard(PG_FUNCTION_ARGS)
{
	TriggerData *data = bbm_trigger_data(fcinfo, "bbm_record_guard");

	/* logical replication: another trigger ignores its rows, and a TRUNCATE loses only what is reported, not used */
	if (!bbm_engine_writes() && !bbm_may_restore() && !IsLogicalWorker())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to write table \"%s\"", RelationGetRelationName(data->tg_relation)),
				 errdetail("It is written by bbm alone."),
				 errhint("bbm_drop removes a migration and all that belongs to it; bbm.event_retention removes old events.")));
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple);
}
