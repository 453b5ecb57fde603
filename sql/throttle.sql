--
-- What makes a migration wait: its settings, checked when they are written, and what it says.
--

CREATE EXTENSION bbm;
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 100);
CREATE FUNCTION define(name text, settings text[]) RETURNS boolean LANGUAGE sql AS $$
    SELECT public.bbm_create(name, 'public.t', 'UPDATE public.t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 10,
                             settings => settings) > 0
$$;
CREATE FUNCTION complaint(settings text[]) RETURNS TABLE (state text, message text, detail text, hint boolean)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM define('bad', settings);
    RAISE EXCEPTION 'it was taken';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    RETURN QUERY SELECT state, message, detail, sqlerrm IS NOT NULL;
END $$;

-- every setting that a migration may have of its own
SELECT define('all', ARRAY['bbm.lock_timeout=2s', 'bbm.retry_delay=5ms', 'bbm.retry_max_delay=1h', 'bbm.log_min_duration=0',
    'bbm.max_replication_lag=16MB', 'bbm.max_replication_delay=1min', 'bbm.wait_for_standbys=off',
    'bbm.standby_names=a, "B c"', 'bbm.max_slot_wal=1GB', 'bbm.max_unarchived_wal=-1', 'bbm.wait_for_autovacuum=no',
    'bbm.max_horizon_age=1h', 'bbm.max_dead_tuples=1000', 'bbm.max_dead_tuple_ratio=0.5', 'bbm.max_wal_rate=1MB',
    'bbm.max_row_rate=1000', 'BBM.Max_Active_Sessions=10', 'bbm.active_hours=Mon-Fri 22:00-06:00 Europe/Berlin, Sat-Sun 0:00-24:00',
    'bbm.condition=SELECT true']);
SELECT unnest(settings) FROM batched_background_migrations WHERE name = 'all';
SELECT bbm_alter('all', settings => '{}');
SELECT settings FROM batched_background_migrations WHERE name = 'all';
UPDATE batched_background_migrations SET settings = NULL WHERE name = 'all';
SELECT bbm_drop('all');

-- what is none
SELECT e AS entry, c.* FROM (VALUES (1, 'bbm.max_replication_lag'), (2, '=1'), (3, 'bbm.max_workers=1'), (4, 'work_mem=1GB'),
    (5, 'bbm.max_replication_lag='), (6, 'bbm.max_replication_lag=many'), (7, 'bbm.max_replication_lag=-2'),
    (8, 'bbm.max_replication_lag=10s'), (9, 'bbm.lock_timeout=0'), (10, 'bbm.max_dead_tuple_ratio=1.1'),
    (11, 'bbm.max_dead_tuple_ratio=NaN'), (12, 'bbm.wait_for_standbys=perhaps'), (13, 'bbm.standby_names=a,,b'),
    (14, 'bbm.max_row_rate=-1'), (15, 'bbm.active_hours=22-6'), (16, 'bbm.active_hours=22:00-25:00'),
    (17, 'bbm.active_hours=22:60-23:00'), (18, 'bbm.active_hours=07:00-07:00'), (19, 'bbm.active_hours=22:00-06:00 Europe/Nowhere'),
    (20, 'bbm.active_hours=Mo 22:00-06:00'), (21, 'bbm.active_hours=22:00-06:00,'), (22, 'bbm.active_hours=22:00-06:00Europe/Berlin'),
    (23, 'bbm.condition=SELECT 1; SELECT 2'), (24, 'bbm.condition=SELECT 1 INTO x'), (25, 'bbm.condition=true)'),
    (26, 'bbm.condition='), (27, NULL)) AS v (i, e), complaint(ARRAY[e]) c ORDER BY i;
SELECT * FROM complaint(ARRAY['bbm.max_row_rate=1', 'bbm.max_row_rate=2']);
SELECT * FROM complaint(ARRAY[['bbm.max_row_rate=1', 'bbm.max_row_rate=2']]);
-- a plain statement is checked in the same way
SELECT define('plain', NULL);
UPDATE batched_background_migrations SET settings = '{bbm.max_row_rate=x}' WHERE name = 'plain';
\set VERBOSITY terse
SELECT bbm_alter('plain', settings => '{bbm.condition=(}');
\set VERBOSITY default
INSERT INTO batched_background_migrations (name, table_name, column_name, job_signature_name, min_value, max_value, batch_size, settings)
VALUES ('inserted', 'public.t', 'id', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', 1, 10, 10, '{oops}');
SELECT bbm_drop('plain');

-- and so are the server's settings
\set VERBOSITY sqlstate
ALTER SYSTEM SET bbm.active_hours = '22-6';
ALTER SYSTEM SET bbm.active_hours = '22:00-06:00 Atlantis';
ALTER SYSTEM SET bbm.standby_names = 'a,,b';
ALTER SYSTEM SET bbm.max_dead_tuple_ratio = 2;
ALTER SYSTEM SET bbm.max_replication_lag = '1h';
SELECT count(*) FROM pg_settings WHERE name = 'bbm.condition';
SET bbm.active_hours = '';
\set VERBOSITY default
ALTER SYSTEM SET bbm.active_hours = '22:00-06:00 Europe/Berlin', 'Sat 00:00-24:00';
SELECT pg_reload_conf();
\c -
SHOW bbm.active_hours;
ALTER SYSTEM RESET bbm.active_hours;
SELECT pg_reload_conf();
\c -

-- a condition: an expression, or a SELECT; in the foreground what it waits for is a notice
CREATE TABLE lights (green boolean);
INSERT INTO lights VALUES (false);
-- true
SELECT define('true', '{bbm.condition=1 < 2 -- always}'), define('select', '{"bbm.condition=WITH c AS (SELECT true) SELECT * FROM c"}');
CALL bbm_run('true');
CALL bbm_run('select');
-- one whose statement on another server was cancelled cannot be read just then: that is no cancel of this one
CREATE FUNCTION asks_elsewhere() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND pid = pg_backend_pid()) THEN
        PERFORM pg_advisory_lock(4711);
        RAISE query_canceled USING MESSAGE = 'canceling statement due to statement timeout';
    END IF;
    RETURN true;
END $$;
SELECT define('elsewhere', '{bbm.condition=asks_elsewhere()}');
SET client_min_messages = warning;
CALL bbm_run('elsewhere');
RESET client_min_messages;
SELECT pg_advisory_unlock(4711), status FROM bbm_status('elsewhere');
-- a condition that is not met throttles until the statement is cancelled
SELECT define('red', '{bbm.condition=(SELECT green FROM lights)}'), define('null', '{bbm.condition=NULL::boolean}'),
       define('none', '{bbm.condition=SELECT true WHERE false}'), define('wrong', NULL),
       define('many', '{"bbm.condition=SELECT true FROM generate_series(1, 2)"}'), define('no table', NULL),
       define('writes', '{"bbm.condition=WITH w AS (INSERT INTO lights VALUES (true) RETURNING true) SELECT * FROM w"}');
-- bbm_create and bbm_alter check what these are; an UPDATE checks the syntax alone
UPDATE batched_background_migrations SET settings = '{bbm.condition=SELECT 1}' WHERE name = 'wrong';
UPDATE batched_background_migrations SET settings = '{bbm.condition=SELECT true FROM nowhere}' WHERE name = 'no table';
CREATE FUNCTION writes() RETURNS boolean LANGUAGE sql AS 'INSERT INTO public.lights VALUES (true); SELECT true';
SELECT define('writes inside', '{bbm.condition=writes()}');
\set SHOW_CONTEXT never
SET statement_timeout = '2500ms';
-- reports are off
SET bbm.progress_interval = 0;
CALL bbm_run('red');
SET bbm.progress_interval = '1 h';
SET statement_timeout = '4500ms';
CALL bbm_run('red');
RESET bbm.progress_interval;
RESET statement_timeout;
\set SHOW_CONTEXT errors
-- it throttles workers, too, which say the same, of each
CREATE FUNCTION waits_for(name text, pattern text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    what text;
BEGIN
    FOR i IN 1 .. 2400 LOOP
        SELECT s.waiting_on INTO what FROM public.bbm_status_detail(waits_for.name) s;
        EXIT WHEN what LIKE pattern;
        PERFORM pg_sleep(0.05);
    END LOOP;
    RETURN what;
END $$;
SELECT bbm_start();
SELECT name, waits_for(name, 'condition%') FROM batched_background_migrations WHERE status <> 2 ORDER BY id;
SELECT count(*) FROM lights;
-- that is no failure and no attempt, and no batch was started
SELECT name, status, jobs_finished, jobs_failed, last_error FROM bbm_status_detail() WHERE status <> 'finished';
SELECT bbm_pause();
-- a worker says the same
SELECT define('by a worker', '{bbm.condition=(SELECT green FROM lights)}');
SELECT bbm_start('by a worker');
SELECT waits_for('by a worker', 'condition%');
SELECT signal, setting, value, throttles, reason FROM bbm_throttle('by a worker') ORDER BY signal;
SELECT bbm_alter('by a worker', settings => '{bbm.condition=pg_sleep(60) IS NULL}');
SELECT waits_for('by a worker', '%cannot%');
UPDATE batched_background_migrations SET settings = '{bbm.condition=SELECT green FROM light}' WHERE name = 'by a worker';
SELECT waits_for('by a worker', '%not exist');
SELECT bbm_alter('by a worker', settings => '{bbm.condition=SELECT green FROM lights}');
UPDATE lights SET green = true;
SELECT bbm_wait('by a worker', '1 minute');
-- an alteration is seen at once
UPDATE lights SET green = false;
SELECT define('altered', '{bbm.condition=SELECT green FROM lights}');
SELECT bbm_start('altered');
SELECT waits_for('altered', 'condition%');
SELECT bbm_alter('altered', settings => '{}');
SELECT bbm_wait('altered', '1 minute');
SELECT min(n), max(n) FROM t;

-- hours: none of today's, then all
SELECT define('never', ARRAY['bbm.active_hours=' || to_char(clock_timestamp() AT TIME ZONE 'UTC' + interval '2 days', 'Dy') || ' 10:00-10:01 UTC']);
SELECT bbm_start('never');
SELECT waits_for('never', 'active hours%') LIKE 'active hours: not before % (% 10:00-10:01 UTC)' AS waits;
SELECT bbm_alter('never', settings => '{bbm.active_hours=00:00-12:00 UTC\, 12:00-00:00 UTC}');
SELECT bbm_wait('never', '1 minute');

-- of two reasons the one that lasts longer is shown: an hour to a retry is more than a throttle until the next poll, and less than a day
UPDATE lights SET green = false;
CREATE FUNCTION unlucky(lo int, hi int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'no luck'; END $$;
SELECT bbm_create('two reasons', 'public.t', 'unlucky', batch_size => 100,
                  settings => '{bbm.retry_delay=1h,bbm.retry_max_delay=1h}') > 0 AS defined;
SELECT bbm_start('two reasons');
SELECT waits_for('two reasons', 'retry%');
SELECT bbm_alter('two reasons', settings => '{bbm.retry_delay=1h,bbm.retry_max_delay=1h,bbm.condition=SELECT green FROM lights}');
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/wait_for.inc'
\i :helper
SELECT wait_for($$EXISTS (SELECT FROM bbm_workers() WHERE migration = 'two reasons' AND waiting_on = 'condition: not met')$$);
SELECT waiting_on FROM bbm_status_detail('two reasons');
SELECT bbm_alter('two reasons', settings => ARRAY['bbm.retry_delay=1h', 'bbm.retry_max_delay=1h',
    'bbm.active_hours=' || to_char(clock_timestamp() AT TIME ZONE 'UTC' + interval '2 days', 'Dy') || ' 10:00-10:01 UTC']);
SELECT waits_for('two reasons', 'active hours%') LIKE 'active hours: not before %' AS waits;
-- a retry that is due now is none to wait for
SELECT bbm_alter('two reasons', settings => '{bbm.retry_delay=1h,bbm.retry_max_delay=1h,bbm.condition=SELECT green FROM lights}');
SELECT bbm_retry('two reasons');
SELECT waits_for('two reasons', 'condition%');
SELECT bbm_drop('two reasons');

-- each signal with its value, its limit, and the value's share of that; a signal throttles when that is more than 1
CREATE TABLE half (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) WITH (autovacuum_enabled = false);
INSERT INTO half SELECT generate_series(1, 100);
UPDATE half SET n = 1 WHERE id <= 50;
SELECT bbm_create('measured', 'half', 'UPDATE half SET n = 2 WHERE id BETWEEN $1 AND $2', batch_size => 100, settings => ARRAY['bbm.max_dead_tuples=200',
    'bbm.max_dead_tuple_ratio=0.5', 'bbm.wait_for_autovacuum=on', 'bbm.max_unarchived_wal=5', 'bbm.max_replication_lag=1MB', 'bbm.max_slot_wal=1GB',
    'bbm.max_active_sessions=1000', 'bbm.active_hours=00:00-12:00 UTC, 12:00-00:00 UTC', 'bbm.max_row_rate=1', 'bbm.max_horizon_age=1d']) > 0 AS created;
SELECT pg_stat_force_next_flush();
SELECT signal, CASE WHEN limit_value LIKE '% s' OR signal LIKE '%session%' THEN regexp_replace(value, '^[0-9.]+', 'n') ELSE value END AS value,
       limit_value, CASE WHEN limit_value LIKE '% s' OR signal LIKE '%session%' THEN share < 1 ELSE share = round(share::numeric, 3) END AS share, throttles, setting
FROM bbm_throttle('measured');
SELECT share FROM bbm_throttle('measured') WHERE signal = 'dead tuples';
-- the one limit is exceeded, and the other is not
SELECT bbm_create('one of two', 'half', 'UPDATE half SET n = 2 WHERE id BETWEEN $1 AND $2',
                  settings => '{bbm.max_dead_tuples=40,bbm.max_dead_tuple_ratio=0.5}') > 0 AS created;
SELECT signal, value, limit_value, share, throttles, reason FROM bbm_throttle('one of two') WHERE signal = 'dead tuples';
-- what is below zero is off, also where -1 is not all that is
SELECT bbm_create('below zero', 'half', 'UPDATE half SET n = 2 WHERE id BETWEEN $1 AND $2', settings => '{bbm.max_dead_tuple_ratio=-0.5}') > 0 AS created;
SELECT count(*) FROM bbm_throttle('below zero') WHERE setting = 'bbm.max_dead_tuple_ratio';
-- a hundred rows at one a second
CALL bbm_run('measured');
SELECT signal, value ~ '^[0-9]+ rows a second$' AS value, limit_value, share > 1 AS exceeded, throttles, reason FROM bbm_throttle('measured') WHERE signal = 'row rate';

-- nobody else's is shown, and of none there is nothing
CREATE ROLE bbm_throttle_nobody;
SET ROLE bbm_throttle_nobody;
SELECT * FROM bbm_throttle('red');
RESET ROLE;
DROP ROLE bbm_throttle_nobody;
SELECT * FROM bbm_throttle('of nobody');

-- a table whose OID no worker has looked up yet, and one that is dropped
CREATE TABLE goes (id int PRIMARY KEY, n int);
INSERT INTO goes VALUES (1), (2);
-- (one that is written with a statement: bbm_update knows its table)
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, settings)
VALUES ('early', 1000, 1000, 'UPDATE goes SET n = 1 WHERE id BETWEEN $1 AND $2', 'goes', 'id', '{bbm.max_dead_tuples=1000000}');
SELECT signal, throttles, reason FROM bbm_throttle('early') WHERE setting = 'bbm.max_dead_tuples';
SELECT bbm_start('early');
SELECT bbm_wait('early', '1 minute');
SELECT signal, throttles, reason FROM bbm_throttle('early') WHERE setting = 'bbm.max_dead_tuples';
DROP TABLE goes;
SELECT signal, throttles, reason FROM bbm_throttle('early') WHERE setting = 'bbm.max_dead_tuples';

-- a wait between two sub-batches of more than a second: the job is released, which is no requeue
SELECT bbm_create('released', 't', 'UPDATE public.t SET n = n + 1 WHERE id BETWEEN $1 AND $2', max_value => 10, batch_size => 10, sub_batch_size => 5,
                  settings => '{bbm.max_row_rate=1}') > 0 AS created;
SET client_min_messages = warning;
CALL bbm_run('released');
RESET client_min_messages;
SELECT rows_done, requeued, requeue_reasons, last_error FROM bbm_status_detail('released');
SELECT j.attempts, j.claim_epoch FROM batched_background_migration_jobs j JOIN batched_background_migrations m
ON m.id = j.batched_background_migration_id WHERE m.name = 'released';

-- many wait, and it is known of each for what and since when, so that each is polled less and less often
SELECT count(bbm_create('many ' || i, 't', 'UPDATE public.t SET n = n + 1 WHERE id BETWEEN $1 AND $2', max_value => 10, start => true,
                        settings => '{bbm.condition=false}')) AS created
FROM generate_series(1, 300) i;
SELECT wait_for($$(SELECT count(*) = 300 FROM bbm_status() WHERE name LIKE 'many %' AND waiting_on = 'condition: not met')$$);
SELECT bbm_pause() >= 300 AS paused;

DROP EXTENSION bbm CASCADE;
DROP TABLE t, lights, half;
DROP FUNCTION define, complaint, waits_for, writes, unlucky, wait_for, asks_elsewhere;
