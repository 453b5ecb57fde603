/*-------------------------------------------------------------------------
 *
 * completion.c
 *		What follows when a phase has ended.
 *
 * NOTES
 *	  Most migrations have only the work of the first round.  A migration that
 *	  names a verification has that as well, and fails if it finds a row; when
 *	  the migration is started again, it goes on with a round for those rows.
 *	  Where rows move, work and verification alternate until a verification
 *	  finds none; if the migration names a check as well, a round of
 *	  verification alone is for that.  A migration that begins anew skips a
 *	  round, so that what the earlier ones have found does not count.
 *
 *	  Along a key, partition by partition, one such round is enough.  The check
 *	  goes over all partitions range by range, and the rows that it finds are
 *	  processed in the same order: a row that was there from the start is in
 *	  its range, whatever partition it moves to, when that range is checked,
 *	  and again when that range is processed.  A row that starts to meet the
 *	  filter after that is a new one.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/completion.h"

#include "base/printable.h"
#include "base/txn.h"
#include "catalog/claims.h"
#include "catalog/events.h"
#include "catalog/jobs.h"
#include "catalog/migrations.h"
#include "catalog/partitions.h"
#include "catalog/shards.h"
#include "engine/verify.h"
#include "strategy/resolve.h"
#include "target/bound.h"
#include "target/key_scan.h"
#include "target/null_keys.h"
#include "target/partition.h"
#include "target/partitions.h"
#include "target/relation.h"
#include "target/size.h"
#include "target/target.h"

/*
 * Are there keys beyond the one that was the last when the work began?  Then
 * it goes on up to the key that is the last now.  If there are fewer new keys
 * than a job has, it ends there: it has caught up, and does not chase
 * concurrent inserts forever.
 *
 * Another session may insert at any moment.  We see what has committed before
 * our check, as the check takes a snapshot of its own; what commits later came
 * after the migration's end, or the next check finds it if there is one.
 */
static bool
extend(BbmTarget *target, const BbmClaimState *state)
{
	const BbmMigration *migration = target->migration;
	bool		bounded = target->key.is_integer || DatumGetPointer(state->max.key);
	char	   *name = bbm_table_sql_name(target->relid);
	BbmPartition		root = {.relid = target->relid, .name = name, .source = name, .as_one_table = true};
	BbmPartition *partition = target->per_partition ? &root : bbm_partition_open(target, target->relid);
	BbmBound	max;
	/* without a bound the table was empty, and all its rows have come since */
	BbmAllocation allocation = {.after = bounded ? &state->max : NULL, .max = &max,
	.size = bbm_claim_size(target, state, bbm_size_now(target, state))};
	BbmRange	range;

	if (root.name == NULL)
		bbm_table_is_gone(migration->table_name);
	if (partition == NULL || !bbm_key_end(target, partition, true, &max))
		return false;
	/* counted as the strategy counts, rows or values */
	(void) target->strategy->next_range(target, partition, &allocation, &range);
	if (range.key_count == 0)
		return false;
	bbm_migration_extend(migration->id, &max, range.key_count >= allocation.size);
	if (target->per_partition)
		bbm_partitions_reopen(migration->id);
	return true;
}

/*
 * Is there more to verify than the migration's range?  Verification covers all
 * rows that there are now, if it was bbm that determined where they begin and
 * end; it also sets up to which key.  It does not cover what another session
 * inserts beyond that key from now on: otherwise there might be no end.
 * Caller has bbm_migration_lock, so nobody moves the migration's bounds.
 */
static bool
is_wide(BbmTarget *target, const BbmClaimState *state, BbmBound *max)
{
	BbmBound	first;
	BbmBound	last;

	*max = state->max;
	if (!target->strategy->has_key || !(target->migration->min_found || bbm_verifies_beyond(target)))
		return false;
	if (bbm_verifies_beyond(target) && bbm_target_bounds(target, &first, &last))
		*max = bbm_key_later(&target->key, max, &last);
	/* otherwise the table was empty, and still is */
	return target->key.is_integer || DatumGetPointer(max->key);
}

static void
not_as_it_should_be(const BbmTarget *target, int64 found, bool by_check, bool wide)
{
	const BbmMigration *migration = target->migration;

	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg(BBM_VERIFICATION_FOUND, found),
			 by_check ?
			 errdetail("They do not meet the check: %s", migration->row_check) :
			 errdetail("They still meet \"filter\": %s", migration->filter),
			 wide ?
			 errhint(BBM_VERIFICATION_HINT " Rows with any key count, also those that were inserted or moved since it was defined.") :
			 errhint(BBM_VERIFICATION_HINT)));
}

/* The least of n numbers. */
static int64
least(const int64 *numbers, int n)
{
	int64		result = PG_INT64_MAX;

	for (int i = 0; i < n; i++)
		result = Min(result, numbers[i]);
	return result;
}

/*
 * During a round, other sessions move or add rows that it does not process.  If
 * no new ones come, these soon become far fewer, and then none.  So the least
 * number found must halve within as many rounds as a job may have attempts, or
 * the migration does not converge: the number of rounds is at most that many
 * for each halving.
 */
static void
check_progress(const BbmTarget *target, int round, int64 found)
{
	/* of one round alone nothing is known */
	int			attempts = Max(target->migration->max_attempts, 2);
	int			n;
	int64	   *counts = bbm_jobs_checks(target->migration->id, round, &n);

	if (n < attempts || least(counts, attempts - 1) <= least(counts + attempts - 1, n - attempts + 1) / 2)
		return;
	bbm_failing_code = BBM_CODE_ATTEMPTS;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("after %d rounds " INT64_FORMAT " rows remain to be done", n, found),
			 errdetail("The last %d have not halved them; they meet \"filter\": %s", attempts,
					   target->migration->filter),
			 errhint("Either new rows come that meet \"filter\", which a trigger can prevent (bbm_sync_trigger), or something keeps these from being changed. Then start the migration again.")));
}

/* Rows are left: reports another round to whoever waits for the end. */
static void
report_another(const BbmTarget *target, int round, int64 found)
{
	const BbmMigration *migration = target->migration;
	char	   *detail = psprintf(INT64_FORMAT " rows remain to be done", found);

	ereport(LOG,
			(errmsg("migration \"%s\": round %d, as %s", bbm_printable(migration->name), round, detail)));
	bbm_event_add(migration->id, migration->name, "round", BBM_RUNNING, migration->owner, detail);
}

/*
 * Must work be followed by a check over all partitions, for rows that were
 * moved to where it had already been?
 */
static bool
needs_check(const BbmTarget *target, BbmPhase phase)
{
	return target->rounds &&
		(!target->strategy->has_key || phase.round == 1 || bbm_partitions_have_joined(target, phase));
}

/*
 * Every range of a phase is allocated and done: returns true when the migration
 * is finished; otherwise sets the next phase, or raises an error that says why
 * there is none.  Caller has bbm_migration_lock, so no claim can intervene.
 */
bool
bbm_phase_ended(BbmTarget *target)
{
	const BbmMigration *migration = target->migration;
	BbmClaimState state;
	BbmBound	max;
	int64		found;
	bool		by_check;
	bool		wide;
	int			round;

	if (!bbm_claim_state(migration->id, &state))
		return false;
	round = state.phase.round;
	bbm_partitions_report(target);
	if (!state.phase.verifies)
	{
		if (target->shard && round > 1)
			bbm_shard_repairs(target->shard, false, 0);
		/* before the work has caught up, so that a row which gets a key now is among the later ones */
		bbm_null_keys_check(target);
		if (migration->follow && state.phase.round == 1 && extend(target, &state))
			return false;
		if (!migration->verify && !needs_check(target, state.phase))
			return true;
		/* the check of what is left to be done does not cover rows that came later */
		wide = !target->rounds && is_wide(target, &state, &max);
		bbm_migration_set_phase(migration->id, BBM_VERIFY(round), wide ? &max : NULL);
		return false;
	}

	found = bbm_jobs_found(migration->id, round);
	by_check = bbm_verifies_by_check(target, round);
	/* the shard's last node had to do them, and may have done a part */
	if (found > 0 && target->shard && target->shard->repairs)
		bbm_jobs_repair(migration->id, round);
	else if (found > 0 && (by_check || state.is_wide || !target->rounds))
		not_as_it_should_be(target, found, by_check, state.is_wide);
	else if (found > 0)
	{
		check_progress(target, round, found);
		report_another(target, round + 1, found);
		if (target->strategy->has_key)
			bbm_jobs_repair(migration->id, round);
	}
	else if (!bbm_partitions_have_new(target))
	{
		/* another session may have added some since the work */
		bbm_null_keys_check(target);
		/* nothing is left to do; are the rows as they should be? */
		if (!target->rounds || !migration->verify || state.is_wide)
			return true;
		wide = is_wide(target, &state, &max);
		if (!wide && (migration->row_check == NULL || by_check))
			return true;
		bbm_migration_set_phase(migration->id, BBM_VERIFY(round + 1), wide ? &max : NULL);
		return false;
	}
	bbm_migration_set_phase(migration->id, BBM_WORK(round + 1), NULL);
	return false;
}
