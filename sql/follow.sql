--
-- follow => true: what has come beyond the upper bound since is done as well,
-- until the migration has caught up.
--

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
-- without pauses for busy CPUs
ALTER SYSTEM SET bbm.min_pace = 1;
ALTER SYSTEM SET bbm.retry_delay = '10 ms';
SELECT pg_reload_conf();
\c -

CREATE FUNCTION jobs(name text) RETURNS TABLE (relation text, min_value bigint, max_value bigint, min_key text[], max_key text[],
                                               rows bigint, phase text) LANGUAGE sql AS
    'SELECT relation, min_value, max_value, min_key, max_key, rows, phase FROM bbm_jobs(name) ORDER BY id';

-- new rows come while it runs: as many as "arrivals" says for the job that is at work, at its end
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE TABLE arrivals (job serial, rows int NOT NULL);
CREATE FUNCTION arrive() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    at_work int = nextval('job_at_work');
    last int = (SELECT max(id) FROM t);
BEGIN
    INSERT INTO t SELECT last + i FROM arrivals, generate_series(1, rows) i WHERE job = at_work;
    RETURN NULL;
END $$;
CREATE SEQUENCE job_at_work;
CREATE TRIGGER arrive AFTER UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION arrive();

-- without it the bound is fixed
INSERT INTO t SELECT generate_series(1, 25);
INSERT INTO arrivals (rows) VALUES (3), (3), (3);
SELECT bbm_create('fixed', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 10) AS id;
CALL bbm_run('fixed');
SELECT * FROM jobs('fixed');
SELECT n, min(id), max(id) FROM t GROUP BY n ORDER BY n;

-- with it: 34 rows at the start; then 14, more than a batch, so another check for new rows comes; then 4, which is the last round
UPDATE t SET n = 0;
DELETE FROM arrivals;
ALTER SEQUENCE job_at_work RESTART;
INSERT INTO arrivals VALUES (1, 6), (4, 8), (6, 4), (7, 5);
SELECT bbm_create('follows', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 10, follow => true) AS id;
SELECT max_value, follow FROM batched_background_migrations WHERE name = 'follows';
CALL bbm_run('follows');
SELECT * FROM jobs('follows');
SELECT n, min(id), max(id) FROM t GROUP BY n ORDER BY n;
-- the bound has moved, and it does not follow any more
SELECT max_value, follow FROM batched_background_migrations WHERE name = 'follows';

-- nothing has come: no round more
DELETE FROM arrivals;
UPDATE t SET n = 0;
SELECT bbm_create('no arrivals', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 100, follow => true) AS id;
CALL bbm_run('no arrivals');
SELECT * FROM jobs('no arrivals');

-- inserts that never end, a few rows with each batch, do not keep the migration running for ever
DELETE FROM arrivals;
UPDATE t SET n = 0;
ALTER SEQUENCE job_at_work RESTART;
INSERT INTO arrivals SELECT i, 4 FROM generate_series(1, 1000) i;
SELECT bbm_create('producer', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 10, follow => true) AS id;
CALL bbm_run('producer');
SELECT * FROM jobs('producer');
SELECT n, count(*) FROM t GROUP BY n ORDER BY n;

-- a table that was empty when it was defined, and when it was started
TRUNCATE t;
SELECT bbm_create('empty', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 10, follow => true) AS id;
INSERT INTO t SELECT generate_series(1, 12);
DELETE FROM arrivals;
CALL bbm_run('empty');
SELECT * FROM jobs('empty');
SELECT n, count(*) FROM t GROUP BY n;

-- paused in the middle, in the middle of a round too; it goes on from there
CREATE FUNCTION until(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
BEGIN
    UPDATE t SET n = n + 1 WHERE id BETWEEN lo AND hi;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF lo IN (11, 13, 23) THEN
        UPDATE batched_background_migrations SET status = 0 WHERE name = 'pauses';
    END IF;
    RETURN changed;
END $$;
UPDATE t SET n = 0;
ALTER SEQUENCE job_at_work RESTART;
INSERT INTO arrivals VALUES (1, 19), (4, 5);
SELECT bbm_create('pauses', 't', 'until', batch_size => 10, follow => true) AS id;
\set ON_ERROR_STOP off
\set VERBOSITY terse
CALL bbm_run('pauses');
SELECT status, max_value, follow FROM batched_background_migrations WHERE name = 'pauses';
CALL bbm_run('pauses');
SELECT status, max_value, follow FROM batched_background_migrations WHERE name = 'pauses';
CALL bbm_run('pauses');
SELECT status, max_value, follow FROM batched_background_migrations WHERE name = 'pauses';
CALL bbm_run('pauses');
\set VERBOSITY default
SELECT * FROM jobs('pauses');
SELECT n, count(*) FROM t GROUP BY n;

-- to stop following is to keep the bound there is now
UPDATE t SET n = 0;
ALTER SEQUENCE job_at_work RESTART;
DELETE FROM arrivals;
CREATE FUNCTION stops_following(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE t SET n = n + 1 WHERE id BETWEEN lo AND hi;
    INSERT INTO t SELECT generate_series(max(id) + 1, max(id) + 20) FROM t;
    IF nextval('job_at_work') = 10 THEN
        PERFORM bbm_alter('stops', follow => false);
    END IF;
END $$;
SELECT bbm_create('stops', 't', 'stops_following', batch_size => 10, follow => true) AS id;
CALL bbm_run('stops');
SELECT * FROM jobs('stops');
SELECT n, count(*) FROM t GROUP BY n ORDER BY n;

-- the verification at the end reads all rows
UPDATE t SET n = 0;
INSERT INTO arrivals VALUES (1, 7), (2, 8);
ALTER SEQUENCE job_at_work RESTART;
DELETE FROM t WHERE id > 15;
SELECT bbm_update('verified', 't', 'n = n + 1', 'n = 0', batch_size => 10, follow => true, verify => true);
CALL bbm_run('verified');
SELECT * FROM jobs('verified');
SELECT n, count(*) FROM t GROUP BY n;

-- a size that follows the time: a round is compared with the batches as they are now
DROP TRIGGER arrive ON t;
TRUNCATE t;
INSERT INTO t SELECT generate_series(1, 40);
CREATE FUNCTION arrives_fast(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
BEGIN
    UPDATE t SET n = n + 1 WHERE id BETWEEN lo AND hi;
    GET DIAGNOSTICS changed = ROW_COUNT;
    -- for ever, but for the test's sake
    IF nextval('job_at_work') < 100 THEN
        INSERT INTO t SELECT generate_series(max(id) + 1, max(id) + 15) FROM t;
    END IF;
    RETURN changed;
END $$;
ALTER SEQUENCE job_at_work RESTART;
SELECT bbm_create('adaptive', 't', 'arrives_fast', batch_size => 10, target_duration => '1 hour', follow => true) AS id;
CALL bbm_run('adaptive');
-- by batches of 10 it would run after the new rows to the last
SELECT batch_size, min_value, max_value, rows FROM bbm_jobs('adaptive') ORDER BY id;

-- keys of other types
CREATE TABLE keys (at timestamptz NOT NULL, name text COLLATE "C" NOT NULL, part int NOT NULL, id uuid, n int NOT NULL DEFAULT 0,
                   PRIMARY KEY (at, part));
CREATE UNIQUE INDEX keys_name ON keys (name);
CREATE UNIQUE INDEX keys_at ON keys (at);
INSERT INTO keys SELECT '2024-01-01 00:00:00+00'::timestamptz + i * interval '1 hour', 'name ' || to_char(i, 'FM0000'), i % 3
    FROM generate_series(1, 5) i;
CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last int = (SELECT count(*) FROM keys);
BEGIN
    IF last < 12 THEN
        INSERT INTO keys SELECT '2024-01-01 00:00:00+00'::timestamptz + i * interval '1 hour', 'name ' || to_char(i, 'FM0000'), i % 3
            FROM generate_series(last + 1, last + 3) i;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER more AFTER UPDATE ON keys FOR EACH STATEMENT EXECUTE FUNCTION more();
SET timezone = 'UTC';
SELECT bbm_update('by time', 'keys', 'n = n + 1', column_name => 'at', batch_size => 3, follow => true);
CALL bbm_run('by time');
SELECT min_key, max_key, rows FROM jobs('by time');
SELECT n, count(*) FROM keys GROUP BY n;
DELETE FROM keys WHERE n > 0 AND at > '2024-01-01 05:00:00+00';
UPDATE keys SET n = 0;
DELETE FROM keys WHERE at > '2024-01-01 05:00:00+00';
SELECT bbm_update('by name', 'keys', 'n = n + 1', column_name => 'name', batch_size => 3, follow => true);
CALL bbm_run('by name');
SELECT min_key, max_key, rows FROM jobs('by name');
SELECT n, count(*) FROM keys GROUP BY n;
DELETE FROM keys WHERE at > '2024-01-01 05:00:00+00';
SELECT bbm_update('by both', 'keys', 'n = n + 1', batch_size => 3, follow => true);
CALL bbm_run('by both');
SELECT min_key, max_key, rows FROM jobs('by both');
SELECT n, count(*) FROM keys GROUP BY n ORDER BY n;
-- of a table that was empty when it was started, all there is has come since
DROP TRIGGER more ON keys;
TRUNCATE keys;
CREATE FUNCTION comes_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.keys VALUES ('2024-02-01 00:00:00+00', 'late', 1);
    RETURN NULL;
END $$;
CREATE TRIGGER comes_late AFTER UPDATE ON batched_background_migrations
    FOR EACH ROW WHEN (OLD.status = 1 AND NEW.status = 4 AND NEW.name = 'late') EXECUTE FUNCTION comes_late();
SELECT bbm_update('late', 'keys', 'n = n + 1', batch_size => 3, follow => true);
CALL bbm_run('late');
SELECT min_key, max_key, rows FROM jobs('late');

-- partition by partition: new rows in partitions whose ranges were all allocated, in an empty one, and in one that did not exist
CREATE TABLE p (id int, region text, n int NOT NULL DEFAULT 0, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a');
CREATE TABLE p_b PARTITION OF p FOR VALUES IN ('b');
CREATE TABLE p_empty PARTITION OF p FOR VALUES IN ('empty');
INSERT INTO p SELECT i, CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END FROM generate_series(1, 20) i;
CREATE SEQUENCE partition_jobs;
CREATE FUNCTION partition_job(table_name text, column_name text, lo bigint, hi bigint, batch_size int) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
BEGIN
    EXECUTE format('UPDATE %s SET n = n + 1 WHERE %I BETWEEN $1 AND $2', table_name, column_name) USING lo, hi;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF nextval('partition_jobs') = 2 THEN
        CREATE TABLE p_new (id int NOT NULL, region text NOT NULL, n int NOT NULL DEFAULT 0, PRIMARY KEY (id, region));
        ALTER TABLE p ATTACH PARTITION p_new FOR VALUES IN ('new');
        INSERT INTO p SELECT i, (ARRAY['a', 'b', 'empty', 'new'])[i % 4 + 1] FROM generate_series(21, 28) i;
    END IF;
    RETURN changed;
END $$;
SELECT bbm_create('parted', 'p', 'partition_job', column_name => 'id', batch_size => 6, follow => true) AS id;
CALL bbm_run('parted');
SELECT relation, min_value, max_value, rows FROM jobs('parted');
SELECT region, n, count(*) FROM p GROUP BY region, n ORDER BY region, n;
-- the same by the whole key, composed, and verified
UPDATE p SET n = 0;
CREATE FUNCTION more_in_partitions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM p) < 40 THEN
        INSERT INTO p SELECT m.last + i, (ARRAY['a', 'b', 'empty', 'new'])[i] FROM (SELECT max(id) AS last FROM p) m, generate_series(1, 4) i;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER more AFTER UPDATE ON p FOR EACH STATEMENT EXECUTE FUNCTION more_in_partitions();
SELECT bbm_update('composed parted', 'p', 'n = n + 1', 'n = 0', batch_size => 4, follow => true, verify => true);
CALL bbm_run('composed parted');
SELECT relation, phase, min_value, max_value, rows FROM jobs('composed parted');
SELECT n, count(*) FROM p GROUP BY n;

-- a loose scan counts values: two a job; first two have come, then one, each in five rows, and that is the last round
CREATE TABLE days (day int NOT NULL, n int NOT NULL DEFAULT 0);
CREATE INDEX ON days (day);
INSERT INTO days SELECT i % 3 FROM generate_series(0, 8) i;
CREATE FUNCTION more_days() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO days SELECT max(day) + 1 FROM days, generate_series(1, 5) i GROUP BY i;
    RETURN NULL;
END $$;
CREATE TRIGGER more AFTER UPDATE ON days FOR EACH STATEMENT EXECUTE FUNCTION more_days();
SELECT bbm_update('days', 'days', 'n = n + 1', column_name => 'day', batch_size => 2, follow => true,
                  batching_strategy => 'LooseIndexScanBatchingStrategy');
CALL bbm_run('days');
SELECT min_value, max_value, rows FROM jobs('days');
SELECT n, min(day), max(day), count(*) FROM days GROUP BY n ORDER BY n;

-- a strategy without an upper bound has nothing to go beyond
SELECT bbm_update('bad', 't', 'n = 0', 'n = 1', batching_strategy => 'BlockRangeBatchingStrategy', follow => true);
SELECT bbm_create('bad', 'keys', 'UPDATE keys SET id = gen_random_uuid() WHERE id IS NULL', column_name => 'id',
                  batching_strategy => 'NullKeySetBatchingStrategy', follow => true);
-- one that is given is meant
SELECT bbm_create('bad', 't', 'UPDATE t SET n = 0 WHERE id BETWEEN $1 AND $2', max_value => 7, follow => true);
SELECT bbm_update('bad', 'keys', 'n = 0', max_key => '{2030-01-01,1}', follow => true);
SELECT bbm_create('bad', 't', 'UPDATE t SET n = 0 WHERE id BETWEEN $1 AND $2', follow => NULL);
-- nor later
SELECT bbm_update('blocks', 't', 'n = 0', 'n = 1', batching_strategy => 'BlockRangeBatchingStrategy');
SELECT bbm_alter('blocks', follow => true);
-- an INSERT is checked when it is started
INSERT INTO batched_background_migrations (name, min_value, max_value, batch_size, job_signature_name, table_name, column_name,
                                           batching_strategy, follow)
    VALUES ('inserted', 0, 0, 7, 'UPDATE t SET n = 1 WHERE n IS NULL', 'public.t', 'n', 'NullKeySetBatchingStrategy', true);
CALL bbm_run('inserted');
SELECT status, failure_error_code FROM batched_background_migrations WHERE name = 'inserted';
SELECT name FROM batched_background_migrations WHERE name = 'bad';

DROP EXTENSION bbm;
DROP TABLE t, arrivals, keys, p, days;
DROP SEQUENCE job_at_work, partition_jobs;
DROP FUNCTION jobs, arrive, until, stops_following, arrives_fast, more, comes_late, partition_job, more_in_partitions, more_days;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.min_pace;
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();
