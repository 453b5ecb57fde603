--
-- A migration whose first batches change no row: an event and a WARNING, once.
--

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
-- without pauses for busy CPUs
ALTER SYSTEM SET bbm.min_pace = 1;
SELECT pg_reload_conf();
\c -
CREATE TABLE t (id int PRIMARY KEY, n int);
INSERT INTO t SELECT i, 0 FROM generate_series(1, 300) i;
CREATE VIEW reported AS SELECT name, event, status, detail FROM bbm_events WHERE event = 'no_rows' ORDER BY id;

-- thirty jobs, none of which finds anything
SELECT bbm_create('none', 't', 'UPDATE t SET n = 1 WHERE n IS NULL AND id BETWEEN $1 AND $2', batch_size => 10) > 0 AS created;
CALL bbm_run('none');
SELECT * FROM reported;
-- fewer than ten
SELECT bbm_create('few', 't', 'UPDATE t SET n = 1 WHERE n IS NULL AND id BETWEEN $1 AND $2', batch_size => 10, max_value => 90) > 0 AS created;
CALL bbm_run('few');
-- the tenth finds a row, or one of the commits of the first
SELECT bbm_create('tenth', 't', 'UPDATE t SET n = 1 WHERE id = 95 AND id BETWEEN $1 AND $2', batch_size => 10) > 0 AS created;
CALL bbm_run('tenth');
SELECT bbm_create('parts', 't', 'UPDATE t SET n = 1 WHERE id = 3 AND id BETWEEN $1 AND $2', batch_size => 10, sub_batch_size => 5) > 0 AS created;
CALL bbm_run('parts');
-- the eleventh does
SELECT bbm_create('eleventh', 't', 'UPDATE t SET n = 1 WHERE id = 105 AND id BETWEEN $1 AND $2', batch_size => 10) > 0 AS created;
CALL bbm_run('eleventh');
SELECT * FROM reported;

-- a batch is a commit: one job of ten, and a table for which a few jobs are enough, as the size is adaptive
SELECT bbm_create('commits', 't', 'UPDATE t SET n = 1 WHERE n IS NULL AND id BETWEEN $1 AND $2', batch_size => 300, sub_batch_size => 30) > 0 AS created;
CALL bbm_run('commits');
SELECT detail FROM reported WHERE name = 'commits';
SELECT bbm_create('nine commits', 't', 'UPDATE t SET n = 1 WHERE n IS NULL AND id BETWEEN $1 AND $2', batch_size => 300, sub_batch_size => 34) > 0 AS created;
CALL bbm_run('nine commits');
SELECT bbm_create('adaptive', 't', 'UPDATE t SET n = 1 WHERE n IS NULL AND id BETWEEN $1 AND $2', max_batch_size => 10) > 0 AS created;
SET client_min_messages = warning;
CALL bbm_run('adaptive');
RESET client_min_messages;
SELECT count(*) FROM reported WHERE name = 'adaptive';

-- once, however often it is started
CREATE FUNCTION stops(lo int, hi int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF lo % 150 = 1 AND lo > 1 THEN
        UPDATE batched_background_migrations SET status = 0 WHERE name = 'stops';
    END IF;
    RETURN 0;
END $$;
SELECT bbm_create('stops', 't', 'stops', batch_size => 10) > 0 AS created;
CALL bbm_run('stops');
CALL bbm_run('stops');
SELECT count(*) FROM reported WHERE name = 'stops';
-- what had been done before it was paused counts
CREATE FUNCTION changes(lo int, hi int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF lo = 11 THEN
        UPDATE batched_background_migrations SET status = 0 WHERE name = 'changes';
    END IF;
    RETURN (lo < 20)::int;
END $$;
SELECT bbm_create('changes', 't', 'changes', batch_size => 10) > 0 AS created;
CALL bbm_run('changes');
CALL bbm_run('changes');
SELECT count(*) FROM reported WHERE name = 'changes';

DROP VIEW reported;
DROP EXTENSION bbm;
DROP TABLE t;
DROP FUNCTION stops, changes;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.min_pace;
SELECT pg_reload_conf();
