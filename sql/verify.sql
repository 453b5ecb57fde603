-- Counting the rows that are not as they should be: bbm_verify, and verify => true.

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
ALTER SYSTEM SET bbm.retry_delay = '1 ms';
SELECT pg_reload_conf();
\c -
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT current_user AS me \gset

CREATE VIEW phases AS
    SELECT m.name, j.round, j.phase, count(*) AS jobs, sum(j.row_count) AS rows
    FROM batched_background_migrations m JOIN batched_background_migration_jobs j
        ON j.batched_background_migration_id = m.id
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 DESC;
CREATE TABLE items (id bigint PRIMARY KEY, code text NOT NULL UNIQUE, price integer, total integer);
INSERT INTO items SELECT i, 'c' || i, i % 10, NULL FROM generate_series(1, 25000) i;

/* bbm_verify */

-- before, in the middle, after
SELECT bbm_update('fill', 'items', 'total = price * 2', 'total IS NULL', batch_size => 5000);
SELECT bbm_verify('fill');
UPDATE items SET total = price * 2 WHERE id <= 10;
SELECT bbm_verify('fill'), bbm_verify('fill', 'total = price * 2'), bbm_verify('fill', 'total = 0');
CALL bbm_run('fill');
SELECT bbm_verify('fill'), bbm_verify('fill', 'total = price * 2'), bbm_verify('fill', 'total = 0');
-- rows beyond its range count: nobody has given it
INSERT INTO items VALUES (0, 'zero', 1, NULL), (25001, 'more', 1, NULL);
SELECT bbm_verify('fill');
UPDATE items SET total = NULL WHERE id IN (1, 10000, 10001, 25000);
SELECT bbm_verify('fill');
-- what this transaction has changed counts
BEGIN;
UPDATE items SET total = 0 WHERE total IS NULL;
SELECT bbm_verify('fill');
ROLLBACK;
-- a check that is null is not met
UPDATE items SET price = NULL WHERE id = 2;
SELECT bbm_verify('fill', 'price >= 0');

-- other keys and strategies
CREATE INDEX ON items (total) WHERE total IS NULL;
SELECT bbm_update('by code', 'items', 'total = 0', 'total IS NULL', column_name => 'code', min_key => '{c10}', max_key => '{c10001}');
SELECT bbm_verify('by code');
SELECT bbm_update('by both', 'items', 'total = 0', 'total IS NULL', batching_strategy => 'BlockRangeBatchingStrategy');
SELECT bbm_verify('by both'), bbm_verify('by both', 'price IS NOT NULL');
SELECT bbm_create('nulls', 'items', 'UPDATE items SET total = 0 WHERE ctid = ANY (ARRAY(SELECT ctid FROM items WHERE total IS NULL LIMIT $3))',
    column_name => 'total', batching_strategy => 'NullKeySetBatchingStrategy');
SELECT bbm_verify('nulls'), bbm_verify('nulls', 'price IS NOT NULL');
CREATE INDEX ON items (price);
UPDATE items SET price = 0 WHERE price IS NULL;
ALTER TABLE items ALTER price SET NOT NULL;
SELECT bbm_update('values', 'items', 'total = 0', 'total IS NULL', column_name => 'price', batching_strategy => 'LooseIndexScanBatchingStrategy');
SELECT bbm_verify('values');
-- a partitioned table
CREATE TABLE partitioned (id bigint, n integer NOT NULL DEFAULT 0, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE partitioned_1 PARTITION OF partitioned FOR VALUES FROM (1) TO (101);
CREATE TABLE partitioned_2 PARTITION OF partitioned FOR VALUES FROM (101) TO (201);
INSERT INTO partitioned SELECT i FROM generate_series(1, 200) i;
SELECT bbm_update('parted', 'partitioned', 'n = 1', 'n = 0', batch_size => 30);
SELECT bbm_create('whole', 'partitioned', 'UPDATE partitioned SET n = 1 WHERE id BETWEEN $1 AND $2 AND n = 0', filter => 'n = 0');
SELECT bbm_update('parted blocks', 'partitioned', 'n = 1', 'n = 0', batching_strategy => 'BlockRangeBatchingStrategy');
UPDATE partitioned SET n = 1 WHERE id BETWEEN 51 AND 150;
SELECT bbm_verify('parted'), bbm_verify('whole'), bbm_verify('parted blocks'), bbm_verify('parted', 'n = 1 OR id < 10');
-- the job need not be there any more
CREATE FUNCTION job(bigint, bigint) RETURNS void LANGUAGE sql AS 'UPDATE items SET total = 0 WHERE id BETWEEN $1 AND $2';
SELECT bbm_create('job', 'items', 'job', row_check => 'total IS NOT NULL');
DROP FUNCTION job;
SELECT bbm_verify('job');

-- what is wrong
SELECT bbm_create('untested', 'items', 'UPDATE items SET total = 0 WHERE id BETWEEN $1 AND $2');
SELECT bbm_verify('untested');
SELECT bbm_verify('untested', 'total IS NOT NULL');
SELECT bbm_verify('untested', 'total =');
SELECT bbm_verify('untested', 'nonsense > 0');
SELECT bbm_verify('untested', 'random() > 0.5');
SELECT bbm_verify('untested', 'true) OR (true');
SELECT bbm_verify('untested', 'total');
SELECT bbm_verify(NULL);
SELECT bbm_verify('nothing');
BEGIN;
ALTER TABLE items RENAME TO renamed;
SELECT bbm_verify('fill');
ROLLBACK;

-- it has the owner's rights, whoever calls it, and a role that may not act for the owner may not call it
CREATE ROLE regress_verify LOGIN;
CREATE ROLE regress_verify_other LOGIN;
GRANT CREATE ON SCHEMA public TO regress_verify;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO regress_verify;
CREATE TABLE secret AS SELECT 1 AS id;
\c - regress_verify
SET client_min_messages = warning;
CREATE TABLE mine (id integer PRIMARY KEY, n integer);
INSERT INTO mine VALUES (1, 1);
CREATE FUNCTION peeks(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE WARNING '% peeks', current_user;
    RETURN EXISTS (SELECT FROM secret);
END $$;
CREATE FUNCTION escalates(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM set_config('role', 'none', false);
    RETURN true;
END $$;
SELECT bbm_update('peeks', 'mine', 'n = 2', 'n = 1', row_check => 'peeks(n)');
SELECT bbm_update('escalates', 'mine', 'n = 2', 'n = 1', row_check => 'escalates(n)');
SELECT bbm_update('plain', 'mine', 'n = 2', 'n = 1');
\c - :me
SELECT bbm_verify('peeks');
SELECT bbm_verify('escalates');
SELECT bbm_verify('plain');
SELECT current_user = :'me' AS still, current_setting('lock_timeout') AS lock_timeout;
\c - regress_verify_other
SELECT bbm_verify('plain');
SELECT bbm_verify('fill');
\c - :me
GRANT regress_verify TO regress_verify_other;
GRANT pg_monitor TO regress_verify_other;
\c - regress_verify_other
SELECT bbm_verify('plain');
SELECT bbm_verify('fill');
\c - :me
SET client_min_messages = warning;
SELECT bbm_drop(name) FROM (VALUES ('peeks'), ('escalates'), ('plain')) m (name);

/* verify => true: a phase of its own */

UPDATE items SET total = NULL;
SELECT bbm_update('nothing to go by', 'items', 'total = 1', verify => true);
SELECT bbm_update('good', 'items', 'total = price * 2', 'total IS NULL', batch_size => 5000, verify => true);
CALL bbm_run('good');
SELECT * FROM phases WHERE name = 'good';
SELECT phase, count(*) FROM bbm_jobs('good') GROUP BY 1 ORDER BY 1;
SELECT status, percent, rows_done FROM bbm_status('good');
-- a check that some rows do not meet fails it
SELECT bbm_update('bad', 'items', 'total = 3', 'total <> 3', batch_size => 5000, verify => true, row_check => 'total = 3 AND id > 7');
\set VERBOSITY default
CALL bbm_run('bad');
\set VERBOSITY terse
SELECT * FROM phases WHERE name = 'bad';
SELECT status, last_error FROM bbm_status_detail('bad');
-- started again it is verified again, and nothing is done twice
CALL bbm_run('bad');
DELETE FROM items WHERE id <= 7;
CALL bbm_run('bad');
SELECT * FROM phases WHERE name = 'bad';
-- a filter that remains met, and a partitioned table
SELECT bbm_create('half', 'partitioned', 'UPDATE partitioned SET n = 2 WHERE id BETWEEN $1 AND $2 AND id % 50 > 0', filter => 'n < 2', batch_size => 50,
    verify => true);
CALL bbm_run('half');
UPDATE partitioned SET n = 2;
CALL bbm_run('half');
UPDATE partitioned SET n = 0;
SELECT bbm_update('partitions', 'partitioned', 'n = 1', 'n = 0', batch_size => 30, verify => true);
CALL bbm_run('partitions');
SELECT * FROM phases WHERE name IN ('half', 'partitions');
-- pause in the middle of the verification, and go on
CREATE TABLE stops (id integer);
CREATE FUNCTION stop_at(i bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF EXISTS (SELECT FROM stops WHERE id = i) THEN
        RAISE 'stop';
    END IF;
    RETURN true;
END $$;
INSERT INTO stops VALUES (95);
SELECT bbm_update('stopped', 'partitioned', 'n = 2', 'n = 1', batch_size => 30, verify => true, row_check => 'n = 2 AND stop_at(id)', max_attempts => 1);
CALL bbm_run('stopped');
SELECT bbm_pause('stopped');
-- its range stays as it is: further keys would be verified, or passed over, without having been processed
UPDATE batched_background_migrations SET max_value = max_value + 1 WHERE name = 'stopped';
SELECT bbm_alter('stopped', max_value => 1000000);
UPDATE batched_background_migrations SET min_value = min_value - 1 WHERE name = 'stopped';
TRUNCATE stops;
CALL bbm_run('stopped');
SELECT status FROM bbm_status('stopped');
SELECT round, phase, rows FROM phases WHERE name = 'stopped';
-- rows with the column null that came while others were verified are done first
UPDATE items SET total = NULL WHERE id < 100;
SELECT bbm_create('fills', 'items', 'UPDATE items SET total = 0 WHERE ctid = ANY (ARRAY(SELECT ctid FROM items WHERE total IS NULL AND price >= 0 LIMIT $3))',
    column_name => 'total', batching_strategy => 'NullKeySetBatchingStrategy', batch_size => 50, filter => 'price >= 0', verify => true);
CALL bbm_run('fills');
SELECT * FROM phases WHERE name = 'fills';

/* A check that takes longer than bbm.max_batch_time comes to its end. */

CREATE TABLE checked (id integer PRIMARY KEY, n integer);
CREATE INDEX ON checked (n);
INSERT INTO checked SELECT i FROM generate_series(1, 60) i;
CREATE FUNCTION slowly(is_so boolean) RETURNS boolean LANGUAGE plpgsql STABLE AS 'BEGIN PERFORM pg_sleep(0.01); RETURN is_so; END';
-- ranges of a key get smaller
SELECT bbm_update('long ranges', 'checked', 'n = 1', 'n IS NULL', batch_size => 60, verify => true, row_check => 'slowly(n = 1)',
    settings => '{bbm.max_batch_time=250ms}') > 0 AS created;
CALL bbm_run('long ranges');
SELECT status, rows_done FROM bbm_status('long ranges');
SELECT j.phase, count(*), sum(row_count) AS rows, sum(requeued) > 0 AS requeued, sum(attempts) AS attempts FROM batched_background_migration_jobs j
JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name = 'long ranges' AND j.phase = 'verify' GROUP BY 1 ORDER BY 1;
-- one of a whole table gets more time
UPDATE checked SET n = NULL;
SELECT bbm_update('long check', 'checked', 'n = 1', 'n IS NULL', column_name => 'n', batching_strategy => 'NullKeySetBatchingStrategy',
    batch_size => 60, verify => true, row_check => 'slowly(n = 1)', settings => '{bbm.max_batch_time=250ms}') > 0 AS created;
CALL bbm_run('long check');
SELECT status FROM bbm_status('long check');
-- eight rows fill a block
CREATE TABLE wide (id integer, n integer, pad text);
ALTER TABLE wide ALTER pad SET STORAGE PLAIN;
INSERT INTO wide SELECT i, (i > 5)::integer, repeat('x', 900) FROM generate_series(1, 80) i;
SELECT bbm_update('long scan', 'wide', 'n = 1', 'slowly(n = 0)', batching_strategy => 'BlockRangeBatchingStrategy',
    batch_size => 8, settings => '{bbm.max_batch_time=400ms}') > 0 AS created;
CALL bbm_run('long scan');
SELECT status FROM bbm_status('long scan');
SELECT m.name, j.phase, count(*), bool_or(requeue_reasons ? 'time limit') AS requeued, sum(no_progress) > 0 AS no_progress, sum(attempts) AS attempts
FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id
WHERE m.name IN ('long check', 'long scan') AND j.phase = 'verify' GROUP BY 1, 2 ORDER BY 1, 2;

DROP EXTENSION bbm CASCADE;
DROP TABLE items, partitioned, secret, stops, checked, wide;
DROP FUNCTION stop_at, slowly;
DROP OWNED BY regress_verify;
DROP ROLE regress_verify, regress_verify_other;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();
