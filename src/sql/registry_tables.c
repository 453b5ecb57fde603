/*-------------------------------------------------------------------------
 *
 * registry_tables.c
 *		The GitLab container registry's own tables, read for the import.
 *
 * NOTES
 *	  They are read with the rights of the caller, after they have been locked
 *	  against writing, with a snapshot that is taken then: so this is their
 *	  last state, whoever was writing them, and remains so until the caller's
 *	  transaction ends.  All of it is checked.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/registry_tables.h"

#include "access/relation.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/guc.h"
#include "base/spi.h"
#include "base/user.h"
#include "catalog/extension.h"
#include "catalog/import.h"
#include "strategy/strategy.h"
#include "target/relation.h"

typedef enum ColumnKind
{
	KIND_INTEGER,
	KIND_TEXT,
	KIND_TIME
} ColumnKind;

typedef struct ForeignColumn
{
	const char *name;
	ColumnKind	kind;
	bool		may_be_null;
	bool		may_be_missing;
} ForeignColumn;

enum
{
	M_ID, M_NAME, M_CREATED, M_UPDATED, M_STARTED, M_FINISHED, M_MIN, M_MAX, M_BATCH, M_STATUS, M_JOB, M_TABLE,
	M_COLUMN, M_CODE, M_STRATEGY, M_TOTAL, M_SUB_BATCH
};

static const ForeignColumn migration_columns[] = {
	[M_ID] = {"id", KIND_INTEGER},
	[M_NAME] = {"name", KIND_TEXT},
	[M_CREATED] = {"created_at", KIND_TIME},
	[M_UPDATED] = {"updated_at", KIND_TIME, true},
	[M_STARTED] = {"started_at", KIND_TIME, true},
	[M_FINISHED] = {"finished_at", KIND_TIME, true},
	[M_MIN] = {"min_value", KIND_INTEGER},
	[M_MAX] = {"max_value", KIND_INTEGER},
	[M_BATCH] = {"batch_size", KIND_INTEGER},
	[M_STATUS] = {"status", KIND_INTEGER},
	[M_JOB] = {"job_signature_name", KIND_TEXT},
	[M_TABLE] = {"table_name", KIND_TEXT},
	[M_COLUMN] = {"column_name", KIND_TEXT},
	[M_CODE] = {"failure_error_code", KIND_INTEGER, true},
	[M_STRATEGY] = {"batching_strategy", KIND_TEXT, true},
	[M_TOTAL] = {"total_tuple_count", KIND_INTEGER, true},
	/* added in February 2026 */
	[M_SUB_BATCH] = {"sub_batch_size", KIND_INTEGER, false, true}
};

enum
{
	J_ID, J_CREATED, J_UPDATED, J_STARTED, J_FINISHED, J_MIGRATION, J_MIN, J_MAX, J_STATUS, J_CODE, J_ATTEMPTS
};

static const ForeignColumn job_columns[] = {
	[J_ID] = {"id", KIND_INTEGER},
	[J_CREATED] = {"created_at", KIND_TIME},
	[J_UPDATED] = {"updated_at", KIND_TIME, true},
	[J_STARTED] = {"started_at", KIND_TIME, true},
	[J_FINISHED] = {"finished_at", KIND_TIME, true},
	[J_MIGRATION] = {"batched_background_migration_id", KIND_INTEGER},
	[J_MIN] = {"min_value", KIND_INTEGER},
	[J_MAX] = {"max_value", KIND_INTEGER},
	[J_STATUS] = {"status", KIND_INTEGER},
	[J_CODE] = {"failure_error_code", KIND_INTEGER, true},
	[J_ATTEMPTS] = {"attempts", KIND_INTEGER}
};

/* One of the two original tables. */
typedef struct Original
{
	Oid			relid;
	Oid			owner;
	char	   *name;			/* for SQL and for messages */
	const ForeignColumn *columns;
	int			n_columns;
	bool		missing[lengthof(migration_columns)];
} Original;

/* ----------------------------------------------------------------
 * What the originals are
 * ----------------------------------------------------------------
 */

static bool
is_of_kind(Oid type, ColumnKind kind)
{
	switch (kind)
	{
		case KIND_INTEGER:
			return type == INT2OID || type == INT4OID || type == INT8OID;
		case KIND_TEXT:
			return type == TEXTOID || type == VARCHAROID;
		case KIND_TIME:
			return type == TIMESTAMPTZOID;
	}
	return false;
}

static void
not_the_registrys(const Original *original, int sqlstate, const char *detail)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("table %s is not the container registry's", original->name),
			 errdetail("%s", detail),
			 errhint("Nothing was imported. Name the registry's batched_background_migrations first, and its batched_background_migration_jobs second.")));
}

static const ForeignColumn *
find_column(const Original *original, const char *name)
{
	for (int i = 0; i < original->n_columns; i++)
	{
		if (strcmp(original->columns[i].name, name) == 0)
			return &original->columns[i];
	}
	return NULL;
}

/* Checks whether it has the registry's columns, and no others: these would be lost. */
static void
check_columns(Original *original, TupleDesc desc)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		const ForeignColumn *column;

		if (attribute->attisdropped)
			continue;
		column = find_column(original, NameStr(attribute->attname));
		if (column == NULL)
			not_the_registrys(original, ERRCODE_UNDEFINED_COLUMN,
							  psprintf("It has a column \"%s\", which is not known.", NameStr(attribute->attname)));
		else if (!is_of_kind(attribute->atttypid, column->kind))
			not_the_registrys(original, ERRCODE_DATATYPE_MISMATCH,
							  psprintf("Its column \"%s\" has type %s.", column->name, format_type_be(attribute->atttypid)));
	}
	for (int i = 0; i < original->n_columns; i++)
	{
		original->missing[i] = get_attnum(original->relid, original->columns[i].name) <= 0;
		if (original->missing[i] && !original->columns[i].may_be_missing)
			not_the_registrys(original, ERRCODE_UNDEFINED_COLUMN,
							  psprintf("It has no column \"%s\".", original->columns[i].name));
	}
}

static void
no_such_table(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("%s does not exist", what),
			 errdetail("It was dropped, or the number is not that of a table."),
			 errhint("Give the names of the registry's tables.")));
}

/*
 * Locks the table against writing, as LOCK TABLE would with the same rights,
 * so that its last state is read.  This waits for transactions that have
 * written to it and have not ended, as long as the caller's lock_timeout
 * allows.
 */
static void
open_original(Original *original, Oid relid, LOCKMODE mode)
{
	Relation	rel;

	original->relid = relid;
	if (get_rel_name(relid) == NULL)
		no_such_table(psprintf("relation with OID %u", relid));
	original->name = bbm_table_sql_name(relid);
	if (getExtensionOfObject(RelationRelationId, relid) == bbm_catalog()->extension)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("table %s is bbm's own", original->name),
				 errdetail("bbm_import reads the registry's tables, under the names that you gave them before CREATE EXTENSION."),
				 errhint("Rename the registry's tables first; doc/registry.md has the steps.")));
	if (get_rel_relkind(relid) != RELKIND_RELATION)
		not_the_registrys(original, ERRCODE_WRONG_OBJECT_TYPE, "It is not an ordinary table.");
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK ||
		pg_class_aclcheck(relid, GetUserId(), ACL_UPDATE | ACL_DELETE | ACL_TRUNCATE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", original->name),
				 errdetail("It is read, and locked against writing meanwhile, with the rights of the caller."),
				 errhint("Call it as the table's owner, or as a superuser.")));
	rel = try_relation_open(relid, mode);
	/* it was dropped while we waited for its lock */
	if (rel == NULL)
		no_such_table(psprintf("table %s", original->name));
	original->owner = rel->rd_rel->relowner;
	check_columns(original, RelationGetDescr(rel));
	relation_close(rel, NoLock);
}

/* ----------------------------------------------------------------
 * Reading
 * ----------------------------------------------------------------
 */

/*
 * Reads all rows, in the order of their ids, into SPI_tuptable; with a
 * snapshot that is active.
 *
 * A superuser may do anything, so for a superuser the rows are read with the
 * rights of the table's owner: code that the owner has attached to the table,
 * such as an index expression that is evaluated when a statement is planned,
 * then has no more rights than its author.
 */
static void
read_original(const Original *original)
{
	StringInfoData sql;
	Oid			user;
	int			context;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int i = 0; i < original->n_columns; i++)
	{
		const ForeignColumn *column = &original->columns[i];
		const char *type = column->kind == KIND_INTEGER ? "::bigint" : column->kind == KIND_TEXT ? "::text" : "";

		appendStringInfo(&sql, "%s%s%s", i > 0 ? ", " : "",
						 original->missing[i] ? "0" : quote_identifier(column->name), type);
	}
	appendStringInfo(&sql, " FROM ONLY %s ORDER BY id", original->name);
	GetUserIdAndSecContext(&user, &context);
	/* an error restores them with the (sub)transaction */
	if (superuser_arg(user))
		SetUserIdAndSecContext(original->owner,
							   context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	(void) bbm_spi_execute(sql.data, true, 0);
	SetUserIdAndSecContext(user, context);
}

static void
bad_row(const Original *original, int64 id, int sqlstate, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("row with id " INT64_FORMAT " of table %s cannot be imported", id, original->name),
			 errdetail("%s", detail),
			 errhint("Nothing was imported. %s", hint)));
}

/* Returns "null" where the column is NULL, if that is allowed. */
static int64
read_int(const Original *original, uint64 row, int column, int64 null)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column + 1, &isnull);

	if (!isnull)
		return DatumGetInt64(value);
	if (!original->columns[column].may_be_null)
		bad_row(original, column == 0 ? 0 : read_int(original, row, 0, 0), ERRCODE_NOT_NULL_VIOLATION,
				psprintf("Its %s is NULL.", original->columns[column].name), "Set it, or delete the row.");
	return null;
}

/* The same for a value that has to lie within bounds. */
static int64
read_bounded(const Original *original, uint64 row, int column, int64 null, int64 low, int64 high)
{
	int64		value = read_int(original, row, column, null);

	if (value == null && original->columns[column].may_be_null)
		return null;
	if (value < low || value > high)
		bad_row(original, read_int(original, row, 0, 0), ERRCODE_INVALID_PARAMETER_VALUE,
				psprintf("Its %s is " INT64_FORMAT ", and not from " INT64_FORMAT " to " INT64_FORMAT ".",
						 original->columns[column].name, value, low, high),
				"Correct the row, or delete it.");
	return value;
}

static TimestampTz
read_time(const Original *original, uint64 row, int column)
{
	return (TimestampTz) read_int(original, row, column, 0);
}

/* In the current memory context; NULL when NULL. */
static char *
read_text(const Original *original, uint64 row, int column)
{
	bool		isnull;

	(void) SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column + 1, &isnull);
	if (isnull)
	{
		(void) read_int(original, row, column, 0);
		return NULL;
	}
	return TextDatumGetCString(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column + 1, &isnull));
}

/* Checks what the guards of our tables would refuse, and reports it in terms of the original. */
static void
check_migration(const Original *original, const BbmForeignMigration *m)
{
	if (m->name[0] == '\0' || strlen(m->name) > BBM_MAX_NAME_LENGTH)
		bad_row(original, m->id, m->name[0] == '\0' ? ERRCODE_INVALID_NAME : ERRCODE_NAME_TOO_LONG,
				psprintf("Its name has %zu bytes, and not from 1 to %d.", strlen(m->name), BBM_MAX_NAME_LENGTH),
				"Rename it, or delete the row.");
	if (m->min > m->max)
		bad_row(original, m->id, ERRCODE_INVALID_PARAMETER_VALUE,
				psprintf("Its min_value, " INT64_FORMAT ", is above its max_value, " INT64_FORMAT ".", m->min, m->max),
				"Correct the row, or delete it.");
}

static BbmForeignMigration *
read_migrations(const Original *original, int *n)
{
	BbmForeignMigration *list;

	read_original(original);
	*n = (int) SPI_processed;
	list = palloc0(Max(*n, 1) * sizeof(BbmForeignMigration));
	for (int i = 0; i < *n; i++)
	{
		BbmForeignMigration *m = &list[i];

		m->id = read_int(original, i, M_ID, 0);
		m->name = read_text(original, i, M_NAME);
		m->created_at = read_time(original, i, M_CREATED);
		m->started_at = read_time(original, i, M_STARTED);
		m->finished_at = read_time(original, i, M_FINISHED);
		if (m->finished_at == 0)
			m->finished_at = read_time(original, i, M_UPDATED);
		m->min = read_int(original, i, M_MIN, 0);
		m->max = read_int(original, i, M_MAX, 0);
		m->batch_size = read_bounded(original, i, M_BATCH, 0, 1, PG_INT32_MAX);
		m->sub_batch_size = read_bounded(original, i, M_SUB_BATCH, 0, 0, PG_INT32_MAX);
		m->status = read_bounded(original, i, M_STATUS, 0, BBM_PAUSED, BBM_RUNNING);
		m->job = read_text(original, i, M_JOB);
		m->table_name = read_text(original, i, M_TABLE);
		m->column_name = read_text(original, i, M_COLUMN);
		m->code = read_bounded(original, i, M_CODE, -1, BBM_CODE_UNKNOWN, BBM_CODE_STRATEGY);
		m->strategy = read_text(original, i, M_STRATEGY);
		check_migration(original, m);
		/* the planner's -1 means the same */
		m->total = Max(read_int(original, i, M_TOTAL, -1), -1);
	}
	return list;
}

static int
compare_names(const void *a, const void *b)
{
	const BbmForeignMigration *m = *(BbmForeignMigration *const *) a;
	const BbmForeignMigration *n = *(BbmForeignMigration *const *) b;
	int			order = strcmp(m->name, n->name);

	return order != 0 ? order : (m->id > n->id) - (m->id < n->id);
}

static void
check_names(const Original *original, BbmForeignMigration *list, int n)
{
	BbmForeignMigration **sorted = palloc(Max(n, 1) * sizeof(BbmForeignMigration *));

	for (int i = 0; i < n; i++)
		sorted[i] = &list[i];
	qsort(sorted, n, sizeof(BbmForeignMigration *), compare_names);
	for (int i = 1; i < n; i++)
	{
		if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
			bad_row(original, sorted[i]->id, ERRCODE_UNIQUE_VIOLATION,
					psprintf("Its name, \"%s\", is that of the row with id " INT64_FORMAT " as well.", sorted[i]->name,
							 sorted[i - 1]->id),
					"Rename one of them, or delete it.");
		if (sorted[i - 1]->id == sorted[i]->id)
			bad_row(original, sorted[i]->id, ERRCODE_UNIQUE_VIOLATION, "There are several with this id.",
					"Is it the registry's table?");
	}
}

static int
compare_ids(const void *a, const void *b)
{
	int64		x = ((const BbmForeignMigration *) a)->id;
	int64		y = ((const BbmForeignMigration *) b)->id;

	return (x > y) - (x < y);
}

/* The ids ascend. */
static BbmForeignMigration *
migration_of(BbmForeignMigration *list, int n, int64 id)
{
	BbmForeignMigration wanted = {.id = id};

	return bsearch(&wanted, list, n, sizeof(BbmForeignMigration), compare_ids);
}

/* Has the migration jobs with ranges, or does each process what it finds? */
bool
bbm_foreign_has_ranges(const BbmForeignMigration *m)
{
	return m->strategy == NULL || strcmp(m->strategy, bbm_strategy_null.name) != 0;
}

/*
 * Checks a job against the ranges of the registry's worker: each begins where
 * the one before has ended, the first at the migration's first key.  For other
 * ranges nobody could say what is done.
 */
static void
check_range(const Original *original, const BbmForeignMigration *m, const BbmForeignJob *job,
			const BbmForeignJob *before)
{
	const char *hint = "The jobs of a migration follow each other in the order of their ids, from its min_value on; correct them.";

	if (!bbm_foreign_has_ranges(m))
	{
		if (job->min != 0 || job->max != 0)
			bad_row(original, job->id, ERRCODE_INVALID_PARAMETER_VALUE,
					psprintf("It has a range, and its migration, \"%s\", has a strategy without.", m->name),
					"Both bounds are 0 there; correct them.");
		return;
	}
	if (job->min > job->max)
		bad_row(original, job->id, ERRCODE_INVALID_PARAMETER_VALUE,
				psprintf("Its min_value, " INT64_FORMAT ", is above its max_value, " INT64_FORMAT ".", job->min, job->max), hint);
	if (before && job->min <= before->max && job->max >= before->min)
		bad_row(original, job->id, ERRCODE_EXCLUSION_VIOLATION,
				psprintf("Its range, " INT64_FORMAT " to " INT64_FORMAT ", overlaps that of the row with id " INT64_FORMAT ", "
						 INT64_FORMAT " to " INT64_FORMAT ".", job->min, job->max, before->id, before->min, before->max), hint);
	if (before ? before->max == PG_INT64_MAX || job->min != before->max + 1 : job->min != m->min)
		bad_row(original, job->id, ERRCODE_DATA_EXCEPTION,
				psprintf("It begins at " INT64_FORMAT ", and not at " INT64_FORMAT ", where %s.", job->min,
						 before ? before->max + (before->max != PG_INT64_MAX) : m->min,
						 before ? psprintf("the row with id " INT64_FORMAT " has left off", before->id) :
						 "its migration begins"), hint);
}

/* How many keys the job may have: no more than its range was allocated for. */
static int64
keys_of(const BbmForeignMigration *m, const BbmForeignJob *job)
{
	if (!bbm_foreign_has_ranges(m) || job->max - (uint64) job->min >= (uint64) m->batch_size)
		return m->batch_size;
	return job->max - job->min + 1;
}

static void
read_job(const Original *original, uint64 row, BbmForeignJob *job)
{
	job->id = read_int(original, row, J_ID, 0);
	job->migration_id = read_int(original, row, J_MIGRATION, 0);
	job->created_at = read_time(original, row, J_CREATED);
	job->started_at = read_time(original, row, J_STARTED);
	job->finished_at = read_time(original, row, J_FINISHED);
	job->min = read_int(original, row, J_MIN, 0);
	job->max = read_int(original, row, J_MAX, 0);
	job->status = read_bounded(original, row, J_STATUS, 0, BBM_JOB_NEW, BBM_FAILED);
	job->code = read_bounded(original, row, J_CODE, -1, BBM_CODE_UNKNOWN, BBM_CODE_STRATEGY);
	job->attempts = read_bounded(original, row, J_ATTEMPTS, 0, 0, PG_INT16_MAX);
	if (job->status == BBM_FINISHED)
	{
		job->code = -1;
		if (job->finished_at == 0)
			job->finished_at = read_time(original, row, J_UPDATED);
		if (job->finished_at == 0)
			job->finished_at = job->created_at;
	}
	else
		job->finished_at = 0;
}

/* Reads all jobs, and adds each to its migration. */
static void
read_jobs(const Original *original, const Original *migrations, BbmForeignMigration *list, int n)
{
	int64		previous = 0;

	read_original(original);
	for (int pass = 0; pass < 2; pass++)
	{
		/* the first loop counts them */
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			BbmForeignJob job;
			BbmForeignMigration *m;

			read_job(original, i, &job);
			m = migration_of(list, n, job.migration_id);
			if (m == NULL)
				bad_row(original, job.id, ERRCODE_FOREIGN_KEY_VIOLATION,
						psprintf("Its migration, " INT64_FORMAT ", is not in table %s.", job.migration_id, migrations->name),
						"Delete it, or name the table that has its migration.");
			if (pass > 0)
			{
				if (i > 0 && previous == job.id)
					bad_row(original, job.id, ERRCODE_UNIQUE_VIOLATION, "There are several with this id.",
							"Is it the registry's table?");
				check_range(original, m, &job, m->n_jobs > 0 ? &m->jobs[m->n_jobs - 1] : NULL);
				job.keys = keys_of(m, &job);
				if (job.status == BBM_FINISHED)
				{
					m->n_finished++;
					m->has_last = true;
					m->last = job.max;
				}
				if (m->started_at == 0)
					m->started_at = job.created_at;
				m->jobs[m->n_jobs] = job;
				previous = job.id;
			}
			m->n_jobs++;
		}
		for (int m = 0; pass == 0 && m < n; m++)
		{
			Size		n_jobs = Max(list[m].n_jobs, 1);

			list[m].jobs = MemoryContextAllocHuge(CurrentMemoryContext, n_jobs * sizeof(BbmForeignJob));
			list[m].n_jobs = 0;
		}
	}
}

/*
 * Returns all migrations of the originals, in the order of their ids, with
 * their jobs; in the current memory context.  Raises an error unless all of
 * them can be imported.  The tables stay locked.  Needs SPI.
 */
BbmForeignMigration *
bbm_foreign_read(Oid migrations_relid, Oid jobs_relid, int *n)
{
	Original	migrations = {.columns = migration_columns, .n_columns = lengthof(migration_columns)};
	Original	jobs = {.columns = job_columns, .n_columns = lengthof(job_columns)};
	BbmForeignMigration *list;
	int			level;

	/* imports of the same tables are serialized: the second finds what the first has made */
	open_original(&migrations, migrations_relid, ShareRowExclusiveLock);
	open_original(&jobs, jobs_relid, ShareLock);

	level = NewGUCNestLevel();
	bbm_guc_set("search_path", BBM_SEARCH_PATH, true);
	/* rows that a policy hides would be missing: this makes it an error */
	bbm_guc_set("row_security", "off", true);
	/* taken after the locks: it has what the last writer has committed, whatever the isolation level */
	PushActiveSnapshot(GetLatestSnapshot());
	list = read_migrations(&migrations, n);
	check_names(&migrations, list, *n);
	read_jobs(&jobs, &migrations, list, *n);
	PopActiveSnapshot();
	AtEOXact_GUC(false, level);
	return list;
}
