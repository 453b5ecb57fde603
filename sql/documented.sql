--
-- doc/reference.md against the catalog: whatever a user can see stands in it, with its type, unit, default and bounds,
-- and nothing stands in it that does not exist.  Each query returns what differs.
--

CREATE EXTENSION bbm;
\set page `cat "$PG_ABS_SRCDIR/doc/reference.md"`

-- each line of the page, with the heading that it stands under and the number of that heading's tables so far
CREATE TABLE doc_lines AS
SELECT n, line, section,
       count(*) FILTER (WHERE line LIKE '|---%') OVER (PARTITION BY section ORDER BY n) AS tab
FROM (SELECT n, line, (array_agg(substring(line FROM '^##+ (.*)')) FILTER (WHERE line ~ '^##') OVER (ORDER BY n))
             [count(*) FILTER (WHERE line ~ '^##') OVER (ORDER BY n)] AS section
      FROM regexp_split_to_table(:'page', E'\n') WITH ORDINALITY AS l (line, n)) l;
-- a name of the first column of a table, and what the second and later columns say of it
CREATE TABLE doc_rows AS
SELECT section, tab, name[1] AS name, n, of,
       CASE WHEN of = 1 THEN 0 ELSE o END AS o, cells[3] AS second, cells[4] AS third, cells[5] AS fourth
FROM (SELECT l.*, string_to_array(line, '|') AS cells, regexp_count.count AS of
      FROM doc_lines l, LATERAL (SELECT count(*) FROM regexp_matches(split_part(line, '|', 2), '`[^`]+`', 'g')) regexp_count
      WHERE line LIKE '|%' AND line NOT LIKE '|---%' AND tab > 0) l,
     regexp_matches(cells[2], '`([^`]+)`', 'g') WITH ORDINALITY AS m (name, o);

CREATE FUNCTION type_of(cell text, o bigint) RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN cell ~ '`' THEN
        replace(replace(coalesce((SELECT t[1] FROM regexp_matches(cell, '`([^`]+)`', 'g') WITH ORDINALITY m (t, i) WHERE i = greatest(o, 1)),
                                 (regexp_match(cell, '`([^`]+)`'))[1]), 'timestamptz', 'timestamp with time zone'), 'float8', 'double precision') END
$$;

-- functions: each has a heading, and no other is named
CREATE VIEW functions AS
SELECT p.oid, proname AS name, a.name AS parameter, format_type(a.type, NULL) AS type, coalesce(a.mode, 'i') AS mode, a.i
FROM pg_proc p
JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'bbm'
LEFT JOIN LATERAL unnest(proargnames, proargmodes, coalesce(proallargtypes, proargtypes::oid[])) WITH ORDINALITY a (name, mode, type, i) ON true
WHERE pronamespace = 'public'::regnamespace;
SELECT DISTINCT name AS function_without_heading FROM functions f
WHERE NOT EXISTS (SELECT FROM doc_lines WHERE section ~ ('\m' || f.name || '\M') AND line ~ ('^(CALL )?' || f.name || '\('));
SELECT DISTINCT m[1] AS no_such_function FROM regexp_matches(:'page', '\m(bbm_\w+)\(', 'g') m
WHERE NOT EXISTS (SELECT FROM functions WHERE name = m[1]);

-- their parameters, as the line under the heading has them
CREATE TABLE signatures AS
SELECT s[1] AS name, trim(split_part(p, ' ', 1)) AS parameter,
       replace(regexp_replace(regexp_replace(p, '^\S+ ', ''), ' DEFAULT .*', ''), 'timestamptz', 'timestamp with time zone') AS type, i
FROM (SELECT regexp_match(signature[1], '^(?:CALL )?(\w+)\((.*)\)( →.*)?$') AS s
      FROM regexp_matches(:'page', E'```\n((?:CALL )?bbm_.*?)\n```', 'g') block,
           regexp_split_to_table(regexp_replace(block[1], E'\n +', ' ', 'g'), E'\n') l,
           LATERAL (SELECT ARRAY[regexp_replace(l, ' → .*', '')]) x (signature)) s,
     regexp_split_to_table(replace(s[2], 'VARIADIC ', ''), ', ') WITH ORDINALITY AS x (p, i)
WHERE p <> '';
SELECT coalesce(f.name, s.name) AS function, f.parameter, f.type, s.parameter AS documented, s.type AS documented_type
FROM (SELECT * FROM functions WHERE mode IN ('i', 'v') AND parameter IS NOT NULL AND name NOT IN ('bbm_update', 'bbm_delete')) f
FULL JOIN (SELECT * FROM signatures WHERE name NOT IN ('bbm_update', 'bbm_delete')) s ON s.name = f.name AND s.parameter = f.parameter AND s.type = f.type AND s.i = f.i
WHERE f.name IS NULL OR s.name IS NULL ORDER BY 1, f.i, s.i;
-- bbm_update and bbm_delete: their own ones, and those of bbm_create but for the job
SELECT f.name AS function, f.parameter FROM functions f
WHERE name IN ('bbm_update', 'bbm_delete')
  AND NOT EXISTS (SELECT FROM signatures s WHERE s.name IN (f.name, 'bbm_create') AND s.parameter = f.parameter AND s.type = f.type AND s.parameter <> 'job');

-- the parameters of bbm_create are described
SELECT f.parameter, f.type, d.name AS documented, type_of(d.second, d.o) AS documented_type
FROM (SELECT * FROM functions WHERE name = 'bbm_create') f
FULL JOIN (SELECT * FROM doc_rows WHERE section = 'bbm_create' AND tab = 1) d ON d.name = f.parameter AND type_of(d.second, d.o) = f.type
WHERE f.name IS NULL OR d.name IS NULL ORDER BY f.i, d.n;

-- how it is done is bounded by something, and may be changed by whom the page says; the rest is what is done
CREATE VIEW how AS
SELECT DISTINCT parameter AS name FROM functions
WHERE name IN ('bbm_create', 'bbm_update', 'bbm_delete', 'bbm_alter') AND parameter NOT IN
    ('name', 'new_name', 'owner', 'start', 'restart', 'if_not_exists', 'table_name', 'job', 'set', 'filter', 'row_check', 'column_name',
     'batching_strategy', 'min_value', 'max_value', 'min_key', 'max_key');
SELECT coalesce(h.name, d.name) AS option, h.name IS NULL AS no_such_option
FROM (SELECT name FROM how WHERE name <> 'settings') h
FULL JOIN (SELECT name FROM doc_rows WHERE section = 'Limits' AND tab = 2 AND name NOT IN ('idle_timeout', 'bbm_launch_worker')) d USING (name)
WHERE h.name IS NULL OR d.name IS NULL ORDER BY 1;
SELECT coalesce(h.name, d.name) AS option, h.name IS NULL AS no_such_option
FROM how h
FULL JOIN (SELECT d.name FROM doc_rows d JOIN doc_rows b ON b.n = d.n AND b.name = 'batch_size'
           WHERE d.section = 'Plain statements' AND d.tab = 2) d USING (name)
WHERE h.name IS NULL OR d.name IS NULL ORDER BY 1;

-- columns of tables, views and what functions return
CREATE TABLE shown (section text, tab int, of text);
INSERT INTO shown VALUES ('bbm_status', 1, 'bbm_status'), ('bbm_status_detail', 1, 'bbm_status_detail'), ('bbm_jobs', 1, 'bbm_jobs'),
    ('bbm_errors', 1, 'bbm_errors'), ('bbm_errors', 2, 'bbm_migration_errors'), ('bbm_doctor', 1, 'bbm_doctor'),
    ('bbm_workers', 1, 'bbm_workers'), ('bbm_throttle', 1, 'bbm_throttle'), ('bbm_dry_run', 1, 'bbm_dry_run'),
    ('bbm_preview', 1, 'bbm_preview'), ('bbm_import', 2, 'bbm_import'), ('Metrics', 1, 'bbm_migration_metrics'),
    ('batched_background_migrations', 1, 'batched_background_migrations'),
    ('batched_background_migration_jobs', 1, 'batched_background_migration_jobs'), ('bbm_partitions', 1, 'bbm_partitions'),
    ('bbm_row_errors', 1, 'bbm_row_errors'), ('bbm_totals', 1, 'bbm_totals'), ('bbm_events', 1, 'bbm_events');
CREATE TABLE seen AS
SELECT c.relname AS of, attname AS name, format_type(atttypid, NULL) AS type, pg_get_expr(adbin, adrelid) AS value
FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE c.relkind IN ('r', 'v') AND c.relnamespace = 'public'::regnamespace
UNION ALL
SELECT f.name, a.attname, format_type(a.atttypid, NULL), NULL
FROM (SELECT DISTINCT oid, name FROM functions) f JOIN pg_proc p ON p.oid = f.oid JOIN pg_type t ON t.oid = p.prorettype AND t.typrelid <> 0
JOIN pg_attribute a ON attrelid = t.typrelid AND attnum > 0
UNION ALL
SELECT name, parameter, type, NULL FROM functions WHERE mode IN ('o', 't');
SELECT s.of, c.name, c.type, d.name AS documented, type_of(d.second, d.o) AS documented_type
FROM shown s JOIN seen c ON c.of = s.of
LEFT JOIN doc_rows d ON d.section = s.section AND d.tab = s.tab AND d.name = c.name
    AND (coalesce(type_of(d.second, d.o), c.type) = c.type OR s.of = 'bbm_import')
WHERE d.name IS NULL ORDER BY 1, 2;
SELECT s.of, d.name AS no_such_column
FROM shown s JOIN doc_rows d ON d.section = s.section AND d.tab = s.tab
WHERE NOT EXISTS (SELECT FROM seen c WHERE c.of = s.of AND c.name = d.name) ORDER BY 1, 2;
-- none is left out
SELECT relname AS not_described FROM pg_class c
WHERE relkind IN ('r', 'v') AND relnamespace = 'public'::regnamespace AND relname ~ '^(bbm|batched)_'
  AND NOT EXISTS (SELECT FROM shown WHERE of = relname) AND :'page' !~ ('`' || relname || '`') ORDER BY 1;
-- and each explains itself
SELECT c.oid::regclass AS relation, attname AS not_commented FROM pg_class c LEFT JOIN pg_attribute ON attrelid = c.oid AND attnum > 0
WHERE relkind IN ('r', 'v') AND relnamespace = 'public'::regnamespace AND relname ~ '^(bbm|batched)_'
  AND (col_description(c.oid, attnum) IS NULL AND NOT attisdropped OR obj_description(c.oid, 'pg_class') IS NULL) ORDER BY 1, 2;
-- the defaults of the two tables that users write
SELECT c.of, c.name, c.value AS "default", d.third AS documented
FROM seen c JOIN doc_rows d ON d.section = c.of AND d.name = c.name
WHERE c.of LIKE 'batched%' AND c.value IS NOT NULL AND c.name NOT IN ('job_search_path', 'job_settings')
  AND trim(split_part(d.third || ', ' || d.third, ', ', greatest(d.o, 1)::int), ' `') <> trim(replace(c.value, '::text', ''), '''')
ORDER BY 1, 2;

-- settings
SELECT coalesce(s.name, d.name) AS setting, s.unit, s.boot_val, s.min_val, d.second, d.third, d.fourth
FROM (SELECT *, CASE unit WHEN 'kB' THEN pg_size_bytes(boot_val || ' kB')::text WHEN 'MB' THEN pg_size_bytes(boot_val || ' MB')::text
                WHEN 'ms' THEN (boot_val || ' ms')::interval::text WHEN 's' THEN (boot_val || ' s')::interval::text
                WHEN 'min' THEN (boot_val || ' min')::interval::text ELSE boot_val END AS value
      FROM pg_settings WHERE name LIKE 'bbm.%') s
FULL JOIN (SELECT *, trim(third, ' `''') AS value FROM doc_rows WHERE section = 'Settings' AND tab IN (1, 2)) d
    ON d.name = s.name AND trim(d.second) = coalesce(s.unit, '')
   AND (d.value = s.boot_val OR CASE WHEN s.boot_val = '-1' OR d.value !~ '^\d+\w+$' THEN false
                                WHEN s.unit IN ('kB', 'MB') THEN pg_size_bytes(d.value)::text = s.value
                                ELSE justify_interval(d.value::interval) = justify_interval(s.value::interval) END)
   AND (coalesce(s.min_val, '') = split_part(trim(d.fourth), ' ', 1))
   AND (s.vartype <> 'real' AND s.max_val::bigint > 1000000 OR coalesce(s.max_val, '') = split_part(trim(d.fourth), ' ', 3))
WHERE s.name IS NULL OR d.name IS NULL ORDER BY 1;

DROP TABLE doc_lines, doc_rows, signatures, shown, seen;
DROP VIEW how, functions;
DROP FUNCTION type_of;
DROP EXTENSION bbm;
