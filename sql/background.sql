--
-- The workers: started by a plain UPDATE, several at once, gone when idle.
--

CREATE EXTENSION bbm;
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/wait_for.inc'
\i :helper
CREATE TABLE a (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE TABLE b (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO a SELECT generate_series(1, 1000);
INSERT INTO b SELECT generate_series(1, 1000);
-- a job that takes as long as we like
CREATE FUNCTION held(min int, max int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE a SET n = n + 1 WHERE id BETWEEN $1 AND $2;
    WHILE NOT pg_try_advisory_xact_lock_shared(4242) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;

-- a schema migration's transaction: nothing begins before it commits
BEGIN;
CREATE TABLE c (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO c SELECT generate_series(1, 10);
INSERT INTO batched_background_migrations
  (name, max_value, batch_size, job_signature_name, table_name, column_name, status)
VALUES ('deployed', 10, 3, 'UPDATE c SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'public.c', 'id', 1);
SELECT bbm_wait('deployed', '100 ms');
COMMIT;
SELECT bbm_wait('deployed', '1 minute');
SELECT min(n), max(n), count(*) FROM c;
-- or is rolled back
SELECT bbm_create('rolled back', 'c', 'UPDATE c SET n = n + 1 WHERE id BETWEEN $1 AND $2') > 0 AS created;
BEGIN;
UPDATE batched_background_migrations SET status = 1 WHERE name = 'rolled back';
ROLLBACK;
BEGIN;
SAVEPOINT s;
UPDATE batched_background_migrations SET status = 1 WHERE name = 'rolled back';
ROLLBACK TO s;
COMMIT;
SELECT bbm_wait('rolled back', '200 ms');
SELECT min(n), max(n), count(*) FROM c;
BEGIN;
SAVEPOINT s;
UPDATE batched_background_migrations SET status = 1 WHERE name = 'rolled back';
RELEASE s;
COMMIT;
SELECT bbm_wait('rolled back', '1 minute');
SELECT min(n), max(n), count(*) FROM c;

-- several, on different tables and on the same
SELECT bbm_create('a' || i, 'a', 'UPDATE a SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 50) > 0 AS created
FROM generate_series(1, 3) i;
SELECT bbm_create('b' || i, 'b', 'UPDATE b SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 50, workers => 3,
                  share_table => true) > 0 AS created
FROM generate_series(1, 3) i;
UPDATE batched_background_migrations SET status = 1 WHERE status = 0;
SELECT name, bbm_wait(name, '1 minute') FROM batched_background_migrations WHERE name ~ '^[ab][123]' ORDER BY name;
SELECT min(n), max(n), count(*) FROM a;
SELECT min(n), max(n), count(*) FROM b;
-- each range once, in one attempt, without a gap
SELECT m.name, count(*), sum(j.row_count), min(j.min_value), max(j.max_value), max(j.attempts),
       sum(j.max_value - j.min_value + 1) AS keys
FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id
WHERE m.name ~ '^[ab][123]' GROUP BY m.name ORDER BY m.name;
-- never two at once on a table, unless both say so
SELECT count(*) AS at_once
FROM batched_background_migration_jobs x
JOIN batched_background_migration_jobs y ON x.batched_background_migration_id < y.batched_background_migration_id
JOIN batched_background_migrations mx ON mx.id = x.batched_background_migration_id AND mx.table_name = 'public.a'
JOIN batched_background_migrations my ON my.id = y.batched_background_migration_id AND my.table_name = 'public.a'
WHERE x.started_at < y.finished_at AND y.started_at < x.finished_at;

-- another table's migration does not wait for a long batch
SELECT pg_advisory_lock(4242);
SELECT bbm_create('long', 'a', 'held', start => true) > 0 AS created;
SELECT wait_for($$(SELECT jobs_running = 1 FROM bbm_status_detail('long'))$$);
SELECT bbm_create('meanwhile', 'b', 'UPDATE b SET n = n + 1 WHERE id BETWEEN $1 AND $2', start => true) > 0 AS created;
SELECT bbm_wait('meanwhile', '2 minutes');
SELECT name, status FROM bbm_status('long');
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('long', '1 minute');

-- with a batch in flight, another migration of the table waits and says for what
SELECT pg_advisory_lock(4242);
SELECT bbm_create('first', 'a', 'held', batch_size => 400, start => true) AS first \gset
SELECT wait_for($$(SELECT jobs_running = 1 FROM bbm_status_detail('first'))$$);
SELECT bbm_create('second', 'a', 'held', batch_size => 400, share_table => true, start => true) > 0 AS created;
SELECT wait_for(format($$(SELECT status = 'running' AND waiting_on = 'another migration on the table, id %s'
                          FROM bbm_status_detail('second'))$$, :first));
SELECT name, status, jobs_running, workers FROM bbm_status_detail() WHERE name IN ('first', 'second');
-- which worker runs which job
SELECT w.kind, w.role = current_user AS mine, w.migration, j.min_value, j.max_value, w.since IS NOT NULL AS since,
       w.waiting_on, w.database = current_database() AS here, a.backend_type, a.application_name
FROM bbm_workers() w JOIN pg_stat_activity a USING (pid)
JOIN batched_background_migration_jobs j ON j.id = w.job;
-- and not for everybody to see
SET ROLE pg_read_all_data;
SELECT count(*) AS seen FROM bbm_workers() WHERE job IS NOT NULL;
RESET ROLE;
SELECT count(*) AS unasked FROM bbm_workers() WHERE kind = 'launcher';
SELECT kind, migration, job FROM bbm_workers(launcher => true) WHERE kind = 'launcher';
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('first', '1 minute'), bbm_wait('second', '1 minute');
-- and as many jobs at once as the migration has workers, but no more
SELECT pg_advisory_lock(4242);
SELECT bbm_create('parallel', 'a', 'held', batch_size => 200, workers => 3, start => true) > 0 AS created;
SELECT wait_for($$(SELECT jobs_running = 3 FROM bbm_status_detail('parallel'))$$);
SELECT status, min_value, max_value FROM bbm_jobs('parallel') ORDER BY min_value;
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('parallel', '1 minute');
SELECT status, min_value, max_value, attempts FROM bbm_jobs('parallel') ORDER BY min_value;
SELECT min(n), max(n), count(*) FROM a;
-- two that share the table
SELECT pg_advisory_lock(4242);
SELECT bbm_create('shares 1', 'a', 'held', max_value => 500, share_table => true, start => true) > 0 AS created;
SELECT bbm_create('shares 2', 'a', 'held', min_value => 501, share_table => true, start => true) > 0 AS created;
SELECT wait_for($$(SELECT sum(jobs_running) = 2 FROM bbm_status_detail() WHERE name LIKE 'shares _')$$);
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('shares 1', '1 minute'), bbm_wait('shares 2', '1 minute');
SELECT min(n), max(n), count(*) FROM a;

-- a session may help a worker (without pauses for busy CPUs)
SELECT bbm_create('helped', 'a', 'UPDATE a SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 10, workers => 2,
                  settings => '{bbm.min_pace=1}', start => true) > 0 AS created;
CALL bbm_run('helped');
SELECT sum(rows), min(min_value), max(max_value), max(attempts), sum(max_value - min_value + 1) AS keys
FROM bbm_jobs('helped');
SELECT min(n), max(n), count(*) FROM a;

-- sub-batches of keys that are not integers: the end of a sub-batch is kept from one transaction to the next
CREATE TABLE words (w text COLLATE "C" PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO words SELECT md5(i::text) FROM generate_series(1, 200) i;
SELECT bbm_create('words', 'words', 'UPDATE words SET n = n + 1 WHERE w BETWEEN $1 AND $2', batch_size => 20,
                  sub_batch_size => 3, start => true) > 0 AS created;
SELECT bbm_wait('words', '1 minute');
SELECT min(n), max(n), count(*) FROM words;
SELECT status, jobs_finished, rows_done, last_error FROM bbm_status_detail('words');

-- a launched worker
SELECT bbm_create('launched', 'a', 'UPDATE a SET n = n + 1 WHERE id BETWEEN $1 AND $2') > 0 AS created;
SELECT bbm_launch_worker('0') > 0 AS launched;
SELECT bbm_launch_worker(idle_timeout => '10 ms') > 0 AS launched;
SELECT bbm_launch_worker('-1 s');
SELECT bbm_launch_worker(NULL);
SELECT bbm_start('launched');
SELECT bbm_wait('launched', '1 minute');
-- they go when they find nothing to do; they would take a part in what follows
SELECT wait_for($$NOT EXISTS (SELECT 1 FROM bbm_workers() WHERE kind = 'launched worker')$$);

-- a worker that keeps to a rate of its own is at work on its migration, also between two batches
SELECT bbm_create('slow', 'b', 'UPDATE b SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 5,
                  settings => '{bbm.max_row_rate=100}', start => true) > 0 AS created;
SELECT wait_for($$(SELECT rows_done > 0 FROM bbm_status('slow'))$$);
CREATE TABLE seen (workers int, jobs_running int, status text);
DO $$
BEGIN
    FOR i IN 1 .. 40 LOOP
        INSERT INTO seen SELECT workers, jobs_running, status FROM bbm_status_detail('slow');
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT min(status) AS status, min(workers) AS least, max(workers) AS most, min(jobs_running) AS jobs FROM seen;
SELECT bbm_cancel('slow') >= 0 AS cancelled;
SELECT workers FROM bbm_status('slow');

-- after errors in a row the worker exits, and comes back later: that is no lack of workers
SELECT bbm_create('fails', 'b', 'UPDATE b SET n = 1 / (id - id) WHERE id BETWEEN $1 AND $2', batch_size => 10, max_attempts => 1,
                  on_error => 'skip', max_errors => 1000, settings => '{bbm.retry_delay=1min, bbm.retry_max_delay=1min}', start => true) > 0 AS created;
SELECT wait_for($$(SELECT waiting_on ~ '^its next try, in \d+ s$' FROM bbm_status_detail('fails'))$$);
SELECT status, workers FROM bbm_status('fails');
SELECT bbm_drop('fails');

-- what workers read does not grow with what is paused, failed or finished
SELECT wait_for($$NOT EXISTS (SELECT 1 FROM bbm_workers())$$);
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, status)
SELECT 'over ' || i, 10, 10, 'UPDATE b SET n = n WHERE id BETWEEN $1 AND $2', 'public.b', 'id', (ARRAY[0, 2, 3])[i % 3 + 1]
FROM generate_series(1, 1500) i;
ANALYZE batched_background_migrations;
SELECT pg_stat_force_next_flush();
SELECT sum(seq_tup_read + idx_tup_fetch) AS read FROM pg_stat_user_tables WHERE relname = 'batched_background_migrations' \gset before_
SELECT bbm_create('one of many', 'b', 'UPDATE b SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 100, start => true) > 0 AS created;
SELECT bbm_wait('one of many', '1 minute');
SELECT wait_for($$NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE backend_type = 'bbm worker')$$);
SELECT pg_stat_force_next_flush();
SELECT sum(seq_tup_read + idx_tup_fetch) - :before_read < 500 AS few
FROM pg_stat_user_tables WHERE relname = 'batched_background_migrations';

-- when there is nothing to do, nobody is there but the launcher
SELECT wait_for($$NOT EXISTS (SELECT 1 FROM bbm_workers())$$);
SELECT wait_for($$(SELECT string_agg(concat_ws(' ', backend_type, datname), ', ') = 'bbm launcher'
             FROM pg_stat_activity WHERE backend_type LIKE 'bbm%')$$);

DROP EXTENSION bbm;
DROP TABLE a, b, c, words, seen;
DROP FUNCTION held, wait_for;
