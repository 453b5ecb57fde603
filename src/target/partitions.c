/*-------------------------------------------------------------------------
 *
 * partitions.c
 *		The partitions of a migration's table, and allocating ranges of them one by one.
 *
 * NOTES
 *	  Here, a partition is a table with rows of its own, at or below the
 *	  migration's table: a partition, a child table, or the table itself.  To
 *	  attach, detach or drop one takes a lock on it that conflicts with the
 *	  lock that we take before we check whether it is still below the table; so
 *	  it stays there until our transaction ends.
 *
 *	  Everything here runs in a claim, under the migration's lock.
 *
 *-------------------------------------------------------------------------
 */
#include "target/partitions.h"

#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "base/printable.h"
#include "base/txn.h"
#include "catalog/claims.h"
#include "catalog/events.h"
#include "catalog/partitions.h"
#include "target/hierarchy.h"
#include "target/key_query.h"
#include "target/key_scan.h"
#include "target/order.h"
#include "target/partition.h"
#include "target/relation.h"
#include "target/target.h"

/* The number of keys that a check over all partitions counts at a time: it reads each partition for every range. */
#define BBM_CHECK_SIZE 20000

/*
 * Reports a partition that was attached or detached.  A migration that
 * processes all partitions as one table does not go back to keys that it has
 * passed: nobody knows whether their rows were done in another partition, of
 * which this one is a part, before they came here.
 */
static void
report(const BbmTarget *target, bool attached, const char *name)
{
	const BbmMigration *migration = target->migration;
	const char *event = attached ? "attached" : "detached";
	bool		passed = attached && !target->per_partition;

	ereport(LOG,
			(errmsg("migration \"%s\": table %s was %s", bbm_printable(migration->name), bbm_printable(name), event),
			 passed ? errdetail("The partitions are processed as one table: keys that were passed before are not processed.") : 0));
	bbm_event_add(migration->id, migration->name, event, BBM_RUNNING, migration->owner,
				  passed ? psprintf("%s; keys that were passed before are not processed", name) : name);
}

static int
compare_oids(const void *a, const void *b)
{
	return oid_cmp(a, &((const ListCell *) b)->oid_value);
}

static int
compare_entries(const void *a, const void *b)
{
	return oid_cmp(a, &((const BbmPartitionState *) lfirst((const ListCell *) b))->relation);
}

/* "entries" are in the order of their OIDs. */
static BbmPartitionState *
find_entry(List *entries, Oid relation)
{
	ListCell   *found = NULL;

	if (entries != NIL)
		found = bsearch(&relation, entries->elements, list_length(entries), sizeof(ListCell), compare_entries);
	return found ? lfirst(found) : NULL;
}

/*
 * Records an attached partition if it was not known or was detached, or has
 * another name.  Reports it unless the partitions are recorded for the first
 * time.
 */
static void
note_partition(const BbmTarget *target, Oid partition, const BbmPartitionState *entry, bool started)
{
	int64		id = target->migration->id;
	char	   *name = bbm_table_sql_name(partition);

	/* the table was dropped at this moment */
	if (name == NULL)
		return;
	if (entry && strcmp(entry->name, name) != 0)
		bbm_partition_rename(id, partition, name);
	if (entry && entry->attached)
		return;
	if (entry == NULL)
		bbm_partition_add(id, partition, name, started);
	else
		bbm_partition_attached(id, partition, true);
	if (started && partition != target->relid)
		report(target, true, name);
}

/*
 * Compares the current partitions with the known ones: records and reports
 * those that are new, and those that are gone.  Work that was not done because
 * a partition was gone is to be done when it is back.
 */
static List *
refresh_entries(const BbmTarget *target, List *partitions, bool started)
{
	int64		id = target->migration->id;
	List	   *entries = bbm_partitions(id);
	List	   *sorted = list_copy(partitions);
	ListCell   *cell;

	started |= entries != NIL;
	list_sort(sorted, list_oid_cmp);
	foreach(cell, partitions)
		note_partition(target, lfirst_oid(cell), find_entry(entries, lfirst_oid(cell)), started);
	foreach(cell, entries)
	{
		BbmPartitionState *entry = lfirst(cell);

		if (!entry->attached || (sorted != NIL && bsearch(&entry->relation, sorted->elements, list_length(sorted),
														  sizeof(ListCell), compare_oids)))
			continue;
		report(target, false, entry->name);
		bbm_partition_attached(id, entry->relation, false);
	}
	bbm_jobs_revive(id, partitions);
	return bbm_partitions(id);
}

/*
 * Work after the first round, of a strategy with a key, is about what a check has
 * found, whose jobs exist already (bbm_jobs_repair), and about partitions that
 * were attached since.
 */
static bool
is_repair(const BbmTarget *target, BbmPhase phase)
{
	return target->strategy->has_key && phase.round > 1 && !phase.verifies;
}

/*
 * The next partition of a phase, or InvalidOid.  The first round takes all
 * partitions; verification takes all that have been worked on; a later round
 * takes those that the verification before has not found clean, or that were
 * attached since.  Partitions found to be gone are left out.
 */
static Oid
next_partition(const BbmTarget *target, BbmPhase phase, bool started, List *gone)
{
	List	   *partitions = bbm_partitions_list(target->relid);
	List	   *entries = refresh_entries(target, partitions, started);
	ListCell   *cell;

	foreach(cell, partitions)
	{
		BbmPartitionState *entry = find_entry(entries, lfirst_oid(cell));

		if (entry == NULL || list_member_oid(gone, entry->relation))
			continue;
		if (phase.verifies ? entry->phase.round > 0 && bbm_phase_precedes(entry->phase, phase) :
			entry->phase.round == 0 ||
			(!is_repair(target, phase) && bbm_phase_precedes(entry->phase, BBM_VERIFY(phase.round - 1))))
			return entry->relation;
	}
	return InvalidOid;
}

/* Is there a partition that was never processed?  Called at the end of the last phase. */
bool
bbm_partitions_have_new(BbmTarget *target)
{
	return target->per_partition && OidIsValid(next_partition(target, BBM_WORK(1), true, NIL));
}

/* Has this phase processed a partition that was attached after the first round? */
bool
bbm_partitions_have_joined(const BbmTarget *target, BbmPhase phase)
{
	ListCell   *cell;

	if (!target->per_partition || !is_repair(target, phase))
		return false;
	foreach(cell, bbm_partitions(target->migration->id))
	{
		BbmPartitionState *entry = lfirst(cell);

		if (entry->attached && bbm_phase_is(entry->phase, phase))
			return true;
	}
	return false;
}

/*
 * Reports partitions that were attached or detached, where no phase checks for
 * them.  A node that goes on with a shard that was begun on another one knows
 * none of them yet.
 */
void
bbm_partitions_report(BbmTarget *target)
{
	if (target->has_partitions && !target->per_partition)
		(void) refresh_entries(target, bbm_partitions_list(target->relid), target->shard == NULL);
}

static bool
allocate_in_partition(BbmTarget *target, BbmPartition *partition, const BbmClaimState *state,
					  const BbmAllocation *allocation, BbmRange *range)
{
	if (target->strategy->begin_round)
		target->strategy->begin_round(target, partition, state->phase.round);
	return target->strategy->next_range(target, partition, allocation, range);
}

/* Raises the error for a partition whose rows may come from another partition, and have been done there. */
pg_noreturn static void
rows_of_others(const BbmTarget *target, const BbmPartitionState *joined, const char *detail)
{
	bbm_failing_code = BBM_CODE_TABLE;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("table %s has come to \"%s\", and may have rows that are done", joined->name,
					target->migration->table_name),
			 errdetail("%s", detail),
			 errhint("If they all are still to be done, say so with bbm_alter(..., rows_stay => true); otherwise define another migration for what is left.")));
}

/* Can rows of a new partition have been in this one with the same keys? */
static bool
may_have_had(const BbmTarget *target, const BbmPartitionState *entry)
{
	/* another partition that is attached and not the default one has other keys, by its constraint */
	return entry->has_extent &&
		(!entry->attached || bbm_order_is_default(target->relid, entry->relation));
}

/*
 * Raises the error for a level of partitions that was attached after the order
 * was decided, and before any range was allocated.
 */
pg_noreturn static void
order_is_void(const BbmTarget *target)
{
	bbm_failing_code = BBM_CODE_TABLE;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the partitions of \"%s\" cannot be processed one by one", target->migration->table_name),
			 errdetail("Since the migration was started, one has come to it whose partition key is not the first columns of the batching key, so rows may move between partitions."),
			 errhint("Begin again with bbm_alter(..., restart => true); or if rows stay where they are, say so with bbm_alter(..., rows_stay => true).")));
}

/*
 * Starts a partition that is processed on its own because a row that moves has
 * another key.  A partition that is attached during the run can break that
 * rule: its rows may have been in another partition with the same keys, and
 * done there.  One that was attached after the order was decided, and before
 * the partitions were first recorded ("first"), can break it, too.
 */
static void
begin_by_key(BbmTarget *target, Oid relid, bool first)
{
	int64		id = target->migration->id;
	List	   *entries = bbm_partitions(id);
	BbmPartitionState *joined = find_entry(entries, relid);
	BbmPartition *partition = bbm_partition_open(target, relid);
	BbmBound	low;
	BbmBound	high;
	ListCell   *cell;

	if (partition == NULL || joined == NULL)
		return;
	if (bbm_key_end(target, partition, false, &low) && bbm_key_end(target, partition, true, &high))
		bbm_partition_extent(id, relid, &low, &high);
	if (target->migration->rows_stay)
		return;
	if (first && !bbm_order_key_leads(target))
		order_is_void(target);
	if (!joined->joined)
		return;
	if (!bbm_order_key_leads(target))
		rows_of_others(target, joined,
					   "Its partition key is not the first columns of the batching key, so rows may move between partitions.");
	foreach(cell, entries)
	{
		BbmPartitionState *other = lfirst(cell);
		BbmKeyWalk	walk = {.target = target, .partition = partition, .from = &other->low, .to = &other->high,
			.limit = 1};

		if (other->relation == relid || !may_have_had(target, other))
			continue;
		bbm_key_walk(&walk);
		if (walk.count > 0)
			rows_of_others(target, joined,
						   psprintf("It has keys between the first and the last key of table %s, which was started before.",
									other->name));
	}
}

/*
 * Ranges of a partitioned table as a whole are not ranges of its partitions.
 * Ranges of a plain table, from before it had a child table, are its own.
 */
static void
check_form(const BbmTarget *target, const BbmClaimState *state)
{
	if (target->strategy->table_scans || !state->has_last || !bbm_phase_is(state->phase, BBM_WORK(1)) ||
		OidIsValid(state->last_relation) == target->per_partition ||
		get_rel_relkind(target->relid) != RELKIND_PARTITIONED_TABLE)
		return;
	bbm_failing_code = BBM_CODE_SIGNATURE;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the job of migration \"%s\" is of another kind than it was",
					bbm_printable(target->migration->name)),
			 target->per_partition ?
			 errdetail("It is for one partition at a time, and the ranges allocated so far are of the table as a whole.") :
			 errdetail("It is for the table as a whole, and the ranges allocated so far are of one partition each."),
			 errhint("Change the job back, or define another migration for what is left.")));
}

/*
 * Allocates the next range of a check over all partitions, which also covers
 * rows that move between them; false when all ranges are allocated.
 */
static bool
allocate_check(BbmTarget *target, BbmAllocation *allocation, BbmRange *range, BbmPartition **partition)
{
	*partition = bbm_partitions_open_as_one(target);
	if (*partition == NULL)
		bbm_table_is_gone(target->migration->table_name);
	allocation->size = Max(allocation->size, BBM_CHECK_SIZE);
	return target->strategy->next_range(target, *partition, allocation, range);
}

/* Allocates the next range of the table with everything below it, for a job that works on it as a whole. */
static bool
allocate_as_one(BbmTarget *target, const BbmClaimState *state, const BbmAllocation *allocation, BbmRange *range,
				BbmPartition **partition)
{
	if (is_repair(target, state->phase))
		return false;
	/* a partition that is attached or detached is only reported */
	if (target->has_partitions && !state->has_last)
		(void) refresh_entries(target, bbm_partitions_list(target->relid), state->has_job);
	*partition = bbm_partition_open(target, target->relid);
	if (*partition == NULL)
		bbm_table_is_gone(target->migration->table_name);
	return allocate_in_partition(target, *partition, state, allocation, range);
}

/*
 * Allocates the next range of the current phase, and returns its partition
 * (NULL: all partitions); false when all ranges are allocated.  Runs under the
 * migration's lock: no other process allocates ranges meanwhile, and what is
 * recorded of the partitions commits with the job of the range.  "at_once":
 * only if the range is of the open partition, which the batch before has
 * locked; false then means nothing.
 */
bool
bbm_next_range(BbmTarget *target, const BbmClaimState *state, int size, bool at_once, BbmRange *range,
			   BbmPartition **partition)
{
	BbmAllocation		allocation = {.after = state->has_last ? &state->last : NULL, .max = &state->max, .size = size,
	.verifies = state->phase.verifies, .open_below = state->is_wide && state->min_found};
	Oid			current = state->has_last && !is_repair(target, state->phase) ? state->last_relation : InvalidOid;
	/* along a key a partition is worked on once, in whatever round */
	BbmPhase	began = {.round = target->strategy->has_key && !state->phase.verifies ? 0 : state->phase.round,
	.verifies = state->phase.verifies};
	List	   *gone = NIL;
	BbmBound	last;

	check_form(target, state);
	if (state->is_wide)
		allocation.max = &state->verify_max;
	/* where rows move, one verification covers all partitions at once */
	if (target->strategy->table_scans && state->phase.verifies)
	{
		*partition = NULL;
		return target->strategy->next_range(target, NULL, &allocation, range);
	}
	if (target->rounds && state->phase.verifies)
		return allocate_check(target, &allocation, range, partition);
	if (!target->per_partition)
		return allocate_as_one(target, state, &allocation, range, partition);
	/* the table had no child table then */
	if (state->has_last && !OidIsValid(current) && !is_repair(target, state->phase))
	{
		current = target->relid;
		(void) refresh_entries(target, bbm_partitions_list(target->relid), true);
	}
	for (;;)
	{
		if (OidIsValid(current))
		{
			if (at_once && !(target->partition && target->partition->relid == current))
				return false;
			*partition = bbm_partition_open(target, current);
			if (*partition && allocate_in_partition(target, *partition, state, &allocation, range))
				return true;
			/* a partition that is gone may come back, and its allocation then continues */
			if (*partition)
				bbm_partition_done(target->migration->id, current, state->phase);
			else
				gone = lappend_oid(gone, current);
		}
		if (at_once)
			return false;
		current = next_partition(target, state->phase, state->has_job, gone);
		if (!OidIsValid(current))
			return false;
		/* it may have been attached before, with some of its ranges allocated */
		allocation.after = bbm_jobs_last(target->migration->id, target->relid, current, began, &last) ? &last : NULL;
		if (allocation.after == NULL && target->order == BBM_ORDER_BY_KEY)
			begin_by_key(target, current, !state->has_job);
	}
}
