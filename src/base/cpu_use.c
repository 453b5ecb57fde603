/*-------------------------------------------------------------------------
 *
 * cpu_use.c
 *		Does anybody but bbm need a CPU, and how many?
 *
 * NOTES
 *	  A process that waits for a CPU tells that the CPUs are busy, but not with
 *	  whom.  If these are processes of bbm, and those of the server and of the
 *	  kernel that write for them, nobody minds; nor if they are bbm's in another
 *	  server on the machine (neighbours.c).  Others are the clients of this
 *	  server, of which the server knows when they began or ended a statement, and
 *	  programs outside of it, which show in the operating system's counts of the
 *	  time that programs have run.  Kernel threads do not show there, as they have
 *	  no time of a user's program.
 *
 *	  How many CPUs others use is what is left of the time in which the CPUs were
 *	  not idle, when that of our processes is subtracted.  The kernel counts idle
 *	  time and the time that a process runs by the clock, and not by samples as it
 *	  counts the rest.  Here kernel threads and the server's other processes are
 *	  others, also when they write for us: nobody can tell for whom they do.
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
#include "base/cpu_waits.h"
#include "base/neighbours.h"
#include "base/slots.h"

/*
 * An answer stays valid for so long, as the sessions may be many: the last when
 * nobody else has needed a CPU for some time.
 */
#define BBM_ANSWER_US 10000
#define BBM_ANSWER_NOT_US 50000
#define BBM_ANSWER_LONG_US 25000

/* Programs outside of the server are read at this interval; what is older than the latter says nothing. */
#define BBM_PROGRAMS_US (250 * 1000)
#define BBM_PROGRAMS_OLD_US (2 * 1000 * 1000)

/* The workers of other servers are searched for at this interval. */
#define BBM_NEIGHBOURS_US (250 * 1000)

/* So much of one CPU's time they may take: it is hardly more than what the server's other processes do for us. */
#define BBM_PROGRAMS_SHARE 0.25

/* How busy the CPUs are is read at this interval, and an average of about so many readings. */
#define BBM_BUSY_US (250 * 1000)
#define BBM_BUSY_READINGS 4

/* A process of ours works when it has run for so much of the time. */
#define BBM_BUSY_WORKS 0.01

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
	return false;
}

/* Workers of other servers on this machine; a list of a moment ago is as good. */
static void
add_neighbours(Ours *ours, TimestampTz now)
{
	static TimestampTz found_at = 0;
	static Ours found = {0};

	if (found_at == 0 || now < found_at || now - found_at >= BBM_NEIGHBOURS_US)
	{
		found.n = bbm_neighbours_find(found.pid, BBM_MOST_PROCESSES);
		found_at = now;
	}
	for (int i = 0; i < found.n && ours->n < BBM_MOST_PROCESSES; i++)
	{
		if (!is_ours(ours, found.pid[i]))
			ours->pid[ours->n++] = found.pid[i];
	}
}

/*
 * Those that have a slot, and this one: without preloading there are no slots,
 * and a session may find none free.  And those of other servers.
 */
static void
find_ours(Ours *ours, TimestampTz now)
{
	ours->n = bbm_slots_pids(ours->pid, BBM_MOST_PROCESSES);
	if (!is_ours(ours, MyProcPid))
	{
		ours->n = Min(ours->n + 1, BBM_MOST_PROCESSES);
		ours->pid[ours->n - 1] = MyProcPid;
	}
	add_neighbours(ours, now);
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

/*
 * What the first line of /proc/stat says of all CPUs, in clock ticks since the
 * system was started: for how long programs have run, and for how long CPUs
 * were idle.  Returns false where it says nothing: some containers have a line
 * of zeros.
 */
bool
bbm_cpu_parse_stat(const char *text, int64 *programs, int64 *idle)
{
	unsigned long long user;
	unsigned long long nice;
	unsigned long long system;
	unsigned long long none;
	unsigned long long io;

	if (sscanf(text, "cpu %llu %llu %llu %llu %llu", &user, &nice, &system, &none, &io) != 5 ||
		user + nice + system + none + io == 0)
		return false;
	*programs = (int64) (user + nice);
	*idle = (int64) (none + io);
	return true;
}

/* For how long programs that are not ours have run, in clock ticks, since the system was started. */
static bool
read_programs(const Ours *ours, int64 *ticks)
{
	char		text[1024];
	char		path[64];
	const char *rest;
	unsigned long long user;
	int64		idle;

	if (!read_beginning("/proc/stat", text, sizeof(text)) || !bbm_cpu_parse_stat(text, ticks, &idle))
		return false;
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
 * second, and 40 times when that is not new.  Takes and releases LWLocks.
 */
int64
bbm_cpus_are_ours_for(TimestampTz now)
{
	static TimestampTz known_at = 0;
	static int64 known = 0;
	Ours		ours;
	int64		valid_us = known >= BBM_CPUS_OURS_US ? BBM_ANSWER_LONG_US :
		known > 0 ? BBM_ANSWER_US : BBM_ANSWER_NOT_US;

	if (now < known_at || now - known_at >= valid_us)
	{
		int64		programs;

		find_ours(&ours, now);
		/* read in any case: it needs the reading before */
		programs = programs_idle_for(&ours, now);
		known = programs > 0 ? Min(clients_idle_for(&ours, now), programs) : 0;
		known_at = now;
	}
	return known;
}

/* What is read at the end of one interval and compared at the end of the next. */
typedef struct BusyReading
{
	bool		reported;		/* by the system */
	double		idle_us;		/* of all CPUs, since the system was started */
	Ours		ours;
	double		ran_us[BBM_MOST_PROCESSES]; /* each of our processes, since it began */
} BusyReading;

static void
read_busy(BusyReading *reading, TimestampTz now)
{
	char		text[1024];
	char		path[64];
	int64		programs;
	int64		idle;

	reading->reported = read_beginning("/proc/stat", text, sizeof(text)) && bbm_cpu_parse_stat(text, &programs, &idle);
	if (!reading->reported)
		return;
	reading->idle_us = (double) idle * USECS_PER_SEC / sysconf(_SC_CLK_TCK);
	find_ours(&reading->ours, now);
	for (int i = 0; i < reading->ours.n; i++)
	{
		BbmCpuTimes times = {0};

		snprintf(path, sizeof(path), "/proc/%d/schedstat", (int) reading->ours.pid[i]);
		/* a process that has ended just now has no time; but this one has */
		if (read_beginning(path, text, sizeof(text)) ? !bbm_cpu_parse_times(text, &times) :
			reading->ours.pid[i] == MyProcPid)
			reading->reported = false;
		reading->ran_us[i] = (double) times.ran_ns / 1000;
	}
}

/* For how long our processes have run between two readings; *workers: how many of them. */
static double
ran_between(const BusyReading *before, const BusyReading *after, double passed_us, int *workers)
{
	double		all_us = 0;

	*workers = 0;
	for (int i = 0; i < after->ours.n; i++)
	{
		double		ran_us = after->ran_us[i];

		for (int j = 0; j < before->ours.n; j++)
		{
			if (before->ours.pid[j] == after->ours.pid[i])
				ran_us -= before->ran_us[j];
		}
		/* one that was not there before has begun since; but a session may have run for hours before that */
		ran_us = Min(Max(ran_us, 0), passed_us);
		all_us += ran_us;
		*workers += ran_us > BBM_BUSY_WORKS * passed_us;
	}
	return all_us;
}

/*
 * How busy the CPUs are, as an average of the last second or so.  Where the
 * system does not tell, use->cpus is 0.  Takes and releases an LWLock.
 */
void
bbm_cpu_use(TimestampTz now, BbmCpuUse *use)
{
	static TimestampTz read_at = 0;
	static BusyReading last = {0};
	static BbmCpuUse known = {0};
	BusyReading reading;
	double		passed_us = (double) (now - read_at);
	int			cpus;
	double		others;
	double		share;

	if (read_at != 0 && passed_us >= 0 && passed_us < BBM_BUSY_US)
	{
		*use = known;
		return;
	}
	/* it reads a file */
	cpus = (int) sysconf(_SC_NPROCESSORS_ONLN);
	read_busy(&reading, now);
	if (!reading.reported || !last.reported || cpus <= 0 || passed_us < 0 || passed_us > BBM_PROGRAMS_OLD_US)
		known.cpus = 0;
	else
	{
		others = cpus - (reading.idle_us - last.idle_us) / passed_us;
		others -= ran_between(&last, &reading, passed_us, &known.workers) / passed_us;
		others = Min(Max(others, 0), cpus);
		share = known.cpus == cpus ? 1.0 / BBM_BUSY_READINGS : 1;
		known.others += (others - known.others) * share;
		known.cpus = cpus;
	}
	read_at = now;
	last = reading;
	*use = known;
}
