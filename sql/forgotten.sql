--
-- Values kept in memory are neither lost to others nor outlive what they are for:
-- merging goes by no number that others take, too; a rate is remembered beside any
-- number of migrations; a condition's timer ends with the condition.
--

CREATE EXTENSION bbm;
SET client_min_messages = warning;
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 400);

-- jobs whose ids are not divisible by a power of two, as can happen with one of two migrations
ALTER SEQUENCE bbm_jobs_id_seq INCREMENT BY 2 RESTART WITH 1001;
ALTER SYSTEM SET bbm.job_retention = 0;
SELECT pg_reload_conf();
\c -
SET client_min_messages = warning;
SELECT bbm_create('odd', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 1) > 0 AS created;
CALL bbm_run('odd');
SELECT count(*) < 400 AS merged, sum(jobs) AS jobs, bool_and(id % 2 = 1) AS odd FROM bbm_jobs('odd');
ALTER SYSTEM RESET bbm.job_retention;
SELECT pg_reload_conf();
ALTER SEQUENCE bbm_jobs_id_seq INCREMENT BY 1;

-- a rate, and more migrations after it than are kept in mind
CREATE TABLE slow (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO slow SELECT generate_series(1, 1200);
SELECT bbm_create('rate', 'slow', 'UPDATE slow SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 600,
                  settings => '{bbm.max_row_rate=1}') > 0 AS created;
SELECT bbm_start('rate');
DO $$
BEGIN
    FOR i IN 1 .. 6000 LOOP
        EXIT WHEN (SELECT waiting_on LIKE 'row rate%' FROM bbm_status_detail('rate'));
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT bbm_pause('rate');
SELECT throttles FROM bbm_throttle('rate') WHERE signal = 'row rate';
SELECT count(bbm_create('other ' || i, 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', max_value => 1,
                        share_table => true, settings => '{bbm.max_row_rate=1}'))
FROM generate_series(1, 140) i;
SELECT count(*) > 140 AS shown FROM generate_series(1, 140) i, bbm_throttle('other ' || i);
SELECT throttles FROM bbm_throttle('rate') WHERE signal = 'row rate';
-- it owes no more than it has used
SELECT bbm_alter('rate', settings => '{bbm.max_row_rate=100000}');
SELECT throttles FROM bbm_throttle('rate') WHERE signal = 'row rate';

-- nor does a migration of a re-created extension get what was kept of another migration with the same id
SELECT bbm_create('held', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', settings => ARRAY['bbm.active_hours=' ||
                  to_char(clock_timestamp() AT TIME ZONE 'UTC' + interval '2 days', 'Dy') || ' 10:00-10:01 UTC'], start => true) AS id \gset
DO $$
BEGIN
    FOR i IN 1 .. 6000 LOOP
        EXIT WHEN (SELECT waiting_on LIKE 'active hours%' FROM bbm_status_detail('held'));
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT waiting_on LIKE 'active hours%' AS waits FROM bbm_status_detail('held');
DROP EXTENSION bbm;
CREATE EXTENSION bbm;
SELECT setval(pg_get_serial_sequence('batched_background_migrations', 'id'), :id, false) = :id AS set;
BEGIN;
SELECT bbm_create('anew', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', start => true) = :id AS same_id;
SELECT waiting_on LIKE 'active hours%' AS waits FROM bbm_status_detail('anew');
ROLLBACK;

-- only this session runs what follows
ALTER SYSTEM SET bbm.enabled = off;
SELECT pg_reload_conf();
\c -
SET client_min_messages = warning;
-- what a condition does when this session evaluates it first: session locks count, as nothing else lasts
CREATE FUNCTION asked(which int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 4711 AND objid = which AND pid = pg_backend_pid()) THEN
        PERFORM pg_advisory_lock(4712, which);
        RETURN true;
    END IF;
    PERFORM pg_advisory_lock(4711, which);
    RETURN false;
END $$;
-- an error after the timer has fired in what nothing interrupts: the cancel hits nothing else
CREATE TABLE text (hay text, needle text);
INSERT INTO text VALUES (repeat('a', 80000), 'b' || repeat('a', 25000));
SELECT bbm_create('late', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 400, settings => ARRAY[
    'bbm.condition=SELECT CASE WHEN public.asked(1) THEN true ELSE 1 / position(needle IN hay) = 1 END '
    'FROM (SELECT hay || '''' AS hay, needle || '''' AS needle FROM public.text OFFSET 0) t']) > 0 AS created;
CALL bbm_run('late');
SELECT status FROM bbm_status('late');
SELECT count(*) = 1 AS asked_again FROM pg_locks WHERE locktype = 'advisory' AND classid = 4712 AND pid = pg_backend_pid();
-- and one that catches the cancel is not met by it
CREATE FUNCTION catches() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF public.asked(2) THEN
        RETURN true;
    END IF;
    BEGIN
        PERFORM pg_sleep(60);
    EXCEPTION WHEN query_canceled THEN
        NULL;
    END;
    RETURN true;
END $$;
SELECT bbm_create('caught', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 400,
                  settings => '{bbm.condition=SELECT public.catches()}') > 0 AS created;
CALL bbm_run('caught');
SELECT status FROM bbm_status('caught');
SELECT count(*) = 2 AS asked_again FROM pg_locks WHERE locktype = 'advisory' AND classid = 4712 AND pid = pg_backend_pid();

ALTER SYSTEM RESET bbm.enabled;
SELECT pg_reload_conf();
DROP EXTENSION bbm;
DROP TABLE t, slow, text;
DROP FUNCTION asked, catches;
