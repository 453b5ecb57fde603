/*-------------------------------------------------------------------------
 *
 * point.c
 *		Places where a test stops a process, in builds for tests alone.
 *
 * NOTES
 *	  Which points are armed is in shared memory, so that one session stops any
 *	  process, and a restart of the server lets all go.  A process that stands
 *	  at a point holds nothing for it: no lock, no latch event, no memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/point.h"

#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"
#include "storage/shmem.h"
#include "storage/spin.h"

#define BBM_POINT_POLL_US 2000

/* A point at which processes are to stop. */
typedef struct BbmArmedPoint
{
	char		name[BBM_POINT_LENGTH]; /* empty: this entry is not in use */
	int64		migration_id;	/* for processes that work on this one; 0: for all */
	int			passes;			/* so many go on before one stops ... */
	int			stops;			/* ... and then so many stop */
	uint64		generation;		/* raised when those that stand there are let go */
	int			standing;
	int			pids[BBM_MAX_STANDING];
} BbmArmedPoint;

/* In shared memory. */
typedef struct BbmPoints
{
	slock_t		mutex;			/* protects everything below */
	BbmArmedPoint armed[BBM_MAX_POINTS];
} BbmPoints;

static BbmPoints *points = NULL;	/* NULL without preloading: there are no points */
static int64 works_on = 0;
/* Whoever says where others are to stop, or asks, does not stop: nobody would let it go. */
static bool is_test = false;
static char group[BBM_POINT_LENGTH] = "other";

void
bbm_points_request(void)
{
	RequestAddinShmemSpace(sizeof(BbmPoints));
}

void
bbm_points_startup(void)
{
	bool		found;

	points = ShmemInitStruct("bbm points", sizeof(BbmPoints), &found);
	if (found)
		return;
	memset(points, 0, sizeof(BbmPoints));
	SpinLockInit(&points->mutex);
}

void
bbm_point_works_on(int64 migration_id)
{
	works_on = migration_id;
}

/* The entry of an armed point, or NULL.  Caller holds the mutex. */
static BbmArmedPoint *
find(const char *name)
{
	for (int i = 0; i < BBM_MAX_POINTS; i++)
	{
		BbmArmedPoint *point = &points->armed[i];

		if (strcmp(point->name, name) == 0)
			return point;
	}
	return NULL;
}

/* Must this process stop here?  Then it stands there until *generation is past. */
static BbmArmedPoint *
stop_at(const char *name, uint64 *generation)
{
	BbmArmedPoint *point;
	bool		stops = false;

	SpinLockAcquire(&points->mutex);
	point = find(name);
	if (point && (point->migration_id == 0 || point->migration_id == works_on))
	{
		if (point->passes > 0)
			point->passes--;
		else if (point->stops > 0 && point->standing < BBM_MAX_STANDING)
		{
			stops = true;
			point->stops--;
			point->pids[point->standing++] = MyProcPid;
			*generation = point->generation;
		}
	}
	SpinLockRelease(&points->mutex);
	return stops ? point : NULL;
}

static bool
is_standing(BbmArmedPoint *point, uint64 generation)
{
	bool		standing;

	SpinLockAcquire(&points->mutex);
	standing = point->generation == generation;
	SpinLockRelease(&points->mutex);
	return standing;
}

/*
 * Stands here, if the point is armed for this process, until a test lets it
 * go.  The latch is left alone: what was to wake the process still does.
 */
void
bbm_point(const char *name, bool between)
{
	const char *end = strchr(name, '-');
	BbmArmedPoint *point;
	uint64		generation = 0;

	if (end)
		strlcpy(group, name, Min(end - name + 1, sizeof(group)));
	if (points == NULL || CritSectionCount > 0 || is_test)
		return;
	point = stop_at(name, &generation);
	while (point && is_standing(point, generation))
	{
		/* as a wait for the latch would; nothing is worth a clean end any more */
		if (!PostmasterIsAlive())
			_exit(1);
		if (between)
			HOLD_CANCEL_INTERRUPTS();
		CHECK_FOR_INTERRUPTS();
		if (between)
			RESUME_CANCEL_INTERRUPTS();
		pg_usleep(BBM_POINT_POLL_US);
	}
}

/*
 * Is what is named here due for this process?  If the point is armed for it,
 * that is counted out; else it is as the caller has found.
 */
bool
bbm_point_due(const char *name, bool due)
{
	BbmArmedPoint *point;

	if (points == NULL)
		return due;
	SpinLockAcquire(&points->mutex);
	point = find(name);
	if (point && (point->migration_id == 0 || point->migration_id == works_on))
	{
		due = point->passes == 0 && point->stops > 0;
		if (point->passes > 0)
			point->passes--;
		else if (due)
			point->stops--;
	}
	SpinLockRelease(&points->mutex);
	return due;
}

/* A transaction begins, and nobody knows yet what it is for. */
void
bbm_point_begin(void)
{
	strlcpy(group, "other", sizeof(group));
}

/* A place that every transaction has, as a point of this one's group. */
void
bbm_point_of_txn(const char *place, bool between)
{
	char		name[BBM_POINT_LENGTH];

	snprintf(name, sizeof(name), "%.30s-%.30s", group, place);
	bbm_point(name, between);
}

/*
 * Arms a point: of the processes that come there so many go on, and then so
 * many stop.  Returns false when there is no room for it.
 */
bool
bbm_point_arm(const char *name, int64 migration_id, int passes, int stops)
{
	BbmArmedPoint *point;

	is_test = true;
	SpinLockAcquire(&points->mutex);
	point = find(name);
	if (point == NULL)
		point = find("");
	if (point)
	{
		strlcpy(point->name, name, sizeof(point->name));
		point->migration_id = migration_id;
		point->passes = passes;
		point->stops = stops;
	}
	SpinLockRelease(&points->mutex);
	return point != NULL;
}

/* Lets go all that stand at the point, and disarms it; or (NULL) all points. */
void
bbm_point_release(const char *name)
{
	is_test = true;
	SpinLockAcquire(&points->mutex);
	for (int i = 0; i < BBM_MAX_POINTS; i++)
	{
		BbmArmedPoint *point = &points->armed[i];

		if (point->name[0] == '\0' || (name && strcmp(point->name, name) != 0))
			continue;
		point->name[0] = '\0';
		point->standing = 0;
		point->generation++;
	}
	SpinLockRelease(&points->mutex);
}

/* The processes that stand at the point, at most BBM_MAX_STANDING; returns their number. */
int
bbm_point_standing(const char *name, int *pids)
{
	BbmArmedPoint *point;
	int			n = 0;
	int			found = 0;

	is_test = true;
	SpinLockAcquire(&points->mutex);
	point = find(name);
	if (point)
	{
		n = point->standing;
		memcpy(pids, point->pids, sizeof(point->pids));
	}
	SpinLockRelease(&points->mutex);
	/* one may have ended there */
	for (int i = 0; i < n; i++)
	{
		if (kill(pids[i], 0) == 0)
			pids[found++] = pids[i];
	}
	return found;
}
