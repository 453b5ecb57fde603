-- BlockRangeBatchingStrategy: block by block, until a check of the whole table finds no row.

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

-- eight rows fill a block
CREATE TABLE blocks (id integer, n integer NOT NULL DEFAULT 0, pad text) WITH (autovacuum_enabled = off);
ALTER TABLE blocks ALTER pad SET STORAGE PLAIN;
CREATE PROCEDURE refill(rows integer, n integer DEFAULT 0) LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE blocks;
    INSERT INTO blocks SELECT i, n, repeat('x', 900) FROM generate_series(1, rows) i;
END $$;
-- how many rows the work of each round has done, and its verification found
CREATE VIEW phases AS
    SELECT m.name, j.round, j.phase, count(*) AS jobs, sum(j.row_count) AS rows
    FROM batched_background_migrations m JOIN batched_background_migration_jobs j
        ON j.batched_background_migration_id = m.id
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 DESC;
-- pauses its own migration after the batch that does one of these rows
CREATE TABLE stops (id integer);
CREATE FUNCTION stop_at(i integer) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM stops WHERE id = i) THEN
        UPDATE batched_background_migrations SET status = 0 WHERE status = 4;
    END IF;
    RETURN 1;
END $$;

-- a where, which the strategy needs; it is the default without a primary key
SELECT bbm_update('bad', 'blocks', 'n = 1');
SELECT bbm_create('bad', 'blocks', 'UPDATE blocks SET n = 1 WHERE ctid BETWEEN $1 AND $2',
    batching_strategy => 'BlockRangeBatchingStrategy');
SELECT bbm_create('bad', 'blocks', 'UPDATE blocks SET n = 1 WHERE ctid > $1',
    batching_strategy => 'BlockRangeBatchingStrategy', filter => 'n = 0');
SELECT bbm_update('bad', 'phases', 'rows = 1', 'rows = 0', batching_strategy => 'BlockRangeBatchingStrategy');
SELECT bbm_update('bad', 'blocks', 'n = 1', 'n = 0', min_value => 1);
SELECT bbm_update('bad', 'blocks', 'n = 1', 'n = 0', on_error => 'split');
SELECT bbm_create('bad', 'blocks', 'UPDATE blocks SET n = 1 WHERE ctid BETWEEN $1 AND $2',
    batching_strategy => 'BlockRangeBatchingStrategy', filter => 'n = 0', verify => NULL);
SELECT count(*) FROM batched_background_migrations;

-- ten blocks, two a job
CALL refill(80);
VACUUM ANALYZE blocks;
SELECT bbm_update('plain', 'blocks', 'n = n + 1', 'n = 0', batch_size => 16);
CALL bbm_run('plain');
SELECT n, count(*) FROM blocks GROUP BY 1;
SELECT * FROM phases WHERE name = 'plain';
SELECT status, min_value, max_value, rows, phase, min_key, relation FROM bbm_jobs('plain') ORDER BY id;
SELECT status, percent, rows_done FROM bbm_status('plain');
SELECT relation_name, started_round, end_block FROM bbm_partitions;
SELECT bbm_drop('plain');
SELECT count(*) FROM bbm_partitions;

-- in sub-batches, and without a size
SELECT bbm_update('subs', 'blocks', 'n = n + 1', 'n = 1', batch_size => 40, sub_batch_size => 8);
CALL bbm_run('subs');
SELECT n, count(*) FROM blocks GROUP BY 1;
SELECT bbm_update('sized', 'blocks', 'n = n + 1', 'n = 2', min_batch_size => 1);
CALL bbm_run('sized');
SELECT n, count(*) FROM blocks GROUP BY 1;
SELECT sum(rows) FROM phases WHERE name = 'sized';

-- a done row that still meets where would be done again: an error, and nothing is changed
SELECT bbm_update('again', 'blocks', 'n = n + 1', 'n > 0', batch_size => 16, max_attempts => 1);
\set VERBOSITY default
CALL bbm_run('again');
\set VERBOSITY terse
SELECT n, count(*) FROM blocks GROUP BY 1;

-- rows that a job says are done and are not: after max_attempts rounds that is an end
SELECT bbm_update('suppressed', 'blocks', 'n = 0', 'n = 3', batch_size => 40, max_attempts => 3);
CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.id = ANY (TG_ARGV::integer[]) THEN
        PERFORM stop_at(OLD.id);
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER suppress BEFORE UPDATE ON blocks FOR EACH ROW EXECUTE FUNCTION suppress(5);
\set VERBOSITY default
CALL bbm_run('suppressed');
\set VERBOSITY terse
SELECT round, phase, rows FROM phases WHERE name = 'suppressed';
SELECT event, detail FROM bbm_events WHERE name = 'suppressed' AND event IN ('round', 'failed') ORDER BY id;
-- a restart allows as many rounds again, if they are needed; the trigger that kept the row back is dropped in between
CALL bbm_run('suppressed');
DROP TRIGGER suppress ON blocks;
CALL bbm_run('suppressed');
SELECT round, phase, rows FROM phases WHERE name = 'suppressed';
SELECT n, count(*) FROM blocks GROUP BY 1;

-- bbm_delete
SELECT bbm_delete('deletes', 'blocks', 'id % 2 = 0', batch_size => 16);
CALL bbm_run('deletes');
SELECT count(*), count(*) FILTER (WHERE id % 2 = 0) FROM blocks;
SELECT round, phase, rows FROM phases WHERE name = 'deletes';

-- a statement of the user's, and functions, over blocks
SELECT bbm_create('statement', 'blocks', 'UPDATE blocks SET n = n + 1 WHERE ctid >= $1 AND ctid <= $2 AND n = 0',
    batching_strategy => 'BlockRangeBatchingStrategy', filter => 'n = 0', batch_size => 16);
CALL bbm_run('statement');
SELECT n, count(*) FROM blocks GROUP BY 1;
CREATE FUNCTION over_blocks(first tid, last tid) RETURNS bigint LANGUAGE sql AS $$
    WITH done AS (UPDATE blocks SET n = n + 1 WHERE ctid BETWEEN first AND last AND n = 1 RETURNING 1)
    SELECT count(*) FROM done
$$;
SELECT bbm_create('function', 'blocks', 'over_blocks', batching_strategy => 'BlockRangeBatchingStrategy',
    filter => 'n = 1', batch_size => 16);
CALL bbm_run('function');
SELECT n, count(*) FROM blocks GROUP BY 1;
CREATE FUNCTION over_partition(table_name text, column_name text, first tid, last tid, size integer) RETURNS bigint
    LANGUAGE plpgsql AS $$
DECLARE
    done bigint;
BEGIN
    EXECUTE format('UPDATE ONLY %s SET n = n + 1 WHERE ctid BETWEEN $1 AND $2 AND n = 2', table_name) USING first, last;
    GET DIAGNOSTICS done = ROW_COUNT;
    RETURN done;
END $$;
SELECT bbm_create('registry', 'blocks', 'over_partition', batching_strategy => 'BlockRangeBatchingStrategy',
    filter => 'n = 2', batch_size => 16);
CALL bbm_run('registry');
SELECT n, count(*) FROM blocks GROUP BY 1;
SELECT name, round, phase, rows FROM phases WHERE name IN ('statement', 'function', 'registry');
-- a job that does nothing comes to an end as well
SELECT bbm_create('idle', 'blocks', 'DELETE FROM blocks WHERE ctid BETWEEN $1 AND $2 AND false',
    batching_strategy => 'BlockRangeBatchingStrategy', filter => 'n = 3', batch_size => 16, max_attempts => 2);
CALL bbm_run('idle');
SELECT bbm_drop(name) FROM batched_background_migrations ORDER BY id;

-- an empty table, and one of which nothing is known
CALL refill(0);
SELECT bbm_update('empty', 'blocks', 'n = 1', 'n = 0');
CALL bbm_run('empty');
SELECT * FROM phases WHERE name = 'empty';
CREATE TABLE unknown_size AS SELECT i AS id, 0 AS n FROM generate_series(1, 20000) i;
SELECT bbm_update('unknown', 'unknown_size', 'n = 1', 'n = 0', batch_size => 1000);
CALL bbm_run('unknown');
SELECT sum(rows) FILTER (WHERE phase = 'work'), max(rows) BETWEEN 500 AND 2000 AS about FROM bbm_jobs('unknown');
-- mostly holes: a batch has no more blocks than it was to have rows
CALL refill(800);
DELETE FROM blocks WHERE id % 100 <> 0;
VACUUM ANALYZE blocks;
SELECT bbm_update('sparse', 'blocks', 'n = 1', 'n = 0', batch_size => 10);
CALL bbm_run('sparse');
SELECT max(max_value - min_value + 1), sum(rows) FROM bbm_jobs('sparse') WHERE phase = 'work';

/* Rows that appear in blocks that were already read are found. */

-- rows that are added to a page that has been read, and vacuumed, are found
CALL refill(80);
VACUUM ANALYZE blocks;
INSERT INTO stops VALUES (80);
SELECT bbm_update('added', 'blocks', 'n = stop_at(id)', 'n = 0', batch_size => 8);
CALL bbm_run('added');
VACUUM blocks;
\c -
SET client_min_messages = warning;
INSERT INTO blocks VALUES (81, 0, repeat('y', 900));
SELECT (ctid::text::point)[0] < 5 AS in_front FROM blocks WHERE id = 81;
VACUUM blocks;
CALL bbm_run('added');
SELECT n, count(*) FROM blocks GROUP BY 1;
SELECT round, phase, rows FROM phases WHERE name = 'added';

-- and what a trigger has kept back that is not there any more
CALL refill(80);
CREATE TRIGGER suppress BEFORE UPDATE ON blocks FOR EACH ROW EXECUTE FUNCTION suppress(1, 2, 3, 4, 5, 6, 7, 8);
VACUUM ANALYZE blocks;
SELECT bbm_update('dropped', 'blocks', 'n = stop_at(id)', 'n = 0', batch_size => 8);
CALL bbm_run('dropped');
DROP TRIGGER suppress ON blocks;
CALL bbm_run('dropped');
SELECT n, count(*) FROM blocks GROUP BY 1;
SELECT round, phase, rows FROM phases WHERE name = 'dropped';
-- and rows that another table makes meet where
CALL refill(80, 0);
VACUUM ANALYZE blocks;
TRUNCATE stops;
INSERT INTO stops VALUES (40);
CREATE TABLE others AS SELECT i AS id FROM generate_series(9, 80) i;
SELECT bbm_update('others', 'blocks', 'n = stop_at(id)', 'n = 0 AND id IN (SELECT o.id FROM others o)', batch_size => 8);
CALL bbm_run('others');
INSERT INTO others SELECT generate_series(1, 8);
CALL bbm_run('others');
SELECT n, count(*) FROM blocks GROUP BY 1;
SELECT round, phase, rows FROM phases WHERE name = 'others';
-- a row that the FROM has no partner for is not to be done
SELECT bbm_update('partners', 'blocks', 'n = o.id FROM others o WHERE o.id = blocks.id AND o.id IS DISTINCT FROM 80', 'n = 1',
    batch_size => 8);
DELETE FROM others WHERE id < 4;
CALL bbm_run('partners');
SELECT count(*) FROM blocks WHERE n = 1;
SELECT round, phase, rows FROM phases WHERE name = 'partners';

-- a job that somebody has deleted was not done
CALL refill(80);
VACUUM ANALYZE blocks;
TRUNCATE stops;
INSERT INTO stops VALUES (9);
SELECT bbm_update('gone', 'blocks', 'n = 1 / (1 - (SELECT count(*) FROM stops s WHERE s.id = blocks.id))', 'n = 0',
    batch_size => 8, max_attempts => 2);
CALL bbm_run('gone');
SELECT bbm_pause('gone');
DELETE FROM batched_background_migration_jobs WHERE status = 3;
TRUNCATE stops;
CALL bbm_run('gone');
SELECT n, count(*) FROM blocks GROUP BY 1;
SELECT round, phase, rows FROM phases WHERE name = 'gone';

/* The table is rewritten or emptied in mid-run. */

CALL refill(80);
DELETE FROM blocks WHERE id BETWEEN 1 AND 8;
INSERT INTO stops VALUES (40);
SELECT bbm_update('rewritten', 'blocks', 'n = stop_at(id)', 'n = 0', batch_size => 8);
CALL bbm_run('rewritten');
VACUUM FULL blocks;
CALL bbm_run('rewritten');
SELECT n, count(*) FROM blocks GROUP BY 1;
CALL refill(80);
SELECT bbm_update('emptied', 'blocks', 'n = stop_at(id)', 'n = 0', batch_size => 8);
CALL bbm_run('emptied');
BEGIN;
TRUNCATE blocks;
COPY blocks FROM STDIN (FREEZE);
1	0	x
2	0	x
\.
COMMIT;
CALL bbm_run('emptied');
SELECT n, count(*) FROM blocks GROUP BY 1;

/* With a row_check: when no row is left to do, the rows are verified with it. */

CALL refill(80);
TRUNCATE stops;
SELECT bbm_update('checked', 'blocks', 'n = 1', 'n = 0', batch_size => 40, verify => true, row_check => 'n = 1');
CALL bbm_run('checked');
SELECT round, phase, rows FROM phases WHERE name = 'checked';
UPDATE blocks SET n = 0;
SELECT bbm_update('violated', 'blocks', 'n = 1', 'n = 0', batch_size => 40, verify => true,
    row_check => 'n = 1 AND (id > 3 OR pad = $$fixed$$)');
\set VERBOSITY default
CALL bbm_run('violated');
\set VERBOSITY terse
SELECT round, phase, rows FROM phases WHERE name = 'violated';
UPDATE blocks SET pad = 'fixed' WHERE id <= 3;
UPDATE blocks SET n = 0 WHERE id = 4;
CALL bbm_run('violated');
SELECT round, phase, rows FROM phases WHERE name = 'violated';

/* A partitioned table: partition by partition, and one check of all partitions. */

CREATE TABLE parted (id integer, part integer, n integer NOT NULL DEFAULT 0, pad text) PARTITION BY LIST (part);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
CREATE TABLE parted_3 PARTITION OF parted FOR VALUES IN (3);
INSERT INTO parted SELECT i, i % 3 + 1, 0, repeat('x', 900) FROM generate_series(1, 60) i;
VACUUM ANALYZE parted;
INSERT INTO stops VALUES (58);
SELECT bbm_update('parted', 'parted', 'n = n + stop_at(id)', 'n = 0', batch_size => 40);
CALL bbm_run('parted');
-- rows move into a partition that is done, and into a new one
SELECT part, sum(n) FROM parted GROUP BY 1 ORDER BY 1;
UPDATE parted SET part = 2 WHERE id = 2;
CREATE TABLE parted_4 PARTITION OF parted FOR VALUES IN (4);
UPDATE parted SET part = 4 WHERE id = 5;
CALL bbm_run('parted');
SELECT n, count(*) FROM parted GROUP BY 1;
SELECT j.round, j.phase, relation_name, sum(row_count) AS rows
FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id
WHERE m.name = 'parted' GROUP BY 1, 2, 3 ORDER BY 1, 2 DESC, 3;
SELECT event, detail FROM bbm_events WHERE name = 'parted' AND event IN ('attached', 'detached', 'round') ORDER BY id;
-- a statement names the partitioned table, so it cannot be split into block ranges
SELECT bbm_create('whole', 'parted', 'UPDATE parted SET n = 1 WHERE ctid BETWEEN $1 AND $2',
    batching_strategy => 'BlockRangeBatchingStrategy', filter => 'n = 0');

/* Rows that a policy shows but does not allow to be changed do not keep the migration running, either. */

CREATE ROLE regress_blocks LOGIN;
GRANT ALL ON SCHEMA public TO regress_blocks;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO regress_blocks;
GRANT EXECUTE ON ALL PROCEDURES IN SCHEMA public TO regress_blocks;
SET SESSION AUTHORIZATION regress_blocks;
CREATE TABLE hidden AS SELECT i AS id, 0 AS n FROM generate_series(1, 10) i;
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY sees ON hidden FOR SELECT USING (true);
CREATE POLICY changes ON hidden FOR UPDATE USING (id > 2);
\c - regress_blocks
SET client_min_messages = warning;
SELECT bbm_update('hidden', 'hidden', 'n = 1', 'n = 0', max_attempts => 2);
CALL bbm_run('hidden');
\c - :me
SELECT n, count(*) FROM hidden GROUP BY 1 ORDER BY 1;
DROP TABLE hidden;

SET client_min_messages = warning;
DROP EXTENSION bbm CASCADE;
DROP TABLE blocks, stops, others, unknown_size, parted;
DROP FUNCTION stop_at, suppress, over_blocks, over_partition;
DROP PROCEDURE refill;
DROP OWNED BY regress_blocks;
DROP ROLE regress_blocks;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();
