/*-------------------------------------------------------------------------
 *
 * wal.c
 *		What WAL shows: standbys, replication slots, the archive.
 *
 * All of it is read where the server itself keeps it, in shared memory; the
 * archive's backlog is a directory, which is read only when enough WAL to have
 * reached the limit was written since the last time.
 *
 *-------------------------------------------------------------------------
 */
#include "base/bbm.h"

#include <dirent.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/fd.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "base/backends.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/rates.h"
#include "base/shared.h"
#include "base/wait_state.h"
#include "throttle/signal.h"

/* How long the names of the standbys' connections stay valid. */
#define BBM_NAMES_MS (10 * 1000)

/* How soon to check again whether the last batch was replayed. */
#define BBM_REPLAY_MS 5

/* How soon to read the archiver's directory again while it exceeds the limit. */
#define BBM_ARCHIVE_MS 200

/* ----------------------------------------------------------------
 * Standbys
 * ----------------------------------------------------------------
 */

/* A connection that sends WAL. */
typedef struct Sender
{
	pid_t		pid;
	XLogRecPtr	replayed;		/* InvalidXLogRecPtr: the standby has not reported it */
	TimeOffset	lag;			/* of what was replayed last, in microseconds; -1 unknown */
} Sender;

/* The application_name of each, by its index among the senders. */
typedef struct SenderName
{
	pid_t		pid;
	char		name[NAMEDATALEN];
} SenderName;

static SenderName *sender_names = NULL;
static TimestampTz names_until = 0;

/* Returns false for one that does not exist, or that sends a base backup. */
static bool
read_sender(int i, Sender *sender)
{
	WalSnd	   *walsnd = &WalSndCtl->walsnds[i];
	WalSndState state;

	SpinLockAcquire(&walsnd->mutex);
	sender->pid = walsnd->pid;
	sender->replayed = walsnd->apply;
	sender->lag = walsnd->applyLag;
	state = walsnd->state;
	SpinLockRelease(&walsnd->mutex);
	return sender->pid != 0 && state != WALSNDSTATE_BACKUP;
}

/* Names are among the server's statistics, which are copied as a whole: so they are not read often. */
static void
read_names(TimestampTz now)
{
	if (sender_names == NULL)
		sender_names = MemoryContextAllocZero(TopMemoryContext, max_wal_senders * sizeof(SenderName));
	pgstat_clear_backend_activity_snapshot();
	for (int i = 0; i < max_wal_senders; i++)
	{
		Sender		sender;
		PgBackendStatus *status = read_sender(i, &sender) ? bbm_status_of_process(sender.pid) : NULL;

		sender_names[i].pid = status ? sender.pid : 0;
		if (status)
			strlcpy(sender_names[i].name, status->st_appname, NAMEDATALEN);
	}
	pgstat_clear_backend_activity_snapshot();
	names_until = TimestampTzPlusMilliseconds(now, BBM_NAMES_MS);
}

static const char *
name_of(int i, const Sender *sender, TimestampTz now)
{
	if (sender_names == NULL || bbm_time_has_come(now, names_until, BBM_NAMES_MS) || sender_names[i].pid != sender->pid)
		read_names(now);
	return sender_names[i].pid == sender->pid ? sender_names[i].name : "";
}

/* Reports in the reading how far a standby is behind, and whether that is too far. */
typedef void (*Behind) (BbmReading *reading, int i, const Sender *sender);

/* Checks a standby that was named: each connection of that name counts, and there must be one. */
static void
check_named(BbmReading *reading, const char *name, Behind behind)
{
	bool		found = false;

	for (int i = 0; i < max_wal_senders && !reading->throttles; i++)
	{
		Sender		sender;

		if (!read_sender(i, &sender) || pg_strcasecmp(name_of(i, &sender, reading->now), name) != 0)
			continue;
		found = true;
		if (sender.replayed == InvalidXLogRecPtr)
			bbm_reading_throttles(reading, "cannot be read: standby \"%s\" has not said what it has replayed", name);
		else
			behind(reading, i, &sender);
	}
	if (!found)
		bbm_reading_throttles(reading, "cannot be read: standby \"%s\" is not connected", name);
}

/*
 * Checks the standbys in the list, or with an empty list all that are
 * connected.  Without names, a connection that never reports what it has
 * replayed is no standby: it may be a pg_receivewal, for example.
 */
static void
check_listed(BbmReading *reading, const char *list, Behind behind)
{
	List	   *names = NIL;
	ListCell   *cell;

	if (list[0] != '\0')
	{
		/* it was checked when it was set, but perhaps not by this version */
		if (!SplitGUCList(pstrdup(list), ',', &names))
			bbm_reading_throttles(reading, "cannot be read: %s is no list of names", list);
		foreach(cell, names)
		{
			if (!reading->throttles)
				check_named(reading, lfirst(cell), behind);
		}
		return;
	}
	for (int i = 0; i < max_wal_senders && !reading->throttles; i++)
	{
		Sender		sender;

		if (read_sender(i, &sender) && sender.replayed != InvalidXLogRecPtr)
			behind(reading, i, &sender);
	}
}

/* Those in bbm.standby_names of the migration, and those of the server where the migration must keep to them. */
static void
check_standbys(BbmReading *reading, Behind behind)
{
	const char *servers = bbm_setting_server_string(reading->migration, BBM_STANDBY_NAMES);

	check_listed(reading, bbm_setting_string(reading->migration, BBM_STANDBY_NAMES), behind);
	if (servers && !reading->throttles)
		check_listed(reading, servers, behind);
	if (reading->measure.unit == NULL && !reading->throttles)
		bbm_reading_describes(reading, "no standby is connected", NULL);
}

static void
behind_in_bytes(BbmReading *reading, int i, const Sender *sender)
{
	XLogRecPtr	flushed = GetFlushRecPtr(NULL);
	uint64		lag = flushed > sender->replayed ? flushed - sender->replayed : 0;
	uint64		limit = (uint64) bbm_setting_int(reading->migration, BBM_MAX_REPLICATION_LAG) * 1024;

	bbm_reading_measures(reading, "bytes", (double) lag, (double) limit);
	if (lag > limit)
		bbm_reading_throttles(reading, "%s is %s behind (limit %s)", name_of(i, sender, reading->now), bbm_bytes(lag),
							  bbm_bytes(limit));
}

/* bbm.max_replication_lag */
void
bbm_read_replication_lag(BbmReading *reading)
{
	check_standbys(reading, behind_in_bytes);
}

/*
 * For how long there has been WAL that the standby has not replayed: as the
 * server measured it for what was replayed last, or as we know from when that
 * WAL was there.  The first says nothing while replay stands still.
 */
static void
behind_in_time(BbmReading *reading, int i, const Sender *sender)
{
	int64		limit = (int64) bbm_setting_int(reading->migration, BBM_MAX_REPLICATION_DELAY) * 1000;
	BbmWaitStates *entries;
	TimestampTz since;
	int64		lag;

	if (sender->replayed >= GetFlushRecPtr(NULL))
	{
		bbm_reading_measures(reading, "s", 0, limit / 1000000.0);
		return;
	}
	entries = bbm_wait_states_lock();
	since = bbm_trace_behind_since(&entries->wal, sender->replayed);
	bbm_wait_states_unlock();
	lag = since ? reading->now - since : 0;
	lag = Max(lag, sender->lag);
	bbm_reading_measures(reading, "s", lag / 1000000.0, limit / 1000000.0);
	if (lag > limit)
		bbm_reading_throttles(reading, "%s is %.1f s behind (limit %.1f s)", name_of(i, sender, reading->now),
							  lag / 1000000.0, limit / 1000000.0);
}

/* bbm.max_replication_delay */
void
bbm_read_replication_delay(BbmReading *reading)
{
	XLogRecPtr	flushed = GetFlushRecPtr(NULL);
	BbmWaitStates *entries = bbm_wait_states_lock();

	bbm_trace_note(&entries->wal, reading->now, flushed);
	bbm_wait_states_unlock();
	check_standbys(reading, behind_in_time);
}

static XLogRecPtr
last_commit(const BbmReading *reading)
{
	BbmWaitStates *entries = bbm_wait_states_lock();
	BbmWaitState *entry = bbm_wait_state_find(entries, reading->migration->id, reading->now);
	XLogRecPtr	commit;

	/* not known, for example after a restart: then everything there is so far */
	if (entry->commit == InvalidXLogRecPtr)
		entry->commit = GetFlushRecPtr(NULL);
	commit = entry->commit;
	bbm_wait_states_unlock();
	return commit;
}

static void
behind_last_commit(BbmReading *reading, int i, const Sender *sender)
{
	XLogRecPtr	commit = last_commit(reading);

	bbm_reading_measures(reading, "bytes", commit > sender->replayed ? (double) (commit - sender->replayed) : 0, 0);
	if (sender->replayed >= commit)
		return;
	bbm_reading_throttles(reading, "%s has not replayed it", name_of(i, sender, reading->now));
	reading->first_poll_ms = BBM_REPLAY_MS;
}

/* bbm.wait_for_standbys */
void
bbm_read_last_replay(BbmReading *reading)
{
	XLogRecPtr	commit = last_commit(reading);

	/* a commit that is not flushed is not sent */
	if (commit > GetFlushRecPtr(NULL))
		XLogFlush(commit);
	check_standbys(reading, behind_last_commit);
}

/* ----------------------------------------------------------------
 * Slots
 * ----------------------------------------------------------------
 */

/* bbm.max_slot_wal */
void
bbm_read_slots(BbmReading *reading)
{
	uint64		limit = (uint64) bbm_setting_int(reading->migration, BBM_MAX_SLOT_WAL) * 1024 * 1024;
	XLogRecPtr	flushed = GetFlushRecPtr(NULL);
	uint64		most = 0;
	NameData	name;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
		uint64		kept;

		if (!slot->in_use)
			continue;
		SpinLockAcquire(&slot->mutex);
		kept = bbm_slot_is_void(&slot->data) || slot->data.restart_lsn > flushed ? 0 :
			flushed - slot->data.restart_lsn;
		if (kept > most)
		{
			most = kept;
			name = slot->data.name;
		}
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	bbm_reading_measures(reading, "bytes", (double) most, (double) limit);
	if (most > limit)
		bbm_reading_throttles(reading, "%s keeps %s (limit %s)", NameStr(name), bbm_bytes(most), bbm_bytes(limit));
}

/* ----------------------------------------------------------------
 * The archive
 * ----------------------------------------------------------------
 */

/*
 * The number of segments that wait for the archiver, as counted in its
 * directory; -1 with errno when it cannot be read.
 */
static int
count_ready(void)
{
	DIR		   *dir = AllocateDir(XLOGDIR "/archive_status");
	struct dirent *entry;
	int			n = 0;

	if (dir == NULL)
		return -1;
	errno = 0;
	while ((entry = readdir(dir)) != NULL)
	{
		size_t		length = strlen(entry->d_name);

		if (length > 6 && strcmp(entry->d_name + length - 6, ".ready") == 0)
			n++;
		errno = 0;
	}
	if (errno != 0)
	{
		int			save = errno;

		FreeDir(dir);
		errno = save;
		return -1;
	}
	FreeDir(dir);
	return n;
}

/*
 * bbm.max_unarchived_wal.  If n segments were ready when the directory was
 * read, the number has grown since by at most the number of segments that were
 * begun.
 */
void
bbm_read_unarchived(BbmReading *reading)
{
	static int	ready = -1;		/* when read last; -1: not read */
	static XLogSegNo at;
	static TimestampTz until;	/* while there are too many, they are not counted again before that time */
	int			limit = bbm_setting_int(reading->migration, BBM_MAX_UNARCHIVED_WAL);
	XLogSegNo	now_at;

	if (!XLogArchivingActive())
	{
		bbm_reading_describes(reading, "WAL is not archived", NULL);
		return;
	}
	XLByteToSeg(GetFlushRecPtr(NULL), now_at, wal_segment_size);
	if (ready < 0 || reading->afresh ||
		((int64) (now_at - at) + ready > limit && bbm_time_has_come(reading->now, until, BBM_ARCHIVE_MS)))
	{
		ready = count_ready();
		at = now_at;
		until = TimestampTzPlusMilliseconds(reading->now, BBM_ARCHIVE_MS);
	}
	if (ready < 0)
		bbm_reading_throttles(reading, "cannot be read: could not read \"%s\": %m", XLOGDIR "/archive_status");
	else
		bbm_reading_measures(reading, "segments", ready, limit);
	if (ready > limit)
		bbm_reading_throttles(reading, "%d segments wait to be archived (limit %d)", ready, limit);
}
