--
-- CALL bbm_run() as the registry's command line runs migrations: failed ones too,
-- and with as many executions of a job as are asked for.
--

CREATE EXTENSION bbm;
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/fails.inc'
\i :helper
-- nobody but this session, and without the time between attempts
ALTER SYSTEM SET bbm.enabled = off;
ALTER SYSTEM SET bbm.retry_delay = '1ms';
SELECT pg_reload_conf();
\c -
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 10);
-- an execution that fails is seen in a sequence
CREATE SEQUENCE executions;
CREATE TABLE succeeds (after bigint);
INSERT INTO succeeds VALUES (1000);
CREATE FUNCTION job(min int, max int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('executions') <= (SELECT after FROM succeeds) THEN RAISE 'not yet'; END IF;
    UPDATE t SET n = n + 1 WHERE id BETWEEN min AND max;
END $$;

-- fewer than the migration has, and as many as there can be; for this call alone
SELECT bbm_create('one', 't', 'job', batch_size => 10) > 0 AS defined;
CALL bbm_run('one', max_attempts => 2);
SELECT last_value FROM executions;
SELECT status, attempts FROM bbm_jobs('one');
SELECT max_attempts, status FROM batched_background_migrations;
SELECT setval('executions', 1, false);
CALL bbm_run('one', 7);
SELECT last_value FROM executions;
SELECT attempts FROM bbm_jobs('one');
SELECT setval('executions', 1, false);
CALL bbm_run('one');
SELECT last_value FROM executions;
-- more than its own
SELECT setval('executions', 1, false);
UPDATE succeeds SET after = 8;
CALL bbm_run('one', max_attempts => 10);
SELECT last_value FROM executions;
SELECT n, count(*) FROM t GROUP BY n;
CALL bbm_run('one', max_attempts => 10);

-- all of the session's role: those that have failed only when asked for
UPDATE succeeds SET after = 1000;
SELECT bbm_create('failed', 't', 'job', batch_size => 10, max_attempts => 1) > 0 AS defined;
CALL bbm_run();
SELECT setval('executions', 1, false);
SELECT bbm_create('fresh', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 10) > 0 AS defined;
CALL bbm_run();
SELECT name, status FROM bbm_status();
CALL bbm_run(resume_failed => false);
CALL bbm_run(resume_failed => NULL);
SELECT is_called FROM executions;
UPDATE succeeds SET after = 3;
CALL bbm_run(max_attempts => 4, resume_failed => true);
SELECT name, status FROM bbm_status();
SELECT n, count(*) FROM t GROUP BY n;

-- what cannot be
CALL bbm_run('one', max_attempts => 0);
\echo :LAST_ERROR_SQLSTATE
CALL bbm_run(max_attempts => 101);
CALL bbm_run(max_attempts => -2147483648, resume_failed => true);
-- another role's are not resumed by it
CREATE ROLE regress_bbm_other LOGIN;
GRANT EXECUTE ON PROCEDURE bbm_run TO regress_bbm_other;
UPDATE succeeds SET after = 1000;
SELECT bbm_create('admin''s', 't', 'job', batch_size => 10, max_attempts => 1) > 0 AS defined;
SELECT setval('executions', 1, false);
CALL bbm_run('admin''s');
SET SESSION AUTHORIZATION regress_bbm_other;
CALL bbm_run(resume_failed => true);
RESET SESSION AUTHORIZATION;
SELECT status, (SELECT last_value FROM executions) FROM bbm_status('admin''s');

DROP EXTENSION bbm;
DROP TABLE t, succeeds;
DROP FUNCTION job, fails;
DROP SEQUENCE executions;
DROP ROLE regress_bbm_other;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();
