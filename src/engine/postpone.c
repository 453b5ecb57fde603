/*-------------------------------------------------------------------------
 *
 * postpone.c
 *		What a step does with a migration that cannot go on now: it waits, or
 *		fails.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/postpone.h"

#include "base/cancel.h"
#include "base/slots.h"
#include "base/trouble.h"
#include "base/txn.h"
#include "catalog/extension.h"
#include "catalog/jobs.h"
#include "catalog/shards.h"
#include "engine/error_class.h"
#include "engine/outcome.h"

/*
 * Has this process met a transient error (base/trouble.c), so that it waits
 * before it may try again?  Returns false when it has not, or when it may try
 * again.
 */
bool
bbm_in_trouble(BbmEngine *engine, int64 id, BbmOutcome *outcome)
{
	BbmWait    *wait = &engine->wait;

	if (!bbm_trouble_waits(id, engine->owner, &wait->reason, &wait->since))
		return false;
	engine->throttled = true;
	bbm_slot_wait_with(id, &wait->reason);
	outcome->result = BBM_STEP_WAIT;
	outcome->due = wait->reason.due;
	return true;
}

/*
 * Takes over an error that is not the migration's fault, with the migration's
 * name if that was known: the next poll is later.
 */
BbmOutcome
bbm_try_later(BbmEngine *engine, int64 id, const char *name, ErrorData *error)
{
	BbmOutcome	outcome = {BBM_STEP_WAIT};

	if (bbm_error_is_cancel(error))
		engine->cancelled = error;
	outcome.due = bbm_trouble_met(id, engine->owner, name, error, bbm_error_is_lock(error->sqlerrcode), false);
	(void) bbm_in_trouble(engine, id, &outcome);
	return outcome;
}

static void
catch_up(void *arg)
{
	bbm_job_ids_catch_up();
}

/* An error outside a batch: the migration fails with it, unless it is transient. */
BbmOutcome
bbm_fail_or_wait(BbmEngine *engine, const BbmMigration *migration, ErrorData *error)
{
	int			step_code = bbm_failing_code;
	ErrorData  *early;
	BbmOutcome	outcome;

	/* if this does not succeed now, the next try meets the same error */
	if (bbm_job_ids_are_behind(error))
	{
		(void) bbm_txn_run(catch_up, NULL, false);
		return bbm_try_later(engine, migration->id, migration->name, error);
	}
	if (!bbm_extension_is_here())
		return BBM_NOTHING;
	if (bbm_error_class(error) == BBM_ERROR_TRANSIENT || bbm_shard_not_entered())
		return bbm_try_later(engine, migration->id, migration->name, error);
	early = bbm_error_if_early(migration, error, step_code);
	if (early)
		return bbm_try_later(engine, migration->id, migration->name, early);
	if (!bbm_record_migration_failed(migration, bbm_error_code(error->sqlerrcode, step_code), error) &&
		bbm_in_trouble(engine, migration->id, &outcome))
		return outcome;
	return BBM_WORKED;
}

/* Nothing can be done for the migration before that. */
BbmOutcome
bbm_wait_until(int64 id, const BbmReason *reason)
{
	bbm_slot_wait_with(id, reason);
	return (BbmOutcome) {BBM_STEP_WAIT, reason->due};
}
