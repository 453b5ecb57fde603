--
-- The statements of doc/recipes.md, as they stand there, with an application that
-- writes between the steps.
--

-- a step is a block of the page, named by the comment in its first line
CREATE FUNCTION page_step(page text, name text) RETURNS text LANGUAGE sql AS $$
    SELECT block[1] FROM regexp_matches(page, E'```sql\n(.*?)```', 'g') AS block WHERE starts_with(block[1], name)
$$;
\set page `cat "$PG_ABS_SRCDIR/doc/recipes.md"`
SELECT page_step(:'page', '-- 0:') AS step_0, page_step(:'page', '-- 1:') AS step_1, page_step(:'page', '-- 2:') AS step_2,
       page_step(:'page', '-- 3:') AS step_3, page_step(:'page', '-- 4:') AS step_4, page_step(:'page', '-- 5:') AS step_5,
       page_step(:'page', '-- 6:') AS step_6, page_step(:'page', '-- 7:') AS step_7,
       page_step(:'page', '-- key 0:') AS key_0, page_step(:'page', '-- key 1, 2:') AS key_2,
       page_step(:'page', '-- key 3:') AS key_3, page_step(:'page', '-- key 4, 5:') AS key_5,
       page_step(:'page', '-- key 6:') AS key_6, page_step(:'page', '-- key 7:') AS key_7,
       page_step(:'page', '-- back:') AS back \gset
-- none is left out here
SELECT count(*) AS steps FROM regexp_matches(:'page', E'\n```sql\n', 'g');
-- a swap up to its commit, and then: was a table read that nobody else could use meanwhile?
SELECT replace(:'step_6', 'COMMIT;', 'SELECT * FROM scans; ROLLBACK;') AS probe_6,
       replace(:'key_6', 'COMMIT;', 'SELECT * FROM scans; ROLLBACK;') AS probe_key \gset

CREATE VIEW scans AS SELECT relname, seq_scan FROM pg_stat_xact_user_tables
    WHERE relname IN ('orders', 'items', 'lines') ORDER BY relname;

CREATE EXTENSION bbm;
-- the application: old rows and new ones, one of each a call
CREATE FUNCTION orders_write(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO orders (amount) VALUES (n);
    UPDATE orders SET amount = amount + 1 WHERE id = n;
END $$;

-- a column
:step_0
INSERT INTO orders (amount) SELECT i FROM generate_series(1, 2000) i;
:step_1
SELECT orders_write(1);
:step_2
SELECT orders_write(2);
-- rows written before the trigger lack the value, rows written with it have it
SELECT id, amount, new_amount FROM orders WHERE id IN (1, 2) OR id > 2000 ORDER BY id;
:step_3
SELECT orders_write(3);
-- only rows without the value were done
SELECT rows_done FROM bbm_status('orders: amount to bigint');
:step_4
:step_5
SELECT orders_write(4);
UPDATE orders SET new_amount = 0 WHERE id = 5;
:step_4
-- the session's counters are flushed first
SELECT pg_stat_force_next_flush();
:probe_6
:step_6
INSERT INTO orders DEFAULT VALUES;
INSERT INTO orders (amount) VALUES (3000000000);
INSERT INTO orders (amount) VALUES (NULL);
SELECT orders_write(6);
SELECT id, amount, old_amount FROM orders WHERE id < 8 OR id > 2000 ORDER BY id;
:step_7
SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
WHERE attrelid = 'orders'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum;
SELECT count(*), sum(amount) FROM orders;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass;
SELECT count(*) FROM pg_proc WHERE proname LIKE 'orders%bbm_sync';
DROP TABLE orders;

-- why the trigger comes before the migration: neither would process a row written in between
:step_0
INSERT INTO orders (amount) VALUES (1);
:step_1
SELECT bbm_create('orders: amount to bigint', 'public.orders',
    'UPDATE public.orders SET new_amount = amount WHERE id BETWEEN $1 AND $2') IS NOT NULL AS defined;
INSERT INTO orders (amount) VALUES (2);
:step_2
CALL bbm_run('orders: amount to bigint');
SELECT * FROM orders ORDER BY id;
-- too early, the swap takes everything back
UPDATE orders SET new_amount = amount;
SELECT bbm_drop('orders: amount to bigint');
SELECT bbm_create('orders: amount to bigint', 'public.orders',
    'UPDATE public.orders SET new_amount = amount WHERE id BETWEEN $1 AND $2') IS NOT NULL AS defined;
:step_6
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass;
-- back to where it began
:back
SELECT * FROM orders ORDER BY id;
SELECT count(*) FROM bbm_status();
DROP TABLE orders;

-- a primary key
CREATE FUNCTION items_write(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH new AS (INSERT INTO items (name) VALUES ('new ' || n) RETURNING id)
    INSERT INTO lines (item_id) SELECT id FROM new;
    UPDATE items SET name = 'changed' WHERE id = n;
END $$;
:key_0
INSERT INTO items (name) SELECT 'item ' || i FROM generate_series(1, 2000) i;
INSERT INTO lines (item_id) SELECT generate_series(1, 2000, 10);
SELECT items_write(1);
:key_2
SELECT items_write(2);
:key_3
SELECT items_write(3);
:key_5
SELECT items_write(4);
SELECT pg_stat_force_next_flush();
:probe_key
:key_6
SELECT items_write(5);
:key_7
SELECT items_write(6);
INSERT INTO items (id, name) VALUES (3000000000, 'an id that an int cannot hold');
SELECT count(*), count(id), min(id), max(id) FROM items;
SELECT conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint
WHERE conrelid IN ('items'::regclass, 'lines'::regclass) AND contype <> 'n' ORDER BY conname;
SELECT count(*) AS lines, count(items) AS items FROM lines LEFT JOIN items ON id = item_id;
INSERT INTO lines (item_id) VALUES (7777);

SET client_min_messages = warning;
DROP TABLE lines, items;
DROP VIEW scans;
DROP FUNCTION orders_write, items_write, page_step;
DROP EXTENSION bbm;
