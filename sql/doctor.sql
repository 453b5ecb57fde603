--
-- What would keep migrations from running, and what says so.
--

CREATE EXTENSION bbm;
SELECT * FROM bbm_doctor();
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 10);
SELECT bbm_update('well', 't', 'n = n + 1', batch_size => 5) > 0 AS created;
SELECT * FROM bbm_doctor();

-- the server
ALTER SYSTEM SET bbm.enabled = off;
SELECT pg_reload_conf();
\c -
SELECT bbm_start('well');
SELECT * FROM bbm_doctor() \gx
-- whoever starts something is warned, in whatever way
SELECT bbm_pause('well');
UPDATE batched_background_migrations SET status = 1 WHERE name = 'well';
-- who waits for it as well: nothing will come of that
SELECT bbm_wait('well', '10 ms');
UPDATE batched_background_migrations SET batch_size = 6 WHERE name = 'well';
UPDATE batched_background_migrations SET status = 0 WHERE name = 'well';
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, status)
VALUES ('inserted', 10, 5, 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'public.t', 'id', 1);
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES ('paused', 10, 5, 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'public.t', 'id');
SELECT bbm_create('created', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', start => true) > 0 AS created;
DROP EXTENSION bbm;
CREATE EXTENSION bbm;
SELECT bbm_update('well', 't', 'n = n + 1', batch_size => 5) > 0 AS created;
-- for a role that sees no migration as well
CREATE ROLE regress_bbm_patient;
SET ROLE regress_bbm_patient;
SELECT migration, problem FROM bbm_doctor();
RESET ROLE;
ALTER SYSTEM RESET bbm.enabled;
SELECT pg_reload_conf();
\c -
SELECT * FROM bbm_doctor();
SELECT bbm_start('well');
SELECT bbm_wait('well');

-- an UPDATE without a WHERE says what it has done: of four two can be started
SELECT bbm_create(name, 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', settings => '{bbm.condition=false}') > 0 AS created
FROM unnest(ARRAY['a', 'b', 'c']) name;
UPDATE batched_background_migrations SET status = 1 WHERE name = 'a';
UPDATE batched_background_migrations SET status = 1;
UPDATE batched_background_migrations SET status = 1;
UPDATE batched_background_migrations SET status = 0 WHERE name <> 'well';
-- both at once
UPDATE batched_background_migrations SET status = 1 WHERE name = 'a';
UPDATE batched_background_migrations SET status = CASE name WHEN 'a' THEN 0 ELSE 1 END WHERE name <> 'well';
UPDATE batched_background_migrations SET status = 0 WHERE name <> 'well';
UPDATE batched_background_migrations SET batch_size = batch_size + 1 WHERE name <> 'well';
UPDATE batched_background_migrations SET status = 1 WHERE name = 'a';
-- the functions return how many
SELECT bbm_start(), bbm_pause();
SELECT bbm_drop(name) FROM unnest(ARRAY['a', 'b', 'c']) name;

-- one migration: its index, its table, its owner, a cloned database
CREATE TABLE bare (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE TABLE gone (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE TABLE owned (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
SELECT bbm_update('bare', 'bare', 'n = n + 1') > 0 AS created;
SELECT bbm_update('gone', 'gone', 'n = n + 1') > 0 AS created;
SELECT bbm_update('copied', 't', 'n = n + 1') > 0 AS created;
SELECT bbm_update('owned', 'owned', 'n = n + 1') > 0 AS created;
SELECT * FROM bbm_doctor();
ALTER TABLE bare DROP CONSTRAINT bare_pkey;
CREATE UNIQUE INDEX ON bare (id) WHERE n = 0;
CREATE INDEX ON bare USING hash (id);
CREATE INDEX ON bare (n, id);
DROP TABLE gone;
ALTER TABLE batched_background_migrations DISABLE TRIGGER bbm_guard;
UPDATE batched_background_migrations SET status = 1, origin = '1/1' WHERE name = 'copied';
UPDATE batched_background_migrations SET owner = 'regress_bbm_patient', owner_oid = 'regress_bbm_patient'::regrole WHERE name = 'owned';
ALTER TABLE batched_background_migrations ENABLE TRIGGER bbm_guard;
SELECT * FROM bbm_doctor() WHERE migration <> 'owned' ORDER BY migration \gx
-- 17 lets a worker log in as any role
SELECT count(*) = (current_setting('server_version_num')::int < 170000)::int AS as_it_should
FROM bbm_doctor() WHERE migration = 'owned' AND problem = 'its owner may not log in';
CREATE INDEX ON bare (id);
SELECT migration, problem FROM bbm_doctor() WHERE migration = 'bare';
-- what is another's is not shown
SET ROLE regress_bbm_patient;
SELECT migration FROM bbm_doctor() WHERE migration <> 'owned';
RESET ROLE;

SELECT bbm_drop(name) FROM unnest(ARRAY['owned', 'bare', 'gone', 'copied']) name;

-- the same of those that an INSERT has defined, which nothing has checked; a name that may be another one is left alone
CREATE TABLE "Odd" (id int PRIMARY KEY);
CREATE TABLE "a.b" (id int PRIMARY KEY);
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name)
SELECT 'inserted: ' || table_name, 10, 5, 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', table_name, column_name
FROM (VALUES ('public.t', 'id'), ('t', 'n'), ('PUBLIC.T', 'id'), ('public.Odd', 'id'), ('"Odd"', 'id'), ('public."a.b"', 'id'), ('public.nowhere', 'id'), ('nowhere', 'id'),
             ('nowhere.t', 'id')) t (table_name, column_name);
SELECT * FROM bbm_doctor() ORDER BY migration \gx
SELECT count(*) FILTER (WHERE bbm_drop(name)) AS dropped FROM batched_background_migrations WHERE name LIKE 'inserted: %';
DROP TABLE "Odd", "a.b";

-- a column that is to be filled where it is null, and the index that finds it
CREATE INDEX ON bare (n) WHERE n IS NULL AND id > 0;
ALTER TABLE bare ALTER n DROP NOT NULL;
SELECT bbm_update('nulls', 'bare', 'n = 1', 'id > 0', column_name => 'n', batching_strategy => 'NullKeySetBatchingStrategy', allow_key_change => true) > 0 AS created;
SELECT * FROM bbm_doctor();
DROP INDEX bare_n_idx, bare_n_id_idx;
SELECT * FROM bbm_doctor() \gx
SELECT bbm_alter('nulls', allow_full_scan => true);
SELECT * FROM bbm_doctor();
SELECT bbm_drop('nulls');

-- who may not connect, and a role that must not act for the owner
SELECT format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database())
\set ECHO none
\gexec
\set ECHO all
ALTER ROLE regress_bbm_patient LOGIN;
CREATE ROLE regress_bbm_tables;
GRANT USAGE, CREATE ON SCHEMA public TO regress_bbm_patient;
GRANT EXECUTE ON FUNCTION bbm_update, bbm_start, bbm_drop TO regress_bbm_patient;
SET ROLE regress_bbm_patient;
CREATE TABLE mine (id int PRIMARY KEY, n int);
SELECT bbm_update('mine', 'mine', 'n = 1') > 0 AS created;
SELECT migration, problem, detail, replace(advice, current_database(), '...') AS advice FROM bbm_doctor() \gx
RESET ROLE;
SELECT format('GRANT CONNECT ON DATABASE %I TO PUBLIC', current_database())
\set ECHO none
\gexec
\set ECHO all
SELECT * FROM bbm_doctor();
ALTER TABLE batched_background_migrations OWNER TO regress_bbm_tables;
SELECT migration, problem, replace(detail, format('"%s"', current_user), '...') AS detail, advice FROM bbm_doctor() WHERE migration IS NULL \gx
ALTER TABLE batched_background_migration_jobs OWNER TO regress_bbm_tables;
SELECT * FROM bbm_doctor() \gx
SELECT format('ALTER TABLE %s OWNER TO %I', t, current_user)
FROM unnest(ARRAY['batched_background_migrations', 'batched_background_migration_jobs']) t
\set ECHO none
\gexec
\set ECHO all
SELECT * FROM bbm_doctor();

-- tables that are not as they were, and triggers: of others, and of bbm
CREATE TABLE emptied (id int PRIMARY KEY, n int);
INSERT INTO emptied VALUES (1, 1);
SELECT bbm_create('emptied', 'emptied', 'UPDATE emptied SET n = n / 0 WHERE id BETWEEN $1 AND $2', max_attempts => 1) > 0 AS created;
\set VERBOSITY terse
CALL bbm_run('emptied');
\set VERBOSITY default
ALTER TABLE batched_background_migration_jobs RENAME COLUMN requeued TO renamed;
SELECT * FROM bbm_doctor() \gx
-- that is bbm's concern alone; and one may drop it
TRUNCATE bare;
BEGIN;
DROP EXTENSION bbm;
ROLLBACK;
ALTER TABLE batched_background_migration_jobs RENAME COLUMN renamed TO requeued;
CREATE FUNCTION strange() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
ALTER FUNCTION strange OWNER TO regress_bbm_tables;
CREATE TRIGGER strange AFTER UPDATE ON batched_background_migration_jobs FOR EACH ROW EXECUTE FUNCTION strange();
SELECT * FROM bbm_doctor() \gx
TRUNCATE t;
-- what happens to a migration's table is not held up by them
TRUNCATE emptied;
DROP TRIGGER strange ON batched_background_migration_jobs;
DROP FUNCTION strange;
INSERT INTO emptied VALUES (1, 1);
TRUNCATE emptied;
SELECT event, detail FROM bbm_events WHERE name = 'emptied' AND event = 'truncated';
SELECT bbm_drop('emptied');
ALTER TABLE batched_background_migrations DISABLE TRIGGER bbm_event;
ALTER TABLE batched_background_migration_jobs DISABLE TRIGGER bbm_truncate;
ALTER TABLE bbm_totals DISABLE TRIGGER bbm_replica;
DROP TRIGGER bbm_guard ON bbm_events;
-- as pg_restore --disable-triggers leaves them
ALTER TABLE bbm_partitions DISABLE TRIGGER ALL;
ALTER TABLE bbm_partitions ENABLE TRIGGER ALL;
ALTER TABLE bbm_row_errors ENABLE REPLICA TRIGGER bbm_guard;
SELECT * FROM bbm_doctor() ORDER BY detail \gx
-- as it says
SELECT left(advice, -1) FROM bbm_doctor() WHERE advice LIKE 'ALTER%' ORDER BY detail \gexec
SELECT detail FROM bbm_doctor();

DROP EXTENSION bbm;
DROP TABLE t, bare, owned, mine, emptied;
REVOKE ALL ON SCHEMA public FROM regress_bbm_patient;
DROP ROLE regress_bbm_patient, regress_bbm_tables;
