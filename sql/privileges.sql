--
-- A migration's owner: who may see it, control it, change it, and as whom it runs.
--

SELECT current_user AS admin \gset
CREATE EXTENSION bbm;
CREATE ROLE regress_bbm_alice LOGIN;
CREATE ROLE regress_bbm_bob LOGIN;
CREATE ROLE regress_bbm_monitor LOGIN IN ROLE pg_monitor;
CREATE ROLE regress_bbm_stranger LOGIN;
CREATE ROLE regress_bbm_team LOGIN;
GRANT regress_bbm_team TO regress_bbm_alice;
-- as doc/reference.md has it: a role that runs migrations gets the functions, and the tables for plain SQL
GRANT EXECUTE ON FUNCTION bbm_create, bbm_alter, bbm_drop, bbm_start, bbm_resume, bbm_pause, bbm_cancel, bbm_retry,
    bbm_launch_worker TO regress_bbm_alice, regress_bbm_bob;
GRANT EXECUTE ON PROCEDURE bbm_run TO regress_bbm_alice, regress_bbm_bob;
GRANT SELECT, INSERT, UPDATE, DELETE ON batched_background_migrations, batched_background_migration_jobs
    TO regress_bbm_alice, regress_bbm_bob;
GRANT SELECT ON bbm_events TO regress_bbm_alice, regress_bbm_bob;
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/fails.inc'
\i :helper
CREATE SCHEMA alices AUTHORIZATION regress_bbm_alice;
CREATE SCHEMA bobs AUTHORIZATION regress_bbm_bob;
CREATE SCHEMA teams AUTHORIZATION regress_bbm_team;
CREATE TABLE forbidden (id int PRIMARY KEY, n int);
INSERT INTO forbidden VALUES (1, 0);
CREATE TABLE readable (id int PRIMARY KEY, n int);
INSERT INTO readable VALUES (1, 0);
GRANT SELECT ON readable TO regress_bbm_alice;
CREATE FUNCTION forbidden_job(int, int) RETURNS void LANGUAGE sql AS '';
REVOKE ALL ON FUNCTION forbidden_job FROM PUBLIC;

-- alice has a table, and a migration of it
\c - regress_bbm_alice
CREATE TABLE alices.t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, who text);
INSERT INTO alices.t SELECT generate_series(1, 4);
CREATE FUNCTION alices.job(min int, max int) RETURNS void LANGUAGE sql AS
    'UPDATE alices.t SET n = n + 1, who = session_user || '' '' || current_user WHERE id BETWEEN $1 AND $2';
SELECT bbm_create('alice''s', 'alices.t', 'alices.job', batch_size => 2) > 0 AS created;
-- and no more than she may touch
\pset expanded on
SELECT * FROM fails($$SELECT bbm_create('x', 'forbidden', 'DELETE FROM alices.t WHERE id BETWEEN $1 AND $2')$$);
SELECT * FROM fails($$SELECT bbm_create('x', 'readable', 'UPDATE readable SET n = 1 WHERE id BETWEEN $1 AND $2')$$);
SELECT * FROM fails($$SELECT bbm_create('x', 'alices.t', 'UPDATE forbidden SET n = 1 WHERE id BETWEEN $1 AND $2')$$);
SELECT * FROM fails($$SELECT bbm_create('x', 'alices.t',
    'UPDATE alices.t SET n = (SELECT f.n FROM forbidden f) WHERE id BETWEEN $1 AND $2')$$);
SELECT * FROM fails($$SELECT bbm_create('x', 'alices.t', 'forbidden_job')$$);
SELECT * FROM fails($$SELECT bbm_create('x', 'bobs.t', 'alices.job')$$);
\pset expanded off
SELECT name FROM bbm_status();

-- a role without rights sees no migration, and may call no function that changes one
\c - regress_bbm_stranger
SELECT * FROM bbm_status();
SELECT * FROM bbm_jobs('alice''s');
SELECT name FROM batched_background_migrations;
SELECT id FROM batched_background_migration_jobs;
SELECT name FROM bbm_events;
SELECT state, message FROM fails($$SELECT bbm_wait('alice''s', '0')$$);
SELECT state, message FROM fails($$SELECT bbm_ensure_finished('alice''s')$$);
SELECT state, message FROM fails($$SELECT bbm_create('x', 'pg_class', 'alices.job')$$);
SELECT state, message FROM fails($$SELECT bbm_start()$$);
SELECT state, message FROM fails($$SELECT bbm_start('alice''s')$$);
SELECT state, message FROM fails($$SELECT bbm_resume()$$);
SELECT state, message FROM fails($$SELECT bbm_pause()$$);
SELECT state, message FROM fails($$SELECT bbm_cancel('alice''s')$$);
SELECT state, message FROM fails($$SELECT bbm_retry('alice''s')$$);
SELECT state, message FROM fails($$SELECT bbm_drop('alice''s')$$);
SELECT state, message FROM fails($$SELECT bbm_alter('alice''s')$$);
SELECT state, message FROM fails($$SELECT bbm_launch_worker()$$);
SELECT bbm_internal.bbm_waiting_on(1, 10), bbm_internal.bbm_waiting_on(1, 'regress_bbm_alice'::regrole),
       bbm_internal.bbm_waiting_on(1, 'regress_bbm_stranger'::regrole);
SELECT * FROM bbm_migration_status;
SELECT count(*) FROM bbm_migration_jobs;
CALL bbm_run();
UPDATE batched_background_migrations SET status = 1;
SELECT role, migration, job FROM bbm_workers() WHERE kind <> 'discovery';
-- not even through triggers of her own
CREATE TEMPORARY TABLE mine (status smallint);
CREATE TRIGGER x BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION bbm_internal.bbm_migration_guard();
CREATE TRIGGER x AFTER UPDATE ON mine FOR EACH ROW EXECUTE FUNCTION bbm_internal.bbm_migration_event();
CREATE TRIGGER x BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION bbm_internal.bbm_job_guard();
CREATE TRIGGER x BEFORE TRUNCATE ON mine EXECUTE FUNCTION bbm_internal.bbm_truncate_guard();

-- bob neither, though he may have migrations
\c - regress_bbm_bob
CREATE TABLE bobs.t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO bobs.t SELECT generate_series(1, 4);
SELECT bbm_create('bob''s', 'bobs.t', 'UPDATE bobs.t SET n = n + 1 WHERE id BETWEEN $1 AND $2') > 0 AS created;
SELECT name, status FROM bbm_status();
SELECT name, status FROM batched_background_migrations;
SELECT DISTINCT name FROM bbm_events;
SELECT count(*) FROM bbm_jobs('alice''s');
SELECT state, message FROM fails($$SELECT bbm_wait('alice''s', '0')$$);
SELECT * FROM fails($$SELECT bbm_start('alice''s')$$) \gx
SELECT state, message FROM fails($$SELECT bbm_resume('alice''s')$$);
SELECT state, message FROM fails($$SELECT bbm_pause('alice''s')$$);
SELECT state, message FROM fails($$SELECT bbm_cancel('alice''s')$$);
SELECT state, message FROM fails($$SELECT bbm_retry('alice''s')$$);
SELECT state, message FROM fails($$SELECT bbm_drop('alice''s')$$);
SELECT state, message FROM fails($$SELECT bbm_drop('alice''s', if_exists => true)$$);
SELECT state, message FROM fails($$SELECT bbm_alter('alice''s', batch_size => 1)$$);
SELECT state, message FROM fails($$SELECT bbm_alter('alice''s', owner => 'regress_bbm_bob')$$);
CALL bbm_run('alice''s');
UPDATE batched_background_migrations SET status = 1 WHERE name = 'alice''s';
DELETE FROM batched_background_migrations WHERE name = 'alice''s';
-- nor can he give his own her name as owner, or hers his
SELECT state, message FROM fails($$SELECT bbm_alter('bob''s', owner => 'regress_bbm_alice')$$);
SELECT state, message FROM fails($$UPDATE batched_background_migrations SET owner = 'regress_bbm_alice'$$);
SELECT state, message FROM fails($$UPDATE batched_background_migrations SET owner = 'regress_bbm_nobody'$$);
SELECT state, message FROM fails($$INSERT INTO batched_background_migrations
    (name, max_value, batch_size, job_signature_name, table_name, column_name, owner)
    VALUES ('x', 10, 1, 'bobs.job', 'alices.t', 'id', 'regress_bbm_alice')$$);
SELECT state, message FROM fails($$INSERT INTO batched_background_migrations
    (name, max_value, batch_size, job_signature_name, table_name, column_name, owner)
    VALUES ('x', 10, 1, 'bobs.job', 'alices.t', 'id', 'regress_bbm_nobody')$$);
UPDATE batched_background_migrations SET owner_oid = 'regress_bbm_alice'::regrole;
INSERT INTO batched_background_migrations
    (name, max_value, batch_size, job_signature_name, table_name, column_name, owner_oid)
VALUES ('spoofed', 4, 2, 'UPDATE alices.t SET n = -1 WHERE id BETWEEN $1 AND $2', 'alices.t', 'id',
        'regress_bbm_alice'::regrole);
-- a row with an origin of its own is not taken for another database's, and is bob's
INSERT INTO batched_background_migrations
    (name, max_value, batch_size, job_signature_name, table_name, column_name, owner_oid, origin, status)
VALUES ('copied', 4, 2, 'UPDATE alices.t SET n = -1 WHERE id BETWEEN $1 AND $2', 'alices.t', 'id',
        'regress_bbm_alice'::regrole, 'moon/1', 1);
SELECT state, message FROM fails($$INSERT INTO batched_background_migrations
    (name, max_value, batch_size, job_signature_name, table_name, column_name, owner, origin)
    VALUES ('x', 10, 1, 'bobs.job', 'alices.t', 'id', 'regress_bbm_alice', 'moon/1')$$);
SELECT name, owner, owner_oid::regrole FROM batched_background_migrations ORDER BY id;
-- all that are his start, hers do not
SELECT bbm_start();
SELECT name, bbm_wait(name, '1 minute') FROM batched_background_migrations ORDER BY id;
SELECT name, failure_error_code, error_sqlstate, error_message FROM batched_background_migrations
WHERE status = 3 ORDER BY id;
SELECT min(n), max(n) FROM bobs.t;
DELETE FROM batched_background_migrations WHERE name IN ('spoofed', 'copied');
-- a trap: tables and functions of the same names, before ours in the search_path
CREATE TABLE bobs.batched_background_migrations (LIKE public.batched_background_migrations);
CREATE FUNCTION bobs.bbm_status_name(smallint) RETURNS text LANGUAGE sql AS 'SELECT ''owned''';
CREATE FUNCTION bobs.equal(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR bobs.= (FUNCTION = bobs.equal, LEFTARG = text, RIGHTARG = text);
CREATE FUNCTION bobs.equal(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR bobs.= (FUNCTION = bobs.equal, LEFTARG = bigint, RIGHTARG = bigint);
SET search_path = bobs, public, pg_catalog;
SELECT public.bbm_create('trap', 'bobs.t', 'UPDATE bobs.t SET n = n + 1 WHERE id BETWEEN $1 AND $2') > 0 AS created;
SELECT public.bbm_start('trap');
SELECT public.bbm_wait('trap', '1 minute');
SELECT name, status FROM public.bbm_status();
SELECT count(*) FROM bobs.batched_background_migrations;
SELECT min(n), max(n) FROM bobs.t;
RESET search_path;

-- alice's is as it was; she runs it, and it runs as her
\c - regress_bbm_alice
SELECT name, status FROM bbm_status();
UPDATE batched_background_migrations SET status = 1;
SELECT bbm_wait('alice''s', '1 minute');
SELECT n, who, count(*) FROM alices.t GROUP BY n, who;
SELECT name, event, role FROM bbm_events ORDER BY id;
-- in the foreground, too
SELECT bbm_create('alice''s, here', 'alices.t', 'alices.job', batch_size => 2) > 0 AS created;
CALL bbm_run('alice''s, here');
SELECT n, who, count(*) FROM alices.t GROUP BY n, who;
-- what her job does, she does, and cannot do more
CREATE FUNCTION alices.escalate(min int, max int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE (SELECT statement FROM alices.escalations);
    UPDATE forbidden SET n = 666;
END $$;
CREATE TABLE alices.escalations (statement text);
INSERT INTO alices.escalations VALUES ('');
SELECT bbm_create('escalate', 'alices.t', 'alices.escalate', max_attempts => 1) > 0 AS created;
UPDATE alices.escalations SET statement = 'RESET ROLE';
SELECT bbm_start('escalate');
SELECT bbm_wait('escalate', '1 minute');
SELECT error_sqlstate, error_message FROM batched_background_migrations WHERE name = 'escalate';
UPDATE alices.escalations SET statement = 'RESET SESSION AUTHORIZATION';
SELECT bbm_start('escalate');
SELECT bbm_wait('escalate', '1 minute');
SELECT error_sqlstate, error_message FROM batched_background_migrations WHERE name = 'escalate';
UPDATE alices.escalations SET statement = 'SET SESSION AUTHORIZATION DEFAULT';
SELECT bbm_start('escalate');
SELECT bbm_wait('escalate', '1 minute');
SELECT error_sqlstate, error_message FROM batched_background_migrations WHERE name = 'escalate';
CALL bbm_run('escalate');
UPDATE alices.escalations SET statement = 'SET ROLE regress_bbm_bob';
SELECT bbm_start('escalate');
SELECT bbm_wait('escalate', '1 minute');
SELECT error_sqlstate FROM batched_background_migrations WHERE name = 'escalate';
-- the engine's own tables are not open to her job
UPDATE alices.escalations SET statement =
    'UPDATE public.batched_background_migration_jobs SET status = 2 WHERE status = 4';
SELECT bbm_start('escalate');
SELECT bbm_wait('escalate', '1 minute');
SELECT error_sqlstate, error_message FROM batched_background_migrations WHERE name = 'escalate';
UPDATE alices.escalations SET statement = 'UPDATE public.batched_background_migrations SET status = 2';
SELECT bbm_start('escalate');
SELECT bbm_wait('escalate', '1 minute');
SELECT error_sqlstate, error_message FROM batched_background_migrations WHERE name = 'escalate';
SELECT bbm_drop('escalate');

-- a member of the owner has the owner's rights, except to run it in a session
SET ROLE regress_bbm_team;
SELECT current_user, session_user;
RESET ROLE;
CREATE TABLE teams.t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, who text);
ALTER TABLE teams.t OWNER TO regress_bbm_team;
INSERT INTO teams.t SELECT generate_series(1, 4);
INSERT INTO batched_background_migrations
    (name, max_value, batch_size, job_signature_name, table_name, column_name, owner)
VALUES ('team''s', 4, 2, 'UPDATE teams.t SET n = n + 1, who = current_user WHERE id BETWEEN $1 AND $2', 'teams.t', 'id',
        'regress_bbm_team');
SELECT name, owner FROM batched_background_migrations WHERE name = 'team''s';
CALL bbm_run('team''s');
SELECT * FROM fails($$SELECT bbm_alter('team''s', job => 'alices.job')$$) \gx
SELECT bbm_start('team''s');
SELECT bbm_wait('team''s', '1 minute');
SELECT n, who, count(*) FROM teams.t GROUP BY n, who;
-- she may give hers to the team
SELECT bbm_alter('alice''s', owner => 'regress_bbm_team');
SELECT name, owner, owner_oid::regrole FROM batched_background_migrations WHERE name = 'alice''s';

-- pg_monitor sees all of them, and that is all
\c - regress_bbm_monitor
SELECT name, status, rows_done FROM bbm_status();
SELECT status, rows FROM bbm_jobs('alice''s');
SELECT bbm_wait('alice''s', '0');
SELECT bbm_ensure_finished('alice''s');
SELECT state, message FROM fails($$SELECT bbm_start('alice''s')$$);
SELECT name FROM batched_background_migrations;
SELECT DISTINCT name, role FROM bbm_events ORDER BY name, role;
SELECT state, message FROM fails($$DELETE FROM bbm_events$$);

-- a superuser may control them all, and they still run as their owner
\c - :admin
SELECT name, status, rows_done FROM bbm_status();
INSERT INTO batched_background_migrations
    (name, max_value, batch_size, job_signature_name, table_name, column_name, owner, settings)
VALUES ('for alice', 4, 2, 'UPDATE forbidden SET n = 1 WHERE id BETWEEN $1 AND $2', 'alices.t', 'id', 'regress_bbm_alice', '{bbm.missing_job_timeout=0}'),
       ('for alice 2', 4, 2, 'alices.job', 'alices.t', 'id', 'regress_bbm_alice', NULL);
SELECT bbm_start();
SELECT bbm_wait('for alice', '1 minute'), bbm_wait('for alice 2', '1 minute');
SELECT failure_error_code, error_sqlstate, error_message FROM batched_background_migrations WHERE name = 'for alice';
SELECT n, who, count(*) FROM alices.t GROUP BY n, who;
SELECT * FROM forbidden;
CALL bbm_run('for alice');
SELECT * FROM fails($$SELECT bbm_alter('for alice', job => 'UPDATE alices.t SET n = 1 WHERE id BETWEEN $1 AND $2')$$) \gx
-- as her by SET ROLE is not enough to run it here, as the job could reset that
SET ROLE regress_bbm_alice;
CALL bbm_run('for alice');
-- but to define one
SELECT bbm_create('by set role', 'alices.t', 'alices.job') > 0 AS created;
RESET ROLE;
SELECT name, owner FROM batched_background_migrations WHERE name = 'by set role';
-- CALL bbm_run() runs the session role's own only
CALL bbm_run();
SELECT name, status FROM bbm_status() WHERE name = 'by set role';

-- what is not allowed any more
REVOKE EXECUTE ON FUNCTION bbm_start FROM regress_bbm_alice;
\c - regress_bbm_alice
SELECT bbm_start('by set role');
SELECT bbm_resume('by set role');
SELECT bbm_wait('by set role', '1 minute');

\c - :admin
SET client_min_messages = warning;
DROP EXTENSION bbm;
DROP SCHEMA alices, bobs, teams CASCADE;
DROP TABLE forbidden, readable;
DROP FUNCTION fails, forbidden_job;
DROP ROLE regress_bbm_alice, regress_bbm_bob, regress_bbm_monitor, regress_bbm_stranger, regress_bbm_team;
