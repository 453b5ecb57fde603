--
-- Partitioned tables and inheritance.
--

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
SELECT pg_reload_conf();
\c -
SET client_min_messages = warning;
CREATE FUNCTION events(name text) RETURNS TABLE (event text, detail text) LANGUAGE sql AS
    'SELECT event, detail FROM bbm_events e WHERE e.name = $1 AND event IN (''attached'', ''detached'', ''failed'') ORDER BY id';
CREATE FUNCTION outcome(name text) RETURNS TABLE (status smallint, code smallint, message text) LANGUAGE sql AS
    'SELECT status, failure_error_code, error_message FROM batched_background_migrations m WHERE m.name = $1';
CREATE FUNCTION jobs(name text) RETURNS TABLE (relation text, min bigint, max bigint, min_key text[], max_key text[], rows bigint)
LANGUAGE sql AS
    'SELECT j.relation_name, j.min_value, j.max_value, j.min_key, j.max_key, j.row_count
     FROM batched_background_migration_jobs j
     JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name = $1 ORDER BY j.id';

-- list, range, hash and default partitions, whose columns are in another order, and some were dropped
CREATE TABLE parted (id int NOT NULL, grp int NOT NULL, n int NOT NULL DEFAULT 0, note text, PRIMARY KEY (grp, id))
    PARTITION BY LIST (grp);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 (note text, gone int, n int NOT NULL DEFAULT 0, grp int NOT NULL, id int NOT NULL);
ALTER TABLE parted_2 DROP gone;
ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES IN (2);
CREATE TABLE parted_3 PARTITION OF parted FOR VALUES IN (3) PARTITION BY RANGE (id);
CREATE TABLE parted_3a PARTITION OF parted_3 FOR VALUES FROM (0) TO (50);
CREATE TABLE parted_3b PARTITION OF parted_3 DEFAULT;
CREATE TABLE parted_5 PARTITION OF parted FOR VALUES IN (5) PARTITION BY HASH (id);
CREATE TABLE parted_5a PARTITION OF parted_5 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parted_5b PARTITION OF parted_5 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE parted_d PARTITION OF parted DEFAULT;
INSERT INTO parted SELECT i, g FROM generate_series(1, 10) i, generate_series(1, 5) g;
INSERT INTO parted SELECT i, 3 FROM generate_series(51, 60) i;
SELECT bbm_update('by id', 'parted', 'n = n + 1', column_name => 'id');
ALTER TABLE parted ADD UNIQUE (id, grp);
SELECT bbm_update('by id', 'parted', 'n = n + 1', column_name => 'id', batch_size => 7, rows_stay => true) > 0 AS by_id,
       bbm_update('by key', 'parted', 'n = parted.n + 1', batch_size => 3, sub_batch_size => 2) > 0 AS by_key;
CALL bbm_run('by id');
SELECT relation, min, max, rows FROM jobs('by id') WHERE relation !~ '_5';
CALL bbm_run('by key');
SELECT n, count(*) FROM parted GROUP BY n;
-- a statement, and a function of a range, get ranges of the whole table; a function with a table's name gets each partition's
CREATE FUNCTION of_range(int, int, int, int) RETURNS void LANGUAGE sql AS
    'UPDATE parted SET n = n + 1 WHERE (grp, id) >= ($1, $2) AND (grp, id) <= ($3, $4)';
CREATE FUNCTION of_partition(table_name text, column_name text, min int, max int, batch_size int) RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE format('UPDATE %s SET n = n + 1 WHERE %I BETWEEN $1 AND $2', $1, $2) USING min, max; END $$;
SELECT bbm_create('statement', 'parted', 'UPDATE parted SET n = n + 1 WHERE (grp, id) >= ($1, $2) AND (grp, id) <= ($3, $4)',
                  batch_size => 20) > 0 AS statement,
       bbm_create('of range', 'parted', 'of_range', batch_size => 20) > 0 AS of_range,
       bbm_create('of partition', 'parted', 'of_partition', column_name => 'id', batch_size => 7) > 0 AS of_partition;
CALL bbm_run('statement');
SELECT * FROM jobs('statement');
CALL bbm_run('of range');
CALL bbm_run('of partition');
SELECT n, count(*) FROM parted GROUP BY n;
SELECT name, rows_done FROM bbm_status() ORDER BY name;
-- blocks, deletes, and columns that are null
CREATE INDEX ON parted (note);
SELECT bbm_update('blocks', 'parted', 'n = n + 1', 'n = 5', batching_strategy => 'BlockRangeBatchingStrategy') > 0 AS blocks,
       bbm_update('null', 'parted', 'note = ''x''', column_name => 'note', batch_size => 4,
                  batching_strategy => 'NullKeySetBatchingStrategy') > 0 AS null,
       bbm_delete('delete', 'parted', 'n = 6 AND note = ''x'' AND grp = 4', batch_size => 3) > 0 AS delete;
CALL bbm_run('blocks');
CALL bbm_run('null');
CALL bbm_run('delete');
SELECT n, note, grp, count(*) FROM parted GROUP BY n, note, grp ORDER BY grp;
SELECT bbm_create('x', 'parted', 'UPDATE parted SET n = 1 WHERE ctid BETWEEN $1 AND $2', column_name => 'id', filter => 'n <> 1',
                  batching_strategy => 'BlockRangeBatchingStrategy');
-- a partitioned table is not sorted for each range: its partitions need the index, too
DROP TABLE parted_d;
CREATE TABLE apart (id int NOT NULL, n int) PARTITION BY RANGE (id);
CREATE TABLE apart_1 PARTITION OF apart FOR VALUES FROM (0) TO (10);
CREATE TABLE apart_2 PARTITION OF apart FOR VALUES FROM (10) TO (20);
CREATE UNIQUE INDEX ON apart_1 (id);
SELECT bbm_create('x', 'apart', 'UPDATE apart SET n = 1 WHERE id BETWEEN $1 AND $2', column_name => 'id');
SELECT bbm_update('x', 'apart', 'n = 1', column_name => 'id');

-- rows that move into another partition
SELECT bbm_update('move', 'parted', 'grp = 1, n = n + 1', 'grp = 2', column_name => 'id');
SELECT bbm_update('move', 'parted', 'id = id + 100, grp = 1, n = n + 1', 'grp = 2', column_name => 'id', batch_size => 3,
                  allow_key_change => true) > 0 AS move,
       bbm_update('back', 'parted', 'grp = 2, n = n + 1', 'grp = 1 AND id > 100', allow_key_change => true,
                  batching_strategy => 'BlockRangeBatchingStrategy') > 0 AS back;
CALL bbm_run('move');
SELECT tableoid::regclass AS partition, n, id > 100 AS moved, count(*) FROM parted WHERE grp < 3 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
CALL bbm_run('back');
SELECT tableoid::regclass AS partition, n, id > 100 AS moved, count(*) FROM parted WHERE grp < 3 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;

--
-- Partitions come and go in mid-run.  A trigger pauses the migration at a row.
--
SELECT count(bbm_drop(name)) FROM batched_background_migrations;
CREATE TABLE stop_at (id int);
CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM stop_at s WHERE s.id = new.id;
    IF found THEN PERFORM bbm_pause('m'); END IF;
    RETURN new;
END $$;
CREATE PROCEDURE pt() LANGUAGE plpgsql AS $$
BEGIN
    DROP TABLE IF EXISTS pt, pt_1, pt_2, pt_3, pt_4;
    PERFORM bbm_drop('m', true);
    CREATE TABLE pt (id int PRIMARY KEY, k text NOT NULL, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
    CREATE INDEX ON pt (k);
    CREATE TABLE pt_1 PARTITION OF pt FOR VALUES FROM (0) TO (10);
    CREATE TABLE pt_2 PARTITION OF pt FOR VALUES FROM (10) TO (20);
    CREATE TABLE pt_3 PARTITION OF pt FOR VALUES FROM (20) TO (30);
    INSERT INTO pt SELECT x, x + 100 FROM generate_series(0, 29) x;
    CREATE TRIGGER stop BEFORE UPDATE ON pt FOR EACH ROW EXECUTE FUNCTION stop();
END $$;
CALL pt();
CREATE FUNCTION done() RETURNS TABLE (partition regclass, n int, count bigint, min int, max int) LANGUAGE sql AS
    'SELECT tableoid::regclass, n, count(*), min(id), max(id) FROM pt GROUP BY 1, 2 ORDER BY 4';
-- one is detached half done, one is renamed, one is new; the first comes back
CALL pt();
SELECT bbm_update('m', 'pt', 'n = n + 1', batch_size => 3, max_value => 100) > 0 AS defined;
INSERT INTO stop_at VALUES (11), (21);
CALL bbm_run('m');
ALTER TABLE pt DETACH PARTITION pt_2;
ALTER TABLE pt_3 RENAME TO pt_drei;
CREATE TABLE pt_4 PARTITION OF pt FOR VALUES FROM (30) TO (40);
INSERT INTO pt SELECT x, x + 100 FROM generate_series(30, 39) x;
CALL bbm_run('m');
SELECT * FROM done();
SELECT n, count(*) FROM pt_2 GROUP BY n ORDER BY n;
ALTER TABLE pt ATTACH PARTITION pt_2 FOR VALUES FROM (10) TO (20);
CALL bbm_run('m');
SELECT * FROM done();
SELECT * FROM events('m');
ALTER TABLE pt_drei RENAME TO pt_3;
-- by another key; one is dropped; one is split
CALL pt();
SELECT bbm_update('m', 'pt', 'n = n + 1', column_name => 'k', batch_size => 3) > 0 AS defined;
INSERT INTO stop_at VALUES (4);
DELETE FROM bbm_events;
CALL bbm_run('m');
DROP TABLE pt_2;
ALTER TABLE pt DETACH PARTITION pt_3;
CREATE TABLE pt_3a PARTITION OF pt FOR VALUES FROM (20) TO (25);
CREATE TABLE pt_3b PARTITION OF pt FOR VALUES FROM (25) TO (30);
INSERT INTO pt SELECT * FROM pt_3;
CALL bbm_run('m');
SELECT * FROM done();
SELECT * FROM events('m');
-- one without the index fails the migration; with it, it goes on
CALL pt();
DROP INDEX pt_k_idx;
CREATE INDEX ON pt_1 (k);
CREATE INDEX ON pt_2 (k);
CREATE INDEX ON pt_3 (k);
SELECT bbm_update('m', 'pt', 'n = n + 1', column_name => 'k', batch_size => 3) > 0 AS defined;
INSERT INTO stop_at VALUES (11);
CALL bbm_run('m');
DROP INDEX pt_3_k_idx;
CALL bbm_run('m');
SELECT * FROM outcome('m');
CREATE INDEX ON pt_3 (k);
CALL bbm_run('m');
SELECT * FROM done();
-- the job of one that is gone is detached, and done when it is back
CALL pt();
CREATE FUNCTION gate(table_name text, column_name text, min int, max int, batch_size int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE %s SET n = n + 1 WHERE %I BETWEEN $1 AND $2', $1, $2) USING min, max;
    IF EXISTS (SELECT 1 FROM stop_at WHERE id = -1) THEN RAISE 'gate is closed'; END IF;
END $$;
DROP TRIGGER stop ON pt;
INSERT INTO stop_at VALUES (-1);
SELECT bbm_create('m', 'pt', 'gate', batch_size => 4, max_attempts => 1) > 0 AS defined;
CALL bbm_run('m');
DELETE FROM stop_at;
ALTER TABLE pt DETACH PARTITION pt_1;
CREATE TRIGGER stop BEFORE UPDATE ON pt FOR EACH ROW EXECUTE FUNCTION stop();
INSERT INTO stop_at VALUES (29);
CALL bbm_run('m');
SELECT relation_name, status, min_value, max_value, row_count, detached FROM batched_background_migration_jobs ORDER BY id;
ALTER TABLE pt ATTACH PARTITION pt_1 FOR VALUES FROM (0) TO (10);
CALL bbm_run('m');
SELECT * FROM done();

-- inheritance: the parent's own rows, and its child tables'
CREATE TABLE parent (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE TABLE child_1 (extra text, PRIMARY KEY (id)) INHERITS (parent);
CREATE TABLE child_2 (PRIMARY KEY (id)) INHERITS (child_1);
INSERT INTO parent SELECT generate_series(1, 10);
INSERT INTO child_1 SELECT generate_series(1, 10);
INSERT INTO child_2 SELECT generate_series(1, 10);
SELECT bbm_update('inherit', 'parent', 'n = n + 1', batch_size => 4) > 0 AS defined;
CALL bbm_run('inherit');
SELECT relation, min, max, rows FROM jobs('inherit');
SELECT tableoid::regclass AS partition, n, count(*) FROM parent GROUP BY 1, 2 ORDER BY 1, 2;
ALTER TABLE child_2 DROP CONSTRAINT child_2_pkey;
SELECT bbm_update('x', 'parent', 'n = n + 1');
-- a table that gets its first child table in mid-run, and one that loses its last
DROP TABLE child_2, child_1;
UPDATE parent SET n = 0;
CREATE TRIGGER stop BEFORE UPDATE ON parent FOR EACH ROW EXECUTE FUNCTION stop();
SELECT bbm_drop('m'), bbm_update('m', 'parent', 'n = n + 1', batch_size => 4) > 0 AS defined;
DELETE FROM stop_at;
INSERT INTO stop_at VALUES (2);
CALL bbm_run('m');
CREATE TABLE child_1 (extra text, PRIMARY KEY (id)) INHERITS (parent);
INSERT INTO child_1 SELECT generate_series(1, 10);
CREATE TRIGGER stop BEFORE UPDATE ON child_1 FOR EACH ROW EXECUTE FUNCTION stop();
CALL bbm_run('m');
SELECT tableoid::regclass AS partition, n, count(*) FROM parent GROUP BY 1, 2 ORDER BY 1, 2;
SELECT * FROM events('m') WHERE detail ~ 'child_1';
SELECT bbm_verify('m', 'n = 1');
UPDATE parent SET n = 0;
UPDATE child_1 SET id = -id;
SELECT bbm_drop('m'), bbm_update('m', 'parent', 'n = n + 1', batch_size => 4) > 0 AS defined;
INSERT INTO stop_at VALUES (-9);
CALL bbm_run('m');
SELECT n, count(*) FROM child_1 GROUP BY n ORDER BY n;
DROP TABLE child_1;
CALL bbm_run('m');
SELECT tableoid::regclass AS partition, n, count(*) FROM parent GROUP BY 1, 2 ORDER BY 1, 2;

-- a migration that has started as one table continues so, also with a function that gets the table's name
CALL pt();
SELECT bbm_create('m', 'pt', 'UPDATE pt SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 3) > 0 AS defined;
INSERT INTO stop_at VALUES (4);
CALL bbm_run('m');
SELECT bbm_alter('m', job => 'gate');
CALL bbm_run('m');
SELECT * FROM outcome('m');
-- the table itself is gone
CALL pt();
SELECT bbm_update('m', 'pt', 'n = n + 1', batch_size => 3) > 0 AS defined;
INSERT INTO stop_at VALUES (11);
CALL bbm_run('m');
DROP TABLE pt;
CALL bbm_run('m');
SELECT * FROM outcome('m');

DROP EXTENSION bbm;
DROP TABLE parted, apart, parent, stop_at;
DROP FUNCTION events, outcome, jobs, of_range, of_partition, stop, done, gate;
DROP PROCEDURE pt;
ALTER SYSTEM RESET bbm.enabled;
SELECT pg_reload_conf();
