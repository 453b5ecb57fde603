-- bbm_dry_run: the next batches of a migration, for what they cost, and rolled back.

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
ALTER SYSTEM SET bbm.retry_delay = '1 ms';
SELECT pg_reload_conf();
\c -
\set VERBOSITY default
\set SHOW_CONTEXT always

CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, filled int);
INSERT INTO t SELECT generate_series(1, 1000);
VACUUM ANALYZE t;
-- what it shows that is the same each time
CREATE FUNCTION dry(name text, batches int DEFAULT 10, OUT jobs int, OUT keys bigint, OUT rows bigint, OUT size int, OUT complete bool,
                    OUT whole_keys bigint, OUT whole_rows bigint, OUT costs bool, OUT whole_costs_more bool) LANGUAGE sql AS
    'SELECT jobs, keys, rows, batch_size, complete, estimated_keys, estimated_rows, run_time > ''0'' AND wal_bytes > 0,
            estimated_time >= run_time AND estimated_wal >= wal_bytes FROM bbm_dry_run(name, batches)';
-- and of what it leaves nothing behind
CREATE VIEW left_behind AS
    SELECT (SELECT sum(n) FROM t) AS n, (SELECT count(*) FROM batched_background_migration_jobs) AS jobs,
           (SELECT string_agg(event, ', ' ORDER BY id) FROM bbm_events) AS events,
           (SELECT string_agg(m.status || ' ' || coalesce(max_key::text, '-') || ' ' || coalesce(total_tuple_count::text, '-'), ', ' ORDER BY m.id)
            FROM batched_background_migrations m) AS migrations,
           (SELECT count(*) FROM bbm_workers() WHERE kind = 'foreground') AS processes,
           (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype IN ('object', 'userlock', 'advisory')) AS locks;

SELECT bbm_create('m', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 100) AS id;
SELECT * FROM dry('m', 3);
SELECT * FROM left_behind;
-- again, and with the default of ten
VACUUM t;
SELECT * FROM dry('m');
-- all of it is no estimate
SELECT * FROM dry('m', 11);
SELECT * FROM left_behind;
-- statements before and after it in the same transaction stay
BEGIN;
INSERT INTO t VALUES (1001);
SELECT jobs, rows FROM bbm_dry_run('m', 100);
UPDATE t SET filled = 1 WHERE id = 1001;
COMMIT;
SELECT count(*), sum(n), sum(filled) FROM t;
DELETE FROM t WHERE id = 1001;
VACUUM t;

-- it goes on where the migration is
CREATE FUNCTION stops() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bbm_pause('m');
    RETURN NULL;
END $$;
CREATE TRIGGER stops AFTER UPDATE OF n ON t FOR EACH ROW WHEN (NEW.id = 350) EXECUTE FUNCTION stops();
CALL bbm_run('m');
SELECT status, rows_done FROM bbm_status('m');
DROP TRIGGER stops ON t;
VACUUM t;
SELECT * FROM dry('m', 2);
SELECT * FROM dry('m');
CALL bbm_run('m');
SELECT n, count(*) FROM t GROUP BY n;
VACUUM t;

-- what is not paused
SELECT bbm_dry_run('m');
SELECT bbm_create('started', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 100, start => true) > 0 AS created;
SELECT bbm_dry_run('started');
SELECT bbm_drop('started');

-- the error of a batch is that of the job, and says which; nothing of it is left
SELECT bbm_create('fails', 't', 'UPDATE t SET n = n / (id - 150) WHERE id BETWEEN $1 AND $2', batch_size => 100) > 0 AS created;
SELECT jobs FROM bbm_dry_run('fails', 1);
SELECT jobs FROM bbm_dry_run('fails', 2);
SELECT name, status, jobs_failed, last_error FROM bbm_status_detail('fails');
-- a dry run of a failed migration shows whether the correction works
CALL bbm_run('fails');
SELECT status FROM bbm_status('fails');
SELECT jobs FROM bbm_dry_run('fails', 1);
UPDATE t SET filled = 0;
SELECT bbm_alter('fails', job => 'UPDATE t SET n = n / (id - 1500) WHERE id BETWEEN $1 AND $2');
SELECT jobs, keys, rows, complete FROM bbm_dry_run('fails');
SELECT * FROM left_behind;
SELECT bbm_drop('fails');

-- deferred constraints are checked, too
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
INSERT INTO child SELECT generate_series(1, 10);
SELECT bbm_create('deferred', 'child', 'UPDATE child SET parent = id WHERE id BETWEEN $1 AND $2', batch_size => 5) > 0 AS created;
SELECT jobs FROM bbm_dry_run('deferred');
-- what the transaction had deferred before is still due at its commit
INSERT INTO parent SELECT generate_series(1, 10);
BEGIN;
INSERT INTO child VALUES (11, 11);
INSERT INTO parent VALUES (11);
SELECT jobs, rows, complete FROM bbm_dry_run('deferred');
DELETE FROM parent WHERE id = 11;
COMMIT;
SELECT count(*) FROM child;

-- every strategy, sub-batches, and sizes that follow the time
CREATE TABLE k (a int, b text, g int NOT NULL, n int NOT NULL DEFAULT 0, filled int);
ALTER TABLE k ALTER a SET NOT NULL, ALTER b SET NOT NULL;
CREATE UNIQUE INDEX ON k (a, b DESC);
INSERT INTO k SELECT i % 7, i, i / 10 FROM generate_series(1, 500) i;
CREATE INDEX ON k (g);
CREATE INDEX ON k (filled);
VACUUM ANALYZE k;
SET client_min_messages = warning;
SELECT bbm_update('composite', 'k', 'n = n + 1', column_name => 'a, b', batch_size => 50) > 0 AND
       bbm_update('loose', 'k', 'n = n + 1', column_name => 'g', batching_strategy => 'LooseIndexScanBatchingStrategy', batch_size => 5) > 0 AND
       bbm_update('nulls', 'k', 'filled = 1', column_name => 'filled', batching_strategy => 'NullKeySetBatchingStrategy', batch_size => 50) > 0 AND
       bbm_update('blocks', 'k', 'n = 1', 'n = 0', batching_strategy => 'BlockRangeBatchingStrategy', batch_size => 1000) > 0 AND
       bbm_delete('sub-batches', 'k', 'n = 0', column_name => 'a, b', batch_size => 50, sub_batch_size => 20) > 0 AND
       bbm_update('follows', 't', 'n = 0', 'n = 1', target_duration => '1 day') > 0 AS created;
SELECT * FROM dry('composite', 3);
VACUUM k;
SELECT * FROM dry('loose', 3);
VACUUM k;
SELECT * FROM dry('nulls', 3);
VACUUM k;
SELECT * FROM dry('sub-batches', 3);
SELECT jobs > 0 AS jobs, rows FROM bbm_dry_run('blocks', 100);
SELECT jobs, keys, batch_size FROM bbm_dry_run('follows', 3);
SELECT sum(n), count(filled), count(*) FROM k;
CREATE TABLE p (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (11);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (11) TO (101);
INSERT INTO p SELECT generate_series(1, 30);
SELECT bbm_update('parted', 'p', 'n = n + 1', batch_size => 8) > 0 AS created;
SELECT jobs, keys, rows, complete FROM bbm_dry_run('parted');
SELECT sum(n) FROM p;
CREATE TABLE nothing (id int PRIMARY KEY);
SELECT bbm_delete('empty', 'nothing', 'true') > 0 AS created;
SELECT jobs, keys, rows, complete, estimated_keys, estimated_rows FROM bbm_dry_run('empty');
SELECT status, count(*) FROM batched_background_migrations GROUP BY status ORDER BY status;

-- a job runs with the settings it will have, and what it sets ends with it
CREATE FUNCTION sets(lo int, hi int) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RAISE WARNING 'work_mem is %, lock_timeout %', current_setting('work_mem'), current_setting('lock_timeout');
    PERFORM set_config('work_mem', '99MB', false);
    PERFORM set_config('statement_timeout', '99s', false);
END $$;
\set SHOW_CONTEXT never
SET lock_timeout = '7s';
SELECT bbm_create('sets', 't', 'sets', batch_size => 500) > 0 AS created;
SELECT bbm_alter('sets', settings => ARRAY['bbm.lock_timeout=123ms']);
SELECT jobs FROM bbm_dry_run('sets', 2);
SHOW work_mem;
SHOW lock_timeout;
SHOW statement_timeout;
RESET lock_timeout;

-- bad input
SELECT bbm_dry_run('nope');
SELECT bbm_dry_run(NULL);
SELECT bbm_dry_run('sets', NULL);
SELECT bbm_dry_run('sets', 0);
SELECT bbm_dry_run('sets', -1);
BEGIN READ ONLY;
SELECT bbm_dry_run('sets');
ROLLBACK;
CREATE ROLE regress_bbm_dry LOGIN;
GRANT ALL ON t TO regress_bbm_dry;
SET ROLE regress_bbm_dry;
SELECT bbm_dry_run('sets');
RESET ROLE;
GRANT EXECUTE ON FUNCTION bbm_dry_run TO regress_bbm_dry;
SET ROLE regress_bbm_dry;
-- not the owner, and the owner only by SET ROLE
SELECT bbm_dry_run('sets');
RESET ROLE;
UPDATE batched_background_migrations SET owner = 'regress_bbm_dry' WHERE name = 'sets';
SET ROLE regress_bbm_dry;
SELECT bbm_dry_run('sets');
RESET ROLE;
-- a table that is gone
SELECT bbm_dry_run('empty', 1) IS NOT NULL AS there;
DROP TABLE nothing;
SELECT bbm_dry_run('empty', 1);

-- by a job
CREATE FUNCTION tries(lo int, hi int) RETURNS void LANGUAGE sql AS 'SELECT bbm_dry_run(''sets'', 1)';
SELECT bbm_create('tries', 't', 'tries', batch_size => 500) > 0 AS created;
SELECT bbm_dry_run('tries', 1);

DROP EXTENSION bbm CASCADE;
REVOKE ALL ON t FROM regress_bbm_dry;
DROP ROLE regress_bbm_dry;
DROP TABLE t, parent, child, k, p;
DROP FUNCTION dry, stops, sets, tries;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();
