--
-- Whatever ALTER ROLE or ALTER DATABASE has set for a migration's owner: each row is done once, and recorded.
--

-- what CREATE EXTENSION makes is the same, too
CREATE ACCESS METHOD regress_bbm_am TYPE TABLE HANDLER heap_tableam_handler;
SET default_table_access_method = regress_bbm_am;
DO $$ BEGIN SET standard_conforming_strings = off; EXCEPTION WHEN OTHERS THEN NULL; END $$;
DO $$ BEGIN SET escape_string_warning = on; EXCEPTION WHEN OTHERS THEN NULL; END $$;
CREATE EXTENSION bbm;
RESET ALL;
SELECT c.oid::regclass FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE amname = 'regress_bbm_am';
DROP ACCESS METHOD regress_bbm_am;
SELECT bbm_internal.bbm_error_kind('22P02', 'key 17 of 2024-01-02 and 6a204bd8-9f3f-4a3e-9c53-2d1ccd2a7c2a');
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/fails.inc'
\i :helper
\set helper :abs_srcdir '/sql/wait_for.inc'
\i :helper
SELECT current_user AS admin, current_database() AS db \gset
SET client_min_messages = warning;
CREATE ROLE regress_bbm_set LOGIN;
GRANT EXECUTE ON FUNCTION bbm_create, bbm_update, bbm_delete, bbm_alter, bbm_start TO regress_bbm_set;
GRANT EXECUTE ON PROCEDURE bbm_run TO regress_bbm_set;
GRANT SELECT, INSERT ON batched_background_migrations TO regress_bbm_set;
CREATE SCHEMA regress_bbm_set AUTHORIZATION regress_bbm_set;
CREATE TABLE regress_bbm_set.t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO regress_bbm_set.t SELECT generate_series(1, 100);
ALTER TABLE regress_bbm_set.t OWNER TO regress_bbm_set;

-- all at once, in workers that begin with them
CREATE TABLE tried (setting text, value text, round int);
INSERT INTO tried SELECT setting, value, row_number() OVER (PARTITION BY setting) FROM (VALUES
    ('session_replication_role', 'replica'), ('session_replication_role', 'local'), ('exit_on_error', 'on'),
    ('statement_timeout', '1ms'), ('lock_timeout', '1ms'), ('idle_in_transaction_session_timeout', '1ms'), ('transaction_timeout', '1ms'),
    ('default_transaction_isolation', 'serializable'), ('default_transaction_read_only', 'on'), ('default_transaction_deferrable', 'on'),
    ('row_security', 'off'), ('jit', 'on'), ('jit_above_cost', '0'), ('enable_indexscan', 'off'), ('plan_cache_mode', 'force_generic_plan'),
    ('plan_cache_mode', 'force_custom_plan'), ('search_path', 'nowhere'), ('role', 'pg_monitor'), ('synchronous_commit', 'on'),
    ('client_min_messages', 'debug1'), ('log_min_messages', 'panic'), ('datestyle', 'SQL, DMY'), ('intervalstyle', 'iso_8601'),
    ('timezone', 'Asia/Kathmandu'), ('bytea_output', 'escape'), ('extra_float_digits', '-15'), ('array_nulls', 'off'),
    ('quote_all_identifiers', 'on'), ('transform_null_equals', 'on'), ('backslash_quote', 'on'), ('default_text_search_config', 'simple'),
    ('track_activities', 'off'), ('track_counts', 'off'), ('work_mem', '64kB'), ('max_stack_depth', '200kB'), ('temp_file_limit', '0'),
    ('local_preload_libraries', 'nothing'), ('session_preload_libraries', 'nothing'), ('default_table_access_method', 'heap'),
    ('debug_parallel_query', 'on'), ('force_parallel_mode', 'on'), ('zero_damaged_pages', 'on'), ('allow_system_table_mods', 'on'),
    ('client_encoding', 'LATIN1')) v (setting, value)
WHERE setting = 'role' OR EXISTS (SELECT FROM pg_settings s WHERE s.name ILIKE v.setting);
SELECT round, count(*) > 35 AS most FROM tried GROUP BY round ORDER BY round;
\set ECHO none
\o /dev/null
SELECT string_agg(format('ALTER ROLE regress_bbm_set SET %I = %L', setting, value), ';'),
    'SET ROLE regress_bbm_set',
    format($$SELECT bbm_create('round %1$s', 'regress_bbm_set.t', 'UPDATE regress_bbm_set.t SET n = n + 1 WHERE id BETWEEN $1 AND $2',
                               batch_size => 10, workers => 2, start => true)$$, round),
    'RESET ROLE',
    format($$SELECT bbm_wait('round %s', '1 minute')$$, round),
    $$SELECT wait_for($w$(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'bbm worker')$w$)$$,
    'ALTER ROLE regress_bbm_set RESET ALL'
FROM tried GROUP BY round ORDER BY round \gexec
\o
\set ECHO all
SELECT min(n), max(n) FROM regress_bbm_set.t;
SELECT m.name, bbm_wait(m.name, '0'), max(attempts), min(worker_pid) > 0 AS by_a_process, count(*),
       (SELECT string_agg(event, ', ' ORDER BY e.id) FROM bbm_events e WHERE e.migration_id = m.id) AS events
FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id
GROUP BY m.id ORDER BY m.id;

-- an error of a batch does not end its worker
ALTER ROLE regress_bbm_set SET exit_on_error = on;
SET ROLE regress_bbm_set;
SELECT bbm_update('one fails', 'regress_bbm_set.t', 'n = 1 / (id - 42)', on_error => 'split', max_attempts => 1, start => true) > 0 AS created;
RESET ROLE;
SELECT bbm_wait('one fails', '1 minute');
SELECT error_sqlstate, count, first_key, last_key FROM bbm_errors('one fails');
ALTER ROLE regress_bbm_set RESET ALL;

SELECT wait_for($w$(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'bbm worker')$w$);

-- a role whose triggers are not to fire: they do not, and bbm's do
CREATE FUNCTION regress_bbm_set.fires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'it fires'; END $$;
CREATE TRIGGER fires BEFORE UPDATE ON regress_bbm_set.t FOR EACH ROW EXECUTE FUNCTION regress_bbm_set.fires();
ALTER ROLE regress_bbm_set SET session_replication_role = replica;
SET ROLE regress_bbm_set;
SELECT bbm_update('without triggers', 'regress_bbm_set.t', 'n = 7', batch_size => 10, start => true) > 0 AS created;
RESET ROLE;
SELECT bbm_wait('without triggers', '1 minute');
SELECT min(n), max(n) FROM regress_bbm_set.t;

-- in a session, with all that a session of a strange role may have
ALTER ROLE regress_bbm_set SET default_transaction_isolation = serializable;
ALTER ROLE regress_bbm_set SET default_transaction_deferrable = on;
ALTER ROLE regress_bbm_set SET row_security = off;
ALTER ROLE regress_bbm_set SET array_nulls = off;
ALTER ROLE regress_bbm_set SET quote_all_identifiers = on;
ALTER ROLE regress_bbm_set SET lock_timeout = '1ms';
\c - regress_bbm_set
SELECT bbm_update('in a session', 'regress_bbm_set.t', 'n = 8', batch_size => 10) > 0 AS created;
CALL bbm_run('in a session');
SHOW session_replication_role;
SHOW default_transaction_isolation;
SELECT min(n), max(n) FROM regress_bbm_set.t;
SELECT bbm_update('by functions', 'regress_bbm_set.t', 'n = 9', batch_size => 10) > 0 AS created;
SELECT bbm_start('by functions');
\c - :admin
SET client_min_messages = warning;
SELECT bbm_wait('by functions', '1 minute');
SELECT m.name, m.owner, m.owner_oid::regrole, string_agg(event, ', ' ORDER BY e.id) AS events
FROM batched_background_migrations m JOIN bbm_events e ON e.migration_id = m.id
WHERE m.name IN ('without triggers', 'in a session', 'by functions') GROUP BY m.id ORDER BY m.id;
SELECT min(n), max(n) FROM regress_bbm_set.t;
ALTER ROLE regress_bbm_set RESET ALL;
DROP TRIGGER fires ON regress_bbm_set.t;

-- a text means in a worker what it means in the session that defines it
CREATE TABLE regress_bbm_set.visits (id int PRIMARY KEY, at timestamptz NOT NULL, day text, lasted interval, found tsvector, note text NOT NULL DEFAULT 'The runs');
INSERT INTO regress_bbm_set.visits (id, at) SELECT i, timestamptz '2024-01-01 00:00+00' + i * interval '6 hours' FROM generate_series(1, 400) i;
ALTER TABLE regress_bbm_set.visits OWNER TO regress_bbm_set;
ALTER ROLE regress_bbm_set SET datestyle = 'ISO, MDY';
ALTER ROLE regress_bbm_set SET timezone = 'UTC';
ALTER ROLE regress_bbm_set SET default_text_search_config = 'simple';
ALTER ROLE regress_bbm_set SET standard_conforming_strings = on;
SET ROLE regress_bbm_set;
SET datestyle = 'German, DMY';
SET timezone = 'Asia/Kathmandu';
SET intervalstyle = 'iso_8601';
SET default_text_search_config = 'english';
SELECT bbm_delete('before March', 'regress_bbm_set.visits', $$at < '01.03.2024'$$) > 0 AS created;
CREATE TABLE regress_bbm_set.kept AS SELECT id FROM regress_bbm_set.visits WHERE NOT at < '01.03.2024';
SELECT bbm_update('texts', 'regress_bbm_set.visits', $$day = at::text || ' ' || (at - '01.03.2024')::text, found = to_tsvector(note)$$) > 0 AS created;
CREATE TABLE regress_bbm_set.texts AS
SELECT id, at::text || ' ' || (at - '01.03.2024')::text AS day, to_tsvector(note) AS found FROM regress_bbm_set.visits;
CREATE FUNCTION regress_bbm_set.lasts(lo int, hi int) RETURNS void LANGUAGE sql
    AS $$UPDATE regress_bbm_set.visits SET lasted = at - '01.03.2024' WHERE id BETWEEN lo AND hi$$;
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name)
VALUES ('by an INSERT', 1000, 50, 'regress_bbm_set.lasts', 'regress_bbm_set.visits', 'id');
RESET ROLE;
RESET ALL;
SET client_min_messages = warning;
SELECT name, bbm_start(name) FROM unnest(ARRAY['before March', 'texts', 'by an INSERT']) name;
SELECT name, bbm_wait(name, '1 minute') FROM unnest(ARRAY['before March', 'texts', 'by an INSERT']) name;
SELECT count(v.id) AS left, count(k.id) AS to_be_left FROM regress_bbm_set.visits v FULL JOIN regress_bbm_set.kept k USING (id);
SELECT v.day = t.day AS day, v.found = t.found AS found, v.lasted = v.at - timestamptz '2024-03-01 00:00+05:45' AS lasted, count(*)
FROM regress_bbm_set.visits v JOIN regress_bbm_set.texts t USING (id) GROUP BY 1, 2, 3;
-- whoever gives it another job has defined it anew
SET ROLE regress_bbm_set;
SELECT bbm_create('anew', 'regress_bbm_set.visits', $$UPDATE regress_bbm_set.visits SET day = at::text WHERE id BETWEEN $1 AND $2$$) > 0 AS created;
SET timezone = 'America/New_York';
SELECT bbm_alter('anew', job => $$UPDATE regress_bbm_set.visits SET day = at::text WHERE id BETWEEN $1 AND $2 AND true$$, batch_size => 1000);
SELECT count(*) FROM batched_background_migrations WHERE name = 'anew' AND 'TimeZone=America/New_York' = ANY (job_settings);
RESET ROLE;
-- it does not have to be a definition that another session repeats
SET timezone = 'UTC';
SET ROLE regress_bbm_set;
SELECT bbm_delete('before March', 'regress_bbm_set.visits', $$at < '01.03.2024'$$, if_not_exists => true) > 0 AS exists;
RESET ROLE;
-- nor anything but these settings
\pset expanded on
SELECT * FROM fails($$UPDATE batched_background_migrations SET job_settings = '{TimeZone=Nowhere/Land}' WHERE name = 'anew'$$);
SELECT * FROM fails($$UPDATE batched_background_migrations SET job_settings = '{work_mem=1GB}' WHERE name = 'anew'$$);
SELECT state FROM fails($$UPDATE batched_background_migrations SET job_settings = '{NULL}' WHERE name = 'anew'$$);
SELECT state FROM fails($$UPDATE batched_background_migrations SET job_settings = NULL WHERE name = 'anew'$$);
\pset expanded off
UPDATE batched_background_migrations SET job_settings = '{"timezone=Asia/Tokyo"}', status = 1 WHERE name = 'anew';
SELECT bbm_wait('anew', '1 minute');
SELECT max(day) FROM regress_bbm_set.visits;

DROP EXTENSION bbm;
DROP TABLE tried;
DROP SCHEMA regress_bbm_set CASCADE;
DROP FUNCTION fails, wait_for;
DROP ROLE regress_bbm_set;
