--
-- Starting, pausing, changing and waiting, with good names and bad.
--

CREATE EXTENSION bbm;
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 10);
CREATE TABLE u (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO u SELECT generate_series(1, 10);
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/fails.inc'
\i :helper
\set helper :abs_srcdir '/sql/wait_for.inc'
\i :helper
CREATE FUNCTION status() RETURNS TABLE (name text, status text) LANGUAGE sql AS
    'SELECT name, status FROM bbm_status()';

-- a name that is not there
\pset expanded on
SELECT * FROM fails($$SELECT bbm_start('nobody')$$);
SELECT * FROM fails($$SELECT bbm_resume('nobody')$$);
SELECT * FROM fails($$SELECT bbm_pause('nobody')$$);
SELECT * FROM fails($$SELECT bbm_cancel('nobody')$$);
SELECT * FROM fails($$SELECT bbm_retry('nobody')$$);
SELECT * FROM fails($$SELECT bbm_drop('nobody')$$);
SELECT * FROM fails($$SELECT bbm_alter('nobody')$$);
SELECT * FROM fails($$SELECT bbm_wait('nobody')$$);
SELECT * FROM fails($$SELECT bbm_ensure_finished('nobody')$$);
-- or is none
SELECT * FROM fails($$SELECT bbm_cancel(NULL)$$);
SELECT * FROM fails($$SELECT bbm_retry(NULL)$$);
SELECT * FROM fails($$SELECT bbm_drop(NULL)$$);
SELECT * FROM fails($$SELECT bbm_alter(NULL)$$);
SELECT * FROM fails($$SELECT bbm_wait(NULL)$$);
SELECT * FROM fails($$SELECT * FROM bbm_throttle(NULL)$$);
SELECT * FROM fails($$SELECT bbm_ensure_finished(NULL)$$);
SELECT * FROM fails($$SELECT bbm_ensure_finished(VARIADIC NULL)$$);
SELECT * FROM fails($$SELECT bbm_ensure_finished(VARIADIC '{}')$$);
SELECT * FROM fails($$SELECT bbm_ensure_finished(VARIADIC '{NULL}')$$);
\pset expanded off
-- all of none
SELECT bbm_start(), bbm_resume(), bbm_pause();
SELECT * FROM bbm_status('nobody');
SELECT * FROM bbm_jobs('nobody');
SELECT bbm_drop('nobody', if_exists => true);

-- start and pause one: how many were started, or paused
SELECT bbm_create('a', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 5) AS id;
SELECT bbm_create('b', 'u', 'UPDATE u SET n = n + 1 WHERE id BETWEEN $1 AND $2') AS id;
SELECT bbm_pause('a');
BEGIN;
SELECT bbm_start('a');
SELECT bbm_start('a');
SELECT * FROM status();
SELECT bbm_pause('a');
SELECT bbm_pause('a');
-- all of them
SELECT bbm_start();
SELECT * FROM status();
SELECT bbm_start();
SELECT bbm_pause();
SELECT bbm_pause();
SELECT bbm_resume('b');
SELECT bbm_resume();
SELECT * FROM status();
ROLLBACK;
SELECT * FROM status();

-- a guard of a schema change
SELECT * FROM fails($$SELECT bbm_ensure_finished('a', 'b')$$) \gx
SELECT bbm_start('a');
SELECT bbm_wait('a', '1 minute');
SELECT bbm_ensure_finished('a');
SELECT bbm_ensure_finished(VARIADIC '{a}');
SELECT * FROM fails($$SELECT bbm_ensure_finished('a', 'b')$$) \gx
SELECT * FROM fails($$SELECT bbm_ensure_finished('a', 'nobody')$$) \gx

-- a finished migration stays finished
SELECT bbm_start('a');
SELECT bbm_pause('a');
SELECT bbm_retry('a');
SELECT bbm_cancel('a');
SELECT * FROM status();
SELECT min(n), max(n) FROM t;
-- bbm_start() starts what is paused only, so it need not warn
SELECT bbm_start();
SELECT bbm_wait('b', '1 minute');
SELECT min(n), max(n) FROM u;

-- waiting ends with the time, too, and says where it stands
SELECT bbm_create('c', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2') AS id;
SELECT bbm_wait('c', '0');
SELECT bbm_wait('c', '50 ms');
SELECT bbm_wait('c', '-1 s');
SELECT bbm_wait('c', '-178000000 years');
SELECT bbm_wait('c', '-1 month');
SELECT bbm_wait(name => 'c', timeout => '10 ms');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT bbm_wait('c');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT bbm_pause('c', wait => true);
ROLLBACK;
SET statement_timeout = '100 ms';
SELECT bbm_wait('c');
RESET statement_timeout;

-- changing: what is not given stays
SELECT bbm_alter('c');
SELECT bbm_alter('c', new_name => 'd', job => 'UPDATE t SET n = n + 10 WHERE id BETWEEN $1 AND $2', batch_size => 2,
                 sub_batch_size => 1, max_value => 8, workers => 3, max_attempts => 4, share_table => true, synchronous => true);
SELECT name, job_signature_name, batch_size, sub_batch_size, min_value, max_value, workers, max_attempts, share_table,
       synchronous, status, owner = current_user AS mine
FROM batched_background_migrations WHERE id = 3 \gx
SELECT bbm_alter('d', batch_size => 4);
SELECT name, job_signature_name, batch_size, sub_batch_size, min_value, max_value, workers, max_attempts, share_table,
       synchronous, status
FROM batched_background_migrations WHERE id = 3 \gx
\pset expanded on
SELECT * FROM fails($$SELECT bbm_alter('d', new_name => 'a')$$);
SELECT * FROM fails($$SELECT bbm_alter('d', new_name => '')$$);
SELECT * FROM fails($$SELECT bbm_alter('d', new_name => repeat('x', 65536))$$);
SELECT * FROM fails($$SELECT bbm_alter('d', batch_size => 0)$$);
SELECT * FROM fails($$SELECT bbm_alter('d', sub_batch_size => -5)$$);
SELECT * FROM fails($$SELECT bbm_alter('d', max_value => 0)$$);
SELECT * FROM fails($$SELECT bbm_alter('d', workers => 1000)$$);
SELECT * FROM fails($$SELECT bbm_alter('d', max_attempts => 1000)$$);
SELECT * FROM fails($$SELECT bbm_alter('d', max_attempts => 100000)$$);
SELECT * FROM fails($$SELECT bbm_alter('d', owner => 'regress_bbm_nobody')$$);
SELECT * FROM fails($$SELECT bbm_alter('d', owner => '')$$);
SELECT * FROM fails($$SELECT bbm_wait('d', '300000 years')$$);
SELECT * FROM fails($$SELECT bbm_alter('d', settings => '{bbm.condition=SELECT 1}')$$);
SELECT * FROM fails($$SELECT bbm_alter('d', settings => '{"bbm.condition=SELECT true, true"}')$$);
SELECT * FROM fails($$SELECT bbm_alter('d', settings => '{bbm.condition=(SELECT open FROM nowhere)}')$$);
SELECT * FROM fails($$SELECT bbm_alter('d', settings => '{bbm.condition=n > 1}')$$);
SELECT * FROM fails($$SELECT bbm_alter('d', settings => '{bbm.condition=nothing()}')$$);
SELECT * FROM fails($$SELECT bbm_create('new', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', settings => '{bbm.condition=NULL}')$$);
SELECT state, message FROM fails($$SELECT bbm_alter('d', job => '')$$);
SELECT state, message FROM fails($$SELECT bbm_alter('d', job => 'DELETE FROM t')$$);
SELECT state, message FROM fails($$SELECT bbm_alter('d', job => 'nothing_of_that_name')$$);
SELECT state, message FROM fails($$SELECT bbm_alter('d', job => 'UPDATE nowhere SET n = 1 WHERE id BETWEEN $1 AND $2')$$);
\pset expanded off
CALL bbm_run('d');
SELECT n, array_agg(id ORDER BY id) AS ids FROM t GROUP BY n ORDER BY n;
SELECT min_value, max_value FROM bbm_jobs('d');

-- a job that takes as long as we like; what is cancelled is in its batch, and not before it
CREATE FUNCTION slow(min int, max int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE u SET n = n + 1 WHERE id BETWEEN $1 AND $2;
    WHILE NOT pg_try_advisory_xact_lock(4242) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT pg_advisory_lock(4242);
SELECT bbm_create('slow', 'u', 'slow') AS id;
SELECT bbm_start('slow');
SELECT wait_for($$EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event = 'PgSleep')$$);
SELECT name, status, workers, jobs_running, waiting_on FROM bbm_status_detail('slow');
-- a pause does not wait for it
SELECT bbm_pause('slow');
SELECT name, status, jobs_running FROM bbm_status_detail('slow');
-- unless it is asked to
SET statement_timeout = '200 ms';
SELECT bbm_pause('slow', wait => true);
RESET statement_timeout;
SELECT name, status, jobs_running FROM bbm_status_detail('slow');
-- but it can cancel the batch, which does not count as an attempt
SELECT bbm_pause('slow', cancel => true, wait => true);
SELECT name, status, jobs_running, jobs_failed FROM bbm_status_detail('slow');
SELECT status, min_value, max_value, attempts, error_sqlstate FROM bbm_jobs('slow');
SELECT min(n), max(n) FROM u;
-- bbm_cancel is both in one; it returns how many batches there were
SELECT bbm_start('slow');
SELECT wait_for($$EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event = 'PgSleep')$$);
SELECT bbm_cancel('slow');
SELECT name, status, jobs_running, jobs_failed FROM bbm_status_detail('slow');
SELECT status, min_value, max_value, attempts, error_sqlstate FROM bbm_jobs('slow');
SELECT bbm_cancel('slow');
SELECT min(n), max(n) FROM u;
SELECT bbm_start('slow');
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('slow', '1 minute');
SELECT min(n), max(n) FROM u;
SELECT status, min_value, max_value, attempts FROM bbm_jobs('slow');

-- a batch in flight ends by itself after a pause; the rest waits for the start
SELECT pg_advisory_lock(4242);
SELECT bbm_create('two batches', 'u', 'slow', batch_size => 5, start => true) AS id;
SELECT wait_for($$(SELECT jobs_running = 1 FROM bbm_status_detail('two batches'))$$);
UPDATE batched_background_migrations SET status = 0 WHERE name = 'two batches';
SELECT pg_advisory_unlock(4242);
SELECT bbm_pause('two batches', wait => true);
SELECT name, status, jobs_running, jobs_finished FROM bbm_status_detail('two batches');
SELECT n, array_agg(id ORDER BY id) AS ids FROM u GROUP BY n ORDER BY n;
SELECT bbm_start('two batches');
SELECT bbm_wait('two batches', '1 minute');
SELECT min(n), max(n) FROM u;

-- a change to a running migration takes effect with the next batch
SELECT pg_advisory_lock(4242);
SELECT bbm_create('changed', 'u', 'slow', batch_size => 2, start => true) AS id;
SELECT wait_for($$(SELECT jobs_running = 1 FROM bbm_status_detail('changed'))$$);
SELECT bbm_alter('changed', batch_size => 3, max_value => 7, new_name => 'changed its name');
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('changed its name', '1 minute');
SELECT min_value, max_value, rows FROM bbm_jobs('changed its name');
SELECT n, array_agg(id ORDER BY id) AS ids FROM u GROUP BY n ORDER BY n;

-- max_value below what is done already: then everything is
SELECT pg_advisory_lock(4242);
SELECT bbm_create('shortened', 'u', 'slow', batch_size => 4, start => true) AS id;
SELECT wait_for($$(SELECT jobs_running = 1 FROM bbm_status_detail('shortened'))$$);
UPDATE batched_background_migrations SET max_value = 2 WHERE name = 'shortened';
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('shortened', '1 minute');
SELECT min_value, max_value, rows FROM bbm_jobs('shortened');
UPDATE u SET n = 0;

-- dropped at work: it is cancelled, nothing of it stays
SELECT pg_advisory_lock(4242);
SELECT bbm_create('dropped', 'u', 'slow', batch_size => 5, start => true) AS id;
SELECT wait_for($$EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event = 'PgSleep')$$);
SELECT bbm_drop('dropped');
SELECT count(*) FROM bbm_status('dropped');
SELECT count(*) AS jobs FROM batched_background_migration_jobs j
WHERE NOT EXISTS (SELECT 1 FROM batched_background_migrations m WHERE m.id = j.batched_background_migration_id);
-- and the name is free again; a DELETE does the same
SELECT bbm_create('dropped', 'u', 'slow', batch_size => 5, start => true) AS id;
SELECT wait_for($$EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event = 'PgSleep')$$);
DELETE FROM batched_background_migrations WHERE name = 'dropped';
SELECT pg_advisory_unlock(4242);
SELECT min(n), max(n) FROM u;

-- retry: of a failed one, the failed jobs with fresh attempts
CREATE TABLE r (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, d int NOT NULL DEFAULT 1);
INSERT INTO r SELECT generate_series(1, 6);
UPDATE r SET d = 0 WHERE id IN (2, 6);
SELECT bbm_create('retried', 'r', 'UPDATE r SET n = n + 1 / d WHERE id BETWEEN $1 AND $2', batch_size => 2,
                  max_attempts => 1, start => true) > 0 AS created;
SELECT bbm_wait('retried', '1 minute');
SELECT status, last_error FROM bbm_status_detail('retried');
SELECT min_value, status, attempts FROM bbm_jobs('retried');
SELECT bbm_retry('retried');
SELECT bbm_wait('retried', '1 minute');
UPDATE r SET d = 1;
-- of a paused one it waits for the start
SELECT bbm_pause('retried');
SELECT * FROM status() WHERE name = 'retried';
SELECT bbm_retry('retried');
SELECT * FROM status() WHERE name = 'retried';
SELECT min_value, status, attempts FROM bbm_jobs('retried');
SELECT bbm_start('retried');
SELECT bbm_wait('retried', '1 minute');
SELECT min(n), max(n) FROM r;

-- every change is on record
SELECT name, event, status FROM bbm_events WHERE name IN ('a', 'b', 'c', 'd', 'retried') ORDER BY migration_id, id;

DROP EXTENSION bbm;
DROP TABLE t, u, r;
DROP FUNCTION fails, wait_for, status, slow;
