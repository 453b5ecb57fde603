-- What a process keeps while it works on a migration does not grow with the number of batches.  Nothing sleeps here.

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
ALTER SYSTEM SET bbm.min_pace = 1;
SELECT pg_reload_conf();
\c -
-- a run that takes long reports its progress
SET client_min_messages = warning;

-- what was in use when each batch ran; the first ones are allowed to add to it
CREATE TABLE memory (n int GENERATED ALWAYS AS IDENTITY, bytes bigint);
CREATE FUNCTION remember(VARIADIC names text[]) RETURNS void LANGUAGE sql AS
    'INSERT INTO memory (bytes) SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name = ANY (names)';
CREATE FUNCTION grows() RETURNS TABLE (batches bigint, grows boolean) LANGUAGE sql AS
    'SELECT count(*), max(bytes) > max(bytes) FILTER (WHERE n <= 200) FROM memory';

-- the cursor of a job of many commits, however long its keys
CREATE TABLE long_keys (word text PRIMARY KEY, done int NOT NULL DEFAULT 0);
INSERT INTO long_keys SELECT lpad(g::text, 1000, 'x') FROM generate_series(1, 400) g;
CREATE FUNCTION with_cursor(lo text, hi text) RETURNS void LANGUAGE sql AS $$
    SELECT remember('bbm job', 'bbm step', 'bbm commit', 'bbm engine');
    UPDATE long_keys SET done = done + 1 WHERE word BETWEEN lo AND hi;
$$;
SELECT bbm_create('long keys', 'long_keys', 'with_cursor', batch_size => 400, sub_batch_size => 1) > 0 AS defined;
CALL bbm_run('long keys');
SELECT * FROM grows();
SELECT done, count(*) FROM long_keys GROUP BY done;

-- a job that makes a table for each batch: which tables it has locked
TRUNCATE memory RESTART IDENTITY;
CREATE TABLE plain (id int PRIMARY KEY, done int NOT NULL DEFAULT 0);
INSERT INTO plain SELECT g FROM generate_series(1, 800) g;
CREATE FUNCTION with_table(lo int, hi int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM remember('bbm tables locked');
    CREATE TEMP TABLE todo (id int) ON COMMIT DROP;
    INSERT INTO todo SELECT id FROM plain WHERE id BETWEEN lo AND hi;
    UPDATE plain SET done = done + 1 FROM todo WHERE plain.id = todo.id;
END $$;
SELECT bbm_create('tables', 'plain', 'with_table', batch_size => 1) > 0 AS defined;
CALL bbm_run('tables');
SELECT * FROM grows();
SELECT done, count(*) FROM plain GROUP BY done;

-- many partitions, one after the other
TRUNCATE memory RESTART IDENTITY;
CREATE TABLE parted (id int PRIMARY KEY, done int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
DO $$
BEGIN
    FOR g IN 1 .. 300 LOOP
        EXECUTE format('CREATE TABLE parted_%s PARTITION OF parted FOR VALUES FROM (%s) TO (%s)', g, g, g + 1);
    END LOOP;
END $$;
INSERT INTO parted SELECT g FROM generate_series(1, 300) g;
CREATE FUNCTION by_partition(table_name text, column_name text, lo int, hi int, batch_size int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    PERFORM remember('bbm target', 'bbm partition');
    EXECUTE format('UPDATE %s SET done = done + 1 WHERE id BETWEEN $1 AND $2', table_name) USING lo, hi;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
SELECT bbm_create('parted', 'parted', 'by_partition', batch_size => 10) > 0 AS defined;
CALL bbm_run('parted');
SELECT * FROM grows();
SELECT done, count(*) FROM parted GROUP BY done;

-- a DO block that runs what there is to run, again and again: what each call leaves until the block ends
TRUNCATE memory RESTART IDENTITY;
DO $$
BEGIN
    FOR i IN 1 .. 300 LOOP
        CALL bbm_run();
        PERFORM remember('PortalContext', 'bbm_run');
    END LOOP;
END $$;
SELECT * FROM grows();

-- a definition that is refused, again and again: what is known of its table
TRUNCATE memory RESTART IDENTITY;
DO $$
BEGIN
    FOR i IN 1 .. 300 LOOP
        BEGIN
            PERFORM bbm_update('refused', 'long_keys', 'done = 1', min_key => '{b}', max_key => '{a}');
        EXCEPTION WHEN invalid_parameter_value THEN
            PERFORM remember('bbm target', 'bbm partition');
        END;
    END LOOP;
END $$;
SELECT * FROM grows();

ALTER SYSTEM RESET bbm.min_pace;
ALTER SYSTEM RESET bbm.enabled;
SELECT pg_reload_conf();
DROP EXTENSION bbm;
DROP FUNCTION with_cursor, with_table, by_partition, remember, grows;
DROP TABLE memory, long_keys, plain, parted;
