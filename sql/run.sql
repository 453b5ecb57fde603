--
-- CALL bbm_run: what a migration does, batch by batch, in this session.
--

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
-- without pauses for busy CPUs
ALTER SYSTEM SET bbm.min_pace = 1;
ALTER SYSTEM SET bbm.retry_delay = '10 ms';
SELECT pg_reload_conf();
\c -

CREATE FUNCTION jobs(name text) RETURNS TABLE (status text, min_value bigint, max_value bigint, attempts smallint,
                                               rows bigint) LANGUAGE sql AS
    'SELECT status, min_value, max_value, attempts, rows FROM bbm_jobs(name) ORDER BY id';
CREATE FUNCTION outcome(name text) RETURNS TABLE (status smallint, code smallint, sqlstate text, message text)
LANGUAGE sql AS
    'SELECT status, failure_error_code, error_sqlstate, error_message FROM batched_background_migrations m
     WHERE m.name = $1';

-- keys of every width, negative too
CREATE TABLE small (id smallint PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO small VALUES (-32768), (-1), (0), (1), (32766), (32767);
SELECT bbm_create('smallint', 'small', 'UPDATE small SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 2) AS id;
CALL bbm_run('smallint');
SELECT * FROM jobs('smallint');
CREATE TABLE medium (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO medium VALUES (-2147483648), (-7), (-6), (12), (2147483646), (2147483647);
SELECT bbm_create('integer', 'medium', 'UPDATE medium SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 3) AS id;
CALL bbm_run('integer');
SELECT * FROM jobs('integer');
CREATE TABLE large (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO large VALUES (-9223372036854775808), (-3), (-2), (-1), (0), (9223372036854775806), (9223372036854775807);
SELECT bbm_create('bigint', 'large', 'UPDATE large SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 3) AS id;
CALL bbm_run('bigint');
SELECT * FROM jobs('bigint');
SELECT n, count(*) FROM (SELECT n FROM small UNION ALL SELECT n FROM medium UNION ALL SELECT n FROM large) a GROUP BY n;

-- the ranges follow each other without a gap in the key, whatever gaps there are in the rows
DELETE FROM large WHERE n = 1;
INSERT INTO large VALUES (5), (1000000000000), (1000000000001), (7000000000000000000);
SELECT bbm_create('gaps', 'large', 'UPDATE large SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 1) AS id;
CALL bbm_run('gaps');
SELECT * FROM jobs('gaps');

-- min_value and max_value are honoured, both inclusive
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, filled int);
INSERT INTO t SELECT generate_series(1, 20);
SELECT bbm_create('bounds', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 4,
                  min_value => 5, max_value => 15) AS id;
CALL bbm_run('bounds');
SELECT * FROM jobs('bounds');
SELECT n, min(id), max(id), count(*) FROM t GROUP BY n, id > 15 ORDER BY 2;
-- wider than the key's type can be
UPDATE t SET n = 0;
SELECT bbm_create('wider', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 15,
                  min_value => -9223372036854775808, max_value => 9223372036854775807) AS id;
CALL bbm_run('wider');
SELECT * FROM jobs('wider');
SELECT n, count(*) FROM t GROUP BY n;
-- ... where the type's highest value is the last of a range, or of a part of one, and where all of the range is beyond the type
CREATE TABLE highest (id smallint PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO highest SELECT generate_series(32748, 32767);
INSERT INTO highest SELECT generate_series(-32768, -32749);
CREATE FUNCTION highest_by_row(low smallint, high smallint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN low::int .. high::int LOOP
        UPDATE highest SET n = n + 1 WHERE id = i;
    END LOOP;
END $$;
SELECT bbm_update('highest', 'highest', 'n = n + 1', batch_size => 4, max_value => 100000) > 0 AS created;
SELECT bbm_update('highest in parts', 'highest', 'n = n + 1', batch_size => 20, sub_batch_size => 1, max_value => 100000) > 0 AS created;
SELECT bbm_create('highest by row', 'highest', 'highest_by_row', batch_size => 10, max_value => 100000) > 0 AS created;
CALL bbm_run('highest');
SELECT n, count(*) FROM highest GROUP BY n;
CALL bbm_run('highest in parts');
SELECT n, count(*) FROM highest GROUP BY n;
CALL bbm_run('highest by row');
SELECT n, count(*) FROM highest GROUP BY n;
SELECT bbm_update('above', 'highest', 'n = 100', min_value => 40000, max_value => 100000) > 0 AS created,
       bbm_create('below', 'highest', 'highest_by_row', min_value => -100000, max_value => -40000) > 0 AS created;
CALL bbm_run('above');
CALL bbm_run('below');
SELECT n, count(*) FROM highest GROUP BY n;
DROP TABLE highest;
DROP FUNCTION highest_by_row;
-- nothing there: one empty job at most, and it is finished
CREATE TABLE empty (id int PRIMARY KEY);
SELECT bbm_create('empty', 'empty', 'DELETE FROM empty WHERE id BETWEEN $1 AND $2') AS id;
CALL bbm_run('empty');
SELECT name, status, percent, rows_done FROM bbm_status('empty');
-- rows that come in beyond the bound while it runs are not its own
SELECT bbm_create('growing', 't', 'WITH grown AS (INSERT INTO t SELECT id + 100 FROM t WHERE id BETWEEN $1 AND $2)
                                   UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 10) AS id;
CALL bbm_run('growing');
SELECT min_value, max_value FROM jobs('growing');
SELECT id > 100 AS new, min(n), max(n), count(*) FROM t GROUP BY 1 ORDER BY 1;
DELETE FROM t WHERE id > 100;
-- the last batch is as small as what is left; exact multiples have no empty one after them
SELECT bbm_create('exact', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 10) AS id;
CALL bbm_run('exact');
SELECT * FROM jobs('exact');
-- a batch that deletes its own keys
SELECT bbm_create('deleting', 't', 'DELETE FROM t WHERE id BETWEEN $1 AND $2 AND id % 2 = 0', batch_size => 6) AS id;
CALL bbm_run('deleting');
SELECT * FROM jobs('deleting');
SELECT count(*), bool_and(id % 2 = 1) FROM t;
INSERT INTO t SELECT generate_series(2, 20, 2);

-- sub-batches: a range of many commits
UPDATE t SET n = 0;
SELECT bbm_create('sub-batches', 't', 'UPDATE t SET n = n + txid_current()::text::bigint % 2 * 0 + 1
                                       WHERE id BETWEEN $1 AND $2',
                  batch_size => 10, sub_batch_size => 3) AS id;
CALL bbm_run('sub-batches');
SELECT * FROM jobs('sub-batches');
SELECT min(n), max(n), count(DISTINCT xmin::text) AS commits FROM t;

-- and a failure in the midst of it costs only the commit that failed
CREATE SEQUENCE sub_tries;
UPDATE t SET n = 0;
SELECT bbm_create('broken in the middle', 't',
                  'UPDATE t SET n = n + CASE WHEN id = 8 THEN 1 / (nextval(''sub_tries'') - 1) ELSE 1 END
                   WHERE id BETWEEN $1 AND $2', batch_size => 10, sub_batch_size => 3) AS id;
CALL bbm_run('broken in the middle');
SELECT * FROM jobs('broken in the middle');
SELECT min(n), max(n) FROM t;

-- functions: those that count are believed, for others the rows of the table are counted
CREATE FUNCTION f_count(min int, max int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2; RETURN 7; END $$;
CREATE FUNCTION f_null(min int, max int) RETURNS bigint LANGUAGE sql AS 'SELECT NULL::bigint';
CREATE FUNCTION f_small(min int, max int) RETURNS smallint LANGUAGE sql AS 'SELECT 3::smallint';
CREATE FUNCTION f_void(min int, max int) RETURNS void LANGUAGE sql AS
    'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2';
CREATE FUNCTION f_text(min int, max int) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN DELETE FROM t WHERE id BETWEEN $1 AND $2 AND id = 1; INSERT INTO t VALUES (1); RETURN 'x'; END $$;
CREATE FUNCTION f_registry(table_name text, column_name text, min int, max int, batch_size int) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO calls VALUES (table_name, column_name, min, max, batch_size);
    EXECUTE format('UPDATE %s SET n = n + 1 WHERE %I BETWEEN $1 AND $2', table_name, column_name) USING min, max;
END $$;
CREATE TABLE calls (table_name text, column_name text, min int, max int, batch_size int);
UPDATE t SET n = 0;
SELECT f, bbm_create(f, 't', f, batch_size => 15)
FROM unnest('{f_count,f_null,f_small,f_void,f_registry}'::text[]) f;
CALL bbm_run();
SELECT name, status, rows_done, jobs_finished FROM bbm_status_detail() WHERE name LIKE 'f\_%';
SELECT * FROM calls;
SELECT min(n), max(n) FROM t;
SELECT bbm_create('f_text', 't', 'f_text', max_value => 1) AS id;
CALL bbm_run('f_text');

-- while the column is null somewhere
CREATE INDEX ON t (filled);
SELECT bbm_create('null', 't', 'UPDATE t SET filled = id WHERE id IN
                                (SELECT id FROM t WHERE filled IS NULL ORDER BY id LIMIT $3)',
                  column_name => 'filled', batching_strategy => 'NullKeySetBatchingStrategy', batch_size => 8) AS id;
CALL bbm_run('null');
SELECT * FROM jobs('null');
SELECT count(*), count(filled) FROM t;
-- nothing is null: it has nothing to do
SELECT bbm_create('null again', 't', 'UPDATE t SET filled = id WHERE filled IS NULL',
                  column_name => 'filled', batching_strategy => 'NullKeySetBatchingStrategy') AS id;
CALL bbm_run('null again');
SELECT count(*) FROM jobs('null again');
-- a job that leaves them null does not go on for ever
UPDATE t SET filled = NULL WHERE id IN (3, 7);
SELECT bbm_create('null for ever', 't', 'UPDATE t SET filled = id WHERE filled IS NULL AND id <> 7',
                  column_name => 'filled', batching_strategy => 'NullKeySetBatchingStrategy', max_attempts => 3) AS id;
CALL bbm_run('null for ever');
SELECT * FROM jobs('null for ever');
SELECT * FROM outcome('null for ever');
UPDATE t SET filled = id WHERE filled IS NULL;
CALL bbm_run('null for ever');
SELECT status FROM bbm_status('null for ever');

-- a batch that fails is tried again, after the new ranges, and the rest is done
CREATE SEQUENCE tries;
UPDATE t SET n = 0;
SELECT bbm_create('third time lucky', 't', 'UPDATE t SET n = n + CASE WHEN id = 6 THEN 1 / greatest(nextval(''tries'') - 2, 0)
                                            ELSE 1 END WHERE id BETWEEN $1 AND $2', batch_size => 5) AS id;
CALL bbm_run('third time lucky');
SELECT * FROM jobs('third time lucky');
-- in the order in which they were done: new ranges come first
SELECT min_value FROM bbm_jobs('third time lucky') ORDER BY finished_at;
SELECT min(n), max(n) FROM t;
SELECT * FROM outcome('third time lucky');
-- until its attempts are used up: the migration has failed, code 4
SELECT bbm_create('hopeful', 't', 'UPDATE t SET n = n + 1 / (id - 6) WHERE id BETWEEN $1 AND $2', batch_size => 5) AS id;
CALL bbm_run('hopeful');
SELECT * FROM jobs('hopeful');
SELECT * FROM outcome('hopeful');
SELECT failure_error_code, error_sqlstate, error_message FROM bbm_jobs('hopeful') WHERE status = 'failed';
-- and goes on, with fresh attempts, when the cause is corrected
SELECT bbm_alter('hopeful', job => 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2');
CALL bbm_run('hopeful');
SELECT * FROM jobs('hopeful');
SELECT * FROM outcome('hopeful');

-- a permanent error fails the migration at once, with its code
CREATE FUNCTION f_raise(min int, max int) RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE current_setting('regress.job'); END $$;
SELECT bbm_create('raising', 't', 'f_raise', batch_size => 10) AS id;
\set VERBOSITY terse
SET regress.job = 'SELECT * FROM nowhere';
CALL bbm_run('raising');
SELECT * FROM outcome('raising');
SELECT status, attempts FROM jobs('raising');
SET regress.job = 'SELECT nothing FROM t';
CALL bbm_run('raising');
SELECT * FROM outcome('raising');
SET regress.job = 'SELECT no_such_function()';
CALL bbm_run('raising');
SELECT * FROM outcome('raising');
SET regress.job = 'SELEKT';
CALL bbm_run('raising');
SELECT * FROM outcome('raising');
SET regress.job = $$DO 'BEGIN RAISE ''no'' USING ERRCODE = ''insufficient_privilege''; END'$$;
CALL bbm_run('raising');
SELECT * FROM outcome('raising');
\set VERBOSITY default
-- a job is one transaction: it may not end it
SET regress.job = 'COMMIT';
CALL bbm_run('raising');
SELECT * FROM outcome('raising');
CREATE PROCEDURE p_commit() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
SET regress.job = 'CALL p_commit()';
CALL bbm_run('raising');
SELECT * FROM outcome('raising');
SELECT status, attempts FROM jobs('raising');
RESET regress.job;
-- at the start, too: table 1, column 2, signature 3, strategy 5
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name,
                                           batching_strategy)
VALUES ('no table', 10, 5, 'f_void', 'public.nowhere', 'id', NULL),
       ('no schema', 10, 5, 'f_void', 'nowhere.t', 'id', NULL),
       ('no column', 10, 5, 'f_void', 'public.t', 'nothing', NULL),
       ('no index', 10, 5, 'f_void', 'public.t', 'n', NULL),
       ('no function', 10, 5, 'no_function', 'public.t', 'id', NULL),
       ('no such parameters', 10, 5, 'f_raise2', 'public.t', 'id', NULL),
       ('no syntax', 10, 5, 'UPDATE t SET', 'public.t', 'id', NULL),
       ('no statement', 10, 5, 'UPDATE t SET n = 1; UPDATE t SET n = 2', 'public.t', 'id', NULL),
       ('no strategy', 10, 5, 'f_void', 'public.t', 'id', 'RandomBatchingStrategy'),
       ('everything wrong but the job', 10, 5, 'f_void', 'public.nowhere', 'nothing', 'RandomBatchingStrategy'),
       ('everything wrong', 10, 5, 'no_function', 'public.nowhere', 'nothing', 'RandomBatchingStrategy');
CREATE FUNCTION f_raise2(text) RETURNS void LANGUAGE sql AS '';
CALL bbm_run('no table');
CALL bbm_run('no schema');
CALL bbm_run('no column');
CALL bbm_run('no index');
CALL bbm_run('no function');
CALL bbm_run('no such parameters');
CALL bbm_run('no syntax');
CALL bbm_run('no statement');
CALL bbm_run('no strategy');
CALL bbm_run('everything wrong but the job');
CALL bbm_run('everything wrong');
SELECT name, status, failure_error_code AS code, error_sqlstate, error_message
FROM batched_background_migrations WHERE name LIKE 'no %' OR name LIKE 'every%' ORDER BY id;

-- settings of a job do not outlive its batch
CREATE FUNCTION f_set(min int, max int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    SET search_path = pg_catalog;
    SET work_mem = '1234kB';
    PERFORM set_config('regress.left', 'behind', false);
END $$;
SET work_mem = '2MB';
SELECT bbm_create('settings', 't', 'f_set', batch_size => 10) AS id;
CALL bbm_run('settings');
SHOW search_path;
SHOW work_mem;
SHOW lock_timeout;
SHOW synchronous_commit;
SELECT current_setting('regress.left', true);
RESET work_mem;

-- a job is planned as its session says; our statements never scan a whole table by choice, and are not compiled
CREATE TABLE planned (of text, enable_seqscan text, jit text, UNIQUE (of, enable_seqscan, jit));
CREATE FUNCTION note_settings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.planned VALUES (TG_ARGV[0], current_setting('enable_seqscan'), current_setting('jit'))
        ON CONFLICT DO NOTHING;
    RETURN NEW;
END $$;
CREATE TRIGGER noted BEFORE INSERT ON batched_background_migration_jobs FOR EACH ROW EXECUTE FUNCTION note_settings('us');
CREATE TRIGGER noted BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note_settings('job');
SET jit = on;
SELECT bbm_create('planned', 't', 'UPDATE t SET n = n WHERE id BETWEEN $1 AND $2', batch_size => 10) > 0 AS created;
CALL bbm_run('planned');
SHOW jit;
SHOW enable_seqscan;
SELECT * FROM planned ORDER BY of;
DROP TRIGGER noted ON batched_background_migration_jobs;
DROP TRIGGER noted ON t;
DROP FUNCTION note_settings;
DROP TABLE planned;
RESET jit;

-- deferred constraints of a batch are due in the batch
CREATE TABLE deferred (id int PRIMARY KEY, ref int REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO deferred VALUES (1, 1), (2, 2);
SELECT bbm_create('deferred', 'deferred', 'UPDATE deferred SET ref = 1000 * id - 998 WHERE id BETWEEN $1 AND $2',
                  batch_size => 1, max_attempts => 2) AS id;
CALL bbm_run('deferred');
SELECT * FROM jobs('deferred');
SELECT * FROM outcome('deferred');
SELECT * FROM deferred ORDER BY id;

-- where it can not be called, and what for
BEGIN;
CALL bbm_run('exact');
ROLLBACK;
DO $$ BEGIN CALL bbm_run('exact'); END $$;
CREATE FUNCTION f_run() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL bbm_run('exact'); END $$;
SELECT f_run();
CREATE PROCEDURE p_run() LANGUAGE plpgsql AS $$ BEGIN CALL bbm_run('exact'); END $$;
CALL p_run();
CALL bbm_run('nobody');
CALL bbm_run('exact');
-- all: the paused ones too, but not what has failed
SELECT bbm_create('one of all', 't', 'f_void') > 0 AND bbm_create('another', 't', 'f_void') > 0 AS created;
CALL bbm_run();
SELECT name, status FROM bbm_status() WHERE status NOT IN ('finished', 'failed');
CALL bbm_run();
-- isolation levels of the session do not matter
SET default_transaction_isolation = 'serializable';
SET default_transaction_read_only = on;
SET default_transaction_deferrable = on;
CALL bbm_run('one of all');
RESET default_transaction_read_only;
SELECT bbm_create('serializable', 't', 'f_void', batch_size => 6) > 0 AS created;
SET default_transaction_read_only = on;
CALL bbm_run('serializable');
SHOW transaction_isolation;
RESET default_transaction_isolation;
RESET default_transaction_read_only;
RESET default_transaction_deferrable;
SELECT status, rows_done FROM bbm_status('serializable');

SET client_min_messages = warning;
DROP EXTENSION bbm;
DROP TABLE small, medium, large, t, empty, calls, deferred;
DROP SEQUENCE tries, sub_tries;
DROP FUNCTION jobs, outcome, f_count, f_null, f_small, f_void, f_text, f_registry, f_raise, f_raise2, f_set, f_run;
DROP PROCEDURE p_commit, p_run;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.min_pace;
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();
