--
-- An owner who wants more: traps in the search_path, laid by every way there
-- is, must not be met by what bbm does with the rights of the extension's owner.
--

SELECT current_user AS admin \gset
CREATE EXTENSION bbm;
CREATE ROLE regress_bbm_evil LOGIN;
CREATE SCHEMA evil AUTHORIZATION regress_bbm_evil;
GRANT EXECUTE ON FUNCTION bbm_create, bbm_start, bbm_pause, bbm_retry, bbm_alter, bbm_drop TO regress_bbm_evil;
GRANT EXECUTE ON PROCEDURE bbm_run TO regress_bbm_evil;
GRANT SELECT, INSERT, UPDATE, DELETE ON batched_background_migrations TO regress_bbm_evil;

\c - regress_bbm_evil
-- whoever else steps on it makes the role a superuser, and is written down
CREATE TABLE evil.trapped (who name);
CREATE FUNCTION evil.trap() RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF current_user <> 'regress_bbm_evil' THEN
        INSERT INTO evil.trapped VALUES (current_user);
        EXECUTE 'ALTER ROLE regress_bbm_evil SUPERUSER';
    END IF;
    RETURN true;
END $$;
-- operators and functions that are better matches than those of pg_catalog, or come before them
SET check_function_bodies = off;
DO $$
DECLARE
    t text;
    o record;
BEGIN
    FOREACH t IN ARRAY '{bigint,integer,smallint,oid,text,name,numeric,boolean,timestamptz}'::text[] LOOP
        FOR o IN SELECT op, fn FROM (VALUES ('=', 'eq'), ('<>', 'ne'), ('<', 'lt'), ('<=', 'le'), ('>', 'gt'),
                                            ('>=', 'ge')) v (op, fn) LOOP
            EXECUTE format('CREATE FUNCTION evil.%I(%s, %2$s) RETURNS boolean LANGUAGE plpgsql AS '
                           '''BEGIN PERFORM evil.trap(); RETURN $1 OPERATOR(pg_catalog.%s) $2; END''', o.fn, t, o.op);
            EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %2$s, FUNCTION = evil.%I)', o.op, t, o.fn);
        END LOOP;
    END LOOP;
END $$;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT evil.trap(); SELECT pg_catalog.now()';
CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
    'SELECT evil.trap(); SELECT pg_catalog.clock_timestamp()';
CREATE FUNCTION evil.format(text, text) RETURNS text LANGUAGE sql AS 'SELECT evil.trap()::text';
CREATE FUNCTION evil.pg_has_role(oid, text) RETURNS boolean LANGUAGE sql AS 'SELECT evil.trap()';
CREATE FUNCTION evil.bbm_status_name(smallint) RETURNS text LANGUAGE sql AS 'SELECT evil.trap()::text';
CREATE FUNCTION evil.bbm_may_see(oid) RETURNS boolean LANGUAGE sql AS 'SELECT evil.trap()';
CREATE TABLE evil.batched_background_migrations (id bigint);
CREATE TABLE evil.batched_background_migration_jobs (id bigint);
CREATE TABLE evil.t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO evil.t SELECT generate_series(1, 20);
-- the trap works: it would be stepped on
CREATE FUNCTION evil.stepped_on() RETURNS boolean LANGUAGE sql AS 'SELECT 1::bigint = 1::bigint';
\c - :admin
BEGIN;
SELECT evil.stepped_on();
SET search_path = evil, pg_catalog;
SELECT evil.stepped_on();
RESET search_path;
SELECT rolsuper FROM pg_roles WHERE rolname = 'regress_bbm_evil';
ROLLBACK;

\c - regress_bbm_evil
-- ways to leave the trap open: a plain setting, one of a function, one of a deferred trigger's deferred trigger
CREATE FUNCTION evil.by_set(min bigint, max bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE evil.t SET n = n + 1 WHERE id OPERATOR(pg_catalog.>=) min AND id OPERATOR(pg_catalog.<=) max;
    SET search_path = evil, pg_catalog;
    PERFORM pg_catalog.set_config('search_path', 'evil, pg_catalog', false);
END $$;
CREATE TABLE evil.first (x int);
CREATE TABLE evil.second (x int);
CREATE FUNCTION evil.first() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SET CONSTRAINTS ALL DEFERRED;
    INSERT INTO evil.second VALUES (1);
    RETURN NULL;
END $$;
CREATE FUNCTION evil.second() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'evil, pg_catalog', false);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER first AFTER INSERT ON evil.first DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION evil.first();
CREATE CONSTRAINT TRIGGER second AFTER INSERT ON evil.second DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION evil.second();
CREATE FUNCTION evil.by_trigger(min bigint, max bigint) RETURNS void LANGUAGE sql AS
    'UPDATE evil.t SET n = n + 1 WHERE id BETWEEN $1 AND $2; INSERT INTO evil.first VALUES (1)';
-- and a failure of the batch, when the trap is laid
CREATE FUNCTION evil.by_failure(min bigint, max bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'evil, pg_catalog', false);
    RAISE 'on purpose';
END $$;
-- in the background
SELECT bbm_create(f, 'evil.t', f, batch_size => 5, sub_batch_size => 2, max_attempts => 1, start => true) > 0 AS created
FROM unnest('{evil.by_set,evil.by_trigger,evil.by_failure}'::text[]) f;
SELECT name, bbm_wait(name, '1 minute') FROM bbm_status();
SELECT bbm_retry('evil.by_failure');
SELECT bbm_wait('evil.by_failure', '1 minute');
SELECT min(n), max(n) FROM evil.t;
SELECT count(*) FROM evil.second;
-- in this session, where the path is open from the start
SELECT bbm_create('here: ' || f, 'evil.t', f, batch_size => 5, sub_batch_size => 2, max_attempts => 1) > 0 AS created
FROM unnest('{evil.by_set,evil.by_trigger,evil.by_failure}'::text[]) f;
SET search_path = evil, pg_catalog, public;
CALL public.bbm_run('here: evil.by_set');
CALL public.bbm_run('here: evil.by_trigger');
CALL public.bbm_run('here: evil.by_failure');
SELECT name, status FROM public.bbm_status();
SELECT status, rows FROM public.bbm_jobs('here: evil.by_trigger') LIMIT 1;
SELECT public.bbm_create('open', 'evil.t', 'evil.by_set') > 0 AS created;
SELECT public.bbm_start('open');
SELECT public.bbm_wait('open', '1 minute');
SELECT public.bbm_create('open 2', 'evil.t', 'evil.by_set') > 0 AS created;
SELECT public.bbm_alter('open 2', batch_size => 7);
UPDATE public.batched_background_migrations SET batch_size = 8 WHERE name OPERATOR(pg_catalog.=) 'open 2';
SELECT public.bbm_pause('open 2');
SELECT public.bbm_drop('open 2');
SELECT public.bbm_ensure_finished('open');
RESET search_path;
SELECT min(n), max(n) FROM evil.t;
-- as a default of the role, which a worker logs in with
ALTER ROLE regress_bbm_evil SET search_path = evil, pg_catalog, public;
ALTER ROLE regress_bbm_evil SET lock_timeout = '1h';
ALTER ROLE regress_bbm_evil SET default_transaction_isolation = serializable;
ALTER ROLE regress_bbm_evil SET default_transaction_read_only = on;
SELECT bbm_create('role''s defaults', 'evil.t', 'evil.by_trigger', batch_size => 5, start => true) > 0 AS created;
SELECT bbm_wait('role''s defaults', '1 minute');
SELECT min(n), max(n) FROM evil.t;

-- nobody stepped on it
\c - :admin
SELECT rolsuper FROM pg_roles WHERE rolname = 'regress_bbm_evil';
SELECT who FROM evil.trapped;
SET client_min_messages = warning;
DROP EXTENSION bbm;
DROP OWNED BY regress_bbm_evil CASCADE;
DROP ROLE regress_bbm_evil;
