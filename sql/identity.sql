--
-- Which table a migration is about, and whether its rows are in it.
--

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
SELECT pg_reload_conf();
\c -
SET client_min_messages = warning;
\set VERBOSITY terse
CREATE FUNCTION fill(name regclass, n int) RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE format('INSERT INTO %s SELECT generate_series(1, %s)', name, n); END $$;
-- status, code and error; OIDs are replaced where they are the expected ones
CREATE FUNCTION outcome(name text, now regclass, started oid) RETURNS TABLE (status smallint, code smallint, message text, detail text, hint text)
LANGUAGE sql AS
    'SELECT status, failure_error_code, error_message,
            replace(replace(error_detail, ''OID is '' || now::oid, ''OID is (now)''), ''OID '' || started, ''OID (started)''), error_hint
     FROM batched_background_migrations m WHERE m.name = $1';
CREATE FUNCTION events(name text) RETURNS TABLE (event text, detail text) LANGUAGE sql AS
    'SELECT event, regexp_replace(detail, ''OID .*$'', ''OID …'') FROM bbm_events e WHERE e.name = $1
     AND event IN (''truncated'', ''restarted'', ''attached'', ''detached'') ORDER BY id';
CREATE FUNCTION run(name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text;
BEGIN
    PERFORM bbm_dry_run(name, 1);
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE;
    RETURN state || ' ' || SQLERRM;
END $$;
-- a row pauses the migration that meets it, or does something else
CREATE TABLE acts (id int, act text);
CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    a text := (SELECT act FROM acts WHERE acts.id = new.id);
BEGIN
    IF a IS NOT NULL THEN
        EXECUTE a;
    END IF;
    RETURN new;
END $$;

-- the migration has started and is paused, and another table gets the table's name
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
SELECT fill('t', 60);
CREATE TRIGGER act BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION act();
INSERT INTO acts VALUES (25, 'SELECT bbm_pause(''m'')');
SELECT bbm_update('m', 't', 'n = n + 1', batch_size => 10) > 0 AS m;
CALL bbm_run('m');
SELECT n, count(*) FROM t GROUP BY n ORDER BY n;
SELECT 't'::regclass::oid AS started \gset
ALTER TABLE t RENAME TO t_old;
CREATE TABLE t (LIKE t_old INCLUDING ALL);
SELECT fill('t', 60);
CALL bbm_run('m');
\x
SELECT * FROM outcome('m', 't', :started);
\x
-- the other table is neither checked nor tried
SELECT run('m') ~ '^42P01 table "public.t" is not the one' AS tried;
SELECT bbm_verify('m', 'n = 1');
SELECT n, count(*) FROM t GROUP BY n;
-- renamed back it goes on
BEGIN;
ALTER TABLE t RENAME TO t_new;
ALTER TABLE t_old RENAME TO t;
COMMIT;
TRUNCATE acts;
CALL bbm_run('m');
SELECT n, count(*) FROM t GROUP BY n;
-- finished it is what it was
DROP TABLE t;
ALTER TABLE t_new RENAME TO t;
SELECT bbm_ensure_finished('m');

-- to go on with the other is an act of its own, which begins at its first key, up to its last
SELECT bbm_alter('m', restart => true);
SELECT bbm_drop('m');
INSERT INTO acts VALUES (25, 'SELECT bbm_pause(''m'')');
CREATE TRIGGER act BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION act();
SELECT bbm_update('m', 't', 'n = n + 1', batch_size => 10) > 0 AS m,
       bbm_update('given', 't', 'n = n + 1', batch_size => 10, min_value => 11, max_value => 50) > 0 AS given;
CALL bbm_run('m');
TRUNCATE acts;
DROP TABLE t;
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
SELECT fill('t', 100);
INSERT INTO t VALUES (-5);
CALL bbm_run('m');
SELECT status, failure_error_code, error_message FROM batched_background_migrations WHERE name = 'm';
-- also a migration that has not started: its bounds are the other table's
CALL bbm_run('given');
SELECT bbm_alter('m', restart => true), bbm_alter('given', restart => true);
SELECT name, status, min_value, max_value, started_at FROM batched_background_migrations ORDER BY name;
SELECT count(*) AS jobs FROM batched_background_migration_jobs;
SELECT * FROM events('m');
CALL bbm_run('m');
CALL bbm_run('given');
SELECT n, count(*), min(id), max(id) FROM t GROUP BY n ORDER BY n;
SELECT name, status, rows_done, percent FROM bbm_status() ORDER BY name;
SELECT count(bbm_drop(name)) FROM bbm_status();
-- by the owner itself, and with another order of the key
CREATE ROLE regress_bbm_other;
CREATE TABLE words (id text COLLATE "C" NOT NULL, n int NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX ON words (id DESC);
INSERT INTO words SELECT i FROM generate_series(1, 30) i;
SELECT bbm_update('words', 'words', 'n = n + 1', column_name => 'id', batch_size => 7, min_key => '{3}') > 0 AS words;
DROP TABLE words;
CREATE TABLE words (id text COLLATE "POSIX" PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO words SELECT i FROM generate_series(1, 40) i;
CALL bbm_run('words');
GRANT EXECUTE ON FUNCTION bbm_alter TO regress_bbm_other;
SET ROLE regress_bbm_other;
SELECT bbm_alter('words', restart => true);
RESET ROLE;
SELECT bbm_alter('words', restart => true);
SELECT min_key, max_key, key_order FROM batched_background_migrations;
CALL bbm_run('words');
SELECT n, count(*), min(id), max(id) FROM words GROUP BY n ORDER BY n;
SELECT bbm_drop('words');
DROP TABLE words;
REVOKE EXECUTE ON FUNCTION bbm_alter FROM regress_bbm_other;
DROP ROLE regress_bbm_other;

-- schemas change their names while a batch runs, by its own doing: the batch is undone, and the next claim finds another table
CREATE SCHEMA one;
CREATE SCHEMA two;
CREATE TABLE one.t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE TABLE two.t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
SELECT fill('one.t', 30), fill('two.t', 30);
CREATE TRIGGER act BEFORE UPDATE ON one.t FOR EACH ROW EXECUTE FUNCTION act();
INSERT INTO acts VALUES (5, 'ALTER SCHEMA one RENAME TO three');
SELECT bbm_update('s', 'one.t', 'n = n + 1', batch_size => 10) > 0 AS s;
SELECT run('s');
UPDATE acts SET act = 'SELECT bbm_pause(''s'')';
CALL bbm_run('s');
TRUNCATE acts;
ALTER SCHEMA one RENAME TO three;
ALTER SCHEMA two RENAME TO one;
CALL bbm_run('s');
SELECT status, failure_error_code, error_message FROM batched_background_migrations WHERE name = 's';
SELECT n, count(*) FROM one.t GROUP BY n ORDER BY n;
-- a name without a schema, whose path has another table first
SET search_path = one, three, public;
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES ('path', 30, 10, 'UPDATE u SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'u', 'id');
CREATE TABLE three.u (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
SELECT fill('three.u', 30);
CREATE TRIGGER act BEFORE UPDATE ON three.u FOR EACH ROW EXECUTE FUNCTION act();
INSERT INTO acts VALUES (15, 'SELECT bbm_pause(''path'')');
CALL bbm_run('path');
TRUNCATE acts;
CREATE TABLE one.u (LIKE three.u INCLUDING ALL);
SELECT fill('one.u', 30);
CALL bbm_run('path');
SELECT status, failure_error_code, error_message FROM batched_background_migrations WHERE name = 'path';
SELECT n, count(*) FROM one.u GROUP BY n ORDER BY n;
DROP TABLE one.u;
CALL bbm_run('path');
SELECT n, count(*) FROM three.u GROUP BY n ORDER BY n;
RESET search_path;
SELECT count(bbm_drop(name)) FROM bbm_status();
DROP SCHEMA one, three CASCADE;

-- a partition that takes the name of another is not it
CREATE TABLE parted (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (50);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (50) TO (100);
SELECT fill('parted', 99);
CREATE TRIGGER act BEFORE UPDATE ON parted FOR EACH ROW EXECUTE FUNCTION act();
INSERT INTO acts VALUES (25, 'SELECT bbm_pause(''parted'')');
SELECT bbm_update('parted', 'parted', 'n = n + 1', 'n = 0', batch_size => 10) > 0 AS parted;
CALL bbm_run('parted');
TRUNCATE acts;
ALTER TABLE parted DETACH PARTITION parted_1;
ALTER TABLE parted_1 RENAME TO parted_old;
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (50);
INSERT INTO parted SELECT generate_series(1, 49);
CALL bbm_run('parted');
SELECT n, count(*) FROM parted GROUP BY n;
SELECT bbm_drop('parted');
DROP TABLE parted_old;
-- a temporary child table belongs to its session alone
CREATE TABLE parent (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
CREATE TEMPORARY TABLE temporary_child (PRIMARY KEY (id)) INHERITS (parent);
INSERT INTO parent VALUES (1);
INSERT INTO child VALUES (2);
INSERT INTO temporary_child VALUES (3);
SELECT bbm_update('parent', 'parent', 'n = n + 1', 'n = 0', rows_stay => true) > 0 AS parent;
CALL bbm_run('parent');
SELECT n, count(*) FROM parent GROUP BY n ORDER BY n;
SELECT bbm_drop('parent');
DROP TABLE parent CASCADE;

-- TRUNCATE in mid-run is reported, a rewrite is not
INSERT INTO acts VALUES (25, 'SELECT bbm_pause(name) FROM bbm_status()');
TRUNCATE t, parted;
SELECT fill('t', 30), fill('parted', 99);
CREATE TRIGGER act BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION act();
SELECT bbm_update('plain', 't', 'n = n + 1', batch_size => 10) > 0 AS plain,
       bbm_update('parted', 'parted', 'n = n + 1', 'n = 0', batch_size => 10) > 0 AS parted,
       bbm_create('whole', 'parted', 'UPDATE parted SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 10) > 0 AS whole,
       bbm_update('not started', 't', 'n = n + 1') > 0 AS not_started;
TRUNCATE t;
SELECT fill('t', 30);
CREATE TABLE refers (id int PRIMARY KEY REFERENCES t);
CALL bbm_run('plain');
CALL bbm_run('parted');
CALL bbm_run('whole');
VACUUM FULL t;
CLUSTER t USING t_pkey;
REINDEX TABLE t;
ALTER TABLE t ALTER n TYPE bigint;
BEGIN;
TRUNCATE parted;
ROLLBACK;
SELECT * FROM events('plain');
TRUNCATE refers, t RESTART IDENTITY;
TRUNCATE t CASCADE;
TRUNCATE parted_2;
TRUNCATE parted;
DO $$ BEGIN TRUNCATE parted_1, parted_2; END $$;
SELECT 'plain' AS name, * FROM events('plain') UNION ALL SELECT 'parted', * FROM events('parted')
UNION ALL SELECT 'whole', * FROM events('whole') UNION ALL SELECT 'not started', * FROM events('not started');
-- and the migration may start again
TRUNCATE acts;
SELECT fill('t', 20);
SELECT bbm_alter('plain', restart => true);
CALL bbm_run('plain');
SELECT n, count(*) FROM t GROUP BY n;
SELECT count(bbm_drop(name)) FROM bbm_status();
DROP TABLE refers;

-- distributed tables, as Citus lists them
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass NOT NULL, partmethod "char" NOT NULL);
RESET allow_system_table_mods;
CREATE TABLE apart (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE VIEW through AS SELECT * FROM apart;
CREATE VIEW instead AS SELECT * FROM t;
CREATE FUNCTION write_apart() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO apart VALUES (new.id); RETURN new; END $$;
CREATE TRIGGER instead INSTEAD OF UPDATE ON instead FOR EACH ROW EXECUTE FUNCTION write_apart();
CREATE FUNCTION job_apart(int, int) RETURNS void LANGUAGE sql AS 'UPDATE apart SET n = 1 WHERE id BETWEEN $1 AND $2';
CREATE FUNCTION become_distributed(id int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF id = 15 THEN
        INSERT INTO pg_dist_partition VALUES ('t', 'h');
    END IF;
    RETURN 1;
END $$;
CREATE TABLE ruled (id int);
CREATE RULE ruled AS ON INSERT TO ruled DO INSTEAD INSERT INTO apart VALUES (new.id);
INSERT INTO pg_dist_partition VALUES ('apart', 'h');
SELECT bbm_update('x', 'apart', 'n = 1');
SELECT bbm_create('x', 't', 'INSERT INTO apart SELECT id FROM t WHERE id BETWEEN $1 AND $2');
SELECT bbm_create('x', 't', 'UPDATE through SET n = 1 WHERE id BETWEEN $1 AND $2');
SELECT bbm_create('x', 't', 'INSERT INTO ruled SELECT id FROM t WHERE id BETWEEN $1 AND $2');
SELECT bbm_create('x', 't', 'WITH a AS (DELETE FROM apart WHERE id BETWEEN $1 AND $2) SELECT 1');
-- to read one is another matter
SELECT bbm_update('reads', 't', 'n = 7', 'id NOT IN (SELECT id FROM apart) AND n <> 7') > 0 AS reads;
CALL bbm_run('reads');
-- what a function or a trigger writes shows when it does
SELECT bbm_create('function', 't', 'job_apart') > 0 AS function,
       bbm_create('view', 't', 'UPDATE instead SET n = 1 WHERE id BETWEEN $1 AND $2', allow_full_scan => true) > 0 AS view;
CALL bbm_run('function');
CALL bbm_run('view');
SELECT name, status, failure_error_code, error_sqlstate, error_message FROM batched_background_migrations ORDER BY name;
SELECT count(*) FROM apart;
SELECT count(bbm_drop(name)) FROM bbm_status();
-- a table that becomes one between two batches of a run
SELECT bbm_update('between', 't', 'n = n + become_distributed(id)', batch_size => 10) > 0 AS between;
CALL bbm_run('between');
DELETE FROM pg_dist_partition WHERE logicalrelid = 't'::regclass;
SELECT m.status, failure_error_code, error_sqlstate, error_message, (SELECT count(*) FROM bbm_jobs('between') WHERE status = 'finished') AS jobs
FROM batched_background_migrations m WHERE name = 'between';
SELECT bbm_drop('between');
-- a migration that gets another table before it has started works on that table
CREATE TABLE instead_of (LIKE t INCLUDING ALL);
SELECT fill('instead_of', 60);
SELECT bbm_update('given', 't', 'n = 42', batch_size => 10) > 0 AS given;
UPDATE batched_background_migrations SET table_name = 'public.instead_of' WHERE name = 'given';
CALL bbm_run('given');
SELECT (SELECT count(*) FROM t WHERE n = 42) AS t, (SELECT count(*) FROM instead_of WHERE n = 42) AS instead_of;
SELECT bbm_drop('given');
DROP TABLE instead_of;
-- a table that becomes one in mid-run, a partition that is one, with an index on that list, too
SET allow_system_table_mods = on;
CREATE UNIQUE INDEX pg_dist_partition_logical_relid_index ON pg_dist_partition (logicalrelid);
RESET allow_system_table_mods;
INSERT INTO acts VALUES (15, 'SELECT bbm_pause(name) FROM bbm_status()');
SELECT fill('parted', 99);
SELECT bbm_update('later', 't', 'n = n + 1', batch_size => 10) > 0 AS later,
       bbm_update('partitions', 'parted', 'n = n + 1', 'n = 0', batch_size => 10) > 0 AS partitions,
       bbm_create('whole', 'parted', 'UPDATE parted SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 10) > 0 AS whole;
CALL bbm_run('later');
CALL bbm_run('partitions');
CALL bbm_run('whole');
TRUNCATE acts;
INSERT INTO pg_dist_partition VALUES ('t', 'h'), ('parted_1', 'h');
CALL bbm_run('later');
CALL bbm_run('partitions');
CALL bbm_run('whole');
SELECT name, status, failure_error_code, error_sqlstate, error_message FROM batched_background_migrations ORDER BY name;
SELECT bbm_update('x', 'parted', 'n = n + 1', 'n = 0');
SELECT count(bbm_drop(name)) FROM bbm_status();
SET allow_system_table_mods = on;
DROP TABLE pg_catalog.pg_dist_partition;
RESET allow_system_table_mods;

-- a clone has its original's OIDs: it goes on at its cursor, and with the very tables
TRUNCATE t, parted, acts;
SELECT fill('t', 60), fill('parted', 99);
CREATE TABLE v (LIKE t INCLUDING ALL);
SELECT fill('v', 60);
CREATE TRIGGER act BEFORE UPDATE ON v FOR EACH ROW EXECUTE FUNCTION act();
INSERT INTO acts VALUES (25, 'SELECT bbm_pause(name) FROM bbm_status()');
SELECT bbm_update('goes on', 't', 'n = n + 1', batch_size => 10) > 0 AS goes_on,
       bbm_update('swapped', 'v', 'n = n + 1', batch_size => 10) > 0 AS swapped,
       bbm_update('by partition', 'parted', 'n = n + 1', 'n = 0', batch_size => 10) > 0 AS per_partition;
CALL bbm_run('goes on');
CALL bbm_run('swapped');
CALL bbm_run('by partition');
TRUNCATE acts;
-- partitions whose names no worker has recorded yet
ALTER TABLE parted_1 RENAME TO parted_one;
\set db :DBNAME
\c postgres
CREATE DATABASE regress_bbm_clone TEMPLATE :"db";
\c regress_bbm_clone
SET client_min_messages = warning;
ALTER TABLE v RENAME TO w;
CREATE TABLE v (LIKE w INCLUDING ALL);
SELECT fill('v', 60);
CALL bbm_run('goes on');
SELECT n, count(*) FROM t GROUP BY n;
CALL bbm_run('by partition');
SELECT n, count(*) FROM parted GROUP BY n;
SELECT sum(rows) AS rows FROM bbm_jobs('by partition');
CALL bbm_run('swapped');
SELECT name, status, failure_error_code, error_message FROM batched_background_migrations ORDER BY name;
SELECT n, count(*) FROM v GROUP BY n;
\c :db
SET client_min_messages = warning;
DROP DATABASE regress_bbm_clone;
SELECT count(bbm_drop(name)) FROM bbm_status();
DROP TABLE v;

-- another access method: with queries, and not by blocks
CREATE ACCESS METHOD regress_heap TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE other (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) USING regress_heap;
SELECT fill('other', 50);
SELECT bbm_update('other', 'other', 'n = n + 1', batch_size => 7, sub_batch_size => 3) > 0 AS other;
CALL bbm_run('other');
SELECT n, count(*) FROM other GROUP BY n;
SELECT count(*) AS jobs FROM bbm_jobs('other');
SELECT bbm_update('x', 'other', 'n = n + 1', 'n = 0', batching_strategy => 'BlockRangeBatchingStrategy');
ALTER TABLE other DROP CONSTRAINT other_pkey;
SELECT bbm_update('x', 'other', 'n = n + 1', column_name => 'id');

DROP EXTENSION bbm;
DROP TABLE other, apart, ruled, parted, t, acts CASCADE;
DROP ACCESS METHOD regress_heap;
DROP FUNCTION fill, outcome, events, run, act, write_apart, job_apart, become_distributed;
ALTER SYSTEM RESET bbm.enabled;
SELECT pg_reload_conf();
