/*
 * jobs.pml
 *		A model of how ranges become jobs, and jobs are claimed, run and recorded.
 *
 * The processes: workers (engine/), a session that controls the migration
 * (sql/), and crashes.  A step is what happens between two moments at which
 * another session may do something; its first word is the C function that does
 * it, and test/model/run checks that there is such a function.
 *
 * What the server does for us is taken as given: a transaction that does not
 * commit leaves nothing, a lock ends with its transaction or its process, and
 * each statement sees what has committed before it began (READ COMMITTED).  A
 * transaction's writes are therefore one step, its commit.  Until then there
 * are its locks, and what it has read.
 *
 * What must hold is in assert(), and in the claim "ends".  Defining a BREAK_…
 * leaves out one of the things that it depends on.
 */

#ifndef RANGES
#define RANGES 3				/* the last one is added while the migration runs */
#endif
#ifndef SUBS
#define SUBS 2					/* sub-batches of a range */
#endif
#ifndef CRASHES
#define CRASHES 1				/* of a worker */
#endif
#ifndef REBOOTS
#define REBOOTS 0				/* of the server, which loses what was not flushed */
#endif
#ifndef ERRORS
#define ERRORS 1				/* of batches, of whatever class; records that cannot be written */
#endif
#ifndef UNLOCKS
#define UNLOCKS 1				/* a job releases all advisory locks of its session */
#endif
#ifndef PAUSES
#define PAUSES 1
#endif
#ifndef THROTTLES
#define THROTTLES 1				/* a worker must wait, and checks whether nothing is left anyway */
#endif
#ifndef RELEASES
#define RELEASES 0				/* a job is released between two commits, or before its first: its process is wanted elsewhere */
#endif
#ifndef WAITS
#define WAITS 0					/* 1: a job that was claimed along is begun after a pacing pause */
#endif
#ifndef PHASES
#define PHASES 1				/* 2: the second one verifies */
#endif
#ifndef ASKS
#define ASKS 0					/* 1: the session asks for a verification while the migration runs */
#endif
#define MAX_ATTEMPTS 2

#define SESSION 3				/* the lock owners: workers 1 and 2, the session */

/* BbmStatus; of a job 1 is "new", and 0 stands for a range that is not allocated */
#define PAUSED 0
#define NONE 0
#define ACTIVE 1
#define NEW 1
#define FINISHED 2
#define FAILED 3
#define RUNNING 4

typedef Job {
	unsigned status : 3;
	unsigned epoch : 4;			/* claim_epoch */
	unsigned worker : 2;		/* worker_id; 0: of a process that is gone */
	unsigned attempts : 2;
	unsigned cursor : 2;
	bool bisect
};

/* how often each sub-batch's rows have been changed: this is the user's table */
typedef Rows {
	byte sub[SUBS]
};

/* what has committed */
unsigned status : 3 = ACTIVE;
unsigned phase : 2 = 1;
unsigned phases : 2 = PHASES;	/* how many there are to be */
unsigned ranges : 2 = RANGES - 1;
Job job[RANGES];
Rows done[RANGES];

/* locks: who has them, 0 nobody */
unsigned row : 2;				/* of the migration's row */
unsigned migration : 2;			/* bbm_lock_migration */
byte job_row[RANGES];
bool worker_id[3];				/* does the worker hold the lock of its worker id? */

/* is the worker's target of the row's present updated_at? */
bool current[3];
#if ASKS > 0
unsigned asks : 1 = ASKS;
byte known_phases[3];		/* as in that target */
#endif

#ifdef LIVENESS
/*
 * A worker that finds nothing to claim polls from time to time.  Here it does
 * so when something has changed: the same poll again would find the same, and
 * spin does not know that whoever waits for a lock gets it in turn.
 */
bool news[3];

inline notify_others()
{
	news[1] = news[1] || me != 1;
	news[2] = news[2] || me != 2
}
#define NEWS news[me]
#define POLL news[me] = false
#else
inline notify_others() { skip }
#define NEWS true
#define POLL skip
#endif

/* what may still go wrong */
unsigned crashes : 2 = CRASHES;
unsigned errors : 2 = ERRORS;
unsigned unlocks : 2 = UNLOCKS;
unsigned pauses : 2 = PAUSES;
unsigned throttles : 2 = THROTTLES;
unsigned releases : 2 = RELEASES;

/* for the trace that spin prints of a violation */
#define TRACE(function) printf("%d ", me); printf(#function); printf("\n")
#define SAY(words) printf("%d -- ", me); printf(#words); printf("\n")

#ifdef BREAK_FINISH
#define CAN_LOCK true
#else
#define CAN_LOCK (migration == 0)
#endif

#if REBOOTS > 0
/*
 * A commit that is not flushed is lost in a crash of the server together with
 * all that follow it.  This is the state that would survive now.
 */
unsigned boot : 1;
unsigned reboots : 1 = REBOOTS;
unsigned flushed_status : 3 = ACTIVE;
unsigned flushed_ranges : 2 = RANGES - 1;
unsigned flushed_phase : 2 = 1;
Job flushed_job[RANGES];
Rows flushed_done[RANGES];
bool seen_finished;

#define COPY(a, b) a.status = b.status; a.epoch = b.epoch; a.attempts = b.attempts; a.cursor = b.cursor; a.bisect = b.bisect
#define UP (boot == my_boot)
#define DOWN :: boot != my_boot -> my_boot = boot; goto rebooted

inline flush()
{
	flushed_status = status;
	flushed_ranges = ranges;
	flushed_phase = phase;
	k = 0;
	do
	:: k < RANGES ->
		COPY(flushed_job[k], job[k]);
		l = 0;
		do
		:: l < SUBS -> flushed_done[k].sub[l] = done[k].sub[l]; l++
		:: else -> l = 0; break
		od;
		k++
	:: else -> k = 0; break
	od
}

inline lose()
{
	status = flushed_status;
	ranges = flushed_ranges;
	phase = flushed_phase;
	k = 0;
	do
	:: k < RANGES ->
		COPY(job[k], flushed_job[k]);
		job[k].worker = 0;
		job_row[k] = 0;
		l = 0;
		do
		:: l < SUBS -> done[k].sub[l] = flushed_done[k].sub[l]; l++
		:: else -> l = 0; break
		od;
		k++
	:: else -> k = 0; break
	od;
	row = 0;
	migration = 0;
	worker_id[1] = false;
	worker_id[2] = false
}
#else
#define UP true
#define DOWN
inline flush() { skip }
#endif

/* A step of a worker, which may be killed instead of taking it: then its transaction is rolled back first. */
#define STEP(function, guard) \
	atomic { \
		if \
		DOWN \
		:: UP && crashes > 0 -> crashes--; SAY(killed); rollback(); forget_claim(); goto crashed \
		:: UP && (guard) -> TRACE(function)
#define END \
		fi \
	}

/* The end of a transaction: its locks are free. */
inline rollback()
{
	k = 0;
	do
	:: k < RANGES ->
		if
		:: job_row[k] == me -> job_row[k] = 0
		:: else
		fi;
		k++
	:: else -> k = 0; break
	od;
	if
	:: row == me -> row = 0
	:: else
	fi;
	if
	:: migration == me -> migration = 0
	:: else
	fi
}

/* ... that has written something, so that a worker with nothing to do polls again */
inline commit()
{
	notify_others();
	rollback()
}

inline forget_claim()
{
	r = 0; epoch = 0; cursor = 0; my_phase = 0; next = false; fresh = false; waited = false;
	orphans = 0; own = 0; others = 0; checked = false; i = 0; bad = 0; l = 0
}

/* Another updated_at: what was resolved before is out of date. */
inline row_changed()
{
	current[1] = false;
	current[2] = false
}

#define ALLOCATED(n) (job[n].status != NONE)

/* The first range that is not allocated; "ranges" if none. */
inline next_range(n)
{
	n = 0;
	do
	:: n < ranges && ALLOCATED(n) -> n++
	:: else -> break
	od
}

/* Is it the job of our claim, and not one of a later phase, or somebody else's by now? */
#ifdef BREAK_EPOCH
#define IS_OURS (my_phase == phase && job[r].status == RUNNING)
#else
#define IS_OURS (my_phase == phase && job[r].status == RUNNING && job[r].epoch == epoch)
#endif

/* The status of a range's job as our claim sees it, its own changes included; NONE if another transaction has its row. */
#define SEEN(n) (orphans & (1 << (n)) -> FAILED : (own & (1 << (n)) -> NEW : (job_row[n] == 0 -> job[n].status : NONE)))

inline reclaim(wanted)
{
	r = 0;
	do
	:: r < RANGES && SEEN(r) != wanted -> r++
	:: else -> break
	od
}

/* How many ranges have one of these statuses, as everybody sees them? */
inline count(a, b, number)
{
	number = 0;
	k = 0;
	do
	:: k < RANGES ->
		if
		:: job[k].status == a || job[k].status == b -> number++
		:: else
		fi;
		k++
	:: else -> k = 0; break
	od
}

inline claim_job(n)
{
	job[n].status = RUNNING;
	job[n].worker = me;
	job[n].epoch++;
	job[n].attempts++;
	r = n;
	epoch = job[n].epoch;
	cursor = job[n].cursor
}

/* The batch: these rows are changed. */
inline change_rows()
{
	done[r].sub[cursor]++;
	assert(done[r].sub[cursor] == 1)
}

proctype Worker(byte me)
{
	unsigned r : 2;				/* the range of the claimed job, */
	unsigned epoch : 4;			/* ... and what the claim has read of the job */
	unsigned cursor : 2;
	unsigned my_phase : 2;
	bool next;					/* the next range is claimed along */
	bool waited;				/* ... and begun after a pause */
	bool fresh;					/* the claim is for a new range */
	unsigned orphans : RANGES;	/* in our claim: jobs taken over, */
	unsigned own : RANGES;		/* ... and taken back */
	bool others;				/* live workers run jobs, or one that is left over is locked */
	bool checked;
	unsigned i : 2;
	unsigned bad : 2;			/* the error of the batch: 1 transient, 2 of the data; 3: none, it is not begun */
	unsigned k : 2;
	unsigned l : 2;
#if REBOOTS > 0
	unsigned my_boot : 1;
#endif

	worker_id[me] = true;

open:
	/* reads the row, and resolves it; waits until there is something to do */
	atomic {
		forget_claim();
		current[me] = false;
		if
		DOWN
		:: UP && status == FINISHED -> goto done_
		:: UP && (status == ACTIVE || status == RUNNING) ->
			TRACE(open_target);
			current[me] = true;
#if ASKS > 0
			known_phases[me] = phases;
#endif
			if
			:: status == ACTIVE -> goto start
			:: else -> goto claim
			fi
		fi
	};

start:
	STEP(bbm_migration_lock, row == 0) -> row = me END;
	STEP(set_running, migration == 0) ->
		if
		:: status == ACTIVE -> TRACE(bbm_record_started); status = RUNNING; row_changed()
		:: else
		fi;
		commit();
		goto open
	END;

	/*
	 * engine/claim.c.  With the migration's lock, nobody else changes its row,
	 * allocates a range, or claims a job.
	 */
claim:
	if
	:: STEP(may_have_ended, throttles > 0) -> throttles--; goto finish END
	:: true
	fi;
	STEP(bbm_claim, migration == 0) ->
		TRACE(bbm_lock_migration);
		migration = me;
		POLL;
		my_phase = phase;
		if
		:: status != RUNNING || !current[me] -> rollback(); goto open
		:: else
		fi;
		/* is the check for jobs that are left over due? */
		if
		:: checked = true; goto left_over
		:: TRACE(allocate_range); next_range(r);
			if
			:: r < ranges -> fresh = true; goto commit_claim
			:: else
			fi
		fi
	END;

left_over:
	/* the list, and then job by job; the lock of a job's row shows what its worker does meanwhile */
	do
	:: i < RANGES && job[i].status != RUNNING -> i++
	:: i < RANGES && job[i].status == RUNNING ->
		STEP(take_orphans, true) ->
			if
			:: job[i].status != RUNNING
			:: else ->
				if
				:: job[i].worker != me && job[i].worker != 0 && worker_id[job[i].worker] ->
					TRACE(bbm_worker_is_alive); others = true
				:: else ->
					if
					:: job_row[i] != 0 -> others = true
					:: job_row[i] == 0 && job[i].worker == me ->
						TRACE(bbm_job_take_back); job_row[i] = me; own = own | (1 << i)
					:: else ->
						TRACE(bbm_job_orphan); job_row[i] = me; orphans = orphans | (1 << i)
					fi
				fi
			fi;
			i++
		END
	:: i == RANGES -> break
	od;

	/* what the claim has read of others' jobs may be out of date; what it has locked is not */
commit_claim:
	STEP(bbm_claim, true) ->
		if
		:: fresh
		:: else ->
			i = 0;
			TRACE(bbm_job_reclaim);
			reclaim(NEW);
			if
			:: r == RANGES && checked ->
				TRACE(allocate_range); next_range(r);
				if
				:: r == ranges -> r = RANGES
				:: else -> fresh = true
				fi
			:: else
			fi;
			if
			:: r == RANGES -> TRACE(take_failed); reclaim(FAILED)
			:: else
			fi
		fi;
		/* a committed pause is seen by the next claim */
		assert(status == RUNNING);
		do
		:: k < RANGES ->
			if
			:: orphans & (1 << k) ->
				job[k].status = FAILED; job[k].epoch++; job[k].worker = 0;
				/* it has no attempts left, which ends the claim before anything else is claimed */
				if
				:: job[k].attempts >= MAX_ATTEMPTS -> bad = 3
				:: else
				fi
			:: own & (1 << k) ->
				job[k].status = NEW; job[k].epoch++; job[k].worker = 0; job[k].attempts--
			:: else
			fi;
			k++
		:: else -> k = 0; break
		od;
		if
		:: bad == 3 -> flush(); commit(); goto fail
		:: else
		fi;
		if
		:: r < RANGES ->
			assert(job[r].status != FINISHED && job[r].status != RUNNING);
			claim_job(r);
			if
			:: fresh
			:: else -> flush()
			fi;
			commit();
			fresh = false; orphans = 0; own = 0; others = false; checked = false; i = 0;
			goto work
		:: else
		fi;
		TRACE(bbm_jobs_unfinished);
		count(NEW, FAILED, l);
		if
		:: orphans == 0 && own == 0 -> rollback()
		:: else -> commit()
		fi;
		if
		:: l > 0 -> forget_claim(); goto claim
		:: l == 0 && others -> forget_claim(); goto idle
		:: else -> forget_claim(); goto finish
		fi
	END;

idle:
	atomic {
		if
		DOWN
		:: UP && NEWS -> goto claim
		fi
	};

	/*
	 * engine/batch.c.  Nothing of a batch is seen before its commit but the
	 * lock of the job's row, and what no rollback undoes.
	 */
work:
	/* holds nothing: somebody may want the process, its time slice be over, or a throttle be met */
	if
	:: cursor > 0 || waited ->
		if
		:: STEP(may_begin_batch, releases > 0) -> releases--; bad = 3; goto record END
		:: true
		fi
	:: else
	fi;
	STEP(bbm_job_lock, job_row[r] == 0) ->
		if
		:: !IS_OURS -> SAY(it was taken over); goto after
		:: else -> job_row[r] = me
		fi
	END;
	if
	:: cursor > 0 || waited ->
		STEP(still_running, migration == 0) ->
			waited = false;
			if
			:: status != RUNNING || !current[me] -> TRACE(bbm_record_release_unstarted); rollback(); bad = 3; goto record
			/* another migration waits for the table, whose time slice this one has had */
			:: status == RUNNING && current[me] && releases > 0 ->
				TRACE(bbm_slice_is_over); releases--; rollback(); bad = 3; goto record
			:: status == RUNNING && current[me]
			fi
		END
	:: else
	fi;
	if
	:: STEP(bbm_run_range, unlocks > 0 && my_phase == 1) -> SAY(pg_advisory_unlock_all); unlocks--; worker_id[me] = false; notify_others() END
	:: true
	fi;
#ifdef BREAK_RECORD
	STEP(run_sub_batch, true) -> change_rows(); rollback() END;
	STEP(bbm_job_lock, job_row[r] == 0) ->
		if
		:: !IS_OURS -> goto after
		:: else -> job_row[r] = me
		fi
	END;
#endif
	STEP(run_sub_batch, true) ->
		if
		:: errors > 0 -> SAY(a transient error); errors--; bad = 1; rollback(); goto record
		:: errors > 0 -> SAY(an error of the data); errors--; bad = 2; rollback(); goto record
		/* more is left of the range than this */
		:: cursor < SUBS - 1 && my_phase == 1 ->
			TRACE(bbm_job_progress);
#ifndef BREAK_RECORD
			change_rows();
#endif
			cursor++;
			job[r].cursor = cursor;
			commit()
		/* the last commit of the job may also be the claim of the next one */
		:: cursor == SUBS - 1 || my_phase > 1 -> goto finish_job
		:: (cursor == SUBS - 1 || my_phase > 1) && migration == 0 ->
			TRACE(bbm_lock_for_claim_at_once);
			migration = me;
			if
			:: status == RUNNING && current[me] -> TRACE(bbm_claim_next); next_range(i); next = (i < ranges)
			:: else
			fi;
			goto finish_job
		fi
	END;
	STEP(bbm_worker_id_keep, true) -> worker_id[me] = true; goto work END;

finish_job:
	STEP(bbm_job_finish, true) ->
		/* each row is changed or quarantined */
		if
		:: job[r].bisect -> TRACE(bbm_bisect)
		:: else
		fi;
		do
		:: cursor < SUBS && my_phase == 1 ->
#ifndef BREAK_RECORD
			change_rows();
#endif
			cursor++
		:: else -> break
		od;
		job[r].status = FINISHED;
		job[r].worker = 0;
		job[r].epoch = 0;
		job[r].attempts = 0;
		job[r].cursor = 0;
		job[r].bisect = false;
		if
		:: next -> assert(status == RUNNING); claim_job(i)
		:: else -> r = 0; epoch = 0; cursor = 0
		fi;
		i = 0;
		commit()
	END;
	STEP(bbm_worker_id_keep, true) ->
		worker_id[me] = true;
		if
		:: next -> next = false; goto work
		:: next && WAITS -> next = false; TRACE(bbm_pacing_pauses); waited = true; goto work
		:: else
		fi
	END;
after:
	atomic { forget_claim(); goto claim };

	/* engine/outcome.c */
record:
	STEP(bbm_worker_id_keep, true) -> worker_id[me] = true END;
	STEP(record_job, job_row[r] == 0) ->
		if
		/* the job is taken back with the next claim */
		:: errors > 0 -> SAY(it cannot be written); errors--; goto breaker
		:: !IS_OURS -> SAY(it was taken over); goto breaker
		:: IS_OURS && bad == 1 ->
			TRACE(bbm_job_requeue); job[r].status = NEW; job[r].worker = 0; job[r].attempts--; commit(); goto breaker
		:: IS_OURS && bad == 3 ->
			TRACE(bbm_job_release_unstarted); job[r].status = NEW; job[r].worker = 0; job[r].attempts--; commit(); goto after
		/* what is left of the range is quarantined, but for one that is only verified */
#ifdef BREAK_QUARANTINE
		:: IS_OURS && bad == 2 && job[r].attempts >= MAX_ATTEMPTS && !job[r].bisect ->
#else
		:: IS_OURS && bad == 2 && job[r].attempts >= MAX_ATTEMPTS && !job[r].bisect && my_phase == 1 ->
#endif
			TRACE(bbm_job_skip);
			do
			:: cursor < SUBS -> change_rows(); cursor++
			:: else -> break
			od;
			job[r].status = FINISHED;
			job[r].worker = 0;
			job[r].epoch = 0;
			job[r].attempts = 0;
			job[r].cursor = 0;
			commit();
			goto breaker
		:: IS_OURS && bad == 2 ->
			TRACE(bbm_job_fail);
			job[r].status = FAILED;
			job[r].worker = 0;
			commit();
			if
			:: job[r].attempts < MAX_ATTEMPTS
			:: job[r].attempts >= MAX_ATTEMPTS && !job[r].bisect && my_phase == 1 -> job[r].bisect = true
			:: else -> goto fail
			fi
		fi
	END;
	/* engine/breaker.c: too many have failed; it is asked after each error of a batch, whatever became of the job */
breaker:
	if
	:: STEP(bbm_breaker_trips, bad != 3 && pauses > 0 && row == 0) -> pauses--; TRACE(bbm_migration_lock_as_read); row = me END
	:: true -> goto after
	fi;
	STEP(pause_it, migration == 0) ->
		if
#ifndef BREAK_BREAKER
		:: status != RUNNING || !current[me]
#endif
		:: else ->
			/* neither a pause of a user's nor the end is overwritten */
			assert(status == RUNNING);
			TRACE(bbm_migration_pause);
			status = PAUSED;
			row_changed()
		fi;
		commit();
		goto open
	END;

	/* no attempts are left */
fail:
	STEP(bbm_migration_lock, row == 0) -> row = me END;
	STEP(fail_migration, migration == 0) ->
		if
		:: (status == ACTIVE || status == RUNNING) && current[me] ->
			TRACE(bbm_migration_fail);
			status = FAILED;
			row_changed();
			flush()
		:: else
		fi;
		commit();
		goto open
	END;

	/* engine/step.c and completion.c */
finish:
#ifndef BREAK_FINISH
	STEP(bbm_migration_lock, row == 0) -> row = me END;
#endif
	STEP(finish, CAN_LOCK) ->
#ifndef BREAK_FINISH
		migration = me;
#endif
		TRACE(bbm_migration_lock_as_read);
		if
#ifdef BREAK_STALE
		:: status != RUNNING -> rollback(); goto open
#else
		:: status != RUNNING || !current[me] -> rollback(); goto open
#endif
		:: else
		fi;
		TRACE(bbm_nothing_left);
		next_range(r);
		if
		:: r < ranges -> rollback(); goto after
		:: else -> r = 0
		fi
	END;
	/* two statements, and a worker may requeue its job between them */
#ifdef BREAK_ORDER
	STEP(bbm_jobs_unfinished, true) -> count(NEW, FAILED, i) END;
	STEP(bbm_jobs_running, true) -> count(RUNNING, RUNNING, l) END;
#else
	STEP(bbm_jobs_running, true) -> count(RUNNING, RUNNING, l) END;
	STEP(bbm_jobs_unfinished, true) -> count(NEW, FAILED, i) END;
#endif
	STEP(bbm_phase_ended, true) ->
		if
		:: l > 0 || i > 0 -> rollback(); goto after
		:: else
		fi;
		/* no pause, claim or change of max_value has come between, and nothing is open */
		assert(status == RUNNING);
		do
		:: k < ranges -> assert(job[k].status == FINISHED); k++
		:: else -> k = 0; break
		od;
		if
#ifdef BREAK_STALE
		:: phase < known_phases[me] ->
#else
		:: phase < phases ->
#endif
			TRACE(bbm_migration_set_phase);
			phase++;
			/* the jobs of the next phase are others */
			do
			:: k < RANGES -> job[k].status = NONE; k++
			:: else -> k = 0; break
			od
		:: else ->
			TRACE(bbm_migration_finish);
			/* what somebody has asked for by now has taken place */
			assert(phase == phases);
			do
			:: k < ranges ->
				do
				:: l < SUBS -> assert(done[k].sub[l] == 1); l++
				:: else -> l = 0; break
				od;
				k++
			:: else -> k = 0; break
			od;
			status = FINISHED;
#ifndef BREAK_FLUSH
			flush()
#endif
		fi;
		row_changed();
		commit();
		goto open
	END;

	/* The end of the process, after that of its transaction; the next process has another worker id. */
crashed:
	atomic {
		if
		DOWN
		:: UP ->
			do
			:: k < RANGES ->
				if
				:: job[k].worker == me -> job[k].worker = 0
				:: else
				fi;
				k++
			:: else -> k = 0; break
			od;
			worker_id[me] = true;
			commit();
			goto open
		fi
	};
#if REBOOTS > 0
rebooted:
	atomic { worker_id[me] = true; k = 0; goto open };
#endif

done_:
	skip
}

/* A session: each of its transactions may also be rolled back. */
proctype Session(byte me)
{
	unsigned k : 2;
	unsigned l : 2;
	bool extends = (RANGES > 1);	/* is still to raise max_value */
#if REBOOTS > 0
	unsigned my_boot : 1;
#endif
	unsigned what : 2;

	do
	:: atomic {
		if
		DOWN
		:: UP && status == FINISHED -> goto end_
		:: UP && pauses > 0 -> what = 0; pauses--
		/* somebody starts it again */
		:: UP && (status == PAUSED || status == FAILED) -> what = 1
		:: UP && extends && phase == 1 -> what = 2; extends = false
#if ASKS > 0
		:: UP && asks > 0 && phase == 1 -> what = 3; asks--
#endif
		fi
	   };
	   /* an UPDATE locks the row before its trigger runs */
	   atomic {
		if
		DOWN
		:: UP && row == 0 -> row = me; TRACE(bbm_migration_set_status)
		fi
	   };
	   atomic {
		if
		DOWN
		:: UP && migration == 0 -> migration = me; TRACE(bbm_migration_guard)
		fi
	   };
	   atomic {
		if
		DOWN
		:: UP && what == 0 ->
			SAY(rolled back); rollback()
		:: UP && what == 0 ->
			if
			:: status == ACTIVE || status == RUNNING || status == FAILED -> status = PAUSED; TRACE(bbm_transition)
			:: else
			fi;
			row_changed();
			commit()
		:: UP && what == 1 ->
			if
			:: status == FAILED || status == PAUSED ->
				/* bbm_jobs_refresh */
				k = 0;
				do
				:: k < RANGES ->
					if
					:: status == FAILED && job[k].status == FAILED ->
						job[k].status = NEW; job[k].attempts = 0; job[k].bisect = false
					:: else
					fi;
					k++
				:: else -> k = 0; break
				od;
				status = ACTIVE;
				TRACE(bbm_jobs_refresh)
			:: else
			fi;
			row_changed();
			commit()
		:: UP && what == 2 ->
			/* sql/guards.c: keep_end refuses it while a phase verifies */
			if
			:: status != FINISHED && phase == 1 -> TRACE(guard_definition); ranges = RANGES
			:: else
			fi;
			row_changed();
			commit()
#if ASKS > 0
		:: UP && what == 3 ->
			if
			:: status != FINISHED && phase == 1 -> TRACE(bbm_alter); phases = 2
			:: else
			fi;
			row_changed();
			commit()
#endif
		fi
	   }
	:: false
	od;
#if REBOOTS > 0
rebooted:
	skip;
#endif
end_:
	skip
}

#if REBOOTS > 0
/* The server's crash, and the WAL writer that flushes what was committed, in order. */
proctype Server()
{
	unsigned k : 2;
	unsigned l : 2;

	do
	:: atomic { status == FINISHED && !seen_finished -> seen_finished = true }
	:: atomic {
		reboots > 0 ->
			reboots--;
			printf("the server crashes\n");
			lose();
			boot = 1 - boot;
			/* whoever has seen it finished relies on that */
			assert(!seen_finished || status == FINISHED)
	   }
	:: atomic { reboots > 0 && !seen_finished -> flush() }
	:: seen_finished -> break
	od
}
#endif

init
{
	atomic {
		run Worker(1);
		run Worker(2);
		run Session(SESSION);
#if REBOOTS > 0
		run Server()
#endif
	}
}

/* under fairness everything ends */
#ifdef LIVENESS
ltl ends { <> (status == FINISHED) }
#endif
