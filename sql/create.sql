--
-- bbm_create: every way to say a job, and every way to say it wrong.
--

CREATE EXTENSION bbm;
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, b bigint);
INSERT INTO t SELECT generate_series(3, 12);
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/fails.inc'
\i :helper
-- a job for each form
CREATE FUNCTION f_range(min int, max int) RETURNS void LANGUAGE sql AS
    'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2';
CREATE FUNCTION f_big(min bigint, max bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE rows bigint;
BEGIN UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2; GET DIAGNOSTICS rows = ROW_COUNT; RETURN rows; END $$;
CREATE FUNCTION f_registry(table_name text, column_name text, min bigint, max bigint, batch_size integer)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN EXECUTE format('UPDATE %s SET n = n + 1 WHERE %I BETWEEN %s AND %s', table_name, column_name, min, max); END $$;
CREATE SCHEMA "Odd Schema";
CREATE FUNCTION "Odd Schema"."Odd.Job"(int, int) RETURNS void LANGUAGE sql AS
    'UPDATE public.t SET n = n + 1 WHERE id BETWEEN $1 AND $2';
CREATE TABLE "Odd Schema"."Odd ""Table" ("The Key" smallint PRIMARY KEY, v int NOT NULL DEFAULT 0);
INSERT INTO "Odd Schema"."Odd ""Table" SELECT generate_series(-3, 3);

-- a statement; everything else has a default, the range is that of the table
SELECT bbm_create('statement', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2');
SELECT name, table_name, column_name, job_signature_name, min_value, max_value, batch_size, status, batching_strategy,
       sub_batch_size, workers, max_attempts, share_table, synchronous, job_search_path, owner = current_user AS mine
FROM batched_background_migrations WHERE name = 'statement' \gx
-- named arguments, in any order
SELECT bbm_create(
    max_attempts => 7, workers => 2, batching_strategy => 'SerialKeySetBatchingStrategy', max_value => 8, min_value => 5,
    sub_batch_size => 2, batch_size => 4, column_name => 'id', share_table => true, synchronous => true,
    job => 'f_range', table_name => 'public.t', name => 'range function');
SELECT name, table_name, column_name, job_signature_name, min_value, max_value, batch_size, status, batching_strategy,
       sub_batch_size, workers, max_attempts, share_table, synchronous
FROM batched_background_migrations WHERE name = 'range function' \gx
-- the other forms
SELECT bbm_create('wider function', 't', 'f_big', batch_size => 4) AS id;
SELECT bbm_create('registry function', 't', 'f_registry', batch_size => 4) AS id;
SELECT bbm_create('odd function', 't', ' "Odd Schema"."Odd.Job" ', batch_size => 4) AS id;
SELECT bbm_create('odd table', '"Odd Schema"."Odd ""Table"',
                  'UPDATE "Odd Schema"."Odd ""Table" SET v = v + 1 WHERE "The Key" BETWEEN $1 AND $2;') AS id;
SELECT bbm_create('literal table', 'Odd Schema.Odd "Table',
                  'UPDATE "Odd Schema"."Odd ""Table" SET v = v + 1 WHERE "The Key" BETWEEN $1 AND $2',
                  column_name => 'The Key') AS id;
CREATE INDEX ON t (b);
SELECT bbm_create('null', 't', 'UPDATE t SET b = id WHERE id IN (SELECT id FROM t WHERE b IS NULL ORDER BY id LIMIT $3)',
                  column_name => 'b', batching_strategy => 'NullKeySetBatchingStrategy', batch_size => 4) AS id;
SELECT bbm_create('delete', 't', '/* all that are odd */ DELETE FROM t WHERE id BETWEEN $1 AND $2 AND id % 2 = 1') AS id;
CREATE TABLE copy (LIKE t);
SELECT bbm_create('insert', 't', 'INSERT INTO copy SELECT * FROM t WHERE id BETWEEN $1 AND $2') AS id;
SELECT bbm_create('with', 't', 'WITH moved AS (DELETE FROM t WHERE id BETWEEN $1 AND $2 AND n = 0 RETURNING *)
                                INSERT INTO copy SELECT * FROM moved') AS id;
SELECT bbm_create('select with', 't', 'WITH moved AS (DELETE FROM t WHERE id BETWEEN $1 AND $2 AND n = 0 RETURNING *)
                                       SELECT count(*) FROM moved') AS id;
SELECT bbm_create('merge', 't', 'MERGE INTO copy c USING (SELECT * FROM t WHERE id BETWEEN $1 AND $2) s ON s.id = c.id
                                 WHEN MATCHED THEN UPDATE SET n = s.n') AS id;
-- text beyond ASCII, and a name of the greatest length
SELECT bbm_create('Größe ✓', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2 /* ✓ */') AS id;
SELECT bbm_create(repeat('x', 512), 't', 'f_range') AS id;
-- a given range, which may lie beyond the table's
SELECT bbm_create('from 5', 't', 'f_range', min_value => 5) AS id;
SELECT bbm_create('to 5', 't', 'f_range', max_value => 5) AS id;
SELECT bbm_create('above all', 't', 'f_range', min_value => 100) AS id;
SELECT bbm_create('below all', 't', 'f_range', max_value => -100) AS id;
SELECT bbm_create('more than an integer', 't', 'f_range', min_value => -9223372036854775808,
                  max_value => 9223372036854775807) AS id;
CREATE TABLE empty (id bigint PRIMARY KEY);
SELECT bbm_create('empty table', 'empty', 'DELETE FROM empty WHERE id BETWEEN $1 AND $2') AS id;
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE keyed_by_domain (id positive PRIMARY KEY, n int);
INSERT INTO keyed_by_domain VALUES (1), (2);
SELECT bbm_create('domain', 'keyed_by_domain', 'UPDATE keyed_by_domain SET n = 1 WHERE id BETWEEN $1 AND $2') AS id;
CREATE TABLE other_keys (a int NOT NULL, b int NOT NULL UNIQUE, c int, PRIMARY KEY (a, c));
CREATE UNIQUE INDEX other_keys_a_desc ON other_keys (a DESC) INCLUDE (c);
INSERT INTO other_keys SELECT i, -i, 0 FROM generate_series(1, 3) i;
SELECT bbm_create('unique', 'other_keys', 'UPDATE other_keys SET c = 1 WHERE b BETWEEN $1 AND $2', 'b') AS id;
SELECT bbm_create('descending', 'other_keys', 'UPDATE other_keys SET c = c + 1 WHERE a BETWEEN $1 AND $2', 'a') AS id;
SELECT left(name, 30) AS name, table_name, column_name, min_value, max_value, status
FROM batched_background_migrations ORDER BY id;

-- they all run
SELECT bbm_start();
SELECT DISTINCT bbm_wait(name, '1 minute') FROM batched_background_migrations;
SELECT left(name, 30), last_error FROM bbm_status_detail() WHERE status <> 'finished' ORDER BY name;
-- started at once
SELECT bbm_create('started', 't', 'f_range', start => true) AS id;
SELECT bbm_wait('started', '1 minute');

-- Bad input: nothing of it is left behind
TRUNCATE t;
INSERT INTO t SELECT generate_series(3, 12);
DELETE FROM batched_background_migrations;
DELETE FROM bbm_events;
SELECT bbm_create('taken', 't', 'f_range') IS NOT NULL AS created;
CREATE FUNCTION bad(job text DEFAULT 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', options text DEFAULT '',
                    table_name text DEFAULT 't', name text DEFAULT 'bad')
RETURNS TABLE (state text, message text, detail text, hint text) LANGUAGE sql AS $$
    SELECT * FROM fails(format('SELECT bbm_create(%L, %L, %L%s)', name, table_name, job, options))
$$;
\pset expanded on
-- the table
CREATE VIEW v AS SELECT * FROM t;
CREATE MATERIALIZED VIEW mv AS SELECT * FROM t;
CREATE SEQUENCE s;
CREATE TEMPORARY TABLE temp (id int PRIMARY KEY, n int);
CREATE FOREIGN DATA WRAPPER regress_wrapper;
CREATE SERVER regress_server FOREIGN DATA WRAPPER regress_wrapper;
CREATE FOREIGN TABLE ft (id int NOT NULL, n int) SERVER regress_server;
SELECT * FROM bad(table_name => 'nowhere');
SELECT * FROM bad(table_name => 'nowhere.t');
SELECT * FROM bad(table_name => 'other.public.t');
SELECT * FROM bad(table_name => '');
SELECT * FROM bad(table_name => '.');
SELECT * FROM bad(table_name => NULL);
SELECT * FROM bad(table_name => 'v');
SELECT * FROM bad(table_name => 'mv');
SELECT * FROM bad(table_name => 's');
SELECT * FROM bad(table_name => 't_pkey');
SELECT * FROM bad(table_name => 'temp');
SELECT * FROM bad(table_name => 'ft');
SELECT * FROM bad(table_name => 'batched_background_migrations');
SELECT * FROM bad(table_name => 'bbm_events');
-- the key
CREATE TABLE k (plain int NOT NULL, nullable int UNIQUE, partial int NOT NULL, expression int NOT NULL, hashed int NOT NULL,
                pair_a int NOT NULL, pair_b int NOT NULL, doc json NOT NULL, not_unique int NOT NULL,
                invalid int NOT NULL, number numeric NOT NULL UNIQUE);
CREATE UNIQUE INDEX ON k (partial) WHERE partial > 0;
CREATE UNIQUE INDEX ON k (abs(expression));
CREATE INDEX ON k USING hash (hashed);
CREATE UNIQUE INDEX ON k (pair_a, pair_b);
CREATE INDEX ON k (not_unique);
CREATE UNIQUE INDEX k_invalid ON k (invalid);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'k_invalid'::regclass;
SELECT * FROM bad(options => $$, column_name => 'nowhere'$$);
SELECT * FROM bad(options => $$, column_name => ''$$);
SELECT * FROM bad(options => $$, column_name => 'ID'$$);
SELECT * FROM bad(options => $$, column_name => 'ctid'$$);
SELECT * FROM bad(table_name => 'k');
SELECT * FROM bad(table_name => 'k', options => $$, column_name => 'plain'$$);
SELECT * FROM bad(table_name => 'k', options => $$, column_name => 'plain, nullable'$$);
SELECT * FROM bad(table_name => 'k', options => $$, column_name => 'partial'$$);
SELECT state, message FROM bad(table_name => 'k', options => $$, column_name => 'expression'$$);
SELECT state, message FROM bad(table_name => 'k', options => $$, column_name => 'hashed'$$);
SELECT state, message FROM bad(table_name => 'k', options => $$, column_name => 'invalid'$$);
SELECT * FROM bad(table_name => 'k', options => $$, column_name => 'doc'$$);
UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'k_invalid'::regclass;
-- the numbers
SELECT * FROM bad(options => ', batch_size => 0');
SELECT * FROM bad(options => ', batch_size => -1');
SELECT * FROM bad(options => ', sub_batch_size => -1');
SELECT * FROM bad(options => ', workers => 0');
SELECT * FROM bad(options => ', workers => 257');
SELECT * FROM bad(options => ', workers => NULL');
SELECT * FROM bad(options => ', max_attempts => 0');
SELECT * FROM bad(options => ', max_attempts => 101');
SELECT * FROM bad(options => ', max_attempts => 40000');
SELECT * FROM bad(options => ', min_value => 6, max_value => 5');
SELECT * FROM bad(options => ', share_table => NULL');
SELECT * FROM bad(options => ', synchronous => NULL');
-- the name
SELECT * FROM bad(name => 'taken');
SELECT * FROM bad(name => '');
SELECT * FROM bad(name => NULL);
SELECT * FROM bad(name => repeat('x', 65536));
-- the strategy, and options there are not
SELECT * FROM bad(options => $$, batching_strategy => 'RandomBatchingStrategy'$$);
SELECT * FROM bad(options => $$, batching_strategy => ''$$);
SELECT state, message FROM bad(options => $$, flavour => 'vanilla'$$);
-- the statement
SELECT * FROM bad('');
SELECT * FROM bad(';');
SELECT * FROM bad('-- nothing');
SELECT * FROM bad(NULL);
SELECT * FROM bad('UPDATE t SET n = 1 WHERE');
SELECT * FROM bad('UPDATE t SET n = 1');
SELECT * FROM bad('UPDATE t SET n = 1 WHERE id >= $1');
SELECT * FROM bad('UPDATE t SET n = 1 WHERE id <= $2');
SELECT * FROM bad('UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2 AND b > $3');
SELECT * FROM bad('UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2; UPDATE t SET n = 2 WHERE id BETWEEN $1 AND $2');
SELECT * FROM bad('SELECT * FROM t WHERE id BETWEEN $1 AND $2');
SELECT * FROM bad('SELECT f_range($1, $2)');
SELECT * FROM bad('CALL f_range($1, $2)');
SELECT * FROM bad('DO $do$ BEGIN END $do$');
SELECT * FROM bad('VACUUM t');
SELECT * FROM bad('BEGIN');
SELECT * FROM bad('COMMIT');
SELECT * FROM bad('TRUNCATE t');
SELECT * FROM bad('DROP TABLE t');
SELECT * FROM bad('COPY t FROM stdin');
SELECT * FROM bad('EXPLAIN UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2');
SELECT * FROM bad('SET work_mem = 1000');
SELECT * FROM bad('UPDATE nowhere SET n = 1 WHERE id BETWEEN $1 AND $2');
SELECT * FROM bad('UPDATE t SET nothing = 1 WHERE id BETWEEN $1 AND $2');
SELECT state, message FROM bad('UPDATE t SET n = no_such(n) WHERE id BETWEEN $1 AND $2');
SELECT * FROM bad('UPDATE t SET n = ''x'' WHERE id BETWEEN $1 AND $2');
SELECT * FROM bad('UPDATE temp SET n = 1 WHERE id BETWEEN $1 AND $2');
-- the function
CREATE FUNCTION f_none() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION f_text(min text, max text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION f_three(int, int, int) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION f_narrow(smallint, smallint) RETURNS void LANGUAGE sql AS '';
CREATE PROCEDURE f_procedure(int, int) LANGUAGE sql AS '';
CREATE FUNCTION f_a(int, bigint) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION f_a(bigint, int) RETURNS void LANGUAGE sql AS '';
SELECT * FROM bad('nothing_of_that_name');
SELECT * FROM bad('nowhere.f');
SELECT * FROM bad('public.nothing_of_that_name');
SELECT * FROM bad('a.b.c.d');
SELECT * FROM bad('F_RANGE2');
SELECT * FROM bad('"f_range');
SELECT * FROM bad('f_none');
SELECT * FROM bad('f_text');
SELECT * FROM bad('f_three');
SELECT * FROM bad('f_narrow');
SELECT * FROM bad('f_procedure');
SELECT * FROM bad('f_a');
SELECT * FROM bad('f_range(1, 2)');
SELECT * FROM bad('f_range', table_name => 'empty');
\pset expanded off
-- where in the job's text it went wrong
SELECT bbm_create('bad', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2 ANDD true');
SELECT bbm_create('bad', 't', 'UPDATE t SET m = 1 WHERE id BETWEEN $1 AND $2');
-- case is folded, as in any other name
SELECT bbm_create('folded', 't', 'F_Range') IS NOT NULL AS created;
SELECT bbm_drop('folded');

-- nothing but what was good is there
SELECT name FROM batched_background_migrations ORDER BY id;
SELECT name, event FROM bbm_events ORDER BY id;
SELECT count(*) AS jobs FROM batched_background_migration_jobs;
SELECT min(n), max(n), count(*) FROM t;
-- the search_path, and all that is set, is as it was
SHOW search_path;

-- a function it is, with parameters for a range and the other form as well: the registry's form wins
CREATE FUNCTION f_both(text, text, bigint, bigint, int) RETURNS int LANGUAGE sql AS 'SELECT 5';
CREATE FUNCTION f_both(int, int) RETURNS int LANGUAGE sql AS 'SELECT 2';
SELECT bbm_create('both forms', 't', 'f_both') IS NOT NULL AS created;
CALL bbm_run('both forms');
SELECT rows FROM bbm_jobs('both forms');

-- the search_path of the definition is the job's
CREATE SCHEMA elsewhere;
CREATE TABLE elsewhere.t (id int PRIMARY KEY, n int);
INSERT INTO elsewhere.t VALUES (1, 0);
SET search_path = elsewhere, public;
SELECT bbm_create('elsewhere', 't', 'UPDATE t SET n = 7 WHERE id BETWEEN $1 AND $2') IS NOT NULL AS created;
RESET search_path;
SELECT table_name, job_search_path FROM batched_background_migrations WHERE name = 'elsewhere';
SELECT bbm_start('elsewhere');
SELECT bbm_wait('elsewhere', '1 minute');
SELECT * FROM elsewhere.t;
SELECT count(*) FROM public.t WHERE n = 7;
-- also when it is empty
SET search_path = '';
SELECT public.bbm_create('unqualified', 't', 'UPDATE public.t SET n = 8 WHERE id BETWEEN $1 AND $2');
SELECT public.bbm_create('qualified', 'public.t', 'UPDATE public.t SET n = 8 WHERE id BETWEEN $1 AND $2') > 0 AS created;
RESET search_path;
CALL bbm_run('qualified');
SELECT count(*) FROM public.t WHERE n = 8;

-- a temporary table does not come before the real one
CREATE TEMPORARY TABLE t (id int PRIMARY KEY, n int);
INSERT INTO pg_temp.t VALUES (1, 0);
SELECT bbm_create('shadowed', 't', 'UPDATE t SET n = 9 WHERE id BETWEEN $1 AND $2') > 0 AS created;
CALL bbm_run('shadowed');
SELECT count(*) FROM public.t WHERE n = 9;
SELECT * FROM pg_temp.t;

SET client_min_messages = warning;
DROP EXTENSION bbm;
DROP TABLE pg_temp.t;
DROP VIEW v;
DROP MATERIALIZED VIEW mv;
DROP FOREIGN DATA WRAPPER regress_wrapper CASCADE;
DROP SCHEMA "Odd Schema", elsewhere CASCADE;
DROP TABLE t, k, copy, empty, keyed_by_domain, other_keys, temp;
DROP DOMAIN positive;
DROP SEQUENCE s;
DROP FUNCTION f_range, f_big, f_registry, f_none, f_text, f_three, f_narrow, f_both(int, int),
    f_both(text, text, bigint, bigint, int), f_a(int, bigint), f_a(bigint, int), fails, bad;
DROP PROCEDURE f_procedure;
