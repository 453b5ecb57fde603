--
-- The rights are those of the function's owner: a function or an expression of
-- bob's sees what bob may see, also when a superuser evaluates it.
--

SELECT current_user AS admin \gset
CREATE EXTENSION bbm;
CREATE ROLE regress_bbm_alice LOGIN;
CREATE ROLE regress_bbm_bob LOGIN;
GRANT EXECUTE ON FUNCTION bbm_create TO regress_bbm_alice, regress_bbm_bob;
CREATE SCHEMA alices AUTHORIZATION regress_bbm_alice;
CREATE SCHEMA bobs AUTHORIZATION regress_bbm_bob;
\c - regress_bbm_alice
CREATE TABLE alices.t (id int PRIMARY KEY, n int);
SELECT bbm_create('secret', 'alices.t', 'UPDATE alices.t SET n = 1 WHERE id BETWEEN $1 AND $2') > 0 AS created;

\c - regress_bbm_bob
CREATE TABLE bobs.t (id int PRIMARY KEY, n int);
SELECT bbm_create('bob''s', 'bobs.t', 'UPDATE bobs.t SET n = 1 WHERE id BETWEEN $1 AND $2') > 0 AS created;
CREATE TABLE bobs.seen (how text, what text);
CREATE FUNCTION bobs.spy(how text) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    INSERT INTO bobs.seen SELECT how || ', bbm_status', name FROM bbm_status();
    INSERT INTO bobs.seen SELECT how || ', view', name FROM bbm_migration_status;
    INSERT INTO bobs.seen SELECT how || ', line', name FROM bbm_internal.bbm_migration_line;
    INSERT INTO bobs.seen SELECT how || ', bbm_jobs', migration FROM bbm_jobs('secret');
    INSERT INTO bobs.seen SELECT how || ', bbm_workers', role FROM bbm_workers() WHERE role IS NOT NULL;
    BEGIN
        INSERT INTO bobs.seen SELECT how || ', bbm_wait', bbm_wait('secret', '0');
    EXCEPTION WHEN undefined_object THEN
    END;
    BEGIN
        PERFORM bbm_ensure_finished('secret');
    EXCEPTION WHEN undefined_object THEN
        WHEN OTHERS THEN
        INSERT INTO bobs.seen VALUES (how || ', bbm_ensure_finished', SQLERRM);
    END;
    RETURN 1;
END $$;
GRANT USAGE ON SCHEMA bobs TO PUBLIC;
GRANT INSERT ON bobs.t TO PUBLIC;
-- an index's expression
CREATE FUNCTION bobs.expression(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM bobs.spy('index');
    RETURN n;
END $$;
CREATE TABLE bobs.indexed (n int);
INSERT INTO bobs.indexed VALUES (1);
CREATE INDEX spying ON bobs.indexed (bobs.expression(n));
-- a trigger
CREATE FUNCTION bobs.trigger() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM bobs.spy('trigger');
    RETURN NEW;
END $$;
CREATE TRIGGER spy BEFORE INSERT ON bobs.t FOR EACH ROW EXECUTE FUNCTION bobs.trigger();
TRUNCATE bobs.seen;

\c - :admin
SELECT bobs.spy('function');
REINDEX TABLE bobs.indexed;
ANALYZE bobs.indexed;
INSERT INTO bobs.t VALUES (1);
SELECT DISTINCT how, what FROM bobs.seen ORDER BY how, what;
-- while the superuser sees both
SELECT name FROM bbm_status();

-- a condition that leaks is not asked about what one may not see
\c - regress_bbm_bob
CREATE FUNCTION bobs.leak(anything text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN
    RAISE NOTICE 'leaked: %', anything;
    RETURN true;
END $$;
SELECT count(*) FROM bbm_migration_status WHERE bobs.leak(name);
SELECT count(*) FROM bbm_internal.bbm_migration_line WHERE bobs.leak(name);
SELECT count(*) FROM bbm_migration_jobs WHERE bobs.leak(migration);
SELECT count(*) FROM bbm_workers() WHERE bobs.leak(role) AND role IS NOT NULL;

\c - :admin
SET client_min_messages = warning;
DROP EXTENSION bbm;
DROP SCHEMA alices, bobs CASCADE;
DROP ROLE regress_bbm_alice, regress_bbm_bob;
