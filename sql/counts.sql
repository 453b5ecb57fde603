--
-- Numbers, times and texts that a migration's owner may choose, and that are
-- added up, compared and printed for everybody.
--

CREATE EXTENSION bbm;
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/wait_for.inc'
\i :helper
\set VERBOSITY terse
CREATE TABLE c (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO c SELECT generate_series(1, 20);
ANALYZE c;

-- the number of rows that a function returns is limited to what a table can have, and not negative
CREATE FUNCTION huge(min bigint, max bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 9223372036854775807';
CREATE FUNCTION negative(min bigint, max bigint) RETURNS bigint LANGUAGE sql AS 'SELECT (-9223372036854775808)::bigint';
SELECT bbm_create('huge', 'c', 'huge', batch_size => 5) > 0 AS created;
SELECT jobs, rows BETWEEN 4e12::bigint AND 8e12::bigint AS rows, estimated_rows > 4e12 AS estimated FROM bbm_dry_run('huge');
SET client_min_messages = warning;
CALL bbm_run('huge');
RESET client_min_messages;
SELECT bbm_create('negative', 'c', 'negative', batch_size => 5) > 0 AS created;
CALL bbm_run('negative');
SELECT name, status, percent, rows_done BETWEEN 4e12::bigint AND 8e12::bigint AS many, rows_done = 0 AS none, jobs_finished
FROM bbm_status_detail() ORDER BY name;
SELECT bbm_drop('negative'), bbm_drop('huge');

-- what a user writes to the rows of jobs, which he may while it is paused
CREATE FUNCTION refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
BEGIN
    EXECUTE statement;
    RETURN 'let through';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RETURN SQLSTATE || ': ' || SQLERRM || ' (' || detail || ')';
END $$;
CREATE FUNCTION held(min bigint, max bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    WHILE $1 > 18 AND NOT pg_try_advisory_xact_lock(4242) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
    UPDATE c SET n = n + 1 WHERE id BETWEEN $1 AND $2;
    RETURN 1;
END $$;
SELECT pg_advisory_lock(4242);
SELECT bbm_create('mine', 'c', 'held', batch_size => 1, start => true) > 0 AS created;
SELECT wait_for($$(SELECT jobs_finished = 18 FROM bbm_status_detail('mine'))$$);
-- in the next batch, that is: not in a pause before it
SELECT wait_for($$EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event = 'PgSleep')$$);
SELECT bbm_pause('mine', cancel => true, wait => true);
SELECT column_name, refused(format('UPDATE batched_background_migration_jobs SET %I = -1', column_name))
FROM information_schema.columns
WHERE table_name = 'batched_background_migration_jobs' AND data_type IN ('smallint', 'integer', 'bigint', 'double precision')
  AND column_name NOT IN ('id', 'batched_background_migration_id', 'min_value', 'max_value', 'status', 'failure_error_code',
                          'worker_pid', 'worker_id', 'claim_epoch', 'phase', 'round', 'kind', 'cursor_value', 'batch_size')
ORDER BY column_name;
SELECT value, refused(format('UPDATE batched_background_migration_jobs SET run_ms = %L', value))
FROM unnest('{NaN,Infinity,-Infinity,1e300}'::text[]) value;
-- values at their upper limits: the sums that users see are at their upper limits, too
UPDATE batched_background_migration_jobs SET row_count = 9223372036854775807, key_count = 9223372036854775807,
    wal_bytes = 9223372036854775807, run_ms = 1e15, merged_jobs = 2147483647, requeued = 2147483647,
    requeue_reasons = '{"deadlock": 9223372036854775807, "other": 1e20, "cancelled": "x"}', next_attempt_at = 'infinity', error_sqlstate = repeat('9', 100000),
    error_message = repeat('9', 100000), created_at = '-infinity', started_at = '-infinity', finished_at = 'infinity'
    WHERE status = 2;
ALTER TABLE batched_background_migrations DISABLE TRIGGER bbm_guard;
UPDATE batched_background_migrations SET total_tuple_count = 9223372036854775807, created_at = 'infinity',
    started_at = 'infinity', finished_at = '-infinity', settings = '{"bbm.condition=false"}';
ALTER TABLE batched_background_migrations ENABLE TRIGGER bbm_guard;
UPDATE batched_background_migrations SET status = 1;
SELECT name, percent, rows_done, estimated_total, jobs_finished, rows_per_second, eta, requeued, requeue_reasons,
       now() - started_at AS started, finished_at, length(last_error) < 9000 AS error_fits, last_progress_at <= clock_timestamp() AS progress
FROM bbm_status_detail();
SELECT rows, extract(epoch FROM run_time), wal_bytes, jobs, requeued, requeue_reasons FROM bbm_jobs('mine') WHERE status = 'finished' LIMIT 1;
SELECT bbm_pause('mine', wait => true);
UPDATE batched_background_migration_jobs SET run_ms = 5e-324 WHERE status = 2;
SELECT rows_per_second > 1e18 AS fast, eta FROM bbm_status();
-- so slow that the end is not in sight
UPDATE batched_background_migration_jobs SET run_ms = 1e15, key_count = 1 WHERE status = 2;
UPDATE batched_background_migrations SET status = 1;
SELECT eta FROM bbm_status();
SELECT bbm_pause('mine', wait => true);
-- an estimate below what is done
ALTER TABLE batched_background_migrations DISABLE TRIGGER bbm_guard;
UPDATE batched_background_migrations SET total_tuple_count = 0;
ALTER TABLE batched_background_migrations ENABLE TRIGGER bbm_guard;
SELECT percent FROM bbm_status();
-- and the rest of it is done
SELECT pg_advisory_unlock(4242);
UPDATE batched_background_migrations SET status = 1, settings = NULL;
SELECT bbm_wait('mine', '1 minute');
SELECT name, status, rows_done, jobs_finished FROM bbm_status_detail();
SELECT count(*) AS once FROM c WHERE n = 1;
SELECT bbm_drop('mine');

-- keys at both ends of bigint, of which the last is not the last to be done
INSERT INTO c VALUES (-9223372036854775808), (-9223372036854775807), (9223372036854775806), (9223372036854775807);
SELECT bbm_update('ends', 'c', 'n = n + 10', batch_size => 1, follow => true) > 0 AS created;
ALTER SYSTEM SET bbm.job_retention = 0;
SELECT pg_reload_conf();
\c -
CALL bbm_run('ends');
SELECT count(*) AS once FROM c WHERE n >= 10 AND n < 20;
SELECT bbm_update('sub', 'c', 'n = n + 10', batch_size => 2147483647, sub_batch_size => 2147483647) > 0 AS created;
CALL bbm_run('sub');
SELECT count(*) AS twice FROM c WHERE n >= 20;
SELECT bbm_dry_run('sub', 1);
SELECT bbm_drop('ends'), bbm_drop('sub');

-- a merged row stands for as much as it has room for
CREATE TABLE many (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO many SELECT generate_series(1, 400);
SELECT bbm_create('merged', 'many', 'UPDATE many SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 1) > 0 AS created;
ALTER TABLE batched_background_migration_jobs DISABLE TRIGGER bbm_guard;
INSERT INTO batched_background_migration_jobs (batched_background_migration_id, min_value, max_value, key_count, row_count,
    wal_bytes, merged_jobs, status, requeued, requeue_reasons)
SELECT m.id, k, k, 9223372036854775807, 9223372036854775807, 9223372036854775807, 2147483647, 2, 2147483647,
    CASE k WHEN 1 THEN '{"deadlock": 9223372036854775807}' ELSE '{"deadlock": 1, "other": 2}' END::jsonb
FROM batched_background_migrations m, generate_series(1, 2) k WHERE m.name = 'merged';
ALTER TABLE batched_background_migration_jobs ENABLE TRIGGER bbm_guard;
SET client_min_messages = warning;
CALL bbm_run('merged');
RESET client_min_messages;
SELECT rows, wal_bytes, jobs, requeued, requeue_reasons FROM bbm_jobs('merged') WHERE min_value = 1;
SELECT count(*) < 400 AS fewer FROM bbm_jobs('merged');
SELECT bbm_drop('merged');
ALTER SYSTEM RESET bbm.job_retention;
SELECT pg_reload_conf();

-- texts: a name with nothing but control characters, and a message as long as a book
CREATE FUNCTION long(min bigint, max bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', repeat('ä' || chr(1), 1000000) USING DETAIL = repeat('ö', 1000000), HINT = repeat('ü', 1000000);
END $$;
SELECT bbm_create(repeat(chr(1), 512), 'c', 'long', max_attempts => 1, batch_size => 30) > 0 AS created;
SELECT bbm_start();
SELECT bbm_wait(repeat(chr(1), 512), '1 minute');
SELECT octet_length(error_message) < 8200 AS message, octet_length(error_detail) < 8200 AS detail,
       octet_length(error_hint) < 8200 AS hint, error_message LIKE 'ä%...' AS truncated
FROM batched_background_migrations;
SELECT max(octet_length(error_message)) < 8200 AS message, max(octet_length(error_context)) < 8200 AS context
FROM batched_background_migration_jobs;
SELECT event, octet_length(detail) < 8200 AS detail FROM bbm_events WHERE name = repeat(chr(1), 512) ORDER BY id;
SELECT octet_length(last_error) < 8300 AS last_error FROM bbm_status_detail();
SELECT bbm_drop(repeat(chr(1), 512));
DROP EXTENSION bbm;
DROP TABLE c, many;
DROP FUNCTION wait_for, refused, held, huge, negative, long;
