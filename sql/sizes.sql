--
-- Sizes that follow the measured time: the pure function, and the engine with
-- a clock that moves only when the test moves it.  Nothing sleeps here.
--

CREATE EXTENSION bbm;
-- the sizes are what is tested, not the pauses
ALTER SYSTEM SET bbm.min_pace = 1;
SELECT pg_reload_conf();
-- alone: no background worker takes a hand in it, and its clock would be another
ALTER SYSTEM SET bbm.enabled = off;
ALTER SYSTEM SET bbm.retry_delay = '10 ms';
SELECT pg_reload_conf();
\c -

\getenv bbm_test BBM_TEST_MODULE
CREATE FUNCTION advance(ms float8) RETURNS void STRICT LANGUAGE c AS :'bbm_test', 'bbm_test_clock_advance';
CREATE FUNCTION sizing(first int, target_ms float8, max_wal float8, min int, max int, keys float8[], ms float8[],
                       wal float8[]) RETURNS int[] STRICT LANGUAGE c AS :'bbm_test', 'bbm_test_sizing';
-- n full batches that take so long, or write so much, per key
CREATE FUNCTION full_batches(first int, target_ms float8, max_wal float8, per_key float8[], wal_per_key float8[] = NULL,
                             min int = 10, max int = 100000) RETURNS int[] LANGUAGE sql AS
    $$SELECT sizing(first, target_ms, max_wal, min, max, array_fill('NaN'::float8, ARRAY[cardinality(per_key)]),
                    (SELECT array_agg(-p ORDER BY o) FROM unnest(per_key) WITH ORDINALITY u (p, o)),
                    (SELECT array_agg(-p ORDER BY o)
                     FROM unnest(coalesce(wal_per_key, array_fill(0::float8, ARRAY[cardinality(per_key)])))
                          WITH ORDINALITY u (p, o)))$$;

-- growth is a factor of two at most, until the target is reached
SELECT full_batches(1000, 500, 0, array_fill(0.01::float8, ARRAY[8])) AS growth;
-- too large a first size is right after one batch
SELECT full_batches(50000, 500, 0, ARRAY[1, 1, 1]) AS shrinks_at_once;
-- one slow batch costs at once, and is forgotten step by step
SELECT full_batches(1000, 500, 0, ARRAY[.5, .5, 10, .5, .5, .5, .5, .5, .5, .5, .5, .5, .5]) AS spike;
-- it becomes slower, and faster again
SELECT full_batches(1000, 500, 0, ARRAY[.5, 1, 1, 1, .25, .25, .25, .25, .25, .25, .25, .25, .25]) AS steps;
-- the limits
SELECT full_batches(5, 500, 0, ARRAY[1000, 1000], NULL, 10, 40) AS lowest,
       full_batches(15, 500, 0, ARRAY[0.001, 0.001, 0.001], NULL, 10, 40) AS highest;
-- no time, or one that runs backwards, is no reason to shrink; it still grows step by step
SELECT sizing(100, 500, 0, 10, 100000, ARRAY[100, 200, 400], ARRAY[0, -0.0, 0], ARRAY[0, 0, 0]) AS no_time;
-- a time that is NaN or infinite has no lasting effect
SELECT full_batches(1000, 500, 0, ARRAY['NaN', 1, 1]::float8[]) AS nan,
       full_batches(1000, 500, 0, ARRAY['-Infinity', 1, 1, 1, 1, 1, 1, 1, 1]::float8[]) AS backwards,
       full_batches(1000, 500, 0, ARRAY['Infinity', 1, 1, 1, 1, 1, 1, 1, 1, 1]::float8[]) AS endless;
SELECT sizing(1000, 'NaN', 'NaN', 10, 100000, ARRAY[1000], ARRAY[1], ARRAY[1]) AS no_target,
       sizing(2147483647, 1e300, 0, 1, 2147483647, ARRAY[9e18], ARRAY[1e-300], ARRAY[0]) AS huge,
       sizing(-5, 1e-300, 0, 1, 2147483647, ARRAY[1], ARRAY[1e300], ARRAY[0]) AS tiny;
-- a rate: the batch's own time counts, nothing is saved up, several processes share it, and a clock that goes back repays nothing
CREATE FUNCTION bucket(rate float8, since float8[], until float8[], amounts float8[]) RETURNS float8[] STRICT LANGUAGE c AS :'bbm_test', 'bbm_test_bucket';
SELECT bucket(100, '{10,11,20,20.1,30}', '{10.5,11,20.2,20.2,33}', '{100,100,50,50,100}') AS due,
       bucket(100, '{10,5}', '{10.5,5.5}', '{1000,100}') AS back;

-- a batch without keys says nothing
SELECT sizing(1000, 500, 0, 10, 100000, ARRAY[0, -1, 0], ARRAY[5000, 5000, 5000], ARRAY[0, 0, 0]) AS no_keys;
-- the few keys at the end of a range say little, whichever way; nor do they make the size grow
SELECT sizing(1000, 500, 0, 10, 100000, ARRAY[1000, 3, 1000, 3], ARRAY[500, 6, 500, 0.0001], ARRAY[0, 0, 0, 0]) AS rest;
-- half a batch was tried: as much again may be
SELECT sizing(1000, 500, 0, 10, 100000, ARRAY[400, 600, 900], ARRAY[1, 1, 1], ARRAY[0, 0, 0]) AS partial;
-- ties are no reason to grow faster
SELECT sizing(1000, 500, 0, 10, 100000, ARRAY[9000], ARRAY[1], ARRAY[0]) AS ties;
-- WAL: the stricter of the two counts
SELECT full_batches(1000, 0, 1e6, ARRAY[.5, .5, .5], ARRAY[2000, 500, 500]) AS wal,
       full_batches(1000, 500, 1e6, ARRAY[.5, .5, .5, .5], ARRAY[500, 2000, 2000, 2000]) AS both;

-- a job that takes so long a row, as far as the clock shows
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, ms_per_row float8 NOT NULL);
CREATE FUNCTION slow(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
    ms float8;
BEGIN
    WITH done AS (UPDATE t SET n = n + 1 WHERE id BETWEEN lo AND hi RETURNING ms_per_row)
    SELECT count(*), sum(ms_per_row) INTO changed, ms FROM done;
    PERFORM advance(coalesce(ms, 0));
    RETURN changed;
END $$;
CREATE FUNCTION jobs(name text) RETURNS TABLE (batch_size int, min_value bigint, max_value bigint, rows bigint,
                                               run_time interval, attempts smallint) LANGUAGE sql AS
    'SELECT batch_size, min_value, max_value, rows, run_time, attempts FROM bbm_jobs(name) ORDER BY id';
-- what was committed at once; a claim that is worth several commits is one job
CREATE FUNCTION committed(last int = NULL) RETURNS TABLE (first int, last int, rows bigint) LANGUAGE sql AS
    'SELECT min(id), max(id), count(*) FROM t WHERE id <= last OR last IS NULL GROUP BY xmin::text ORDER BY 1';

-- without batch_size it follows, beginning with 100 and aiming at 1 ms; the cost changes midway.  The first claim is
-- worth ten commits; the second would be worth fifty, and takes what is left
INSERT INTO t SELECT i, 0, CASE WHEN i <= 20000 THEN 0.000390625 ELSE 0.0015625 END FROM generate_series(1, 30000) i;
SELECT bbm_create('follows', 't', 'slow') AS id;
SELECT batch_size, target_duration, min_batch_size, max_batch_size, max_batch_wal
FROM batched_background_migrations WHERE name = 'follows';
SELECT advance(0);
CALL bbm_run('follows');
SELECT * FROM jobs('follows');
SELECT * FROM committed();
SELECT n, count(*) FROM t GROUP BY n;
-- what is shown is the size of the newest job's commits
SELECT batch_size FROM bbm_status_detail('follows');
-- one that waits for each commit aims at more
SELECT bbm_create('waits', 't', 'slow', synchronous => true) AS id;
SELECT batch_size, target_duration FROM batched_background_migrations WHERE name = 'waits';
SELECT bbm_drop('waits') AS dropped;

-- with batch_size it is exact, and so is a plain INSERT
UPDATE t SET n = 0, ms_per_row = ms_per_row * 320;
SELECT bbm_create('exact', 't', 'slow', batch_size => 9000) AS id;
INSERT INTO batched_background_migrations (name, min_value, max_value, batch_size, job_signature_name, table_name, column_name)
    VALUES ('inserted', 1, 30000, 11000, 'slow', 'public.t', 'id');
CALL bbm_run('exact');
CALL bbm_run('inserted');
SELECT * FROM jobs('exact');
SELECT * FROM jobs('inserted');
SELECT name, batch_size FROM bbm_status_detail() ORDER BY name;

-- both: it begins with batch_size
SELECT bbm_create('both', 't', 'slow', batch_size => 300, target_duration => '100 ms', max_value => 3000) AS id;
CALL bbm_run('both');
SELECT * FROM jobs('both');
SELECT * FROM committed(3000);
-- the limits apply whatever the target
SELECT bbm_create('limits', 't', 'slow', target_duration => '1 ms', min_batch_size => 50, max_batch_size => 200,
                  max_value => 400) AS id;
CALL bbm_run('limits');
SELECT * FROM jobs('limits');
SELECT * FROM committed(400);

-- sub-batches: the job as a whole is what aims at the target, and grows by a factor of two
SELECT bbm_create('sub-batches', 't', 'slow', batch_size => 300, sub_batch_size => 30, target_duration => '100 ms',
                  max_value => 3000) AS id;
CALL bbm_run('sub-batches');
SELECT * FROM jobs('sub-batches');
SELECT rows, count(*) FROM committed(3000) GROUP BY 1 ORDER BY 1;

-- bbm_alter: a size makes it exact, a target makes it follow; each from where it is.  A pause takes effect between two
-- commits of a job, which goes on from its cursor, and was not requeued: nothing was rolled back
CREATE FUNCTION slow_then_paused(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF lo IN (SELECT stop FROM stops) THEN
        UPDATE batched_background_migrations SET status = 0 WHERE name = 'altered';
    END IF;
    RETURN slow(lo, hi);
END $$;
CREATE TABLE stops (stop bigint);
INSERT INTO stops VALUES (1001), (7001), (12001);
-- the share that is done is of an estimate: of a table without the dead tuples of all that was before
UPDATE t SET n = 0;
VACUUM (FULL, ANALYZE) t;
SELECT bbm_create('altered', 't', 'slow_then_paused', batch_size => 1000, target_duration => '500 ms', max_value => 20000) AS id;
CALL bbm_run('altered');
SELECT status, min_value, max_value, rows, attempts, requeued FROM bbm_jobs('altered');
-- a session that goes on, as a worker that comes back would, takes the size of the last job
CALL bbm_run('altered');
SELECT bbm_alter('altered', batch_size => 2000);
SELECT batch_size, target_duration FROM batched_background_migrations WHERE name = 'altered';
CALL bbm_run('altered');
SELECT bbm_alter('altered', target_duration => '50 ms');
CALL bbm_run('altered');
SELECT * FROM jobs('altered');
SELECT rows, min(first), max(last), count(*) FROM committed(20000) GROUP BY 1 ORDER BY 2;
SELECT n, count(*) FROM t WHERE id <= 20000 GROUP BY 1;

-- a job that failed is tried again with the same range, and its failure says nothing of the size
CREATE TABLE failures (at bigint);
CREATE FUNCTION slow_once_failing(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    PERFORM advance(10000);
    -- what is written is rolled back, so the sequence remembers
    IF lo = 3001 AND nextval('tries') = 1 THEN
        RAISE 'not yet';
    END IF;
    PERFORM advance(-10000);
    RETURN slow(lo, hi);
END $$;
CREATE SEQUENCE tries;
SELECT bbm_create('fails once', 't', 'slow_once_failing', batch_size => 1000, target_duration => '500 ms', max_value => 12000) AS id;
CALL bbm_run('fails once');
SELECT * FROM jobs('fails once');
SELECT * FROM committed(12000);

-- partitions that are smaller than a batch: their ends neither shrink the size nor let it grow untried
CREATE TABLE p (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
SELECT format('CREATE TABLE p%s PARTITION OF p FOR VALUES FROM (%s) TO (%s)', i, i * 100, i * 100 + 100)
FROM generate_series(0, 3) i \gexec
CREATE TABLE p4 PARTITION OF p FOR VALUES FROM (400) TO (4000);
INSERT INTO p SELECT generate_series(0, 3999);
CREATE FUNCTION slow_partition(table_name text, column_name text, lo bigint, hi bigint, batch_size int) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
BEGIN
    EXECUTE format('UPDATE %s SET n = n + 1 WHERE %I BETWEEN $1 AND $2', table_name, column_name) USING lo, hi;
    GET DIAGNOSTICS changed = ROW_COUNT;
    -- 20 ms a batch, whatever is in it
    PERFORM advance(20 + changed * 0.125);
    RETURN changed;
END $$;
SELECT bbm_create('partitions', 'p', 'slow_partition', batch_size => 500, target_duration => '100 ms') AS id;
CALL bbm_run('partitions');
SELECT relation, batch_size, rows, run_time FROM bbm_jobs('partitions') ORDER BY id;
SELECT tableoid::regclass AS relation, count(*) AS rows FROM p GROUP BY 1, xmin::text ORDER BY min(id);
-- as one table each batch opens all five: what that takes is no reason for ever smaller ones
CREATE FUNCTION slow_opening(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
BEGIN
    UPDATE p SET n = n + 1 WHERE id BETWEEN lo AND hi;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM advance(20);
    RETURN changed;
END $$;
SELECT bbm_create('opening', 'p', 'slow_opening', max_value => 1000, target_duration => '1 ms') AS id;
CALL bbm_run('opening');
SELECT rows, count(*) FROM (SELECT count(*) AS rows FROM p WHERE id <= 1000 GROUP BY xmin::text) c GROUP BY 1 ORDER BY 1;

-- distinct values are what a loose scan counts, and whole batches what the null strategy does
CREATE TABLE tags (tag int NOT NULL, n int);
CREATE INDEX ON tags (tag);
INSERT INTO tags SELECT i % 100 FROM generate_series(1, 1000) i;
CREATE FUNCTION slow_tags(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tags SET n = 1 WHERE tag BETWEEN lo AND hi;
    PERFORM advance(10 * (hi - lo + 1));
    RETURN 10 * (hi - lo + 1);
END $$;
SELECT bbm_create('loose', 'tags', 'slow_tags', column_name => 'tag', batch_size => 5, target_duration => '200 ms',
                  batching_strategy => 'LooseIndexScanBatchingStrategy') AS id;
CALL bbm_run('loose');
SELECT batch_size, min_value, max_value, rows, run_time FROM jobs('loose');
SELECT min(tag), max(tag), count(*) FROM tags GROUP BY xmin::text ORDER BY 1;
CREATE FUNCTION slow_nulls(table_name text, column_name text, lo bigint, hi bigint, batch_size int) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
BEGIN
    UPDATE tags SET n = 2 WHERE ctid = ANY (ARRAY(SELECT ctid FROM tags WHERE n IS NULL LIMIT batch_size));
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM advance(changed);
    RETURN changed;
END $$;
UPDATE tags SET n = NULL;
CREATE INDEX ON tags (n);
SELECT bbm_create('nulls', 'tags', 'slow_nulls', column_name => 'n', batch_size => 50, target_duration => '150 ms',
                  batching_strategy => 'NullKeySetBatchingStrategy') AS id;
CALL bbm_run('nulls');
SELECT batch_size, rows, run_time FROM jobs('nulls');
-- a job that another program allocated says neither its size nor its keys
UPDATE tags SET n = NULL;
INSERT INTO batched_background_migrations (name, min_value, max_value, batch_size, job_signature_name, table_name, column_name,
                                           batching_strategy)
    VALUES ('taken over', 0, 0, 700, 'slow_nulls', 'public.tags', 'n', 'NullKeySetBatchingStrategy');
BEGIN;
SET LOCAL session_replication_role = replica;
INSERT INTO batched_background_migration_jobs (batched_background_migration_id, min_value, max_value, status)
    SELECT id, 0, 0, 1 FROM batched_background_migrations WHERE name = 'taken over';
COMMIT;
CALL bbm_run('taken over');
SELECT rows FROM jobs('taken over');

-- a verification keeps the size, and does not change what is shown
UPDATE t SET n = 1;
SELECT bbm_update('verified', 't', 'n = 0', 'n = 1 AND ms_per_row IS NOT NULL', verify => true, max_value => 5000);
CALL bbm_run('verified');
SELECT phase, batch_size, rows FROM bbm_jobs('verified') ORDER BY id;

-- WAL: with a real table, so that only bounds can be checked
CREATE TABLE w (id int PRIMARY KEY, filler text NOT NULL);
ALTER TABLE w ALTER filler SET STORAGE PLAIN;
INSERT INTO w SELECT i, repeat('x', CASE WHEN i <= 3000 THEN 20 ELSE 1500 END) FROM generate_series(1, 6000) i;
SELECT bbm_create('wal', 'w', 'UPDATE w SET filler = filler || ''y'' WHERE id BETWEEN $1 AND $2', batch_size => 500,
                  max_batch_wal => 200000) AS id;
CALL bbm_run('wal');
SELECT max(batch_size) <= 500 AS not_above_what_was_asked, min(batch_size) < 200 AS below_where_rows_are_wide,
       -- the first of the wide rows are met with the size of the narrow ones
       count(*) FILTER (WHERE wal_bytes > 400000) <= 1 AS about_the_limit, sum(rows) AS rows
FROM bbm_jobs('wal');
-- a lower bound that is above what was asked for does not raise it
SELECT bbm_create('few', 'w', 'UPDATE w SET filler = filler WHERE id BETWEEN $1 AND $2', batch_size => 3,
                  max_batch_wal => 200000000, max_value => 9) AS id;
CALL bbm_run('few');
SELECT batch_size, rows FROM jobs('few');

-- bad input
\set SHOW_CONTEXT never
SELECT bbm_create('bad', 't', 'slow', target_duration => '0');
SELECT bbm_create('bad', 't', 'slow', target_duration => '-1 s');
SELECT bbm_create('bad', 't', 'slow', target_duration => '100 hours');
SELECT bbm_create('bad', 't', 'slow', target_duration => '1 day 1 us');
SELECT bbm_create('bad', 't', 'slow', target_duration => '1 month');
SELECT bbm_create('bad', 't', 'slow', min_batch_size => 0);
SELECT bbm_create('bad', 't', 'slow', min_batch_size => 20, max_batch_size => 10);
-- below the other's default, which is not what was given
SELECT bbm_create('bad', 't', 'slow', max_batch_size => 4);
SELECT bbm_create('bad', 't', 'slow', max_batch_size => 0);
SELECT bbm_create('bad', 't', 'slow', max_batch_size => -2147483648);
SELECT bbm_create('bad', 't', 'slow', target_duration => '-178000000 years');
SELECT bbm_create('bad', 't', 'slow', max_batch_wal => 0);
SELECT bbm_create('a day', 't', 'slow', target_duration => '24 hours') IS NOT NULL AS a_day;

ALTER SYSTEM RESET bbm.min_pace;
SELECT pg_reload_conf();
DROP EXTENSION bbm;
DROP TABLE t, stops, failures, p, tags, w;
DROP FUNCTION slow, slow_then_paused, slow_once_failing, slow_partition, slow_opening, slow_tags, slow_nulls, jobs, committed, full_batches, sizing, advance, bucket;
DROP SEQUENCE tries;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();
