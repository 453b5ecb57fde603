-- A batch whose plan reads the whole of a large table is refused before it runs.
SET client_min_messages = warning;
CREATE EXTENSION bbm;
-- alone: no background worker, whose settings are others, takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
SELECT pg_reload_conf();
\c -
SET client_min_messages = warning;

CREATE TABLE large (id bigint PRIMARY KEY, code integer, n integer NOT NULL DEFAULT 0, filler text);
ALTER TABLE large ALTER filler SET STORAGE PLAIN;
INSERT INTO large SELECT i, i, 0, repeat('x', 1600) FROM generate_series(1, 6000) i;
CREATE TABLE small (id bigint PRIMARY KEY, code integer, n integer NOT NULL DEFAULT 0);
INSERT INTO small SELECT i, i FROM generate_series(1, 6000) i;
ANALYZE large, small;

CREATE FUNCTION outcome(name text, OUT status text, OUT code smallint, OUT sqlstate text, OUT message text,
	OUT plan text, OUT hint text, OUT rows bigint)
LANGUAGE sql AS $$
	SELECT s.status, m.failure_error_code, m.error_sqlstate, m.error_message,
		   substring(m.error_detail FROM 'Seq Scan on \w+|Index (?:Only )?Scan using \w+ on \w+'), m.error_hint, s.rows_done
	FROM bbm_status_detail(outcome.name) s JOIN batched_background_migrations m USING (name)
$$;

-- no index for the condition: not a row is changed, and it is the job that is wrong
SELECT bbm_create('no index', 'large', 'UPDATE large SET n = n + 1 WHERE code BETWEEN $1 AND $2', batch_size => 100) > 0;
\set VERBOSITY terse
CALL bbm_run('no index');
\set VERBOSITY default
SELECT * FROM outcome('no index') \gx
SELECT regexp_replace(split_part(error_detail, E'\n', 1), '\s+', ' ') AS detail, error_detail ~ 'cost=' AS costs
FROM batched_background_migrations WHERE name = 'no index';
SELECT attempts, status FROM bbm_jobs('no index');
SELECT count(*) FROM large WHERE n <> 0;

-- allowed, it goes on where it was
SELECT bbm_alter('no index', allow_full_scan => true);
CALL bbm_run('no index');
SELECT status, rows_done FROM bbm_status('no index');
SELECT count(*) FROM large WHERE n = 1;

-- so it does with an index
SELECT bbm_create('index', 'large', 'UPDATE large SET n = n + 1 WHERE code BETWEEN $1 AND $2', batch_size => 500) > 0;
\set VERBOSITY terse
CALL bbm_run('index');
\set VERBOSITY default
CREATE INDEX large_code ON large (code);
CALL bbm_run('index');
SELECT status, rows_done FROM bbm_status('index');
SELECT count(*) FROM large WHERE n = 2;
DROP INDEX large_code;

-- the key's own index, a small table, a batch of much of the table: nobody minds
SELECT bbm_create('key', 'large', 'UPDATE large SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 500) > 0;
SELECT bbm_create('small', 'small', 'UPDATE small SET n = n + 1 WHERE code BETWEEN $1 AND $2', batch_size => 500) > 0;
SELECT bbm_create('much', 'large', 'UPDATE large SET n = n + 1 WHERE code BETWEEN $1 AND $2', batch_size => 3000) > 0;
CALL bbm_run('key');
CALL bbm_run('small');
CALL bbm_run('much');
SELECT name, status, rows_done FROM bbm_status() WHERE name IN ('key', 'small', 'much');
SELECT count(*) FROM large WHERE n = 4;

-- inside a function, in a statement of a trigger, from end to end of an index
CREATE FUNCTION in_function(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	done bigint;
BEGIN
	UPDATE large SET n = n + 1 WHERE code BETWEEN lo AND hi;
	GET DIAGNOSTICS done = ROW_COUNT;
	RETURN done;
END $$;
CREATE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM count(*) FROM large WHERE code = NEW.code;
	RETURN NULL;
END $$;
CREATE TRIGGER counts AFTER UPDATE OF filler ON large FOR EACH ROW EXECUTE FUNCTION counts();
SELECT bbm_create('in function', 'large', 'in_function', batch_size => 100) > 0;
SELECT bbm_create('in trigger', 'large', 'UPDATE large SET filler = filler WHERE id BETWEEN $1 AND $2', batch_size => 100) > 0;
SELECT bbm_create('whole index', 'large',
	'WITH first AS (SELECT array_agg(id ORDER BY id) AS ids FROM large) UPDATE large SET n = 0 FROM first WHERE id BETWEEN $1 AND $2 AND id = ids[$1]',
	batch_size => 100) > 0;
\set VERBOSITY terse
CALL bbm_run('in function');
CALL bbm_run('in trigger');
SET enable_seqscan = off;
CALL bbm_run('whole index');
RESET enable_seqscan;
\set VERBOSITY default
SELECT name, (outcome(name)).* FROM (VALUES ('in function'), ('in trigger'), ('whole index')) v (name) \gx

-- below a LIMIT a scan stops, and a partial index has only what is left
ALTER TABLE large ADD COLUMN done boolean;
CREATE INDEX large_left ON large (id) WHERE done IS NULL;
SELECT bbm_create('limit', 'large', 'UPDATE large SET done = true WHERE id IN (SELECT id FROM large WHERE (done IS NULL) IS TRUE LIMIT 500)',
	column_name => 'done', batching_strategy => 'NullKeySetBatchingStrategy', batch_size => 500) > 0;
CALL bbm_run('limit');
SELECT status, rows_done FROM bbm_status('limit');
UPDATE large SET done = NULL WHERE id % 100 = 0;
VACUUM ANALYZE large;
SELECT bbm_create('left', 'large', 'WITH l AS MATERIALIZED (SELECT id FROM large WHERE done IS NULL) UPDATE large SET done = true FROM l WHERE large.id = l.id',
	column_name => 'done', batching_strategy => 'NullKeySetBatchingStrategy', batch_size => 60) > 0;
CALL bbm_run('left');
SELECT status, rows_done FROM bbm_status('left');

-- no plan is from when the table was small: it is made for each range
CREATE TABLE grows (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0, filler text);
ALTER TABLE grows ALTER filler SET STORAGE PLAIN;
INSERT INTO grows SELECT i, 0, 'x' FROM generate_series(1, 200) i;
ANALYZE grows;
SELECT bbm_create('grows', 'grows',
	$$WITH more AS (INSERT INTO grows SELECT i, 0, repeat('x', 1600) FROM generate_series(1001, 7000) i WHERE $1 = 101)
	UPDATE grows SET n = n + 1 WHERE id BETWEEN $1 AND $2$$, batch_size => 10) > 0;
CALL bbm_run('grows');
SELECT status, requeue_reasons FROM bbm_status_detail('grows');
SELECT max(attempts) FROM bbm_jobs('grows');
SELECT count(*) FROM grows WHERE n = 1;
-- ... or, if it is one scan between two bounds, the same for all, for as long as it is: here random reads become so
-- expensive that the plan for half a percent of the table reads all of it, and the plan for ten rows does not
TRUNCATE grows;
INSERT INTO grows SELECT i, 0, repeat('x', 1600) FROM generate_series(1, 6000) i ORDER BY md5(i::text);
ANALYZE grows;
CREATE FUNCTION get_expensive() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	ALTER TABLESPACE pg_default SET (random_page_cost = 80);
	ANALYZE grows;
	RETURN NULL;
END $$;
CREATE TRIGGER get_expensive AFTER UPDATE ON grows FOR EACH ROW WHEN (NEW.id = 100) EXECUTE FUNCTION get_expensive();
SELECT bbm_create('same', 'grows', 'UPDATE grows SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 10,
	max_value => 300) > 0;
SET enable_bitmapscan = off;
PREPARE half_a_percent(bigint, bigint) AS UPDATE grows SET n = n + 1 WHERE id BETWEEN $1 AND $2;
SET plan_cache_mode = force_generic_plan;
EXPLAIN (COSTS OFF) EXECUTE half_a_percent(1, 10);
RESET plan_cache_mode;
CALL bbm_run('same');
SET plan_cache_mode = force_generic_plan;
EXPLAIN (COSTS OFF) EXECUTE half_a_percent(1, 10);
RESET plan_cache_mode;
RESET enable_bitmapscan;
ALTER TABLESPACE pg_default RESET (random_page_cost);
SELECT status, requeue_reasons FROM bbm_status_detail('same');
SELECT count(*) FROM grows WHERE n = 1;
DEALLOCATE half_a_percent;
DROP TRIGGER get_expensive ON grows;

-- one that a function keeps is refused, once, until ANALYZE voids it
TRUNCATE grows;
INSERT INTO grows SELECT i, 0, 'x' FROM generate_series(1, 200) i;
ANALYZE grows;
CREATE FUNCTION keeps_plan(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF lo = 101 AND NOT EXISTS (SELECT FROM grows WHERE id = 1001) THEN
		INSERT INTO grows SELECT i, 0, repeat('x', 1600) FROM generate_series(1001, 7000) i;
	END IF;
	UPDATE grows SET n = n + 1 WHERE id BETWEEN lo AND hi;
END $$;
SELECT bbm_create('kept', 'grows', 'keeps_plan', batch_size => 10) > 0;
\set VERBOSITY terse
CALL bbm_run('kept');
\set VERBOSITY default
SELECT status, requeue_reasons FROM bbm_status_detail('kept');
SELECT attempts, min_value FROM bbm_jobs('kept') WHERE status = 'failed';
ANALYZE grows;
CALL bbm_run('kept');
SELECT status FROM bbm_status('kept');
SELECT count(*) FROM grows WHERE n = 1;
-- beyond a batch nothing is guarded
SET enable_indexscan = off;
SET enable_bitmapscan = off;
SELECT count(*) FROM large WHERE code = 7;

-- a rule leaves no plan to check: nothing of the statement, a command without a plan, or another statement
CREATE TABLE ruled (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO ruled SELECT generate_series(1, 20);
SELECT bbm_update(name, 'ruled', 'n = n + 1', batch_size => 10) > 0 FROM unnest(ARRAY['nothing', 'notify', 'deletes']) name;
CREATE RULE instead AS ON UPDATE TO ruled DO INSTEAD NOTHING;
SELECT operation, after FROM bbm_preview('nothing') WHERE operation = 'plan';
CALL bbm_run('nothing');
CREATE OR REPLACE RULE instead AS ON UPDATE TO ruled DO INSTEAD NOTIFY nobody;
CALL bbm_run('notify');
SELECT n, count(*) FROM ruled GROUP BY n;
CREATE OR REPLACE RULE instead AS ON UPDATE TO ruled DO INSTEAD DELETE FROM ruled WHERE id = old.id AND id % 2 = 0;
CALL bbm_run('deletes');
SELECT n, count(*) FROM ruled GROUP BY n;
SELECT status, rows_done FROM bbm_status() WHERE name IN ('nothing', 'notify', 'deletes');

-- a statement is checked before there is a range: no function of it is called for a bound that is NULL
CREATE TABLE days (id bigint, day integer, n integer NOT NULL DEFAULT 0, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (10);
CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM (10) TO (20);
INSERT INTO days SELECT i, i % 20 FROM generate_series(1, 40) i;
CREATE FUNCTION day_of(id bigint) RETURNS integer LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF id IS NULL THEN RAISE 'no id'; END IF;
	RETURN 0;
END $$;
SELECT bbm_create('partitions of a day', 'days', $$UPDATE days SET n = n + 1 WHERE id >= $1 AND id <= $3 AND day >= day_of($1)
	AND (id, day) >= ($1, $2) AND (id, day) <= ($3, $4)$$, column_name => 'id, day', batch_size => 15) > 0;
SELECT bbm_create('from a day', 'small', $$UPDATE small SET n = -d.n FROM (SELECT * FROM days WHERE day >= day_of($1) LIMIT 50) d
	WHERE small.id BETWEEN $1 AND $2 AND d.id = small.id$$, max_value => 40, batch_size => 15) > 0;
CALL bbm_run('partitions of a day');
CALL bbm_run('from a day');
SELECT name, status, rows_done FROM bbm_status() WHERE name LIKE '% a day' ORDER BY name;
SELECT min(n), max(n), (SELECT count(*) FROM small WHERE n = -1) AS small FROM days;

-- NULL is no answer
SELECT bbm_create('null', 'large', 'in_function', allow_full_scan => NULL);

SELECT bbm_drop(name) FROM bbm_status();
DROP TABLE large, small, grows, ruled, days;
DROP FUNCTION outcome, in_function, counts, get_expensive, keeps_plan, day_of;
DROP EXTENSION bbm;
ALTER SYSTEM RESET bbm.enabled;
SELECT pg_reload_conf();
