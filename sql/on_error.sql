-- What becomes of a job that has used up its attempts: on_error.

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
-- without pauses for busy CPUs
ALTER SYSTEM SET bbm.min_pace = 1;
ALTER SYSTEM SET bbm.retry_delay = '1 ms';
SELECT pg_reload_conf();
\c -
\set VERBOSITY terse
\set SHOW_CONTEXT never

CREATE TABLE poison (id bigint PRIMARY KEY, v text NOT NULL, n integer, done integer NOT NULL DEFAULT 0);
INSERT INTO poison SELECT i, i::text FROM generate_series(1, 100) i;
UPDATE poison SET v = 'bad' WHERE id IN (13, 14, 77);
CREATE VIEW quarantined AS
    SELECT m.name, e.min_value, e.max_value, e.min_key, e.max_key, e.error_sqlstate, e.error_message
    FROM batched_background_migrations m JOIN bbm_migration_errors e ON e.migration = m.name ORDER BY m.id, e.min_value, e.min_key;

-- fail is the default
SELECT bbm_update('fails', 'poison', 'n = v::integer, done = done + 1', batch_size => 10, max_attempts => 2);
CALL bbm_run('fails');
-- what to do about it
SELECT error_hint = hint AS shown, hint FROM batched_background_migrations m JOIN bbm_status_detail('fails') s USING (id);
-- an error with a hint of its own, and no key to split by
CREATE FUNCTION hints(table_name text, column_name text, min bigint, max bigint, batch_size int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    RAISE 'no luck' USING ERRCODE = 'data_exception', HINT = 'Try your luck.';
END $$;
CREATE INDEX poison_n ON poison (n);
SELECT bbm_create('no key', 'poison', 'hints', 'n', batching_strategy => 'NullKeySetBatchingStrategy', batch_size => 10, max_attempts => 1) > 0 AS created;
CALL bbm_run('no key');
SELECT error_hint FROM batched_background_migrations WHERE name = 'no key';
SELECT bbm_drop('no key');
DROP INDEX poison_n;
DROP FUNCTION hints;
SELECT bbm_drop('fails');
UPDATE poison SET n = NULL, done = 0;

-- split does all but the rows that cannot be done, and records those
SELECT bbm_update('splits', 'poison', 'n = v::integer, done = done + 1', batch_size => 10, max_attempts => 2, on_error => 'split');
CALL bbm_run('splits');
SELECT count(*) FILTER (WHERE done = 1 AND n = id) AS done, count(*) FILTER (WHERE done <> 1) AS not_done FROM poison;
SELECT * FROM quarantined WHERE name = 'splits';
SELECT status, rows_done, jobs_failed, last_error FROM bbm_status_detail('splits');
-- finished, but bbm_ensure_finished does not accept it
SELECT bbm_ensure_finished('splits');
\set VERBOSITY default
SELECT bbm_ensure_finished('splits');
\set VERBOSITY terse
-- so does the event
SELECT event, status, detail FROM bbm_events WHERE name = 'splits' AND event = 'finished';

-- equal errors are one row
SELECT migration, error_sqlstate, error_message, count, first_key, last_key, first_at <= last_at AS at, relations FROM bbm_errors('splits');

-- they are tried again; what still cannot be done is quarantined once more
UPDATE poison SET v = id::text WHERE id IN (13, 77);
SELECT bbm_retry('splits');
SELECT status FROM bbm_status('splits');
CALL bbm_run('splits');
SELECT count(*) FILTER (WHERE done = 1 AND n = id) AS done, count(*) FILTER (WHERE done <> 1) AS not_done FROM poison;
SELECT * FROM quarantined WHERE name = 'splits';
UPDATE poison SET v = id::text WHERE id = 14;
SELECT bbm_retry('splits');
CALL bbm_run('splits');
SELECT count(*) FILTER (WHERE done = 1 AND n = id) AS done, count(*) FILTER (WHERE done <> 1) AS not_done FROM poison;
SELECT * FROM quarantined WHERE name = 'splits';
SELECT bbm_ensure_finished('splits');
SELECT bbm_retry('splits');

-- while it is still bisecting, too: ranges go on where they were
UPDATE poison SET n = NULL, done = 0;
UPDATE poison SET v = 'bad' WHERE id IN (5, 95);
CREATE FUNCTION stop_at(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    rows bigint;
BEGIN
    UPDATE poison SET n = v::integer, done = done + 1 WHERE id BETWEEN lo AND hi;
    GET DIAGNOSTICS rows = ROW_COUNT;
    IF hi = 50 THEN
        UPDATE batched_background_migrations SET status = 0 WHERE name = 'midway';
    END IF;
    RETURN rows;
END $$;
SELECT bbm_create('midway', 'poison', 'stop_at', batch_size => 10, max_attempts => 1, on_error => 'split');
CALL bbm_run('midway');
SELECT * FROM quarantined WHERE name = 'midway';
UPDATE poison SET v = '5' WHERE id = 5;
SELECT bbm_retry('midway');
CALL bbm_run('midway');
SELECT count(*) FILTER (WHERE done = 1) AS done, count(*) FILTER (WHERE done <> 1) AS not_done FROM poison;
SELECT * FROM quarantined WHERE name = 'midway';

-- skip quarantines the range
UPDATE poison SET v = id::text, n = NULL, done = 0;
UPDATE poison SET v = 'bad' WHERE id = 42;
SELECT bbm_update('skips', 'poison', 'n = v::integer, done = done + 1', batch_size => 10, max_attempts => 1, on_error => 'skip');
CALL bbm_run('skips');
SELECT count(*) FILTER (WHERE done = 1) AS done, count(*) FILTER (WHERE done <> 1) AS not_done FROM poison;
SELECT * FROM quarantined WHERE name = 'skips';
UPDATE poison SET v = '42' WHERE id = 42;
-- also where the sequence of the jobs' ids is behind them
SELECT setval('bbm_jobs_id_seq', 1);
SELECT bbm_retry('skips');
SELECT kind, min_value, max_value, status FROM bbm_jobs('skips') ORDER BY id DESC LIMIT 2;
CALL bbm_run('skips');
SELECT count(*) FILTER (WHERE done = 1) AS done, count(*) FILTER (WHERE done <> 1) AS not_done FROM poison;

-- the newest jobs are retries, and ranges go on after the last range
UPDATE poison SET n = NULL, done = 0;
UPDATE poison SET v = 'bad' WHERE id IN (42, 45);
SELECT bbm_update('grows', 'poison', 'n = v::integer, done = done + 1', batch_size => 10, max_attempts => 1, on_error => 'split', follow => true);
CALL bbm_run('grows');
UPDATE poison SET v = id::text;
INSERT INTO poison SELECT i, i::text FROM generate_series(101, 125) i;
SELECT bbm_retry('grows');
CALL bbm_run('grows');
SELECT kind, min_value, max_value, attempts FROM bbm_jobs('grows') ORDER BY id DESC LIMIT 6;
SELECT count(*) FILTER (WHERE done = 1) AS done, count(*) FILTER (WHERE done <> 1) AS not_done FROM poison;
DELETE FROM poison WHERE id > 100;

-- other keys, sub-batches, ties
CREATE TABLE words (w text NOT NULL, k integer NOT NULL, n integer NOT NULL DEFAULT 0, CHECK (NOT (n > 0 AND w = 'm')), PRIMARY KEY (w, k));
INSERT INTO words SELECT chr(97 + i % 26), i FROM generate_series(0, 103) i;
SELECT bbm_update('words', 'words', 'n = n + 1', batch_size => 9, sub_batch_size => 4, max_attempts => 1, on_error => 'split');
CALL bbm_run('words');
SELECT n, count(*) FROM words GROUP BY n ORDER BY n;
SELECT * FROM quarantined WHERE name = 'words';
CREATE INDEX ON words (w);
UPDATE words SET n = 0;
SELECT bbm_update('ties', 'words', 'n = n + 1', column_name => 'w', batch_size => 10, max_attempts => 1, on_error => 'split');
CALL bbm_run('ties');
SELECT n, count(*) FROM words GROUP BY n ORDER BY n;
SELECT * FROM quarantined WHERE name = 'ties';

-- a key of one column, and of two, in their own order, which is not that of their texts
CREATE TABLE many (k numeric PRIMARY KEY, d integer NOT NULL);
INSERT INTO many SELECT i, CASE WHEN i % 3 = 0 THEN 0 WHEN i = 50 THEN -1 ELSE 1 END FROM generate_series(1, 100) i;
ALTER TABLE many ADD n integer;
SELECT bbm_create('many', 'many', 'UPDATE many SET n = 1 / d + sqrt(d) WHERE k BETWEEN $1 AND $2', batch_size => 10, max_attempts => 1, on_error => 'split') > 0 AS created;
CALL bbm_run('many');
SELECT error_sqlstate, error_message, count, first_key, last_key, error_detail FROM bbm_errors('many');
SELECT migration, count, first_key, last_key FROM bbm_errors() WHERE migration IN ('words', 'ties', 'many', 'skips');
SELECT count(*) FROM bbm_errors('nobody');
SELECT last_error, hint FROM bbm_status_detail('many');
-- what was quarantined of a key that is no number is done when it is tried again: rows, and ranges that were skipped, whole or in parts
UPDATE many SET d = 1;
SELECT bbm_retry('many');
CALL bbm_run('many');
SELECT n, count(*) FROM many GROUP BY n ORDER BY n;
UPDATE many SET d = 0 WHERE k IN (17, 50);
SELECT bbm_update(name, 'many', 'n = n + 1 / d', batch_size => 10, sub_batch_size => part, max_attempts => 1, on_error => 'skip') > 0 AS created
FROM (VALUES ('skipped', NULL), ('skipped parts', 3)) v (name, part);
CALL bbm_run('skipped');
CALL bbm_run('skipped parts');
SELECT n, count(*) FROM many GROUP BY n ORDER BY n;
UPDATE many SET d = 1;
SELECT bbm_retry('skipped'), bbm_retry('skipped parts');
CALL bbm_run('skipped');
CALL bbm_run('skipped parts');
SELECT n, count(*) FROM many GROUP BY n ORDER BY n;
-- ... by a function, too, that processes batch_size rows
CREATE FUNCTION up_to(table_name text, column_name text, min numeric, max numeric, batch_size integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE many SET n = n + 1 / d WHERE k IN (SELECT k FROM many WHERE k BETWEEN min AND max ORDER BY k LIMIT batch_size);
END $$;
UPDATE many SET d = 0 WHERE k IN (17, 50);
SELECT bbm_create(name, 'many', 'up_to', batch_size => 10, sub_batch_size => part, max_attempts => 1, on_error => 'skip') > 0 AS created
FROM (VALUES ('skipped by function', NULL), ('skipped parts by function', 3)) v (name, part);
CALL bbm_run('skipped by function');
CALL bbm_run('skipped parts by function');
UPDATE many SET d = 1;
SELECT bbm_retry('skipped by function'), bbm_retry('skipped parts by function');
CALL bbm_run('skipped by function');
CALL bbm_run('skipped parts by function');
SELECT n, count(*) FROM many GROUP BY n ORDER BY n;
-- ... and that are bisected then
UPDATE many SET d = 0 WHERE k IN (17, 50);
SELECT bbm_create('bisected by function', 'many', 'up_to', batch_size => 10, max_attempts => 1, on_error => 'skip') > 0 AS created;
CALL bbm_run('bisected by function');
SELECT bbm_retry('bisected by function');
SELECT bbm_alter('bisected by function', on_error => 'split');
CALL bbm_run('bisected by function');
UPDATE many SET d = 1;
SELECT n, count(*) FROM many GROUP BY n ORDER BY n;
DROP FUNCTION up_to;
-- errors that differ only in a value are one; what is the same in all is shown, and names tell errors apart
CREATE TABLE valued (id integer PRIMARY KEY, v text NOT NULL, n numeric CONSTRAINT valued_low CHECK (n < 1000) CONSTRAINT valued_high CHECK (n > -1000));
INSERT INTO valued SELECT i, CASE i % 5 WHEN 0 THEN 'x' || i WHEN 1 THEN '2000' WHEN 2 THEN '-2000' WHEN 3 THEN 'NaN' ELSE '1' END FROM generate_series(1, 25) i;
SELECT bbm_update('valued', 'valued', 'n = v::numeric', batch_size => 25, max_attempts => 1, on_error => 'split') > 0 AS created;
CREATE FUNCTION about_rows(lo integer, hi integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'row % of % is not right', lo, '2024-01-31'::date + lo;
END $$;
SELECT bbm_create('about rows', 'valued', 'about_rows', batch_size => 1, max_value => 3, max_attempts => 1, on_error => 'split') > 0 AS created;
CALL bbm_run('valued');
CALL bbm_run('about rows');
SELECT error_sqlstate, error_message, count, first_key, last_key FROM bbm_errors('valued');
SELECT error_sqlstate, error_message, count, first_key, last_key FROM bbm_errors('about rows');
SELECT count(DISTINCT error_message) FROM bbm_migration_errors WHERE migration = 'valued';
SELECT m AS message, bbm_internal.bbm_error_kind(s, m) AS kind
FROM (VALUES ('22P02', 'invalid input value for enum mood: "a "b" 3"'), ('22003', 'value "99999999999" is out of range for type integer'), ('22012', 'division by zero'),
             ('23514', 'new row for relation "t_2" violates check constraint "c 2"'), ('P0001', 'row 17 of 3.5 is -4 (id=18, t1) at 2024-01-31 12:00'),
             ('P0001', 'no rate for 6FA459EA-ee8a-3ca4-894e-db77e160355e'), ('P0001', '')) v (s, m);
DROP FUNCTION about_rows;
DROP TABLE valued;

-- up to a limit
UPDATE poison SET v = 'bad', n = NULL, done = 0;
SELECT bbm_update('limited', 'poison', 'n = v::integer, done = done + 1', batch_size => 10, max_attempts => 1, on_error => 'split', max_errors => 15);
\set VERBOSITY default
CALL bbm_run('limited');
\set VERBOSITY terse
SELECT count(*) FROM quarantined WHERE name = 'limited';
SELECT status, failure_error_code, error_sqlstate FROM batched_background_migrations WHERE name = 'limited';
UPDATE poison SET v = id::text;
SELECT bbm_start('limited');
CALL bbm_run('limited');
SELECT bbm_retry('limited');
CALL bbm_run('limited');
SELECT count(*) FILTER (WHERE done = 1) AS done, count(*) FILTER (WHERE done <> 1) AS not_done FROM poison;

-- an error that is not due to the data quarantines no row
CREATE FUNCTION gone(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM no_such_function(lo);
END $$;
SELECT bbm_create('hopeless', 'poison', 'gone', batch_size => 50, on_error => 'split');
CALL bbm_run('hopeless');
SELECT count(*) FROM quarantined WHERE name = 'hopeless';

-- bad input
\set VERBOSITY default
SELECT bbm_update('bad', 'poison', 'n = 1', on_error => 'ignore');
SELECT bbm_update('bad', 'poison', 'n = 1', max_errors => 0);
SELECT bbm_update('bad', 'poison', 'n = 1', on_error => NULL);
SELECT bbm_update('bad', 'poison', 'n = 1', 'n IS NULL', batching_strategy => 'BlockRangeBatchingStrategy', on_error => 'split');
SELECT bbm_create('bad', 'poison', 'f', column_name => 'n', batching_strategy => 'NullKeySetBatchingStrategy', on_error => 'skip');
\set VERBOSITY terse

-- the settings of the engine's own statements do not apply to the job, not even after a sub-batch has failed
SET enable_seqscan = on;
SET jit = on;
CREATE TABLE pinned (id integer PRIMARY KEY, settings text);
INSERT INTO pinned SELECT i FROM generate_series(1, 20) i;
CREATE FUNCTION note_settings(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    rows bigint;
BEGIN
    IF 5 BETWEEN lo AND hi OR 18 BETWEEN lo AND hi THEN
        RAISE EXCEPTION 'not these';
    END IF;
    -- a failure of its own, and a call of ours in it
    BEGIN
        PERFORM bbm_create('never', 'nowhere', 'nothing');
    EXCEPTION WHEN undefined_table OR undefined_function THEN
        NULL;
    END;
    UPDATE pinned SET settings = current_setting('enable_seqscan') || ' ' || current_setting('jit') WHERE id BETWEEN lo AND hi;
    GET DIAGNOSTICS rows = ROW_COUNT;
    RETURN rows;
END $$;
SELECT bbm_create('pinned', 'pinned', 'note_settings', batch_size => 10, max_attempts => 1, on_error => 'split') > 0 AS created;
CALL bbm_run('pinned');
SELECT settings, count(*) FROM pinned GROUP BY settings ORDER BY settings;
RESET enable_seqscan;
RESET jit;

-- an error that passes says nothing about the row, also when that stands alone
CREATE TABLE busy (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO busy SELECT generate_series(1, 8);
CREATE SEQUENCE tries_of_3;
CREATE FUNCTION busy_at_3(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF lo = 3 AND hi = 3 AND nextval('tries_of_3') = 1 THEN
        RAISE lock_not_available;
    END IF;
    IF 4 BETWEEN lo AND hi THEN
        RAISE EXCEPTION 'not this one';
    END IF;
    UPDATE busy SET n = n + 1 WHERE id BETWEEN lo AND hi;
END $$;
SELECT bbm_create('busy', 'busy', 'busy_at_3', batch_size => 8, max_attempts => 1, on_error => 'split') > 0 AS created;
CALL bbm_run('busy');
SELECT min_value, max_value, error_message FROM quarantined WHERE name = 'busy';
SELECT n, count(*) FROM busy GROUP BY n ORDER BY n;
SELECT last_value AS tries_of_3 FROM tries_of_3;

-- quarantined rows are deleted with the migration
SELECT count(*) > 0 AS some FROM bbm_row_errors;
SELECT bbm_drop(name) FROM batched_background_migrations ORDER BY id;
SELECT count(*) FROM bbm_row_errors;
DROP VIEW quarantined;
DROP EXTENSION bbm;

-- in another extension ids begin anew: what this session knows of the jobs of the first one is not taken for its
CREATE EXTENSION bbm;
UPDATE poison SET n = NULL, done = 0, v = CASE WHEN id IN (5, 45, 85) THEN 'bad' ELSE id::text END;
SELECT bbm_update('one', 'poison', 'n = v::integer, done = done + 1', batch_size => 34, max_attempts => 1, on_error => 'split');
CALL bbm_run('one');
UPDATE poison SET v = id;
SELECT bbm_retry('one');
CALL bbm_run('one');
SELECT id, kind FROM bbm_jobs('one') ORDER BY id;
DROP EXTENSION bbm;
CREATE EXTENSION bbm;
UPDATE poison SET n = NULL, done = 0, v = CASE WHEN id = 5 THEN 'bad' ELSE id::text END;
SELECT bbm_update('other', 'poison', 'n = v::integer, done = done + 1', batch_size => 20, max_attempts => 1, on_error => 'split');
CALL bbm_run('other');
UPDATE poison SET v = id;
SELECT bbm_retry('other');
CALL bbm_run('other');
SELECT id, kind FROM bbm_jobs('other') ORDER BY id;
SELECT done, count(*) FROM poison GROUP BY done;
DROP EXTENSION bbm;
DROP TABLE poison, words, many, pinned, busy;
DROP SEQUENCE tries_of_3;
DROP FUNCTION stop_at, gone, note_settings, busy_at_3;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.min_pace;
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();
