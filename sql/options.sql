--
-- The options of a migration: one list of them in C, and what the install
-- script says of each agrees with it and with itself.
--

CREATE EXTENSION bbm;
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/fails.inc'
\i :helper

-- a parameter that is an option has the type of the column, and its default (a NULL is one that bbm chooses)
CREATE VIEW parameters AS
SELECT p.proname AS function, a.name AS parameter, a.type,
       pg_get_function_arg_default(p.oid, a.n::int) AS default,
       CASE a.name WHEN 'job' THEN 'job_signature_name' WHEN 'set' THEN 'set_clause' ELSE a.name END AS column
FROM pg_proc p CROSS JOIN unnest(p.proargnames, p.proargtypes::oid[]) WITH ORDINALITY a (name, type, n)
WHERE p.proname IN ('bbm_create', 'bbm_update', 'bbm_delete', 'bbm_alter');
SELECT DISTINCT parameter, type::regtype AS is, c.atttypid::regtype AS column_is
FROM parameters p JOIN pg_attribute c ON c.attrelid = 'batched_background_migrations'::regclass AND c.attname = p.column
WHERE p.type <> c.atttypid ORDER BY 1;
SELECT function, parameter, "default", pg_get_expr(d.adbin, d.adrelid) AS column_default
FROM parameters p
JOIN pg_attribute c ON c.attrelid = 'batched_background_migrations'::regclass AND c.attname = p.column
LEFT JOIN pg_attrdef d ON d.adrelid = c.attrelid AND d.adnum = c.attnum
WHERE function <> 'bbm_alter' AND "default" IS NOT NULL AND "default" NOT LIKE 'NULL%'
  AND "default" IS DISTINCT FROM pg_get_expr(d.adbin, d.adrelid);
SELECT parameter FROM parameters WHERE function = 'bbm_alter' AND "default" NOT LIKE 'NULL%';
-- what the three that define have in common
SELECT parameter, string_agg(function, ', ' ORDER BY function) AS "only"
FROM parameters WHERE function <> 'bbm_alter' GROUP BY parameter HAVING count(*) < 3 ORDER BY 1;
-- parameters that are not columns
SELECT parameter, string_agg(function, ', ' ORDER BY function) AS functions
FROM parameters p
WHERE NOT EXISTS (SELECT 1 FROM pg_attribute c
                  WHERE c.attrelid = 'batched_background_migrations'::regclass AND c.attname = p.column)
GROUP BY parameter ORDER BY 1;

DROP VIEW parameters;

-- the error of a bad option does not show our statements: those with a context that is not the caller's
CREATE TABLE t (id int PRIMARY KEY, n int);
CREATE FUNCTION context_of(statement text) RETURNS TABLE (message text, context text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, context = PG_EXCEPTION_CONTEXT;
    context := replace(context, format('SQL statement "%s"', statement), '');
    RETURN NEXT;
END $$;
SELECT bbm_create('good', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2') > 0 AS defined;
CREATE TABLE tried AS
SELECT s.statement, c.* FROM (
    SELECT format('SELECT bbm_create(''bad'', ''t'', ''UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2'', %s)', o) AS statement
    FROM unnest(ARRAY['batch_size => 0', 'sub_batch_size => -1', 'workers => 0', 'max_attempts => 70000', 'min_batch_size => 0',
        'max_batch_size => 0', 'max_batch_wal => 0', 'target_duration => ''2 days''', 'on_error => ''x''', 'max_errors => 0',
        'verify => true', 'settings => ''{a}''', 'min_value => 9, max_value => 3', 'min_key => ''{1}''', 'index_name => ''x''',
        'column_name => ''x''', 'batching_strategy => ''x''', 'row_check => ''1 +''', 'filter => ''n = nope''']) o
    UNION ALL
    SELECT format('SELECT bbm_alter(''good'', %s)', o)
    FROM unnest(ARRAY['batch_size => 0', 'sub_batch_size => -1', 'workers => 0', 'max_attempts => 0', 'min_batch_size => 0',
        'max_batch_size => 0', 'max_batch_wal => 0', 'target_duration => ''2 days''', 'on_error => ''x''', 'max_errors => 0',
        'verify => true', 'settings => ''{a}''', 'max_value => -1', 'owner => ''nobody''', 'new_name => ''''', 'job => ''x''',
        'index_name => ''x''', 'follow => true, batch_size => 0']) o) s
LEFT JOIN LATERAL context_of(s.statement) c ON true;
SELECT count(*) AS tried, count(message) AS refused, count(*) FILTER (WHERE context ~ 'SQL statement') AS showing_ours FROM tried;
SELECT statement, context FROM tried WHERE message IS NULL OR context ~ 'SQL statement';

-- seconds, surely not meant
SELECT bbm_create('slow', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', target_duration => '100') > 0 AS defined;
SELECT bbm_alter('slow', target_duration => '250');
SELECT bbm_alter('slow', workers => 2);
SELECT bbm_alter('slow', target_duration => '2 s');
UPDATE batched_background_migrations SET target_duration = '1000' WHERE name = 'slow';
-- bytes
SELECT bbm_alter('slow', max_batch_wal => 16);
SELECT bbm_alter('slow', max_batch_wal => 16 * 1024 * 1024);
-- milliseconds and kilobytes, as surely; a unit, a large number, and one that turns it off are meant
SELECT bbm_alter('slow', settings => '{bbm.lock_timeout=5, bbm.max_wal_rate=10, bbm.max_row_rate=5, bbm.max_slot_wal=5}');
SELECT bbm_alter('slow', workers => 3);
SELECT bbm_alter('slow', settings => '{bbm.lock_timeout=5ms, "bbm.max_batch_time= 100", bbm.max_blocking_time=0, bbm.max_replication_lag=-1}');
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, settings)
VALUES ('inserted', 10, 5, 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', 'public.t', 'id', '{bbm.max_batch_time=10}');

-- the hint of a bad setting is about that setting, and of an unknown one names the nearest
SELECT s AS setting, e.detail, regexp_replace(e.hint, 'bbm.max_blocking_time.*and', '…') AS hint
FROM unnest(ARRAY['bbm.lock_timout=5s', 'lock_timeout=5s', 'bbm.maxbatchtime=1', 'work_mem=1GB', 'bbm.lock_timeout=5 parsecs',
                  'bbm.lock_timeout', 'bbm.wait_for_standbys=perhaps', 'bbm.condition=']) s
CROSS JOIN LATERAL fails(format('SELECT bbm_alter(%L, settings => ARRAY[%L])', 'slow', s)) e;
-- a syntax error is shown in what the user has written
SELECT bbm_alter('slow', settings => '{"bbm.condition=1 +"}');
SELECT bbm_alter('slow', settings => '{"bbm.condition=(SELECT true"}');
SELECT bbm_alter('slow', settings => '{"bbm.condition=SELECT ä FROM FROM"}');

-- a name that is nearly one
SELECT f AS function, e.hint
FROM unnest(ARRAY['start', 'resume', 'pause', 'cancel', 'retry', 'wait', 'ensure_finished', 'drop', 'alter', 'dry_run', 'verify']) f
CROSS JOIN LATERAL fails(format('SELECT bbm_%s(''goood'')', f)) e;
CALL bbm_run('god');
-- those that only read report it, and go on; a view has no name
SELECT count(*) FROM bbm_status('goood');
SELECT count(*) FROM bbm_status_detail('goood');
SELECT count(*) FROM bbm_jobs('goood');
SELECT count(*) FROM bbm_errors('goood');
SELECT count(*) FROM bbm_throttle('goood');
SELECT bbm_drop('goood', if_exists => true);
SELECT count(*) FROM bbm_status('good');
-- once, also when it is asked for in each row
SELECT count(*) FROM bbm_status() s, LATERAL bbm_jobs('goood') j;
SELECT left(name, 10) AS name, e.hint
FROM unnest(ARRAY['slwo', 'low', 'slowest', 'g', 'gxxd', '', repeat('slow', 500), 'Good']) name
CROSS JOIN LATERAL fails(format('SELECT bbm_start(%L)', name)) e;
-- of those that one may see
CREATE ROLE bbm_regress_stranger;
GRANT EXECUTE ON FUNCTION bbm_start TO bbm_regress_stranger;
SET ROLE bbm_regress_stranger;
SELECT bbm_start('goood');
SELECT count(*) FROM bbm_status('good');
RESET ROLE;
REVOKE ALL ON FUNCTION bbm_start FROM bbm_regress_stranger;
DROP ROLE bbm_regress_stranger;

-- what has no default, and what has one
SELECT message, hint FROM fails($$SELECT bbm_update(NULL, 't', 'n = 1')$$);
SELECT message, hint FROM fails($$SELECT bbm_delete('d', 't', NULL)$$);
SELECT message, hint FROM fails($$SELECT bbm_update('d', 't', 'n = 1', workers => NULL)$$);
SELECT message, hint FROM fails($$SELECT bbm_sync_trigger('t', NULL)$$);

-- priority: a number like others, and the order in which a session runs them
SELECT * FROM fails($$SELECT bbm_update('p', 't', 'n = 1', priority => 101)$$);
SELECT * FROM fails($$SELECT bbm_update('p', 't', 'n = 1', priority => 70000)$$);
SELECT * FROM fails($$SELECT bbm_update('p', 't', 'n = 1', priority => NULL)$$);
SELECT message FROM fails($$UPDATE batched_background_migrations SET priority = -101 WHERE name = 'slow'$$);
SELECT bbm_drop(name) FROM bbm_status();
SET client_min_messages = warning;
SELECT count(bbm_update(format('%s', p), 't', 'n = 1', priority => p)) AS defined FROM unnest(ARRAY[0, -100, 7, 100]) p;
SELECT bbm_update('altered', 't', 'n = 1') > 0 AS defined;
SELECT bbm_alter('altered', priority => 50);
CALL bbm_run();
RESET client_min_messages;
SELECT string_agg(name, ', ' ORDER BY id) AS in_this_order FROM bbm_events WHERE event = 'finished';

DROP TABLE tried, t;
DROP FUNCTION context_of, fails;
DROP EXTENSION bbm;
