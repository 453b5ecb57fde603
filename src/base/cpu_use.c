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
 *	  Both answers are the same for all processes of bbm, and to find them out is to
 *	  read something of each of them, and of each session.  So one process does, whose
 *	  turn it is when an answer is too old, and the others take it from shared memory;
 *	  if it does not come back, another one takes over.
 *
 *-------------------------------------------------------------------------
 */
#include "base/cpu_use.h"

#include <fcntl.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"

#include "base/backends.h"
#include "base/compat.h"
#include "base/cpu_waits.h"
#include "base/neighbours.h"
#include "base/point.h"
#include "base/shared.h"
#include "base/shmem.h"
#include "base/slots.h"

/*
 * An answer stays valid for so long, as the sessions may be many: the last when
 * nobody else has needed a CPU for some time.
 */
#define BBM_ANSWER_US 10000
#define BBM_ANSWER_NOT_US 50000
#define BBM_ANSWER_LONG_US 25000
/* Whoever finds it out has done so after that time, or will not any more; an answer is worth nothing then. */
#define BBM_ANSWER_OLD_US (100 * 1000)

/* Programs outside of the server are read at this interval; what is older than the latter says nothing. */
#define BBM_PROGRAMS_US (250 * 1000)
#define BBM_PROGRAMS_OLD_US (2 * 1000 * 1000)

/*
 * The workers of other servers are searched for by each process that finds something out: that reads a directory,
 * and a file of each of them.  So it does when one has begun or ended, and at this interval, as one may be killed.
 * Those that have begun at about the same time as the last one may not all have been there.
 */
#define BBM_NEIGHBOURS_US (1000 * 1000)
#define BBM_NEIGHBOURS_SAME_US (20 * 1000)

/* So much of one CPU's time they may take: it is hardly more than what the server's other processes do for us. */
#define BBM_PROGRAMS_SHARE 0.25

/* How busy the CPUs are is read at this interval, and an average of about so many readings. */
#define BBM_BUSY_US (250 * 1000)
#define BBM_BUSY_READINGS 4

/* A process of ours works when it has run for so much of the time. */
#define BBM_BUSY_WORKS 0.01

/* Of a process that has no slot. */
static BbmAlone own_alone = {0};
static BbmBusy own_busy = {0};

/* Is this process known to the others?  If not, they take what it runs for others', and it must not. */
static bool
shares(void)
{
	return bbm_shared != NULL && bbm_my_slot >= 0;
}

/* Does nobody find out now what was asked for then, which takes at most so long? */
static bool
is_open(TimestampTz asked, TimestampTz now, int64 takes_us)
{
	return asked == 0 || now < asked || now - asked > takes_us;
}

/* Is what was known then valid for so long? */
static bool
is_valid(TimestampTz known_at, TimestampTz now, int64 valid_us)
{
	return known_at != 0 && now >= known_at && now - known_at < valid_us;
}

/* Is the process one of these?  Then for how long it has run. */
static bool
is_among(pid_t pid, const BbmProcesses *processes, double *ran_us)
{
	for (int i = 0; i < processes->n; i++)
	{
		if (processes->pid[i] != pid)
			continue;
		*ran_us = processes->ran_us[i];
		return true;
	}
	return false;
}

static bool
is_ours(const BbmProcesses *ours, pid_t pid)
{
	double		ran_us;

	return is_among(pid, ours, &ran_us);
}

/*
 * Workers of other servers on this machine.  One that is not known counts as a
 * program, and each of the servers would leave the CPUs to the others.
 */
static void
add_neighbours(BbmProcesses *ours, TimestampTz now)
{
	static TimestampTz found_at = 0;
	static BbmProcesses found = {0};

	if (!is_valid(found_at, now, BBM_NEIGHBOURS_US) ||
		found_at - bbm_neighbours_changed_at() < BBM_NEIGHBOURS_SAME_US)
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
void
bbm_cpu_find_ours(BbmProcesses *ours, TimestampTz now)
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
 * its statement.  Needs bbm_waits_read.
 */
int64
bbm_cpu_idle_for(const PgBackendStatus *status, TimestampTz now)
{
	if (status->st_state == STATE_DISABLED)
		return 0;
	if (status->st_state == STATE_RUNNING || status->st_state == STATE_FASTPATH)
	{
		uint32		event;

		if (bbm_wait_of_process(status->st_procpid, &event) && event == 0)
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
clients_idle_for(const BbmProcesses *ours, TimestampTz now, BbmAlone *alone)
{
	int64		least = PG_INT64_MAX;
	int			n;

	pgstat_clear_backend_activity_snapshot();
	bbm_waits_read();
	n = pgstat_fetch_stat_numbackends();
	for (int i = 1; i <= n && least > 0; i++)
	{
		PgBackendStatus *status = bbm_backend_status(i);

		if (status && (status->st_backendType == B_BACKEND || status->st_backendType == B_BG_WORKER) &&
			!is_ours(ours, status->st_procpid))
			least = Min(least, bbm_cpu_idle_for(status, now));
	}
	pgstat_clear_backend_activity_snapshot();
	if (least == 0)
		alone->needed_at = now;
	return Min(least, Max(now - alone->needed_at, 0));
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

static double
ticks_us(int64 ticks)
{
	return (double) ticks * USECS_PER_SEC / sysconf(_SC_CLK_TCK);
}

/* For how long all programs have run, since the system was started, and ours. */
static bool
read_programs(BbmProcesses *ours, double *us)
{
	char		text[1024];
	char		path[64];
	const char *rest;
	int64		programs;
	int64		idle;

	if (!read_beginning("/proc/stat", text, sizeof(text)) || !bbm_cpu_parse_stat(text, &programs, &idle))
		return false;
	*us = ticks_us(programs);
	for (int i = 0; i < ours->n; i++)
	{
		unsigned long long user = 0;

		snprintf(path, sizeof(path), "/proc/%d/stat", (int) ours->pid[i]);
		/* the name, in parentheses, may have any characters; the time is the 12th field after it */
		if (read_beginning(path, text, sizeof(text)) && (rest = strrchr(text, ')')) != NULL)
			(void) sscanf(rest, ") %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &user);
		ours->ran_us[i] = ticks_us((int64) user);
	}
	return true;
}

/*
 * For how long have programs outside of the server hardly needed a CPU?  Not at
 * all where that is not known.
 */
static int64
programs_idle_for(BbmProcesses *ours, TimestampTz now, BbmAlone *alone)
{
	int64		passed = now - alone->programs_at;
	double		us;
	int			workers;

	if (passed < 0 || passed >= BBM_PROGRAMS_US)
	{
		if (!read_programs(ours, &us))
			return 0;
		if (passed < 0 || passed > BBM_PROGRAMS_OLD_US ||
			us - alone->programs_us - bbm_cpu_ran_between(&alone->ours, ours, (double) passed, &workers) >
			BBM_PROGRAMS_SHARE * passed)
			alone->programs_idle_since = now;
		alone->programs_at = now;
		alone->programs_us = us;
		alone->ours = *ours;
	}
	return now - alone->programs_idle_since;
}

static void
find_alone(BbmAlone *alone, TimestampTz now)
{
	BbmProcesses ours;
	int64		programs;

	bbm_cpu_find_ours(&ours, now);
	/* read in any case: it needs the reading before */
	programs = programs_idle_for(&ours, now, alone);
	alone->us = programs > 0 ? Min(clients_idle_for(&ours, now, alone), programs) : 0;
	alone->known_at = now;
	alone->asked = 0;
}

static int64
alone_valid_us(int64 us)
{
	return us >= BBM_CPUS_OURS_US ? BBM_ANSWER_LONG_US : us > 0 ? BBM_ANSWER_US : BBM_ANSWER_NOT_US;
}

/* What all know, found out by this process if it is its turn. */
static void
ask_alone(BbmAlone *alone, TimestampTz now)
{
	bool		my_turn;

	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	*alone = bbm_shared->alone;
	my_turn = !is_valid(alone->known_at, now, alone_valid_us(alone->us)) &&
		is_open(alone->asked, now, BBM_ANSWER_OLD_US);
	if (my_turn)
		bbm_shared->alone.asked = now;
	LWLockRelease(bbm_shared->lock);
	if (my_turn)
	{
		find_alone(alone, now);
		LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
		bbm_shared->alone = *alone;
		LWLockRelease(bbm_shared->lock);
	}
	else if (!is_valid(alone->known_at, now, BBM_ANSWER_OLD_US))
		alone->us = 0;
}

/*
 * For how long, in microseconds, has nobody but bbm needed a CPU?  0: somebody
 * does.  The state of all sessions of the server is read at most 100 times a
 * second, and 40 times when that is not new, however many processes ask.  Takes
 * and releases LWLocks.
 */
int64
bbm_cpus_are_ours_for(TimestampTz now)
{
	static BbmAlone known = {0};

	if (is_valid(known.known_at, now, alone_valid_us(known.us)))
		return known.us;
	if (shares())
		ask_alone(&known, now);
	else
	{
		find_alone(&own_alone, now);
		known = own_alone;
	}
	return known.us;
}

static void
read_busy(BbmBusyReading *reading, TimestampTz now)
{
	char		text[1024];
	char		path[64];
	int64		programs;
	int64		idle;

	BBM_POINT_BETWEEN("cpu-read");
	reading->reported = read_beginning("/proc/stat", text, sizeof(text)) && bbm_cpu_parse_stat(text, &programs, &idle);
	if (!reading->reported)
		return;
	reading->idle_us = ticks_us(idle);
	bbm_cpu_find_ours(&reading->ours, now);
	for (int i = 0; i < reading->ours.n; i++)
	{
		BbmCpuTimes times = {0};

		snprintf(path, sizeof(path), "/proc/%d/schedstat", (int) reading->ours.pid[i]);
		/* a process that has ended just now has no time; but this one has */
		if (read_beginning(path, text, sizeof(text)) ? !bbm_cpu_parse_times(text, &times) :
			reading->ours.pid[i] == MyProcPid)
			reading->reported = false;
		reading->ours.ran_us[i] = (double) times.ran_ns / 1000;
	}
}

/*
 * For how long our processes have run between two readings; *workers: how many
 * of them.  One that has ended since counts as if it had run all the time, which
 * is not known: else its work would seem to be that of others, and all workers
 * would leave the CPUs to nobody.  If it has run for less, others seem to have run
 * for less, until the next reading.
 */
double
bbm_cpu_ran_between(const BbmProcesses *before, const BbmProcesses *after, double passed_us, int *workers)
{
	double		all_us = 0;
	double		ran_us;

	*workers = 0;
	for (int i = 0; i < after->n; i++)
	{
		double		before_us;

		ran_us = after->ran_us[i];
		if (is_among(after->pid[i], before, &before_us))
			ran_us -= before_us;
		/* one that was not there before has begun since; but a session may have run for hours before that */
		ran_us = Min(Max(ran_us, 0), passed_us);
		all_us += ran_us;
		*workers += ran_us > BBM_BUSY_WORKS * passed_us;
	}
	for (int i = 0; i < before->n; i++)
	{
		if (!is_among(before->pid[i], after, &ran_us))
			all_us += passed_us;
	}
	return all_us;
}

static void
find_busy(BbmBusy *busy, TimestampTz now)
{
	BbmBusyReading reading;
	double		passed_us = (double) (now - busy->known_at);
	/* it reads a file */
	int			cpus = (int) sysconf(_SC_NPROCESSORS_ONLN);
	double		others;
	double		share;

	read_busy(&reading, now);
	if (!reading.reported || !busy->last.reported || cpus <= 0 || passed_us <= 0 || passed_us > BBM_PROGRAMS_OLD_US)
		busy->use.cpus = 0;
	else
	{
		others = cpus - (reading.idle_us - busy->last.idle_us) / passed_us;
		others -= bbm_cpu_ran_between(&busy->last.ours, &reading.ours, passed_us, &busy->use.workers) / passed_us;
		others = Min(Max(others, 0), cpus);
		share = busy->use.cpus == cpus ? 1.0 / BBM_BUSY_READINGS : 1;
		busy->use.others += (others - busy->use.others) * share;
		busy->use.cpus = cpus;
	}
	busy->last = reading;
	busy->known_at = now;
	busy->asked = 0;
}

/* As ask_alone; returns when it was found out. */
static TimestampTz
ask_busy(BbmCpuUse *use, TimestampTz now)
{
	BbmBusy    *busy = &bbm_shared->busy;
	BbmBusy		mine;
	TimestampTz known_at;
	bool		my_turn;

	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	known_at = busy->known_at;
	*use = busy->use;
	my_turn = !is_valid(known_at, now, BBM_BUSY_US) && is_open(busy->asked, now, BBM_BUSY_US);
	if (my_turn)
	{
		busy->asked = now;
		mine = *busy;
	}
	LWLockRelease(bbm_shared->lock);
	if (my_turn)
	{
		find_busy(&mine, now);
		known_at = mine.known_at;
		*use = mine.use;
		LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
		*busy = mine;
		LWLockRelease(bbm_shared->lock);
	}
	else if (!is_valid(known_at, now, BBM_PROGRAMS_OLD_US))
		use->cpus = 0;
	return known_at;
}

/*
 * How busy the CPUs are, as an average of the last second or so.  Where the
 * system does not tell, use->cpus is 0.  Takes and releases an LWLock.
 */
void
bbm_cpu_use(TimestampTz now, BbmCpuUse *use)
{
	static TimestampTz known_at = 0;
	static BbmCpuUse known = {0};

	if (!is_valid(known_at, now, BBM_BUSY_US))
	{
		if (shares())
			known_at = ask_busy(&known, now);
		else
		{
			find_busy(&own_busy, now);
			known = own_busy.use;
			known_at = now;
		}
	}
	*use = known;
}
