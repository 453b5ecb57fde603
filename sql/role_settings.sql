--
-- Whatever ALTER ROLE or ALTER DATABASE has set for a migration's owner: each row is done once, and recorded.
--

-- what CREATE EXTENSION makes is the same, too
CREATE ACCESS METHOD regress_bbm_am TYPE TABLE HANDLER heap_tableam_handler;
SET default_table_access_method = regress_bbm_am;
DO $$ BEGIN SET standard_conforming_strings = off; EXCEPTION WHEN OTHERS THEN NULL; END $$;
SET escape_string_warning = on;
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

DROP EXTENSION bbm;
DROP TABLE tried;
DROP SCHEMA regress_bbm_set CASCADE;
DROP FUNCTION fails, wait_for;
DROP ROLE regress_bbm_set;
