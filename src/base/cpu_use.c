/*-------------------------------------------------------------------------
 *
 * cpu_use.c
 *		Does anybody but bbm need a CPU?
 *
 * NOTES
 *	  A process that waits for a CPU tells that the CPUs are busy, but not with
 *	  whom.  If these are processes of bbm, and those of the server and of the
 *	  kernel that write for them, nobody minds.  Others are the clients of this
 *	  server, of which the server knows when they began or ended a statement, and
 *	  programs outside of it, which show in the operating system's counts of the
 *	  time that programs have run.  Kernel threads do not show there, as they have
 *	  no time of a user's program.
 *
 *-------------------------------------------------------------------------
 */
#include "base/cpu_use.h"

#include <fcntl.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/slots.h"

/* An answer stays valid for so long: the sessions are many, perhaps. */
#define BBM_ANSWER_US 10000
#define BBM_ANSWER_NOT_US 50000

/* Programs outside of the server are read at this interval; what is older than the latter says nothing. */
#define BBM_PROGRAMS_US (250 * 1000)
#define BBM_PROGRAMS_OLD_US (2 * 1000 * 1000)

/* So much of one CPU's time they may take: it is hardly more than what the server's other processes do for us. */
#define BBM_PROGRAMS_SHARE 0.25

/* The processes of bbm; there are hardly more, and those that are do not belong to it then. */
#define BBM_MOST_PROCESSES 64

typedef struct Ours
{
	int			n;
	pid_t		pid[BBM_MOST_PROCESSES];
} Ours;

static bool
is_ours(const Ours *ours, pid_t pid)
{
	for (int i = 0; i < ours->n; i++)
	{
		if (ours->pid[i] == pid)
			return true;
	}
	return pid == MyProcPid;
}

/*
 * For how long has the process not needed a CPU, as far as this moment tells?
 * One that waits for something else does not need one, but it did when it began
 * its statement.
 */
static int64
idle_for(const PgBackendStatus *status, TimestampTz now)
{
	if (status->st_state == STATE_DISABLED)
		return 0;
	if (status->st_state == STATE_RUNNING || status->st_state == STATE_FASTPATH)
	{
		/* it may be gone, and its entry another's, who then needs a CPU or not */
		PGPROC	   *proc = BackendPidGetProc(status->st_procpid);

		if (proc && *(volatile uint32 *) &proc->wait_event_info == 0)
			return 0;
	}
	return Max(now - status->st_state_start_timestamp, 0);
}

/*
 * The same of all clients, and of background workers, which may be a part of
 * their statements.  Who reads from a disk between two needs of a CPU is seen at
 * one of them, which counts from then on.
 */
static int64
clients_idle_for(const Ours *ours, TimestampTz now)
{
	static TimestampTz needed_at = 0;
	int64		least = PG_INT64_MAX;
	int			n;

	pgstat_clear_backend_activity_snapshot();
	n = pgstat_fetch_stat_numbackends();
	for (int i = 1; i <= n && least > 0; i++)
	{
		PgBackendStatus *status = bbm_backend_status(i);

		if (status && (status->st_backendType == B_BACKEND || status->st_backendType == B_BG_WORKER) &&
			!is_ours(ours, status->st_procpid))
			least = Min(least, idle_for(status, now));
	}
	pgstat_clear_backend_activity_snapshot();
	if (least == 0)
		needed_at = now;
	return Min(least, Max(now - needed_at, 0));
}

/* Reads the beginning of a file of the system; returns false where there is none. */
static bool
read_beginning(const char *path, char *text, size_t size)
{
	int			fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	ssize_t		length;

	if (fd < 0)
		return false;
	length = read(fd, text, size - 1);
	CloseTransientFile(fd);
	text[Max(length, 0)] = '\0';
	return length > 0;
}

/* For how long programs that are not ours have run, in clock ticks, since the system was started. */
static bool
read_programs(const Ours *ours, int64 *ticks)
{
	char		text[1024];
	char		path[64];
	const char *rest;
	unsigned long long user;
	unsigned long long nice;

	if (!read_beginning("/proc/stat", text, sizeof(text)) || sscanf(text, "cpu %llu %llu", &user, &nice) != 2)
		return false;
	*ticks = (int64) (user + nice);
	for (int i = 0; i < ours->n; i++)
	{
		snprintf(path, sizeof(path), "/proc/%d/stat", (int) ours->pid[i]);
		/* the name, in parentheses, may have any characters; the time is the 12th field after it */
		if (read_beginning(path, text, sizeof(text)) && (rest = strrchr(text, ')')) != NULL &&
			sscanf(rest, ") %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &user) == 1)
			*ticks -= (int64) user;
	}
	return true;
}

/*
 * For how long have programs outside of the server hardly needed a CPU?  Not at
 * all where that is not known.  A process of ours that began or ended between two
 * readings makes one of the answers wrong.
 */
static int64
programs_idle_for(const Ours *ours, TimestampTz now)
{
	static TimestampTz read_at = 0;
	static int64 read_ticks = 0;
	static TimestampTz idle_since = 0;
	int64		passed = now - read_at;
	int64		ticks;

	if (passed < 0 || passed >= BBM_PROGRAMS_US)
	{
		if (!read_programs(ours, &ticks))
			return 0;
		if (passed < 0 || passed > BBM_PROGRAMS_OLD_US ||
			(ticks - read_ticks) / (double) sysconf(_SC_CLK_TCK) > BBM_PROGRAMS_SHARE * passed / USECS_PER_SEC)
			idle_since = now;
		read_at = now;
		read_ticks = ticks;
	}
	return now - idle_since;
}

/*
 * For how long, in microseconds, has nobody but bbm needed a CPU?  0: somebody
 * does.  It reads the state of all sessions of the server, at most 100 times a
 * second.  Takes and releases LWLocks.
 */
int64
bbm_cpus_are_ours_for(TimestampTz now)
{
	static TimestampTz known_at = 0;
	static int64 known = 0;
	Ours		ours;

	if (now < known_at || now - known_at >= (known > 0 ? BBM_ANSWER_US : BBM_ANSWER_NOT_US))
	{
		int64		programs;

		ours.n = bbm_slots_pids(ours.pid, BBM_MOST_PROCESSES);
		/* read in any case: it needs the reading before */
		programs = programs_idle_for(&ours, now);
		known = programs > 0 ? Min(clients_idle_for(&ours, now), programs) : 0;
		known_at = now;
	}
	return known;
}
