--
-- How far a migration is, and how fast: percent, rate and ETA.
--

CREATE EXTENSION bbm;
\getenv abs_srcdir PG_ABS_SRCDIR
\getenv bbm_test BBM_TEST_MODULE
\set helper :abs_srcdir '/sql/wait_for.inc'
\i :helper
-- how busy the machine is is not what is tested here, and pauses are slow
ALTER SYSTEM SET bbm.min_pace = 1;
SELECT pg_reload_conf();
\c -

--
-- The rate is by the clock: a simulated one, which each step advances.
--
CREATE FUNCTION rate(kinds text[], seconds float8[], keys float8[], every float8, batch float8) RETURNS float8[]
    STRICT LANGUAGE c AS :'bbm_test', 'bbm_test_rate';
CREATE TABLE steps (scenario text, n int, kind text, seconds float8, keys float8);
-- batches of 2 ms with a pause of 60 ms after each, then without: another load
INSERT INTO steps SELECT 'paced', 2 * i, 'work', 0.002, 100 FROM generate_series(1, 4000) i
UNION ALL SELECT 'paced', 2 * i + 1, 'pace', 0.060, 0 FROM generate_series(1, 4000) i;
INSERT INTO steps SELECT 'claims', 2 * i, 'work', 0.05, 100 FROM generate_series(1, 3000) i
UNION ALL SELECT 'claims', 2 * i + 1, 'other', 0.05, 0 FROM generate_series(1, 3000) i;
INSERT INTO steps SELECT 'faster', n, kind, seconds, keys FROM steps WHERE scenario = 'paced'
UNION ALL SELECT 'faster', 20000 + i, 'work', 0.02, 1000 FROM generate_series(1, 12000) i;
-- bbm.max_row_rate = 5000, with batches of 10,000 rows in 50 ms
INSERT INTO steps SELECT 'row rate', 2 * i, 'work', 0.05, 10000 FROM generate_series(1, 300) i
UNION ALL SELECT 'row rate', 2 * i + 1, 'pace', 1.95, 0 FROM generate_series(1, 300) i;
-- throttled for ten minutes, and for a second again and again; paused for an hour
INSERT INTO steps SELECT 'throttled', i, 'work', 0.1, 100 FROM generate_series(1, 3000) i WHERE i <> 1500
UNION ALL SELECT 'throttled', 1500, 'throttle', 600, 0;
INSERT INTO steps SELECT 'now and then', i, CASE WHEN i % 20 = 0 THEN 'throttle' ELSE 'work' END, CASE WHEN i % 20 = 0 THEN 1 ELSE 0.1 END,
    CASE WHEN i % 20 = 0 THEN 0 ELSE 100 END FROM generate_series(1, 6000) i;
INSERT INTO steps SELECT 'paused', i, 'work', 0.1, 100 FROM generate_series(1, 3000) i WHERE i <> 1500
UNION ALL SELECT 'paused', 1500, 'pause', 3600, 0;
-- the server is restarted after every seven seconds of work, for twelve
INSERT INTO steps SELECT 'restarted', i, CASE WHEN i % 71 = 0 THEN 'restart' ELSE 'work' END, CASE WHEN i % 71 = 0 THEN 12 ELSE 0.1 END,
    CASE WHEN i % 71 = 0 THEN 0 ELSE 100 END FROM generate_series(1, 6000) i;
-- few and long batches
INSERT INTO steps SELECT 'long batches', i, 'work', 40, 100000 FROM generate_series(1, 60) i;
-- several steps a batch, and one that has been running for a while
INSERT INTO steps SELECT 'in a batch', 2 * i, 'other', 4, 0 FROM generate_series(1, 100) i
UNION ALL SELECT 'in a batch', 2 * i + 1, 'work', 4, 1000 FROM generate_series(1, 100) i;
-- the time that the rate predicts, and the time that it then takes without what is left out; where the load changes, a minute later
SET enable_nestloop = off;
WITH numbered AS (
    SELECT *, row_number() OVER (PARTITION BY scenario ORDER BY n) AS i,
           CASE WHEN kind IN ('throttle', 'pause', 'restart') THEN 0 ELSE seconds END AS counts FROM steps),
run AS (
    SELECT scenario, rate(array_agg(kind ORDER BY n), array_agg(seconds ORDER BY n), array_agg(keys ORDER BY n), 5, max(keys)) AS rates,
           sum(keys) AS keys, sum(counts) AS seconds
    FROM numbered GROUP BY scenario),
predicted AS (
    SELECT scenario, u.i, u.rate FROM run, unnest(rates) WITH ORDINALITY u (rate, i)),
happens AS (
    SELECT n.scenario, n.n, n.i, r.keys - sum(n.keys) OVER so_far AS keys, r.seconds - sum(n.counts) OVER so_far AS seconds,
           sum(n.counts) OVER (PARTITION BY n.scenario, n.n >= 20000 ORDER BY n.n) AS elapsed
    FROM numbered n JOIN run r USING (scenario) WINDOW so_far AS (PARTITION BY n.scenario ORDER BY n.n))
SELECT scenario, bool_and(abs(keys / nullif(rate, 0) / seconds - 1) <= 0.25) IS TRUE AS within_a_quarter, count(*) > 30 AS often
FROM predicted JOIN happens USING (scenario, i)
-- the first step is too little for an estimate, and the last batch is not a rate
WHERE seconds > 100 AND i > 2 AND (scenario <> 'faster' OR (n > 20000 AND elapsed > 75))
GROUP BY scenario ORDER BY scenario;
RESET enable_nestloop;
DROP TABLE steps;

--
-- Percent, by what is known: done, allocated, the estimate, first, last and the last allocated key
--
CREATE FUNCTION percent(done float8, allocated float8, estimate float8, first float8, last float8, reached float8, complete boolean)
    RETURNS float8 LANGUAGE c AS :'bbm_test', 'bbm_test_percent';
SELECT what, round(percent(done, allocated, estimate, first, last, reached, complete)::numeric, 1) AS percent FROM (VALUES
    ('nothing yet', 0, 0, -1, 1, 100, 0, false),
    ('half of it', 50, 50, 100, 1, 100, 50, false),
    ('an estimate twice as high', 50, 50, 200, 1, 100, 50, false),
    ('twice as high, and not an integer', 50, 50, 200, NULL, NULL, NULL, false),
    ('lower than what is allocated', 50, 60, 10, NULL, NULL, NULL, false),
    ('with gaps', 50, 50, 100, 1, 1000000, 50, false),
    ('no estimate, by position', 30, 40, -1, 1, 100, 40, false),
    ('no estimate, and sparse', 3, 4, -1, 1, 100, 40, false),
    ('the table was empty then', 30, 40, 0, 1, 100, 40, false),
    ('nothing is known but the ranges', 30, 40, -1, NULL, NULL, NULL, false),
    ('all is allocated', 90, 100, 200, NULL, NULL, NULL, true),
    ('all ends of bigint', 1, 2, 4, -9223372036854775808, 9223372036854775807, 0, false)
    ) v (what, done, allocated, estimate, first, last, reached, complete);

--
-- Percent is within a tenth of the truth, before each batch, whatever the planner thinks of the table.
--
CREATE TABLE log (name text, n int GENERATED ALWAYS AS IDENTITY, percent numeric, truth numeric);
-- the truth is the share of the rows that the batches so far have changed or deleted
CREATE FUNCTION notes() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    truth numeric;
BEGIN
    EXECUTE format(CASE WHEN TG_OP = 'DELETE' THEN 'SELECT 1 - count(*) / 20000.0 FROM %I'
                        ELSE 'SELECT count(*) FILTER (WHERE done) / greatest(count(*), 1)::numeric FROM %I WHERE counts' END, TG_ARGV[0]) INTO truth;
    INSERT INTO log (name, percent, truth) SELECT name, percent, 100 * truth FROM bbm_status(TG_ARGV[0]);
    RETURN NULL;
END $$;
CREATE FUNCTION filled(name text, key text, type text DEFAULT 'bigint', n int DEFAULT 20000) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE %I (id %s PRIMARY KEY, a numeric, b text, c int, done boolean DEFAULT false, counts boolean DEFAULT true)
        WITH (autovacuum_enabled = off)', name, type);
    EXECUTE format('INSERT INTO %I SELECT %s, i %% 100, repeat(''x'', 40), i FROM generate_series(1, %s) i', name, key, n);
    EXECUTE format('CREATE TRIGGER notes BEFORE UPDATE OR DELETE ON %1$I FOR EACH STATEMENT EXECUTE FUNCTION notes(%1$L)', name);
END $$;
SELECT filled('never analyzed', 'i');
SELECT filled('just updated', 'i');
ANALYZE "just updated";
ALTER TABLE "just updated" DISABLE TRIGGER notes;
UPDATE "just updated" SET c = c + 1;
UPDATE "just updated" SET c = c + 1;
ALTER TABLE "just updated" ENABLE TRIGGER notes;
SELECT filled('a gap', 'CASE WHEN i <= 5000 THEN i ELSE 1000000000 + i END');
SELECT filled('sparse', 'i * 1000');
-- a float8 does not tell these apart
SELECT filled('first bigints', '-9223372036854775809 + i', n => 800);
SELECT filled('last bigints', '9223372036854775007 + i', n => 800);
SELECT filled('uuid key', 'md5(i::text)::uuid', 'uuid');
-- of these only some pages are read
SELECT filled('large', 'md5(i::text)::uuid', 'uuid', 100000);
SELECT filled('text key', $$'key ' || md5(i::text)$$, 'text');
SELECT filled('half of it', 'i');
UPDATE "half of it" SET counts = id <= 10000;
SELECT filled('text range', $$'key ' || lpad(i::text, 9, '0')$$, 'text');
UPDATE "text range" SET counts = id <= 'key 000005000';
SELECT filled('block ranges', 'i');
SELECT filled('deletes', 'i');
SELECT filled('uuid deletes', 'md5(i::text)::uuid', 'uuid');
SELECT filled('empty', 'i', n => 0);
-- one range, in many commits; and a job that does not say how many rows it has changed
SELECT filled('one claim', 'CASE WHEN i <= 5000 THEN i ELSE 1000000000 + i END');
SELECT filled('one text claim', $$'key ' || md5(i::text)$$, 'text');
CREATE FUNCTION silent(min text, max text) RETURNS void LANGUAGE sql AS 'UPDATE "one text claim" SET done = true WHERE id BETWEEN $1 AND $2';
CREATE TABLE partitioned (id bigint, a numeric, b text, c int, done boolean DEFAULT false, counts boolean DEFAULT true, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE partitioned_1 PARTITION OF partitioned FOR VALUES FROM (1) TO (1001) WITH (autovacuum_enabled = off);
CREATE TABLE partitioned_2 PARTITION OF partitioned FOR VALUES FROM (1001) TO (12001) WITH (autovacuum_enabled = off);
CREATE TABLE partitioned_3 PARTITION OF partitioned FOR VALUES FROM (12001) TO (100000) WITH (autovacuum_enabled = off);
INSERT INTO partitioned SELECT i, i % 100, repeat('x', 40), i FROM generate_series(1, 20000) i;
-- a statement names the root, where a trigger for statements would keep it from going partition by partition
CREATE TRIGGER notes AFTER UPDATE ON partitioned FOR EACH ROW WHEN (NEW.id % 500 = 0) EXECUTE FUNCTION notes('partitioned');
DELETE FROM log;
SELECT count(bbm_update(name, quote_ident(name), 'done = true', 'NOT done', batch_size => 997))
FROM unnest('{never analyzed,just updated,a gap,sparse,uuid key,text key,partitioned,empty}'::text[]) name;
SELECT bbm_update('large', 'large', 'done = true', 'NOT done', batch_size => 1999, allow_full_scan => true) > 0 AS made;
SELECT count(bbm_update(name, quote_ident(name), 'done = true', 'NOT done', batch_size => 23)) FROM unnest('{first bigints,last bigints}'::text[]) name;
SELECT bbm_update('one claim', '"one claim"', 'done = true', 'NOT done', batch_size => 20000, sub_batch_size => 997) > 0 AS made;
SELECT bbm_create('one text claim', '"one text claim"', 'silent', batch_size => 20000, sub_batch_size => 997) > 0 AS made;
SELECT bbm_update('half of it', '"half of it"', 'done = true', 'NOT done', batch_size => 499, max_value => 10000) > 0 AS made;
SELECT bbm_update('text range', '"text range"', 'done = true', 'NOT done', batch_size => 499, max_key => '{key 000005000}') > 0 AS made;
SELECT bbm_update('block ranges', '"block ranges"', 'done = true', 'NOT done', batch_size => 997, batching_strategy => 'BlockRangeBatchingStrategy') > 0 AS made;
SELECT bbm_delete('deletes', 'deletes', 'true', batch_size => 997) > 0 AS made, bbm_delete('uuid deletes', '"uuid deletes"', 'true', batch_size => 997) > 0 AS made;
SET client_min_messages = warning;
CALL bbm_run();
RESET client_min_messages;
SELECT name, status, percent,
       abs(estimated_total - CASE name WHEN 'empty' THEN 0 WHEN 'half of it' THEN 10000 WHEN 'text range' THEN 5000 WHEN 'large' THEN 100000 WHEN 'first bigints' THEN 800 WHEN 'last bigints' THEN 800 ELSE 20000 END)
       <= estimated_total / 10 AS estimate FROM bbm_status_detail() ORDER BY name;
SELECT name, count(*) >= 10 AS often, max(abs(percent - truth)) <= 10 AS right, coalesce(min(step), 0) >= -10 AS on, max(percent) > 80 AS ends
FROM (SELECT *, percent - max(percent) OVER (PARTITION BY name ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS step FROM log
      -- a round after the first has nothing to count
      WHERE truth < 100) l
GROUP BY name ORDER BY name;
SELECT count(bbm_drop(name)) FROM bbm_status();
SELECT format('DROP TABLE %I', relname) FROM pg_class
WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace AND relname !~ '^(batched|bbm)' ORDER BY relname COLLATE "C" \gexec
DROP FUNCTION notes, filled, silent;

--
-- The sums: whatever was summed up before, they are those of all jobs.
--
CREATE FUNCTION differs(name text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT format('%s: %s, and not %s', name, shown, true_ones) FROM (
        SELECT s.name, row(s.rows_done, s.jobs_finished, s.jobs_running, s.jobs_failed, s.requeued, s.last_progress_at)::text AS shown,
            (SELECT row(coalesce(sum(row_count), 0), coalesce(sum(merged_jobs) FILTER (WHERE j.status = 2), 0), count(*) FILTER (WHERE j.status = 4),
                        count(*) FILTER (WHERE j.status = 3), coalesce(sum(requeued), 0), max(j.finished_at) FILTER (WHERE j.status = 2))::text
             FROM batched_background_migration_jobs j WHERE j.batched_background_migration_id = m.id AND j.phase = 'work') AS true_ones
        FROM bbm_status_detail() s JOIN batched_background_migrations m USING (name) WHERE s.name = $1) d
    WHERE shown IS DISTINCT FROM true_ones
$$;
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 3000);
CREATE FUNCTION held(min int, max int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF $1 > 2000 THEN
        PERFORM pg_advisory_xact_lock_shared(4242);
    END IF;
    -- a range that fails at first
    IF EXISTS (SELECT 1 FROM t WHERE id = 3000 AND n = 0) THEN
        PERFORM 1 / (101 - id) FROM t WHERE id BETWEEN $1 AND $2;
    END IF;
    UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2 AND id <> 3000;
    RETURN $2 - $1 + 1;
END $$;
ALTER SYSTEM SET bbm.retry_delay = '1 h';
ALTER SYSTEM SET bbm.job_retention = 0;
SELECT pg_reload_conf();
SELECT pg_advisory_lock(4242);
SELECT bbm_create('sums', 't', 'held', batch_size => 2, workers => 2, start => true) > 0 AS created;
SELECT wait_for($$(SELECT jobs_running = 2 AND jobs_finished >= 999 AND jobs_failed = 1 FROM bbm_status_detail('sums'))$$);
SELECT * FROM differs('sums');
-- the failed job is known by its id, and hardly any other job is read one by one; old ones were merged
SELECT last_job > 500 AS summed, cardinality(open_jobs) BETWEEN 1 AND 3 AS open, jobs > 400 AS jobs, array_length(samples, 1) % 7 AS samples
FROM bbm_totals;
SELECT count(*) < 700 AS merged FROM batched_background_migration_jobs;
SELECT bbm_pause('sums', cancel => true, wait => true);
SELECT * FROM differs('sums');
-- what a user changes, and deletes
UPDATE batched_background_migration_jobs SET row_count = row_count + 10 WHERE min_value = 1;
SELECT count(*) FROM bbm_totals;
SELECT * FROM differs('sums');
UPDATE t SET n = 1 WHERE id = 3000;
SELECT pg_advisory_unlock(4242);
SELECT bbm_retry('sums');
SELECT bbm_start('sums');
SELECT bbm_wait('sums', '2 minutes');
SELECT * FROM differs('sums');
SELECT rows_done, status FROM bbm_status('sums');
-- in the midst of merging, and with as many workers as may be: the same
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();
DO $$
DECLARE wrong text;
BEGIN
    PERFORM bbm_create('while it runs', 't', 'held', batch_size => 3, workers => 2, start => true);
    COMMIT;
    LOOP
        SELECT d INTO wrong FROM differs('while it runs') d;
        IF wrong IS NOT NULL THEN
            RAISE EXCEPTION '%', wrong;
        END IF;
        COMMIT;
        EXIT WHEN (SELECT status = 'finished' FROM bbm_status('while it runs'));
    END LOOP;
END $$;
SELECT status, rows_done FROM bbm_status('while it runs');
SELECT bbm_drop('while it runs'), bbm_drop('sums');
SELECT count(*) FROM bbm_totals;

-- the range is extended: how much there is to do is estimated anew, while it runs as well
CREATE TABLE extended (id bigint PRIMARY KEY, k text UNIQUE NOT NULL, n int NOT NULL DEFAULT 0);
INSERT INTO extended SELECT i, lpad(i::text, 6, '0') FROM generate_series(1, 20000) i;
SELECT bbm_create('extended', 'extended', 'UPDATE extended SET n = n + 1 WHERE id BETWEEN $1 AND $2', max_value => 1000, batch_size => 10,
    settings => '{bbm.max_row_rate=20}', start => true) > 0 AS id;
SELECT bbm_create('extended text', 'extended', 'UPDATE extended SET n = n + 1 WHERE k BETWEEN $1 AND $2', column_name => 'k', max_key => '{001000}', batch_size => 10,
    settings => '{bbm.max_row_rate=20}', start => true) > 0 AS id;
SELECT wait_for($$(SELECT bool_and(rows_done > 0 AND estimated_total BETWEEN 800 AND 1200) FROM bbm_status_detail() WHERE name LIKE 'extended%')$$);
UPDATE batched_background_migrations SET max_value = 10000 WHERE name = 'extended';
SELECT wait_for($$(SELECT percent BETWEEN 0.1 AND 10 AND estimated_total IS DISTINCT FROM 1000 FROM bbm_status_detail('extended'))$$);
SELECT bbm_pause('extended text', wait => true);
UPDATE batched_background_migrations SET max_key = '{010000}' WHERE name = 'extended text';
SELECT bbm_start('extended text');
SELECT wait_for($$(SELECT estimated_total BETWEEN 9000 AND 11000 AND percent BETWEEN 0.1 AND 10 FROM bbm_status_detail('extended text'))$$);
SELECT bbm_drop('extended'), bbm_drop('extended text');
-- the hours in which it may not work are part of what is left: two of each day, and the rest of these today; the server's are, too
SET timezone = 'UTC';
CREATE TABLE slow (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO slow SELECT generate_series(1, 20000);
SELECT to_char(now() - interval '1 hour', 'HH24:MI') || '-' || to_char(now() + interval '1 hour', 'HH24:MI') || ' UTC' AS hours \gset
SELECT bbm_create(name, 'slow', 'UPDATE slow SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 1, share_table => true,
    finish_by => now() + interval '1 day', settings => settings || '{bbm.max_row_rate=1}', start => true) > 0 AS id
FROM (VALUES ('at any time', '{}'::text[]), ('at times', ARRAY['bbm.active_hours=' || :'hours']),
             ('all the time', '{bbm.active_hours=00:00-24:00 UTC}'), ('long', ARRAY['bbm.active_hours=' || to_char(now() - interval '1 hour', 'Dy ') || :'hours'])) v (name, settings);
-- 5.5 hours by the rate
SELECT wait_for($$(SELECT count(*) = 4 FROM bbm_status_detail() WHERE table_name = 'public.slow' AND
    eta BETWEEN (CASE name WHEN 'at times' THEN '47 h' WHEN 'long' THEN '14 d' ELSE '4 h' END)::interval
    AND (CASE name WHEN 'at times' THEN '74 h' WHEN 'long' THEN '22 d' ELSE '7 h' END)::interval)$$);
SELECT name, schedule FROM bbm_status_detail() WHERE table_name = 'public.slow' ORDER BY id;
ALTER SYSTEM SET bbm.active_hours = :'hours';
SELECT pg_reload_conf();
\c -
SELECT wait_for($$(SELECT eta BETWEEN '47 h' AND '74 h' FROM bbm_status('at any time'))$$);
ALTER SYSTEM RESET bbm.active_hours;
SELECT pg_reload_conf();
SELECT count(bbm_drop(name)) FROM bbm_status_detail() WHERE table_name = 'public.slow';
DROP TABLE slow;
-- rows that somebody deletes are not to be done any more; those that it has deleted itself are done
CREATE TABLE shrinks (id uuid PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO shrinks SELECT md5(i::text)::uuid FROM generate_series(1, 20000) i;
CREATE TABLE deleted (id bigint PRIMARY KEY);
INSERT INTO deleted SELECT generate_series(1, 20000);
SELECT bbm_create('shrinks', 'shrinks', 'UPDATE shrinks SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 10,
    settings => '{bbm.max_row_rate=200}', start => true) > 0 AS id;
SELECT bbm_create('deleted', 'deleted', 'DELETE FROM deleted WHERE id BETWEEN $1 AND $2', batch_size => 100, follow => true,
    settings => '{bbm.max_row_rate=400}', start => true) > 0 AS id;
SELECT wait_for($$(SELECT bool_and(rows_done > 0 AND estimated_total BETWEEN 19000 AND 21000) AND count(*) = 2 FROM bbm_status_detail() WHERE name IN ('shrinks', 'deleted'))$$);
DELETE FROM shrinks WHERE id >= '80000000-0000-0000-0000-000000000000';
INSERT INTO deleted SELECT generate_series(20001, 30000);
-- it follows, and rows arrive: these are part of what there is to do, before it has come to them, and before any job has ended
SELECT bbm_create('grows', 'extended', 'UPDATE extended SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 20000, sub_batch_size => 10,
    follow => true, settings => '{bbm.max_row_rate=200}', start => true) > 0 AS id;
SELECT wait_for($$(SELECT rows_done > 0 AND estimated_total BETWEEN 19000 AND 21000 FROM bbm_status_detail('grows'))$$);
INSERT INTO extended SELECT i, i::text FROM generate_series(100001, 120000) i;
SELECT wait_for($$(SELECT estimated_total BETWEEN 36000 AND 44000 FROM bbm_status_detail('grows'))$$);
SELECT jobs_finished FROM bbm_status_detail('grows');
SELECT wait_for($$(SELECT estimated_total BETWEEN 9000 AND 11000 FROM bbm_status_detail('shrinks'))$$);
-- when some thousand are deleted and some thousand are left: what is left, or what is done, alone is less than that
SELECT wait_for($$(SELECT estimated_total BETWEEN 28000 AND 32000 AND rows_done BETWEEN 5000 AND 22000 FROM bbm_status_detail('deleted'))$$);
SELECT bbm_drop('shrinks'), bbm_drop('deleted');
DROP TABLE shrinks, deleted;
-- a user's idea of it is not taken
UPDATE batched_background_migrations SET total_tuple_count = 7 WHERE name = 'grows';
SELECT total_tuple_count BETWEEN 36000 AND 44000 AS bbms FROM batched_background_migrations WHERE name = 'grows';
SELECT bbm_drop('grows');
DROP TABLE extended;
-- only bbm writes them
SET client_min_messages = warning;
CREATE ROLE regress_bbm_progress;
GRANT ALL ON bbm_totals TO regress_bbm_progress;
SET ROLE regress_bbm_progress;
INSERT INTO public.bbm_totals VALUES (1, 1, '{}', 1, 1, 1, 1, 1, 1, '{}', 1, false, 1, NULL, '{}');
SELECT * FROM bbm_internal.bbm_progress(1, 10, 1);
RESET ROLE;
DROP OWNED BY regress_bbm_progress;
DROP ROLE regress_bbm_progress;

DROP EXTENSION bbm;
DROP TABLE t;
DROP FUNCTION rate, percent, differs, held, wait_for;
ALTER SYSTEM RESET bbm.job_retention;
ALTER SYSTEM RESET bbm.min_pace;
SELECT pg_reload_conf();
