--
-- Metrics: counters that continue when jobs are merged or tried again, and who sees them.
--

CREATE EXTENSION bbm;
-- without pauses for busy CPUs
ALTER SYSTEM SET bbm.min_pace = 1;
ALTER SYSTEM SET bbm.job_retention = 0;
ALTER SYSTEM SET bbm.retry_delay = '1ms';
SELECT pg_reload_conf();
\c -
SET client_min_messages = warning;
CREATE TABLE items (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO items SELECT generate_series(1, 1000);
ANALYZE items;
-- what a histogram must be, and what it must agree with
CREATE FUNCTION metrics(name text) RETURNS TABLE (status smallint, rows bigint, keys_done bigint, keys_total bigint,
    batches numeric, cumulative boolean, as_seconds boolean, wal boolean, failures bigint, quarantined bigint)
LANGUAGE sql AS $$
    SELECT m.status, m.rows, m.keys_done, CASE WHEN m.status = 2 THEN m.keys_total END, m.batches,
           m.batch_buckets = ARRAY(SELECT b FROM unnest(m.batch_buckets) b ORDER BY b) AND m.batches >= m.batch_buckets[10]
               AND cardinality(m.batch_buckets) = cardinality(m.batch_bounds),
           -- each took at least the lower bound of its bucket
           m.batch_seconds >= (SELECT sum((m.batch_buckets[i + 1] - m.batch_buckets[i]) * m.batch_bounds[i])
                               FROM generate_series(1, cardinality(m.batch_bounds) - 1) i),
           m.rows = 0 OR m.wal_bytes > 0, m.failures, m.quarantined
    FROM bbm_migration_metrics m WHERE m.migration = name
$$;

-- a job a batch, and merged as it goes on
SELECT bbm_create('single', 'items', 'UPDATE items SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 2) > 0 AS created;
SELECT keys_total IS NULL AS not_known_yet FROM bbm_migration_metrics WHERE migration = 'single';
CALL bbm_run('single');
SELECT count(*) < 500 AS merged, sum(merged_jobs) AS jobs FROM batched_background_migration_jobs;
SELECT * FROM metrics('single');

-- several batches a job
SELECT bbm_create('several', 'items', 'UPDATE items SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 2, sub_batch_size => 1) > 0 AS created;
CALL bbm_run('several');
SELECT count(*) < 500 AS merged, sum(merged_jobs) AS jobs FROM batched_background_migration_jobs j
JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name = 'several';
SELECT * FROM metrics('several');

-- the bucket of a known time, counted by either: of a job of one batch, of one of several, and merged
CREATE FUNCTION slow(lo int, hi int) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint FROM pg_sleep(0.12)';
SELECT bbm_create('slow', 'items', 'slow', batch_size => 500) > 0 AS created;
SELECT bbm_create('slow sub-batches', 'items', 'slow', batch_size => 1000, sub_batch_size => 500) > 0 AS created;
CALL bbm_run('slow');
CALL bbm_run('slow sub-batches');
SELECT migration, batches, batch_buckets[5] AS up_to_100_ms, batch_seconds > 0.24 AS seconds
FROM bbm_migration_metrics WHERE migration LIKE 'slow%' ORDER BY 1;

-- verification is progress, and may fail, but it changes nothing
SELECT bbm_create('verified', 'items', 'UPDATE items SET n = 1 WHERE id BETWEEN $1 AND $2', batch_size => 500, verify => true, row_check => 'n = 1') > 0 AS created;
CALL bbm_run('verified');
SELECT batches, rows, last_progress_at = (SELECT max(j.finished_at) FROM batched_background_migration_jobs j WHERE j.batched_background_migration_id = v.id AND j.phase = 'verify') AS progress
FROM bbm_migration_metrics JOIN batched_background_migrations v ON v.name = migration WHERE migration = 'verified';
SELECT bbm_create('not verified', 'items', 'UPDATE items SET n = 1 WHERE id BETWEEN $1 AND $2', batch_size => 1000, max_attempts => 2, verify => true, row_check => '1 / (n - 1) = 1') > 0 AS created;
\set VERBOSITY sqlstate
CALL bbm_run('not verified');
\set VERBOSITY default
SELECT batches, rows, failures, jobs_failed FROM bbm_migration_metrics WHERE migration = 'not verified';

-- failed attempts, and a retry that gives new ones
CREATE FUNCTION fails_at_700(lo int, hi int) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF 700 BETWEEN lo AND hi AND NOT EXISTS (SELECT FROM items WHERE id = 700 AND n < 0) THEN
        RAISE EXCEPTION 'not yet';
    END IF;
    RETURN 0;
END $$;
SELECT bbm_create('fails', 'items', 'fails_at_700', batch_size => 100, max_attempts => 3) > 0 AS created;
CALL bbm_run('fails');
SELECT * FROM metrics('fails');
UPDATE items SET n = -1 WHERE id = 700;
SELECT bbm_retry('fails');
CALL bbm_run('fails');
SELECT * FROM metrics('fails');

-- quarantined rows
SELECT bbm_update('splits', 'items', 'n = n / (id % 400)', batch_size => 100, max_attempts => 1, on_error => 'split') > 0 AS created;
CALL bbm_run('splits');
SELECT * FROM metrics('splits');

-- requeues by reason
CREATE SEQUENCE calls;
CREATE FUNCTION requeued(min int, max int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    CASE nextval('calls')
        WHEN 1, 3 THEN RAISE 'somebody has it' USING ERRCODE = 'lock_not_available';
        WHEN 2 THEN RAISE 'not now' USING ERRCODE = 'serialization_failure';
        ELSE RETURN 0;
    END CASE;
END $$;
SELECT bbm_create('requeued', 'items', 'requeued', batch_size => 1000) > 0 AS created;
CALL bbm_run('requeued');
SELECT * FROM bbm_requeue_metrics ORDER BY migration, reason;

-- throttled, and by what
SELECT bbm_update('waits', 'items', 'n = n', start => true, settings => ARRAY['bbm.condition=false']) > 0 AS created;
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/wait_for.inc'
\i :helper
SELECT wait_for($$EXISTS (SELECT FROM bbm_wait_metrics WHERE migration = 'waits' AND reason = 'condition' AND now AND seconds > 0.3)$$);
SELECT seconds AS before FROM bbm_wait_metrics WHERE migration = 'waits' AND reason = 'condition' \gset
SELECT wait_for(format($$EXISTS (SELECT FROM bbm_wait_metrics WHERE migration = 'waits' AND reason = 'condition' AND seconds > %s)$$, :before + 0.3));
SELECT migration, reason, now FROM bbm_wait_metrics WHERE reason = 'condition';
-- it has no jobs yet, and its counters are seen before they grow
SELECT reason, requeues FROM bbm_requeue_metrics WHERE migration = 'waits';
SELECT bbm_alter('waits', settings => '{}');
SELECT bbm_wait('waits');
SELECT migration, reason, now FROM bbm_wait_metrics WHERE reason = 'condition' AND seconds > 0.6;

-- members of pg_monitor see all, others their own
CREATE ROLE regress_bbm_monitor IN ROLE pg_monitor;
CREATE ROLE regress_bbm_nobody;
SET ROLE regress_bbm_monitor;
SELECT count(*) FROM bbm_migration_metrics;
SELECT count(*) FROM bbm_requeue_metrics;
SELECT count(*) FROM bbm_wait_metrics WHERE reason = 'condition';
SET ROLE regress_bbm_nobody;
SELECT count(*) FROM bbm_migration_metrics;
SELECT count(*) FROM bbm_requeue_metrics;
SELECT count(*) FROM bbm_wait_metrics WHERE reason = 'condition';
RESET ROLE;
DROP ROLE regress_bbm_monitor, regress_bbm_nobody;

-- a migration that finished a day ago is no time series any more
ALTER TABLE batched_background_migrations DISABLE TRIGGER bbm_guard;
UPDATE batched_background_migrations SET finished_at = now() - interval '25 hours' WHERE name IN ('single', 'fails', 'requeued');
ALTER TABLE batched_background_migrations ENABLE TRIGGER bbm_guard;
SELECT migration FROM bbm_migration_metrics ORDER BY 1;
SELECT count(*) FROM bbm_requeue_metrics;

DROP EXTENSION bbm;
DROP TABLE items;
DROP SEQUENCE calls;
DROP FUNCTION metrics, slow, fails_at_700, requeued, wait_for;
ALTER SYSTEM RESET bbm.min_pace;
ALTER SYSTEM RESET bbm.job_retention;
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();
