--
-- The pace: the pure controller, pulse by pulse, and on a simulated machine.
-- Nothing sleeps here, and no clock is read.
--

LOAD 'bbm';
\getenv module BBM_TEST_MODULE
CREATE FUNCTION pulses(elapsed_us float8[], wait_us float8[], turns float8[], units float8[], found float8[], min_pace float8, max_pace float8, what text)
RETURNS float8[] STRICT LANGUAGE c AS :'module', 'bbm_test_pace_pulses';
CREATE FUNCTION machine(cpus int, workers int, clients int, service_us float8, think_us float8[], pulse_us float8, min_pace float8, max_pace float8, reported boolean)
RETURNS float8[] STRICT LANGUAGE c AS :'module', 'bbm_test_pace';

-- n pulses alike
CREATE FUNCTION same(n int, elapsed_us float8, wait_us float8, turns int, found numeric, min_pace float8, max_pace float8, what text) RETURNS float8[] LANGUAGE sql
AS $$ SELECT pulses(array_fill(elapsed_us, ARRAY[n]), array_fill(wait_us, ARRAY[n]), array_fill(turns::float8, ARRAY[n]), array_fill(1000::float8, ARRAY[n]),
    array_fill(found::float8, ARRAY[n]), min_pace, max_pace, what) $$;

-- it begins with a tenth of the time, and within the limits, of which the upper one applies
SELECT same(1, 1000, 0, 1, 0, 0.02, 1, 's') AS tenth, same(1, 1000, 0, 1, 0, 0.7, 1, 's') AS least, same(1, 1000, 0, 1, 0, 0.02, 0.05, 's') AS most,
    same(1, 1000, 0, 1, 0, 0.7, 0.2, 's') AS contradiction;
-- after 64 pulses, or after a fifth of a second, pauses included, it grows, each time by more; a wait of a millisecond is not late
SELECT (same(64, 1000, 1000, 1, 0, 0.5, 1, 's'))[63:64]::numeric(4, 3)[] AS after_64, (same(4, 150000, 0, 1, 0, 0.1, 1, 's'))[1:4]::numeric(4, 3)[] AS after_a_while;
-- two late pulses shrink it, one does not; one in 64 lets it grow
SELECT pulses('{1000,3000,1000,3000,1000}', '{0,2000,0,2000,0}', '{1,1,1,1,1}', '{1,1,1,1,1}', '{0,0,0,0,0}', 0.01, 1, 's') AS two;
SELECT shares[63]::numeric(4, 3) AS before, shares[64]::numeric(4, 3) AS one_in_64
FROM (SELECT pulses(array_fill(1000::float8, ARRAY[64]), ARRAY[1001::float8] || array_fill(0::float8, ARRAY[63]), array_fill(1::float8, ARRAY[64]),
    array_fill(1::float8, ARRAY[64]), array_fill(0::float8, ARRAY[64]), 0.5, 1, 's')) v (shares);
-- others wait for something else: 4 locks, 5 WAL; a CPU is 2, and where the system does not report waits, 3; free is 0, the begin 1, the limit 6
SELECT f AS found, (same(2, 1000, 0, 1, f, 0.01, 1, 's'))[2] AS share, (same(2, 1000, 0, 1, f, 0.01, 1, 'w'))[2] AS why FROM generate_series(0, 2) f;
SELECT (same(2, 9000, 8000, 1, 0, 0.1, 1, 'w'))[2] AS cpu, (same(1, 1000, 0, 1, 0, 0.1, 1, 'w'))[1] AS begins,
    (same(2000, 1000, 0, 1, 0, 0.1, 1, 'w'))[2000] AS free, (same(2000, 1000, 0, 1, 0, 0.1, 0.6, 'w'))[2000] AS at_limit;
-- locks and WAL come before a CPU, for which it may wait beside others anyway; also where it works as little as it may
SELECT f AS found, (same(2, 9000, 8000, 1, f, 0.01, 1, 'w'))[2] AS why, (same(2, 9000, 8000, 1, f, 0.1, 1, 'w'))[2] AS at_least FROM generate_series(1, 2) f;
SELECT (same(50, 1000, 0, 1, -1990, 0.1, 1, 'w'))[50] AS cpus, (same(50, 1000, 0, 1, -11990, 0.1, 1, 'w'))[50] AS locks, (same(50, 1000, 0, 1, -11990, 0.1, 1, 's'))[50] AS share;
-- a long pulse has waited often: the mean wait counts, and the share shrinks as after as many pulses
SELECT (same(1, 100000, 50000, 60, 0, 0.01, 1, 's'))[1] AS short_waits, round((same(1, 200000, 100000, 10, 0, 0.01, 1, 's'))[1]::numeric, 3) AS ten,
    round((same(1, 200000, 100000, 99, 0, 0.01, 1, 's'))[1]::numeric, 3) AS many;
-- where nobody else has needed a CPU for 10 ms, a wait for one says nothing; after 0.3 s it works all of the time; locks and WAL count in any case
SELECT (same(9, 9000, 8000, 1, 9000, 0.01, 1, 's'))[9] < 0.09 AS others, (same(9, 9000, 8000, 1, 20000, 0.01, 1, 's'))[9] AS just_none, same(2, 9000, 8000, 1, 300000, 0.1, 1, 's') AS none,
    same(2, 9000, 8000, 1, 300000, 0.1, 0.7, 's') AS at_most, (same(9, 9000, -1, 1, 300000, 0.1, 1, 's'))[9] AS not_reported, (same(1, 9000, 8000, 1, 300000, 0.1, 1, 'w'))[1] AS why;
SELECT pulses('{1000,1000,1000}', '{0,0,0}', '{1,1,1}', '{1,1,1}', '{300000,1,1}', 0.1, 1, 's') AS locks;
-- what the CPUs have room for beside others is the limit, and CPUs are the reason then (2): of two CPUs the others use so many; with nobody else, none
SELECT others, round((same(5000, 1000, 0, 1, -others * 1000, 0.01, 1, 's'))[5000]::numeric, 2) AS share, (same(5000, 1000, 0, 1, -others * 1000, 0.01, 1, 'w'))[5000] AS why
FROM (VALUES (0.05), (0.2), (0.5), (1), (1.5), (1.8), (2)) v (others);
-- ... which the workers share
SELECT workers, round((same(5000, 1000, 0, 1, -100000 * (workers - 1) - 1500, 0.01, 1, 's'))[5000]::numeric, 3) AS share FROM generate_series(1, 4) workers;
SELECT (pulses('{1000,1000}', '{0,0}', '{1,1}', '{1,1}', '{300000,-1500}', 0.01, 1, 's'))[2]::numeric(3, 2) AS shrinks_at_once;
-- ... as soon as they use more, or again so many
SELECT pulses('{1000,1000,1000,1000}', '{0,0,0,0}', '{1,1,1,1}', '{1,1,1,1}', '{300000,-1500,-1800,-1500}', 0.01, 1, 's')::numeric(3, 2)[] AS follows;

-- the pause: as long as it worked for half of the time; nine times as long for a tenth; what it waited counts towards it; what is too short is owed
SELECT (same(1, 2000, 0, 1, 0, 0.5, 0.5, 'p'))[1] AS half, (same(1, 2000, 0, 1, 0, 0.1, 0.1, 'p'))[1] AS tenth,
    (same(1, 5000, 3000, 1, 0, 0.1, 0.1, 'p'))[1] AS waited, same(4, 400, 0, 1, 0, 0.5, 0.5, 'p') AS owed, same(3, 1000, 0, 1, 0, 1, 1, 'p') AS none;
-- a pulse that fails is paid for like any other, but tells nothing about others
SELECT pulses('{2000,2000,0,-5,1e12}', '{0,0,0,0,0}', '{1,1,1,1,1}', '{-1,-1,-1,-1,-1}', '{0,0,0,0,0}', 0.1, 0.1, 'p') AS fails, (pulses('{2000}', '{0}', '{1}', '{-1}', '{0}', 0.1, 1, 'w'))[1] AS begins,
    (pulses(array_fill(9000::float8, ARRAY[99]), array_fill(8000::float8, ARRAY[99]), array_fill(1::float8, ARRAY[99]), array_fill(-1::float8, ARRAY[99]), array_fill(1::float8, ARRAY[99]), 0.01, 1, 's'))[99] AS share;
-- no pause is endless, and what is no time is none
SELECT (same(1, 1e12, 0, 1, 0, 0.001, 0.1, 'p'))[1] AS endless, (same(1, -5, 0, 1, 0, 0.1, 0.1, 'p'))[1] AS backwards,
    (same(1, 1000, 9e18, 1, 0, 0.1, 0.1, 'p'))[1] AS waits_longer_than_it_lasts, (same(1, 0, -1, 0, 0, 0.1, 0.1, 'p'))[1] AS nothing;
-- where the system does not report waits: what took longer than the best so far, by more than half of it and a millisecond
SELECT pulses('{1000,2400,2600,2600}', '{-1,-1,-1,-1}', '{0,0,0,0}', '{10,10,10,10}', '{0,0,0,0}', 0.01, 1, 's') AS slower,
    pulses('{1000,2000,9000}', '{-1,-1,-1}', '{0,0,0}', '{10,20,90}', '{0,0,0}', 0.01, 1, 's') AS larger,
    pulses('{1000,9000,9000}', '{-1,-1,-1}', '{0,0,0}', '{10,0,0}', '{0,0,0}', 0.01, 1, 's') AS unknown,
    (pulses('{1000,9000,9000}', '{-1,-1,-1}', '{0,0,0}', '{10,10,10}', '{0,0,0}', 0.1, 1, 'w'))[3] AS why;

-- A machine with two CPUs and 32 clients, which are idle (-1), at half load, or without a pause (0), for so many seconds each.
CREATE FUNCTION load(VARIADIC loads text[]) RETURNS float8[] LANGUAGE sql
AS $$ SELECT array_agg(CASE kind WHEN 'idle' THEN -1 WHEN 'half' THEN 9600 ELSE 0 END ORDER BY n, s)
    FROM (SELECT n, split_part(l, ' ', 1) AS kind, split_part(l, ' ', 2)::int AS seconds FROM unnest(loads) WITH ORDINALITY u (l, n)) v, generate_series(1, seconds) s $$;
-- Of some seconds: the mean share; and by how much of it a mean over five seconds differs, at most.
CREATE FUNCTION mean(shares float8[], since int, until int) RETURNS float8 LANGUAGE sql AS $$ SELECT avg(s) FROM unnest(shares[since:until]) s $$;
CREATE FUNCTION swing(shares float8[], since int, until int) RETURNS float8 LANGUAGE sql
AS $$ SELECT max(abs(mean(shares, i, i + 4) / mean(shares, since, until) - 1)) FROM generate_series(since, until - 4) i $$;
-- what it is like after five seconds of each load, with one worker and with three, with and without the system's report of its waits
CREATE TABLE ran AS SELECT workers, reported, machine(2, workers, 32, 300, load('half 30', 'full 30', 'half 30', 'idle 15', 'full 15', 'idle 15'), 1000, 0.1, 1, reported) AS shares
FROM (VALUES (1), (3)) w (workers), (VALUES (true), (false)) t (reported);
SELECT workers, reported, mean(shares, 6, 30) > 0.1 AS half, swing(shares, 6, 30) < 0.2 AS settles,
    mean(shares, 36, 60) BETWEEN 0.095 AND 0.12 AS full, swing(shares, 36, 60) < 0.2 AS settles,
    mean(shares, 66, 90) > 0.1 AS half, swing(shares, 66, 90) < 0.2 AS settles,
    mean(shares, 96, 105) > 0.55 AS idle, swing(shares, 96, 105) < 0.2 AS settles,
    mean(shares, 111, 120) BETWEEN 0.095 AND 0.12 AS full, mean(shares, 126, 135) > 0.55 AS idle,
    (SELECT min(s) FROM unnest(shares) s) >= 0.095 AS floor
FROM ran ORDER BY workers, reported;
-- one worker has an idle machine, all of the time
SELECT reported, mean(shares, 96, 105) > 0.97 AS idle FROM ran WHERE workers = 1 ORDER BY reported;
-- limits are kept: whatever the load for the lower one, and on an idle machine for the upper one
SELECT min, round(mean(machine(2, 1, 32, 300, load('full 20'), 1000, min, 1, true), 6, 20)::numeric, 2) AS full
FROM (VALUES (0.02), (0.05), (0.15)) v (min);
SELECT max, round(mean(machine(2, 1, 0, 300, load('idle 20'), 1000, 0.1, max, true), 6, 20)::numeric, 2) AS idle
FROM (VALUES (0.05), (0.25), (0.5), (1)) v (max);
-- short pulses and longer ones
SELECT pulse_us, round(mean(shares, 6, 20)::numeric, 2) AS full, mean(shares, 26, 40) > 0.97 AS idle
FROM (VALUES (500), (1000), (3000), (10000)) p (pulse_us), LATERAL (SELECT machine(2, 1, 32, 300, load('full 20', 'idle 20'), pulse_us, 0.1, 1, true)) m (shares);
-- bbm.max_impact, on a machine with two CPUs and 32 clients, at half load and nearer to its limit, for twenty minutes after ten; -1 is off, and 7 is the reason.
-- What cannot be distinguished from none is not kept to: that is less than 0.05 here.
CREATE FUNCTION kept(cpus int, clients int, service_us float8, think_us float8, pulse_us float8, min_pace float8, max_impact float8, seconds int, settles int)
RETURNS float8[] STRICT LANGUAGE c AS :'module', 'bbm_test_pace_impact';
CREATE TABLE kept_to AS SELECT think_us, max_impact, r[1] AS share, r[2] AS impact, r[4] AS why
FROM (VALUES (9600, -1), (9600, 0.1), (9600, 0.2), (6500, 0.05)) t (think_us, max_impact), LATERAL kept(2, 32, 300, think_us, 1000, 0.01, max_impact, 1800, 600) k (r);
SELECT think_us, max_impact, CASE WHEN max_impact < 0 THEN impact > 0.25 ELSE impact BETWEEN 0.2 * max_impact AND 1.2 * max_impact END AS impact,
    share > 0.02 AS works, CASE WHEN max_impact <= 0.1 AND think_us = 9600 THEN why END AS why FROM kept_to ORDER BY think_us DESC, max_impact;
DROP TABLE ran, kept_to;
DROP FUNCTION mean, swing, load, same, machine, pulses, kept;

--
-- What the system says of CPUs and processes.  What is not reported is not there, or is all zeros: in some containers, and in kernels that do not count it.
--
CREATE FUNCTION cpu_stat(line text) RETURNS float8[] STRICT LANGUAGE c AS :'module', 'bbm_test_cpu_stat';
CREATE FUNCTION cpu_times(line text) RETURNS float8[] STRICT LANGUAGE c AS :'module', 'bbm_test_cpu_times';
CREATE FUNCTION cpu_use(ms int) RETURNS float8[] STRICT LANGUAGE c AS :'module', 'bbm_test_cpu_use';
CREATE FUNCTION cpu_ours(ms int) RETURNS int[] LANGUAGE c AS :'module', 'bbm_test_cpu_ours';
SELECT cpu_stat('cpu  100 20 3 4000 500 6 7 8 9 10') AS all, cpu_stat('cpu  0 0 0 40 0') AS idle, cpu_stat('cpu  0 0 0 0 0 0 0 0 0 0') AS zeros, cpu_stat('cpu  1 2 3') AS short, cpu_stat('') AS nothing;
SELECT cpu_times('1000 200 3') AS all, cpu_times('0 0 1') AS began, cpu_times('0 0 0') AS zeros, cpu_times('1000') AS short, cpu_times('') AS nothing;
-- one process that has been there for a while, one that has come since, and sessions that have run for hours before: what they ran then is not counted; one that has gone may have run all the time
CREATE FUNCTION cpu_ran(pids float8[], ran_us float8[], pids_later float8[], ran_us_later float8[], passed_us float8) RETURNS float8[] STRICT LANGUAGE c AS :'module', 'bbm_test_cpu_ran';
SELECT cpu_ran('{7}', '{5e6}', '{7}', '{5.6e6}', 1e6) AS there, cpu_ran('{7,8}', '{5e6,1e6}', '{7,9}', '{5.6e6,2e5}', 1e6) AS new, cpu_ran('{}', '{}', '{7}', '{3.6e9}', 1e6) AS session,
    cpu_ran('{8}', '{1e6}', '{7,9}', '{3.6e9,3.6e9}', 1e6) AS sessions, cpu_ran('{7}', '{5e6}', '{7}', '{5.001e6}', 1e6) AS waits, cpu_ran('{7}', '{5e6}', '{7}', '{4e6}', 1e6) AS again, cpu_ran('{7,8,9}', '{5e6,6e6,7e6}', '{8}', '{6.5e6}', 1e6) AS ended;
-- a session that has no slot is one of bbm's own processes, too
SELECT pg_backend_pid() = ANY (cpu_ours(0)) AS mine;
SELECT count(*) FROM cpu_use(0);
DO $$
DECLARE
    until timestamptz := clock_timestamp() + '50 ms';
BEGIN
    WHILE clock_timestamp() < until LOOP
    END LOOP;
END $$;
SELECT u[1] = 0 OR u[3] >= 1 AS has_run FROM cpu_use(300) u;
-- clocks that stand still, go back, or go on by far
SELECT cpu_use(300) = cpu_use(301) AS known, (cpu_use(200))[1] AS back, (cpu_use(10000))[1] AS far;
DROP FUNCTION cpu_stat, cpu_times, cpu_use, cpu_ours, cpu_ran;
