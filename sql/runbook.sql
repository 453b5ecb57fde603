--
-- The operators' page and the registry's own statements work on the tables as
-- they are, wherever on the search_path the extension is.
--

\getenv abs_srcdir PG_ABS_SRCDIR
\set statements :abs_srcdir '/sql/runbook_statements.inc'
-- how many a statement has started would be shown with the path of that file
SET client_min_messages = warning;

CREATE SCHEMA app;
CREATE FUNCTION job_registry(table_name text, column_name text, min bigint, max bigint, batch_size integer)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE %s SET n = n + 1 WHERE %I BETWEEN $1 AND $2', table_name, column_name) USING min, max;
END $$;
CREATE FUNCTION job_null(table_name text, column_name text, min bigint, max bigint, batch_size integer)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE %s SET %I = id WHERE id IN (SELECT id FROM %1$s WHERE %2$I IS NULL LIMIT $1)',
                   table_name, column_name) USING batch_size;
END $$;

-- in public
CREATE EXTENSION bbm;
CREATE TABLE app.t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, filled bigint);
CREATE INDEX ON app.t (filled);
INSERT INTO app.t SELECT generate_series(1, 20);
\i :statements
DROP TABLE app.t;
DROP EXTENSION bbm;

-- in a schema of its own
CREATE SCHEMA regress_ops;
CREATE EXTENSION bbm SCHEMA regress_ops;
SET search_path = app, public, regress_ops;
CREATE TABLE app.t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, filled bigint);
CREATE INDEX ON app.t (filled);
INSERT INTO app.t SELECT generate_series(1, 20);
\i :statements
RESET search_path;
DROP EXTENSION bbm;
DROP SCHEMA regress_ops;
DROP FUNCTION job_registry, job_null;
DROP SCHEMA app CASCADE;
