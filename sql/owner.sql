--
-- The application's role owns the tables of bbm: its schema tool works on them,
-- all else is as before, and the role gets no rights of other roles by that.
--

SELECT current_user AS admin \gset
CREATE EXTENSION bbm;
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/fails.inc'
\i :helper
CREATE ROLE regress_bbm_app LOGIN;
CREATE ROLE regress_bbm_job LOGIN;
CREATE ROLE regress_bbm_other LOGIN;
GRANT ALL ON SCHEMA public TO regress_bbm_app;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO regress_bbm_app, regress_bbm_job, regress_bbm_other;
GRANT EXECUTE ON PROCEDURE bbm_run TO regress_bbm_app, regress_bbm_job, regress_bbm_other;
-- may be SET ROLE to, and gives nothing by itself
ALTER ROLE regress_bbm_app NOINHERIT;
GRANT regress_bbm_job TO regress_bbm_app;
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 20);
ALTER TABLE t OWNER TO regress_bbm_app;
CREATE TABLE j (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO j SELECT generate_series(1, 20);
ALTER TABLE j OWNER TO regress_bbm_job;

-- as another role's, its tool fails although there is nothing to do
SET ROLE regress_bbm_app;
SELECT state, message FROM fails('ALTER TABLE batched_background_migrations ADD COLUMN IF NOT EXISTS sub_batch_size integer NOT NULL DEFAULT 0');
RESET ROLE;
-- the two that the tool knows are enough
ALTER TABLE batched_background_migrations OWNER TO regress_bbm_app;
ALTER TABLE batched_background_migration_jobs OWNER TO regress_bbm_app;
SELECT relname, relowner::regrole FROM pg_class WHERE relname LIKE 'bbm%' AND relkind = 'r' AND relowner::regrole::text <> :'admin';

\c - regress_bbm_app
SET client_min_messages = warning;
ALTER TABLE batched_background_migrations ADD COLUMN IF NOT EXISTS sub_batch_size integer NOT NULL DEFAULT 0;
-- what it adds is its own: bbm takes it as it is written
ALTER TABLE batched_background_migrations ADD COLUMN our_rank integer NOT NULL DEFAULT 3;
ALTER TABLE batched_background_migration_jobs ADD COLUMN note text DEFAULT 'none';
RESET client_min_messages;
INSERT INTO batched_background_migrations
    (name, min_value, max_value, batch_size, job_signature_name, table_name, column_name, our_rank, status)
VALUES ('plain', 1, 20, 5, 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'public.t', 'id', 7, 1);
SELECT bbm_wait('plain', '1 minute');
SELECT n, count(*) FROM t GROUP BY n;
UPDATE batched_background_migrations SET our_rank = 8 WHERE name = 'plain';
SELECT name, status, our_rank FROM batched_background_migrations;
SELECT min_value, max_value, status, note FROM batched_background_migration_jobs ORDER BY id;
-- the same through the functions, for a role that it can be; with rows that are quarantined, an event of each step
SET ROLE regress_bbm_job;
SELECT bbm_update('job''s', 'j', 'n = 10 / (id - 7)', on_error => 'split', batch_size => 5, max_attempts => 1, start => true) > 0 AS defined;
SELECT bbm_wait('job''s', '1 minute');
SELECT min_value, max_value, error_message FROM bbm_migration_errors WHERE migration = 'job''s';
UPDATE j SET id = 100 WHERE id = 7;
INSERT INTO j VALUES (8000);
SELECT bbm_retry('job''s');
SELECT bbm_wait('job''s', '1 minute');
RESET ROLE;
-- the guards are those of everybody
SELECT state, message FROM fails($$UPDATE batched_background_migrations SET owner = 'regress_bbm_other'$$);
SELECT state, message FROM fails($$UPDATE batched_background_migrations SET status = 3$$);
SELECT state, message FROM fails($$INSERT INTO batched_background_migrations (id, name, max_value, batch_size, job_signature_name, table_name, column_name)
    VALUES (77, 'x', 1, 1, 'f', 't', 'id')$$);
SELECT state, message FROM fails($$DELETE FROM batched_background_migration_jobs$$);
SELECT state, message FROM fails($$INSERT INTO bbm_events (migration_id, name, event, status, role, owner_oid) VALUES (1, 'x', 'x', 'x', 'x', 10)$$);
-- owning one of the two is refused with what to do
\c - :admin
ALTER TABLE batched_background_migration_jobs OWNER TO regress_bbm_other;
SELECT * FROM fails('SELECT bbm_start()') \gx
-- but what is not bbm's goes on meanwhile, and so does what ends bbm
CREATE TABLE others AS SELECT 1;
CREATE TEMPORARY TABLE others_too AS SELECT 1;
TRUNCATE others, others_too;
SELECT FROM others, others_too;
BEGIN;
DROP EXTENSION bbm;
ROLLBACK;
ALTER TABLE batched_background_migration_jobs OWNER TO regress_bbm_app;

-- with row security forced on it, it sees what its memberships give it, and bbm all of it
\c - regress_bbm_app
SELECT name FROM batched_background_migrations ORDER BY id;
ALTER TABLE batched_background_migrations FORCE ROW LEVEL SECURITY;
ALTER TABLE batched_background_migration_jobs FORCE ROW LEVEL SECURITY;
SELECT name FROM batched_background_migrations ORDER BY id;
SET ROLE regress_bbm_job;
SELECT state, message FROM fails($$SELECT bbm_create('plain', 'j', 'UPDATE j SET n = 0 WHERE id BETWEEN $1 AND $2')$$);
SELECT bbm_create('forced', 'j', 'UPDATE j SET n = 0 WHERE id BETWEEN $1 AND $2', start => true) > 0 AS defined;
SELECT bbm_wait('forced', '1 minute');
SELECT n, count(*) FROM j GROUP BY n;
RESET ROLE;
ALTER TABLE batched_background_migrations NO FORCE ROW LEVEL SECURITY;
ALTER TABLE batched_background_migration_jobs NO FORCE ROW LEVEL SECURITY;

-- what it drops or changes is named, everywhere, until it is back
ALTER TABLE batched_background_migrations DROP COLUMN sub_batch_size;
\pset expanded on
SELECT * FROM fails('SELECT bbm_start()');
SELECT * FROM fails('UPDATE batched_background_migrations SET status = 1');
SELECT * FROM fails($$SELECT bbm_create('x', 't', 'f')$$);
CREATE TEMPORARY TABLE its_own ();
TRUNCATE its_own;
ALTER TABLE batched_background_migrations ADD COLUMN sub_batch_size bigint NOT NULL DEFAULT 0;
SELECT * FROM fails('SELECT bbm_start()');
ALTER TABLE batched_background_migrations ALTER COLUMN sub_batch_size TYPE integer, ALTER COLUMN sub_batch_size DROP NOT NULL;
SELECT * FROM fails('SELECT bbm_start()');
ALTER TABLE batched_background_migrations ALTER COLUMN sub_batch_size SET NOT NULL;
DROP INDEX bbm_jobs_migration_id_idx;
SELECT * FROM fails('SELECT bbm_start()');
CREATE INDEX any_name ON batched_background_migration_jobs (batched_background_migration_id, id DESC) WHERE id > 0;
SELECT * FROM fails('SELECT bbm_start()');
\pset expanded off
DROP INDEX any_name;
CREATE INDEX any_name ON batched_background_migration_jobs (batched_background_migration_id, id DESC);
ALTER INDEX bbm_jobs_pkey RENAME TO another_name;
INSERT INTO batched_background_migrations
    (name, min_value, max_value, batch_size, job_signature_name, table_name, column_name, status)
VALUES ('again', 1, 20, 5, 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'public.t', 'id', 1);
SELECT bbm_wait('again', '1 minute');
SELECT n, count(*) FROM t GROUP BY n;

-- every column that the script creates is checked
\c - :admin
SELECT a.attrelid::regclass, a.attname,
       (SELECT detail FROM fails(format('ALTER TABLE %s RENAME COLUMN %I TO gone; SELECT bbm_start()', a.attrelid::regclass, a.attname)))
       IS DISTINCT FROM format('Column "%s" of table "%s" is missing.', a.attname, a.attrelid::regclass) AS missed
FROM pg_attribute a
WHERE a.attrelid IN ('batched_background_migrations'::regclass, 'batched_background_migration_jobs'::regclass, 'bbm_partitions'::regclass,
                     'bbm_row_errors'::regclass, 'bbm_events'::regclass, 'bbm_totals'::regclass)
  AND a.attnum > 0 AND NOT a.attisdropped AND a.attname NOT IN ('our_rank', 'note')
  AND (SELECT detail FROM fails(format('ALTER TABLE %s RENAME COLUMN %I TO gone; SELECT bbm_start()', a.attrelid::regclass, a.attname)))
      IS DISTINCT FROM format('Column "%s" of table "%s" is missing.', a.attname, a.attrelid::regclass);

-- past the guards: numbers that cannot be do not matter
\c - regress_bbm_app
ALTER TABLE batched_background_migrations DISABLE TRIGGER bbm_guard;
UPDATE batched_background_migrations SET status = 1, finished_at = NULL, started_at = NULL, batch_size = -5, workers = -1,
    max_attempts = 0, min_batch_size = 0, max_batch_size = -7, sub_batch_size = -2, max_errors = -1, max_batch_wal = -1, max_value = 21
WHERE name = 'again';
ALTER TABLE batched_background_migrations ENABLE TRIGGER bbm_guard;
-- as its role's worker comes for another one
INSERT INTO batched_background_migrations
    (name, min_value, max_value, batch_size, job_signature_name, table_name, column_name, status)
VALUES ('wakes', 1, 1, 5, 'UPDATE t SET n = n WHERE id BETWEEN $1 AND $2', 'public.t', 'id', 1);
SELECT bbm_wait('wakes', '1 minute');
SELECT bbm_wait('again', '1 minute');
SELECT min_value, max_value FROM bbm_jobs('again') ORDER BY id DESC LIMIT 1;
SELECT name, bbm_drop(name) FROM batched_background_migrations WHERE pg_has_role(owner, 'USAGE') ORDER BY name;

-- in another role's name: whatever uses the rights of a migration's owner checks first who owns the tables
ALTER TABLE batched_background_migrations DISABLE TRIGGER bbm_guard;
CREATE FUNCTION trap() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE WARNING 'evaluated as %', current_user;
    RETURN true;
END $$;
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, owner,
    owner_oid, origin, status, filter, set_clause, operation)
SELECT 'forged for ' || r, 20, 5, 'UPDATE t SET n = 0 WHERE id BETWEEN $1 AND $2', 'public.t', 'id', r, r::regrole,
       (SELECT system_identifier FROM pg_control_system()) || '/' || (SELECT oid FROM pg_database WHERE datname = current_database()),
       1, 'public.trap()', 'n = 0', 'update'
FROM unnest(ARRAY['regress_bbm_other', :'admin']) r;
ALTER TABLE batched_background_migrations ENABLE TRIGGER bbm_guard;
-- as those roles, with the functions that read a migration or change it
\c - regress_bbm_other
SELECT * FROM fails($$SELECT bbm_verify('forged for regress_bbm_other')$$) \gx
SELECT state, message FROM fails($$SELECT bbm_alter('forged for regress_bbm_other', restart => true)$$);
SELECT state, message FROM fails($$SELECT bbm_alter('forged for regress_bbm_other', index_name => 't_pkey')$$);
CALL bbm_run('forged for regress_bbm_other');
\c - :admin
SELECT f, state, message
FROM unnest('{bbm_verify,bbm_dry_run}'::text[]) f, unnest(ARRAY['regress_bbm_other', :'admin']) r, fails(format('SELECT %s(%L)', f, 'forged for ' || r));
SELECT state, message FROM fails(format($$SELECT bbm_alter('forged for %s', restart => true)$$, :'admin'));
SELECT name LIKE 'forged%' AS forged, waiting_on FROM bbm_status_detail() WHERE status = 'active';
DELETE FROM batched_background_migrations WHERE name LIKE 'forged%';

-- a trigger that fires when whoever has called bbm commits
\c - regress_bbm_app
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE WARNING 'fired as %', current_user;
    RETURN NULL;
END $$;
SELECT bbm_create('theirs', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2') > 0 AS defined;
CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON batched_background_migrations DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION at_commit();
\c - :admin
SELECT * FROM fails($$SELECT bbm_start('theirs')$$) \gx
DROP TRIGGER at_commit ON batched_background_migrations;
-- one that fires at once does so as the table's owner, not as bbm
\c - regress_bbm_app
CREATE FUNCTION at_once() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
BEGIN
    RAISE WARNING 'fired as %', current_user;
    PERFORM bbm_verify('theirs');
    RETURN NULL;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING '%', SQLERRM;
    RETURN NULL;
END $$;
CREATE TRIGGER at_once AFTER UPDATE ON batched_background_migrations FOR EACH ROW EXECUTE FUNCTION at_once();
ALTER TABLE batched_background_migrations DISABLE TRIGGER bbm_guard;
UPDATE batched_background_migrations SET owner_oid = 10, filter = 'public.trap()';
ALTER TABLE batched_background_migrations ENABLE TRIGGER bbm_guard;
\c - :admin
SELECT bbm_alter('theirs', batch_size => 10);
\c - regress_bbm_app
DROP TRIGGER at_once ON batched_background_migrations;

-- given away while a worker is at it: from then on it does no more batches
\c - :admin
DELETE FROM batched_background_migrations;
ALTER TABLE batched_background_migrations OWNER TO :admin;
ALTER TABLE batched_background_migration_jobs OWNER TO :admin;
\set helper :abs_srcdir '/sql/wait_for.inc'
\i :helper
ALTER SYSTEM SET bbm.min_pace = 1;
SELECT pg_reload_conf();
CREATE TABLE o (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO o SELECT generate_series(1, 100000);
ALTER TABLE o OWNER TO regress_bbm_other;
SET ROLE regress_bbm_other;
SELECT bbm_create('given away', 'o', 'UPDATE o SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 1, start => true) > 0 AS defined;
RESET ROLE;
SELECT wait_for('(SELECT count(*) > 10 FROM o WHERE n > 0)');
BEGIN;
ALTER TABLE batched_background_migrations OWNER TO regress_bbm_app;
ALTER TABLE batched_background_migration_jobs OWNER TO regress_bbm_app;
COMMIT;
SELECT count(*) AS done FROM o WHERE n > 0 \gset
SELECT wait_for($$(SELECT waiting_on LIKE 'another owner%' FROM bbm_status_detail('given away'))$$);
SELECT count(*) = :done AS as_then, count(*) < 100000 AS some_left FROM o WHERE n > 0;
-- with the tables back, it would run as the owner that its row names, whoever has written that: so not while it is started
BEGIN;
ALTER TABLE batched_background_migrations OWNER TO :admin;
ROLLBACK;
REASSIGN OWNED BY regress_bbm_app TO :admin;
-- whatever its owner has done to hide that, or has put there to be evaluated
SET ROLE regress_bbm_app;
CREATE FUNCTION on_plan(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF current_user <> 'regress_bbm_app' THEN RAISE WARNING 'evaluated as %', current_user; END IF;
    RETURN $1;
END $$;
CREATE INDEX on_plan ON batched_background_migrations (id, on_plan(1));
ALTER TABLE batched_background_migrations RENAME COLUMN owner_oid TO hidden;
\c - :admin
ALTER TABLE batched_background_migrations OWNER TO :admin;
SET ROLE regress_bbm_app;
ALTER TABLE batched_background_migrations RENAME COLUMN hidden TO owner_oid;
\c - :admin
ALTER TABLE batched_background_migrations OWNER TO :admin;
DROP INDEX on_plan;
DROP FUNCTION on_plan;
SELECT relowner::regrole FROM pg_class WHERE oid = 'batched_background_migrations'::regclass;
SELECT bbm_pause('given away');
ALTER TABLE batched_background_migrations OWNER TO :admin;
ALTER TABLE batched_background_migration_jobs OWNER TO :admin;
-- and on with it
SELECT bbm_start('given away');
SELECT wait_for(format('(SELECT count(*) > %s FROM o WHERE n > 0)', :done));
SELECT max(n) FROM o;
ALTER SYSTEM RESET bbm.min_pace;
SELECT pg_reload_conf();
SET client_min_messages = warning;
DROP EXTENSION bbm;
DROP FUNCTION wait_for;
DROP TABLE t, j, o, others;
DROP FUNCTION fails, trap, at_commit, at_once;
REVOKE ALL ON SCHEMA public FROM regress_bbm_app;
DROP ROLE regress_bbm_app, regress_bbm_job, regress_bbm_other;
