--
-- What the container registry's schema and client expect.
--

CREATE EXTENSION bbm;
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/fails.inc'
\i :helper
\set VERBOSITY terse

CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 20);
CREATE TABLE calls (id int GENERATED ALWAYS AS IDENTITY, min int, max int, size int);

-- sub_batch_size is 0 unless somebody sets it, and never NULL
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES ('plain', 20, 10, 'tellSize', 'public.t', 'id') RETURNING sub_batch_size;
SELECT bbm_create('null', 't', 'UPDATE t SET n = n WHERE id BETWEEN $1 AND $2', sub_batch_size => NULL) > 0 AS created;
SELECT sub_batch_size FROM batched_background_migrations WHERE name = 'null';
UPDATE batched_background_migrations SET sub_batch_size = NULL WHERE name = 'null';
SELECT bbm_drop('null');

-- a function with the parameters of the GitLab container registry's gets the size of each commit;
-- its name is looked up as it is written
CREATE FUNCTION "tellSize"(table_name text, column_name text, min int, max int, batch_size int) RETURNS void LANGUAGE sql AS
    'INSERT INTO calls (min, max, size) VALUES (min, max, batch_size)';
CALL bbm_run('plain');
SELECT min, max, size FROM calls ORDER BY id;
TRUNCATE calls;
SELECT bbm_create('sub-batches', 't', 'tellSize', batch_size => 10, sub_batch_size => 4) > 0 AS created;
CALL bbm_run('sub-batches');
SELECT min, max, size FROM calls ORDER BY id;
TRUNCATE calls;
-- one commit a job again
SELECT bbm_create('whole', 't', 'tellSize', batch_size => 10, sub_batch_size => 4) > 0 AS created;
SELECT bbm_alter('whole', sub_batch_size => 0);
CALL bbm_run('whole');
SELECT min, max, size FROM calls ORDER BY id;
TRUNCATE calls;

-- ... then folded; a quoted identifier is taken as it is
CREATE FUNCTION tellsize(min int, max int) RETURNS void LANGUAGE sql AS 'INSERT INTO calls (min, max) VALUES (min, max)';
CREATE FUNCTION "Odd.Name"(min int, max int) RETURNS void LANGUAGE sql AS 'INSERT INTO calls (min, max, size) VALUES (min, max, 0)';
SELECT name, bbm_create(name, 't', name, batch_size => 20) > 0 AS created
FROM unnest('{TELLSIZE, public.tellSize, PUBLIC.tellSize, "\"Odd.Name\""}'::text[]) AS name;
CALL bbm_run('TELLSIZE');
CALL bbm_run('public.tellSize');
CALL bbm_run('PUBLIC.tellSize');
CALL bbm_run('"Odd.Name"');
SELECT min, max, size FROM calls ORDER BY id;
SELECT * FROM fails($$SELECT bbm_create('no function', 't', '"TELLSIZE"')$$);
SELECT * FROM fails($$SELECT bbm_create('no function', 't', 'nowhere.tellSize')$$);

-- its progress metric, finished job rows times batch_size, is what it should be where none are merged
CREATE TABLE many (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO many SELECT generate_series(1, 1000);
ALTER SYSTEM SET bbm.job_retention = -1;
-- by this session alone: several processes may each end before they merge
ALTER SYSTEM SET bbm.enabled = off;
ALTER SYSTEM SET bbm.min_pace = 1;
SELECT pg_reload_conf();
\c -
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES ('kept', 1000, 2, 'UPDATE many SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'public.many', 'id');
SET client_min_messages = warning;
CALL bbm_run('kept');
SELECT least(count(*) * m.batch_size, 1000) AS done FROM batched_background_migration_jobs j
JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name = 'kept' AND j.status = 2 GROUP BY m.id;
-- as shipped it falls behind, and percent does not
ALTER SYSTEM SET bbm.job_retention = 100;
SELECT pg_reload_conf();
\c -
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES ('merged', 1000, 2, 'UPDATE many SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'public.many', 'id');
SET client_min_messages = warning;
CALL bbm_run('merged');
SELECT count(*) * m.batch_size < 1000 AS behind FROM batched_background_migration_jobs j
JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name = 'merged' AND j.status = 2 GROUP BY m.id;
SELECT name, percent, jobs_finished FROM bbm_status_detail() WHERE name IN ('kept', 'merged');
ALTER SYSTEM RESET bbm.job_retention;
RESET client_min_messages;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.min_pace;
SELECT pg_reload_conf();

-- the registry's own worker, left running: a migration that it starts, its new job, an attempt
SELECT bbm_create('another''s', 't', 'UPDATE t SET n = n WHERE id BETWEEN $1 AND $2', batch_size => 10) > 0 AS created;
\set VERBOSITY default
UPDATE batched_background_migrations SET status = 4, started_at = now() WHERE name = 'another''s';
INSERT INTO batched_background_migration_jobs (batched_background_migration_id, min_value, max_value)
SELECT id, 1, 10 FROM batched_background_migrations WHERE name = 'another''s';
UPDATE batched_background_migration_jobs SET status = 1, attempts = attempts + 1
WHERE batched_background_migration_id = (SELECT id FROM batched_background_migrations WHERE name = 'plain');

DROP EXTENSION bbm;
DROP TABLE t, calls, many;
DROP FUNCTION "tellSize", tellsize, "Odd.Name", fails;
