/*-------------------------------------------------------------------------
 *
 * record.c
 *		What becomes of a migration or a job, and writing it down.
 *
 * NOTES
 *	  A batch that succeeds is recorded in its own transaction, by execute.c.
 *	  Here is the third transaction of a job, which runs after the second was
 *	  rolled back.  Between the two another worker may find the job running
 *	  and its worker alive, and leave it alone; or find the worker gone, and
 *	  take it, after which the record here finds its token stale and writes
 *	  nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "record.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "shmem.h"
#include "throttle.h"
#include "txn.h"

/* A job that was given back this often has a problem of its own. */
#define BBM_MAX_GIVE_BACKS 1000
#define BBM_RECORD_TRIES 30
#define BBM_FIRST_GIVE_BACK_MS 100
#define BBM_LAST_GIVE_BACK_MS (30 * 1000)

/* The rules for users; the engine's own transitions are checked where it makes them. */
BbmTransition
bbm_transition(BbmStatus from, int to)
{
	if (to != BBM_PAUSED && to != BBM_ACTIVE)
		return to == (int) from ? BBM_KEEP : BBM_REFUSE;
	if (from == BBM_FINISHED)
		return BBM_KEEP_FINISHED;
	/* a running one that is started goes on running */
	if ((int) from == to || (from == BBM_RUNNING && to == BBM_ACTIVE))
		return BBM_KEEP;
	return BBM_CHANGE;
}

/*
 * By SQLSTATE class.  Locks, cancels, serialization failures and want of
 * resources pass; a missing or forbidden object does not pass by trying again;
 * anything else may be due to the data of the batch.
 */
BbmErrorClass
bbm_error_class(int sqlstate)
{
	switch (sqlstate)
	{
		case ERRCODE_QUERY_CANCELED:
		case ERRCODE_LOCK_NOT_AVAILABLE:
		case ERRCODE_OBJECT_IN_USE:
		case ERRCODE_T_R_SERIALIZATION_FAILURE:
		case ERRCODE_T_R_DEADLOCK_DETECTED:
		case ERRCODE_ADMIN_SHUTDOWN:
		case ERRCODE_CRASH_SHUTDOWN:
		case ERRCODE_CANNOT_CONNECT_NOW:
		case ERRCODE_IO_ERROR:
			return BBM_ERROR_TRANSIENT;
		case ERRCODE_INVALID_TRANSACTION_TERMINATION:
		case ERRCODE_ACTIVE_SQL_TRANSACTION:
		case ERRCODE_FEATURE_NOT_SUPPORTED:
			return BBM_ERROR_HOPELESS;
		default:
			break;
	}
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES):
			/* a foreign table's server is away */
		case ERRCODE_TO_CATEGORY(ERRCODE_CONNECTION_EXCEPTION):
			return BBM_ERROR_TRANSIENT;
		case ERRCODE_TO_CATEGORY(ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION):
		case ERRCODE_TO_CATEGORY(ERRCODE_INVALID_SCHEMA_NAME):
		case ERRCODE_TO_CATEGORY(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION):
			return BBM_ERROR_HOPELESS;
		default:
			return BBM_ERROR_DATA;
	}
}

/* failure_error_code of an error; "step_code" is what was being done. */
int
bbm_error_code(int sqlstate, int step_code)
{
	switch (sqlstate)
	{
		case ERRCODE_UNDEFINED_TABLE:
		case ERRCODE_INVALID_SCHEMA_NAME:
			return BBM_CODE_TABLE;
		case ERRCODE_UNDEFINED_COLUMN:
			return BBM_CODE_COLUMN;
		case ERRCODE_UNDEFINED_FUNCTION:
		case ERRCODE_AMBIGUOUS_FUNCTION:
		case ERRCODE_SYNTAX_ERROR:
		case ERRCODE_UNDEFINED_PARAMETER:
		case ERRCODE_INVALID_TRANSACTION_TERMINATION:
			return BBM_CODE_SIGNATURE;
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
			return BBM_CODE_UNKNOWN;
		default:
			return step_code;
	}
}

/* An error of our own making, in the current memory context. */
ErrorData *
bbm_make_error(int sqlstate, const char *message, const char *hint)
{
	ErrorData  *error = palloc0(sizeof(ErrorData));

	error->elevel = ERROR;
	error->sqlerrcode = sqlstate;
	error->message = pstrdup(message);
	error->hint = hint ? pstrdup(hint) : NULL;
	error->assoc_context = CurrentMemoryContext;
	return error;
}

typedef struct FailArgs
{
	const BbmMigration *migration;
	int			code;
	ErrorData  *error;
	bool		failed;
} FailArgs;

/*
 * The row's lock keeps a user's change out until we commit.  One that committed
 * since the row was read that the error came from is seen here, and then the
 * error says nothing of the migration as it is now.
 */
static void
fail_migration(void *arg)
{
	FailArgs   *args = arg;
	int64		id = args->migration->id;
	BbmStatus	status;
	BbmMigration *now = bbm_migration_lock(id, &status) ? bbm_migration_by_id(id, CurrentMemoryContext) : NULL;

	args->failed = now && (status == BBM_ACTIVE || status == BBM_RUNNING) &&
		now->updated_at == args->migration->updated_at;
	if (args->failed)
		bbm_migration_fail(id, args->code, args->error);
}

/*
 * Fails a migration with an error that was met with its row as given.  False
 * when that could not be written now (a steering transaction holds the row,
 * say); whoever works on it next finds the same.
 */
bool
bbm_record_migration_failed(const BbmMigration *migration, int code, ErrorData *error)
{
	const char *name = migration->name;
	FailArgs	args = {migration, code, error, false};
	ErrorData  *trouble = bbm_txn_run(fail_migration, &args, true);

	if (trouble)
	{
		ereport(LOG,
				(errcode(trouble->sqlerrcode),
				 errmsg("could not record the failure of migration \"%s\" yet: %s", name, trouble->message)));
		return false;
	}
	if (args.failed)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("migration \"%s\" failed: %s", name, error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) : 0));
	bbm_state_changed();
	return true;
}

typedef struct JobArgs
{
	BbmJob	   *job;
	ErrorData  *error;
	int			code;
	bool		give_back;
	TimestampTz due;
	bool		ours;
} JobArgs;

/* One statement, which checks the token itself. */
static void
record_job(void *arg)
{
	JobArgs    *args = arg;

	if (args->give_back)
		args->ours = bbm_job_give_back(args->job, args->error, args->due);
	else
		args->ours = bbm_job_fail(args->job, args->code, args->error, args->due);
}

/*
 * Writes the job.  What passes by itself (another cancel, a lock) is tried
 * again, since an attempt that did not count must not begin to because of it;
 * any other error is this process's end, and makes the job an orphan.
 */
static bool
write_job(JobArgs *args)
{
	ErrorData  *trouble = bbm_txn_run(record_job, args, false);

	for (int i = 0; i < BBM_RECORD_TRIES && trouble && bbm_error_class(trouble->sqlerrcode) == BBM_ERROR_TRANSIENT; i++)
	{
		/* the next cancel would only come to the same */
		QueryCancelPending = false;
		/* a server that shuts down gets its way */
		CHECK_FOR_INTERRUPTS();
		trouble = bbm_txn_run(record_job, args, false);
	}
	if (trouble && !bbm_extension_is_here())
		return false;
	if (trouble)
		ThrowErrorData(trouble);
	bbm_batch_ended();
	return args->ours;
}

static TimestampTz
give_back_until(const BbmJob *job)
{
	int64		delay = bbm_backoff_ms(job->claim_no - job->attempts + 1, BBM_FIRST_GIVE_BACK_MS,
									   BBM_LAST_GIVE_BACK_MS, pg_prng_double(&pg_global_prng_state));

	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay);
}

/* The batch was given up, and that does not count as an attempt. */
void
bbm_record_give_back(BbmTarget *target, BbmJob *job, ErrorData *why)
{
	JobArgs		args = {job, why, 0, true, give_back_until(job), false};

	if (write_job(&args))
		ereport(LOG,
				(errcode(why->sqlerrcode),
				 errmsg("migration \"%s\": gave back job " INT64_FORMAT ": %s",
						target->migration->name, job->id, why->message)));
}

/*
 * After a batch was rolled back with this error.  True when the migration may
 * go on, false when it has failed with it.
 */
bool
bbm_record_failure(BbmTarget *target, BbmJob *job, ErrorData *error, int step_code)
{
	BbmErrorClass class = bbm_error_class(error->sqlerrcode);
	int			code = bbm_error_code(error->sqlerrcode, step_code);
	bool		used_up = job->attempts >= target->migration->max_attempts;
	JobArgs		args = {job, error, code, false, 0, false};

	if (class == BBM_ERROR_TRANSIENT && job->claim_no - job->attempts < BBM_MAX_GIVE_BACKS)
	{
		bbm_record_give_back(target, job, error);
		return true;
	}

	args.due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										   bbm_backoff_ms(job->attempts, bbm_retry_delay, bbm_retry_max_delay,
														  pg_prng_double(&pg_global_prng_state)));
	if (!write_job(&args))
		return true;
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("migration \"%s\": job " INT64_FORMAT " failed, attempt %d of %d: %s",
					target->migration->name, job->id, job->attempts, target->migration->max_attempts,
					error->message)));

	if (class == BBM_ERROR_HOPELESS)
		bbm_record_migration_failed(target->migration, code, error);
	else if (used_up)
		bbm_record_migration_failed(target->migration, BBM_CODE_ATTEMPTS, error);
	else
		return true;
	return false;
}
