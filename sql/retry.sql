-- What is tried again, and what is worked on once: after errors, verification, and changes of partitions and bounds.

CREATE EXTENSION bbm;
ALTER SYSTEM SET bbm.enabled = off;
ALTER SYSTEM SET bbm.min_pace = 1;
ALTER SYSTEM SET bbm.retry_delay = '1 ms';
SELECT pg_reload_conf();
\c -
\set VERBOSITY terse
\set SHOW_CONTEXT never
CREATE VIEW quarantined AS
    SELECT m.name, e.min_value, e.max_value, e.min_key, e.max_key
    FROM batched_background_migrations m JOIN bbm_migration_errors e ON e.migration = m.name ORDER BY m.id, e.min_value, e.min_key;

-- of keys with gaps, the key of the row alone is quarantined
CREATE TABLE gaps (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0, v text);
INSERT INTO gaps SELECT i * 10, 0, CASE WHEN i IN (3, 20) THEN 'bad' ELSE i::text END FROM generate_series(1, 20) i;
CREATE TABLE words (w text PRIMARY KEY, n integer NOT NULL DEFAULT 0, v text);
INSERT INTO words SELECT chr(96 + id / 10), 0, v FROM gaps;
SELECT bbm_update('gaps', 'gaps', 'n = n + 1 + 0 * v::integer', row_check => 'n > 0', verify => true, batch_size => 10, max_attempts => 1, on_error => 'split') > 0 AS created;
SELECT bbm_update('words', 'words', 'n = n + 1 + 0 * v::integer', row_check => 'n > 0', verify => true, batch_size => 10, max_attempts => 1, on_error => 'split') > 0 AS created;
CALL bbm_run('gaps');
CALL bbm_run('words');
SELECT * FROM quarantined;
-- verification has found these rows, and what does them ends the quarantine
UPDATE gaps SET v = id WHERE id = 30;
UPDATE words SET v = 1 WHERE w = 'c';
CALL bbm_run('gaps', resume_failed => true);
CALL bbm_run('words', resume_failed => true);
SELECT * FROM quarantined;
-- bbm_retry leaves to it what it does
UPDATE gaps SET v = id;
UPDATE words SET v = 1;
SELECT bbm_retry('gaps'), bbm_retry('words');
SELECT * FROM quarantined;
CALL bbm_run('gaps');
CALL bbm_run('words');
SELECT bbm_ensure_finished('gaps', 'words');
SELECT bbm_retry('gaps'), bbm_retry('words');
SELECT n, count(*) FROM gaps GROUP BY n;
SELECT n, count(*) FROM words GROUP BY n;
-- what it has not found stays quarantined, and is tried again
UPDATE gaps SET n = 0, v = CASE WHEN id IN (30, 40) THEN 'bad' ELSE id::text END;
SELECT bbm_update('partial', 'gaps', 'n = n + 1 + 0 * v::integer', row_check => 'n > 0 OR id = 30', verify => true, batch_size => 10, max_attempts => 1, on_error => 'split') > 0 AS created;
CALL bbm_run('partial');
UPDATE gaps SET v = id;
CALL bbm_run('partial', resume_failed => true);
SELECT min_value, max_value FROM quarantined WHERE name = 'partial';
SELECT bbm_retry('partial');
CALL bbm_run('partial');
SELECT n, count(*) FROM gaps GROUP BY n;

-- nothing comes after the last number that there is, and what is there is not found again
CREATE TABLE ends (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0, v text);
INSERT INTO ends VALUES (1, 0, '1'), (9223372036854775807, 0, 'bad');
CREATE FUNCTION add_to_ends(lo bigint, hi bigint) RETURNS void LANGUAGE sql AS
    'UPDATE ends SET n = n + 1 + 0 * v::integer WHERE id BETWEEN lo AND hi';
SELECT bbm_create('ends', 'ends', 'add_to_ends', row_check => 'n > 0', verify => true, batch_size => 10, max_attempts => 1, on_error => 'split', max_errors => 5) > 0 AS created;
CALL bbm_run('ends');
CALL bbm_run('ends', resume_failed => true);
SELECT min_value, max_value FROM quarantined WHERE name = 'ends';
UPDATE ends SET v = 1;
CALL bbm_run('ends', resume_failed => true);
SELECT n, count(*) FROM ends GROUP BY n;

-- of a range that verification has checked, a row that cannot be done is quarantined alone
CREATE FUNCTION add_one(lo integer, hi integer) RETURNS void LANGUAGE sql AS
    'UPDATE gaps SET n = n + 1 + 0 * v::integer WHERE id BETWEEN lo AND hi';
UPDATE gaps SET n = 0, v = id;
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id IN (40, 60) THEN
        NEW.n = 0;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER spoil BEFORE UPDATE ON gaps FOR EACH ROW EXECUTE FUNCTION spoil();
SELECT bbm_create('skip', 'gaps', 'add_one', row_check => 'n = 1', verify => true, batch_size => 10, max_attempts => 1, on_error => 'skip') > 0 AS created;
CALL bbm_run('skip');
DROP TRIGGER spoil ON gaps;
UPDATE gaps SET v = 'bad' WHERE id = 40;
CALL bbm_run('skip', resume_failed => true);
SELECT min_value, max_value FROM quarantined WHERE name = 'skip';
UPDATE gaps SET v = id;
SELECT bbm_retry('skip');
CALL bbm_run('skip');
SELECT n, count(*) FROM gaps GROUP BY n;

-- max_errors holds for ranges, too
UPDATE gaps SET n = 0, v = 'bad';
SELECT bbm_update('limited', 'gaps', 'n = n + 1 + 0 * v::integer', batch_size => 2, max_attempts => 1, on_error => 'skip', max_errors => 3) > 0 AS created;
\set VERBOSITY default
CALL bbm_run('limited');
\set VERBOSITY terse
SELECT count(*) FROM quarantined WHERE name = 'limited';
SELECT failure_error_code FROM batched_background_migrations WHERE name = 'limited';
UPDATE gaps SET v = id;
SELECT bbm_retry('limited');
CALL bbm_run('limited');
SELECT n, count(*) FROM gaps GROUP BY n;

-- a last key that is raised reopens partitions whose ranges have all been allocated
CREATE TABLE parted (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0, v text) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (100) TO (200);
INSERT INTO parted SELECT i, 0, CASE i WHEN 45 THEN 'bad' ELSE i::text END FROM generate_series(1, 199) i;
SELECT bbm_update('raised', 'parted', 'n = n + 1 + 0 * v::integer', min_value => 1, max_value => 50, batch_size => 10, max_attempts => 2) > 0 AS created;
CALL bbm_run('raised');
UPDATE parted SET v = id;
SELECT bbm_alter('raised', max_value => 150);
CALL bbm_run('raised', resume_failed => true);
SELECT n, min(id), max(id), count(*) FROM parted GROUP BY n ORDER BY n;

-- a partition that was away during verification goes on where it was
UPDATE parted SET n = 0, v = CASE id WHEN 25 THEN 'bad' ELSE id::text END;
SELECT bbm_update('away', 'parted', 'n = n + 1 + 0 * v::integer', row_check => 'n > 0 AND v <> ''wrong''', verify => true, batch_size => 10, max_attempts => 1) > 0 AS created;
CALL bbm_run('away');
ALTER TABLE parted DETACH PARTITION parted_1;
UPDATE parted_1 SET v = id;
CREATE FUNCTION spoil_150() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.v = 'wrong';
    RETURN NEW;
END $$;
CREATE TRIGGER spoil BEFORE UPDATE ON parted_2 FOR EACH ROW WHEN (OLD.id = 150) EXECUTE FUNCTION spoil_150();
CALL bbm_run('away', resume_failed => true);
DROP TRIGGER spoil ON parted_2;
ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES FROM (0) TO (100);
UPDATE parted SET v = id WHERE id = 150;
CALL bbm_run('away', resume_failed => true);
SELECT n, min(id), max(id), count(*) FROM parted GROUP BY n ORDER BY n;

-- a row of a partition that was detached stays quarantined
UPDATE parted SET n = 0, v = CASE WHEN id IN (25, 125) THEN 'bad' ELSE id::text END;
SELECT bbm_update('detached', 'parted', 'n = n + 1 + 0 * v::integer', batch_size => 10, max_attempts => 1, on_error => 'split') > 0 AS created;
CALL bbm_run('detached');
ALTER TABLE parted DETACH PARTITION parted_1;
UPDATE parted SET v = id;
SELECT bbm_retry('detached');
CALL bbm_run('detached');
SELECT relation, min_value, max_value, error_sqlstate, error_message, error_detail, error_hint FROM bbm_migration_errors WHERE migration = 'detached' \gx
ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES FROM (0) TO (100);
UPDATE parted SET v = id;
CALL bbm_run('detached');
SELECT bbm_retry('detached');
CALL bbm_run('detached');
SELECT n, count(*) FROM parted GROUP BY n;

-- what is quarantined after a check over all partitions is tried again in all of them
CREATE TABLE moving (id integer, r text, done boolean NOT NULL DEFAULT false, n integer, v text, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
CREATE TABLE moving_a PARTITION OF moving FOR VALUES IN ('a');
CREATE TABLE moving_b PARTITION OF moving FOR VALUES IN ('b');
INSERT INTO moving SELECT i, CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END, false, NULL, CASE i WHEN 31 THEN 'bad' ELSE i::text END FROM generate_series(1, 100) i;
SELECT bbm_update('moving', 'moving', 'done = true, n = v::integer', 'NOT done', column_name => 'id', batch_size => 10, max_attempts => 1) > 0 AS created;
CALL bbm_run('moving');
SELECT partition_order FROM batched_background_migrations WHERE name = 'moving';
INSERT INTO moving VALUES (5, 'a', false, NULL, 'bad');
UPDATE moving SET v = id WHERE id = 31;
SELECT bbm_alter('moving', on_error => 'split');
CALL bbm_run('moving', resume_failed => true);
SELECT min_value, max_value FROM quarantined WHERE name = 'moving';
UPDATE moving SET v = id;
SELECT bbm_retry('moving');
CALL bbm_run('moving');
SELECT j.kind, j.round, j.phase, j.row_count, j.status FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = batched_background_migration_id
WHERE name = 'moving' AND (j.phase = 'verify' OR kind <> 'range') ORDER BY j.id;
SELECT done, count(*) FROM moving GROUP BY done;

-- an error that says canceled, but is none of this session's, is tried again in a claim, too
CREATE TABLE canceled (id integer PRIMARY KEY, n integer);
CREATE INDEX ON canceled (n);
INSERT INTO canceled SELECT generate_series(1, 10);
CREATE SEQUENCE tries;
CREATE FUNCTION canceled_once() RETURNS boolean STABLE LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('tries') = 1 THEN
        RAISE query_canceled USING MESSAGE = 'canceling statement due to statement timeout';
    END IF;
    RETURN true;
END $$;
SELECT bbm_update('canceled', 'canceled', 'n = 1', 'canceled_once()', column_name => 'n', batching_strategy => 'NullKeySetBatchingStrategy', batch_size => 5) > 0 AS created;
SELECT setval('tries', 1, false);
CALL bbm_run('canceled');
SELECT n, count(*) FROM canceled GROUP BY n;

-- a job with as many attempts as there can be, from an import, is tried again
UPDATE gaps SET n = 0, v = 'bad' WHERE id = 10;
SELECT bbm_update('attempts', 'gaps', 'n = n + 1 + 0 * v::integer', max_value => 20, batch_size => 2, max_attempts => 1) > 0 AS created;
CALL bbm_run('attempts');
SELECT bbm_pause('attempts');
UPDATE batched_background_migration_jobs SET status = 1, attempts = 32767 WHERE status = 3;
UPDATE gaps SET n = 0, v = id WHERE id <= 20;
CALL bbm_run('attempts');
SELECT n, count(*) FROM gaps GROUP BY n;

-- without the condition by which verification has found rows none of them is to be done, and none is found
UPDATE gaps SET n = 0, v = id;
SELECT bbm_update('dropped', 'gaps', 'n = n + 1', row_check => 'n = 1 AND id <> 70', verify => true, batch_size => 10) > 0 AS created;
CALL bbm_run('dropped');
UPDATE batched_background_migrations SET verify = false, row_check = NULL WHERE name = 'dropped';
CALL bbm_run('dropped', resume_failed => true);
SELECT n, count(*) FROM gaps GROUP BY n;
UPDATE gaps SET n = 0;
CREATE FUNCTION pause() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE batched_background_migrations SET status = 0 WHERE name = 'dropped midway';
    RETURN true;
END $$;
CREATE FUNCTION pauses(id integer) RETURNS boolean STABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN id <> 20 OR pause();
END $$;
SELECT bbm_update('dropped midway', 'gaps', 'n = n + 1', row_check => 'pauses(id)', verify => true, batch_size => 10, max_attempts => 1) > 0 AS created;
CALL bbm_run('dropped midway');
SELECT phase, round FROM batched_background_migrations WHERE name = 'dropped midway';
UPDATE batched_background_migrations SET verify = false, row_check = NULL WHERE name = 'dropped midway';
CALL bbm_run('dropped midway');
SELECT phase, round FROM batched_background_migrations WHERE name = 'dropped midway';
SELECT n, count(*) FROM gaps GROUP BY n;

-- a job that was to be bisected fails when a user wants that
UPDATE gaps SET n = 0, v = CASE id WHEN 30 THEN 'bad' ELSE id::text END;
CREATE FUNCTION stop_at_100(lo integer, hi integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE gaps SET n = n + 1 + 0 * v::integer WHERE id BETWEEN lo AND hi;
    IF hi = 100 THEN
        UPDATE batched_background_migrations SET status = 0 WHERE name = 'decided';
    END IF;
END $$;
SELECT bbm_create('decided', 'gaps', 'stop_at_100', batch_size => 5, max_attempts => 1, on_error => 'split') > 0 AS created;
CALL bbm_run('decided');
SELECT bbm_alter('decided', on_error => 'fail');
CALL bbm_run('decided');
SELECT count(*) FROM quarantined WHERE name = 'decided';

SELECT bbm_drop(name) FROM batched_background_migrations ORDER BY id;
DROP VIEW quarantined;
DROP EXTENSION bbm;
DROP TABLE gaps, words, parted, moving, canceled, ends;
DROP SEQUENCE tries;
DROP FUNCTION add_one, add_to_ends, spoil, spoil_150, canceled_once, pause, pauses, stop_at_100;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.min_pace;
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();
