--
-- The statements of bbm_update and bbm_delete: composed of a set and a where, which
-- stay in their places and are refused when they are not what they should be.
--

CREATE EXTENSION bbm;
\getenv bbm_test BBM_TEST_MODULE
CREATE FUNCTION test_statement(target regclass, set text, filter text DEFAULT NULL, range text DEFAULT NULL,
    returns boolean DEFAULT false, key smallint[] DEFAULT '{1}',
    allow_key_change boolean DEFAULT false) RETURNS text LANGUAGE c AS :'bbm_test', 'bbm_test_statement';
CREATE FUNCTION test_condition(target regclass, condition text, what text DEFAULT 'where', range text DEFAULT NULL)
    RETURNS text LANGUAGE c AS :'bbm_test', 'bbm_test_condition';
CREATE FUNCTION test_cascades(regclass) RETURNS text STRICT LANGUAGE c AS :'bbm_test', 'bbm_test_cascades';
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/fails.inc'
\i :helper
CREATE TABLE t (id int PRIMARY KEY, a int, b int, c text, tags text[], doc jsonb,
                twice int GENERATED ALWAYS AS (a * 2) STORED, always int GENERATED ALWAYS AS IDENTITY);
INSERT INTO t (id, a, c) SELECT i, i, 'c' || i FROM generate_series(1, 6) i;
CREATE TABLE other (id int PRIMARY KEY, v int, "where" int);
INSERT INTO other SELECT i, i * 10, i * 100 FROM generate_series(1, 6) i;

-- what comes out
SELECT test_statement('t', 'b = a');
SELECT test_statement('t', 'b = a', 'b IS NULL', 't.id BETWEEN $1 AND $2');
SELECT test_statement('t', 'b = a', 'b IS NULL', 't.id BETWEEN $1 AND $2', returns => true);
SELECT test_statement('t', 'b = a', NULL, 't.id BETWEEN $1 AND $2', returns => true);
SELECT test_statement('t', 'b = v FROM other WHERE other.id = t.id', 'b IS NULL', 't.id BETWEEN $1 AND $2');
SELECT test_statement('t', 'b = v FROM other JOIN other o2 USING (id, v)', 't.id > 2', 't.id BETWEEN $1 AND $2');
SELECT test_statement('t', '(a, b) = (SELECT v, count(*) FROM other WHERE other.id = t.id GROUP BY v)', 'a > 1');
SELECT test_statement('t', NULL);
SELECT test_statement('t', NULL, 'a % 2 = 0', 't.id BETWEEN $1 AND $2', returns => true);
SELECT test_condition('t', 'b IS NULL', range => 't.id BETWEEN $1 AND $2');
SELECT test_condition('t', 't.b IS NULL');
-- where a WHERE is, and where none is
SELECT test_statement('t', 'a = other.where FROM other WHERE other.where > 0', 't.id > 0');
SELECT test_statement('t', 'a = (other) . where FROM other', 't.id > 0');
SELECT test_statement('t', $$c = ' WHERE (', b = count FROM (SELECT count(*) FILTER (WHERE v > 1) FROM other WHERE id > 0) o$$, 'a > 1');
SELECT test_statement('t', $$c = $w$ WHERE $w$ || /* WHERE ( */ e'\' WHERE' , "tags" [ (SELECT 1 WHERE true) ] = U&'\0061' -- WHERE
FROM other "WHERE" wHeRe"WHERE".id=t.id-- at the end$$, 'a > 1 -- too', 'true');
-- statements that run as they are
CREATE FUNCTION run(statement text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN EXECUTE statement; GET DIAGNOSTICS n = ROW_COUNT; RETURN n; END $$;
SELECT run(test_statement('t', 'b = v -- the value
FROM other -- joined
WHERE other.id = t.id OR false -- by id', 'a > 3 OR false -- some', 't.id < 6'));
SELECT run(test_statement('t', 'a = a', 'a = 1 OR a = 2', 'id = 1'));
SELECT run(test_statement('t', 'tags = ARRAY[''x'', c], doc = ''{"k": [1, 2]}'', (a, b) = ROW (a, 0)', 'a BETWEEN 2 AND 3'));
SELECT run(test_statement('t', 'a = DEFAULT', 'a = 2', 'id = 3'));
SELECT run(test_statement('t', 'doc[''k''] = ''1''', 'doc IS NOT NULL'));
SELECT run(test_statement('t', NULL, 'a = 6 -- the last'));
SELECT run(test_statement('t', 'twice = DEFAULT', 'a = 6'));
SELECT id, a, b, c, tags, doc FROM t ORDER BY id;
-- now() does not change within a statement; tableoid stays with the row
SELECT test_condition('t', 'now() > current_timestamp - interval ''1 day'' AND tableoid = ''t''::regclass');
SELECT test_condition('t', 'EXISTS (SELECT FROM other WHERE other.id = t.id AND other.ctid IS NOT NULL)');

\pset expanded on
-- a where that is more, or less, than an expression
CREATE FUNCTION bad(condition text) RETURNS TABLE (state text, message text, detail text, hint text) LANGUAGE sql AS $$
    SELECT (fails(format('SELECT test_statement(''t'', ''b = 1'', %L)', condition))).* $$;
SELECT * FROM bad('true) OR (true');
SELECT * FROM bad('true); DROP TABLE t; SELECT (true');
SELECT * FROM bad('true;');
SELECT * FROM bad('');
SELECT * FROM bad('-- nothing');
SELECT * FROM bad('true /* not closed');
SELECT * FROM bad('c = ''not closed');
SELECT * FROM bad('true ORDER BY 1');
SELECT * FROM bad('true LIMIT ALL');
SELECT * FROM bad('true OFFSET 0');
SELECT * FROM bad('true GROUP BY ()');
SELECT * FROM bad('true FOR UPDATE');
SELECT * FROM fails($$SELECT test_condition('t', 'true FOR READ ONLY')$$);
SELECT * FROM bad('true UNION SELECT 1');
SELECT * FROM bad('true WINDOW w AS ()');
SELECT * FROM bad('true RETURNING *');
SELECT * FROM bad('*');
SELECT * FROM bad('t.*');
SELECT state, message FROM bad('DEFAULT');
SELECT * FROM bad('CURRENT OF c');
SELECT * FROM bad('a = 1, b = 1');
-- not of the table's columns, or not a condition on them that lasts
SELECT * FROM bad('nothing > 1');
SELECT * FROM bad('other.v > 1');
SELECT * FROM bad('public.t.a > 1 AND nowhere.t.a > 1');
SELECT * FROM bad('EXISTS (SELECT FROM nowhere)');
SELECT * FROM bad('a');
SELECT * FROM bad('a > random()');
SELECT * FROM bad('EXISTS (SELECT FROM other WHERE v > random())');
SELECT * FROM bad('a > (SELECT nextval(''t_always_seq''))');
SELECT * FROM bad('ctid > ''(0,0)''');
SELECT * FROM bad('EXISTS (SELECT FROM other WHERE t.xmin = other.xmin)');
SELECT state, message FROM bad('count(*) > 1');
SELECT state, message FROM bad('row_number() OVER () > 1');
SELECT * FROM bad('a > $1');
CREATE FUNCTION since(n int, r float DEFAULT random()) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT n > r';
SELECT state, message FROM bad('since(a)');
SELECT * FROM fails($$SELECT test_condition('t', 'nothing > 1', 'check')$$);
SELECT * FROM fails($$SELECT test_statement('t', NULL, 'other.v = 1')$$);
-- a name in two tables, which the where alone does not show
SELECT * FROM fails($$SELECT test_statement('t', 'b = v FROM other WHERE other.id = t.id', 'id > 1')$$);
SELECT * FROM fails($$SELECT test_statement('t', 'b = v FROM other WHERE other.id = t.id', 'v > 1')$$);

-- a set that is more, or less, than what stands after SET
CREATE FUNCTION bad_set(set text, options text DEFAULT '')
RETURNS TABLE (state text, message text, detail text, hint text) LANGUAGE sql AS $$
    SELECT (fails(format('SELECT test_statement(''t'', %L %s)', set, options))).* $$;
SELECT * FROM bad_set('');
SELECT * FROM bad_set('b = 1; DELETE FROM t');
SELECT * FROM bad_set('b = 1;');
SELECT * FROM bad_set('b = 1 RETURNING b');
SELECT * FROM bad_set('b = 1 WHERE true RETURNING b');
SELECT * FROM bad_set('b = 1 WHERE CURRENT OF c');
SELECT * FROM bad_set('b = 1 WHERE');
SELECT * FROM bad_set('b = 1 WHERE true) OR (true');
SELECT * FROM bad_set('WITH w AS (SELECT 1) b = 1');
SELECT * FROM bad_set('b = 1 ORDER BY 1');
SELECT * FROM bad_set('b = (1');
SELECT * FROM bad_set('b = 1)');
SELECT * FROM bad_set('b = 1 /*');
SELECT * FROM bad_set('b');
SELECT * FROM bad_set('b = 1, b = 2');
SELECT * FROM bad_set('nothing = 1');
SELECT * FROM bad_set('b = nothing');
SELECT * FROM bad_set('b = v FROM nowhere');
SELECT state, message, detail FROM bad_set('ctid = ''(0,1)''');
SELECT * FROM bad_set('twice = 1');
SELECT * FROM bad_set('always = 1');
SELECT * FROM bad_set('b = ''x''');
SELECT * FROM bad_set('b = $1');
SELECT * FROM bad_set('b = 1 WHERE id = $2');
SELECT state, message FROM bad_set('b = 1 FROM t');
-- the batching key
SELECT * FROM bad_set('id = id + 1');
SELECT * FROM bad_set('(b, id) = (1, 2)');
SELECT * FROM bad_set('b = 1, c = ''x''', ', key => ''{1,4}''');
SELECT test_statement('t', 'id = id + 1', allow_key_change => true);
SELECT test_statement('t', 'b = 1', key => '{}');
-- ... and the partition key, on every level
CREATE TABLE parted (id int, region text, day date, kind text, v int) PARTITION BY LIST (region);
CREATE TABLE parted_a PARTITION OF parted FOR VALUES IN ('a') PARTITION BY RANGE (date_trunc('year', day::timestamp));
CREATE TABLE parted_a_1 (v int, kind text, gone int, day date, region text, id int);
ALTER TABLE parted_a_1 DROP COLUMN gone;
ALTER TABLE parted_a ATTACH PARTITION parted_a_1 DEFAULT;
SELECT * FROM fails($$SELECT test_statement('parted', 'v = 1, region = ''b''')$$);
SELECT * FROM fails($$SELECT test_statement('parted', 'day = now()')$$);
SELECT state, message FROM fails($$SELECT test_statement('parted_a', 'region = ''b''', key => '{}')$$);
SELECT state, message FROM fails($$SELECT test_statement('parted_a_1', 'region = ''b''', key => '{}')$$);
SELECT state, message FROM fails($$SELECT test_statement('parted_a_1', 'day = now()', key => '{}')$$);
\pset expanded off
SELECT test_statement('parted', 'v = 1, kind = ''x''', 'v IS NULL', 'true');
SELECT test_statement('parted_a_1', 'v = 1, kind = ''x''', key => '{}');
SELECT test_statement('parted', 'region = ''b''', allow_key_change => true);

-- where in the text it went wrong
SELECT test_statement('t', 'b = 1, c = nothing');
SELECT test_statement('t', 'b = 1', 'a > 1 AND nothing > 1');
SELECT test_statement('t', 'b = = 1');
SELECT test_statement('t', 'b = 1', 'a > ; 1');
SELECT test_statement('t', 'b = v FROM other', 'id > 1');

-- names that need care
CREATE SCHEMA "Odd ""%s"" Schema";
CREATE TABLE "Odd ""%s"" Schema"."Odd
""%d"" ü Table" ("The ""Key""" int PRIMARY KEY, "select" int, "per%cent" int, "where" int);
INSERT INTO "Odd ""%s"" Schema"."Odd
""%d"" ü Table" VALUES (1), (2), (3);
SELECT oid::regclass AS odd FROM pg_class WHERE relname LIKE 'Odd%Table' \gset
SELECT test_statement(:'odd', '"select" = "The ""Key""" % 2, "per%cent" = "Odd
""%d"" ü Table"."The ""Key"""', '"The ""Key""" % 2 = 1 AND "Odd
""%d"" ü Table".where IS NULL', '"The ""Key""" > 0') AS statement \gset
SELECT :'statement';
SELECT run(:'statement');
SELECT * FROM :odd ORDER BY 1;
\pset expanded on
SELECT * FROM fails(format('SELECT test_statement(%L, %L, %L)', :'odd', '"select" = 1', '"%s" = 1'));
SELECT * FROM fails(format('SELECT test_statement(%L, %L)', :'odd', '"%s" = 1'));
SELECT * FROM fails(format('SELECT test_statement(%L, %L)', :'odd', '"The ""Key""" = 1'));
SELECT * FROM fails(format('SELECT test_condition(%L, %L, %L)', :'odd', '"select"', '%s'));
\pset expanded off
SET search_path = "Odd ""%s"" Schema";
SELECT public.test_statement('"Odd
""%d"" ü Table"', '"select" = 1');
RESET search_path;

-- what a DELETE brings about
SELECT test_cascades('t') IS NULL AS none;
CREATE TABLE a (id int PRIMARY KEY, b int);
CREATE TABLE b (id int PRIMARY KEY, a int CONSTRAINT b_a REFERENCES a ON DELETE CASCADE, up int CONSTRAINT b_up REFERENCES b ON DELETE SET NULL);
ALTER TABLE a ADD CONSTRAINT a_b FOREIGN KEY (b) REFERENCES b ON DELETE CASCADE;
CREATE TABLE c (b int CONSTRAINT "c's b" REFERENCES b ON DELETE RESTRICT, a int CONSTRAINT c_a REFERENCES a ON DELETE SET DEFAULT);
CREATE TABLE d (c int CONSTRAINT d_a REFERENCES a);
SELECT test_cascades('a');
SELECT test_cascades('d') IS NULL AS none;
CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
CREATE TABLE q (id int, p int CONSTRAINT q_p REFERENCES p ON DELETE CASCADE) PARTITION BY RANGE (id);
CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (0) TO (10);
CREATE TABLE q2 PARTITION OF q FOR VALUES FROM (10) TO (20);
CREATE TABLE r (p1 int CONSTRAINT r_p1 REFERENCES p1 ON DELETE CASCADE);
SELECT test_cascades('p');
SELECT test_cascades('p1');
SELECT test_cascades('p2');

SET client_min_messages = warning;
DROP SCHEMA "Odd ""%s"" Schema" CASCADE;
DROP TABLE t, other, parted, a, b, c, d, p, q, r;
DROP FUNCTION test_statement, test_condition, test_cascades, fails, bad, bad_set, run, since;
DROP EXTENSION bbm;
