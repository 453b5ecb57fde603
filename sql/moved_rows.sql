--
-- Rows that the application moves between partitions, or child tables, in mid-run.
--

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
SELECT pg_reload_conf();
\c -
SET client_min_messages = warning;
-- calls a function of the test's when the row with this id is done, once
CREATE TABLE act_at (id int, act text);
CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    todo text;
BEGIN
    DELETE FROM act_at a WHERE a.id = CASE TG_OP WHEN 'DELETE' THEN old.id ELSE new.id END RETURNING a.act INTO todo;
    IF todo IS NOT NULL THEN PERFORM bbm_pause('m'); END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN old ELSE new END;
END $$;
CREATE FUNCTION outcome() RETURNS TABLE (status smallint, code smallint, partition_order text, column_name text, message text)
LANGUAGE sql AS
    'SELECT status, failure_error_code, partition_order, column_name, error_message FROM batched_background_migrations WHERE name = ''m''';
CREATE FUNCTION jobs() RETURNS TABLE (round int, phase text, by_partition boolean, kind text, jobs bigint, rows numeric) LANGUAGE sql AS
    'SELECT round, phase, relation IS NOT NULL, kind, count(*), sum(row_count) FROM batched_background_migration_jobs
     GROUP BY 1, 2, 3, 4 ORDER BY 1, 2 DESC, 3, 4';

-- c: by list, key (id, status); the application changes the status
CREATE PROCEDURE c() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bbm_drop('m', true);
    DELETE FROM act_at;
    DROP TABLE IF EXISTS c;
    CREATE TABLE c (id int, status text, n int NOT NULL DEFAULT 0, b int, PRIMARY KEY (id, status)) PARTITION BY LIST (status);
    CREATE TABLE c_a PARTITION OF c FOR VALUES IN ('a');
    CREATE TABLE c_b PARTITION OF c FOR VALUES IN ('b');
    CREATE TABLE c_c PARTITION OF c FOR VALUES IN ('c');
    CREATE INDEX ON c (b);
    INSERT INTO c SELECT i, (ARRAY['a', 'b', 'c'])[1 + i % 3] FROM generate_series(1, 300) i;
    CREATE TRIGGER act AFTER UPDATE OR DELETE ON c FOR EACH ROW EXECUTE FUNCTION act();
END $$;
-- every row moves, to a partition that is done or to come; a batch of 10 has been done up to a row of each
CREATE PROCEDURE move() LANGUAGE plpgsql AS $$
BEGIN
    SET LOCAL session_replication_role = replica;
    UPDATE c SET status = (ARRAY['b', 'c', 'a'])[ascii(status) - 96];
END $$;
CALL c();
SELECT bbm_update('m', 'c', 'n = n + 1', batch_size => 10) > 0 AS defined;
INSERT INTO act_at VALUES (105, 'pause'), (210, 'pause');
CALL bbm_run('m');
CALL move();
CALL bbm_run('m');
CALL move();
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n;
SELECT * FROM outcome();
SELECT * FROM jobs();
-- a function gets the name of the partitioned table
CALL c();
CREATE FUNCTION by_name(table_name text, column_name text, min int, max int, batch_size int) RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE format('UPDATE %s SET n = n + 1 WHERE %I BETWEEN $1 AND $2', $1, $2) USING min, max; END $$;
SELECT bbm_create('m', 'c', 'by_name', column_name => 'id', batch_size => 10) > 0 AS defined;
INSERT INTO act_at VALUES (150, 'pause');
CALL bbm_run('m');
CALL move();
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n;
SELECT * FROM outcome();
-- a filter that a done row does not meet any more: partition by partition, and what was missed is found
CALL c();
SELECT bbm_update('m', 'c', 'n = n + 1, b = id + 0', 'b IS NULL', batch_size => 10) > 0 AS defined;
INSERT INTO act_at VALUES (151, 'pause');
CALL bbm_run('m');
CALL move();
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n;
SELECT * FROM outcome();
SELECT * FROM jobs();
SELECT event, detail FROM bbm_events WHERE event = 'round';
-- a partition that is attached during that check is processed, and rows that move out of it meanwhile are found by another check
CALL c();
CREATE FUNCTION seen(int) RETURNS boolean STABLE LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM act_at a WHERE a.id = $1 AND a.act = 'check') THEN PERFORM bbm_pause('m'); END IF;
    RETURN $1 <> 200;
END $$;
SELECT bbm_update('m', 'c', 'n = n + 1, b = id + 0', 'b IS NULL AND seen(id)', batch_size => 10, max_key => '{999,d}') > 0 AS defined;
INSERT INTO act_at VALUES (299, 'pause');
CALL bbm_run('m');
INSERT INTO act_at VALUES (200, 'check');
CALL bbm_run('m');
SELECT m.phase, m.round, count(*) AS jobs FROM batched_background_migrations m
JOIN batched_background_migration_jobs j ON (j.phase, j.round) = (m.phase, m.round) GROUP BY 1, 2;
DELETE FROM act_at;
CREATE TABLE c_d PARTITION OF c FOR VALUES IN ('d');
INSERT INTO c SELECT i, 'd' FROM generate_series(301, 340) i;
INSERT INTO act_at VALUES (320, 'pause');
CALL bbm_run('m');
SELECT phase, round FROM batched_background_migrations;
UPDATE c SET status = 'a' WHERE id = 340;
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n ORDER BY n;
SELECT * FROM outcome();
SELECT * FROM jobs();
CALL c();
SELECT bbm_delete('m', 'c', 'id > 0', batch_size => 10) > 0 AS defined;
INSERT INTO act_at VALUES (151, 'pause');
CALL bbm_run('m');
CALL move();
CALL bbm_run('m');
SELECT count(*) FROM c;
SELECT * FROM outcome();
-- which filters are known to end: the order a worker would decide on
CREATE TABLE e (id int, p int, status text, b int, done bool, r int NOT NULL, PRIMARY KEY (id, p)) PARTITION BY LIST (p);
CREATE TABLE e_1 PARTITION OF e FOR VALUES IN (1);
CREATE PROCEDURE decide(set text, filter text, INOUT word text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bbm_drop('m', true), bbm_update('m', 'e', set, filter);
    COMMIT;
    CALL bbm_run('m');
    SELECT partition_order INTO word FROM batched_background_migrations WHERE name = 'm';
END $$;
CALL decide('status = ''new''', 'status = ''old''', '');
CALL decide('status = ''new''', 'status <> ''new'' AND id > 5', '');
-- a row that is quarantined meets it for ever
SELECT bbm_drop('m', true), bbm_update('m', 'e', 'status = ''new''', 'status = ''old''', on_error => 'split') > 0 AS defined;
CALL bbm_run('m');
SELECT partition_order FROM batched_background_migrations WHERE name = 'm';
CALL decide('status = ''new''', 'status IS DISTINCT FROM ''new''', '');
CALL decide('done = true', 'NOT done', '');
CALL decide('b = r * 2', 'b IS NULL', '');
CALL decide('b = coalesce(b, 0)', 'b IS NULL', '');
CALL decide('b = id * 2', 'b IS NULL OR r > 5', '');
CALL decide('b = b * 2', 'b IS NULL', '');
CALL decide('b = abs(r)', 'b IS NULL', '');
CALL decide('status = NULL', 'status IS NOT NULL', '');
CALL decide('status = ''new''', 'b = 1', '');
CALL decide('b = b + 1', 'b < 5', '');
CALL decide('b = 1', NULL, '');
CREATE TRIGGER act BEFORE UPDATE ON e_1 FOR EACH ROW EXECUTE FUNCTION act();
CALL decide('status = ''new''', 'status = ''old''', '');
DROP TRIGGER act ON e_1;
-- a column that is null: a row that moves to a partition that is done is found by the last check
CALL c();
SELECT bbm_update('m', 'c', 'n = n + 1, b = 1', column_name => 'b', batching_strategy => 'NullKeySetBatchingStrategy', batch_size => 10) > 0 AS defined;
INSERT INTO act_at VALUES (151, 'pause');
CALL bbm_run('m');
CALL move();
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n;
SELECT * FROM outcome();
-- the user says that rows stay
CALL c();
SELECT bbm_update('m', 'c', 'n = n + 1', batch_size => 10, rows_stay => true) > 0 AS defined;
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n;
SELECT * FROM outcome();
SELECT * FROM jobs();
UPDATE batched_background_migrations SET partition_order = 'as_one_table';
SELECT partition_order FROM outcome();

-- a default partition that is split
CREATE PROCEDURE d(with_default boolean) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bbm_drop('m', true);
    DELETE FROM act_at;
    DROP TABLE IF EXISTS d, d_old;
    CREATE TABLE d (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
    CREATE TABLE d_1 PARTITION OF d FOR VALUES FROM (0) TO (100);
    IF with_default THEN
        CREATE TABLE d_d PARTITION OF d DEFAULT;
    ELSE
        CREATE TABLE d_2 PARTITION OF d FOR VALUES FROM (100) TO (301);
    END IF;
    INSERT INTO d SELECT generate_series(1, 300);
    CREATE TRIGGER act AFTER UPDATE OR DELETE ON d FOR EACH ROW EXECUTE FUNCTION act();
END $$;
CALL d(true);
SELECT bbm_update('m', 'd', 'n = n + 1', batch_size => 10) > 0 AS defined;
INSERT INTO act_at VALUES (250, 'pause');
CALL bbm_run('m');
CREATE TABLE d_2 (LIKE d_d INCLUDING ALL);
WITH moved AS (DELETE FROM d_d WHERE id BETWEEN 200 AND 299 RETURNING *) INSERT INTO d_2 SELECT * FROM moved;
ALTER TABLE d ATTACH PARTITION d_2 FOR VALUES FROM (200) TO (300);
CALL bbm_run('m');
SELECT n, count(*) FROM d GROUP BY n;
SELECT * FROM outcome();
-- partition by partition where the key is the partition key; a partition that is split in mid-run is reported, and not done twice
CALL d(false);
SELECT bbm_update('m', 'd', 'n = n + 1', batch_size => 10) > 0 AS defined;
INSERT INTO act_at VALUES (250, 'pause');
CALL bbm_run('m');
ALTER TABLE d DETACH PARTITION d_2;
ALTER TABLE d_2 RENAME TO d_old;
CREATE TABLE d_2 PARTITION OF d FOR VALUES FROM (100) TO (200);
CREATE TABLE d_3 PARTITION OF d FOR VALUES FROM (200) TO (400);
INSERT INTO d SELECT * FROM d_old;
CALL bbm_run('m');
SELECT n, count(*) FROM d GROUP BY n ORDER BY n;
SELECT * FROM outcome();
-- others that come and go make no difference
CALL d(false);
SELECT bbm_update('m', 'd', 'n = n + 1', batch_size => 10, max_value => 999) > 0 AS defined;
INSERT INTO act_at VALUES (150, 'pause');
CALL bbm_run('m');
DROP TABLE d_1;
CREATE TABLE d_4 PARTITION OF d FOR VALUES FROM (400) TO (500);
INSERT INTO d SELECT generate_series(400, 409);
CALL bbm_run('m');
SELECT n, count(*) FROM d GROUP BY n ORDER BY n;
SELECT * FROM outcome();
-- a default partition that is attached in mid-run, and is split after it has started
CALL d(false);
SELECT bbm_update('m', 'd', 'n = n + 1', batch_size => 10, max_value => 999) > 0 AS defined;
INSERT INTO act_at VALUES (150, 'pause'), (450, 'pause');
CALL bbm_run('m');
CREATE TABLE d_d PARTITION OF d DEFAULT;
INSERT INTO d SELECT generate_series(400, 499);
CALL bbm_run('m');
CREATE TABLE d_4 (LIKE d_d INCLUDING ALL);
WITH moved AS (DELETE FROM d_d WHERE id < 490 RETURNING *) INSERT INTO d_4 SELECT * FROM moved;
ALTER TABLE d ATTACH PARTITION d_4 FOR VALUES FROM (400) TO (490);
CALL bbm_run('m');
SELECT n, count(*) FROM d GROUP BY n ORDER BY n;
SELECT * FROM outcome();
-- a partition that is attached in mid-run and has partitions of its own, by another column
CREATE TABLE sub (id int NOT NULL, status text NOT NULL, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
CREATE TABLE sub_1 PARTITION OF sub FOR VALUES FROM (0) TO (100);
CREATE INDEX ON sub (id);
INSERT INTO sub SELECT i, 'a' FROM generate_series(0, 99) i;
CREATE TRIGGER act AFTER UPDATE ON sub FOR EACH ROW EXECUTE FUNCTION act();
SELECT bbm_drop('m', true), bbm_update('m', 'sub', 'n = n + 1', column_name => 'id', batch_size => 10, max_value => 999) > 0 AS defined;
INSERT INTO act_at VALUES (50, 'pause');
CALL bbm_run('m');
CREATE TABLE sub_2 PARTITION OF sub FOR VALUES FROM (100) TO (200) PARTITION BY LIST (status);
CREATE TABLE sub_2a PARTITION OF sub_2 FOR VALUES IN ('a');
CREATE TABLE sub_2b PARTITION OF sub_2 FOR VALUES IN ('b');
INSERT INTO sub SELECT i, CASE i % 2 WHEN 0 THEN 'a' ELSE 'b' END FROM generate_series(100, 199) i;
CALL bbm_run('m');
SELECT n, count(*) FROM sub GROUP BY n ORDER BY n;
SELECT * FROM outcome();
SELECT error_detail FROM batched_background_migrations WHERE name = 'm';
-- expressions in partition keys, levels below, the key's first columns
CREATE TABLE x (a int, b int, id int, n int NOT NULL DEFAULT 0) PARTITION BY RANGE ((a / 10));
CREATE TABLE x_1 PARTITION OF x FOR VALUES FROM (0) TO (10) PARTITION BY HASH (b);
CREATE TABLE x_1a PARTITION OF x_1 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE INDEX ON x (a, b, id);
CREATE INDEX ON x (a, id);
CREATE INDEX ON x (id, a, b);
CREATE INDEX ON x (id);
ALTER TABLE x ALTER a SET NOT NULL, ALTER b SET NOT NULL, ALTER id SET NOT NULL;
CREATE PROCEDURE decide_key(key text, INOUT word text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bbm_drop('m', true), bbm_update('m', 'x', 'n = 1', column_name => key);
    COMMIT;
    CALL bbm_run('m');
    SELECT partition_order INTO word FROM batched_background_migrations WHERE name = 'm';
END $$;
CALL decide_key('a, b, id', '');
CALL decide_key('a, id', '');
CALL decide_key('id', '');
CALL decide_key('id, a, b', '');
-- the primary key without what decides about partitions, unless too many rows would share it
CREATE TABLE k (device int, ts int, n int NOT NULL DEFAULT 0, PRIMARY KEY (device, ts)) PARTITION BY RANGE (ts);
CREATE TABLE k_1 PARTITION OF k FOR VALUES FROM (0) TO (1000);
SELECT bbm_drop('m', true), bbm_update('m', 'k', 'n = 1') > 0;
SELECT column_name FROM outcome();
INSERT INTO k SELECT 1 + i / 500, i FROM generate_series(0, 999) i;
SELECT bbm_drop('m', true), bbm_update('m', 'k', 'n = 1') > 0;
SELECT column_name FROM outcome();

-- child tables
CREATE TABLE parent (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE TABLE child_1 (PRIMARY KEY (id)) INHERITS (parent);
CREATE TABLE child_2 (PRIMARY KEY (id)) INHERITS (parent);
INSERT INTO child_1 SELECT generate_series(1, 100);
INSERT INTO child_2 SELECT generate_series(101, 200);
CREATE TRIGGER act AFTER UPDATE ON child_2 FOR EACH ROW EXECUTE FUNCTION act();
SELECT bbm_drop('m', true), bbm_update('m', 'parent', 'n = n + 1', batch_size => 10) > 0 AS defined;
INSERT INTO act_at VALUES (150, 'pause');
CALL bbm_run('m');
WITH moved AS (DELETE FROM child_2 RETURNING *) INSERT INTO child_1 SELECT * FROM moved;
WITH moved AS (DELETE FROM ONLY child_1 WHERE id <= 100 RETURNING *) INSERT INTO child_2 SELECT * FROM moved;
CALL bbm_run('m');
SELECT n, count(*) FROM parent GROUP BY n;
SELECT * FROM outcome();

--
-- What a verification finds is done when the migration is started again: those rows, and no others.
--
CREATE PROCEDURE v() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bbm_drop('m', true);
    DELETE FROM act_at;
    DROP TABLE IF EXISTS v;
    CREATE TABLE v (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, k text);
    INSERT INTO v SELECT i, 0, i::text FROM generate_series(1, 100) i;
    CREATE UNIQUE INDEX ON v (k);
    ALTER TABLE v ALTER k SET NOT NULL;
    CREATE TRIGGER act AFTER UPDATE ON v FOR EACH ROW EXECUTE FUNCTION act();
END $$;
CREATE FUNCTION f(int, int) RETURNS void LANGUAGE plpgsql AS 'BEGIN UPDATE v SET n = n + 1 WHERE id BETWEEN $1 AND $2; END';
-- composed, by a check; the rows were behind when they came
CALL v();
SELECT bbm_update('m', 'v', 'n = n + 1', batch_size => 30, verify => true, row_check => 'n = 1') > 0 AS defined;
INSERT INTO act_at VALUES (50, 'pause');
CALL bbm_run('m');
UPDATE v SET n = 0 WHERE id IN (3, 7, 20);
CALL bbm_run('m');
CALL bbm_run('m');
SELECT n, count(*) FROM v GROUP BY n;
SELECT * FROM outcome();
SELECT * FROM jobs();
-- a statement and a function of the user's, row by row; another key; a filter
CALL v();
SELECT bbm_create('m', 'v', 'f', batch_size => 30, verify => true, row_check => 'n = 1') > 0 AS defined;
INSERT INTO act_at VALUES (50, 'pause');
CALL bbm_run('m');
UPDATE v SET n = 0 WHERE id IN (3, 7, 20);
CALL bbm_run('m');
CALL bbm_run('m');
SELECT n, count(*) FROM v GROUP BY n;
CALL v();
SELECT bbm_create('m', 'v', 'UPDATE v SET n = n + 1 WHERE k BETWEEN $1 AND $2', column_name => 'k', batch_size => 30, verify => true,
                  filter => 'n = 0') > 0 AS defined;
INSERT INTO act_at VALUES (50, 'pause');
CALL bbm_run('m');
UPDATE v SET n = 0 WHERE id IN (3, 7, 20);
CALL bbm_run('m');
CALL bbm_run('m');
SELECT n, count(*) FROM v GROUP BY n;
SELECT * FROM jobs();
-- with a row that cannot be done
CALL v();
CREATE FUNCTION not_7() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF old.id = 7 AND new.n > 0 THEN RAISE 'not this one'; END IF; RETURN new; END $$;
SELECT bbm_create('m', 'v', 'f', batch_size => 30, verify => true, row_check => 'n = 1', on_error => 'split', max_attempts => 1) > 0 AS defined;
INSERT INTO act_at VALUES (50, 'pause');
CALL bbm_run('m');
UPDATE v SET n = 0 WHERE id IN (3, 7, 20);
CREATE TRIGGER not_7 BEFORE UPDATE ON v FOR EACH ROW EXECUTE FUNCTION not_7();
CALL bbm_run('m');
CALL bbm_run('m');
SELECT n, count(*) FROM v GROUP BY n ORDER BY n;
SELECT min_value, max_value, error_message FROM bbm_migration_errors WHERE migration = 'm';
DROP TRIGGER not_7 ON v;
CALL bbm_run('m');
SELECT n, count(*) FROM v GROUP BY n;
SELECT * FROM outcome();

DROP EXTENSION bbm;
DROP TABLE act_at, c, d, e, sub, x, k, parent, child_1, child_2, v;
DROP FUNCTION act, outcome, jobs, seen, by_name, f, not_7;
DROP PROCEDURE c, move, d, decide, decide_key, v;
ALTER SYSTEM RESET bbm.enabled;
SELECT pg_reload_conf();
