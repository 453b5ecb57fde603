--
-- The settings exist, are documented, have units and are checked; nobody can add one.
--

CREATE EXTENSION bbm;
SELECT name, boot_val, unit, context, vartype, min_val, max_val FROM pg_settings WHERE name LIKE 'bbm.%' ORDER BY name;
SELECT name, short_desc, extra_desc FROM pg_settings WHERE name LIKE 'bbm.%' ORDER BY name;
SELECT name FROM pg_settings WHERE name LIKE 'bbm.%' AND (short_desc IS NULL OR category <> 'Customized Options');

-- what only the session sees is the session's
SET bbm.progress_interval = '1 min';
RESET bbm.progress_interval;
\set VERBOSITY sqlstate
SET bbm.progress_interval = -1;
-- one value for the server: a session gives itself no more
SET bbm.enabled = off;
SET bbm.max_workers = 100;
SET bbm.naptime = 1;
SET bbm.lock_timeout = '1 h';
SET bbm.retry_delay = 1;
SET bbm.job_retention = 0;
SET bbm.log_min_duration = 0;
-- checked when they are written down
ALTER SYSTEM SET bbm.lock_timeout = 0;
ALTER SYSTEM SET bbm.lock_timeout = '-1s';
ALTER SYSTEM SET bbm.lock_timeout = 'soon';
ALTER SYSTEM SET bbm.naptime = '-1';
ALTER SYSTEM SET bbm.max_workers = 0;
ALTER SYSTEM SET bbm.max_workers = 257;
ALTER SYSTEM SET bbm.retry_delay = '0';
ALTER SYSTEM SET bbm.retry_max_delay = '0';
ALTER SYSTEM SET bbm.job_retention = -2;
ALTER SYSTEM SET bbm.event_retention = -2;
ALTER SYSTEM SET bbm.log_min_duration = -2;
ALTER SYSTEM SET bbm.enabled = 'perhaps';
\set VERBOSITY default
-- the prefix is reserved
SET bbm.max_wokers = 3;
SELECT set_config('bbm.anything', '1', false);

-- units
ALTER SYSTEM SET bbm.lock_timeout = '2 min';
ALTER SYSTEM SET bbm.naptime = '1 h';
ALTER SYSTEM SET bbm.event_retention = '2 d';
SELECT pg_reload_conf();
\c -
SHOW bbm.lock_timeout;
SHOW bbm.naptime;
SHOW bbm.event_retention;
ALTER SYSTEM RESET bbm.lock_timeout;
ALTER SYSTEM RESET bbm.naptime;
ALTER SYSTEM RESET bbm.event_retention;

-- the switch: while it is off no worker starts, and the reason is shown
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 10);
SELECT bbm_create('switched', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2') > 0 AS created;
ALTER SYSTEM SET bbm.enabled = off;
SELECT pg_reload_conf();
\c -
SHOW bbm.enabled;
SELECT bbm_launch_worker();
SELECT bbm_start('switched');
SELECT bbm_wait('switched', '300 ms');
SELECT name, status, workers, waiting_on FROM bbm_status_detail();
ALTER SYSTEM RESET bbm.enabled;
SELECT pg_reload_conf();
\c -
SELECT bbm_wait('switched', '1 minute');
SELECT min(n), max(n) FROM t;

-- finished neighbours are merged into one row, which says how many it stands for;
-- without pauses, and alone: a merge comes once in so many jobs of a process, and a worker would do some of them
ALTER SYSTEM SET bbm.enabled = off;
ALTER SYSTEM SET bbm.job_retention = 0;
ALTER SYSTEM SET bbm.min_pace = 1;
SELECT pg_reload_conf();
\c -
CREATE TABLE many (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO many SELECT generate_series(1, 400);
SELECT bbm_create('merged', 'many', 'UPDATE many SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 1) > 0 AS created;
-- two are done, not at the first try
ALTER TABLE batched_background_migration_jobs DISABLE TRIGGER bbm_guard;
INSERT INTO batched_background_migration_jobs (batched_background_migration_id, min_value, max_value, key_count, row_count,
                                               status, requeued, requeue_reasons)
SELECT m.id, k, k, 1, 1, 2, v.n, v.reasons FROM batched_background_migrations m,
    (VALUES (1, 3, '{"lock timeout": 1, "deadlock": 2}'::jsonb), (2, 2, '{"deadlock": 1, "other": 1}')) v (k, n, reasons) WHERE m.name = 'merged';
ALTER TABLE batched_background_migration_jobs ENABLE TRIGGER bbm_guard;
UPDATE many SET n = 1 WHERE id <= 2;
CALL bbm_run('merged');
SELECT count(*) < 400 AS fewer, sum(jobs), sum(rows), min(min_value), max(max_value),
       sum(max_value - min_value + 1) AS keys, count(*) FILTER (WHERE status <> 'finished') AS unfinished
FROM bbm_jobs('merged');
SELECT name, status, percent, rows_done, jobs_finished, requeued, requeue_reasons FROM bbm_status_detail('merged');
SELECT jobs > 2 AS merged, requeued, requeue_reasons FROM bbm_jobs('merged') WHERE requeued > 0;
ALTER SYSTEM SET bbm.job_retention = -1;
SELECT pg_reload_conf();
\c -
SELECT bbm_create('kept', 'many', 'UPDATE many SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 1) > 0 AS created;
CALL bbm_run('kept');
SELECT count(*), sum(jobs), sum(rows), min(min_value), max(max_value) FROM bbm_jobs('kept');
SELECT min(n), max(n) FROM many;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.job_retention;
ALTER SYSTEM RESET bbm.min_pace;
SELECT pg_reload_conf();

-- events are forgotten in time
ALTER SYSTEM SET bbm.event_retention = '1 d';
SELECT pg_reload_conf();
\c -
UPDATE bbm_events SET at = at - interval '25 hours' WHERE name IN ('switched', 'merged');
SELECT bbm_create('later', 'many', 'UPDATE many SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 1000) > 0 AS created;
CALL bbm_run('later');
SELECT name, count(*) FROM bbm_events GROUP BY name ORDER BY name;
ALTER SYSTEM RESET bbm.event_retention;
SELECT pg_reload_conf();

DROP EXTENSION bbm;
DROP TABLE t, many;
