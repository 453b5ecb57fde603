--
-- Batching keys: types, orders, indexes, bounds.
--

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
ALTER SYSTEM SET bbm.retry_delay = '10 ms';
SELECT pg_reload_conf();
\c -
SET client_min_messages = warning;
-- settings that the texts of values depend on, none as they are by default
SET datestyle = 'German, DMY';
SET intervalstyle = sql_standard;
SET timezone = 'Asia/Kathmandu';
SET extra_float_digits = -15;
SET bytea_output = escape;
SET array_nulls = off;
SET lc_monetary = 'C.UTF-8';

CREATE FUNCTION outcome(name text) RETURNS TABLE (status smallint, code smallint, sqlstate text, message text,
                                                  detail text, hint text) LANGUAGE sql AS
    'SELECT status, failure_error_code, error_sqlstate, error_message, error_detail, error_hint
     FROM batched_background_migrations m WHERE m.name = $1';

-- every type: each row exactly once, and ranges that do not overlap, whatever the size
CREATE TYPE mood AS ENUM ('z', 'a', 'm', 'B');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN whole AS int CHECK (value < 1000);
CREATE DOMAIN deeper AS whole;
CREATE DOMAIN words AS text;
CREATE DOMAIN moods AS mood;
CREATE DOMAIN numbers AS int[];
CREATE DOMAIN price AS numeric(8, 3);
CREATE SCHEMA ext;
CREATE EXTENSION citext SCHEMA ext;
CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE types (type text, vals text);
INSERT INTO types VALUES
    ('smallint', 'SELECT generate_series(-5, 10)'),
    ('numeric', 'SELECT unnest(''{NaN,Infinity,-Infinity,1,1.10,1.1000001,-3,1e100,1e-50}''::numeric[])'),
    ('numeric(10,2)', 'SELECT x / 7.0 FROM generate_series(1, 20) x'),
    ('uuid', 'SELECT md5(x::text)::uuid FROM generate_series(1, 20) x'),
    ('text', $$SELECT unnest(ARRAY['', 'a', '"', '''', '{}', '{a,b}', '\', '\"', E'\n', E'a\nb', ',', 'NULL', 'null', ' ',
               ' a', 'a ', 'é', '日本', 'x''y', repeat('z', 2000), repeat(md5('1'), 80) || md5('2')])$$),
    ('text COLLATE "C"', $$SELECT unnest(ARRAY['a', 'B', 'b', 'A', 'é', 'É'])$$),
    ('text COLLATE any_case', $$SELECT unnest(ARRAY['a', 'B', 'c', 'D', 'é', 'F'])$$),
    ('varchar(40)', 'SELECT md5(x::text) FROM generate_series(1, 20) x'),
    ('char(7)', 'SELECT x::text FROM generate_series(1, 20) x'),
    ('name', 'SELECT ''x'' || generate_series(1, 20)'),
    ('"char"', 'SELECT chr(x) FROM generate_series(40, 60) x'),
    ('bytea', $$SELECT unnest('{"","\\x00","\\x5c","\\x275c2200","\\xff"}'::bytea[])$$),
    ('date', $$SELECT unnest(ARRAY['infinity', '-infinity', '0044-03-15 BC', '2024-01-02', '2024-02-01', '10000-01-01',
               '5874897-12-31']::date[])$$),
    ('timestamp', $$SELECT unnest(ARRAY['infinity', '-infinity', '0044-03-15 01:02:03.123456 BC',
               '2024-01-02 00:00:00.000001', '2024-01-02 00:00:00.000002', '2024-02-01', '294276-12-31 23:59:59.999999']
               ::timestamp[])$$),
    ('timestamptz', $$SELECT unnest(ARRAY['infinity', '-infinity', '0044-03-15 01:02:03.123456 BC',
               '2024-01-02 00:00:00.000001', '2024-01-02 00:00:00.000002', '2024-02-01', '1850-01-01 00:00:01',
               '2024-11-03 01:30:00 America/New_York']::timestamptz[])$$),
    ('time', 'SELECT unnest(''{00:00,24:00,12:34:56.789012}''::time[])'),
    ('timetz', 'SELECT unnest(''{00:00+01,24:00-05,12:34:56.789012+00:30:15}''::timetz[])'),
    ('interval', $$SELECT unnest(ARRAY[make_interval(months => 1), make_interval(days => 30),
               make_interval(days => -1, hours => 2), make_interval(-1, -2, 0, 3, -4, -5, -6.789),
               make_interval(secs => 0.000001)])$$),
    ('inet', 'SELECT unnest(''{10.0.0.1,10.0.0.0/8,::1,fe80::/10}''::inet[])'),
    ('cidr', 'SELECT unnest(''{10.0.0.0/8,10.0.0.0/16,::1}''::cidr[])'),
    ('macaddr', 'SELECT unnest(''{08:00:2b:01:02:03,08:00:2b:01:02:04}''::macaddr[])'),
    ('float8', 'SELECT unnest(''{NaN,Infinity,-Infinity,0.1,0.2,0.30000000000000004,0.3,1e-300,-0}''::float8[])'),
    ('float4', 'SELECT unnest(''{NaN,0.1,0.2,0.3,0.30000003,1.17e-38}''::float4[])'),
    ('bool', 'SELECT unnest(''{t,f}''::bool[])'),
    ('oid', 'SELECT generate_series(1, 20)'),
    ('regclass', 'SELECT attrelid::regclass FROM pg_attribute LIMIT 20'),
    ('money', 'SELECT unnest(''{1.23,-4.56,99999999.99}''::money[])'),
    ('bit(5)', 'SELECT x::bit(5) FROM generate_series(1, 20) x'),
    ('varbit', 'SELECT x::bit(5)::varbit FROM generate_series(1, 20) x'),
    ('tsvector', 'SELECT (''a'' || x)::tsvector FROM generate_series(1, 20) x'),
    ('jsonb', 'SELECT to_jsonb(x) FROM generate_series(1, 20) x'),
    ('int[]', 'SELECT ARRAY[x, x % 3] FROM generate_series(1, 20) x'),
    ('text[]', $$SELECT ARRAY['a,"\', x::text, NULL] FROM generate_series(1, 20) x$$),
    ('timestamp[]', $$SELECT ARRAY['2024-01-02'::timestamp + x * interval '1 us'] FROM generate_series(1, 9) x$$),
    ('int4range', 'SELECT int4range(x, x + 3) FROM generate_series(1, 20) x UNION ALL SELECT ''empty'''),
    ('tid', 'SELECT format(''(%s,1)'', x)::tid FROM generate_series(1, 20) x'),
    ('pg_lsn', 'SELECT (''0/'' || x)::pg_lsn FROM generate_series(1, 20) x'),
    ('mood', 'SELECT unnest(enum_range(NULL::mood))'),
    ('ext.citext', $$SELECT unnest(ARRAY['a', 'B', 'c', 'D', 'e'])$$),
    ('pair', 'SELECT ROW(x, ''a'' || x)::pair FROM generate_series(1, 20) x'),
    ('deeper', 'SELECT generate_series(-5, 20)'),
    ('words', 'SELECT ''a'' || generate_series(-5, 20)'),
    ('moods', 'SELECT unnest(enum_range(NULL::mood))'),
    ('numbers', 'SELECT ARRAY[x] FROM generate_series(1, 9) x'),
    ('price', 'SELECT x / 7.0 FROM generate_series(1, 20) x');
-- a row for each type and size that went wrong
CREATE TABLE wrong (type text, size int, sub int, what text);
-- a bound that is read as another value may be no end
SET statement_timeout = '30 s';
\set ECHO none
\o /dev/null
SELECT format($$
    CREATE TABLE typed (k %1$s PRIMARY KEY, n int NOT NULL DEFAULT 0)$$, type),
    format('INSERT INTO typed SELECT DISTINCT v::%2$s FROM (%1$s) q(v)', vals, regexp_replace(type, ' COLLATE .*', '')),
    format($$SELECT bbm_update('typed', 'typed', 'n = n + 1', batch_size => %s, sub_batch_size => %L)$$, size, sub),
    $$CALL bbm_run('typed')$$,
    format($$INSERT INTO wrong SELECT %L, %s, %L, format('done %%s times: %%s', n, k) FROM typed WHERE n <> 1$$,
           type, size, sub),
    format($$INSERT INTO wrong SELECT %1$L, %2$s, %3$L, format('%%s jobs of %%s rows', count(*), sum(rows))
        FROM bbm_jobs('typed') HAVING sum(rows) IS DISTINCT FROM (SELECT count(*) FROM typed)
        OR count(*) <> ceil((SELECT count(*) FROM typed) / %2$s::numeric)$$, type, size, sub),
    $$SELECT bbm_drop('typed')$$,
    'DROP TABLE typed'
FROM types, unnest(ARRAY[1, 7], ARRAY[NULL, 3]) s(size, sub) \gexec
\o
\set ECHO all
SELECT * FROM wrong;
RESET datestyle;
RESET intervalstyle;
RESET timezone;
RESET statement_timeout;
RESET array_nulls;
RESET extra_float_digits;
RESET bytea_output;
RESET lc_monetary;

-- several columns, in every mix of directions, with an index that is wider than the key
CREATE TABLE wide (a int NOT NULL, b text NOT NULL, c date NOT NULL, n int NOT NULL DEFAULT 0, note text);
INSERT INTO wide SELECT x % 3, x % 4, date '2024-01-01' + x % 5 FROM generate_series(1, 60) x;
\set ECHO none
\o /dev/null
SELECT 'UPDATE wide SET n = 0',
    format('CREATE %s INDEX wide_key ON wide (%s) INCLUDE (note)', CASE WHEN keys = 'a, b, c' THEN 'UNIQUE' END,
           concat_ws(', ', 'a ' || da || na, 'b ' || db, 'c ' || dc)),
    format($$SELECT bbm_update('wide', 'wide', 'n = n + 1', column_name => %L, batch_size => %s, sub_batch_size => %s)$$,
           keys, size, coalesce(sub::text, 'NULL')),
    $$CALL bbm_run('wide')$$,
    format($$INSERT INTO wrong SELECT %L, %s, %L, format('done %%s times: %%s %%s %%s', n, a, b, c) FROM wide WHERE n <> 1$$,
           concat_ws(' ', keys, da, na, db, dc), size, sub),
    $$SELECT bbm_drop('wide')$$,
    'DROP INDEX wide_key'
FROM unnest('{ASC,DESC}'::text[]) da, unnest('{ASC,DESC}'::text[]) db, unnest('{ASC,DESC}'::text[]) dc,
    unnest('{" NULLS FIRST"," NULLS LAST"}'::text[]) na, unnest('{"a, b, c","a, b"}'::text[]) keys,
    unnest('{7}'::int[], '{3}'::int[]) s(size, sub) \gexec
\o
\set ECHO all
SELECT * FROM wrong;
-- its predicate is one that the index answers, whatever the directions
CREATE FUNCTION plan_of(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP RETURN NEXT line; END LOOP;
END $$;
CREATE FUNCTION plan_of_job(name text, bounds text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE query text := (SELECT job_signature_name FROM batched_background_migrations m WHERE m.name = $1);
BEGIN
    FOR i IN REVERSE cardinality(bounds)..1 LOOP query := replace(query, '$' || i, quote_literal(bounds[i])); END LOOP;
    RETURN QUERY SELECT plan_of(query);
END $$;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
CREATE UNIQUE INDEX wide_key ON wide (a, b, c);
SELECT bbm_update('rows', 'wide', 'n = n + 1', column_name => 'a, b, c') > 0 AS defined;
SELECT plan_of_job('rows', '{0,1,2024-01-01,1,2,2024-01-03}');
DROP INDEX wide_key;
CREATE UNIQUE INDEX wide_key ON wide (a, b DESC, c);
SELECT bbm_update('mixed', 'wide', 'n = n + 1', column_name => 'a, b, c') > 0 AS defined;
SELECT plan_of_job('mixed', '{0,1,2024-01-01,1,2,2024-01-03}');
RESET enable_seqscan;
RESET enable_bitmapscan;
SELECT name, key_order, min_key, max_key FROM batched_background_migrations ORDER BY id;
SELECT count(bbm_drop(name)) FROM batched_background_migrations;

-- statements and functions with such keys
UPDATE wide SET n = 0;
SELECT bbm_create('statement', 'wide', 'UPDATE wide SET n = n + 1 WHERE (a, c) >= ($1, $2) AND (a, c) <= ($3, $4)',
                  column_name => 'a, c', batch_size => 7);
CREATE INDEX wide_ac ON wide (a, c);
SELECT bbm_create('statement', 'wide', 'UPDATE wide SET n = n + 1 WHERE (a, c) >= ($1, $2) AND (a, c) <= ($3, $4)',
                  column_name => 'a, c', batch_size => 7) > 0 AS defined;
CALL bbm_run('statement');
CREATE FUNCTION by_row(a0 int, c0 date, a1 int, c1 date) RETURNS int LANGUAGE sql AS
    'WITH u AS (UPDATE wide SET n = n + 1 WHERE (a, c) >= (a0, c0) AND (a, c) <= (a1, c1) RETURNING 1) SELECT count(*)::int FROM u';
SELECT bbm_create('function', 'wide', 'by_row', column_name => 'a, c', batch_size => 7) > 0 AS defined;
CALL bbm_run('function');
CREATE FUNCTION by_text(text, text, min date, max date, batch_size int) RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE format('UPDATE %s SET n = n + 1 WHERE %I BETWEEN $1 AND $2', $1, $2) USING min, max; END $$;
CREATE INDEX wide_c ON wide (c);
SELECT bbm_create('registry', 'wide', 'by_text', column_name => 'c', batch_size => 7) > 0 AS defined;
CALL bbm_run('registry');
SELECT n, count(*) FROM wide GROUP BY n;
SELECT name, rows_done FROM bbm_status() ORDER BY name;
SELECT bbm_create('too few', 'wide', 'UPDATE wide SET n = 1 WHERE (a, c) >= ($1, $2)', column_name => 'a, c');
SELECT count(bbm_drop(name)) FROM batched_background_migrations;

-- bounds that are given
UPDATE wide SET n = 0;
SELECT bbm_update('bounds', 'wide', 'n = n + 1', column_name => 'a, c', batch_size => 7,
                  min_key => '{0,2024-01-03}', max_key => '{2,2024-01-02}') > 0 AS defined;
CALL bbm_run('bounds');
SELECT n, min((a, c)::text), max((a, c)::text), count(*) FROM wide GROUP BY n, (a, c) < (0, '2024-01-03') ORDER BY 2;
SELECT bbm_update('x', 'wide', 'n = 1', column_name => 'a, c', min_key => '{1}');
SELECT bbm_update('x', 'wide', 'n = 1', column_name => 'c', max_key => '{2024-01-01,2024-01-02}');
SELECT bbm_update('x', 'wide', 'n = 1', column_name => 'a, c', min_key => '{1,NULL}');
SELECT bbm_update('x', 'wide', 'n = 1', column_name => 'a, c', max_key => '{NULL,2024-01-02}');
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, min_key, max_key)
VALUES ('null bound', 1, 10, 'UPDATE wide SET n = 1 WHERE (a, c) BETWEEN ($1, $2) AND ($3, $4)', 'public.wide', 'a, c', '{NULL,NULL}', '{1,2024-01-02}');
CALL bbm_run('null bound');
SELECT bbm_drop('null bound');
SELECT bbm_update('x', 'wide', 'n = 1', column_name => 'a, c', max_key => '{1,soon}');
SELECT bbm_update('x', 'wide', 'n = 1', column_name => 'a, c', min_key => '{1,2024-01-02}', max_key => '{1,2024-01-01}');
SELECT bbm_update('x', 'wide', 'n = 1', column_name => 'a, c', min_value => 1);
SELECT bbm_update('x', 'wide', 'n = 1', column_name => 'a', max_key => '{1}');
SELECT bbm_update('x', 'wide', 'n = 1', 'n = 0', batching_strategy => 'BlockRangeBatchingStrategy', min_value => 1);

-- names
CREATE TABLE named ("a,b" int PRIMARY KEY, "Quo""ted" int NOT NULL, low int NOT NULL, n int NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX ON named ("Quo""ted", low);
INSERT INTO named SELECT x, x, x FROM generate_series(1, 5) x;
SELECT bbm_update('one', 'named', 'n = n + 1', batch_size => 2) > 0 AS one,
       bbm_update('two', 'named', 'n = n + 1', batch_size => 2, column_name => '"Quo""ted",LOW') > 0 AS two;
SELECT name, column_name FROM batched_background_migrations WHERE table_name ~ 'named' ORDER BY id;
CALL bbm_run('one');
CALL bbm_run('two');
SELECT n, count(*) FROM named GROUP BY n;
SELECT bbm_update('x', 'named', 'n = 1', column_name => 'low, low');
SELECT bbm_update('x', 'named', 'n = 1', column_name => 'low, nope');
SELECT bbm_update('x', 'named', 'n = 1', column_name => 'low,');
SELECT bbm_update('x', 'named', 'n = 1', column_name => '');
SELECT bbm_update('x', 'named', 'n = 1', column_name => 'low, ctid');
CREATE TABLE no_order (j json NOT NULL, x xml NOT NULL, p point NOT NULL, l json[] NOT NULL, n int);
SELECT bbm_update('x', 'no_order', 'n = 1', column_name => 'j');
SELECT bbm_update('x', 'no_order', 'n = 1', column_name => 'x');
SELECT bbm_update('x', 'no_order', 'n = 1', column_name => 'p');
SELECT bbm_update('x', 'no_order', 'n = 1', column_name => 'l');
-- names of objects within values: not in their order, and they may change
CREATE TYPE of_class AS (class regclass, x int);
CREATE TABLE classes (a regclass[] PRIMARY KEY, b of_class UNIQUE, c oid[] UNIQUE, n int NOT NULL DEFAULT 0);
SELECT bbm_update('x', 'classes', 'n = 1');
SELECT bbm_update('x', 'classes', 'n = 1', column_name => 'b');
SELECT bbm_update('oids', 'classes', 'n = 1', column_name => 'c') > 0 AS defined;
SELECT bbm_drop('oids');
DROP TABLE classes;
DROP TYPE of_class;
SELECT count(bbm_drop(name)) FROM batched_background_migrations;

--
-- The table changes in mid-run.  A trigger pauses the migration at a row.
--
CREATE TABLE stop_at (id int);
CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM stop_at s WHERE s.id = new.id;
    IF found THEN PERFORM bbm_pause('m'); END IF;
    RETURN new;
END $$;
-- a table of 20 rows, of which the migration has done some
CREATE PROCEDURE started(columns text, vals text, column_name text DEFAULT NULL, index_name text DEFAULT NULL)
LANGUAGE plpgsql AS $$
BEGIN
    DROP TABLE IF EXISTS c;
    PERFORM bbm_drop('m', true);
    EXECUTE format('CREATE TABLE c (id int, %s, n int NOT NULL DEFAULT 0)', columns);
    EXECUTE format('INSERT INTO c SELECT x, %s FROM generate_series(1, 20) x', vals);
    CREATE TRIGGER stop BEFORE UPDATE ON c FOR EACH ROW EXECUTE FUNCTION stop();
    IF index_name IS NOT NULL THEN EXECUTE format('CREATE UNIQUE INDEX %I ON c (%s)', index_name, column_name); END IF;
    PERFORM bbm_update('m', 'c', 'n = n + 1', column_name => replace(column_name, ' DESC', ''), index_name => index_name,
                       batch_size => 3);
    INSERT INTO stop_at VALUES (5);
END $$;
-- an integer may change its width
CALL started('k int PRIMARY KEY', 'x');
CALL bbm_run('m');
ALTER TABLE c ALTER k TYPE bigint;
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n;
CALL started('k int PRIMARY KEY', 'x');
CALL bbm_run('m');
ALTER TABLE c ALTER k TYPE numeric;
CALL bbm_run('m');
SELECT * FROM outcome('m') \gx
-- text may become varchar, but not what is ordered otherwise
CALL started('k text PRIMARY KEY', '100 + x');
CALL bbm_run('m');
ALTER TABLE c ALTER k TYPE varchar(20);
INSERT INTO stop_at VALUES (10);
CALL bbm_run('m');
ALTER TABLE c ALTER k TYPE text COLLATE "C";
CALL bbm_run('m');
SELECT * FROM outcome('m') \gx
ALTER TABLE c ALTER k TYPE ext.citext COLLATE "default";
CALL bbm_run('m');
ALTER TABLE c ALTER k TYPE int USING k::text::int;
CALL bbm_run('m');
SELECT * FROM outcome('m') \gx
ALTER TABLE c ALTER k TYPE text;
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n;
-- digits may be added, but keys that are rounded cross the bounds of ranges
CALL started('k numeric(10,2) PRIMARY KEY', 'x + 0.6');
CALL bbm_run('m');
ALTER TABLE c ALTER k TYPE numeric(12,4);
INSERT INTO stop_at VALUES (10);
CALL bbm_run('m');
ALTER TABLE c ALTER k TYPE numeric(12,1);
CALL bbm_run('m');
SELECT * FROM outcome('m') \gx
ALTER TABLE c ALTER k TYPE numeric;
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n;
CREATE DOMAIN moment AS timestamptz(3);
CALL started('k moment PRIMARY KEY, o time', $$timestamptz '2024-01-01' + x * interval '0.4 s', NULL$$);
CALL bbm_run('m');
ALTER TABLE c ALTER k TYPE timestamptz(0) USING k + id * interval '1 s';
CALL bbm_run('m');
SELECT message FROM outcome('m');
SELECT n, count(*) FROM c GROUP BY n;
-- so do those of an array, and intervals of fewer fields; microseconds are all there are
CALL started('k numeric(10,2)[] PRIMARY KEY', 'ARRAY[x + 0.6]');
CALL bbm_run('m');
ALTER TABLE c ALTER k TYPE numeric(10,0)[];
CALL bbm_run('m');
SELECT message FROM outcome('m');
CALL started('k interval PRIMARY KEY', $$make_interval(days => x, hours => 13)$$);
CALL bbm_run('m');
ALTER TABLE c ALTER k TYPE interval day to second;
INSERT INTO stop_at VALUES (10);
CALL bbm_run('m');
ALTER TABLE c ALTER k TYPE interval day;
CALL bbm_run('m');
SELECT message FROM outcome('m');
CALL started('k timestamptz PRIMARY KEY', $$timestamptz '2024-01-01' + x * interval '0.4 s'$$);
CALL bbm_run('m');
ALTER TABLE c ALTER k TYPE timestamptz(6);
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n;
-- a type, or a collation, that was renamed is the same one; another one that has got its name is not
CREATE COLLATION plain (locale = 'C');
CREATE SCHEMA elsewhere;
CALL started('k text COLLATE plain PRIMARY KEY', '100 + x');
CALL bbm_run('m');
ALTER COLLATION plain RENAME TO simple;
ALTER COLLATION simple SET SCHEMA elsewhere;
INSERT INTO stop_at VALUES (10);
CALL bbm_run('m');
CREATE COLLATION other_order (locale = 'POSIX');
ALTER TABLE c ALTER k TYPE text COLLATE other_order;
CALL bbm_run('m');
SELECT message, detail FROM outcome('m');
ALTER TABLE c ALTER k TYPE text COLLATE elsewhere.simple;
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n;
DROP TABLE c;
DROP COLLATION elsewhere.simple, other_order;
CREATE TYPE "a, b" AS (a int, b int);
CREATE DOMAIN steps AS ext.citext;
CALL started('k "a, b" NOT NULL, o steps NOT NULL', '(x / 4, x)::"a, b", x', 'k, o', 'c_key');
CALL bbm_run('m');
ALTER TYPE "a, b" RENAME TO renamed;
ALTER DOMAIN steps RENAME TO stairs;
ALTER EXTENSION citext SET SCHEMA elsewhere;
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n;
DROP TABLE c;
DROP TYPE renamed;
DROP DOMAIN stairs;
-- ... and where its operators go elsewhere in the midst of a run
ALTER EXTENSION citext SET SCHEMA ext;
CALL started('k ext.citext PRIMARY KEY', '100 + x');
TRUNCATE stop_at;
CREATE FUNCTION moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.id = 5 THEN ALTER EXTENSION citext SET SCHEMA elsewhere; END IF;
    RETURN new;
END $$;
CREATE TRIGGER moves BEFORE UPDATE ON c FOR EACH ROW EXECUTE FUNCTION moves();
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n;
SELECT max(attempts) AS attempts, sum(requeued) AS requeued FROM bbm_jobs('m');
DROP TABLE c;
DROP FUNCTION moves;
ALTER EXTENSION citext SET SCHEMA ext;
DROP SCHEMA elsewhere;
-- arrays with nulls, whatever array_nulls is
CALL started('k text[] PRIMARY KEY', 'ARRAY[CASE WHEN x % 2 = 0 THEN x::text END, x::text]');
SET array_nulls = off;
CALL bbm_run('m');
CALL bbm_run('m');
RESET array_nulls;
SELECT n, count(*) FROM c GROUP BY n;
-- a bound whose text the type no longer accepts
CREATE TYPE grade AS ENUM ('one', 'two', 'three', 'four');
CALL started('k grade NOT NULL, o int NOT NULL', '(enum_range(NULL::grade))[1 + (x - 1) / 5], x', 'k, o', 'c_key');
CALL bbm_run('m');
ALTER TYPE grade RENAME VALUE 'two' TO 'second';
ALTER TYPE grade RENAME VALUE 'four' TO 'fourth';
CALL bbm_run('m');
SELECT * FROM outcome('m') \gx
ALTER TYPE grade RENAME VALUE 'second' TO 'two';
ALTER TYPE grade RENAME VALUE 'fourth' TO 'four';
ALTER TYPE grade ADD VALUE 'half' BEFORE 'one';
INSERT INTO stop_at VALUES (10);
CALL bbm_run('m');
-- ... or would take for another value
ALTER TYPE grade RENAME VALUE 'two' TO 'x';
ALTER TYPE grade RENAME VALUE 'three' TO 'two';
ALTER TYPE grade RENAME VALUE 'x' TO 'three';
CALL bbm_run('m');
SELECT * FROM outcome('m') \gx
ALTER TYPE grade RENAME VALUE 'two' TO 'x';
ALTER TYPE grade RENAME VALUE 'three' TO 'two';
ALTER TYPE grade RENAME VALUE 'x' TO 'three';
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n;

-- the index is gone, is not valid, or has another order: code 2; with a better one it goes on
CALL started('k int NOT NULL', 'x', 'k', 'c_key');
CALL bbm_run('m');
DROP INDEX c_key;
CALL bbm_run('m');
SELECT * FROM outcome('m') \gx
SELECT bbm_alter('m', index_name => 'nope');
CREATE UNIQUE INDEX other ON c (k DESC NULLS LAST) INCLUDE (n);
SELECT bbm_alter('m', index_name => 'other');
INSERT INTO stop_at VALUES (10);
CALL bbm_run('m');
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'other'::regclass;
CALL bbm_run('m');
SELECT * FROM outcome('m') \gx
UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'other'::regclass;
UPDATE batched_background_migrations SET index_name = NULL WHERE name = 'm';
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n;
CALL started('k int NOT NULL, o int NOT NULL', 'x % 4, x', 'k, o DESC', 'c_key');
CALL bbm_run('m');
DROP INDEX c_key;
CREATE UNIQUE INDEX c_key ON c (k, o);
CALL bbm_run('m');
SELECT * FROM outcome('m') \gx
CREATE UNIQUE INDEX better ON c (k DESC, o);
SELECT bbm_alter('m', index_name => 'better');
CALL bbm_run('m');
SELECT n, count(*) FROM c GROUP BY n;
-- a function that processes batch_size rows gets the number of all that share a key
CREATE TABLE shared (k text NOT NULL, n int NOT NULL DEFAULT 0);
INSERT INTO shared SELECT chr(97 + i % 3) FROM generate_series(1, 45) i;
CREATE INDEX ON shared (k);
CREATE FUNCTION up_to(table_name text, column_name text, min text, max text, batch_size int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE shared SET n = n + 1 WHERE ctid = ANY (ARRAY(SELECT ctid FROM shared WHERE k BETWEEN min AND max LIMIT batch_size));
END $$;
SELECT bbm_create(name, 'shared', 'up_to', column_name => 'k', batch_size => 20, sub_batch_size => part) > 0 AS defined
FROM (VALUES ('whole', NULL), ('parts', 4)) v (name, part);
CALL bbm_run('whole');
SELECT n, count(*) FROM shared GROUP BY n;
CALL bbm_run('parts');
SELECT n, count(*) FROM shared GROUP BY n;
SELECT bbm_drop('whole'), bbm_drop('parts');
DROP FUNCTION up_to;
DROP TABLE shared;
-- the order is the same one, whatever the session, the role or the database quotes
CALL started('k text PRIMARY KEY', '100 + x');
SET quote_all_identifiers = on;
CALL bbm_run('m');
RESET quote_all_identifiers;
SELECT n, count(*) FROM c GROUP BY n;
-- a migration that has started with one key does not change to another
CALL started('k text PRIMARY KEY', '100 + x');
CALL bbm_run('m');
UPDATE batched_background_migrations SET key_order = 'pg_catalog.text COLLATE pg_catalog."C"' WHERE name = 'm';
UPDATE batched_background_migrations SET column_name = 'id' WHERE name = 'm';
SELECT bbm_drop('m');

-- a plain INSERT: the bounds of such a key are taken when it is started
UPDATE c SET n = 0;
DROP TRIGGER stop ON c;
INSERT INTO batched_background_migrations (name, max_value, batch_size, status, job_signature_name, table_name, column_name)
VALUES ('plain', 1, 3, 1, 'UPDATE c SET n = n + 1 WHERE k BETWEEN $1 AND $2', 'public.c', 'k');
CALL bbm_run('plain');
SELECT min_key, max_key, key_order FROM batched_background_migrations;
SELECT n, count(*) FROM c GROUP BY n;
-- with bounds of its own, good or bad
INSERT INTO batched_background_migrations (name, max_value, batch_size, status, job_signature_name, table_name, column_name,
                                           min_key, max_key)
VALUES ('given', 1, 3, 1, 'UPDATE c SET n = n + 1 WHERE k BETWEEN $1 AND $2', 'public.c', 'k', '{105}', '{107}'),
       ('arity', 1, 3, 1, 'UPDATE c SET n = n + 1 WHERE k BETWEEN $1 AND $2', 'public.c', 'k', '{105,1}', '{107}');
CALL bbm_run('given');
SELECT n, min(k), max(k), count(*) FROM c GROUP BY n, k > '107' ORDER BY 2;
CALL bbm_run('arity');
SELECT * FROM outcome('arity') \gx
-- an empty table has nothing to do, until it is started
CREATE TABLE later (k text PRIMARY KEY, n int NOT NULL DEFAULT 0);
SELECT bbm_update('later', 'later', 'n = n + 1') > 0 AS defined;
INSERT INTO later VALUES ('x'), ('y');
CALL bbm_run('later');
SELECT * FROM later ORDER BY k;
SELECT count(bbm_drop(name)) FROM batched_background_migrations;

DROP EXTENSION bbm;
DROP TABLE types, wrong, wide, named, no_order, stop_at, c, later;
DROP FUNCTION outcome, plan_of, plan_of_job, by_row, by_text, stop;
DROP PROCEDURE started;
DROP EXTENSION citext;
DROP SCHEMA ext;
DROP COLLATION any_case;
DROP DOMAIN deeper, whole, words, moods, numbers, price, moment;
DROP TYPE mood, pair, grade;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();
