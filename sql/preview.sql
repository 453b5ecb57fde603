-- bbm_preview: what a migration would do to some rows; and batches that are drawn from the whole table.

CREATE EXTENSION bbm;
ALTER SYSTEM SET bbm.enabled = off;
SELECT pg_reload_conf();
\c -
\set VERBOSITY default
SELECT current_user AS admin \gset

CREATE TABLE items (id int PRIMARY KEY, price numeric NOT NULL, quantity int NOT NULL, total numeric);
INSERT INTO items SELECT i, i, 2 FROM generate_series(1, 5) i;
SELECT bbm_update('fill', 'items', 'total = price * quantity', 'total IS NULL') > 0 AS created;
-- a table that one batch could do: each row, in the order of its key; nothing of it is left
SELECT operation, key, before, after FROM bbm_preview('fill') WHERE key IS NOT NULL;
SELECT operation, key, before, after FROM bbm_preview('fill', 2) WHERE key IS NOT NULL;
SELECT count(total), (SELECT count(*) FROM batched_background_migration_jobs) AS jobs,
       (SELECT string_agg(event, ', ') FROM bbm_events) AS events FROM items;
-- the statement, as it would be executed, and its plan
SELECT detail FROM bbm_preview('fill', 0) WHERE operation = 'statement';
SELECT operation, detail ~ 'Update on items .*\n.*items_pkey' AS plan
FROM bbm_preview('fill', rows => 0) WHERE operation = 'plan';
SELECT count(*) FROM bbm_preview('fill', 0);

-- rows that would be deleted, as they are
SELECT bbm_delete('old', 'items', 'id > 3') > 0 AS created;
SELECT operation, key, before, after FROM bbm_preview('old') WHERE key IS NOT NULL;
SELECT count(*) FROM items;

-- a statement of one's own, and a function: what has changed in the table, whatever they say; one that inserts, too
SELECT bbm_create('statement', 'items', 'UPDATE items SET price = -price WHERE id BETWEEN $1 AND $2 AND id % 2 = 0') > 0 AS created;
SELECT operation, key, before, after FROM bbm_preview('statement') WHERE key IS NOT NULL;
CREATE FUNCTION mixed(lo int, hi int) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE items SET quantity = quantity + 1 WHERE id = 1;
    UPDATE items SET quantity = quantity + 1 WHERE id = 1;
    UPDATE items SET quantity = quantity WHERE id = 3;
    DELETE FROM items WHERE id = 2;
    INSERT INTO items VALUES (2, 99, 99);
    DELETE FROM items WHERE id = 5;
END $$;
SELECT bbm_create('mixed', 'items', 'mixed') > 0 AS created;
SELECT operation, key, before, after FROM bbm_preview('mixed') WHERE key IS NOT NULL;
SELECT detail FROM bbm_preview('mixed', 0) WHERE operation = 'statement';
-- one that changes another table, and one that changes nothing
CREATE TABLE copies (LIKE items);
SELECT bbm_create('copy', 'items', 'INSERT INTO copies SELECT * FROM items WHERE id BETWEEN $1 AND $2') > 0 AND
       bbm_update('nothing', 'items', 'price = 0', 'price < 0') > 0 AS created;
SELECT operation FROM bbm_preview('copy');
SELECT operation FROM bbm_preview('nothing');
SELECT count(*) FROM copies;

-- a trigger fires, its changes are shown, and nothing of it is left; so are columns that the server computes
CREATE TABLE "Odd names" ("the key" text COLLATE "C" NOT NULL, "b" uuid NOT NULL, "select" int, doubled int GENERATED ALWAYS AS ("select" * 2) STORED,
                          "long" text);
CREATE UNIQUE INDEX ON "Odd names" ("the key", b DESC);
CREATE TABLE log (what text);
CREATE FUNCTION preview_fires() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO log VALUES (NEW."the key");
    NEW."long" := repeat(NEW."the key", 3);
    RETURN NEW;
END $$;
INSERT INTO "Odd names" SELECT 'k"' || i, ('00000000-0000-0000-0000-00000000000' || i)::uuid, i FROM generate_series(1, 3) i;
CREATE TRIGGER fires BEFORE UPDATE ON "Odd names" FOR EACH ROW EXECUTE FUNCTION preview_fires();
SELECT bbm_update('odd', '"Odd names"', '"select" = "select" + 1', column_name => '"the key", b') > 0 AS created;
SELECT operation, key, before, after FROM bbm_preview('odd') WHERE key IS NOT NULL;
SELECT count(*) FROM log;
-- values out of line
DROP TRIGGER fires ON "Odd names";
ALTER TABLE "Odd names" ALTER "long" SET STORAGE EXTERNAL;
UPDATE "Odd names" SET "long" = repeat('x', 100000);
SELECT bbm_update('long', '"Odd names"', '"long" = "long" || ''y''', column_name => '"the key", b') > 0 AS created;
SELECT operation, key, length(before ->> 'long') AS before, length(after ->> 'long') AS after, right(after ->> 'long', 2) AS ends
FROM bbm_preview('long') WHERE key IS NOT NULL;

-- columns of any name and type: bbm's own names for rows are no columns of theirs
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE names (k text PRIMARY KEY, r int4range, a int[], b jsonb, key mood, value positive, "before" bytea, "T.x" timestamptz, names numeric);
INSERT INTO names SELECT 'k"' || i, int4range(i, i + 2), ARRAY[i, NULL], '{"a": [1]}', 'sad', i, '\x00', 'infinity', 'NaN' FROM generate_series(1, 3) i;
SELECT bbm_update('names', 'names', 'r = ''empty'', a = a || 5, b = b || ''{"b": null}'', key = ''happy'', value = value + 1, "before" = ''\xff'', "T.x" = ''-infinity'', names = 1') > 0 AS created;
SELECT operation, key, before, after FROM bbm_preview('names') WHERE operation = 'update';
SELECT bbm_delete('names gone', 'names', 'value > 2') > 0 AS created;
SELECT operation, key, before, after FROM bbm_preview('names gone') WHERE operation = 'delete';
SELECT bbm_drop(name) FROM unnest(ARRAY['names', 'names gone']) name;
DROP TABLE names;
DROP TYPE mood;
DROP DOMAIN positive;

-- partitions: which, and a row that moves to another one
CREATE TABLE p (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (4);
CREATE TABLE p2 (n int, more text, id int NOT NULL);
ALTER TABLE p2 DROP more;
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (4) TO (100);
INSERT INTO p SELECT i, i FROM generate_series(1, 5) i;
SELECT bbm_update('parted', 'p', 'n = n + 1') > 0 AND
       bbm_update('moves', 'p', 'id = id + 3', 'id < 4', allow_key_change => true) > 0 AS created;
SELECT operation, key, before, after, detail FROM bbm_preview('parted') WHERE key IS NOT NULL;
DELETE FROM p2;
SELECT operation, key, before, after, detail FROM bbm_preview('moves') WHERE key IS NOT NULL;
SELECT sum(id) FROM p;

-- every strategy; without a key the primary key names a row, or its place
CREATE TABLE k (g int NOT NULL, n int, PRIMARY KEY (n, g) INCLUDE (g));
ALTER TABLE k DROP CONSTRAINT k_pkey;
ALTER TABLE k ALTER n DROP NOT NULL;
CREATE INDEX ON k (g);
CREATE INDEX ON k (n);
INSERT INTO k VALUES (1, NULL), (1, 1), (2, NULL);
SELECT bbm_update('loose', 'k', 'n = 7', column_name => 'g', batching_strategy => 'LooseIndexScanBatchingStrategy') > 0 AND
       bbm_update('nulls', 'k', 'n = 1', column_name => 'n', batching_strategy => 'NullKeySetBatchingStrategy') > 0 AND
       bbm_update('blocks', 'k', 'n = 2', 'n IS DISTINCT FROM 2', batching_strategy => 'BlockRangeBatchingStrategy') > 0 AS created;
SELECT operation, key, before, after FROM bbm_preview('loose') WHERE key IS NOT NULL;
SELECT operation, key, before, after FROM bbm_preview('nulls') WHERE key IS NOT NULL;
SELECT operation, key, before, after FROM bbm_preview('blocks') WHERE key IS NOT NULL;

-- with the rights of the owner: rows that a policy hides are not shown; with rights on some columns alone no row is
CREATE ROLE regress_bbm_preview LOGIN;
GRANT EXECUTE ON FUNCTION bbm_preview, bbm_dry_run, bbm_create, bbm_update TO regress_bbm_preview;
GRANT SELECT (id, price, quantity), UPDATE (price, total) ON items TO regress_bbm_preview;
ALTER TABLE items ENABLE ROW LEVEL SECURITY;
CREATE POLICY odd ON items TO regress_bbm_preview USING (id % 2 = 1);
SET ROLE regress_bbm_preview;
SELECT bbm_preview('fill');
RESET ROLE;
\c - regress_bbm_preview
SELECT bbm_update('mine', 'items', 'price = price + 1, total = 1') > 0 AS created;
SELECT operation FROM bbm_preview('mine');
SELECT jobs, rows > 0 AS rows, sampled FROM bbm_dry_run('mine', 2, true);
\c - :admin
-- the job could make itself the user that has logged in, so that has to be its owner
SELECT bbm_preview('mine');
SET ROLE regress_bbm_preview;
SELECT bbm_preview('mine');
SELECT bbm_dry_run('mine');
RESET ROLE;
GRANT SELECT ON items TO regress_bbm_preview;
\c - regress_bbm_preview
SELECT operation, key, before, after FROM bbm_preview('mine') WHERE key IS NOT NULL;
\c - :admin
REVOKE EXECUTE ON FUNCTION bbm_preview FROM regress_bbm_preview;
SET SESSION AUTHORIZATION regress_bbm_preview;
SELECT bbm_preview('mine');
RESET SESSION AUTHORIZATION;
ALTER TABLE items DISABLE ROW LEVEL SECURITY;

-- the error of a batch is that of the job, and says which; deferred constraints are checked
SELECT bbm_update('fails', 'items', 'total = 1 / (id - 4)') > 0 AS created;
SELECT operation FROM bbm_preview('fails');
-- bad input, and what is not paused
SELECT bbm_preview('nope');
SELECT bbm_preview(NULL);
SELECT bbm_preview('fill', NULL);
SELECT bbm_preview('fill', -1);
SELECT bbm_preview('fill', 1001);
SELECT bbm_preview('fill', 1, NULL);
SELECT bbm_start('fill');
SELECT bbm_preview('fill');
SELECT bbm_pause('fill');
CALL bbm_run('fill');
SELECT bbm_preview('fill');
CREATE TABLE empty (id int PRIMARY KEY);
SELECT bbm_delete('empty', 'empty', 'true') > 0 AS created;
SELECT * FROM bbm_preview('empty');
BEGIN READ ONLY;
SELECT bbm_preview('statement');
ROLLBACK;
CREATE FUNCTION tries(lo int, hi int) RETURNS void LANGUAGE sql SET search_path FROM CURRENT AS 'SELECT bbm_preview(''statement'', 1)';
SELECT bbm_create('tries', 'items', 'tries') > 0 AS created;
SELECT bbm_preview('tries', 1);

-- a table with a key of this type, a child table, and a migration
CREATE FUNCTION any_type(type text) RETURNS int LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    made text := CASE type WHEN 'uuid' THEN 'md5(i::text)' WHEN 'bytea' THEN 'int4send(i)' WHEN 'date' THEN 'date ''2000-01-01'' + i'
        WHEN 'timestamptz' THEN 'to_timestamp(i * 1000)' WHEN 'interval' THEN 'i * interval ''1 minute''' WHEN 'inet' THEN 'inet ''10.0.0.0'' + i'
        WHEN 'float8' THEN 'i / 7.0' ELSE 'i' END;
BEGIN
    EXECUTE format('CREATE TABLE %I (k %s NOT NULL, n int, pad text DEFAULT repeat(''x'', 50)); CREATE UNIQUE INDEX ON %1$I (k)', 'key ' || type, type);
    EXECUTE format('CREATE TABLE %I () INHERITS (%I); CREATE UNIQUE INDEX ON %1$I (k)', 'child ' || type, 'key ' || type);
    EXECUTE format('INSERT INTO %I SELECT (%s)::%s FROM generate_series(1, 1500) i', 'key ' || type, made, type);
    EXECUTE format('INSERT INTO %I SELECT (%s)::%s FROM generate_series(1501, 3000) i', 'child ' || type, made, type);
    PERFORM bbm_update('key ' || type, quote_ident('key ' || type), 'n = 1', column_name => 'k', batch_size => 50);
    RETURN 1;
END $$;

-- drawn from the whole table: the first tenth is done already, and the rest is wide
CREATE TABLE big (id int PRIMARY KEY, filled int, wide text NOT NULL);
INSERT INTO big SELECT i * 100, CASE WHEN i <= 2000 THEN 1 END, repeat('x', CASE WHEN i <= 2000 THEN 1 ELSE 200 END) FROM generate_series(1, 20000) i;
SELECT bbm_update('big', 'big', 'filled = 1', 'filled IS NULL', batch_size => 100) > 0 AS created;
-- in their order there is nothing to see
SELECT operation FROM bbm_preview('big', sample => false) WHERE key IS NOT NULL;
SELECT count(*) BETWEEN 40 AND 50 AS rows, count(DISTINCT key) = count(*) AS keys, bool_and((key ->> 'id')::int > 200000 AND before = '{"filled": null}' AND after = '{"filled": 1}') AS changes,
       max((key ->> 'id')::int) - min((key ->> 'id')::int) > 100000 AS spread
FROM bbm_preview('big', 50) WHERE key IS NOT NULL;
-- nor an estimate: that is what samples are for; one of a table that was never analyzed says so
SELECT jobs, keys, rows, estimated_keys BETWEEN 15000 AND 25000 AS estimated_keys, estimated_rows, sampled, estimated_from FROM bbm_dry_run('big', 5);
-- (a batch near the end of the table may be short)
SELECT jobs, keys BETWEEN 2000 AND 3000 AS keys, estimated_rows BETWEEN 9000 AND 25000 AS estimated_rows, sampled, complete, estimated_from FROM bbm_dry_run('big', 30, sample => true);
ANALYZE big;
SELECT sampled, estimated_from FROM bbm_dry_run('big', 3, true);
SELECT jobs, complete, sampled, estimated_from FROM bbm_dry_run('big', 300);
SELECT count(filled) FROM big;
-- keys of several columns, blocks, and partitions are drawn as well
CREATE TABLE wide (a text NOT NULL, b date NOT NULL, n int NOT NULL DEFAULT 0) PARTITION BY LIST (a);
CREATE TABLE wide_x PARTITION OF wide FOR VALUES IN ('x');
CREATE TABLE wide_y PARTITION OF wide FOR VALUES IN ('y');
CREATE INDEX ON wide (a, b DESC);
INSERT INTO wide SELECT CASE WHEN i % 20 = 0 THEN 'x' ELSE 'y' END, '2020-01-01'::date + i, 0 FROM generate_series(1, 8000) i;
SELECT bbm_update('wide', 'wide', 'n = 1', 'n = 0', column_name => 'a, b', batch_size => 50) > 0 AND
       bbm_update('wide blocks', 'wide', 'n = 1', 'n = 0', batching_strategy => 'BlockRangeBatchingStrategy', batch_size => 50) > 0 AS created;
SELECT name, count(*) BETWEEN 20 AND 30 AS rows, count(DISTINCT r.key) > 20 AS keys, bool_or(r.detail = 'public.wide_y') AS far
FROM unnest('{wide,"wide blocks"}'::text[]) AS name, bbm_preview(name, 30) AS r WHERE r.key IS NOT NULL GROUP BY name ORDER BY name;
SELECT jobs, sampled FROM bbm_dry_run('wide', 4, true);
SELECT jobs BETWEEN 1 AND 4 AS jobs, sampled FROM bbm_dry_run('wide blocks', 4, true);
-- keys of any type, in a table with a child table
CREATE DOMAIN positive AS numeric CHECK (VALUE > 0);
SET client_min_messages = warning;
SELECT type, any_type(type) AS made FROM unnest('{smallint,numeric,positive,text,uuid,bytea,date,timestamptz,interval,inet,name,oid,float8}'::text[]) AS type;
SELECT type, (SELECT count(*) BETWEEN 15 AND 20 AND bool_and(after = '{"n": 1}') AND count(DISTINCT key) = count(*) FROM bbm_preview('key ' || type, 20) WHERE key IS NOT NULL) AS preview,
       (SELECT sampled AND jobs = 5 FROM bbm_dry_run('key ' || type, 5, true)) AS dry_run
FROM unnest('{smallint,numeric,positive,text,uuid,bytea,date,timestamptz,interval,inet,name,oid,float8}'::text[]) AS type;
RESET client_min_messages;

-- drawn with the rights of the owner: of the rows that it sees
CREATE TABLE secret (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, hidden text NOT NULL DEFAULT 'x');
INSERT INTO secret SELECT generate_series(1, 20000);
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY even ON secret TO regress_bbm_preview USING (id % 2 = 0);
GRANT SELECT, UPDATE (n) ON secret TO regress_bbm_preview;
GRANT EXECUTE ON FUNCTION bbm_preview TO regress_bbm_preview;
\c - regress_bbm_preview
SELECT bbm_update('secret', 'secret', 'n = 1', batch_size => 100) > 0 AS created;
SELECT count(*) BETWEEN 15 AND 20 AS rows, bool_and((key ->> 'id')::int % 2 = 0 AND after = '{"n": 1}') AS even, max((key ->> 'id')::int) > 1000 AS far
FROM bbm_preview('secret', 20) WHERE key IS NOT NULL;
\c - :admin
\set VERBOSITY default

-- the error of a drawn batch says where it was once, however deep the call is
CREATE TABLE bad (id int PRIMARY KEY, n int);
INSERT INTO bad SELECT generate_series(1, 2000);
SELECT bbm_update('bad', 'bad', 'n = id / 0', batch_size => 100) > 0 AS created;
CREATE FUNCTION outer_call() RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    context text;
BEGIN
    BEGIN
        PERFORM bbm_dry_run('bad', 3, true);
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
        RAISE NOTICE '%: batch %, dry run %', SQLERRM, (SELECT count(*) FROM regexp_matches(context, 'batch \d+ to \d+', 'g')),
            (SELECT count(*) FROM regexp_matches(context, 'dry run of migration', 'g'));
    END;
END $$;
SELECT outer_call();

-- beyond what is done: half of the table is
CREATE FUNCTION preview_stops() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM bbm_pause('counts');
    RETURN NULL;
END $$;
ALTER TABLE big ADD n int NOT NULL DEFAULT 0;
SELECT bbm_update('counts', 'big', 'n = n + 1', batch_size => 1000) > 0 AS created;
CREATE TRIGGER stops AFTER UPDATE OF n ON big FOR EACH ROW WHEN (NEW.id = 1000000) EXECUTE FUNCTION preview_stops();
\set VERBOSITY terse
CALL bbm_run('counts');
DROP TRIGGER stops ON big;
SELECT count(*) BETWEEN 30 AND 40 AS rows, min((key ->> 'id')::int) > 1000000 AS beyond, max(after ->> 'n') FROM bbm_preview('counts', 40) WHERE key IS NOT NULL;

DROP EXTENSION bbm CASCADE;
DROP POLICY odd ON items;
REVOKE ALL ON items FROM regress_bbm_preview;
SET client_min_messages = warning;
DROP TABLE items, copies, "Odd names", log, p, k, empty, big, wide, secret, bad;
SELECT format('DROP TABLE %I CASCADE', 'key ' || type) FROM unnest('{smallint,numeric,positive,text,uuid,bytea,date,timestamptz,interval,inet,name,oid,float8}'::text[]) AS type \gexec
DROP FUNCTION mixed, preview_fires, tries, preview_stops, any_type, outer_call;
DROP DOMAIN positive;
DROP ROLE regress_bbm_preview;
ALTER SYSTEM RESET bbm.enabled;
SELECT pg_reload_conf();
