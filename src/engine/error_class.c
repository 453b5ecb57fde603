/*-------------------------------------------------------------------------
 *
 * error_class.c
 *		What an error means, by its SQLSTATE.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/error_class.h"

#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/txn.h"

/* An error that another session has caused, and that ends with what that session does: it is retried soon. */
bool
bbm_error_is_lock(int sqlstate)
{
	switch (sqlstate)
	{
		case ERRCODE_QUERY_CANCELED:
		case ERRCODE_LOCK_NOT_AVAILABLE:
		case ERRCODE_OBJECT_IN_USE:
		case ERRCODE_T_R_SERIALIZATION_FAILURE:
		case ERRCODE_T_R_DEADLOCK_DETECTED:
			return true;
		default:
			return false;
	}
}

/*
 * Has the server run out of transaction ids, multixacts, or room for
 * notifications?  The SQLSTATE of these errors is also that of a row which is
 * too large for an index, and their text may be in any language: the file that
 * raised them distinguishes them.
 */
static bool
has_run_out(const ErrorData *error)
{
	static const char *const files[] = {"varsup.c", "multixact.c", "async.c"};

	for (int i = 0; i < lengthof(files); i++)
	{
		if (error->filename && strcmp(error->filename, files[i]) == 0)
			return true;
	}
	return false;
}

/*
 * Classifies an error by the class of its SQLSTATE.  Locks, cancels,
 * serialization failures and lack of resources are transient errors.  A limit
 * that somebody has set is not transient, but a smaller batch may stay below
 * it.  A missing or forbidden object is a permanent error.  Any other error
 * may be due to the data of the batch.
 */
BbmErrorClass
bbm_error_class(const ErrorData *error)
{
	int			sqlstate = error->sqlerrcode;

	if (bbm_error_is_lock(sqlstate))
		return BBM_ERROR_TRANSIENT;
	switch (sqlstate)
	{
		case ERRCODE_CONFIGURATION_LIMIT_EXCEEDED:
			return BBM_ERROR_SIZE;
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
			return has_run_out(error) ? BBM_ERROR_TRANSIENT : BBM_ERROR_DATA;
		case ERRCODE_ADMIN_SHUTDOWN:
		case ERRCODE_CRASH_SHUTDOWN:
		case ERRCODE_CANNOT_CONNECT_NOW:
		case ERRCODE_IO_ERROR:
			/* raised by a foreign data wrapper itself */
		case ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION:
		case ERRCODE_FDW_OUT_OF_MEMORY:
			/* snapshot too old, up to 16 */
		case MAKE_SQLSTATE('7', '2', '0', '0', '0'):
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
			/* a foreign table's server is not available */
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

/* failure_error_code of an error; "step_code" says what was being done. */
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

/*
 * Is the error about something that the job needs, and that a deployment may
 * bring later than the migration: what the job's text names or calls, the
 * right to it, or the index that a strategy asks for?  This does not include
 * the table and the key, which are what the migration is about, nor a text
 * that is wrong.
 */
static bool
may_be_early(const ErrorData *error, int step_code)
{
	if (step_code == BBM_CODE_STRATEGY)
		return error->sqlerrcode == ERRCODE_FEATURE_NOT_SUPPORTED && error->column_name != NULL;
	if (step_code != BBM_CODE_SIGNATURE)
		return false;
	switch (error->sqlerrcode)
	{
		case ERRCODE_UNDEFINED_FUNCTION:
		case ERRCODE_UNDEFINED_TABLE:
		case ERRCODE_UNDEFINED_COLUMN:
		case ERRCODE_UNDEFINED_OBJECT:
		case ERRCODE_INVALID_SCHEMA_NAME:
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
			return true;
		default:
			return false;
	}
}

/*
 * An error that was met while a migration was resolved, as users see it while
 * a worker waits for its cause to go away; NULL when the worker does not wait.
 * A session gets the error at once, as somebody is there.  The time to wait is
 * counted from the row: from when it was inserted, started or altered last,
 * whichever process checks.  If the clock has been set back since, that may lie
 * ahead, and the wait is longer by so much: to fail at once would be worse.
 */
ErrorData *
bbm_error_if_early(const BbmMigration *migration, const ErrorData *error, int step_code)
{
	int64		ms = (int64) bbm_setting_int(migration, BBM_MISSING_JOB_TIMEOUT) * 1000;
	ErrorData  *early;

	if (!bbm_txn_in_worker() || migration->was_started || !may_be_early(error, step_code) ||
		GetCurrentTimestamp() >= TimestampTzPlusMilliseconds(migration->changed_at, ms))
		return NULL;
	early = palloc(sizeof(ErrorData));
	*early = *error;
	early->message = psprintf("not there yet: %s", error->message);
	return early;
}
