--
-- The extension in a schema that others can create in: their operators and
-- functions there, better matches than pg_catalog's, are met by nobody but them.
--

SELECT current_user AS admin \gset
CREATE ROLE regress_bbm_evil LOGIN;
CREATE SCHEMA "open %s to all";
GRANT USAGE, CREATE ON SCHEMA public, "open %s to all" TO regress_bbm_evil;

GRANT CREATE ON DATABASE :"DBNAME" TO regress_bbm_evil;
\c - regress_bbm_evil
CREATE SCHEMA evil;
CREATE TABLE evil.trapped (who name);
CREATE FUNCTION evil.trap() RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF current_user <> 'regress_bbm_evil' THEN
        INSERT INTO evil.trapped VALUES (current_user);
        EXECUTE 'ALTER ROLE regress_bbm_evil SUPERUSER';
    END IF;
    RETURN true;
END $$;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
-- operators for all pairs of types, also those that pg_catalog has none of its own for
DO $$
DECLARE
    types text[] := '{smallint,integer,bigint,numeric,float8,oid,regclass,text,name}';
    a text;
    b text;
    o text;
    s text;
    made int := 0;
BEGIN
    FOREACH s IN ARRAY ARRAY['public', quote_ident('open %s to all')] LOOP
        FOREACH a IN ARRAY types LOOP
            FOREACH b IN ARRAY types LOOP
                EXECUTE format('CREATE FUNCTION %s.trap(%s, %s) RETURNS boolean LANGUAGE sql AS ''SELECT evil.trap()''', s, a, b);
                EXECUTE format('CREATE FUNCTION %s.number(%s, %s) RETURNS numeric LANGUAGE sql AS ''SELECT evil.trap()::int::numeric''', s, a, b);
                FOREACH o IN ARRAY '{=,<>,<,<=,>,>=}'::text[] LOOP
                    EXECUTE format('CREATE OPERATOR %s.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = %1$s.trap)', s, o, a, b);
                    made := made + 1;
                END LOOP;
                FOREACH o IN ARRAY '{+,-,*,/,||}'::text[] LOOP
                    EXECUTE format('CREATE OPERATOR %s.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = %1$s.number)', s, o, a, b);
                    made := made + 1;
                END LOOP;
            END LOOP;
        END LOOP;
        -- functions under names of pg_catalog's, with the types that are passed
        EXECUTE format('CREATE FUNCTION %s.pg_has_role(oid, text) RETURNS boolean LANGUAGE sql AS ''SELECT evil.trap()''', s);
        EXECUTE format('CREATE FUNCTION %s.round(numeric, bigint) RETURNS numeric LANGUAGE sql AS ''SELECT evil.trap()::int::numeric''', s);
        EXECUTE format('CREATE FUNCTION %s.quote_ident(name) RETURNS text LANGUAGE sql AS ''SELECT evil.trap()::text''', s);
        EXECUTE format('CREATE FUNCTION %s.sum(smallint) RETURNS bigint LANGUAGE sql AS ''SELECT evil.trap()::int::bigint''', s);
        EXECUTE format('CREATE FUNCTION %s.now() RETURNS timestamptz LANGUAGE sql AS ''SELECT evil.trap(); SELECT pg_catalog.now()''', s);
    END LOOP;
    RAISE NOTICE '% operators', made;
END $$;
CREATE TABLE evil.t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO evil.t SELECT generate_series(1, 20);
CREATE FUNCTION evil.job(min bigint, max bigint) RETURNS void LANGUAGE sql AS
    'UPDATE evil.t SET n = n OPERATOR(pg_catalog.+) 1 WHERE id OPERATOR(pg_catalog.>=) min AND id OPERATOR(pg_catalog.<=) max';

-- the trap works
\c - :admin
BEGIN;
SELECT 1::oid <> 1;
SELECT rolsuper FROM pg_roles WHERE rolname = 'regress_bbm_evil';
ROLLBACK;

-- in each of the two schemas: installed by a superuser, used by all, read by a superuser
CREATE EXTENSION bbm SCHEMA public;
GRANT EXECUTE ON FUNCTION bbm_create, bbm_start, bbm_pause, bbm_retry, bbm_alter, bbm_drop TO regress_bbm_evil;
GRANT EXECUTE ON PROCEDURE bbm_run TO regress_bbm_evil;
GRANT SELECT, INSERT, UPDATE, DELETE ON batched_background_migrations TO regress_bbm_evil;
\c - regress_bbm_evil
SELECT bbm_create('one', 'evil.t', 'evil.job', batch_size => 5, start => true) OPERATOR(pg_catalog.>) 0 AS created;
SELECT bbm_wait('one', '1 minute');
SELECT bbm_create('two', 'evil.t', 'evil.job', batch_size => 5) OPERATOR(pg_catalog.>) 0 AS created;
UPDATE batched_background_migrations SET batch_size = 4 WHERE name OPERATOR(pg_catalog.=) 'two';
CALL bbm_run('two');
SELECT min(n), max(n) FROM evil.t;
\c - :admin
SELECT name, status, percent, rows_done, jobs_finished, rows_per_second OPERATOR(pg_catalog.>) 0 AS rate FROM bbm_status_detail();
SELECT status, attempts, rows FROM bbm_jobs('two');
SELECT role FROM bbm_workers() WHERE kind OPERATOR(pg_catalog.=) 'foreground'::text;
SELECT name, event FROM bbm_events ORDER BY id;
UPDATE batched_background_migrations SET batch_size = 3;
DELETE FROM batched_background_migrations WHERE name OPERATOR(pg_catalog.=) 'one'::text;
SELECT bbm_start(), bbm_pause();
DROP EXTENSION bbm;

CREATE EXTENSION bbm SCHEMA "open %s to all";
GRANT EXECUTE ON FUNCTION "open %s to all".bbm_create TO regress_bbm_evil;
\c - regress_bbm_evil
SET search_path = "open %s to all";
SELECT bbm_create('one', 'evil.t', 'evil.job', batch_size => 5, start => true) OPERATOR(pg_catalog.>) 0 AS created;
SELECT bbm_wait('one', '1 minute');
SELECT min(n), max(n) FROM evil.t;
\c - :admin
SET search_path = "open %s to all";
SELECT name, status, percent, rows_done, jobs_finished FROM bbm_status_detail();
SELECT status, attempts, rows FROM bbm_jobs('one');
SELECT count(*) OPERATOR(pg_catalog.>=) 0::bigint AS workers FROM bbm_workers();
RESET search_path;

SELECT rolsuper FROM pg_roles WHERE rolname = 'regress_bbm_evil';
SELECT who FROM evil.trapped;
SET client_min_messages = warning;
DROP EXTENSION bbm;
DROP OWNED BY regress_bbm_evil CASCADE;
DROP SCHEMA "open %s to all" CASCADE;
DROP ROLE regress_bbm_evil;
