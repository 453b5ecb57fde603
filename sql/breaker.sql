--
-- max_failed_share pauses a migration when too many of its last jobs fail; finish_by shows whether it is late.
--

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
-- without pauses for busy CPUs
ALTER SYSTEM SET bbm.min_pace = 1;
ALTER SYSTEM SET bbm.retry_delay = '1 ms';
SELECT pg_reload_conf();
\c -
SET client_min_messages = warning;
CREATE TABLE t (id int PRIMARY KEY, d int NOT NULL DEFAULT 1, n int);
INSERT INTO t SELECT i FROM generate_series(1, 600) i;

-- of sixty jobs each second one fails, once there are twenty
UPDATE t SET d = 0 WHERE id % 20 = 15;
SELECT bbm_create('trips', 't', 'UPDATE t SET n = 1 / d WHERE id BETWEEN $1 AND $2', batch_size => 10, max_attempts => 2,
                  on_error => 'split', max_errors => 1000, max_failed_share => 0.4) > 0 AS created;
CALL bbm_run('trips');
SELECT name, status, last_error, jobs_finished, jobs_failed FROM bbm_status_detail('trips');
SELECT error_sqlstate, error_message, error_detail, error_hint, failure_error_code FROM batched_background_migrations WHERE name = 'trips';
SELECT event, status, detail FROM bbm_events WHERE name = 'trips' ORDER BY id;
-- started again, it counts anew: what failed before counts only if it fails again
CALL bbm_run('trips');
SELECT name, status, last_error, jobs_finished, jobs_failed FROM bbm_status_detail('trips');
-- a fifth of the jobs may fail
UPDATE t SET d = 1 WHERE id % 100 <> 15;
CALL bbm_run('trips');
SELECT name, status, jobs_finished, last_error FROM bbm_status_detail('trips');
SELECT error_message, count, first_key, last_key FROM bbm_errors('trips');

-- without a limit, and with fewer jobs than twenty
UPDATE t SET d = 0 WHERE id % 20 = 15;
SELECT bbm_create('unlimited', 't', 'UPDATE t SET n = 1 / d WHERE id BETWEEN $1 AND $2', batch_size => 10, max_attempts => 1,
                  on_error => 'split', max_errors => 1000) > 0 AS created;
CALL bbm_run('unlimited');
SELECT bbm_create('few', 't', 'UPDATE t SET n = 1 / d WHERE id BETWEEN $1 AND $2', batch_size => 10, max_attempts => 1, max_value => 190,
                  on_error => 'split', max_errors => 1000, max_failed_share => 0) > 0 AS created;
CALL bbm_run('few');
SELECT name, status, jobs_finished FROM bbm_status_detail() WHERE name IN ('unlimited', 'few');

-- a range that is skipped has failed as well
SELECT bbm_create('skips', 't', 'UPDATE t SET n = 1 / d WHERE id BETWEEN $1 AND $2', batch_size => 10, max_attempts => 1,
                  on_error => 'skip', max_errors => 1000, max_failed_share => 0.4) > 0 AS created;
CALL bbm_run('skips');
-- just so many may fail: ten of the first twenty
SELECT bbm_create('half', 't', 'UPDATE t SET n = 1 / d WHERE id BETWEEN $1 AND $2', batch_size => 10, max_attempts => 1, max_value => 200,
                  on_error => 'skip', max_errors => 1000, max_failed_share => 0.5) > 0 AS created;
CALL bbm_run('half');
SELECT name, status, jobs_finished FROM bbm_status_detail('half');
-- more of them may fail
SELECT bbm_alter('skips', max_failed_share => 1);
CALL bbm_run('skips');
SELECT name, status, jobs_finished FROM bbm_status_detail('skips');

-- what it may be
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/fails.inc'
\i :helper
SELECT share, e.* FROM unnest(ARRAY['1.1', '-0.1', 'NaN', 'Infinity']) share
CROSS JOIN LATERAL fails(format('SELECT bbm_update(''bad'', ''t'', ''n = 1'', max_failed_share => %L)', share)) e;
SELECT message FROM fails($$UPDATE batched_background_migrations SET max_failed_share = 2 WHERE name = 'few'$$);

-- on time or late
SELECT bbm_update(name, 't', 'n = 2', finish_by => at) > 0 AS created
FROM (VALUES ('past', '2000-01-01'::timestamptz), ('future', now() + '1 year'), ('never', 'infinity'), ('none', NULL)) v (name, at);
SELECT name, status, schedule FROM bbm_status_detail() WHERE name IN ('past', 'future', 'never', 'none');
CALL bbm_run('past');
CALL bbm_run('future');
SELECT name, status, schedule FROM bbm_status_detail() WHERE name IN ('past', 'future');
SELECT bbm_alter('none', finish_by => '2000-01-01');
SELECT name, finish_by < now() AS finish_by, schedule FROM bbm_status_detail('none');

DROP EXTENSION bbm;
DROP TABLE t;
DROP FUNCTION fails;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.min_pace;
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();
