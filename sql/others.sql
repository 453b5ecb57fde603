--
-- Ways to change a row of somebody else's, with every privilege on the table
-- that doc/reference.md knows of: all must fail.
--

SELECT current_user AS admin \gset
CREATE EXTENSION bbm;
CREATE ROLE regress_bbm_alice LOGIN;
CREATE ROLE regress_bbm_bob LOGIN;
GRANT EXECUTE ON FUNCTION bbm_create, bbm_start, bbm_pause TO regress_bbm_alice, regress_bbm_bob;
GRANT SELECT, INSERT, UPDATE, DELETE ON batched_background_migrations, batched_background_migration_jobs
    TO regress_bbm_alice, regress_bbm_bob;
GRANT CREATE ON SCHEMA public TO regress_bbm_bob;
CREATE SCHEMA alices AUTHORIZATION regress_bbm_alice;
CREATE SCHEMA bobs AUTHORIZATION regress_bbm_bob;
GRANT USAGE ON SCHEMA bobs TO PUBLIC;
-- views that a superuser may have created for convenience: their owner bypasses the tables' policies, the guard still checks who the user is
CREATE VIEW everybodys AS SELECT * FROM batched_background_migrations;
CREATE VIEW everybodys_jobs AS SELECT * FROM batched_background_migration_jobs;
GRANT SELECT, INSERT, UPDATE, DELETE ON everybodys, everybodys_jobs TO regress_bbm_bob;

\c - regress_bbm_alice
CREATE TABLE alices.t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO alices.t SELECT generate_series(1, 4);
SELECT bbm_create('alice''s', 'alices.t', 'UPDATE alices.t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 2) > 0 AS created;
-- one that is paused and has jobs, which its owner may write then
SELECT bbm_create('with jobs', 'alices.t', 'UPDATE alices.t SET n = n / (id - id) WHERE id BETWEEN $1 AND $2', max_attempts => 1,
                  start => true) > 0 AS created;
SELECT bbm_wait('with jobs', '1 minute');
SELECT bbm_pause('with jobs');
\c - :admin
CREATE TABLE before AS SELECT * FROM batched_background_migrations;
CREATE TABLE wanted (change text);
INSERT INTO wanted VALUES
    ('owner = ''regress_bbm_bob'''), ('owner_oid = ''regress_bbm_bob''::regrole'), ('table_name = ''bobs.t'''),
    ('job_signature_name = ''DELETE FROM alices.t WHERE id BETWEEN $1 AND $2'''), ('batch_size = 1'), ('status = 1'),
    ('job_search_path = ''bobs'''), ('origin = NULL'), ('name = ''mine'''), ('max_attempts = 1'), ('workers = 2'),
    ('synchronous = true'), ('max_value = 1'), ('id = 4711');
GRANT SELECT ON wanted TO PUBLIC;

\c - regress_bbm_bob
CREATE TABLE bobs.t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
-- how a statement ends: an SQLSTATE, or how many rows it has changed
CREATE FUNCTION bobs.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
    EXECUTE statement;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n || ' rows';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ': ' || SQLERRM;
END $$;
-- UPDATE, MERGE: there is no such row
SELECT bobs.try('UPDATE batched_background_migrations SET ' || change) AS update,
       -- by version, no row is found or none may be changed
       bobs.try('MERGE INTO batched_background_migrations m USING (VALUES (1)) v ON true WHEN MATCHED THEN UPDATE SET ' || change)
           ~ '^(0 rows$|42501)' AS merge,
       count(*)
FROM wanted GROUP BY 1, 2;
SELECT bobs.try('MERGE INTO batched_background_migrations m USING (VALUES (1)) v ON true WHEN MATCHED THEN DELETE') ~ '^(0 rows$|42501)' AS merge;
SELECT bobs.try('DELETE FROM batched_background_migrations');
SELECT bobs.try('SELECT FROM batched_background_migrations FOR UPDATE');
-- INSERT ON CONFLICT
SELECT bobs.try($s$INSERT INTO batched_background_migrations
    (name, max_value, batch_size, job_signature_name, table_name, column_name)
    VALUES ('alice''s', 10, 1, 'bobs.job', 'bobs.t', 'id') ON CONFLICT (name) DO UPDATE SET $s$ || change), count(*)
FROM wanted GROUP BY 1;
SELECT bobs.try($s$INSERT INTO batched_background_migrations
    (id, name, max_value, batch_size, job_signature_name, table_name, column_name)
    VALUES (1, 'x', 10, 1, 'bobs.job', 'bobs.t', 'id') ON CONFLICT (id) DO UPDATE SET status = 1$s$);
SELECT bobs.try($s$INSERT INTO batched_background_migrations
    (id, name, max_value, batch_size, job_signature_name, table_name, column_name)
    VALUES (1, 'x', 10, 1, 'bobs.job', 'bobs.t', 'id') ON CONFLICT DO NOTHING$s$);
-- a view of his own, with rules
CREATE VIEW bobs.view AS SELECT * FROM batched_background_migrations;
CREATE RULE instead AS ON DELETE TO bobs.view DO INSTEAD UPDATE batched_background_migrations SET status = 1;
SELECT bobs.try('UPDATE bobs.view SET ' || change), count(*) FROM wanted GROUP BY 1;
SELECT bobs.try('DELETE FROM bobs.view');
-- a view of a superuser's: the guard, not the policy
SELECT bobs.try('UPDATE everybodys SET ' || change || ' WHERE name = ''alice''''s'''), count(*) FROM wanted GROUP BY 1;
SELECT bobs.try('DELETE FROM everybodys WHERE name = ''alice''''s''');
SELECT bobs.try('UPDATE everybodys_jobs SET status = 2'), bobs.try('DELETE FROM everybodys_jobs');
SELECT bobs.try('UPDATE batched_background_migration_jobs SET status = 2'), bobs.try('DELETE FROM batched_background_migration_jobs');
SELECT bobs.try($s$INSERT INTO everybodys
    (name, max_value, batch_size, job_signature_name, table_name, column_name, owner)
    VALUES ('x', 10, 1, 'DELETE FROM alices.t WHERE id BETWEEN $1 AND $2', 'alices.t', 'id', 'regress_bbm_alice')$s$);
SELECT bobs.try($s$INSERT INTO everybodys
    (name, max_value, batch_size, job_signature_name, table_name, column_name, owner_oid, origin, status)
    VALUES ('hers', 4, 1, 'DELETE FROM alices.t WHERE id BETWEEN $1 AND $2', 'alices.t', 'id', 'regress_bbm_alice'::regrole,
            'moon/1', 1)$s$);
SELECT name, owner, owner_oid::regrole FROM batched_background_migrations ORDER BY id;
-- triggers, rules, inheritance, policies, columns and indexes of his on the tables themselves
CREATE FUNCTION bobs.trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
SELECT left(bobs.try(s), 6), s FROM unnest(ARRAY[
    'CREATE TRIGGER x BEFORE UPDATE ON batched_background_migrations FOR EACH ROW EXECUTE FUNCTION bobs.trigger()',
    'CREATE RULE x AS ON UPDATE TO batched_background_migrations DO ALSO DELETE FROM bobs.t',
    'CREATE POLICY x ON batched_background_migrations USING (true)',
    'CREATE INDEX x ON batched_background_migrations ((name || 1))',
    'CREATE STATISTICS x ON id, name FROM batched_background_migrations',
    'ALTER TABLE batched_background_migrations DISABLE TRIGGER ALL',
    'ALTER TABLE batched_background_migrations ADD COLUMN x int DEFAULT 1',
    'ALTER TABLE batched_background_migrations DISABLE ROW LEVEL SECURITY',
    'CREATE TABLE bobs.child () INHERITS (batched_background_migrations)',
    'CREATE TABLE bobs.ref (id bigint REFERENCES batched_background_migrations)',
    'CREATE OR REPLACE FUNCTION bbm_internal.bbm_may_see(oid) RETURNS boolean LANGUAGE sql AS ''SELECT true''',
    'CREATE OR REPLACE VIEW bbm_migration_status AS SELECT 1 AS name',
    'CREATE CAST (text AS bigint) WITH INOUT AS IMPLICIT',
    'COPY batched_background_migrations FROM ''/dev/null''',
    'TRUNCATE batched_background_migrations',
    'SET session_replication_role = replica',
    'ALTER ROLE regress_bbm_alice NOLOGIN',
    'SET row_security = off',
    'SELECT FROM batched_background_migrations']) s;
RESET row_security;
-- types of his own, whose casts run when the row is made: as him
CREATE DOMAIN bobs.text AS text CHECK (pg_catalog.length(current_user) > 0);
CREATE TYPE bobs.pair AS (a int, b int);
CREATE FUNCTION bobs.to_text(bobs.pair) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
    UPDATE batched_background_migrations SET status = 1 WHERE name = 'alice''s';
    RETURN current_user; END $$;
CREATE CAST (bobs.pair AS text) WITH FUNCTION bobs.to_text AS ASSIGNMENT;
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES (ROW(1, 2)::bobs.pair, 4, 1, 'x', 'bobs.t'::bobs.text, 'id') RETURNING name, owner;

-- a shadow of the table in her path
\c - regress_bbm_alice
CREATE TEMPORARY TABLE batched_background_migrations (LIKE public.batched_background_migrations);
CREATE TEMPORARY TABLE batched_background_migration_jobs (LIKE public.batched_background_migration_jobs);
SET search_path = pg_temp, public;
SELECT bbm_start('alice''s');
SELECT bbm_wait('alice''s', '1 minute');
SELECT name, status, rows_done FROM bbm_status() WHERE name = 'alice''s';
SELECT count(*) FROM batched_background_migrations;

\c - :admin
-- as it was, until she started it
SELECT b.name, (to_jsonb(m) - '{updated_at,started_at,finished_at,status,table_oid,total_tuple_count,partition_order}'::text[])
               = (to_jsonb(b) - '{updated_at,started_at,finished_at,status,table_oid,total_tuple_count,partition_order}'::text[]) AS same
FROM before b JOIN batched_background_migrations m USING (id);
SELECT min(n), max(n) FROM alices.t;
SELECT status, attempts FROM bbm_jobs('with jobs');
SELECT event, role, count(*) FROM bbm_events WHERE name = 'alice''s' GROUP BY event, role ORDER BY min(id);
SET client_min_messages = warning;
DROP VIEW everybodys, everybodys_jobs, bobs.view;
DROP EXTENSION bbm;
DROP TABLE before, wanted;
DROP OWNED BY regress_bbm_bob, regress_bbm_alice CASCADE;
DROP SCHEMA IF EXISTS alices, bobs CASCADE;
DROP ROLE regress_bbm_alice, regress_bbm_bob;
