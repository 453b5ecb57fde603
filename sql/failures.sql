--
-- What breaks after a migration was defined, or in the midst of it, fails that
-- migration, with a code and a text; the others go on.
--

CREATE EXTENSION bbm;
CREATE ROLE regress_bbm_owner LOGIN;
CREATE ROLE regress_bbm_other LOGIN;
GRANT EXECUTE ON FUNCTION bbm_create TO regress_bbm_owner, regress_bbm_other;
CREATE SCHEMA broken;
CREATE SCHEMA lost;
GRANT USAGE ON SCHEMA broken, lost TO regress_bbm_owner, regress_bbm_other;
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/wait_for.inc'
\i :helper
-- a table, and a migration of it, of this name; the job is a statement, or a function of this name
CREATE FUNCTION define(name text, schema text DEFAULT 'broken', by_function boolean DEFAULT false,
                       owner text DEFAULT 'regress_bbm_owner', start boolean DEFAULT false)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    job text := format('UPDATE %I.%I SET n = n + 1 / d WHERE id BETWEEN $1 AND $2', schema, name);
BEGIN
    EXECUTE format('CREATE TABLE %I.%I (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, d int NOT NULL DEFAULT 1)',
                   schema, name);
    EXECUTE format('INSERT INTO %I.%I SELECT generate_series(1, 10)', schema, name);
    EXECUTE format('GRANT SELECT, UPDATE ON %I.%I TO %I', schema, name, owner);
    IF by_function THEN
        EXECUTE format('CREATE FUNCTION %I.%I(min int, max int) RETURNS void LANGUAGE plpgsql AS %L', schema, name,
            'BEGIN WHILE NOT pg_try_advisory_xact_lock_shared(4242) LOOP PERFORM pg_sleep(0.01); END LOOP; '
            || job || '; END');
        EXECUTE format('REVOKE ALL ON FUNCTION %I.%I FROM PUBLIC', schema, name);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %I.%I TO %I', schema, name, owner);
        job := format('%I.%I', schema, name);
    END IF;
    EXECUTE format('SET LOCAL ROLE %I', owner);
    PERFORM bbm_create(name, format('%I.%I', schema, name), job, batch_size => 5, max_attempts => 1, start => start);
    RESET ROLE;
END $$;
-- start it, with row 6 in its way: it stops half way
CREATE PROCEDURE half(name text, schema text DEFAULT 'broken') LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE %I.%I SET d = 0 WHERE id = 6', schema, name);
    PERFORM bbm_start(name);
    COMMIT;
    PERFORM bbm_wait(name, '1 minute');
    EXECUTE format('UPDATE %I.%I SET d = 1 WHERE id = 6', schema, name);
END $$;
CREATE VIEW outcome AS
    SELECT m.name, m.status, m.failure_error_code AS code, m.error_sqlstate AS sqlstate, m.error_message AS message,
           (SELECT string_agg(j.status::text, ' ' ORDER BY j.id) FROM batched_background_migration_jobs j
            WHERE j.batched_background_migration_id = m.id) AS jobs
    FROM batched_background_migrations m ORDER BY m.name;
-- a job that waits for this session
CREATE VIEW at_work AS
    SELECT pid FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event = 'PgSleep';

-- half done, then something of it is gone
SELECT define(name, by_function => name LIKE 'function%')
FROM unnest('{table dropped,table renamed,table for a view,table made anew,column renamed,key renamed,key retyped,
              index dropped,index made anew,update revoked,all revoked,schema revoked,strategy changed,
              function dropped,function reshaped,function revoked,function replaced,unharmed}'::text[]) name;
SELECT define('schema dropped', 'lost');
DO $$
DECLARE m record;
BEGIN
    FOR m IN SELECT name, CASE WHEN name = 'schema dropped' THEN 'lost' ELSE 'broken' END AS schema
             FROM batched_background_migrations ORDER BY id LOOP
        CALL half(m.name, m.schema);
    END LOOP;
END $$;
SELECT status, code, sqlstate, message, jobs, count(*) FROM outcome GROUP BY status, code, sqlstate, message, jobs;
CREATE TABLE broken.copy AS TABLE broken."table made anew";
DROP TABLE broken."table dropped", broken."table for a view", broken."table made anew";
CREATE TABLE broken."table made anew" (id int PRIMARY KEY, n int, d int);
INSERT INTO broken."table made anew" TABLE broken.copy;
GRANT SELECT, UPDATE ON broken."table made anew" TO regress_bbm_owner;
CREATE VIEW broken."table for a view" AS TABLE broken.copy;
ALTER TABLE broken."table renamed" RENAME TO "has another name";
ALTER TABLE broken."column renamed" RENAME n TO has_another_name;
ALTER TABLE broken."key renamed" RENAME id TO has_another_name;
ALTER TABLE broken."key retyped" ALTER id TYPE numeric;
ALTER TABLE broken."index dropped" DROP CONSTRAINT "index dropped_pkey";
ALTER TABLE broken."index made anew" DROP CONSTRAINT "index made anew_pkey", ADD UNIQUE (id), ALTER id SET NOT NULL;
REVOKE UPDATE ON broken."update revoked" FROM regress_bbm_owner;
REVOKE ALL ON broken."all revoked" FROM regress_bbm_owner;
-- past the guards, which refuse that
SET session_replication_role = replica;
UPDATE batched_background_migrations SET batching_strategy = 'RandomBatchingStrategy' WHERE name = 'strategy changed';
RESET session_replication_role;
DROP FUNCTION broken."function dropped", broken."function reshaped";
CREATE FUNCTION broken."function reshaped"(min int, max int, batch_size int) RETURNS void LANGUAGE sql AS '';
REVOKE EXECUTE ON FUNCTION broken."function revoked" FROM regress_bbm_owner;
CREATE OR REPLACE FUNCTION broken."function replaced"(min int, max int) RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'replaced' USING DETAIL = 'on purpose', HINT = 'do not'; END $$;
SET client_min_messages = warning;
DROP SCHEMA lost CASCADE;
RESET client_min_messages;
UPDATE batched_background_migrations SET status = 1 WHERE name <> 'schema revoked';
DO $$ BEGIN PERFORM bbm_wait(name, '1 minute') FROM batched_background_migrations ORDER BY id; END $$;
REVOKE USAGE ON SCHEMA broken FROM regress_bbm_owner;
SELECT bbm_start('schema revoked');
SELECT bbm_wait('schema revoked', '1 minute');
GRANT USAGE ON SCHEMA broken TO regress_bbm_owner;
SELECT * FROM outcome;
SELECT error_detail, error_hint FROM batched_background_migrations WHERE name = 'function replaced';
-- corrected, it goes on where it stopped
ALTER TABLE broken."has another name" RENAME TO "table renamed";
ALTER TABLE broken."column renamed" RENAME has_another_name TO n;
ALTER TABLE broken."key renamed" RENAME has_another_name TO id;
ALTER TABLE broken."index dropped" ADD PRIMARY KEY (id);
GRANT UPDATE ON broken."update revoked" TO regress_bbm_owner;
SELECT name, bbm_start(name), bbm_wait(name, '0') <> '' AS asked FROM outcome
WHERE name IN ('table renamed', 'column renamed', 'key renamed', 'index dropped', 'update revoked', 'schema revoked');
SELECT name, bbm_wait(name, '1 minute') FROM outcome
WHERE name IN ('table renamed', 'column renamed', 'key renamed', 'index dropped', 'update revoked', 'schema revoked');
SELECT min(n), max(n), count(*) FROM (
    TABLE broken."table renamed" UNION ALL TABLE broken."column renamed" UNION ALL TABLE broken."key renamed" UNION ALL
    TABLE broken."index dropped" UNION ALL TABLE broken."index made anew" UNION ALL TABLE broken."update revoked" UNION ALL
    TABLE broken."schema revoked" UNION ALL TABLE broken."unharmed") all_of_them;
DELETE FROM batched_background_migrations;

-- under the feet of a batch in flight
SELECT pg_advisory_lock(4242);
SELECT define('dropped', by_function => true, start => true);
SELECT wait_for($$EXISTS (SELECT 1 FROM at_work)$$);
DROP TABLE broken.dropped;
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('dropped', '1 minute');
SELECT pg_advisory_lock(4242);
SELECT define('renamed', by_function => true, start => true);
SELECT wait_for($$EXISTS (SELECT 1 FROM at_work)$$);
ALTER TABLE broken.renamed RENAME n TO has_another_name;
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('renamed', '1 minute');
SELECT pg_advisory_lock(4242);
SELECT define('revoked', by_function => true, start => true);
SELECT wait_for($$EXISTS (SELECT 1 FROM at_work)$$);
REVOKE UPDATE ON broken.revoked FROM regress_bbm_owner;
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('revoked', '1 minute');
-- or of the next one
SELECT pg_advisory_lock(4242);
SELECT define('function gone', by_function => true, start => true);
SELECT wait_for($$EXISTS (SELECT 1 FROM at_work)$$);
DROP FUNCTION broken."function gone";
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('function gone', '1 minute');
SELECT pg_advisory_lock(4242);
SELECT define('index gone', by_function => true, start => true);
SELECT wait_for($$EXISTS (SELECT 1 FROM at_work)$$);
ALTER TABLE broken."index gone" DROP CONSTRAINT "index gone_pkey";
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('index gone', '1 minute');
SELECT wait_for('(SELECT sum(jobs_running) = 0 FROM bbm_status_detail())');
SELECT name, status, code FROM outcome;
DELETE FROM batched_background_migrations;

-- the owner goes
SELECT define('owner gone', owner => 'regress_bbm_other');
SELECT define('unharmed 2');
REVOKE ALL ON broken."owner gone" FROM regress_bbm_other;
REVOKE ALL ON SCHEMA broken FROM regress_bbm_other;
REVOKE ALL ON FUNCTION bbm_create FROM regress_bbm_other;
DROP ROLE regress_bbm_other;
SELECT name, status FROM bbm_status();
SELECT bbm_start();
SELECT bbm_wait('owner gone', '1 minute'), bbm_wait('unharmed 2', '1 minute');
SELECT * FROM outcome;
-- it is given to another
SELECT bbm_alter('owner gone', owner => 'regress_bbm_owner');
GRANT SELECT, UPDATE ON broken."owner gone" TO regress_bbm_owner;
SELECT bbm_start('owner gone');
SELECT bbm_wait('owner gone', '1 minute');
SELECT min(n), max(n), count(*) FROM broken."owner gone";
-- renamed it stays the owner
CREATE ROLE regress_bbm_other LOGIN;
GRANT USAGE ON SCHEMA broken TO regress_bbm_other;
GRANT EXECUTE ON FUNCTION bbm_create TO regress_bbm_other;
SELECT define('owner renamed', owner => 'regress_bbm_other');
ALTER ROLE regress_bbm_other RENAME TO regress_bbm_another;
SELECT bbm_alter('owner renamed', batch_size => 3);
SELECT bbm_start('owner renamed');
SELECT bbm_wait('owner renamed', '1 minute');
SELECT min(n), max(n), count(*) FROM broken."owner renamed";
SELECT status, min_value, max_value FROM bbm_jobs('owner renamed');

-- a failed job is not tried again before it is due, although nothing else is left to do
SELECT define('not due');
UPDATE broken."not due" SET d = 0 WHERE id = 6;
SELECT bbm_alter('not due', max_attempts => 2, settings => ARRAY['bbm.retry_delay=1h']);
SELECT bbm_start('not due');
SELECT wait_for($$EXISTS (SELECT 1 FROM bbm_status('not due') WHERE status = 'failed' OR waiting_on LIKE 'retry%')$$);
SELECT m.status AS migration, j.min_value, j.status, j.attempts FROM batched_background_migrations m
    JOIN batched_background_migration_jobs j ON j.batched_background_migration_id = m.id WHERE m.name = 'not due' ORDER BY j.id;

-- another server ends a statement that takes too long, which is no cancel of this batch: it becomes smaller until it does not
CREATE TABLE broken.elsewhere (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO broken.elsewhere SELECT generate_series(1, 10);
CREATE FUNCTION broken.elsewhere(lo int, hi int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF hi - lo > 1 THEN
        RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = 'query_canceled';
    END IF;
    UPDATE broken.elsewhere SET n = n + 1 WHERE id BETWEEN lo AND hi;
END $$;
SELECT bbm_create('elsewhere', 'broken.elsewhere', 'broken.elsewhere', batch_size => 10, start => true) > 0 AS created;
SELECT bbm_wait('elsewhere', '1 minute');
SELECT n, count(*) FROM broken.elsewhere GROUP BY n;
SELECT jsonb_object_keys(requeue_reasons) FROM bbm_status_detail('elsewhere');

-- nothing of this has cost a process its life
SELECT kind FROM bbm_workers(launcher => true) WHERE kind = 'launcher';

SET client_min_messages = warning;
DROP VIEW outcome, at_work;
DROP EXTENSION bbm;
DROP SCHEMA broken CASCADE;
DROP FUNCTION define, wait_for;
DROP PROCEDURE half;
DROP ROLE regress_bbm_owner, regress_bbm_another;
