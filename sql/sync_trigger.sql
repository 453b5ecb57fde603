--
-- bbm_sync_trigger: rows that are written while a backfill runs are right by themselves.
--

CREATE EXTENSION bbm;
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/fails.inc'
\i :helper
CREATE VIEW sync_triggers AS
    SELECT tgrelid::regclass AS "table", tgname AS trigger, tgfoid::regproc AS function FROM pg_trigger
    WHERE tgname LIKE 'bbm\_sync%' AND tgparentid = 0 ORDER BY tgrelid::regclass::text, tgname;

-- the new column of a conversion
CREATE TABLE items (id int PRIMARY KEY, price numeric, quantity int, tags text[]);
INSERT INTO items VALUES (1, 1, 1, '{}');
ALTER TABLE items ADD COLUMN new_id bigint, ADD COLUMN total numeric(8, 2), ADD COLUMN first_tag text,
    ADD COLUMN many text[];
SELECT bbm_sync_trigger('public.items', 'new_id = id');
SELECT * FROM sync_triggers;
INSERT INTO items (id) VALUES (2);
INSERT INTO items (id, new_id) VALUES (3, 77);
UPDATE items SET id = 30 WHERE id = 3;
UPDATE items SET new_id = 5 WHERE id = 2;
SELECT id, new_id FROM items ORDER BY id;
-- a row that was there is right once it is written
UPDATE items SET quantity = quantity WHERE id = 1;
SELECT id, new_id FROM items ORDER BY id;
-- several columns, arrays, NULL, a qualified name, sub-selects, a comment at the end
CREATE TABLE rates (currency text PRIMARY KEY, rate numeric);
INSERT INTO rates VALUES ('chf', 2);
SELECT bbm_sync_trigger('items', $$total = price * items.quantity * (SELECT rate FROM rates WHERE currency = 'chf'),
    first_tag = tags[1] -- or NULL
    , many = tags || ARRAY['x, y', NULL, (SELECT max(currency) FROM rates)]-- many$$);
INSERT INTO items (id, price, quantity, tags) VALUES (4, 1.239, 2, '{a,b}'), (5, NULL, 2, NULL), (6, 3, 1, '{}');
SELECT id, new_id, total, first_tag, many FROM items WHERE id IN (4, 5, 6) ORDER BY id;
-- all see the row as it was given
CREATE TABLE swap (id int PRIMARY KEY, a int, b int, c int DEFAULT 0);
SELECT bbm_sync_trigger('swap', 'a = b, b = a, c = a + b');
INSERT INTO swap VALUES (1, 10, 20);
SELECT * FROM swap;
UPDATE swap SET c = 0;
SELECT * FROM swap;
-- only rows that meet the where; NULL does not, and the others keep what they have
SELECT bbm_sync_trigger('swap', 'a = b, b = a, c = a + b', drop => true);
SELECT bbm_sync_trigger('swap', 'c = a', 'b > 1 OR swap.b < -1 -- some');
INSERT INTO swap VALUES (2, 1, 2, 7), (3, 1, 0, 7), (4, 1, NULL, 7);
UPDATE swap SET a = 5 WHERE id = 3;
SELECT * FROM swap ORDER BY id;
SELECT bbm_sync_trigger('swap', 'c = 0', drop => true);
SELECT bbm_sync_trigger('swap', 'b = CASE WHEN a > 1 THEN (CASE a WHEN 2 THEN 20 ELSE 30 END) END',
                        'CASE WHEN a > 0 THEN true END');
UPDATE swap SET a = id - 1;
SELECT * FROM swap ORDER BY id;
-- values are those that an UPDATE would make of them: typed as the column, or not at all
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE TABLE typed (id int, d date, v varchar(3), n numeric(4, 1), j jsonb, p positive, a int[], s smallint, e text);
SELECT bbm_sync_trigger('typed', $$d = '2020-02-29', v = e, n = id / 8.0, j = '{"a": 1}', p = id, a = '{1,2}', s = id$$);
INSERT INTO typed (id, e) VALUES (10, 'abc');
SELECT * FROM typed;
SELECT state, message FROM fails($$INSERT INTO typed (id, e) VALUES (10, 'abcd')$$);
SELECT state, message FROM fails($$INSERT INTO typed (id, e) VALUES (-1, 'abc')$$);
SELECT state, message FROM fails($$INSERT INTO typed (id, e) VALUES (70000, 'abc')$$);

-- a column gets another type: with a new trigger, sessions that have written before go on
CREATE TABLE retyped (id int, v int);
SELECT bbm_sync_trigger('retyped', 'v = id');
INSERT INTO retyped VALUES (1);
BEGIN;
SELECT bbm_sync_trigger('retyped', 'v = id', drop => true);
ALTER TABLE retyped ALTER id TYPE bigint;
SELECT bbm_sync_trigger('retyped', 'v = id');
COMMIT;
INSERT INTO retyped VALUES (2);
SELECT * FROM retyped ORDER BY id;
DROP TABLE retyped;

-- names: of columns like PL/pgSQL's variables and keywords, and others that need care
CREATE TABLE new (id int, new int, old int, tg_op text, bbm_row int, loop int, "into" text, "Odd ""%s"" ü" int, x int,
                  "found" int);
SELECT bbm_sync_trigger('new', $$x = new + old + bbm_row, tg_op = "new"."tg_op" || '!', loop = new.old, "into" = new.into,
    "Odd ""%s"" ü" = new."Odd ""%s"" ü" + 1, "found" = new.new$$);
INSERT INTO new VALUES (1, 1, 20, 'op', 300, 0, 'in', 5, 0, 0);
SELECT * FROM new;
UPDATE new SET old = 40;
SELECT * FROM new;
CREATE SCHEMA "Odd ""%s"" Schema";
CREATE TABLE "Odd ""%s"" Schema"."Odd
'%d\' ü Table" ("The ""Key""" int, "select" int, "end" int);
SELECT bbm_sync_trigger('Odd "%s" Schema.Odd
''%d\'' ü Table', $$"select" = "The ""Key""" + 1, "end" = "Odd
'%d\' ü Table"."select"$$);
INSERT INTO "Odd ""%s"" Schema"."Odd
'%d\' ü Table" VALUES (1, 10, 100);
SELECT * FROM "Odd ""%s"" Schema"."Odd
'%d\' ü Table";
SELECT bbm_sync_trigger('Odd "%s" Schema.Odd
''%d\'' ü Table', '"select" = 0, "end" = 0', drop => true);
INSERT INTO "Odd ""%s"" Schema"."Odd
'%d\' ü Table" VALUES (2, 20, 200);
SELECT * FROM "Odd ""%s"" Schema"."Odd
'%d\' ü Table";
-- names that are too long stay different
CREATE TABLE wide (id int, long_name_of_a_column_that_has_twin_1 int, long_name_of_a_column_that_has_twin_2 int,
                   long_name_of_a_column_that_has_twin_3 int);
SELECT bbm_sync_trigger('wide', 'long_name_of_a_column_that_has_twin_1 = id, long_name_of_a_column_that_has_twin_2 = id')
    <> bbm_sync_trigger('wide', 'long_name_of_a_column_that_has_twin_1 = id, long_name_of_a_column_that_has_twin_3 = id')
    AS different;
SELECT length(trigger), length(function::text), trigger LIKE 'bbm\_sync\_long%' AS named FROM sync_triggers
WHERE "table" = 'wide'::regclass;
SELECT length(bbm_sync_trigger('wide', 'long_name_of_a_column_that_has_twin_1 = id, long_name_of_a_column_that_has_twin_3 = id',
                               drop => true));
SELECT count(*) FROM sync_triggers WHERE "table" = 'wide'::regclass;
-- other columns, whose names make the same one: each is found, and dropped, by its columns
CREATE TABLE joined (id int, a int, b_c int, a_b int, c int);
SELECT bbm_sync_trigger('joined', 'a = id, b_c = id');
SELECT bbm_sync_trigger('joined', 'a_b = -id, c = -id', 'id > 0') AS other \gset
SELECT :'other' ~ '^bbm_sync_a_b_c_[0-9a-f]{8}$' AS named;
SELECT state, message FROM fails($$SELECT bbm_sync_trigger('joined', 'a_b = 1, c = 1')$$);
INSERT INTO joined VALUES (1);
SELECT bbm_sync_trigger('joined', 'a = id, b_c = id', drop => true);
SELECT state, message FROM fails($$SELECT bbm_sync_trigger('joined', 'a = id, b_c = id', drop => true)$$);
INSERT INTO joined VALUES (2);
SELECT * FROM joined;
SELECT bbm_sync_trigger('joined', 'a_b = id, c = id', drop => true) = :'other' AS found;
-- and a trigger of somebody else has the name
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER bbm_sync_a_b_c BEFORE UPDATE ON joined FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT bbm_sync_trigger('joined', 'a_b = id, c = id') = :'other' AS beside_it;
-- whatever its name is now
ALTER TRIGGER :"other" ON joined RENAME TO renamed;
SELECT state, message FROM fails($$SELECT bbm_sync_trigger('joined', 'a_b = 1, c = 1')$$);
SELECT bbm_sync_trigger('joined', 'a_b = id, c = id', drop => true);
DROP TABLE joined;
DROP FUNCTION nothing;
-- two tables whose functions would have one name
CREATE TABLE one (two_x int, x int);
CREATE TABLE one_two (x int);
SELECT bbm_sync_trigger('one', 'two_x = 1'), bbm_sync_trigger('one_two', 'x = 2');
INSERT INTO one VALUES (0);
INSERT INTO one_two VALUES (0);
SELECT two_x, one_two.x FROM one, one_two;

-- a partitioned table has one trigger, and a partition that comes later has it as well
CREATE TABLE parted (region text, id int, v int) PARTITION BY LIST (region);
CREATE TABLE parted_a (v int, gone int, id int, region text);
ALTER TABLE parted_a DROP COLUMN gone;
ALTER TABLE parted ATTACH PARTITION parted_a FOR VALUES IN ('a');
SELECT bbm_sync_trigger('parted', 'v = id * 2');
CREATE TABLE parted_b PARTITION OF parted FOR VALUES IN ('b');
INSERT INTO parted VALUES ('a', 1), ('b', 2);
INSERT INTO parted_a (id, region) VALUES (3, 'a');
UPDATE parted SET region = 'b', id = 4 WHERE id = 1;
SELECT tableoid::regclass, id, v FROM parted ORDER BY id;
SELECT * FROM sync_triggers WHERE "table"::text LIKE 'parted%';
SELECT bbm_sync_trigger('parted', 'v = id', drop => true);
INSERT INTO parted VALUES ('a', 5);
SELECT v IS NULL AS none FROM parted WHERE id = 5;
-- a partition has a trigger of that name
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER bbm_sync_v BEFORE DELETE ON parted_b FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT bbm_sync_trigger('parted', 'v = id') ~ '^bbm_sync_v_[0-9a-f]{8}$' AS named;
SELECT length(bbm_sync_trigger('parted', 'v = id', drop => true));
DROP TRIGGER bbm_sync_v ON parted_b;
DROP FUNCTION nothing;

-- tables that the trigger does not reach are reported
CREATE TABLE parent (id int, v int);
CREATE TABLE child () INHERITS (parent);
SELECT bbm_sync_trigger('parent', 'v = id');
CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.id := 1; RETURN NEW; END';
CREATE TRIGGER later BEFORE UPDATE ON child FOR EACH ROW EXECUTE FUNCTION later();
CREATE TRIGGER "after" AFTER UPDATE ON child FOR EACH ROW EXECUTE FUNCTION later();
CREATE TRIGGER zap BEFORE DELETE ON child FOR EACH ROW EXECUTE FUNCTION later();
SELECT bbm_sync_trigger('child', 'v = id');

-- dropping: of what is there, made by the function, and with its function
SELECT count(*) FROM pg_proc WHERE proname = 'items_new_id_bbm_sync';
SELECT bbm_sync_trigger('items', 'new_id = no_longer.there', drop => true);
SELECT count(*) FROM pg_proc WHERE proname = 'items_new_id_bbm_sync';
INSERT INTO items (id) VALUES (8);
SELECT new_id IS NULL AS none FROM items WHERE id = 8;
CREATE TRIGGER bbm_sync_new_id BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION later();
\pset expanded on
SELECT * FROM fails($$SELECT bbm_sync_trigger('items', 'new_id = id', drop => true)$$);
DROP TRIGGER bbm_sync_new_id ON items;
SELECT * FROM fails($$SELECT bbm_sync_trigger('items', 'new_id = id', drop => true)$$);
SELECT * FROM fails($$SELECT bbm_sync_trigger('items', 'first_tag = '''', total = 1', drop => true)$$);
SELECT state, message FROM fails($$SELECT bbm_sync_trigger('parted_b', 'v = id', drop => true)$$);
-- creating it twice
SELECT * FROM fails($$SELECT bbm_sync_trigger('swap', 'c = b')$$);
-- a set that is none, and what a trigger cannot do
CREATE TABLE g (id int, a int, b int, twice int GENERATED ALWAYS AS (a * 2) STORED, always int GENERATED ALWAYS AS IDENTITY);
CREATE FUNCTION bad(set text, options text DEFAULT '', "table" text DEFAULT 'g')
RETURNS TABLE (state text, message text, detail text, hint text) LANGUAGE sql AS $$
    SELECT (fails(format('SELECT bbm_sync_trigger(%L, %L %s)', "table", set, options))).* $$;
SELECT * FROM bad('a = b FROM items');
SELECT * FROM bad('a = b WHERE b > 1');
SELECT * FROM bad('(a, b) = (SELECT 1, 2)');
SELECT * FROM bad('(a) = (SELECT 1)');
SELECT * FROM bad('(a, b) = (1, 2)');
SELECT * FROM bad('a[1] = 1');
SELECT * FROM bad('a = DEFAULT');
SELECT * FROM bad('a = 1 RETURNING a');
SELECT * FROM bad('a = 1; b = 2');
SELECT * FROM bad('');
SELECT * FROM bad('a');
SELECT * FROM bad('a = $1');
SELECT * FROM bad('a = 1, nothing = 2');
SELECT * FROM bad('a = nothing');
SELECT * FROM bad('a = new.b');
SELECT * FROM bad('a = tg_nargs');
SELECT * FROM bad('a = 1, a = 2');
SELECT * FROM bad('twice = 1');
SELECT * FROM bad('always = 1');
SELECT state, message FROM bad('ctid = NULL');
SELECT * FROM bad('a = twice');
SELECT * FROM bad('a = b', $$, 'twice > 1'$$);
SELECT * FROM bad('a = (SELECT id FROM items WHERE items.id = g.twice)');
SELECT * FROM bad('a = tableoid::int');
SELECT * FROM bad('a = count(g.*) FROM items');
SELECT * FROM bad('a = jsonb_array_length(to_jsonb(g))');
SELECT state, message FROM bad('a = ''{}''::text[]');
SELECT * FROM bad('a = 1', $$, 'random() > 0.5'$$);
SELECT * FROM bad('a = 1', $$, 'true) OR (true'$$);
SELECT * FROM bad('a = 1', $$, 'b'$$);
SELECT * FROM bad('region = ''b''', '', 'parted');
SELECT * FROM bad('a = 1', '', 'nowhere');
SELECT * FROM bad('trigger = ''''', '', 'sync_triggers');
CREATE MATERIALIZED VIEW mv AS SELECT 1 AS a;
CREATE SEQUENCE sq;
SELECT * FROM bad('a = 1', '', 'mv');
SELECT * FROM bad('last_value = 1', '', 'sq');
DROP MATERIALIZED VIEW mv;
DROP SEQUENCE sq;
SELECT * FROM bad(NULL);
SELECT * FROM bad('a = 1', ', drop => NULL');
SELECT * FROM fails($$SELECT bbm_sync_trigger(NULL, 'a = 1')$$);
\pset expanded off
SELECT count(*) FROM sync_triggers WHERE "table" = 'g'::regclass;

-- names mean what they mean to the caller
CREATE SCHEMA mine;
CREATE TABLE mine.rates (rate int);
INSERT INTO mine.rates VALUES (42);
CREATE TABLE mine.t (id int, r int);
CREATE FUNCTION mine.plus(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1';
SET search_path = mine, pg_temp, public;
SELECT bbm_sync_trigger('t', 'r = plus((SELECT rate FROM rates))');
SET search_path = public;
INSERT INTO mine.t VALUES (1);
CREATE TEMPORARY TABLE rates (rate int);
INSERT INTO mine.t VALUES (2);
SELECT * FROM mine.t ORDER BY id;
SELECT proconfig FROM pg_proc WHERE proname = 't_r_bbm_sync';
SET search_path = '';
SELECT public.bbm_sync_trigger('mine.t', 'id = id');
RESET search_path;
SELECT proconfig FROM pg_proc WHERE proname = 't_id_bbm_sync';

-- with the caller's rights
\set VERBOSITY terse
CREATE ROLE regress_sync;
CREATE ROLE regress_sync_writer;
GRANT USAGE ON SCHEMA mine TO regress_sync, regress_sync_writer;
GRANT INSERT ON mine.t TO regress_sync_writer;
SET ROLE regress_sync;
SELECT bbm_sync_trigger('mine.t', 'r = id');
RESET ROLE;
GRANT EXECUTE ON FUNCTION bbm_sync_trigger TO regress_sync;
SET ROLE regress_sync;
SELECT bbm_sync_trigger('mine.t', 'r = id, id = r');
SELECT bbm_sync_trigger('mine.t', 'id = id', drop => true);
RESET ROLE;
GRANT TRIGGER ON mine.t TO regress_sync;
SET ROLE regress_sync;
SELECT bbm_sync_trigger('mine.t', 'r = id, id = r');
RESET ROLE;
GRANT CREATE ON SCHEMA mine TO regress_sync;
ALTER TABLE mine.t OWNER TO regress_sync;
SET ROLE regress_sync;
SELECT bbm_sync_trigger('mine.t', 'r = id, id = r');
SELECT bbm_sync_trigger('mine.t', 'r = id, id = r', drop => true);
RESET ROLE;
-- the trigger has the rights of the role that writes
SET ROLE regress_sync_writer;
INSERT INTO mine.t VALUES (3);
RESET ROLE;
\set VERBOSITY default
SELECT prosecdef FROM pg_proc WHERE proname = 't_r_bbm_sync';

SET client_min_messages = warning;
DROP SCHEMA "Odd ""%s"" Schema", mine CASCADE;
DROP VIEW sync_triggers;
DROP TABLE items, pg_temp.rates, swap, typed, new, wide, one, one_two, parted, parent, child, g;
DROP TABLE rates;
DROP DOMAIN positive;
DROP FUNCTION fails, bad, later;
DO $$ DECLARE f regprocedure; BEGIN
    FOR f IN SELECT oid FROM pg_proc WHERE proname LIKE '%bbm\_sync%' AND proname <> 'bbm_sync_trigger' LOOP
        EXECUTE 'DROP FUNCTION ' || f;
    END LOOP;
END $$;
DROP ROLE regress_sync_writer;
DROP EXTENSION bbm;
DROP ROLE regress_sync;
