/*-------------------------------------------------------------------------
 *
 * verify.c
 *		Counting the rows that are not as they should be: in a range, or,
 *		where rows move, in all tables at one moment.
 *
 * NOTES
 *	  A check first locks all tables that it reads, and takes its snapshot
 *	  then.  Another session can insert, update, delete and vacuum meanwhile;
 *	  it cannot rewrite or truncate a table, whose rows the snapshot would not
 *	  see after that.  A partition that is attached between the list and the
 *	  snapshot has not been seen by any phase, which is detected at the end of
 *	  this one.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/verify.h"

#include "storage/block.h"
#include "utils/snapmgr.h"

#include "base/point.h"
#include "base/spi.h"
#include "base/user.h"
#include "catalog/jobs.h"
#include "catalog/partitions.h"
#include "target/hierarchy.h"
#include "target/job.h"
#include "target/partition.h"
#include "target/target.h"

/*
 * Does this round verify the row check?  Where rows move, verification searches
 * for what is left to be done, and only in the round after one that found none
 * does it verify the check.
 */
bool
bbm_verifies_by_check(const BbmTarget *target, int round)
{
	const BbmMigration *migration = target->migration;

	if (migration->row_check == NULL || !target->rounds)
		return migration->row_check != NULL;
	return migration->verify && bbm_jobs_found(migration->id, round - 1) == 0;
}

/*
 * Is there a condition by which verification finds rows?  Both may have been
 * taken away since it began; then all rows are as they should be.  The null
 * strategy finds rows by its column.
 */
bool
bbm_has_condition(const BbmTarget *target)
{
	const BbmMigration *migration = target->migration;

	return migration->row_check != NULL || migration->filter != NULL || !target->strategy->has_key;
}

/*
 * Is the job a check of a whole table, or of all of them?  Without
 * a key nothing shows which rows have been seen: they may move between two
 * ranges of a check, so that it must be done with one snapshot, and cannot be
 * split into ranges.
 */
bool
bbm_verifies_whole(const BbmTarget *target, const BbmJob *job)
{
	return job->phase.verifies && !target->strategy->has_key;
}

/*
 * Does verification go beyond the last key that the migration began with?  A
 * row whose key the application moves there is not done, and neither is a row
 * that it inserts with wrong values.  It does not if the migration catches up
 * with later rows or has done so, as rows which are to be processed may then
 * still come.
 */
bool
bbm_verifies_beyond(const BbmTarget *target)
{
	const BbmMigration *migration = target->migration;
	/* the table had no row when the migration was first started */
	bool		none = !target->key.is_integer && !DatumGetPointer(migration->max.key);

	return (migration->max_found || none) && !migration->follow && !migration->followed;
}

/*
 * Counts rows of one range of a partition, with the active snapshot.  Needs
 * SPI; the current user is the owner.
 */
int64
bbm_verify_range(BbmTarget *target, BbmPartition *partition, const BbmRange *range, bool by_check)
{
	int			level = bbm_job_settings(target->migration);
	SPIPlanPtr	plan = by_check ? bbm_job_check_plan(target, partition) : bbm_job_left_plan(target, partition);
	Datum		values[BBM_MAX_JOB_ARGS];
	Oid			types[BBM_MAX_JOB_ARGS];
	int64		rows;

	(void) bbm_range_bind(target, range, 0, values, types);
	(void) bbm_spi_execute_plan(plan, values, NULL, true, 0);
	rows = bbm_spi_count();
	bbm_user_settings_end(level);
	return rows;
}

/* The same for all blocks of a partition. */
int64
bbm_verify_blocks(BbmTarget *target, BbmPartition *partition, bool by_check)
{
	BbmRange	all = {.max.number = MaxBlockNumber - 1};

	return bbm_verify_range(target, partition, &all, by_check);
}

/*
 * Checks all tables of the migration, with one snapshot; returns how many rows
 * it has found.  Partitions where it has found none need no other round, which
 * it records: the check is one job, and no range is allocated while it runs.
 */
int64
bbm_check_all(BbmTarget *target, int round)
{
	bool		by_check = bbm_verifies_by_check(target, round);
	List	   *partitions = target->per_partition ? bbm_partitions_list(target->relid) : list_make1_oid(target->relid);
	int64		all = 0;
	ListCell   *cell;

	BBM_POINT("verify-listed");
	bbm_partitions_snapshot(target->relid, target->lock_mode);
	foreach(cell, partitions)
	{
		BbmPartition *partition = bbm_partition_open(target, lfirst_oid(cell));
		int64		found;

		/* detached since it was listed; a table that is gone is reported when it is opened */
		if (partition == NULL)
			continue;
		found = bbm_verify_blocks(target, partition, by_check);
		if (found == 0 && !by_check)
			bbm_partition_clean(target->migration->id, partition->relid, round);
		all += found;
	}
	PopActiveSnapshot();
	return all;
}
