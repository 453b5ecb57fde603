--
-- bbm_status fits a screen of 120 columns; bbm_status_detail has the rest.
--

CREATE EXTENSION bbm;
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 100);
\set narrow '\\g | awk ''length > 120 { wide = 1; print } END { print NR - 4 " migrations, " (wide ? "too wide" : "narrow enough") }'''

-- every column of a view, or of what a function returns, is described, but for a view that only our own views read
SELECT c.relname, a.attname
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_depend d ON d.objid = c.oid OR d.objid = c.reltype
WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bbm') AND d.deptype = 'e'
  AND c.relkind IN ('r', 'v', 'c') AND NOT (c.relkind = 'v' AND c.relnamespace = 'bbm_internal'::regnamespace)
  AND a.attnum > 0 AND NOT a.attisdropped AND coalesce(col_description(c.oid, a.attnum), '') = ''
ORDER BY 1, a.attnum;

-- so is every object of the extension, and every setting
SELECT pg_describe_object(d.classid, d.objid, 0)
FROM pg_depend d
WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bbm') AND d.deptype = 'e'
  AND coalesce(obj_description(d.objid, d.classid::regclass::text), '') = ''
  -- from 18 on the types of rows and arrays are members of their own
  AND NOT EXISTS (SELECT 1 FROM pg_type t WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid AND (t.typrelid <> 0 OR t.typelem <> 0))
ORDER BY 1;
SELECT name FROM pg_settings WHERE name LIKE 'bbm.%' AND coalesce(short_desc, '') = '';

-- what waits for something that takes many words to say, and one that has done much
INSERT INTO batched_background_migrations
    (name, max_value, batch_size, job_signature_name, table_name, column_name, status, origin, started_at)
VALUES ('fill items.total', 100, 5, 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', 'public.t', 'id', 4, '1/1', '2000-01-01');
SELECT bbm_create('a name of twenty-five', 't', 'UPDATE t SET n = 2 WHERE id BETWEEN $1 AND $2', batch_size => 10) > 0 AS created;
CALL bbm_run('a name of twenty-five');
ALTER TABLE batched_background_migration_jobs DISABLE TRIGGER bbm_guard;
UPDATE batched_background_migration_jobs SET row_count = 12345678901;
ALTER TABLE batched_background_migration_jobs ENABLE TRIGGER bbm_guard;
-- how short depends on the others' figures
SELECT name, status, percent, workers, waiting_on LIKE 'a start here: %...' AS shortened FROM bbm_status();
SELECT * FROM bbm_status() :narrow
-- one line has more room than several
SELECT waiting_on FROM bbm_status('fill items.total');
SELECT * FROM bbm_status('fill items.total') :narrow
-- the whole of it
SELECT id > 0 AS id, name, table_name, owner = current_user AS owner, priority, status, waiting_on FROM bbm_status_detail('fill items.total');
SELECT name FROM bbm_status_detail();
SELECT count(*) FROM bbm_status_detail('nobody');
-- a long name has all the room that is left while nothing waits; then it loses its middle, as ends often differ
ALTER TABLE batched_background_migration_jobs DISABLE TRIGGER bbm_guard;
UPDATE batched_background_migration_jobs SET row_count = 10;
ALTER TABLE batched_background_migration_jobs ENABLE TRIGGER bbm_guard;
SELECT bbm_alter('a name of twenty-five', new_name => 'a name of thirty-three characters');
SELECT name FROM bbm_status('a name of thirty-three characters');
SELECT name, waiting_on FROM bbm_status();
SELECT * FROM bbm_status() :narrow
SELECT bbm_alter('a name of thirty-three characters', new_name => '20261129_fill_the_new_column_total_of_table_items_part_1');
SELECT name FROM bbm_status();
SELECT * FROM bbm_status() :narrow
SELECT name FROM bbm_status_detail();
-- the whole of it is found for one that was shortened, which is no name
SELECT bbm_pause('20261129...s_part_1');
SELECT * FROM bbm_status('20261129...s_part_1');
SELECT bbm_pause('20261129...s_part_2');
-- it counts what a terminal shows: wide characters, those without a width, and what is no character
SELECT n, bbm_internal.bbm_width(t), bbm_internal.bbm_fit(t, 12, false), bbm_internal.bbm_fit(t, 12, true), bbm_internal.bbm_fit(t, 1, true)
FROM (VALUES (1, 'short'), (2, 'twelve chars'), (3, 'thirteen char'), (4, E'a tab\tand a\nline'), (5, ''),
    -- in UTF-8, if the database has that: wide, and combining, ones
    (6, convert_from('\x e8a18c e8a18c e8a18c e8a18c e8a18c e8a18c e8a18c', 'UTF8')),
    (7, convert_from('\x 6e cc83 6e cc83 6e cc83 6e cc83 6e cc83 6e cc83 6e cc83 6e cc83 6e cc83 6e cc83 6e cc83 6e cc83 6e cc83', 'UTF8'))) v (n, t)
ORDER BY n;

-- a worker says what it does, and how far it is, in its title and in pg_stat_activity
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/wait_for.inc'
\i :helper
CREATE FUNCTION held(min int, max int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WHILE $2 = 40 AND NOT pg_try_advisory_xact_lock(4711) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT pg_advisory_lock(4711);
SELECT bbm_create('fill t.n', 't', 'held', batch_size => 20, start => true) > 0 AS created;
SELECT wait_for($$EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND query ~ ' 20\.0 ')$$);
SELECT query FROM pg_stat_activity WHERE backend_type = 'bbm worker';
-- (on Linux)
SELECT encode(pg_read_binary_file(format('/proc/%s/cmdline', pid)), 'escape') ~ 'bbm: fill t.n 20.0 %\s*(\\000)*$' AS title
FROM pg_stat_activity WHERE backend_type = 'bbm worker';
SELECT pg_advisory_unlock(4711);
SELECT bbm_wait('fill t.n', '1 minute');

-- the owner is shown by the name that the role has now
CREATE ROLE regress_bbm_renamed LOGIN;
GRANT UPDATE ON t TO regress_bbm_renamed;
GRANT SELECT ON t TO regress_bbm_renamed;
SELECT bbm_create('renamed', 't', 'UPDATE t SET n = 3 WHERE id BETWEEN $1 AND $2') > 0 AS created;
SELECT bbm_alter('renamed', owner => 'regress_bbm_renamed');
ALTER ROLE regress_bbm_renamed RENAME TO regress_bbm_now;
SELECT owner FROM bbm_status_detail('renamed');

SELECT count(bbm_drop(name)) FROM bbm_status_detail();
DROP EXTENSION bbm;
DROP TABLE t;
DROP FUNCTION held, wait_for;
DROP ROLE regress_bbm_now;
