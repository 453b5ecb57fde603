/*
 * Properties of target/size.c: how many keys a migration's next batch has.
 */
#include "properties.h"

#include "target/size.h"

/* A migration and its target, as the guards of the tables let them be. */
static void
make(const uint32 *n, BbmMigration *migration, BbmTarget *target)
{
	memset(migration, 0, sizeof(BbmMigration));
	memset(target, 0, sizeof(BbmTarget));
	migration->batch_size = 1 + n[0] % 100000;
	migration->min_batch_size = 1 + n[1] % 50000;
	migration->max_batch_size = migration->min_batch_size + n[2] % 1000000;
	migration->target_ms = n[3] % 3 == 0 ? 0 : n[3] % 5000;
	migration->max_batch_wal = n[4] % 3 == 0 ? 0 : n[4];
	target->migration = migration;
	target->partitions = n[5] % 2000;
}

/* between one key and max_batch_size, and with a limit of WAL alone never more than was asked for */
static bool
limits_are_kept(const uint32 *n)
{
	BbmMigration migration;
	BbmTarget	target;
	BbmSizeLimits limits;

	make(n, &migration, &target);
	bbm_size_limits(&target, &limits);
	return limits.min_size >= 1 && limits.min_size <= limits.max_size && limits.max_size <= migration.max_batch_size &&
		(migration.target_ms > 0 || limits.max_size <= migration.batch_size);
}

/* unless that is more than the most: at least min_batch_size, and some for each of the partitions */
static bool
partitions_are_worth_it(const uint32 *n)
{
	BbmMigration migration;
	BbmTarget	target;
	BbmSizeLimits limits;

	make(n, &migration, &target);
	bbm_size_limits(&target, &limits);
	return limits.min_size == limits.max_size ||
		(limits.min_size >= migration.min_batch_size && limits.min_size >= target.partitions &&
		 (limits.min_size >= 1000 || limits.min_size >= 16 * target.partitions));
}

/* a fixed size is that; another begins with the last one, or the one asked for, within the limits, and is kept */
static bool
size_goes_on(const uint32 *n)
{
	BbmMigration migration;
	BbmTarget	target;
	BbmClaimState state = {.batch_size = 1 + n[5] % 70000, .last_size = n[0] % 2 ? n[4] % 90000 : 0};
	BbmSizeLimits limits;
	int			first = state.last_size > 0 ? state.last_size : state.batch_size;
	int			size;

	make(n, &migration, &target);
	size = bbm_size_now(&target, &state);
	if (migration.target_ms <= 0 && migration.max_batch_wal <= 0)
		return size == state.batch_size && target.sizing.size == 0;
	bbm_size_limits(&target, &limits);
	state.last_size = 1;
	return size == Min(Max(first, limits.min_size), limits.max_size) && bbm_size_now(&target, &state) == size;
}

/* the size of a job is that of its range, whatever the migration's is by now */
static bool
job_keeps_size(const uint32 *n)
{
	BbmMigration migration;
	BbmTarget	target;
	BbmJob		job = {.batch_size = n[5] % 1000};

	make(n, &migration, &target);
	return bbm_job_size(&target, &job) == (job.batch_size > 0 ? job.batch_size : migration.batch_size);
}

const Property size_properties[] = {
	{"limits_are_kept", limits_are_kept},
	{"partitions_are_worth_it", partitions_are_worth_it},
	{"size_goes_on", size_goes_on},
	{"job_keeps_size", job_keeps_size},
	{0}
};
