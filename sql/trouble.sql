--
-- Transient errors, wherever they occur: each is tried again until it has
-- ended, and users see which error it is.
--

CREATE EXTENSION bbm;
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/wait_for.inc'
\i :helper
CREATE TABLE s (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO s SELECT generate_series(1, 40);
ANALYZE s;
-- the server's side: what raises an error while the gate is shut
CREATE TABLE gate (shut boolean NOT NULL);
INSERT INTO gate VALUES (true);
CREATE FUNCTION shut() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS 'SELECT shut FROM public.gate';
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF public.shut() THEN
        RAISE 'could not extend file: %', TG_ARGV[1] USING ERRCODE = TG_ARGV[0];
    END IF;
    RETURN NEW;
END $$;
SET client_min_messages = warning;

-- a claim
CREATE TRIGGER full_disk BEFORE INSERT ON batched_background_migration_jobs
    FOR EACH ROW EXECUTE FUNCTION full_disk('53100', 'No space left on device');
SELECT bbm_update('claim', 's', 'n = n + 1', batch_size => 10, start => true) > 0 AS created;
SELECT wait_for($$(SELECT waiting_on = '53100: could not extend file: No space left on device' FROM bbm_status_detail('claim'))$$);
SELECT name, status, jobs_finished, waiting_on, last_error FROM bbm_status_detail('claim');
-- all workers that try: a second one comes when one of an earlier migration has not exited yet
SELECT wait_for($$(SELECT count(DISTINCT waiting_on) = 1 AND max(waiting_on) = '53100: could not extend file: No space left on device'
                   FROM bbm_workers() WHERE migration = 'claim')$$);
-- also when nobody is at it
SELECT wait_for($$(SELECT count(*) = 0 FROM bbm_workers() WHERE kind = 'worker')$$);
SELECT wait_for($$(SELECT last_error = '53100: could not extend file: No space left on device' AND waiting_on = last_error
                   FROM bbm_status_detail('claim'))$$);
UPDATE gate SET shut = false;
SELECT bbm_wait('claim', '1 minute');
SELECT name, status, waiting_on, last_error FROM bbm_status_detail('claim');
SELECT attempts, requeued, error_sqlstate, count(*) FROM bbm_jobs('claim') GROUP BY 1, 2, 3;
DROP TRIGGER full_disk ON batched_background_migration_jobs;

-- the record of a batch that was requeued: it counts as no attempt
CREATE TRIGGER full_disk BEFORE UPDATE ON batched_background_migration_jobs
    FOR EACH ROW WHEN (NEW.status = 1) EXECUTE FUNCTION full_disk('58030', 'I/O error');
CREATE SEQUENCE calls;
CREATE FUNCTION once(min int, max int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('calls') = 1 THEN
        RAISE 'not now' USING ERRCODE = 'serialization_failure';
    END IF;
    UPDATE s SET n = n + 10 WHERE id BETWEEN $1 AND $2;
    RETURN $2 - $1 + 1;
END $$;
UPDATE gate SET shut = true;
SELECT bbm_create('record', 's', 'once', batch_size => 40, start => true) > 0 AS created;
SELECT wait_for($$(SELECT waiting_on = '58030: could not extend file: I/O error' AND last_error = waiting_on FROM bbm_status_detail('record'))$$);
UPDATE gate SET shut = false;
SELECT bbm_wait('record', '1 minute');
SELECT attempts, requeued, rows FROM bbm_jobs('record');
DROP TRIGGER full_disk ON batched_background_migration_jobs;

-- the end of one that has failed
CREATE TRIGGER full_disk BEFORE UPDATE ON batched_background_migrations
    FOR EACH ROW WHEN (NEW.status = 3) EXECUTE FUNCTION full_disk('54000', 'out of everything');
CREATE FUNCTION hopeless(min int, max int) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM 1 FROM nowhere; RETURN 0; END';
UPDATE gate SET shut = true;
SELECT bbm_create('fails', 's', 'hopeless', batch_size => 40, start => true) > 0 AS created;
SELECT wait_for($$(SELECT last_error = '54000: could not extend file: out of everything' FROM bbm_status_detail('fails'))$$);
UPDATE gate SET shut = false;
SELECT bbm_wait('fails', '1 minute');
SELECT name, status, last_error FROM bbm_status_detail('fails');
DROP TRIGGER full_disk ON batched_background_migrations;

-- batches: no range after the other is requeued for it, and none counts
CREATE FUNCTION disk(min int, max int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF shut() THEN
        RAISE 'could not write block' USING ERRCODE = 'disk_full';
    END IF;
    UPDATE s SET n = n + 100 WHERE id BETWEEN $1 AND $2;
    RETURN $2 - $1 + 1;
END $$;
UPDATE gate SET shut = true;
SELECT bbm_create('batch', 's', 'disk', batch_size => 1, start => true) > 0 AS created;
SELECT wait_for($$(SELECT requeued >= 2 AND waiting_on = '53100: could not write block' AND last_error = waiting_on FROM bbm_status_detail('batch'))$$);
SELECT count(*) < 10 AS few FROM bbm_jobs('batch');
UPDATE gate SET shut = false;
SELECT bbm_wait('batch', '1 minute');
SELECT rows_done, jobs_finished FROM bbm_status_detail('batch');
SELECT max(attempts) AS attempts FROM bbm_jobs('batch');

-- one that is somebody's lock: other ranges go on, and what is left says why it waits
CREATE FUNCTION busy(min int, max int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF $1 = 1 AND shut() THEN
        RAISE 'somebody has it' USING ERRCODE = 'lock_not_available';
    END IF;
    UPDATE s SET n = n + 1000 WHERE id BETWEEN $1 AND $2;
    RETURN $2 - $1 + 1;
END $$;
UPDATE gate SET shut = true;
SELECT bbm_create('lock', 's', 'busy', batch_size => 10, start => true) > 0 AS created;
SELECT wait_for($$(SELECT waiting_on = 'retry of a requeued job: 55P03: somebody has it' FROM bbm_status_detail('lock'))$$);
SELECT jobs_finished, last_error FROM bbm_status_detail('lock');
UPDATE gate SET shut = false;
SELECT bbm_wait('lock', '1 minute');

-- the delay of a requeued job begins anew with each sub-batch that is done
CREATE TABLE requeues (n serial, in_row int, delay interval);
CREATE FUNCTION note_requeue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.requeues (in_row, delay) VALUES (NEW.requeues_in_row, NEW.next_attempt_at - NEW.updated_at);
    RETURN NULL;
END $$;
CREATE TRIGGER note_requeue AFTER UPDATE ON batched_background_migration_jobs
    FOR EACH ROW WHEN (NEW.requeued > OLD.requeued) EXECUTE FUNCTION note_requeue();
ALTER SEQUENCE calls RESTART;
CREATE FUNCTION at_times(min int, max int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    -- four in a row, and another one after a sub-batch
    IF nextval('calls') IN (1, 2, 3, 4, 6) THEN
        RAISE 'somebody has it' USING ERRCODE = 'lock_not_available';
    END IF;
    UPDATE s SET n = n + 100000 WHERE id BETWEEN $1 AND $2;
    RETURN $2 - $1 + 1;
END $$;
SELECT bbm_create('delay', 's', 'at_times', batch_size => 40, sub_batch_size => 20) > 0 AS created;
CALL bbm_run('delay');
SELECT n, in_row, delay < '150 ms' AS short FROM requeues WHERE in_row = 1 ORDER BY n;
SELECT n, in_row FROM requeues WHERE in_row > 1 ORDER BY n;
SELECT rows, requeued, requeue_reasons FROM bbm_jobs('delay');
DROP TRIGGER note_requeue ON batched_background_migration_jobs;

-- a limit that does not go away by waiting: attempts, each of a smaller batch
CREATE FUNCTION sorts(min int, max int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF $2 - $1 >= 10 THEN
        RAISE 'temporary file size exceeds temp_file_limit (1kB)' USING ERRCODE = 'configuration_limit_exceeded';
    END IF;
    UPDATE s SET n = n + 10000 WHERE id BETWEEN $1 AND $2;
    RETURN $2 - $1 + 1;
END $$;
SELECT bbm_create('limit', 's', 'sorts', batch_size => 40, settings => '{bbm.retry_delay=1ms}', start => true) > 0 AS created;
SELECT bbm_wait('limit', '1 minute');
SELECT attempts, requeued, error_sqlstate, rows FROM bbm_jobs('limit');
-- and at last the migration fails with it
SELECT bbm_create('too large', 's', 'sorts', batch_size => 40, max_attempts => 2, settings => '{bbm.retry_delay=1ms}',
                  start => true) > 0 AS created;
SELECT bbm_wait('too large', '1 minute');
SELECT status, failure_error_code, error_sqlstate FROM batched_background_migrations WHERE name = 'too large';
SELECT n, count(*) FROM s GROUP BY n;

SELECT bbm_drop(name) FROM batched_background_migrations;
DROP EXTENSION bbm;
DROP TABLE s, gate, requeues;
DROP SEQUENCE calls;
DROP FUNCTION wait_for, shut, full_disk, once, hopeless, disk, busy, sorts, at_times, note_requeue;
