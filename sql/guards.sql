--
-- The tables defend themselves: a plain INSERT, UPDATE, DELETE or TRUNCATE does
-- what the functions do, and no more.
--

CREATE EXTENSION bbm;
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 10);

\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/fails.inc'
\i :helper
CREATE FUNCTION define(name text, status int DEFAULT 0, batch_size int DEFAULT 5, min_value bigint DEFAULT 1,
                       max_value bigint DEFAULT 10) RETURNS void LANGUAGE sql AS $$
    INSERT INTO batched_background_migrations
      (name, min_value, max_value, batch_size, job_signature_name, table_name, column_name, status)
    VALUES (name, min_value, max_value, batch_size, 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2',
            'public.t', 'id', status)
$$;
\pset expanded on

-- a row that cannot be right is refused, whether inserted or updated to be so
SELECT * FROM fails($$SELECT define('')$$);
SELECT state, message FROM fails($$SELECT define(NULL)$$);
SELECT * FROM fails($$SELECT define(repeat('x', 65536))$$);
SELECT * FROM fails($$SELECT define(repeat('x', 513))$$);
SELECT * FROM fails($$SELECT define('m', status => 5)$$);
SELECT * FROM fails($$SELECT define('m', status => -1)$$);
SELECT * FROM fails($$SELECT define('m', batch_size => 0)$$);
SELECT * FROM fails($$SELECT define('m', batch_size => -1)$$);
SELECT state, message FROM fails($$SELECT define('m', batch_size => NULL)$$);
SELECT * FROM fails($$SELECT define('m', min_value => 11)$$);
SELECT define(repeat('x', 512));
DELETE FROM batched_background_migrations;
SELECT define('m');
SELECT * FROM fails($$SELECT define('m')$$);
SELECT * FROM fails($$UPDATE batched_background_migrations SET name = ''$$);
SELECT * FROM fails($$UPDATE batched_background_migrations SET name = repeat('x', 65536)$$);
SELECT * FROM fails($$UPDATE batched_background_migrations SET batch_size = 0$$);
SELECT * FROM fails($$UPDATE batched_background_migrations SET max_value = 0$$);
SELECT * FROM fails($$UPDATE batched_background_migrations SET sub_batch_size = -1$$);
SELECT * FROM fails($$UPDATE batched_background_migrations SET workers = 0$$);
SELECT * FROM fails($$UPDATE batched_background_migrations SET workers = 257$$);
SELECT * FROM fails($$UPDATE batched_background_migrations SET max_attempts = 0$$);
SELECT * FROM fails($$UPDATE batched_background_migrations SET max_attempts = 101$$);
SELECT * FROM fails($$UPDATE batched_background_migrations SET id = id + 1$$);

-- the codes of the workers are theirs
SELECT * FROM fails($$UPDATE batched_background_migrations SET status = 2$$);
SELECT * FROM fails($$UPDATE batched_background_migrations SET status = 3$$);
SELECT * FROM fails($$UPDATE batched_background_migrations SET status = 4$$);
SELECT * FROM fails($$UPDATE batched_background_migrations SET status = 5$$);
SELECT * FROM fails($$UPDATE batched_background_migrations SET status = -1$$);
SELECT state, message FROM fails($$UPDATE batched_background_migrations SET status = NULL$$);
SELECT state, message FROM fails($$UPDATE batched_background_migrations SET max_value = NULL$$);
SELECT state, message FROM fails($$INSERT INTO batched_background_migrations
  (name, batch_size, job_signature_name, table_name, column_name) VALUES ('x', 5, 'f', 'public.t', 'id')$$);
\pset expanded off

-- a change is dated; what only bbm records stays as it was
SELECT updated_at FROM batched_background_migrations;
UPDATE batched_background_migrations SET batch_size = 4;
SELECT updated_at > created_at AS dated, batch_size FROM batched_background_migrations;
UPDATE batched_background_migrations
SET updated_at = '2000-01-01', owner_oid = 1, origin = 'moon', table_oid = 1;
SELECT updated_at > created_at AS dated, owner_oid = current_user::regrole AS mine, origin = 'moon' AS moved, table_oid
FROM batched_background_migrations;
-- nor whether it is about a shard of a distributed table
UPDATE batched_background_migrations SET shard_record = 'bbm_internal.bbm_shards_1', shard_id = 1, shard_epoch = 1;
SELECT shard_record, shard_id, shard_epoch FROM batched_background_migrations;

-- paused, started, paused, started; and what is so already is no change
SELECT event, status FROM bbm_events WHERE name = 'm' ORDER BY id;
DELETE FROM batched_background_migrations;
SELECT name, event, status, role = current_user AS mine FROM bbm_events WHERE name = 'm' ORDER BY id;
DELETE FROM bbm_events;
BEGIN;
SELECT define('m');
UPDATE batched_background_migrations SET status = 0 WHERE name = 'm';
UPDATE batched_background_migrations SET status = 1 WHERE name = 'm';
UPDATE batched_background_migrations SET status = 1 WHERE name = 'm';
UPDATE batched_background_migrations SET status = 0 WHERE name = 'm';
UPDATE batched_background_migrations SET name = 'm2' WHERE name = 'm';
SELECT name, status FROM batched_background_migrations;
SELECT name, event, status FROM bbm_events ORDER BY id;
ROLLBACK;
SELECT count(*) AS events FROM bbm_events;

-- an error of one of bbm's own statements that is caught leaves no guard open
BEGIN;
SELECT define('broken');
CREATE FUNCTION breaks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it breaks'; END $$;
CREATE TRIGGER breaks BEFORE INSERT ON bbm_events FOR EACH ROW EXECUTE FUNCTION breaks();
SELECT state, message FROM fails($$SELECT bbm_start('broken')$$);
SELECT state, message FROM fails($$UPDATE batched_background_migrations SET status = 2$$);
ROLLBACK;

-- finished stays finished, and an UPDATE without a WHERE is harmless
SELECT define('done');
CALL bbm_run('done');
SELECT define('other');
SELECT name, status, finished_at IS NOT NULL AS finished FROM batched_background_migrations ORDER BY id;
\set VERBOSITY sqlstate
UPDATE batched_background_migrations SET status = 0;
\set VERBOSITY default
UPDATE batched_background_migrations SET status = 1;
SELECT bbm_wait('other', '1 minute');
SELECT name, status, finished_at IS NOT NULL AS finished FROM batched_background_migrations ORDER BY id;
UPDATE batched_background_migrations SET status = 2 WHERE name = 'done';
SELECT min(n), max(n) FROM t;
-- whichever way one goes about it
SELECT state, message FROM fails($$UPDATE batched_background_migrations SET status = 4 WHERE name = 'done'$$);
SELECT state, message FROM fails($$UPDATE batched_background_migrations SET status = 3 WHERE name = 'done'$$);
INSERT INTO batched_background_migrations
  (name, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES ('done', 10, 5, 'f', 'public.t', 'id')
ON CONFLICT (name) DO UPDATE SET status = 1;
SELECT name, status FROM batched_background_migrations WHERE name = 'done';
MERGE INTO batched_background_migrations m USING (VALUES ('done')) v (name) ON m.name = v.name
WHEN MATCHED THEN UPDATE SET status = 0;
SELECT name, status FROM batched_background_migrations WHERE name = 'done';

-- an INSERT may carry any code, as a restore does; only what is active runs
SELECT define('code ' || s, s) FROM unnest('{0,2,3}'::int[]) s;
SELECT name, status FROM batched_background_migrations WHERE name LIKE 'code %' ORDER BY name;
SELECT define('code 1', 1);
SELECT bbm_wait('code 1', '1 minute');
SELECT define('code 4', 4);
SELECT bbm_wait('code 4', '1 minute');
SELECT name, status FROM batched_background_migrations WHERE name LIKE 'code %' ORDER BY name;
-- it is checked only for what it shows itself: the function may come later
INSERT INTO batched_background_migrations
  (name, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES ('deployed early', 10, 5, 'not_yet', 'not.yet', 'nor_this');
SELECT name, status FROM batched_background_migrations WHERE name = 'deployed early';

-- the jobs are the workers' own
CREATE TABLE slow (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO slow SELECT generate_series(1, 4);
SELECT bbm_create('failing', 'slow', 'UPDATE slow SET n = 1 / (id - 2) WHERE id BETWEEN $1 AND $2', batch_size => 1,
                  max_attempts => 1, start => true) IS NOT NULL AS created;
SELECT bbm_wait('failing', '1 minute');
SELECT bbm_create('paused', 'slow', 'UPDATE slow SET n = 1 WHERE id BETWEEN $1 AND $2') IS NOT NULL AS created;
CREATE FUNCTION of(name text) RETURNS bigint LANGUAGE sql STABLE AS
    'SELECT id FROM batched_background_migrations m WHERE m.name = $1';
SELECT status, count(*) FROM batched_background_migration_jobs
WHERE batched_background_migration_id = of('failing') GROUP BY status ORDER BY status;
\pset expanded on
SELECT * FROM fails($$UPDATE batched_background_migration_jobs SET status = 2
                      WHERE batched_background_migration_id = of('failing')$$);
SELECT * FROM fails($$DELETE FROM batched_background_migration_jobs
                      WHERE batched_background_migration_id = of('failing')$$);
SELECT * FROM fails($$UPDATE batched_background_migration_jobs SET status = 1
                      WHERE batched_background_migration_id = of('done')$$);
SELECT * FROM fails($$INSERT INTO batched_background_migration_jobs
                        (batched_background_migration_id, min_value, max_value) VALUES (of('paused'), 1, 2)$$);
SELECT * FROM fails($$INSERT INTO batched_background_migration_jobs
                        (batched_background_migration_id, min_value, max_value) VALUES (of('failing'), 1, 2)$$);
SELECT state, message <> 'no error' AS refused FROM fails($$INSERT INTO batched_background_migration_jobs
                        (batched_background_migration_id, min_value, max_value) VALUES (99999, 1, 2)$$);
SELECT message <> 'no error' AS refused FROM fails($$INSERT INTO batched_background_migration_jobs
                        (min_value, max_value) VALUES (1, 2)$$);
SELECT * FROM fails($$TRUNCATE batched_background_migration_jobs$$);
SELECT * FROM fails($$TRUNCATE batched_background_migrations CASCADE$$);
\pset expanded off
-- nor can one be slipped to another migration, or from one
SELECT state, message FROM fails($$UPDATE batched_background_migration_jobs
    SET batched_background_migration_id = of('paused') WHERE batched_background_migration_id = of('failing')$$);
-- while it is paused they may be changed, as nobody works on them
UPDATE batched_background_migrations SET status = 0 WHERE name = 'failing';
UPDATE batched_background_migration_jobs SET next_attempt_at = NULL
WHERE batched_background_migration_id = of('failing') AND status = 3;
SELECT state, message FROM fails($$UPDATE batched_background_migration_jobs
    SET batched_background_migration_id = of('done') WHERE batched_background_migration_id = of('failing')$$);
DELETE FROM batched_background_migration_jobs WHERE batched_background_migration_id = of('failing');
SELECT count(*) AS jobs FROM batched_background_migration_jobs WHERE batched_background_migration_id = of('failing');

-- but a job that is not done has to stay, when there are others after it: its range would be left out
SELECT bbm_create('holes', 't', 'UPDATE t SET n = n + 1 / (id - 3) WHERE id BETWEEN $1 AND $2', batch_size => 1, max_attempts => 2,
                  settings => '{bbm.retry_delay=1h}', start => true) IS NOT NULL AS created;
DO $$ BEGIN
    WHILE (SELECT count(*) FROM batched_background_migration_jobs WHERE batched_background_migration_id = of('holes') AND status IN (2, 3)) < 10 LOOP
        COMMIT;
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT bbm_pause('holes');
\pset expanded on
SELECT state, regexp_replace(message, '\d+', 'N') AS message, detail, hint FROM fails($$DELETE FROM batched_background_migration_jobs
    WHERE batched_background_migration_id = of('holes') AND status = 3$$);
\pset expanded off
SELECT status, count(*) FROM batched_background_migration_jobs WHERE batched_background_migration_id = of('holes') GROUP BY status ORDER BY status;
-- what is done may go, and what is begun anew
BEGIN;
DELETE FROM batched_background_migration_jobs WHERE batched_background_migration_id = of('holes') AND min_value = 7;
DELETE FROM batched_background_migration_jobs WHERE batched_background_migration_id = of('holes') AND min_value >= 3;
SELECT max(max_value) FROM batched_background_migration_jobs WHERE batched_background_migration_id = of('holes');
ROLLBACK;
SELECT bbm_drop('holes');

-- a failed one that is started has its failed jobs back, with fresh attempts
UPDATE slow SET n = 0;
UPDATE batched_background_migrations SET status = 1 WHERE name = 'failing';
SELECT bbm_wait('failing', '1 minute');
SELECT name, status, failure_error_code, error_sqlstate, error_message, finished_at IS NOT NULL AS finished
FROM batched_background_migrations WHERE name = 'failing';
SELECT min_value, status, attempts, failure_error_code FROM batched_background_migration_jobs
WHERE batched_background_migration_id = of('failing') ORDER BY id;
DELETE FROM slow WHERE id = 2;
UPDATE batched_background_migrations SET status = 1 WHERE name = 'failing';
SELECT bbm_wait('failing', '1 minute');
SELECT name, status, failure_error_code, error_sqlstate, error_message, finished_at IS NOT NULL AS finished
FROM batched_background_migrations WHERE name = 'failing';
SELECT min_value, status, attempts, failure_error_code FROM batched_background_migration_jobs
WHERE batched_background_migration_id = of('failing') ORDER BY id;
SELECT * FROM slow ORDER BY id;
-- also by way of a pause
INSERT INTO slow VALUES (2);
SELECT define('failing 2');
UPDATE batched_background_migrations SET status = 0 WHERE name = 'failing 2';
UPDATE batched_background_migrations
SET table_name = 'slow', job_signature_name = 'UPDATE slow SET n = 1 / (id - 2) WHERE id BETWEEN $1 AND $2',
    max_attempts = 1, status = 1, min_value = 2 WHERE name = 'failing 2';
SELECT bbm_wait('failing 2', '1 minute');
UPDATE batched_background_migrations SET status = 0 WHERE name = 'failing 2';
DELETE FROM slow WHERE id = 2;
UPDATE batched_background_migrations SET status = 1 WHERE name = 'failing 2';
SELECT bbm_wait('failing 2', '1 minute');

-- a DELETE takes the jobs along
DELETE FROM batched_background_migrations WHERE name = 'failing';
SELECT count(*) AS orphans FROM batched_background_migration_jobs j
WHERE NOT EXISTS (SELECT 1 FROM batched_background_migrations m WHERE m.id = j.batched_background_migration_id);
-- TRUNCATE of both, when nothing is at work
DELETE FROM batched_background_migrations WHERE status <> 0;
TRUNCATE batched_background_migrations, batched_background_migration_jobs;
SELECT count(*) FROM batched_background_migrations;
-- no foreign key does that, as its triggers' state would not outlive an upgrade
SELECT count(*) AS internal FROM pg_trigger
WHERE tgrelid IN ('batched_background_migrations'::regclass, 'batched_background_migration_jobs'::regclass) AND tgisinternal;

-- what a composed one runs is what it shows
SELECT bbm_update('composed', 't', 'n = n + 1', 'n = 0') > 0 AS created;
\pset expanded on
SELECT * FROM fails($$UPDATE batched_background_migrations SET job_signature_name = 'UPDATE t SET n = 7' WHERE name = 'composed'$$);
SELECT * FROM fails($$INSERT INTO batched_background_migrations
    (name, max_value, batch_size, job_signature_name, table_name, column_name, operation)
    VALUES ('all of it', 10, 5, 'UPDATE t SET n = 7', 't', 'id', 'delete')$$);
\pset expanded off
UPDATE batched_background_migrations SET set_clause = 'n = n + 2 -- two' WHERE name = 'composed';
INSERT INTO batched_background_migrations
  (name, max_value, batch_size, job_signature_name, table_name, column_name, operation, filter)
VALUES ('inserted', 10, 5, 'UPDATE t SET n = 7', 't', 'id', 'delete', 'n > 7 -- or so');
SELECT name, job_signature_name FROM batched_background_migrations WHERE operation IS NOT NULL ORDER BY name;
SELECT bbm_drop(name) FROM batched_background_migrations WHERE operation IS NOT NULL;

-- a dump has the jobs first: the table's owner may load those that have been claimed, and those of a repair or a retry,
-- with or without their migration
INSERT INTO batched_background_migration_jobs (id, batched_background_migration_id, min_value, max_value, status, claim_epoch)
VALUES (5, 7, 1, 2, 2, 1), (6, 8, 1, 2, 2, 1);
COPY batched_background_migration_jobs (id, batched_background_migration_id, min_value, max_value, status, kind) FROM stdin;
7	7	3	4	1	retry
8	7	1	2	1	repair
\.
COPY batched_background_migration_jobs (id, batched_background_migration_id, min_value, max_value) FROM stdin;
9	7	3	4
\.
INSERT INTO batched_background_migrations
  (id, name, max_value, batch_size, job_signature_name, table_name, column_name, origin)
VALUES (7, 'of a dump', 10, 5, 'j', 't', 'id', '1/1');
-- nobody lays out jobs for a migration to come: neither to be believed when it does, nor when the id is taken already
SELECT setval('bbm_migrations_id_seq', 7) AS last_id;
INSERT INTO batched_background_migrations
  (name, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES ('new', 10, 5, 'j', 't', 'id');
SELECT setval('bbm_migrations_id_seq', 6) AS last_id;
INSERT INTO batched_background_migrations
  (name, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES ('again', 10, 5, 'j', 't', 'id') ON CONFLICT DO NOTHING;
SELECT m.id, m.name, j.id, j.min_value FROM batched_background_migrations m
LEFT JOIN batched_background_migration_jobs j ON j.batched_background_migration_id = m.id ORDER BY m.name, j.id;
CREATE ROLE regress_bbm_loader;
GRANT INSERT, SELECT ON batched_background_migration_jobs, batched_background_migrations TO regress_bbm_loader;
SET ROLE regress_bbm_loader;
SELECT state, message FROM fails($$INSERT INTO batched_background_migration_jobs
    (batched_background_migration_id, min_value, max_value, claim_epoch) VALUES (99999, 1, 2, 1)$$);
RESET ROLE;
-- TRUNCATE of the migrations alone leaves no job behind
TRUNCATE batched_background_migrations;
SELECT count(*) AS orphans FROM batched_background_migration_jobs;
DROP OWNED BY regress_bbm_loader;
DROP ROLE regress_bbm_loader;

-- the trigger functions are nothing to call
SELECT state, message FROM fails('SELECT bbm_internal.bbm_migration_guard()');
SELECT state, message FROM fails('SELECT bbm_internal.bbm_migration_event()');
SELECT state, message FROM fails('SELECT bbm_internal.bbm_job_guard()');
SELECT state, message FROM fails('SELECT bbm_internal.bbm_truncate_guard()');

-- a row that was loaded past the guards names no owner
SET session_replication_role = replica;
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, status, owner)
VALUES ('nobody''s', 1, 1, 'nothing', 't', 'id', 0, NULL);
RESET session_replication_role;
SELECT owner FROM batched_background_migrations WHERE name = 'nobody''s';
UPDATE batched_background_migrations SET owner = current_user WHERE name = 'nobody''s';
SELECT owner = current_user AS mine FROM batched_background_migrations WHERE name = 'nobody''s';
-- one that has lost the name gets it back with the engine's first change
SELECT bbm_create('nameless', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2') > 0 AS created;
SET session_replication_role = replica;
UPDATE batched_background_migrations SET owner = NULL WHERE name = 'nameless';
RESET session_replication_role;
CALL bbm_run('nameless');
SELECT owner = current_user AS mine, status FROM batched_background_migrations WHERE name = 'nameless';

-- a dump that is loaded with that setting is restored like any other, also beside the original
CREATE TABLE half (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO half SELECT generate_series(1, 10);
SELECT bbm_update('half done', 'half', 'n = n + 1', column_name => 'id', batch_size => 5) > 0 AS created;
UPDATE batched_background_migrations SET max_value = 5 WHERE name = 'half done';
CALL bbm_run('half done');
CREATE TEMPORARY TABLE dumped AS SELECT * FROM batched_background_migrations WHERE name = 'half done';
CREATE TEMPORARY TABLE dumped_jobs AS SELECT j.* FROM batched_background_migration_jobs j JOIN dumped d ON j.batched_background_migration_id = d.id;
UPDATE dumped SET status = 1, finished_at = NULL, max_value = 10;
SELECT bbm_drop('half done');
CREATE TABLE copy AS TABLE half;
ALTER TABLE copy ADD PRIMARY KEY (id);
DROP TABLE half;
ALTER TABLE copy RENAME TO half;
SET session_replication_role = replica;
INSERT INTO batched_background_migration_jobs SELECT * FROM dumped_jobs;
INSERT INTO batched_background_migrations SELECT * FROM dumped;
RESET session_replication_role;
SELECT worker_pid, worker_id FROM batched_background_migration_jobs j JOIN dumped d ON j.batched_background_migration_id = d.id;
SELECT status, is_copy, waiting_on FROM bbm_status_detail('half done');
-- only a start starts it here
UPDATE batched_background_migrations SET batch_size = 4 WHERE name = 'half done';
SELECT bbm_alter('half done', priority => 1), bbm_retry('half done');
SELECT is_copy, m.batch_size, m.priority FROM bbm_status_detail('half done'), batched_background_migrations m WHERE m.name = 'half done';
BEGIN;
UPDATE batched_background_migrations SET status = 1 WHERE name = 'half done';
SELECT is_copy FROM bbm_status_detail('half done');
ROLLBACK;
SELECT bbm_start('half done');
CALL bbm_run('half done');
SELECT n, count(*) FROM half GROUP BY n;

-- where one that was started goes on is a key, or a block: a strategy with other ranges would take the one for the other
CREATE TABLE down (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO down SELECT generate_series(2000, 1, -1);
INSERT INTO batched_background_migrations
    (name, max_value, batch_size, job_signature_name, table_name, column_name, batching_strategy, filter, max_attempts)
VALUES ('by blocks', 2000, 1, 'UPDATE down SET n = n + 1 WHERE ctid BETWEEN $1 AND $2 AND n = 0 AND 1 / (id - 50) IS NOT NULL',
        'public.down', 'id', 'BlockRangeBatchingStrategy', 'n = 0', 1),
       ('by keys', 2000, 1000, 'UPDATE down SET n = n / (id - 1500) WHERE id BETWEEN $1 AND $2', 'public.down', 'id', NULL, 'n = 0', 1);
UPDATE batched_background_migrations SET batching_strategy = NULL WHERE name = 'by blocks';
UPDATE batched_background_migrations SET batching_strategy = 'BlockRangeBatchingStrategy' WHERE name = 'by blocks';
\set VERBOSITY terse
CALL bbm_run('by blocks');
CALL bbm_run('by keys');
\set VERBOSITY default
CREATE FUNCTION change(name text, strategy text) RETURNS TABLE (state text, message text, detail text, hint text) LANGUAGE sql AS $$
    SELECT (fails(format('UPDATE batched_background_migrations SET batching_strategy = %L WHERE name = %L', strategy, name))).* $$;
\pset expanded on
SELECT * FROM change('by blocks', NULL);
\pset expanded off
SELECT n, s, c.state, c.message FROM unnest('{by blocks,by keys}'::text[]) n
CROSS JOIN unnest('{SerialKeySetBatchingStrategy,LooseIndexScanBatchingStrategy,NullKeySetBatchingStrategy,BlockRangeBatchingStrategy,Random}'::text[]) s
LEFT JOIN LATERAL change(n, s) c ON true;
SELECT bbm_drop('by blocks'), bbm_drop('by keys');
DROP FUNCTION change;

-- what pg_restore --disable-triggers leaves behind does no harm
ALTER TABLE batched_background_migrations DISABLE TRIGGER ALL;
ALTER TABLE batched_background_migrations ENABLE TRIGGER ALL;
CREATE ROLE regress_bbm_after LOGIN;
GRANT INSERT, SELECT, UPDATE ON batched_background_migrations TO regress_bbm_after;
SET ROLE regress_bbm_after;
SELECT define('after');
UPDATE batched_background_migrations SET status = 0;
SELECT name, status, owner FROM batched_background_migrations;
RESET ROLE;
SELECT bbm_drop('after');
DROP OWNED BY regress_bbm_after;
DROP ROLE regress_bbm_after;

DROP EXTENSION bbm;
DROP FUNCTION fails, define, of;
DROP TABLE t, slow, half, down;
