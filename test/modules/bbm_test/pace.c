/*-------------------------------------------------------------------------
 *
 * simulate_pace.c
 *		An entry point for the tests: a simulated machine, with an application
 *		and workers that keep a pace.
 *
 * The machine has some CPUs and one queue, first come, first served.  A client
 * of the application thinks, needs a CPU, and so on; both take random times.
 * With no time to think, the clients keep every CPU busy and the queue full.  A
 * worker needs a CPU for each pulse, and pauses as pace.c says.  If the impact is
 * measured, workers are silent in some windows, and what a client needs takes from
 * when it asks for a CPU until it is done.  Nothing here knows how pace.c works.
 * No SQL of the extension declares the functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/backends.h"
#include "base/compat.h"
#include "base/cpu_use.h"
#include "base/cpu_waits.h"
#include "base/neighbours.h"
#include "base/impact.h"
#include "throttle/pace.h"

#include "bbm_test.h"

PG_FUNCTION_INFO_V1(bbm_test_pace);
PG_FUNCTION_INFO_V1(bbm_test_pace_pulses);
PG_FUNCTION_INFO_V1(bbm_test_cpus_are_ours_for);
PG_FUNCTION_INFO_V1(bbm_test_session_idle_for);
PG_FUNCTION_INFO_V1(bbm_test_cpu_ran);
PG_FUNCTION_INFO_V1(bbm_test_cpu_use);
PG_FUNCTION_INFO_V1(bbm_test_cpu_ours);
PG_FUNCTION_INFO_V1(bbm_test_neighbours);
PG_FUNCTION_INFO_V1(bbm_test_cpu_stat);
PG_FUNCTION_INFO_V1(bbm_test_cpu_times);
PG_FUNCTION_INFO_V1(bbm_test_pace_impact);

#define MOST_TASKS 256
#define SECOND_US 1e6

typedef enum TaskState
{
	SLEEPS,
	QUEUES,
	RUNS
} TaskState;

/* A client, or a worker. */
typedef struct Task
{
	TaskState	state;
	double		at;				/* when it wakes up, or is done */
	double		began;			/* when it entered the queue */
	double		need;			/* for how long it runs */
	BbmPace		pace;			/* a worker's */
	BbmPulse	pulse;
} Task;

typedef struct Machine
{
	int			cpus;
	int			workers;		/* the first tasks */
	int			tasks;
	double		pulse_us;
	double		service_us;		/* that a client needs, on average */
	double		think_us;		/* between two needs, on average; negative: there are no clients */
	BbmPaceLimits limits;
	bool		reports_waits;	/* does the system report the waits for a CPU? */
	uint64		random;
	Task		task[MOST_TASKS];
	int			queue[MOST_TASKS];
	int			first;			/* in the queue */
	int			queued;
	int			running;
	double		worked_us;		/* by the workers, so far ... */
	double		served_us;		/* ... and for the clients */
	BbmCpuUse	use;			/* as it is reported */
	double		read_at;		/* when it was ... */
	double		served_then;	/* ... and what was served until then */
	bool		measures;		/* is the impact measured? */
	BbmHistogram counted[BBM_WINDOW_KINDS];
} Machine;

/* How busy the CPUs are is reported so often, as an average of about so many reports. */
#define USE_US 250000
#define USES 4

/* What decides about windows and groups is the same in each run, too. */
#define WINDOW_SEED 1

/* So many microseconds after the begin of time the simulation begins. */
#define BEGIN_US INT64CONST(1000000000)

/* In [0, 1), the same in each run: xorshift. */
static double
draw(Machine *machine)
{
	machine->random ^= machine->random << 13;
	machine->random ^= machine->random >> 7;
	machine->random ^= machine->random << 17;
	return (machine->random >> 11) * (1.0 / 9007199254740992.0);
}

/* Exponentially distributed. */
static double
draw_time(Machine *machine, double mean)
{
	return -mean * log(1 - draw(machine));
}

static void
enqueue(Machine *machine, int i, double now)
{
	machine->task[i].state = QUEUES;
	machine->task[i].began = now;
	machine->queue[(machine->first + machine->queued++) % MOST_TASKS] = i;
}

static void
sleep_until(Task *task, double at)
{
	task->state = SLEEPS;
	task->at = at;
}

/* A worker would begin a pulse. */
static void
begin_pulse(Machine *machine, int i, double now)
{
	int64		at = BEGIN_US + (int64) now;

	if (machine->measures && bbm_window_kind(WINDOW_SEED, at, 0) == BBM_WINDOW_SILENT)
	{
		double		until = (double) (bbm_window_end(at, 0) - BEGIN_US);

		bbm_pace_paused(&machine->task[i].pace, until - now);
		sleep_until(&machine->task[i], until);
	}
	else
		enqueue(machine, i, now);
}

/* A client has got what it asked for at that time. */
static void
count(Machine *machine, double began, double now)
{
	int64		at = BEGIN_US + (int64) began;
	BbmWindowKind kind = bbm_window_kind(WINDOW_SEED, at, 0);

	if (machine->measures && kind != BBM_WINDOW_OTHER && bbm_window_counts(at, 0))
		bbm_histogram_add(&machine->counted[kind], bbm_window_group(WINDOW_SEED, at, 0), (int64) (now - began));
}

/* Gives the free CPUs to those who have queued for longest. */
static void
dispatch(Machine *machine, double now)
{
	while (machine->queued > 0 && machine->running < machine->cpus)
	{
		int			i = machine->queue[machine->first];
		Task	   *task = &machine->task[i];

		machine->first = (machine->first + 1) % MOST_TASKS;
		machine->queued--;
		machine->running++;
		task->state = RUNS;
		task->need = i < machine->workers ? machine->pulse_us * (0.7 + 0.6 * draw(machine)) :
			draw_time(machine, machine->service_us);
		task->at = now + task->need;
		task->pulse.wait_us = now - task->began;
	}
}

/* How busy the CPUs are with clients, if the system reports anything. */
static void
report_use(Machine *machine, double now)
{
	double		others;

	if (!machine->reports_waits || now - machine->read_at < USE_US)
		return;
	others = (machine->served_us - machine->served_then) / (now - machine->read_at);
	machine->use.others += (others - machine->use.others) / (machine->use.cpus > 0 ? USES : 1);
	machine->use.cpus = machine->cpus;
	machine->use.workers = machine->workers;
	machine->read_at = now;
	machine->served_then = machine->served_us;
}

/* A worker's pulse is done. */
static void
pulse_done(Machine *machine, int i, double now)
{
	Task	   *task = &machine->task[i];
	double		pause;

	machine->worked_us += task->need;
	task->pulse.elapsed_us = now - task->began;
	task->pulse.turns = 1;
	/* the time of a unit varies, by a tenth either way */
	task->pulse.units = task->need * (0.9 + 0.2 * draw(machine));
	if (!machine->reports_waits)
		task->pulse.wait_us = -1;
	report_use(machine, now);
	task->pulse.use = machine->use;
	pause = bbm_pace_after(&task->pace, &machine->limits, &task->pulse);
	if (pause > 0)
	{
		/* nobody wakes up on time */
		pause += draw(machine) * 1000;
		bbm_pace_paused(&task->pace, pause);
		sleep_until(task, now + pause);
	}
	else
		begin_pulse(machine, i, now);
}

/* A client has got what it needed. */
static void
client_done(Machine *machine, int i, double now)
{
	machine->served_us += machine->task[i].need;
	count(machine, machine->task[i].began, now);
	if (machine->think_us > 0)
		sleep_until(&machine->task[i], now + draw_time(machine, machine->think_us));
	else if (machine->think_us < 0)
		sleep_until(&machine->task[i], now + SECOND_US / 10);
	else
		enqueue(machine, i, now);
}

static void
run_until(Machine *machine, double until)
{
	for (;;)
	{
		int			next = 0;
		double		now = until;

		for (int i = 0; i < machine->tasks; i++)
		{
			if (machine->task[i].state != QUEUES && machine->task[i].at < now)
			{
				next = i;
				now = machine->task[i].at;
			}
		}
		if (now >= until)
			return;
		if (machine->task[next].state == RUNS)
		{
			machine->running--;
			if (next < machine->workers)
				pulse_done(machine, next, now);
			else
				client_done(machine, next, now);
		}
		else if (next < machine->workers)
			begin_pulse(machine, next, now);
		else if (machine->think_us >= 0)
			enqueue(machine, next, now);
		else
			sleep_until(&machine->task[next], now + SECOND_US / 10);
		dispatch(machine, now);
	}
}

/*
 * (cpus int, workers int, clients int, service_us float8, think_us float8[],
 * pulse_us float8, min_pace float8, max_pace float8, reported boolean) → for each
 * second, of which think_us has one entry, the share of a CPU that each worker
 * has used, on average.
 */
Datum
bbm_test_pace(PG_FUNCTION_ARGS)
{
	int			n;
	double	   *think_us = bbm_test_numbers(fcinfo, 4, &n);
	Datum	   *shares = palloc(Max(n, 1) * sizeof(Datum));
	Machine    *machine = palloc0(sizeof(Machine));

	machine->cpus = PG_GETARG_INT32(0);
	machine->workers = PG_GETARG_INT32(1);
	machine->tasks = machine->workers + PG_GETARG_INT32(2);
	machine->service_us = PG_GETARG_FLOAT8(3);
	machine->pulse_us = PG_GETARG_FLOAT8(5);
	machine->limits.min = PG_GETARG_FLOAT8(6);
	machine->limits.max = PG_GETARG_FLOAT8(7);
	machine->reports_waits = PG_GETARG_BOOL(8);
	machine->random = UINT64CONST(88172645463325252);
	if (machine->workers < 1 || machine->tasks > MOST_TASKS || machine->cpus < 1)
		elog(ERROR, "too few or too many workers, clients or CPUs");
	for (int second = 0; second < n; second++)
	{
		double		before = machine->worked_us;

		CHECK_FOR_INTERRUPTS();
		machine->think_us = think_us[second];
		run_until(machine, (second + 1) * SECOND_US);
		shares[second] = Float8GetDatum((machine->worked_us - before) / SECOND_US / machine->workers);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(shares, n, FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * (elapsed_us float8[], wait_us float8[], turns float8[], units float8[], found
 * float8[], min_pace float8, max_pace float8, what text) → after each pulse the
 * share, or the pause, or why.  "found": 1 blocks others, 2 fills the WAL
 * buffers; more: for so many microseconds nobody else has needed a CPU; less
 * than 0: others use so many thousandths of a CPU, of two, with 10000 more the
 * pulse blocks others besides, and with 100000 more there is one more worker.
 * "units" less than 0: the pulse fails.  Each pause is made in full.
 */
Datum
bbm_test_pace_pulses(PG_FUNCTION_ARGS)
{
	BbmPaceLimits limits = {PG_GETARG_FLOAT8(5), PG_GETARG_FLOAT8(6)};
	char		what = *VARDATA_ANY(PG_GETARG_TEXT_PP(7));
	int			n[5];
	double	   *given[5];
	Datum	   *results;
	BbmPace		pace = {0};

	for (int i = 0; i < 5; i++)
	{
		given[i] = bbm_test_numbers(fcinfo, i, &n[i]);
		if (n[i] != n[0])
			elog(ERROR, "the arrays must be of one length");
	}
	results = palloc(Max(n[0], 1) * sizeof(Datum));
	for (int i = 0; i < n[0]; i++)
	{
		BbmPulse	pulse = {
			.elapsed_us = given[0][i], .wait_us = given[1][i], .turns = (int) given[2][i], .units = given[3][i],
			.blocks = given[4][i] == 1 || fmod(-given[4][i], 100000) >= 10000, .fills_wal = given[4][i] == 2,
			.alone_us = given[4][i] > 2 ? given[4][i] : 0
		};
		double		pause;

		if (given[4][i] < 0)
			pulse.use = (BbmCpuUse) {.cpus = 2, .others = fmod(-given[4][i], 10000) / 1000,
			.workers = 1 + (int) (-given[4][i] / 100000)};
		pause = pulse.units < 0 ? bbm_pace_after_failure(&pace, &limits, pulse.elapsed_us) :
			bbm_pace_after(&pace, &limits, &pulse);
		bbm_pace_paused(&pace, pause);
		results[i] = Float8GetDatum(what == 's' ? bbm_pace_share(&pace, &limits) :
									what == 'p' ? pause : (double) pace.why);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(results, n[0], FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* () → bigint: for how long, in microseconds, nobody but bbm and this session has needed a CPU. */
Datum
bbm_test_cpus_are_ours_for(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(bbm_cpus_are_ours_for(GetCurrentTimestamp()));
}

/* (pid int) → bigint: for how long, in microseconds, that session has not needed a CPU; NULL: there is none. */
Datum
bbm_test_session_idle_for(PG_FUNCTION_ARGS)
{
	int64		idle_us = -1;

	pgstat_clear_backend_activity_snapshot();
	bbm_waits_read();
	for (int i = 1; i <= pgstat_fetch_stat_numbackends(); i++)
	{
		PgBackendStatus *status = bbm_backend_status(i);

		if (status && status->st_procpid == PG_GETARG_INT32(0))
			idle_us = bbm_cpu_idle_for(status, GetCurrentTimestamp());
	}
	pgstat_clear_backend_activity_snapshot();
	if (idle_us < 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(idle_us);
}

static Datum
numbers(const double *values, int n)
{
	Datum	   *results = palloc(n * sizeof(Datum));

	for (int i = 0; i < n; i++)
		results[i] = Float8GetDatum(values[i]);
	return PointerGetDatum(construct_array(results, n, FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* Processes, of which two arguments have the pids and for how long each has run. */
static void
get_processes(FunctionCallInfo fcinfo, int arg, BbmProcesses *processes)
{
	int			n_ran;
	double	   *pid = bbm_test_numbers(fcinfo, arg, &processes->n);
	double	   *ran_us = bbm_test_numbers(fcinfo, arg + 1, &n_ran);

	if (processes->n != n_ran || n_ran > BBM_MOST_PROCESSES)
		elog(ERROR, "the arrays must be of one length, and not too long");
	for (int i = 0; i < n_ran; i++)
	{
		processes->pid[i] = (pid_t) pid[i];
		processes->ran_us[i] = ran_us[i];
	}
}

/*
 * (pids float8[], ran_us float8[], the same later, passed_us float8) → float8[]:
 * for how long they have run in between, and how many of them.
 */
Datum
bbm_test_cpu_ran(PG_FUNCTION_ARGS)
{
	BbmProcesses before;
	BbmProcesses after;
	int			workers;
	double		ran_us;

	get_processes(fcinfo, 0, &before);
	get_processes(fcinfo, 2, &after);
	ran_us = bbm_cpu_ran_between(&before, &after, PG_GETARG_FLOAT8(4), &workers);
	PG_RETURN_DATUM(numbers((double[]) {ran_us, workers}, 2));
}

/* So many milliseconds after the first call of this session. */
static TimestampTz
at(int ms)
{
	static TimestampTz first = 0;

	if (first == 0)
		first = GetCurrentTimestamp();
	return TimestampTzPlusMilliseconds(first, ms);
}

/*
 * (ms int) → float8[]: how busy the CPUs are, read at that time, by a clock that
 * only says so: how many there are, how many others use, and how many processes
 * of bbm have run.
 */
Datum
bbm_test_cpu_use(PG_FUNCTION_ARGS)
{
	BbmCpuUse	use;

	bbm_cpu_use(at(PG_GETARG_INT32(0)), &use);
	PG_RETURN_DATUM(numbers((double[]) {use.cpus, use.others, use.workers}, 3));
}

static Datum
pids_array(const pid_t *pids, int n)
{
	Datum	   *values = palloc((n + 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		values[i] = Int32GetDatum((int32) pids[i]);
	return PointerGetDatum(construct_array(values, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

/* (ms int) → integer[]: the processes that this one takes for bbm's own at that time, by such a clock. */
Datum
bbm_test_cpu_ours(PG_FUNCTION_ARGS)
{
	BbmProcesses ours;

	bbm_cpu_find_ours(&ours, at(PG_GETARG_INT32(0)));
	PG_RETURN_DATUM(pids_array(ours.pid, ours.n));
}

/* () → integer[]: the processes of bbm's workers on this machine, those of other servers included. */
Datum
bbm_test_neighbours(PG_FUNCTION_ARGS)
{
	pid_t		pids[256];

	PG_RETURN_DATUM(pids_array(pids, bbm_neighbours_find(pids, lengthof(pids))));
}

/* (text) → float8[]: for how long programs have run and CPUs were idle, by /proc/stat; NULL: it does not say. */
Datum
bbm_test_cpu_stat(PG_FUNCTION_ARGS)
{
	int64		programs;
	int64		idle;

	if (!bbm_cpu_parse_stat(text_to_cstring(PG_GETARG_TEXT_PP(0)), &programs, &idle))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(numbers((double[]) {programs, idle}, 2));
}

/* (text) → float8[]: for how long a process has run and waited, and how often it got a CPU; the same. */
Datum
bbm_test_cpu_times(PG_FUNCTION_ARGS)
{
	BbmCpuTimes times;

	if (!bbm_cpu_parse_times(text_to_cstring(PG_GETARG_TEXT_PP(0)), &times))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(numbers((double[]) {times.ran_ns, times.waited_ns, times.turns}, 3));
}

/* Those of a kind. */
typedef BbmImpactGroup Groups[BBM_IMPACT_GROUPS];

/* Once a second: a worker, whose measurement began at *since with these groups. */
static void
keep_impact(Machine *machine, BbmPace *pace, double max_impact, double now, double *since, Groups *before)
{
	static BbmHistogram counted[BBM_WINDOW_KINDS];
	BbmImpact	impact;

	memcpy(counted, machine->counted, sizeof(counted));
	for (int kind = 0; kind < BBM_WINDOW_KINDS; kind++)
		bbm_histogram_since(&counted[kind], before[kind]);
	impact = bbm_impact_between(&counted[BBM_WINDOW_SILENT], &counted[BBM_WINDOW_WORKED]);
	if (!bbm_pace_keep_impact(pace, &machine->limits, max_impact, &impact, now - *since))
		return;
	*since = now;
	for (int kind = 0; kind < BBM_WINDOW_KINDS; kind++)
		memcpy(before[kind], machine->counted[kind].groups, sizeof(before[kind]));
}

/*
 * (cpus int, clients int, service_us float8, think_us float8, pulse_us float8,
 * min_pace float8, max_impact float8, seconds int, settles int) → of one worker,
 * after it has had so many seconds to settle: the share of a CPU that it has used, the
 * impact that was measured in all that time, its standard error, and the reason
 * at the end.
 */
Datum
bbm_test_pace_impact(PG_FUNCTION_ARGS)
{
	Machine    *machine = palloc0(sizeof(Machine));
	double		max_impact = PG_GETARG_FLOAT8(6);
	int			seconds = PG_GETARG_INT32(7);
	int			settles = PG_GETARG_INT32(8);
	Groups	   *before = palloc0(BBM_WINDOW_KINDS * sizeof(Groups));
	double		since = 0;
	double		worked_us = 0;
	BbmImpact	impact;
	Datum		results[4];

	machine->cpus = PG_GETARG_INT32(0);
	machine->workers = 1;
	machine->tasks = 1 + PG_GETARG_INT32(1);
	machine->service_us = PG_GETARG_FLOAT8(2);
	machine->think_us = PG_GETARG_FLOAT8(3);
	machine->pulse_us = PG_GETARG_FLOAT8(4);
	machine->limits = (BbmPaceLimits) {PG_GETARG_FLOAT8(5), 1};
	machine->reports_waits = true;
	machine->measures = true;
	machine->random = UINT64CONST(88172645463325252);
	if (machine->tasks > MOST_TASKS || machine->cpus < 1)
		elog(ERROR, "too many clients, or too few CPUs");
	for (int second = 1; second <= seconds; second++)
	{
		CHECK_FOR_INTERRUPTS();
		run_until(machine, second * SECOND_US);
		keep_impact(machine, &machine->task[0].pace, max_impact, second * SECOND_US, &since, before);
		if (second != settles)
			continue;
		/* what is counted from here on is the result */
		memset(machine->counted, 0, sizeof(machine->counted));
		memset(before, 0, BBM_WINDOW_KINDS * sizeof(Groups));
		since = second * SECOND_US;
		worked_us = machine->worked_us;
	}
	impact = bbm_impact_between(&machine->counted[BBM_WINDOW_SILENT], &machine->counted[BBM_WINDOW_WORKED]);
	results[0] = Float8GetDatum((machine->worked_us - worked_us) / SECOND_US / (seconds - settles));
	results[1] = Float8GetDatum(impact.mean);
	results[2] = Float8GetDatum(impact.mean_error);
	results[3] = Float8GetDatum((double) machine->task[0].pace.why);
	PG_RETURN_ARRAYTYPE_P(construct_array(results, 4, FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}
