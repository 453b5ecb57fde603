--
-- What a call says that cannot do what it is asked for: as what the user has called, with a
-- SQLSTATE, a detail and a hint, and without bbm's own statements as its context.
--

CREATE EXTENSION bbm;
CREATE TABLE t (id int PRIMARY KEY, n int);
INSERT INTO t SELECT generate_series(1, 10);
CREATE ROLE regress_bbm_reader LOGIN;
GRANT EXECUTE ON FUNCTION bbm_create, bbm_update TO regress_bbm_reader;
SELECT bbm_create('one', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', batch_size => 5) > 0 AS created;

CREATE FUNCTION says(call text)
RETURNS TABLE (state text, message text, detail text, hint text, shows_ours boolean) LANGUAGE plpgsql AS $$
DECLARE context text;
BEGIN
    EXECUTE 'SELECT ' || call;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
    -- the call itself is a statement, too
    shows_ours := replace(context, format('SQL statement "SELECT %s"', call), '') ~ 'SQL statement|batched_background';
    RETURN NEXT;
END $$;

-- whatever changes something says so itself in a read-only transaction
CREATE TABLE calls (call text);
INSERT INTO calls VALUES
    ($$bbm_create('x', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2')$$), ($$bbm_update('x', 't', 'n = 1')$$), ($$bbm_delete('x', 't', 'n = 1')$$),
    ($$bbm_alter('one', workers => 2)$$), ($$bbm_drop('one')$$), ($$bbm_import('t', 't')$$), ($$bbm_sync_trigger('t', 'n = id')$$),
    ($$bbm_start('one')$$), ($$bbm_start()$$), ($$bbm_resume('one')$$), ($$bbm_pause('one')$$), ($$bbm_pause()$$), ($$bbm_cancel('one')$$),
    ($$bbm_retry('one')$$), ($$bbm_dry_run('one')$$), ($$bbm_preview('one')$$);
BEGIN READ ONLY;
SELECT state, replace(message, substring(call FROM '^\w+'), 'FUNCTION') AS message, detail, hint, shows_ours, count(*)
FROM calls, says(call) GROUP BY 1, 2, 3, 4, 5;
COMMIT;
-- these are all that not everybody may call, but for what starts a process, and triggers
SELECT proname FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bbm') AND NOT has_function_privilege('public', p.oid, 'EXECUTE')
  AND p.prorettype <> 'trigger'::regtype AND p.pronamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM calls WHERE starts_with(call, proname || '(')) ORDER BY proname;
-- what only reads is as good as ever
BEGIN READ ONLY;
SELECT name, status FROM bbm_status();
SELECT count(*) FROM bbm_status_detail(), bbm_throttle('one') WHERE throttles;
SELECT count(*) FROM bbm_jobs();
SELECT count(*) FROM bbm_errors();
SELECT bbm_verify('one', 'n = 1'), bbm_wait('one', '0');
SELECT count(*) FROM bbm_doctor();
COMMIT;

-- an error in what bbm does for a call: what a user's trigger says of it, and not bbm's statement
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE 'not today' USING DETAIL = 'It is late.', HINT = 'Try tomorrow.';
END $$;
CREATE TRIGGER a_refuse BEFORE INSERT OR UPDATE OR DELETE ON batched_background_migrations FOR EACH ROW EXECUTE FUNCTION refuse();
SELECT call, says.* FROM calls, says(call) WHERE call ~ '^bbm_(create|alter|drop|start.''|preview)';
\set VERBOSITY default
SELECT bbm_start('one');
DROP TRIGGER a_refuse ON batched_background_migrations;

-- a role that may not read the key
SET ROLE regress_bbm_reader;
SELECT * FROM says($$bbm_update('x', 'public.t', 'n = 1')$$);
SELECT bbm_update('x', 'public.t', 'n = 1');
RESET ROLE;

-- tables that are none, and a parameter that a job does not have
SELECT call, says.* FROM (VALUES ($$bbm_update('x', 'pg_class', 'relname = ''x''')$$), ($$bbm_update('x', 'public.T2', 'n = 1')$$), ($$bbm_update('x', 'nowhere.t', 'n = 1')$$),
    ($$bbm_update('x', 'nowhere', 'n = 1')$$), ($$bbm_update('x', '', 'n = 1')$$),
    ($$bbm_create('x', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $3')$$)) v (call), says(call);

-- what the server would say only when the first batch begins, or when all is done and verified
CREATE FUNCTION secret(int) RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
REVOKE EXECUTE ON FUNCTION secret FROM public;
CREATE TABLE hidden (x int);
CREATE TABLE readers (id int PRIMARY KEY, n int);
ALTER TABLE readers OWNER TO regress_bbm_reader;
CREATE TEMPORARY TABLE mine (x int);
GRANT SELECT ON mine TO regress_bbm_reader;
CREATE EXTENSION file_fdw;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE elsewhere (id int NOT NULL, n int) SERVER files OPTIONS (filename '/dev/null');
CREATE TABLE published (id int UNIQUE, n int);
SET client_min_messages = error;
CREATE PUBLICATION regress_bbm FOR TABLE published;
RESET client_min_messages;
\pset expanded on
SELECT call, says.* FROM (VALUES ($$bbm_update('x', 'elsewhere', 'n = 1', column_name => 'id')$$), ($$bbm_update('x', 'published', 'n = 1', column_name => 'id')$$),
    ($$bbm_delete('x', 'published', 'n = 1', column_name => 'id')$$)) v (call), says(call);
SET ROLE regress_bbm_reader;
SELECT call, says.* FROM (VALUES ($$bbm_update('x', 'public.readers', 'n = secret(id)')$$), ($$bbm_update('x', 'public.readers', 'n = 1', 'n = secret(id)')$$),
    ($$bbm_create('x', 'public.readers', 'UPDATE public.readers SET n = secret(id) WHERE id BETWEEN $1 AND $2')$$),
    ($$bbm_update('x', 'public.readers', 'n = 1', row_check => 'n = secret(id)')$$), ($$bbm_update('x', 'public.readers', 'n = 1', row_check => 'n IN (SELECT x FROM hidden)')$$),
    ($$bbm_update('x', 'public.readers', 'n = 1', row_check => 'n IN (SELECT x FROM mine)')$$)) v (call), says(call);
SELECT call, says.* FROM (VALUES ($$bbm_create('x', 'public.readers', 'UPDATE public.readers SET n = 1 WHERE id BETWEEN $1 AND $2', filter => 'n IN (SELECT x FROM hidden)', verify => true)$$)) v (call), says(call);
RESET ROLE;
-- ... also when it begins anew
SELECT bbm_update('again', 'readers', 'n = 1', row_check => 'n IN (SELECT x FROM hidden)', verify => true) > 0 AS created;
ALTER TABLE hidden RENAME TO no_more;
CREATE TEMPORARY TABLE hidden (x int);
SELECT * FROM says($$bbm_alter('again', restart => true)$$);
DROP TABLE hidden;
ALTER TABLE no_more RENAME TO hidden;
SELECT bbm_drop('again');
\pset expanded off
SELECT count(*) FROM batched_background_migrations WHERE name = 'x';
DROP PUBLICATION regress_bbm;
DROP FOREIGN TABLE elsewhere;
DROP SERVER files;
DROP EXTENSION file_fdw;
DROP TABLE hidden, readers, published, mine;
DROP FUNCTION secret;

-- a table that was renamed or dropped before the migration began
CREATE TABLE gone (id int PRIMARY KEY, n int);
INSERT INTO gone SELECT generate_series(1, 10);
SELECT bbm_create('gone', 'gone', 'UPDATE gone SET n = 1 WHERE id BETWEEN $1 AND $2') > 0 AS created;
ALTER TABLE gone RENAME TO renamed;
SELECT * FROM says($$bbm_preview('gone')$$);
DROP TABLE renamed;
SELECT * FROM says($$bbm_preview('gone')$$);
CALL bbm_run('gone');
SELECT last_error, hint FROM bbm_status_detail('gone');
SELECT problem, detail, advice FROM bbm_doctor() WHERE migration = 'gone';
CREATE TABLE gone (id int PRIMARY KEY, n int);
SELECT bbm_alter('gone', restart => true);
CALL bbm_run('gone');

DROP EXTENSION bbm;
DROP TABLE t, calls, gone;
DROP FUNCTION says, refuse;
DROP ROLE regress_bbm_reader;
