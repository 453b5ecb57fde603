--
-- The grants of doc/operations.md, "Roles and grants", as they stand there: who
-- defines, who operates and does not define, who may start and pause alone.
--

SELECT current_user AS admin \gset
CREATE EXTENSION bbm;
CREATE ROLE regress_bbm_app LOGIN;
CREATE ROLE regress_bbm_deployer LOGIN;
CREATE ROLE regress_bbm_oncall LOGIN;
CREATE ROLE regress_bbm_helpdesk LOGIN;
CREATE SCHEMA app AUTHORIZATION regress_bbm_app;

-- those of an operator
GRANT regress_bbm_app TO regress_bbm_deployer, regress_bbm_oncall;
GRANT EXECUTE ON FUNCTION bbm_create, bbm_alter, bbm_drop TO regress_bbm_deployer;
GRANT SELECT, INSERT, UPDATE (status) ON batched_background_migrations TO regress_bbm_deployer;
GRANT EXECUTE ON FUNCTION bbm_start, bbm_resume, bbm_pause, bbm_cancel, bbm_retry TO regress_bbm_deployer, regress_bbm_oncall;
GRANT SELECT, UPDATE (status) ON batched_background_migrations TO regress_bbm_oncall;
GRANT SELECT ON batched_background_migration_jobs, bbm_events TO regress_bbm_deployer, regress_bbm_oncall;

CREATE TABLE app.items (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, who name);
ALTER TABLE app.items OWNER TO regress_bbm_app;
INSERT INTO app.items SELECT generate_series(1, 10);

\c - regress_bbm_deployer
SELECT bbm_create('fill items', 'app.items', 'UPDATE app.items SET n = n + 1, who = current_user WHERE id BETWEEN $1 AND $2',
                  batch_size => 5) > 0 AS created;
SELECT bbm_alter('fill items', owner => 'regress_bbm_app');
SELECT name, owner, status FROM batched_background_migrations;

\c - regress_bbm_oncall
SELECT name, status, waiting_on FROM bbm_status_detail();
-- what works: the runbook's statements, the functions, reading
UPDATE batched_background_migrations SET status = 1 WHERE name = 'fill items';
SELECT bbm_wait('fill items', '1 minute');
SELECT count(*) AS jobs FROM batched_background_migration_jobs;
SELECT event, role FROM bbm_events ORDER BY id;
SELECT n, who, count(*) FROM app.items GROUP BY n, who;
\c - regress_bbm_deployer
SELECT bbm_create('again', 'app.items', 'UPDATE app.items SET n = n + 1, who = current_user WHERE id BETWEEN $1 AND $2',
                  batch_size => 5) > 0 AS created;
SELECT bbm_alter('again', owner => 'regress_bbm_app');
\c - regress_bbm_oncall
SELECT bbm_start('again');
SELECT bbm_wait('again', '1 minute');
SELECT bbm_pause(), bbm_start(), bbm_resume();
SELECT bbm_retry('again'), bbm_cancel('again');
UPDATE batched_background_migrations SET status = 0 WHERE name = 'again';
SELECT n, who, count(*) FROM app.items GROUP BY n, who;
-- what is refused: to define, to change, to drop
CREATE FUNCTION pg_temp.fails(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ': ' || SQLERRM;
END $$;
SELECT pg_temp.fails(s) FROM unnest(ARRAY[
    $s$SELECT bbm_create('mine', 'app.items', 'DELETE FROM app.items WHERE id BETWEEN $1 AND $2')$s$,
    $s$SELECT bbm_alter('again', job => 'DELETE FROM app.items WHERE id BETWEEN $1 AND $2')$s$,
    $s$SELECT bbm_drop('again')$s$,
    $s$CALL bbm_run('again')$s$,
    $s$SELECT bbm_launch_worker()$s$,
    $s$INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, owner)
       VALUES ('mine', 10, 1, 'DELETE FROM app.items WHERE id BETWEEN $1 AND $2', 'app.items', 'id', 'regress_bbm_app')$s$,
    $s$UPDATE batched_background_migrations SET job_signature_name = 'DELETE FROM app.items WHERE id BETWEEN $1 AND $2'$s$,
    $s$UPDATE batched_background_migrations SET batch_size = 1$s$,
    $s$UPDATE batched_background_migrations SET owner = 'regress_bbm_oncall'$s$,
    $s$UPDATE batched_background_migrations SET status = 4$s$,
    $s$DELETE FROM batched_background_migrations$s$,
    $s$TRUNCATE batched_background_migrations$s$,
    $s$UPDATE batched_background_migration_jobs SET status = 1$s$,
    $s$DELETE FROM batched_background_migration_jobs$s$,
    $s$DELETE FROM bbm_events$s$]) s;
SELECT pg_temp.fails(s) FROM unnest(ARRAY[
    $s$SET ROLE regress_bbm_app; SELECT bbm_create('mine', 'app.items', 'DELETE FROM app.items WHERE id BETWEEN $1 AND $2')$s$]) s;
RESET ROLE;

-- no grant lets anybody lock the others out: nothing is shown
SELECT t, m FROM unnest(ARRAY['batched_background_migrations', 'batched_background_migration_jobs', 'bbm_events',
                              'bbm_partitions', 'bbm_row_errors', 'bbm_totals']) t,
                 unnest(ARRAY['SHARE UPDATE EXCLUSIVE', 'SHARE', 'SHARE ROW EXCLUSIVE', 'EXCLUSIVE', 'ACCESS EXCLUSIVE']) m,
                 unnest(ARRAY['regress_bbm_oncall', 'regress_bbm_app']) r
WHERE pg_temp.fails(format('SET LOCAL ROLE %I; LOCK TABLE %s IN %s MODE', r, t, m)) <> '42501: permission denied for table ' || t;
RESET ROLE;
\c - regress_bbm_deployer
DO $$BEGIN LOCK TABLE batched_background_migrations IN SHARE UPDATE EXCLUSIVE MODE; END$$;
DO $$BEGIN LOCK TABLE batched_background_migration_jobs IN ACCESS EXCLUSIVE MODE; END$$;
DO $$BEGIN LOCK TABLE bbm_events IN ACCESS EXCLUSIVE MODE; END$$;

-- the grants of tables are for plain statements: the functions work without
\c - :admin
REVOKE ALL ON batched_background_migrations, batched_background_migration_jobs, bbm_events FROM regress_bbm_deployer, regress_bbm_oncall;
REVOKE ALL (status) ON batched_background_migrations FROM regress_bbm_deployer, regress_bbm_oncall;
\c - regress_bbm_deployer
SELECT bbm_create('alone', 'app.items', 'UPDATE app.items SET n = n WHERE id BETWEEN $1 AND $2') > 0 AS created;
SELECT bbm_alter('alone', batch_size => 7);
SELECT bbm_drop('alone');
SELECT bbm_create('alone', 'app.items', 'UPDATE app.items SET n = n WHERE id BETWEEN $1 AND $2') > 0 AS created;
SELECT bbm_alter('alone', owner => 'regress_bbm_app');
\c - regress_bbm_oncall
BEGIN;
SELECT bbm_start('alone');
SELECT bbm_pause('alone') >= 0 AS paused;
SELECT bbm_retry('alone') >= 0 AS retried, bbm_cancel('alone') >= 0 AS cancelled;
SELECT bbm_resume('alone') >= 0 AS resumed;
COMMIT;
SELECT bbm_wait('alone', '1 minute');
SELECT name, status FROM bbm_status('alone');
SELECT count(*) > 0 AS jobs FROM bbm_jobs('alone');
SELECT bbm_ensure_finished('alone');
UPDATE batched_background_migrations SET status = 0;

-- those of a role that may start and pause, and has no other rights of the owner's
\c - :admin
GRANT EXECUTE ON FUNCTION bbm_start, bbm_pause TO regress_bbm_app;
\c - regress_bbm_app
CREATE FUNCTION app.pause_migration(name text) RETURNS integer LANGUAGE sql
    SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
    AS 'SELECT bbm_pause(name)';
CREATE FUNCTION app.start_migration(name text) RETURNS integer LANGUAGE sql
    SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
    AS 'SELECT bbm_start(name)';
REVOKE ALL ON FUNCTION app.pause_migration, app.start_migration FROM PUBLIC;
GRANT USAGE ON SCHEMA app TO regress_bbm_helpdesk;
GRANT EXECUTE ON FUNCTION app.pause_migration, app.start_migration TO regress_bbm_helpdesk;
\c - regress_bbm_deployer
SELECT bbm_create('third', 'app.items', 'UPDATE app.items SET n = n + 1, who = current_user WHERE id BETWEEN $1 AND $2',
                  batch_size => 5) > 0 AS created;
SELECT bbm_alter('third', owner => 'regress_bbm_app');
SELECT bbm_create('not app''s', 'app.items', 'UPDATE app.items SET n = n + 1 WHERE id BETWEEN $1 AND $2') > 0 AS created;
\c - regress_bbm_helpdesk
-- at once: it would have finished
BEGIN;
SELECT app.start_migration('third');
SELECT app.pause_migration('third') >= 0 AS paused;
SELECT app.start_migration('third') >= 0 AS started;
COMMIT;
SELECT app.start_migration('not app''s');
SELECT bbm_start('third');
UPDATE batched_background_migrations SET status = 0;
SELECT * FROM app.items;
SELECT name FROM bbm_status();
\c - regress_bbm_app
SELECT bbm_wait('third', '1 minute');
SELECT n, who, count(*) FROM app.items GROUP BY n, who;

\c - :admin
SET client_min_messages = warning;
DROP EXTENSION bbm;
DROP SCHEMA app CASCADE;
DROP ROLE regress_bbm_app, regress_bbm_deployer, regress_bbm_oncall, regress_bbm_helpdesk;
