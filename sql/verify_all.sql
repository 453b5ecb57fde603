-- Which rows verification reads: all there are, where bbm has found out the
-- range by itself; where a user has given an end of it, none beyond that.

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
-- what a busy machine does to the pace is tested elsewhere
ALTER SYSTEM SET bbm.min_pace = 1;
SELECT pg_reload_conf();
\c -
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE TABLE t (id integer PRIMARY KEY, word text COLLATE "C" NOT NULL UNIQUE, n integer NOT NULL DEFAULT 0);
-- 1 to 10, of which the application moves one to -5 and one to 15 while the migration runs
CREATE FUNCTION fresh() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE t;
    INSERT INTO t (id, word) SELECT i, 'k' || chr(96 + i) FROM generate_series(1, 10) i;
END $$;
CREATE FUNCTION moves() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE t SET id = -5, word = 'ja' WHERE id = 2;
    UPDATE t SET id = 15, word = 'la' WHERE id = 9;
END $$;
CREATE VIEW undone AS SELECT id FROM t WHERE n <> 1;
CREATE VIEW ranges AS
    SELECT j.round, j.phase, j.kind, coalesce(j.min_key::text, j.min_value::text) AS first, coalesce(j.max_key::text, j.max_value::text) AS last, j.row_count
    FROM batched_background_migration_jobs j ORDER BY j.id;
CREATE VIEW state AS
    SELECT m.status, m.error_message, m.min_value, m.max_value, m.min_key, m.max_key, m.min_found, m.max_found, m.followed,
           m.verify_max_value, m.verify_max_key
    FROM batched_background_migrations m;
/* both ends are bbm's */

SELECT fresh();
SELECT bbm_update('m', 't', 'n = n + 1', 'n = 0', batch_size => 4, verify => true) > 0 AS defined;
SELECT * FROM state;
SELECT moves(), bbm_verify('m');
\set VERBOSITY default
CALL bbm_run('m');
\set VERBOSITY terse
SELECT * FROM undone;
SELECT * FROM state;
SELECT * FROM ranges;
SELECT bbm_verify('m'), bbm_verify('m', 'id > 0'), bbm_verify('m', 'id < 10');
-- started again, it does them, too, and nothing twice
CALL bbm_run('m');
SELECT n, count(*), min(id), max(id) FROM t GROUP BY n;
SELECT * FROM state;
SELECT * FROM ranges WHERE round > 1;
SELECT bbm_drop('m');

-- what the application inserts as it should be is all right, and what it does not is not
SELECT fresh();
SELECT bbm_update('m', 't', 'n = n + 1', 'n = 0', batch_size => 4, verify => true) > 0 AS defined;
INSERT INTO t VALUES (0, 'i', 1), (11, 'z', 1);
CALL bbm_run('m');
INSERT INTO t VALUES (12, 'zz', 0);
SELECT bbm_verify('m'), status FROM bbm_status('m');
SELECT bbm_drop('m');
-- a check
SELECT fresh();
SELECT bbm_update('m', 't', 'n = n + 1', batch_size => 4, verify => true, row_check => 'n = 1') > 0 AS defined;
SELECT moves();
CALL bbm_run('m');
CALL bbm_run('m');
SELECT n, count(*), min(id), max(id) FROM t GROUP BY n;
SELECT bbm_drop('m');
-- a job of the user's
SELECT fresh();
SELECT bbm_create('m', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 4, verify => true, row_check => 'n = 1') > 0 AS defined;
SELECT moves();
CALL bbm_run('m');
CALL bbm_run('m');
SELECT n, count(*), min(id), max(id) FROM t GROUP BY n;
SELECT bbm_drop('m');
-- a batch of one key, with more of them beyond the range than within
SELECT fresh();
SELECT bbm_update('m', 't', 'n = n + 1', 'n = 0', batch_size => 1, verify => true) > 0 AS defined;
INSERT INTO t SELECT i, 'z' || i FROM generate_series(11, 40) i;
CALL bbm_run('m');
SELECT count(*), sum(row_count) FROM ranges WHERE round = 1 AND phase = 'verify';
CALL bbm_run('m');
SELECT n, count(*) FROM t GROUP BY n;
SELECT bbm_drop('m');

/* ends that a user has given */

SELECT fresh();
SELECT bbm_update('max', 't', 'n = n + 1', 'n = 0', batch_size => 4, verify => true, max_value => 10) > 0 AS defined;
SELECT min_found, max_found FROM state;
SELECT moves(), bbm_verify('max');
CALL bbm_run('max');
CALL bbm_run('max');
SELECT * FROM undone;
SELECT bbm_drop('max'), fresh();
SELECT bbm_update('min', 't', 'n = n + 1', 'n = 0', batch_size => 4, verify => true, min_value => 1) > 0 AS defined;
SELECT min_found, max_found FROM state;
SELECT moves(), bbm_verify('min');
CALL bbm_run('min');
CALL bbm_run('min');
SELECT * FROM undone;
SELECT bbm_drop('min'), fresh();
SELECT bbm_update('both', 't', 'n = n + 1', 'n = 0', batch_size => 4, verify => true, min_value => 1, max_value => 10) > 0 AS defined;
SELECT min_found, max_found FROM state;
SELECT moves(), bbm_verify('both');
CALL bbm_run('both');
SELECT * FROM undone;
SELECT * FROM ranges WHERE round = 1 AND phase = 'verify';
SELECT bbm_drop('both'), fresh();
-- ... later
SELECT bbm_update('later', 't', 'n = n + 1', 'n = 0', batch_size => 4, verify => true) > 0 AS defined;
SELECT bbm_alter('later', max_value => 9);
SELECT min_found, max_found FROM state;
UPDATE batched_background_migrations SET min_value = 2;
SELECT min_found, max_found FROM state;
-- what bbm keeps cannot be written
UPDATE batched_background_migrations SET min_found = true, max_found = true, followed = true, verify_max_value = 7, verify_max_key = '{a}';
SELECT min_found, max_found, followed, verify_max_value, verify_max_key FROM state;
SELECT moves();
CALL bbm_run('later');
SELECT * FROM undone ORDER BY id;
SELECT bbm_drop('later'), fresh();
-- a plain INSERT has given them, if the key is an integer
INSERT INTO batched_background_migrations (name, table_name, column_name, job_signature_name, min_value, max_value, batch_size, filter, verify)
VALUES ('inserted', 't', 'id', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', 1, 10, 4, 'n = 0', true);
SELECT min_found, max_found FROM state;
SELECT moves(), bbm_verify('inserted');
CALL bbm_run('inserted');
SELECT * FROM undone ORDER BY id;
SELECT bbm_drop('inserted'), fresh();
INSERT INTO batched_background_migrations (name, table_name, column_name, job_signature_name, max_value, batch_size, min_found, max_found, verify_max_value)
VALUES ('inserted', 't', 'id', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', 10, 4, true, true, 7);
SELECT min_found, max_found, verify_max_value FROM state;
SELECT bbm_drop('inserted');

/* one that follows processes rows up to the last key, and does not verify beyond it; below its first key it does */

SELECT bbm_update('follows', 't', 'n = n + 1', 'n = 0', batch_size => 4, verify => true, follow => true) > 0 AS defined;
SELECT moves();
CALL bbm_run('follows');
SELECT * FROM undone;
SELECT min_found, max_found, followed, max_value FROM state;
INSERT INTO t VALUES (99, 'z', 0);
CALL bbm_run('follows');
SELECT * FROM undone;
SELECT status FROM state;
SELECT bbm_drop('follows'), fresh();

/* other keys and strategies */

SELECT bbm_update('text', 't', 'n = n + 1', 'n = 0', column_name => 'word', batch_size => 4, verify => true) > 0 AS defined;
SELECT moves(), bbm_verify('text');
CALL bbm_run('text');
SELECT * FROM state;
SELECT * FROM ranges WHERE round = 1 AND phase = 'verify';
CALL bbm_run('text');
SELECT n, count(*) FROM t GROUP BY n;
SELECT bbm_drop('text'), fresh();
SELECT bbm_update('from', 't', 'n = n + 1', 'n = 0', column_name => 'word', batch_size => 4, verify => true, min_key => '{ka}') > 0 AS defined;
SELECT min_found, max_found FROM state;
SELECT moves(), bbm_verify('from');
CALL bbm_run('from');
CALL bbm_run('from');
SELECT * FROM undone;
SELECT bbm_drop('from'), fresh();
SELECT bbm_update('to', 't', 'n = n + 1', 'n = 0', column_name => 'word', batch_size => 4, verify => true, max_key => '{kz}') > 0 AS defined;
SELECT min_found, max_found FROM state;
SELECT moves(), bbm_verify('to');
CALL bbm_run('to');
CALL bbm_run('to');
SELECT * FROM undone;
SELECT bbm_drop('to'), fresh();
-- inserted without bounds, which are found out when it is first started
INSERT INTO batched_background_migrations (name, table_name, column_name, job_signature_name, max_value, batch_size, filter, verify)
VALUES ('inserted', 't', 'word', 'UPDATE t SET n = 1 WHERE word BETWEEN $1 AND $2', 1, 4, 'n = 0', true);
CALL bbm_run('inserted');
SELECT min_found, max_found, min_key, max_key, status FROM state;
SELECT bbm_drop('inserted'), fresh();
INSERT INTO batched_background_migrations (name, table_name, column_name, job_signature_name, max_value, max_key, batch_size, filter, verify)
VALUES ('inserted', 't', 'word', 'UPDATE t SET n = 1 WHERE word BETWEEN $1 AND $2', 1, '{kz}', 4, 'n = 0', true);
CALL bbm_run('inserted');
SELECT min_found, max_found, min_key, max_key, status FROM state;
SELECT bbm_drop('inserted'), fresh();
-- no row when it is started, and one when it is verified
TRUNCATE t;
INSERT INTO batched_background_migrations (name, table_name, column_name, job_signature_name, max_value, batch_size, filter, verify, workers)
VALUES ('inserted', 't', 'word', 'UPDATE t SET n = 1 WHERE word BETWEEN $1 AND $2', 1, 4, 'n = 0', true, 1);
SELECT bbm_verify('inserted');
INSERT INTO t VALUES (1, 'a');
SELECT bbm_verify('inserted');
SELECT bbm_drop('inserted'), fresh();
-- several columns, one of which descends
CREATE UNIQUE INDEX many ON t (n, id DESC);
SELECT bbm_update('many', 't', 'word = upper(word)', 'word <> upper(word)', index_name => 'many', batch_size => 4, verify => true) > 0 AS defined;
SELECT column_name, key_order FROM batched_background_migrations;
UPDATE t SET n = -1 WHERE id = 2;
UPDATE t SET n = 1 WHERE id = 9;
SELECT bbm_verify('many');
CALL bbm_run('many');
SELECT * FROM ranges WHERE round = 1 AND phase = 'verify';
CALL bbm_run('many');
SELECT count(*) FROM t WHERE word <> upper(word);
SELECT bbm_drop('many'), fresh();
DROP INDEX many;
-- values
CREATE INDEX vals ON t (n);
SELECT bbm_update('values', 't', 'word = upper(word)', 'word <> upper(word)', column_name => 'n', batching_strategy => 'LooseIndexScanBatchingStrategy',
    batch_size => 4, verify => true) > 0 AS defined;
UPDATE t SET n = -1 WHERE id = 2;
UPDATE t SET n = 1 WHERE id IN (8, 9);
SELECT bbm_verify('values');
CALL bbm_run('values');
SELECT * FROM ranges WHERE round = 1 AND phase = 'verify';
CALL bbm_run('values');
SELECT count(*) FROM t WHERE word <> upper(word);
SELECT bbm_drop('values'), fresh();
DROP INDEX vals;
-- no row, then and now; and one since
TRUNCATE t;
SELECT bbm_update('none', 't', 'n = n + 1', 'n = 0', verify => true) > 0 AS defined;
SELECT bbm_update('none text', 't', 'n = n + 1', 'n = 0', verify => true, column_name => 'word') > 0 AS defined;
CALL bbm_run('none');
CALL bbm_run('none text');
SELECT name, status FROM bbm_status();
SELECT bbm_drop('none'), bbm_drop('none text');
SELECT bbm_update('none', 't', 'n = n + 1', 'n = 0', verify => true) > 0 AS defined;
SELECT bbm_update('none text', 't', 'n = n + 1', 'n = 0', verify => true, column_name => 'word') > 0 AS defined;
INSERT INTO t VALUES (-7, 'a'), (7, 'b');
SELECT bbm_verify('none'), bbm_verify('none text');
CALL bbm_run('none');
CALL bbm_run('none text');
CALL bbm_run('none');
SELECT n, count(*) FROM t GROUP BY n;
SELECT bbm_drop('none'), bbm_drop('none text');

/* partitions */

DROP VIEW undone;
DROP TABLE t;
CREATE TABLE t (id integer NOT NULL, word text COLLATE "C" NOT NULL, n integer NOT NULL DEFAULT 0, part integer NOT NULL GENERATED BY DEFAULT AS IDENTITY,
    PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (MINVALUE) TO (6);
CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (6) TO (MAXVALUE);
CREATE VIEW undone AS SELECT id FROM t WHERE n <> 1;
-- partition by partition, along the partition key
SELECT fresh();
SELECT bbm_update('by key', 't', 'n = n + 1', batch_size => 3, verify => true, row_check => 'n = 1') > 0 AS defined;
SELECT moves(), bbm_verify('by key');
CALL bbm_run('by key');
SELECT partition_order FROM batched_background_migrations;
SELECT * FROM ranges WHERE round = 1 AND phase = 'verify';
CALL bbm_run('by key');
SELECT n, count(*) FROM t GROUP BY n;
SELECT bbm_drop('by key'), fresh();
-- with a filter: what is left of the range is done by itself, what is beyond it is not
CREATE UNIQUE INDEX ON t_1 (part);
CREATE UNIQUE INDEX ON t_2 (part);
UPDATE t SET part = id;
SELECT bbm_update('by filter', 't', 'n = 1', 'n = 0', batch_size => 3, verify => true, column_name => 'part') > 0 AS defined;
UPDATE t SET part = -5 WHERE part = 2;
UPDATE t SET part = 15 WHERE part = 9;
SELECT bbm_verify('by filter');
CALL bbm_run('by filter');
SELECT partition_order FROM batched_background_migrations;
SELECT * FROM ranges WHERE (round > 1 OR phase = 'verify');
CALL bbm_run('by filter');
SELECT * FROM ranges WHERE round > 2;
SELECT n, count(*) FROM t GROUP BY n;
SELECT bbm_drop('by filter'), fresh();
UPDATE t SET part = id;
-- without verification it is about its range alone
SELECT bbm_update('by filter', 't', 'n = 1', 'n = 0', batch_size => 3, column_name => 'part') > 0 AS defined;
UPDATE t SET part = 15 WHERE part = 9;
CALL bbm_run('by filter');
SELECT * FROM undone;
SELECT bbm_drop('by filter'), fresh();
-- as one table
SELECT bbm_create('whole', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2 AND n = 0', filter => 'n = 0', batch_size => 3, verify => true) > 0 AS defined;
SELECT moves(), bbm_verify('whole');
CALL bbm_run('whole');
SELECT partition_order FROM batched_background_migrations;
SELECT * FROM ranges WHERE round = 1 AND phase = 'verify';
CALL bbm_run('whole');
SELECT n, count(*) FROM t GROUP BY n;

DROP EXTENSION bbm CASCADE;
DROP TABLE t CASCADE;
DROP FUNCTION fresh, moves;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.min_pace;
SELECT pg_reload_conf();
