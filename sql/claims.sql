-- A claim that is worth several commits: what of it is committed, recorded and shown, and what becomes of it when one of
-- the commits fails.  Nothing sleeps here; a background worker's side of it is in test/t/039_claims.pl.

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
-- without pauses no run takes so long that it reports its progress
ALTER SYSTEM SET bbm.min_pace = 1;
ALTER SYSTEM SET bbm.retry_delay = '1 ms';
SELECT pg_reload_conf();
\c -
\set VERBOSITY terse
\set SHOW_CONTEXT never

CREATE TABLE t (id bigint PRIMARY KEY, v text NOT NULL, n int, done int NOT NULL DEFAULT 0);
INSERT INTO t SELECT i, i::text FROM generate_series(1, 1000) i;
VACUUM ANALYZE t;
-- what was committed at once; a row that is quarantined was in no commit
CREATE FUNCTION committed() RETURNS TABLE (first bigint, last bigint, rows bigint) LANGUAGE sql AS
    'SELECT min(id), max(id), count(*) FROM t WHERE done > 0 GROUP BY xmin::text ORDER BY 1';
CREATE FUNCTION jobs(name text) RETURNS TABLE (min_value bigint, max_value bigint, cursor_value bigint, status smallint, attempts smallint,
                                               key_count bigint, row_count bigint, batch_size int, requeued int, failures int) LANGUAGE sql AS
    'SELECT j.min_value, j.max_value, cursor_value, j.status, attempts, key_count, row_count, j.batch_size, requeued, failures
     FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = batched_background_migration_id
     WHERE m.name = $1 ORDER BY j.id';

CREATE FUNCTION errors(name text) RETURNS TABLE (min_value bigint, max_value bigint, min_key text[], max_key text[], error_sqlstate text) LANGUAGE sql AS
    'SELECT e.min_value, e.max_value, e.min_key, e.max_key, e.error_sqlstate FROM bbm_row_errors e
     JOIN batched_background_migrations m ON m.id = migration_id WHERE m.name = $1 ORDER BY 1, 3';

-- one job of ten commits, each of which moves the cursor, the rows and the percent
CREATE TABLE seen (lo bigint, hi bigint, percent numeric, rows_done bigint, cursor_value bigint);
CREATE FUNCTION watched(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
BEGIN
    INSERT INTO seen SELECT lo, hi, percent, rows_done, cursor_value FROM bbm_status('watched'), jobs('watched');
    UPDATE t SET done = done + 1 WHERE id BETWEEN lo AND hi;
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END $$;
SELECT bbm_create('watched', 't', 'watched', batch_size => 100, max_batch_size => 100, target_duration => '1 day') > 0 AS defined;
CALL bbm_run('watched');
SELECT * FROM seen ORDER BY lo;
SELECT * FROM jobs('watched');
SELECT * FROM committed();

-- batch_size without a target is exact: what a function gets, what is committed, and what a job is
UPDATE t SET done = 0;
TRUNCATE seen;
SELECT bbm_create('exact', 't', 'UPDATE t SET done = done + 1 WHERE id BETWEEN $1 AND $2', batch_size => 400) > 0 AS defined;
CALL bbm_run('exact');
SELECT * FROM jobs('exact');
SELECT * FROM committed();

-- a function with the registry's parameters gets the size of the commit
UPDATE t SET done = 0;
CREATE TABLE sizes (lo bigint, hi bigint, batch_size int);
CREATE FUNCTION sized(table_name text, column_name text, lo bigint, hi bigint, batch_size int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO sizes VALUES (lo, hi, batch_size);
    UPDATE t SET done = done + 1 WHERE id BETWEEN lo AND hi;
$$;
SELECT bbm_create('sized', 't', 'sized', batch_size => 200, max_batch_size => 400, target_duration => '1 day') > 0 AS defined;
CALL bbm_run('sized');
SELECT * FROM sizes ORDER BY lo;
SELECT count(*) FILTER (WHERE done = 1) AS once, count(*) FROM t;

-- several workers: the claim that would take what is left takes a part of it, but one commit at least
UPDATE t SET done = 0;
SELECT bbm_create('shared', 't', 'UPDATE t SET done = done + 1 WHERE id BETWEEN $1 AND $2', max_value => 900, batch_size => 100,
                  max_batch_size => 100, target_duration => '1 day', workers => 2) > 0 AS defined;
CALL bbm_run('shared');
SELECT min_value, max_value, key_count FROM jobs('shared');

-- a change of the migration takes effect at the next commit: the job is released, and goes on from its cursor
UPDATE t SET done = 0;
CREATE FUNCTION changes(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
BEGIN
    IF lo = 201 THEN
        PERFORM bbm_alter('changes', job => 'UPDATE t SET done = done + 1, n = -1 WHERE id BETWEEN $1 AND $2', batch_size => 50);
    END IF;
    UPDATE t SET done = done + 1 WHERE id BETWEEN lo AND hi;
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END $$;
SELECT bbm_create('changes', 't', 'changes', batch_size => 100, max_batch_size => 100, target_duration => '1 day') > 0 AS defined;
CALL bbm_run('changes');
SELECT * FROM jobs('changes');
SELECT n, min(id), max(id), count(*) FROM t WHERE done = 1 GROUP BY n ORDER BY 2;
SELECT rows, count(*) FROM committed() GROUP BY rows ORDER BY rows;

-- a commit fails for good: those before it are done, and the others wait for the job's next attempts
UPDATE t SET done = 0, n = NULL;
UPDATE t SET v = 'bad' WHERE id IN (350, 360, 777);
SELECT bbm_update('fails', 't', 'n = v::integer, done = done + 1', batch_size => 100, max_batch_size => 100, target_duration => '1 day', max_attempts => 2) > 0 AS defined;
CALL bbm_run('fails');
SELECT * FROM jobs('fails');
SELECT * FROM committed();
-- split: the rest of the job is bisected, commit by commit
SELECT bbm_alter('fails', on_error => 'split', max_attempts => 1);
SELECT bbm_retry('fails');
CALL bbm_run('fails');
SELECT * FROM jobs('fails');
SELECT min_value, max_value, error_sqlstate FROM errors('fails');
SELECT count(*) FILTER (WHERE done = 1 AND n = id) AS once, count(*) FILTER (WHERE done = 0) AS never, count(*) FROM t;

-- skip: a job is one commit, as a whole job is what is skipped
UPDATE t SET done = 0, n = NULL;
SELECT bbm_update('skips', 't', 'n = v::integer, done = done + 1', batch_size => 100, max_batch_size => 100, target_duration => '1 day', max_attempts => 1, on_error => 'skip') > 0 AS defined;
CALL bbm_run('skips');
SELECT min_value, max_value, error_sqlstate FROM errors('skips');
SELECT count(*) FILTER (WHERE done = 1) AS once, count(*) FILTER (WHERE done = 0) AS never, count(*) FROM t;
-- with a sub_batch_size it is what is left of it: what was committed before is not done again
UPDATE t SET done = 0, n = NULL;
SELECT bbm_update('skips rest', 't', 'n = v::integer, done = done + 1', batch_size => 500, sub_batch_size => 100, max_attempts => 1, on_error => 'skip') > 0 AS defined;
CALL bbm_run('skips rest');
SELECT min_value, max_value, error_sqlstate FROM errors('skips rest');
UPDATE t SET v = id::text WHERE v = 'bad';
SELECT bbm_retry('skips rest');
CALL bbm_run('skips rest');
SELECT count(*) FILTER (WHERE done = 1) AS once, count(*) FROM t;
-- the same with a key that has no next value
CREATE TABLE words (word text PRIMARY KEY, v text NOT NULL, done int NOT NULL DEFAULT 0);
INSERT INTO words SELECT 'w' || lpad(i::text, 3, '0'), CASE WHEN i = 77 THEN 'bad' ELSE '1' END FROM generate_series(1, 100) i;
SELECT bbm_update('skips words', 'words', 'done = done + v::integer', batch_size => 50, sub_batch_size => 10, max_attempts => 1, on_error => 'skip') > 0 AS defined;
CALL bbm_run('skips words');
SELECT min_key, max_key, error_sqlstate FROM errors('skips words');
UPDATE words SET v = '1';
SELECT bbm_retry('skips words');
CALL bbm_run('skips words');
SELECT done, count(*) FROM words GROUP BY done;

-- the record of a commit: a trigger that somebody has put on the jobs fires for it, too, and a full page is no obstacle
UPDATE t SET done = 0;
CREATE TABLE progress (job bigint, cursor_value bigint);
CREATE FUNCTION note_progress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.progress VALUES (NEW.id, NEW.cursor_value);
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER UPDATE OF cursor_value ON batched_background_migration_jobs FOR EACH ROW EXECUTE FUNCTION note_progress();
SELECT bbm_create('noted', 't', 'UPDATE t SET done = done + 1 WHERE id BETWEEN $1 AND $2', batch_size => 250,
                  max_batch_size => 250, target_duration => '1 day') > 0 AS defined;
CALL bbm_run('noted');
SELECT cursor_value FROM progress ORDER BY 1;
SELECT * FROM jobs('noted');
DROP TRIGGER note ON batched_background_migration_jobs;
DROP FUNCTION note_progress;
-- ... and a constraint is checked
UPDATE t SET done = 0;
ALTER TABLE batched_background_migration_jobs ADD CONSTRAINT no_500 CHECK (cursor_value IS DISTINCT FROM 500);
SELECT bbm_create('checked', 't', 'UPDATE t SET done = done + 1 WHERE id BETWEEN $1 AND $2', batch_size => 250,
                  max_batch_size => 250, target_duration => '1 day', max_attempts => 1) > 0 AS defined;
\set VERBOSITY terse
CALL bbm_run('checked');
\set VERBOSITY default
SELECT status, error_sqlstate FROM batched_background_migrations WHERE name = 'checked';
SELECT done, count(*) FROM t GROUP BY done ORDER BY done;
ALTER TABLE batched_background_migration_jobs DROP CONSTRAINT no_500;
-- in one transaction no version of the job's row can be removed, so the row goes on to other pages, and needs new index
-- entries: by them its next commit finds it
CREATE FUNCTION keeps_versions(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN 1;
END $$;
SELECT bbm_create('many', 't', 'keeps_versions', batch_size => 1000, sub_batch_size => 1) > 0 AS defined;
SELECT rows FROM bbm_dry_run('many', 1);
CALL bbm_run('many');
SELECT cursor_value, row_count, batch_counts[11] FROM batched_background_migration_jobs j
    WHERE batched_background_migration_id = (SELECT id FROM batched_background_migrations WHERE name = 'many');

-- keys that come between the claim and their commit are done, once; a commit gets no more than sub_batch_size of them, but what it chooses itself may be exceeded
CREATE TABLE sparse (id bigint PRIMARY KEY, done int NOT NULL DEFAULT 0);
INSERT INTO sparse SELECT g * 10 FROM generate_series(1, 40) g;
CREATE TABLE commits (lo bigint, hi bigint, rows bigint);
CREATE FUNCTION fills_gaps(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    INSERT INTO sparse SELECT 300 + g FROM generate_series(1, 9) g ON CONFLICT DO NOTHING;
    UPDATE sparse SET done = done + 1 WHERE id BETWEEN lo AND hi;
    GET DIAGNOSTICS n = ROW_COUNT;
    INSERT INTO commits VALUES (lo, hi, n);
    RETURN n;
END $$;
SELECT bbm_create('exact gaps', 'sparse', 'fills_gaps', batch_size => 40, sub_batch_size => 5) > 0 AS defined;
CALL bbm_run('exact gaps');
SELECT max(rows) AS at_most, sum(rows) AS rows, (SELECT count(*) FROM sparse WHERE done <> 1) AS wrong FROM commits;
DELETE FROM sparse WHERE id % 10 <> 0;
UPDATE sparse SET done = 0;
TRUNCATE commits;
SELECT bbm_create('chosen', 'sparse', 'fills_gaps', batch_size => 5, min_batch_size => 5, max_batch_size => 5, target_duration => '1 day') > 0 AS defined;
CALL bbm_run('chosen');
SELECT lo, hi, rows FROM commits WHERE rows > 5 ORDER BY lo;
SELECT sum(rows) AS rows, (SELECT count(*) FROM sparse WHERE done <> 1) AS wrong FROM commits;
-- ... but not by any number of keys that come beyond those that the claim has seen
CREATE FUNCTION appends(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    INSERT INTO sparse SELECT 1000 + g FROM generate_series(1, 100) g ON CONFLICT DO NOTHING;
    UPDATE sparse SET done = done + 1 WHERE id BETWEEN lo AND hi;
    GET DIAGNOSTICS n = ROW_COUNT;
    INSERT INTO commits VALUES (lo, hi, n);
    RETURN n;
END $$;
DELETE FROM sparse WHERE id % 10 <> 0;
UPDATE sparse SET done = 0;
TRUNCATE commits;
SELECT bbm_create('appended', 'sparse', 'appends', max_value => 100000, batch_size => 5, min_batch_size => 5, max_batch_size => 5, target_duration => '1 day') > 0 AS defined;
CALL bbm_run('appended');
SELECT max(rows) AS at_most, sum(rows) AS rows, (SELECT count(*) FROM sparse WHERE done <> 1) AS wrong FROM commits;
-- where rows share a key, more may come with it: a commit gets no more than sub_batch_size of them, and those that have its last key
CREATE TABLE sharing (k int NOT NULL, done int NOT NULL DEFAULT 0);
CREATE INDEX ON sharing (k);
INSERT INTO sharing SELECT g FROM generate_series(1, 40) g;
CREATE FUNCTION shares_keys(lo int, hi int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    IF lo = 1 THEN
        INSERT INTO sharing SELECT 10 + g % 10 FROM generate_series(1, 50) g;
    END IF;
    UPDATE sharing SET done = done + 1 WHERE k BETWEEN lo AND hi;
    GET DIAGNOSTICS n = ROW_COUNT;
    INSERT INTO commits VALUES (lo, hi, n);
    RETURN n;
END $$;
TRUNCATE commits;
SELECT bbm_create('sharing', 'sharing', 'shares_keys', column_name => 'k', batch_size => 40, sub_batch_size => 5) > 0 AS defined;
CALL bbm_run('sharing');
SELECT max(rows) AS at_most, sum(rows) AS rows, (SELECT count(*) FROM sharing WHERE done <> 1) AS wrong FROM commits;
-- a commit of one key that the claim has seen
TRUNCATE commits;
UPDATE sharing SET done = 0;
CREATE FUNCTION notes(lo int, hi int) RETURNS void LANGUAGE sql AS
    'WITH done AS (UPDATE sharing SET done = done + 1 WHERE k BETWEEN lo AND hi RETURNING k) INSERT INTO commits SELECT lo, hi, count(*) FROM done';
SELECT bbm_create('one by one', 'sharing', 'notes', column_name => 'k', min_value => 21, batch_size => 1, min_batch_size => 1, max_batch_size => 1, target_duration => '1 day') > 0 AS defined;
CALL bbm_run('one by one');
SELECT count(*) AS commits, max(rows) AS at_most FROM commits;
SELECT bbm_drop(name) FROM bbm_status() WHERE name IN ('exact gaps', 'chosen', 'appended', 'sharing', 'one by one');
DROP FUNCTION fills_gaps, appends, shares_keys, notes;
DROP TABLE sparse, commits, sharing;

ALTER SYSTEM RESET bbm.min_pace;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();
DROP EXTENSION bbm;
DROP TABLE t, seen, sizes, words, progress;
DROP FUNCTION committed, jobs, errors, watched, sized, changes, keeps_versions;
