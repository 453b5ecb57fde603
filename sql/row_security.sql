--
-- Row security, grants, rules and statement triggers that a table has and its partitions, or an index, have not.
--

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
SELECT pg_reload_conf();
\c -
SET client_min_messages = warning;
SELECT current_user AS admin \gset
CREATE ROLE bbm_rls_app LOGIN;
GRANT USAGE ON SCHEMA public TO bbm_rls_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON batched_background_migrations TO bbm_rls_app;
GRANT SELECT ON batched_background_migration_jobs TO bbm_rls_app;
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid::regprocedure FROM pg_proc p WHERE p.proname ~ '^bbm_' AND p.prokind IN ('f', 'p') LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO bbm_rls_app', f);
    END LOOP;
END $$;
CREATE FUNCTION outcome() RETURNS TABLE (status smallint, code smallint, partition_order text, message text) LANGUAGE sql AS
    'SELECT status, failure_error_code, partition_order, error_message FROM batched_background_migrations WHERE name = ''m''';

-- a plain table: no key of a row that the owner may not see, in jobs, bounds, errors and estimates
CREATE TABLE secret (id int PRIMARY KEY, mine boolean NOT NULL, n int NOT NULL DEFAULT 0, k text UNIQUE NOT NULL, gone int);
CREATE INDEX ON secret (gone);
INSERT INTO secret SELECT i, i % 10 = 0, 0, 'k' || i FROM generate_series(1, 105) i;
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON secret TO bbm_rls_app USING (mine);
GRANT SELECT, UPDATE ON secret TO bbm_rls_app;
ANALYZE secret;
\c - bbm_rls_app
SET client_min_messages = warning;
SELECT bbm_update('m', 'secret', 'n = n + 1', batch_size => 1) > 0 AS defined;
SELECT min_value, max_value FROM batched_background_migrations;
SELECT jobs, keys, rows FROM bbm_dry_run('m', 3);
CALL bbm_run('m');
SELECT min_value, max_value, key_count, row_count FROM batched_background_migration_jobs ORDER BY id;
SELECT bbm_drop('m'), bbm_update('m', 'secret', 'n = n + 1', column_name => 'k', batch_size => 3, verify => true, row_check => 'n = 2') > 0 AS defined;
SELECT min_key, max_key FROM batched_background_migrations;
CALL bbm_run('m');
SELECT min_key, max_key, phase, round, row_count FROM batched_background_migration_jobs ORDER BY id;
SELECT bbm_verify('m', 'n = 0');
SELECT bbm_drop('m'), bbm_update('m', 'secret', 'n = 1 / (id - 50)', batch_size => 30, on_error => 'split', max_attempts => 1) > 0 AS defined;
CALL bbm_run('m');
SELECT min_value, max_value, error_message FROM bbm_migration_errors WHERE migration = 'm';
-- an estimate does not show whether a key exists that the owner may not see
SELECT bbm_drop('m'), bbm_update('m', 'secret', 'n = n + 1', column_name => 'k', batch_size => 3, min_key => '{k51}', max_key => '{k51}') > 0 AS defined;
CALL bbm_run('m');
SELECT total_tuple_count > 1 AS of_all FROM batched_background_migrations;
-- a job that is to be skipped and cannot be read after a part of it: what is done of it is not done again
\c - :admin
SET client_min_messages = warning;
CREATE TABLE unreadable (k text PRIMARY KEY, id int UNIQUE NOT NULL, v text NOT NULL, n int NOT NULL DEFAULT 0);
INSERT INTO unreadable SELECT 'k' || 100 + i, i, i FROM generate_series(1, 20) i;
ALTER TABLE unreadable ENABLE ROW LEVEL SECURITY;
CREATE POLICY readable ON unreadable TO bbm_rls_app USING (v::int > 0);
GRANT SELECT, UPDATE ON unreadable TO bbm_rls_app;
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE unreadable SET v = 'x' WHERE id = 5;
    RETURN NULL;
END $$;
CREATE TRIGGER spoil AFTER UPDATE ON unreadable FOR EACH ROW WHEN (new.id = 2) EXECUTE FUNCTION spoil();
\c - bbm_rls_app
SET client_min_messages = warning;
SELECT bbm_update('skips', 'unreadable', 'n = n + 1', column_name => 'k', batch_size => 10, sub_batch_size => 2, max_attempts => 1, on_error => 'skip') > 0 AS defined;
CALL bbm_run('skips');
SELECT status, last_error FROM bbm_status_detail('skips');
SELECT count(*) FROM bbm_migration_errors WHERE migration = 'skips';
\c - :admin
SET client_min_messages = warning;
DROP TRIGGER spoil ON unreadable;
UPDATE unreadable SET v = id;
SELECT n, count(*) FROM unreadable GROUP BY n ORDER BY n;
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('skips', resume_failed => true);
SELECT bbm_drop('skips');
\c - :admin
SET client_min_messages = warning;
SELECT n, count(*) FROM unreadable GROUP BY n ORDER BY n;
DROP TABLE unreadable;
DROP FUNCTION spoil;
\c - bbm_rls_app
SET client_min_messages = warning;
-- the statistics of ANALYZE are of all rows
SELECT bbm_drop('m'), bbm_update('m', 'secret', 'gone = 1', 'gone IS NULL', column_name => 'gone',
                                 batching_strategy => 'NullKeySetBatchingStrategy', batch_size => 4) > 0 AS defined;
CALL bbm_run('m');
\c - :admin
SET client_min_messages = warning;
SELECT mine, gone, count(*) FROM secret GROUP BY 1, 2 ORDER BY 1, 2;
UPDATE secret SET n = 0;
SELECT bbm_drop('m');

-- row security that comes in mid-run, and goes
CREATE TABLE stop_at (id int);
GRANT SELECT, DELETE ON stop_at TO bbm_rls_app;
CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM stop_at s WHERE s.id = new.id;
    IF found THEN PERFORM bbm_pause('m'); END IF;
    RETURN NULL;
END $$;
ALTER TABLE secret DISABLE ROW LEVEL SECURITY;
CREATE TRIGGER stop AFTER UPDATE ON secret FOR EACH ROW EXECUTE FUNCTION stop();
INSERT INTO stop_at VALUES (12);
SET ROLE bbm_rls_app;
SELECT bbm_update('m', 'secret', 'n = n + 1', batch_size => 5) > 0 AS defined;
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
\c - :admin
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
SELECT min_value, max_value, key_count, row_count FROM batched_background_migration_jobs ORDER BY id;
\c - :admin
SET client_min_messages = warning;
SELECT n, count(*) FROM secret WHERE NOT mine GROUP BY n ORDER BY n;
SELECT bbm_drop('m');

-- partitions: what only the table as a whole has
CREATE PROCEDURE pt() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bbm_drop('m', true);
    DELETE FROM stop_at;
    DROP TABLE IF EXISTS pt;
    CREATE TABLE pt (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, b int) PARTITION BY RANGE (id);
    CREATE TABLE pt_1 PARTITION OF pt FOR VALUES FROM (0) TO (10);
    CREATE TABLE pt_2 PARTITION OF pt FOR VALUES FROM (10) TO (20);
    CREATE TABLE pt_3 PARTITION OF pt FOR VALUES FROM (20) TO (30);
    CREATE INDEX ON pt (b);
    INSERT INTO pt SELECT generate_series(0, 29);
    GRANT SELECT, UPDATE, DELETE ON pt, pt_1, pt_2, pt_3 TO bbm_rls_app;
    CREATE TRIGGER stop AFTER UPDATE ON pt FOR EACH ROW EXECUTE FUNCTION stop();
END $$;
CREATE FUNCTION define(options text DEFAULT '') RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    result boolean;
BEGIN
    SET LOCAL ROLE bbm_rls_app;
    EXECUTE format('SELECT bbm_update(''m'', ''pt'', ''n = n + 1'', batch_size => 4 %s) > 0', options) INTO result;
    RETURN result;
END $$;
SET check_function_bodies = off;
CREATE FUNCTION done() RETURNS TABLE (n int, count bigint, min int, max int) LANGUAGE sql AS
    'SELECT n, count(*), min(id), max(id) FROM pt GROUP BY n ORDER BY n';
-- a policy
CALL pt();
ALTER TABLE pt ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON pt TO bbm_rls_app USING (id % 2 = 0);
SELECT define();
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
SELECT min_value, max_value, key_count, relation_name FROM batched_background_migration_jobs ORDER BY id LIMIT 2;
\c - :admin
SET client_min_messages = warning;
SELECT * FROM outcome();
SELECT id % 2 AS odd, n, count(*) FROM pt GROUP BY 1, 2 ORDER BY 1;
-- a policy of a partition's is not one of the table
CALL pt();
ALTER TABLE pt_2 ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON pt_2 TO bbm_rls_app USING (false);
SELECT define();
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
\c - :admin
SET client_min_messages = warning;
SELECT * FROM done();
SELECT partition_order FROM outcome();
-- grants on the table alone
CALL pt();
REVOKE ALL ON pt_1, pt_2, pt_3 FROM bbm_rls_app;
SELECT define();
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
\c - :admin
SET client_min_messages = warning;
SELECT * FROM done();
SELECT partition_order FROM outcome();
-- grants on the partitions alone
CALL pt();
REVOKE UPDATE ON pt FROM bbm_rls_app;
SELECT define();
-- statement triggers of the table, with transition tables, and of a partition
CALL pt();
CREATE TABLE seen (n bigint);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO seen SELECT count(*) FROM rows; RETURN NULL; END $$;
CREATE TRIGGER see AFTER UPDATE ON pt REFERENCING NEW TABLE AS rows FOR EACH STATEMENT EXECUTE FUNCTION see();
SELECT define();
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
\c - :admin
SET client_min_messages = warning;
SELECT * FROM done();
SELECT n, count(*) FROM seen GROUP BY n ORDER BY n;
-- one of a partition alone, which a plain statement on the table does not fire
CALL pt();
DELETE FROM seen;
CREATE TRIGGER see AFTER UPDATE ON pt_2 REFERENCING NEW TABLE AS rows FOR EACH STATEMENT EXECUTE FUNCTION see();
SELECT define();
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
\c - :admin
SET client_min_messages = warning;
SELECT * FROM done();
SELECT count(*) FROM seen;
SELECT partition_order FROM outcome();
-- ... also when it comes in mid-run
CALL pt();
SELECT define();
INSERT INTO stop_at VALUES (1);
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
\c - :admin
SET client_min_messages = warning;
CREATE TRIGGER see AFTER UPDATE ON pt_2 REFERENCING NEW TABLE AS rows FOR EACH STATEMENT EXECUTE FUNCTION see();
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
\c - :admin
SET client_min_messages = warning;
SELECT * FROM done();
SELECT count(*) FROM seen;
-- a rule
CALL pt();
CREATE RULE r AS ON UPDATE TO pt DO ALSO NOTIFY nobody;
SELECT define();
SELECT * FROM outcome();
-- a rule of a partition alone counts, whatever it is for; a statement trigger that is disabled does not
CALL pt();
CREATE RULE r AS ON DELETE TO pt_1 DO ALSO NOTIFY nobody;
SELECT define();
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
\c - :admin
SET client_min_messages = warning;
SELECT * FROM outcome();
CALL pt();
CREATE TRIGGER see AFTER UPDATE ON pt FOR EACH STATEMENT EXECUTE FUNCTION see();
ALTER TABLE pt DISABLE TRIGGER see;
SELECT define();
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
\c - :admin
SET client_min_messages = warning;
SELECT * FROM outcome();
-- functions get the name of the partitioned table; block ranges are refused
CALL pt();
CREATE FUNCTION by_name(table_name text, column_name text, min int, max int, batch_size int) RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE format('UPDATE %s SET n = n + 1 WHERE %I BETWEEN $1 AND $2', $1, $2) USING min, max; END $$;
CREATE FUNCTION fill(table_name text, column_name text, min bigint, max bigint, batch_size int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    changed int;
BEGIN
    EXECUTE format('UPDATE %s SET b = 1, n = n + 1 WHERE id IN (SELECT id FROM %s WHERE b IS NULL LIMIT $1)', $1, $1) USING batch_size;
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END $$;
ALTER TABLE pt ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON pt TO bbm_rls_app USING (id % 2 = 0);
SET ROLE bbm_rls_app;
SELECT bbm_create('m', 'pt', 'by_name', batch_size => 4) > 0 AS defined;
SELECT bbm_create('fill', 'pt', 'fill', column_name => 'b', batching_strategy => 'NullKeySetBatchingStrategy', batch_size => 4) > 0 AS defined;
SELECT bbm_update('null', 'pt', 'b = 2, n = n + 1', 'b = 1 OR b IS NULL', column_name => 'b', batching_strategy => 'NullKeySetBatchingStrategy') > 0 AS defined;
SELECT bbm_update('x', 'pt', 'n = 1', 'n = 0', batching_strategy => 'BlockRangeBatchingStrategy');
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
CALL bbm_run('fill');
\c - :admin
SET client_min_messages = warning;
SELECT id % 2 AS odd, n, b, count(*) FROM pt GROUP BY 1, 2, 3 ORDER BY 1;
UPDATE pt SET b = NULL;
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('null');
\c - :admin
SET client_min_messages = warning;
SELECT id % 2 AS odd, n, b, count(*) FROM pt GROUP BY 1, 2, 3 ORDER BY 1;
SELECT bbm_drop('fill'), bbm_drop('null');

-- partition by partition, when it comes in mid-run: the ranges stay, the statement is one on the table
CALL pt();
SELECT define();
INSERT INTO stop_at VALUES (11);
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
\c - :admin
ALTER TABLE pt ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON pt TO bbm_rls_app USING (id % 2 = 0);
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
SELECT min_value, max_value, key_count, row_count, relation_name FROM batched_background_migration_jobs ORDER BY id;
\c - :admin
SET client_min_messages = warning;
SELECT * FROM done();
SELECT * FROM outcome();
CALL pt();
SELECT define();
INSERT INTO stop_at VALUES (11);
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
\c - :admin
REVOKE ALL ON pt_1, pt_2, pt_3 FROM bbm_rls_app;
CREATE TRIGGER see AFTER UPDATE ON pt REFERENCING NEW TABLE AS rows FOR EACH STATEMENT EXECUTE FUNCTION see();
DELETE FROM seen;
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
\c - :admin
SET client_min_messages = warning;
SELECT * FROM done();
SELECT sum(n) FROM seen;
-- a function is not asked for what cannot be done so
CALL pt();
SET ROLE bbm_rls_app;
SELECT bbm_create('m', 'pt', 'by_name', batch_size => 4) > 0 AS defined;
RESET ROLE;
INSERT INTO stop_at VALUES (11);
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
\c - :admin
CREATE TRIGGER see AFTER UPDATE ON pt REFERENCING NEW TABLE AS rows FOR EACH STATEMENT EXECUTE FUNCTION see();
\c - bbm_rls_app
SET client_min_messages = warning;
CALL bbm_run('m');
SELECT * FROM outcome();
\c - :admin
SET client_min_messages = warning;
DROP EXTENSION bbm;
DROP TABLE secret, stop_at, pt, seen;
DROP FUNCTION outcome, stop, define, done, see, by_name, fill;
DROP PROCEDURE pt;
DROP OWNED BY bbm_rls_app;
DROP ROLE bbm_rls_app;
ALTER SYSTEM RESET bbm.enabled;
SELECT pg_reload_conf();
