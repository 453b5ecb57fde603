--
-- bbm_status and bbm_jobs: where a migration stands.
--

CREATE EXTENSION bbm;
-- how busy the machine is would be shown in waiting_on
ALTER SYSTEM SET bbm.min_pace = 1;
SELECT pg_reload_conf();
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/wait_for.inc'
\i :helper
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 10);
ANALYZE t;
CREATE FUNCTION held(min int, max int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2;
    WHILE $1 > 4 AND NOT pg_try_advisory_xact_lock(4242) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN $2 - $1 + 1;
END $$;
-- without what takes its own time
CREATE FUNCTION status(name text) RETURNS TABLE (status text, percent numeric, rows_done bigint, estimated_total bigint,
    jobs_finished bigint, jobs_running bigint, jobs_failed bigint, rate boolean, eta boolean, batch_size int, workers int,
    waiting_on text, started boolean, finished boolean, last_error text, attempt smallint, next_attempt boolean)
LANGUAGE sql AS $$
    SELECT status, percent, rows_done, estimated_total, jobs_finished, jobs_running, jobs_failed,
           rows_per_second > 0, eta >= '0', batch_size, workers, waiting_on, started_at <= now(), finished_at >= started_at,
           last_error, attempt, next_attempt_at IS NOT NULL
    FROM bbm_status_detail(name)
$$;
CREATE FUNCTION jobs(name text) RETURNS TABLE (status text, min_value bigint, max_value bigint, attempts smallint,
    rows bigint, run_time boolean, wal boolean, jobs int, pid boolean, started boolean, finished boolean,
    next_attempt boolean, code smallint, sqlstate text, message text)
LANGUAGE sql AS $$
    SELECT status, min_value, max_value, attempts, rows, run_time > '0', wal_bytes > 0, jobs, worker_pid > 0,
           started_at <= now(), finished_at >= started_at, next_attempt_at IS NOT NULL, failure_error_code,
           error_sqlstate, error_message
    FROM bbm_jobs(name)
$$;
\pset expanded on

-- paused
SELECT bbm_create('m', 't', 'held', batch_size => 4) > 0 AS created;
SELECT * FROM status('m');
-- in the midst of it
SELECT pg_advisory_lock(4242);
SELECT bbm_start('m');
SELECT wait_for($$(SELECT jobs_finished = 1 AND jobs_running = 1 FROM bbm_status_detail('m'))$$);
SELECT * FROM status('m');
SELECT * FROM jobs('m');
-- cancelled
SELECT bbm_cancel('m');
SELECT * FROM status('m');
SELECT * FROM jobs('m');
-- however wrong the estimate is
-- an estimate is bbm's to make
ALTER TABLE batched_background_migrations DISABLE TRIGGER bbm_guard;
UPDATE batched_background_migrations SET total_tuple_count = 1;
SELECT percent, estimated_total FROM bbm_status_detail('m');
UPDATE batched_background_migrations SET total_tuple_count = 0;
SELECT percent, estimated_total FROM bbm_status_detail('m');
UPDATE batched_background_migrations SET total_tuple_count = 1000000;
SELECT percent, estimated_total FROM bbm_status_detail('m');
UPDATE batched_background_migrations SET total_tuple_count = 10;
ALTER TABLE batched_background_migrations ENABLE TRIGGER bbm_guard;
-- it opens no table that it does not need, as the first one of a session has to read all about it
BEGIN;
SELECT count(*) FROM bbm_status('m');
SELECT relname AS table FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    AND EXISTS (SELECT 1 FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.relation = c.oid) ORDER BY relname COLLATE "C";
COMMIT;
-- finished
SELECT bbm_start('m');
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('m', '1 minute');
SELECT * FROM status('m');
SELECT * FROM jobs('m');

-- while the column is null somewhere
CREATE TABLE filled (id int PRIMARY KEY, f int);
CREATE INDEX ON filled (f);
INSERT INTO filled SELECT generate_series(1, 10);
ANALYZE filled;
CREATE FUNCTION fill(table_name text, column_name text, min bigint, max bigint, batch_size int) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE rows int;
BEGIN
    UPDATE filled SET f = id WHERE id IN (SELECT id FROM filled WHERE f IS NULL LIMIT batch_size);
    GET DIAGNOSTICS rows = ROW_COUNT;
    WHILE (SELECT count(f) FROM filled) > 4 AND NOT pg_try_advisory_xact_lock(4242) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN rows;
END $$;
SELECT pg_advisory_lock(4242);
SELECT bbm_create('n', 'filled', 'fill', 'f', batching_strategy => 'NullKeySetBatchingStrategy', batch_size => 4,
                  start => true) > 0 AS created;
SELECT wait_for($$(SELECT jobs_finished = 1 AND jobs_running = 1 FROM bbm_status_detail('n'))$$);
SELECT status, percent, rows_done, estimated_total, jobs_finished, jobs_running FROM status('n');
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('n', '1 minute');
SELECT status, percent, rows_done, estimated_total, jobs_finished, jobs_running FROM status('n');

-- a retry is to come: of what, and when
ALTER SYSTEM SET bbm.retry_delay = '1 h';
SELECT pg_reload_conf();
SELECT bbm_create('r', 't', 'UPDATE t SET n = 100 / (id - 7) WHERE id BETWEEN $1 AND $2', batch_size => 5, start => true) > 0 AS created;
SELECT wait_for($$(SELECT jobs_failed = 1 FROM bbm_status_detail('r'))$$);
SELECT wait_for($$NOT EXISTS (SELECT 1 FROM bbm_workers())$$);
SELECT * FROM status('r');
SELECT * FROM jobs('r');
-- it need not be waited for
UPDATE t SET id = 17 WHERE id = 7;
SELECT bbm_retry('r');
SELECT bbm_wait('r', '1 minute');
SELECT * FROM status('r');
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();

-- failed
SELECT bbm_create('f', 't', 'UPDATE t SET n = 100 / (id - 17) WHERE id BETWEEN $1 AND $2', batch_size => 5,
                  max_attempts => 1, start => true) > 0 AS created;
SELECT bbm_wait('f', '1 minute');
SELECT * FROM status('f');
SELECT * FROM jobs('f');
SELECT error_detail, error_hint, error_context FROM batched_background_migration_jobs WHERE status = 3;

-- a migration from another database waits, and says so, until it is started here; a row that is loaded is one, even in its own database
INSERT INTO batched_background_migrations
  (name, max_value, batch_size, job_signature_name, table_name, column_name, status, origin, started_at)
SELECT 'c', 10, 5, 'UPDATE t SET n = -1 WHERE id BETWEEN $1 AND $2', 'public.t', 'id', 4, origin, '2000-01-01'
FROM batched_background_migrations WHERE name = 'f';
SELECT * FROM status('c');
SELECT s.is_copy, m.restored, m.origin = f.origin AS here
FROM bbm_status_detail('c') s, batched_background_migrations m, batched_background_migrations f WHERE m.name = 'c' AND f.name = 'f';
SELECT count(*) AS events FROM bbm_events WHERE name = 'c';
SELECT bbm_wait('c', '200 ms');
SELECT count(*) FROM t WHERE n = -1;
UPDATE batched_background_migrations SET status = 1 WHERE name = 'c';
SELECT bbm_wait('c', '1 minute');
SELECT is_copy FROM bbm_status_detail('c');
SELECT count(*) FROM t WHERE n = -1;
\pset expanded off

-- all of them, in the order of their making; one; none
SELECT name, status FROM bbm_status();
SELECT name, status FROM bbm_status(NULL);
SELECT name, status FROM bbm_status(name => 'f');
SELECT name, status FROM bbm_status('nobody');
SELECT count(*) = (SELECT count(*) FROM batched_background_migration_jobs) AND count(DISTINCT migration) > 1 AS all FROM bbm_jobs();

ALTER SYSTEM RESET bbm.min_pace;
SELECT pg_reload_conf();
DROP EXTENSION bbm;
DROP TABLE t, filled;
DROP FUNCTION held, fill, wait_for, status, jobs;
