--
-- The options of a migration: one list of them in C, and what the install
-- script says of each agrees with it and with itself.
--

CREATE EXTENSION bbm;
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/fails.inc'
\i :helper

-- a parameter that is an option has the type of the column, and its default (a NULL is one that bbm chooses)
CREATE VIEW parameters AS
SELECT p.proname AS function, a.name AS parameter, a.type,
       pg_get_function_arg_default(p.oid, a.n::int) AS default,
       CASE a.name WHEN 'job' THEN 'job_signature_name' WHEN 'set' THEN 'set_clause' ELSE a.name END AS column
FROM pg_proc p CROSS JOIN unnest(p.proargnames, p.proargtypes::oid[]) WITH ORDINALITY a (name, type, n)
WHERE p.proname IN ('bbm_create', 'bbm_update', 'bbm_delete', 'bbm_alter');
SELECT DISTINCT parameter, type::regtype AS is, c.atttypid::regtype AS column_is
FROM parameters p JOIN pg_attribute c ON c.attrelid = 'batched_background_migrations'::regclass AND c.attname = p.column
WHERE p.type <> c.atttypid ORDER BY 1;
SELECT function, parameter, "default", pg_get_expr(d.adbin, d.adrelid) AS column_default
FROM parameters p
JOIN pg_attribute c ON c.attrelid = 'batched_background_migrations'::regclass AND c.attname = p.column
LEFT JOIN pg_attrdef d ON d.adrelid = c.attrelid AND d.adnum = c.attnum
WHERE function <> 'bbm_alter' AND "default" IS NOT NULL AND "default" NOT LIKE 'NULL%'
  AND "default" IS DISTINCT FROM pg_get_expr(d.adbin, d.adrelid);
SELECT parameter FROM parameters WHERE function = 'bbm_alter' AND "default" NOT LIKE 'NULL%';
-- what the three that define have in common
SELECT parameter, string_agg(function, ', ' ORDER BY function) AS "only"
FROM parameters WHERE function <> 'bbm_alter' GROUP BY parameter HAVING count(*) < 3 ORDER BY 1;
-- parameters that are not columns
SELECT parameter, string_agg(function, ', ' ORDER BY function) AS functions
FROM parameters p
WHERE NOT EXISTS (SELECT 1 FROM pg_attribute c
                  WHERE c.attrelid = 'batched_background_migrations'::regclass AND c.attname = p.column)
GROUP BY parameter ORDER BY 1;

DROP VIEW parameters;
DROP FUNCTION fails;
DROP EXTENSION bbm;
