--
-- Who may write each column: a role with every grant there is on the tables says what
-- a user defines, and nothing else is believed.
--

SELECT current_user AS admin \gset
CREATE EXTENSION bbm;
CREATE ROLE regress_bbm_evil LOGIN;
CREATE ROLE regress_bbm_good LOGIN;
CREATE SCHEMA evil AUTHORIZATION regress_bbm_evil;
CREATE SCHEMA good AUTHORIZATION regress_bbm_good;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO regress_bbm_evil, regress_bbm_good;
GRANT EXECUTE ON PROCEDURE bbm_run TO regress_bbm_evil, regress_bbm_good;
GRANT ALL ON ALL TABLES IN SCHEMA public TO regress_bbm_evil;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO regress_bbm_evil;
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/fails.inc'
\i :helper
CREATE TABLE good.t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO good.t SELECT generate_series(1, 10);
CREATE TABLE evil.t (LIKE good.t INCLUDING ALL);
INSERT INTO evil.t TABLE good.t;
SELECT 'good.t'::regclass::oid AS good_t \gset
ALTER TABLE good.t OWNER TO regress_bbm_good;
ALTER TABLE evil.t OWNER TO regress_bbm_evil;

-- what becomes of each column of a migration in an INSERT, an UPDATE before it runs, and one after
CREATE FUNCTION evil.outcome(statement text, given text, read text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    found text;
BEGIN
    EXECUTE statement;
    EXECUTE read INTO found;
    RETURN CASE WHEN found = given THEN 'taken' ELSE 'ours' END;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;
\c - regress_bbm_evil
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES ('before', 10, 10, 'UPDATE evil.t SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'evil.t', 'id'),
       ('after', 10, 10, 'UPDATE evil.t SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'evil.t', 'id');
CALL bbm_run('after');
CREATE TABLE evil.columns AS
SELECT a.attnum, a.attname AS name,
       coalesce((SELECT v.value FROM (VALUES ('on_error', 'skip'), ('operation', 'delete'), ('owner', 'regress_bbm_evil'),
                                             ('verify', 'false'), ('settings', '{bbm.lock_timeout=7ms}'), ('job_settings', '{TimeZone=UTC}')) v (name, value)
                 WHERE v.name = a.attname),
                CASE format_type(a.atttypid, NULL) WHEN 'text' THEN 'x' WHEN 'text[]' THEN '{7}' WHEN 'interval' THEN '00:00:07'
                     WHEN 'boolean' THEN 'true' WHEN 'timestamp with time zone' THEN '2001-01-01 00:00:00+00'
                     WHEN 'name' THEN 'x' WHEN 'oid' THEN '10' WHEN 'smallint' THEN '3' ELSE '17' END) AS value
FROM pg_attribute a
WHERE a.attrelid = 'batched_background_migrations'::regclass AND a.attnum > 0 AND NOT a.attisdropped;
SET timezone = UTC;
SET intervalstyle = postgres;
CREATE TABLE evil.outcomes AS
SELECT c.attnum, c.name,
       CASE WHEN c.name IN ('name', 'max_value', 'batch_size', 'job_signature_name', 'table_name', 'column_name') THEN 'taken'
            ELSE evil.outcome(format('INSERT INTO batched_background_migrations
                (name, max_value, batch_size, job_signature_name, table_name, column_name, %I)
                VALUES (%L, 20, 5, ''evil.nothing'', ''evil.t'', ''id'', %L)', c.name, 'with ' || c.name, c.value), c.value,
                format('SELECT %I::text FROM batched_background_migrations WHERE name = %L', c.name, 'with ' || c.name)) END
       AS insert
FROM evil.columns c;
SELECT insert, string_agg(name, ', ' ORDER BY attnum) AS columns FROM evil.outcomes GROUP BY insert ORDER BY insert;
SELECT o.before, o.after, string_agg(c.name, ', ' ORDER BY c.attnum) AS columns
FROM evil.columns c CROSS JOIN LATERAL (
    SELECT evil.outcome(format('UPDATE batched_background_migrations SET %I = %L WHERE name = %L', c.name, c.value, 'before'), c.value,
               format('SELECT %I::text FROM batched_background_migrations WHERE name = %L', c.name, 'before')) AS before,
           evil.outcome(format('UPDATE batched_background_migrations SET %I = %L WHERE name = %L', c.name, c.value, 'after'), c.value,
               format('SELECT %I::text FROM batched_background_migrations WHERE name = %L', c.name, 'after')) AS after) o
WHERE c.name <> 'name'
GROUP BY o.before, o.after ORDER BY o.before, o.after;
-- by every way there is
SELECT count(*) AS believed FROM batched_background_migrations
WHERE table_oid = 10 OR owner_oid = 10 OR phase <> 'work' OR round > 1 OR origin = 'x' OR total_tuple_count = 17 OR created_at < '2002-01-01';
DELETE FROM batched_background_migrations WHERE name <> 'after';
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, table_oid, origin, phase, round)
VALUES ('on conflict', 10, 10, 'f', 'good.t', 'id', :good_t, 'x', 'verify', 2);
INSERT INTO batched_background_migrations AS m (name, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES ('on conflict', 10, 10, 'f', 'good.t', 'id')
ON CONFLICT (name) DO UPDATE SET table_oid = :good_t, phase = 'verify', round = 2, started_at = now(), owner_oid = 10, origin = 'x';
MERGE INTO batched_background_migrations m USING (VALUES ('merge'), ('on conflict')) v (name) ON m.name = v.name
WHEN MATCHED THEN UPDATE SET table_oid = :good_t, phase = 'verify', round = 2, started_at = now(), owner_oid = 10, origin = 'x'
WHEN NOT MATCHED THEN INSERT (name, max_value, batch_size, job_signature_name, table_name, column_name, table_oid, phase, round, origin)
    VALUES (v.name, 10, 10, 'f', 'good.t', 'id', :good_t, 'verify', 2, 'x');
CREATE VIEW evil.view AS SELECT * FROM batched_background_migrations;
CREATE RULE instead AS ON DELETE TO evil.view DO INSTEAD
    UPDATE batched_background_migrations SET table_oid = :good_t, phase = 'verify', round = 2 WHERE name = old.name;
INSERT INTO evil.view (name, max_value, batch_size, job_signature_name, table_name, column_name, table_oid, phase, round, max_attempts,
                       share_table, synchronous, status, min_value, workers, verify, follow, created_at, id,
                       allow_full_scan, job_search_path, allow_key_change, min_batch_size, max_batch_size, on_error, max_errors)
SELECT 'view', 10, 10, 'f', 'good.t', 'id', :good_t, 'verify', 2, 5, false, false, 0, 1, 1, false, false, now(),
       nextval('bbm_migrations_id_seq'), false, '', false, 10, 100, 'fail', 10;
UPDATE evil.view SET table_oid = :good_t, started_at = now();
DELETE FROM evil.view WHERE name = 'view';
\copy batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, table_oid) FROM /dev/null
SELECT name, table_oid, phase, round, started_at, owner, owner_oid::regrole, origin = (SELECT origin FROM batched_background_migrations WHERE name = 'after') AS here
FROM batched_background_migrations WHERE name <> 'after' ORDER BY name;

-- ids are the sequence's
\pset expanded on
SELECT * FROM fails($$INSERT INTO batched_background_migrations
    (id, name, max_value, batch_size, job_signature_name, table_name, column_name)
    VALUES (4294967297, 'chosen', 10, 10, 'f', 'good.t', 'id')$$);
\pset expanded off
SELECT state FROM fails($$INSERT INTO batched_background_migrations
    (id, name, max_value, batch_size, job_signature_name, table_name, column_name)
    SELECT nextval('bbm_migrations_id_seq') + 1, 'the next one''s', 10, 10, 'f', 'good.t', 'id'$$);
SELECT state FROM fails($$INSERT INTO batched_background_migrations
    (id, name, max_value, batch_size, job_signature_name, table_name, column_name, origin)
    VALUES (1000000, 'as a restore', 10, 10, 'f', 'good.t', 'id', 'x')$$);
SELECT state FROM fails($$INSERT INTO batched_background_migrations
    (id, name, max_value, batch_size, job_signature_name, table_name, column_name) OVERRIDING SYSTEM VALUE
    VALUES (1000000, 'overriding', 10, 10, 'f', 'good.t', 'id')$$);
SELECT state, message FROM fails($$SELECT setval('bbm_migrations_id_seq', 1000000)$$);
-- also when the session has asked for none
\c - regress_bbm_evil
SELECT state FROM fails($$INSERT INTO batched_background_migrations
    (id, name, max_value, batch_size, job_signature_name, table_name, column_name)
    VALUES (1000000, 'not asked', 10, 10, 'f', 'good.t', 'id')$$);
-- while these are the sequence's
INSERT INTO batched_background_migrations (id, name, max_value, batch_size, job_signature_name, table_name, column_name)
OVERRIDING USER VALUE VALUES (1000000, 'overriding', 10, 10, 'f', 'good.t', 'id');
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name)
SELECT 'many ' || i, 10, 10, 'f', 'good.t', 'id' FROM generate_series(3, 1, -1) i ORDER BY i;
INSERT INTO batched_background_migrations (id, name, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES (DEFAULT, 'default', 10, 10, 'f', 'good.t', 'id');
SELECT max(id) < 1000000 AS next, count(*) FROM batched_background_migrations WHERE name ~ 'overriding|many|default';
-- for everybody: a superuser does not choose either, but restores
\c - :admin
SELECT state FROM fails($$INSERT INTO batched_background_migrations
    (id, name, max_value, batch_size, job_signature_name, table_name, column_name)
    VALUES (1000000, 'by a superuser', 10, 10, 'f', 'good.t', 'id')$$);

-- the table is not taken, whatever was said of it
\c - regress_bbm_good
SELECT bbm_create('good''s', 'good.t', 'UPDATE good.t SET n = n + 1 WHERE id BETWEEN $1 AND $2', start => true) > 0 AS created;
SELECT bbm_wait('good''s', '1 minute');
SELECT min(n), max(n) FROM good.t;

-- the codes that an INSERT may carry: none of them is believed to have come about
\c - regress_bbm_evil
INSERT INTO batched_background_migrations (name, status, max_value, batch_size, job_signature_name, table_name, column_name, finished_at)
SELECT 'code ' || s, s, 10, 10, 'UPDATE evil.t SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'evil.t', 'id', now()
FROM unnest('{0,2,3,4}'::int[]) s;
SELECT bbm_wait('code 4', '1 minute');
SELECT name, status, percent, finished_at IS NOT NULL AS finished FROM bbm_status_detail() WHERE name LIKE 'code%' ORDER BY name;
-- its table was noted, as others go by it
SELECT table_oid = 'evil.t'::regclass AS noted, started_at IS NOT NULL AS started FROM batched_background_migrations WHERE name = 'code 4';
\pset expanded on
SELECT * FROM fails($$SELECT bbm_ensure_finished('code 4', 'code 2')$$);
\pset expanded off
SELECT state FROM fails($$SELECT bbm_ensure_finished('code 4')$$);
-- a finished one is what it was
SELECT state, message FROM fails($$UPDATE batched_background_migrations SET table_name = 'good.t' WHERE name = 'code 4'$$);
SELECT state, message FROM fails($$UPDATE batched_background_migrations SET max_value = 1000 WHERE name = 'code 4'$$);
SELECT state, message FROM fails($$UPDATE batched_background_migrations SET batch_size = 3 WHERE name = 'code 4'$$);
-- but one that is restarted, as the registry does, has a null code
UPDATE batched_background_migrations SET status = 1, failure_error_code = NULL WHERE name = 'code 3';
SELECT bbm_wait('code 3', '1 minute');

-- what the workers write
SELECT bbm_create('paused', 'evil.t', 'UPDATE evil.t SET n = 1 / (id - 5) WHERE id BETWEEN $1 AND $2', batch_size => 5, max_attempts => 1,
                  start => true) > 0 AS created;
SELECT bbm_wait('paused', '1 minute');
SELECT bbm_pause('paused');
CREATE FUNCTION evil.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    EXECUTE statement;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n || ' rows';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ': ' || SQLERRM;
END $$;
SELECT c.attname, evil.try(format('UPDATE batched_background_migration_jobs j SET %I = %s
        FROM batched_background_migrations m WHERE m.id = j.batched_background_migration_id AND m.name = ''paused'' AND j.status = 3',
        c.attname, CASE format_type(c.atttypid, NULL)
            WHEN 'boolean' THEN 'NOT ' || c.attname WHEN 'text' THEN $s$'x'$s$ WHEN 'text[]' THEN $s$'{7}'$s$
            WHEN 'jsonb' THEN $s$'{"other": 7}'$s$ WHEN 'integer[]' THEN $s$'{7}'$s$ WHEN 'timestamp with time zone' THEN $s$'2001-01-01'$s$ ELSE '17' END)) AS try
FROM pg_attribute c
WHERE c.attrelid = 'batched_background_migration_jobs'::regclass AND c.attnum > 0 AND NOT c.attisdropped ORDER BY c.attnum;
SELECT worker_pid = 17 AS pid, worker_id = 17 AS token, claim_epoch = 17 AS claim FROM batched_background_migration_jobs j
JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name = 'paused' AND j.status = 3;
SELECT evil.try(s) FROM unnest(ARRAY[
    $s$INSERT INTO batched_background_migration_jobs (batched_background_migration_id, min_value, max_value, status, worker_pid, worker_id)
       SELECT id, 1, 2, 4, 1, 1 FROM batched_background_migrations WHERE name = 'paused'$s$,
    $s$INSERT INTO batched_background_migration_jobs (batched_background_migration_id, min_value, max_value) VALUES (1000000, 1, 2)$s$,
    $s$INSERT INTO bbm_events (migration_id, name, event, status, role, owner_oid)
       VALUES (1, 'x', 'finished', 'finished', 'postgres', 'regress_bbm_evil'::regrole)$s$,
    $s$UPDATE bbm_events SET role = 'regress_bbm_good'$s$,
    $s$DELETE FROM bbm_events$s$,
    $s$INSERT INTO bbm_partitions (migration_id, relation, relation_name) SELECT id, 'evil.t'::regclass, 'evil.t'
       FROM batched_background_migrations WHERE name = 'paused'$s$,
    $s$INSERT INTO bbm_row_errors (migration_id, job_id, min_value, max_value) SELECT id, 1, 1, 1
       FROM batched_background_migrations WHERE name = 'paused'$s$,
    $s$TRUNCATE bbm_events$s$, $s$TRUNCATE bbm_partitions$s$, $s$TRUNCATE bbm_row_errors$s$,
    $s$TRUNCATE batched_background_migration_jobs$s$,
    $s$TRUNCATE batched_background_migrations, batched_background_migration_jobs$s$]) s;
-- nor is TRUNCATE kept to rows of one's own by being granted
\c - :admin
DELETE FROM batched_background_migrations;
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, owner)
VALUES ('good''s', 10, 10, 'f', 'good.t', 'id', 'regress_bbm_good');
\c - regress_bbm_evil
SELECT evil.try('TRUNCATE batched_background_migrations, batched_background_migration_jobs');

-- a setting that is the superuser's to grant, and with which triggers do not fire
\c - :admin
GRANT SET ON PARAMETER session_replication_role TO regress_bbm_evil;
\c - regress_bbm_evil
SET session_replication_role = replica;
INSERT INTO batched_background_migrations (name, status, max_value, batch_size, job_signature_name, table_name, column_name, owner_oid)
VALUES ('x', 1, 10, 10, 'UPDATE good.t SET n = -1 WHERE id BETWEEN $1 AND $2', 'good.t', 'id', 'regress_bbm_evil'::regrole);
RESET session_replication_role;

-- a trigger of his own would run as the tables' owner
CREATE TABLE evil.seen (who name);
GRANT INSERT ON evil.seen TO PUBLIC;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE FUNCTION evil.spy() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO evil.seen VALUES (current_user);
    RETURN NEW;
END $$;
CREATE TRIGGER aaa BEFORE INSERT ON batched_background_migration_jobs FOR EACH ROW EXECUTE FUNCTION evil.spy();
CREATE CONSTRAINT TRIGGER bbb AFTER INSERT ON bbm_events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION evil.spy();
\c - regress_bbm_good
SELECT bbm_create('met', 'good.t', 'UPDATE good.t SET n = n + 1 WHERE id BETWEEN $1 AND $2');
SELECT bbm_start('good''s');
\c - :admin
SELECT * FROM evil.seen;
DROP TRIGGER aaa ON batched_background_migration_jobs;
DROP TRIGGER bbb ON bbm_events;
\c - regress_bbm_good
SELECT bbm_create('met', 'good.t', 'UPDATE good.t SET n = n + 1 WHERE id BETWEEN $1 AND $2', start => true) > 0 AS created;
SELECT bbm_wait('met', '1 minute');
-- nor does a foreign key of his to bbm's tables let him write as the user that drops a migration
\c - regress_bbm_evil
CREATE TABLE evil.refers (id bigint REFERENCES batched_background_migrations ON DELETE CASCADE);
CREATE FUNCTION evil.defines() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, owner)
    VALUES ('by cascade', 10, 10, 'UPDATE good.t SET n = -1 WHERE id BETWEEN $1 AND $2', 'good.t', 'id', 'regress_bbm_good');
    RETURN OLD;
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE '% %: %', current_user, SQLSTATE, SQLERRM;
    RETURN OLD;
END $$;
CREATE TRIGGER defines BEFORE DELETE ON evil.refers FOR EACH ROW EXECUTE FUNCTION evil.defines();
\c - :admin
INSERT INTO evil.refers SELECT id FROM batched_background_migrations WHERE name = 'met';
\c - regress_bbm_good
SELECT bbm_drop('met');
SELECT name FROM bbm_status();

-- the tables' owner is no superuser: he restores, and nobody becomes another role through him
\c - :admin
DROP TABLE evil.refers;
CREATE ROLE regress_bbm_registry LOGIN;
GRANT ALL ON SCHEMA public TO regress_bbm_registry;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO regress_bbm_registry;
GRANT EXECUTE ON PROCEDURE bbm_run TO regress_bbm_registry;
DELETE FROM batched_background_migrations;
SELECT bbm_create('admin''s', 'good.t', 'UPDATE good.t SET n = n + 1 WHERE id BETWEEN $1 AND $2') > 0 AS created;
ALTER TABLE batched_background_migrations OWNER TO regress_bbm_registry;
ALTER TABLE batched_background_migration_jobs OWNER TO regress_bbm_registry;
ALTER TABLE bbm_events OWNER TO regress_bbm_registry;
ALTER TABLE bbm_partitions OWNER TO regress_bbm_registry;
ALTER TABLE bbm_row_errors OWNER TO regress_bbm_registry;
CREATE TABLE r (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO r SELECT generate_series(1, 10);
ALTER TABLE r OWNER TO regress_bbm_registry;
\c - regress_bbm_registry
INSERT INTO batched_background_migrations (name, min_value, max_value, batch_size, status, job_signature_name, table_name, column_name)
VALUES ('registry''s', 1, 10, 5, 1, 'UPDATE r SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'public.r', 'id');
SELECT bbm_wait('registry''s', '1 minute');
COPY batched_background_migrations (id, name, max_value, batch_size, status, job_signature_name, table_name, column_name, owner, origin, phase, round, table_oid, started_at) FROM stdin;
1000000	restored	10	10	4	UPDATE r SET n = n + 1 WHERE id BETWEEN $1 AND $2	public.r	id	regress_bbm_registry	moon/1	work	1	1	2001-01-01
1000001	not his	10	10	1	UPDATE good.t SET n = -1 WHERE id BETWEEN $1 AND $2	good.t	id	regress_bbm_good	moon/1	work	1	1	\N
\.
INSERT INTO batched_background_migration_jobs (id, batched_background_migration_id, min_value, max_value, status, worker_pid, worker_id, attempts, round)
VALUES (1000000, 1000000, 1, 5, 4, 1, 1, 1, 1);
SELECT id, name, status, owner, owner_oid::regrole, origin, restored, phase, round, table_oid FROM batched_background_migrations WHERE id >= 1000000 ORDER BY id;
SELECT status, worker_pid, worker_id FROM batched_background_migration_jobs WHERE id = 1000000;
SELECT bbm_start('restored');
SELECT bbm_wait('restored', '1 minute');
-- each row once more, though its jobs' ids are ahead of the sequence
SELECT n, count(*) FROM r GROUP BY n ORDER BY n;
SELECT min_value, max_value, status FROM bbm_jobs('restored');
\pset expanded on
SELECT * FROM fails($$SELECT bbm_start('not his')$$);
SELECT * FROM fails($$INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, owner)
VALUES ('x', 10, 10, 'UPDATE good.t SET n = -1 WHERE id BETWEEN $1 AND $2', 'good.t', 'id', 'regress_bbm_good')$$);
\pset expanded off
-- an id that the restore has loaded is skipped
SELECT setval('bbm_migrations_id_seq', 999999) > 0 AS set;
INSERT INTO batched_background_migrations (name, min_value, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES ('next', 1, 10, 5, 'UPDATE r SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'public.r', 'id');
SELECT id FROM batched_background_migrations WHERE name = 'next';
-- and a sequence that was set back makes no range be done twice
SELECT setval('bbm_jobs_id_seq', 1) > 0 AS set;
CALL bbm_run('next');
SELECT n, count(*) FROM r GROUP BY n ORDER BY n;
SELECT min_value, max_value, status, attempts FROM bbm_jobs('next');
-- ids of a restore are positive, and its numbers are what they can be
SELECT state, message FROM fails($$INSERT INTO batched_background_migrations
    (id, name, max_value, batch_size, job_signature_name, table_name, column_name, origin)
    VALUES (0, 'zero', 10, 10, 'f', 'public.r', 'id', 'moon/1')$$);
SELECT state, message FROM fails($$INSERT INTO batched_background_migrations
    (id, name, max_value, batch_size, job_signature_name, table_name, column_name, origin, total_tuple_count)
    VALUES (1000010, 'fewer than none', 10, 10, 'f', 'public.r', 'id', 'moon/1', -1)$$);
SELECT state, message FROM fails($$INSERT INTO batched_background_migration_jobs
    (id, batched_background_migration_id, min_value, max_value, attempts, claim_epoch) VALUES (1000010, 1000010, 1, 5, -1, 1)$$);
-- a job before its migration, and without its kind
SELECT state, message FROM fails($$INSERT INTO batched_background_migration_jobs
    (id, batched_background_migration_id, min_value, max_value, kind) VALUES (1000010, 1000010, 1, 5, NULL)$$);
SELECT state, message FROM fails($$INSERT INTO batched_background_migration_jobs
    (id, batched_background_migration_id, min_value, max_value, claim_epoch, kind) VALUES (1000010, 1000010, 1, 5, 1, NULL)$$);
-- a shard's migration without what records it
INSERT INTO batched_background_migrations
    (id, name, max_value, batch_size, job_signature_name, table_name, column_name, owner, origin, shard_id)
VALUES (1000012, 'half a shard', 10, 10, 'UPDATE r SET n = n + 10 WHERE id BETWEEN $1 AND $2', 'public.r', 'id', 'regress_bbm_registry', 'moon/1', 5);
SELECT bbm_start('half a shard');
SELECT bbm_wait('half a shard', '1 minute');
SELECT last_error, hint FROM bbm_status_detail('half a shard');
SELECT bbm_drop('half a shard');
-- jobs that a restore has loaded without their migration belong to none: the next migration with that id does not continue them
SELECT nextval('bbm_migrations_id_seq') + 1 AS next_id \gset
INSERT INTO batched_background_migration_jobs (id, batched_background_migration_id, min_value, max_value, status, attempts, claim_epoch)
VALUES (1000011, :next_id, 1, 9, 2, 1, 1);
INSERT INTO batched_background_migrations (name, min_value, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES ('fresh', 1, 10, 5, 'UPDATE r SET n = n + 10 WHERE id BETWEEN $1 AND $2', 'public.r', 'id');
SELECT id = :next_id AS that_id, (SELECT count(*) FROM bbm_jobs(name)) AS jobs FROM batched_background_migrations WHERE name = 'fresh';
CALL bbm_run('fresh');
SELECT min(n) > 10 AS all_done FROM r;
UPDATE r SET n = n - 10;
SELECT bbm_drop('fresh');
-- past the guards
ALTER TABLE batched_background_migrations DISABLE TRIGGER USER;
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, owner, owner_oid, origin, status)
SELECT 'forged for ' || r, 10, 10, 'UPDATE good.t SET n = -1 WHERE id BETWEEN $1 AND $2', 'good.t', 'id', r, r::regrole,
       (SELECT m.origin FROM batched_background_migrations m WHERE m.name = 'registry''s'), 1
FROM unnest(ARRAY['regress_bbm_good', :'admin']) r;
ALTER TABLE batched_background_migrations ENABLE TRIGGER USER;
-- nobody runs them, in the background or when asked to
\c - :admin
SELECT name LIKE 'forged%' AS forged, waiting_on FROM bbm_status_detail() WHERE status = 'active' ORDER BY name;
CALL bbm_run();
\c - regress_bbm_good
CALL bbm_run();
CALL bbm_run('forged for regress_bbm_good');
SELECT min(n), max(n) FROM good.t;
\pset expanded on
SELECT * FROM fails($$SELECT bbm_create('x', 'good.t', 'UPDATE good.t SET n = -1 WHERE id BETWEEN $1 AND $2')$$);
\pset expanded off
-- other owners' migrations are controlled as before
\c - :admin
UPDATE batched_background_migrations SET status = 0;
SELECT bbm_pause();

SET client_min_messages = warning;
DROP VIEW evil.view;
DROP EXTENSION bbm;
DROP TABLE r;
REVOKE SET ON PARAMETER session_replication_role FROM regress_bbm_evil;
REVOKE ALL ON SCHEMA public FROM regress_bbm_registry;
DROP SCHEMA evil, good CASCADE;
DROP FUNCTION fails;
DROP ROLE regress_bbm_evil, regress_bbm_good, regress_bbm_registry;
