--
-- Strategies: ties, distinct values, null columns; what does not fit.
--

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
SELECT pg_reload_conf();
\c -
SET client_min_messages = warning;
CREATE FUNCTION outcome(name text) RETURNS TABLE (status smallint, code smallint, message text, detail text) LANGUAGE sql AS
    'SELECT status, failure_error_code, error_message, error_detail FROM batched_background_migrations m WHERE m.name = $1';
CREATE FUNCTION jobs(name text) RETURNS TABLE (min bigint, max bigint, min_key text[], max_key text[], rows bigint)
LANGUAGE sql AS
    'SELECT j.min_value, j.max_value, j.min_key, j.max_key, j.row_count FROM batched_background_migration_jobs j
     JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name = $1 ORDER BY j.id';

-- a key that is not unique, with ties longer than a batch and a sub-batch: they are never split
CREATE TABLE ties (k int NOT NULL, w text NOT NULL, v int, n int NOT NULL DEFAULT 0);
INSERT INTO ties SELECT CASE WHEN x <= 50 THEN 1 ELSE x % 5 + 2 END, CASE WHEN x % 3 = 0 THEN 'one' ELSE 'w' || x % 7 END
FROM generate_series(1, 100) x;
SELECT bbm_update('no index', 'ties', 'n = n + 1', column_name => 'k');
SELECT bbm_update('no index', 'ties', 'n = n + 1', column_name => 'k', batching_strategy => 'LooseIndexScanBatchingStrategy');
CREATE INDEX ON ties (k);
CREATE INDEX ON ties (w DESC, k);
SELECT bbm_update('ties', 'ties', 'n = n + 1', column_name => 'k', batch_size => 3) > 0 AS ties,
       bbm_update('sub-batches', 'ties', 'n = n + 1', column_name => 'k', batch_size => 70, sub_batch_size => 4) > 0 AS sub_batches,
       bbm_update('words', 'ties', 'n = n + 1', column_name => 'w', batch_size => 5, sub_batch_size => 2) > 0 AS words;
CALL bbm_run('ties');
SELECT * FROM jobs('ties');
CALL bbm_run('sub-batches');
SELECT * FROM jobs('sub-batches');
CALL bbm_run('words');
SELECT * FROM jobs('words');
SELECT n, count(*) FROM ties GROUP BY n;

-- so many values a job, however many rows they have
SELECT bbm_update('loose', 'ties', 'n = n + 1', column_name => 'k', batch_size => 2,
                  batching_strategy => 'LooseIndexScanBatchingStrategy') > 0 AS loose,
       bbm_update('loose words', 'ties', 'n = n + 1', column_name => 'w', batch_size => 3, sub_batch_size => 2,
                  batching_strategy => 'LooseIndexScanBatchingStrategy') > 0 AS words,
       bbm_update('loose pairs', 'ties', 'n = n + 1', column_name => 'w, k', batch_size => 7,
                  batching_strategy => 'LooseIndexScanBatchingStrategy') > 0 AS pairs;
CALL bbm_run('loose');
SELECT * FROM jobs('loose');
CALL bbm_run('loose words');
SELECT * FROM jobs('loose words');
CALL bbm_run('loose pairs');
SELECT count(*) = ceil((SELECT count(DISTINCT (w, k)) FROM ties) / 7.0) AS right_count, sum(rows) FROM jobs('loose pairs');
SELECT n, count(*) FROM ties GROUP BY n;

-- while there are rows that are null: an index finds them, and goes on to
UPDATE ties SET n = 0;
SELECT bbm_update('x', 'ties', 'v = k', column_name => 'v', batching_strategy => 'NullKeySetBatchingStrategy');
SELECT bbm_update('small', 'ties', 'v = k', column_name => 'v', batching_strategy => 'NullKeySetBatchingStrategy', allow_full_scan => true) > 0 AS defined;
CREATE FUNCTION try_index(definition text, clause text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'CREATE INDEX answers ON ties ' || definition;
    PERFORM bbm_drop('x', true);
    PERFORM bbm_update('x', 'ties', 'v = k', clause, 'v', batching_strategy => 'NullKeySetBatchingStrategy');
    DROP INDEX answers;
    RETURN 'taken';
EXCEPTION WHEN feature_not_supported THEN
    RETURN 'refused';
END $$;
SELECT d AS index, w AS "where", try_index(d, w) FROM (VALUES
    ('(v)', NULL), ('(v DESC NULLS LAST, k)', NULL), ('(k) WHERE v IS NULL', NULL), ('((v IS NULL)) WHERE v IS NULL', NULL),
    ('(v) WHERE v IS NULL OR k > 3', NULL), ('(v) WHERE k > 3', 'k > 5 -- narrower'), ('(k) WHERE v IS NULL AND k > 3', 'k = 4'),
    ('(k, v)', NULL), ('(v) WHERE v IS NOT NULL', NULL), ('(v) WHERE k > 3', NULL), ('(v) WHERE k > 3', 'k > 1'),
    ('(k) WHERE v IS NULL OR k > 3', NULL), ('USING hash (v)', NULL), ('USING brin (v)', NULL), ('((v + 1))', NULL)) t(d, w);
CREATE INDEX ties_v ON ties (v);
SELECT bbm_drop('x', true);
SELECT bbm_update('null', 'ties', 'v = k, n = n + 1', column_name => 'v', batch_size => 30,
                  batching_strategy => 'NullKeySetBatchingStrategy') > 0 AS defined;
CALL bbm_run('null');
SELECT * FROM jobs('null');
SELECT n, count(*), bool_and(v = k) FROM ties GROUP BY n;
-- rows that a job cannot fill make the migration fail, and the reason is reported; attempts are counted
UPDATE ties SET v = NULL, n = 0;
SELECT bbm_update('unfilled', 'ties', 'v = nullif(k, 6), n = n + 1', column_name => 'v', batch_size => 40, max_attempts => 3,
                  batching_strategy => 'NullKeySetBatchingStrategy') > 0 AS defined;
CALL bbm_run('unfilled');
SELECT * FROM outcome('unfilled');
SELECT v IS NULL AS left, k, count(*) FROM ties GROUP BY 1, 2 ORDER BY 1, 2;
SELECT attempts, rows FROM bbm_jobs('unfilled') ORDER BY id DESC LIMIT 3;
-- it is tried again when it is started again
CALL bbm_run('unfilled');
SELECT count(*) FILTER (WHERE rows = 0) AS without_progress FROM bbm_jobs('unfilled');
UPDATE ties SET k = 7 WHERE k = 6;
CALL bbm_run('unfilled');
SELECT * FROM outcome('unfilled');
SELECT count(*) FROM ties WHERE v IS NULL;
-- a job that says it has changed rows, and does not fill them, is found out as well
UPDATE ties SET v = NULL, n = 0;
CREATE FUNCTION busy(a bigint, b bigint) RETURNS void LANGUAGE sql AS 'UPDATE ties SET n = n + 1 WHERE v IS NULL';
SELECT bbm_create('busy', 'ties', 'busy', column_name => 'v', batch_size => 100, max_attempts => 1,
                  batching_strategy => 'NullKeySetBatchingStrategy') > 0 AS defined;
\set VERBOSITY sqlstate
CALL bbm_run('busy');
\set VERBOSITY default
SELECT code, regexp_replace(message, '\d+', 'n') AS message FROM outcome('busy');
-- an index that goes in mid-run ends it before the next job, whoever drops it, and it goes on when there is another
UPDATE ties SET v = NULL;
CREATE FUNCTION drops_index(a bigint, b bigint) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ties SET v = k WHERE ctid = ANY (ARRAY(SELECT ctid FROM ties WHERE v IS NULL LIMIT 40));
    DROP INDEX IF EXISTS ties_v;
    RETURN 40;
END $$;
SELECT bbm_create('dropped', 'ties', 'drops_index', column_name => 'v', batching_strategy => 'NullKeySetBatchingStrategy') > 0 AS defined;
\set VERBOSITY terse
CALL bbm_run('dropped');
SELECT * FROM outcome('dropped');
SELECT count(*) FROM ties WHERE v IS NULL;
CREATE INDEX ties_v ON ties (v) WHERE v IS NULL;
SELECT bbm_alter('dropped', job => 'UPDATE ties SET v = k WHERE v IS NULL');
CALL bbm_run('dropped');
SELECT count(*) FROM ties WHERE v IS NULL;
-- of partitions each has to have one, whether they are gone over one by one or as one table
CREATE TABLE parted (k int NOT NULL, v int) PARTITION BY LIST (k);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
INSERT INTO parted SELECT 1 + i % 2 FROM generate_series(1, 20) i;
CREATE INDEX ON parted_1 (v);
SELECT bbm_update('x', 'parted', 'v = 1', column_name => 'v', batching_strategy => 'NullKeySetBatchingStrategy');
SELECT bbm_create('x', 'parted', 'UPDATE parted SET v = 1 WHERE v IS NULL', column_name => 'v', batching_strategy => 'NullKeySetBatchingStrategy');
-- a partition without nulls needs no index; nor does a migration that only checks
ALTER TABLE parted_2 ADD CHECK (v IS NOT NULL) NOT VALID;
SELECT bbm_update('x', 'parted', 'v = 1', column_name => 'v', batching_strategy => 'NullKeySetBatchingStrategy');
UPDATE parted_2 SET v = 1;
ALTER TABLE parted_2 VALIDATE CONSTRAINT parted_2_v_check;
SELECT bbm_update('x', 'parted', 'v = 1', column_name => 'v', batching_strategy => 'NullKeySetBatchingStrategy') > 0 AS defined;
DROP INDEX parted_1_v_idx;
SELECT bbm_verify('x');
CALL bbm_run('x');
SELECT code, message FROM outcome('x');
SELECT bbm_alter('x', allow_full_scan => true);
CALL bbm_run('x');
SELECT bbm_drop('x');
\set VERBOSITY default
SELECT bbm_update('x', 'ties', 'v = 1', batching_strategy => 'NullKeySetBatchingStrategy');
SELECT bbm_update('x', 'ties', 'v = 1', column_name => 'nope', batching_strategy => 'NullKeySetBatchingStrategy');
SELECT bbm_update('x', 'ties', 'v = 1', column_name => 'xmin', batching_strategy => 'NullKeySetBatchingStrategy');

-- blocks need a where, and a heap
SELECT bbm_update('x', 'ties', 'n = 1', batching_strategy => 'BlockRangeBatchingStrategy');
CREATE VIEW seen AS SELECT * FROM ties;
CREATE MATERIALIZED VIEW kept AS SELECT * FROM ties;
SELECT bbm_update('x', 'seen', 'n = 1', 'n = 0', batching_strategy => 'BlockRangeBatchingStrategy');
SELECT bbm_update('x', 'kept', 'n = 1', 'n = 0', batching_strategy => 'BlockRangeBatchingStrategy');
CREATE EXTENSION file_fdw;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE elsewhere (k int NOT NULL, n int) SERVER files OPTIONS (filename '/dev/null');
SELECT bbm_update('x', 'elsewhere', 'n = 1', 'n = 0', batching_strategy => 'BlockRangeBatchingStrategy');
SELECT bbm_update('x', 'elsewhere', 'n = 1', 'n = 0', column_name => 'n', batching_strategy => 'NullKeySetBatchingStrategy');
SELECT bbm_update('x', 'elsewhere', 'n = 1', 'n = 0', column_name => 'k, n');
SELECT bbm_update('x', 'ties', 'n = 1', batching_strategy => 'BlockRange');

DROP EXTENSION bbm;
DROP EXTENSION file_fdw CASCADE;
DROP TABLE ties, parted CASCADE;
DROP FUNCTION outcome, jobs, busy, drops_index, try_index;
ALTER SYSTEM RESET bbm.enabled;
SELECT pg_reload_conf();
