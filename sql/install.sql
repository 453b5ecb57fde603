--
-- What CREATE EXTENSION makes, and that DROP EXTENSION leaves nothing of it.
--

CREATE EXTENSION bbm;
SELECT extname, extversion, extrelocatable, extnamespace::regnamespace, obj_description(oid, 'pg_extension')
FROM pg_extension WHERE extname = 'bbm';

-- tables
SELECT relname, relkind, relrowsecurity, obj_description(oid, 'pg_class') IS NOT NULL AS commented
FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'S')
ORDER BY relname;

-- columns: the registry's come first, in its order
SELECT attname, format_type(atttypid, atttypmod) AS type, attnotnull AS not_null, attidentity AS identity,
       pg_get_expr(adbin, adrelid) AS default
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = 'batched_background_migrations'::regclass AND attnum > 0 AND NOT attisdropped
ORDER BY attnum;
SELECT attname, format_type(atttypid, atttypmod) AS type, attnotnull AS not_null, attidentity AS identity,
       pg_get_expr(adbin, adrelid) AS default
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = 'batched_background_migration_jobs'::regclass AND attnum > 0 AND NOT attisdropped
ORDER BY attnum;
SELECT attname, format_type(atttypid, atttypmod) AS type, attnotnull AS not_null, attidentity AS identity,
       pg_get_expr(adbin, adrelid) AS default
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = 'bbm_events'::regclass AND attnum > 0 AND NOT attisdropped
ORDER BY attnum;

-- constraints, indexes, triggers, policies
SELECT conrelid::regclass, contype, pg_get_constraintdef(oid) AS definition
FROM pg_constraint
WHERE conrelid IN ('batched_background_migrations'::regclass, 'batched_background_migration_jobs'::regclass,
                   'bbm_events'::regclass) AND contype <> 'n'
ORDER BY conrelid::regclass::text, contype, definition;
SELECT indexname, regexp_replace(indexdef, '^.* USING ', '') AS definition
FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname;
-- none that a longer one covers: each is a write in each batch
SELECT a.indexrelid::regclass AS needless, b.indexrelid::regclass AS longer
FROM pg_index a JOIN pg_index b ON a.indrelid = b.indrelid AND a.indexrelid <> b.indexrelid
WHERE a.indrelid::regclass::text ~ '^(batched|bbm)' AND NOT a.indisunique
    AND a.indpred IS NOT DISTINCT FROM b.indpred AND b.indkey::text || ' ' LIKE a.indkey::text || ' %';
SELECT tgrelid::regclass, tgname, tgfoid::regproc, tgenabled
FROM pg_trigger
WHERE tgrelid::regclass::text ~ '^(batched|bbm)' AND NOT tgisinternal
ORDER BY tgrelid::regclass::text, tgname;
SELECT tablename, policyname, cmd, roles FROM pg_policies WHERE schemaname = 'public' ORDER BY tablename, policyname;

-- pg_dump carries the tables and their sequences
SELECT unnest(extconfig)::regclass::text AS dumped, unnest(extcondition) AS condition
FROM pg_extension WHERE extname = 'bbm' ORDER BY 1;

-- functions: how they are called, what they return, and who may call them
SELECT p.proname || '(' || pg_get_function_arguments(p.oid) || ')' AS function,
       p.prokind AS kind,
       pg_get_function_result(p.oid) AS result,
       has_function_privilege('public', p.oid, 'EXECUTE') AS public,
       p.prosecdef AS definer
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'bbm'
ORDER BY p.proname, 1
\pset format unaligned
\g
\pset format aligned

-- what runs with more rights than its caller's has a search_path of its own
SELECT proname, proconfig FROM pg_proc WHERE proname LIKE 'bbm%' AND prosecdef ORDER BY proname;

-- every function and every column explains itself
SELECT p.oid::regprocedure AS not_commented
FROM pg_proc p
WHERE p.pronamespace = 'public'::regnamespace AND p.proname LIKE 'bbm%' AND obj_description(p.oid, 'pg_proc') IS NULL
ORDER BY p.proname;
SELECT attrelid::regclass::text || '.' || attname AS not_commented
FROM pg_attribute
WHERE attrelid IN ('batched_background_migrations'::regclass, 'batched_background_migration_jobs'::regclass,
                   'bbm_events'::regclass)
  AND attnum > 0 AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL
ORDER BY attrelid::regclass::text, attnum;

-- only the installer has rights on the tables
-- MAINTAIN came with 17
SELECT relname, replace(relacl::text, 'xtm', 'xt') AS relacl FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S') ORDER BY relname;

-- it is there once, and goes without a trace
CREATE EXTENSION bbm;
DROP EXTENSION bbm;
SELECT count(*) AS left_behind FROM pg_class WHERE relname ~ '^(batched_background|bbm_)';
SELECT count(*) AS left_behind FROM pg_proc WHERE proname LIKE 'bbm%';

-- not made, when rolled back; still there, when the drop is
BEGIN;
CREATE EXTENSION bbm;
SELECT bbm_internal.bbm_status_name(4::smallint);
ROLLBACK;
SELECT count(*) AS left_behind FROM pg_proc WHERE proname LIKE 'bbm%';
CREATE EXTENSION bbm;
BEGIN;
DROP EXTENSION bbm;
ROLLBACK;
SELECT bbm_internal.bbm_status_name(s::smallint) FROM generate_series(0, 5) s;
DROP EXTENSION bbm;

-- in another schema, which need not be on the search_path
CREATE SCHEMA regress_ops;
CREATE EXTENSION bbm SCHEMA regress_ops;
SELECT count(*) AS in_public FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relname ~ '^(batched_background|bbm_)';
SELECT count(*) AS in_public FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'bbm%';
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 10);
SELECT regress_ops.bbm_create('elsewhere', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 3);
CALL regress_ops.bbm_run('elsewhere');
SELECT name, status, percent, rows_done, jobs_finished FROM regress_ops.bbm_status_detail();
SELECT min(n), max(n) FROM t;
-- it cannot be moved
ALTER EXTENSION bbm SET SCHEMA public;
-- the schema's name may change, and another one may get it
ALTER SCHEMA regress_ops RENAME TO regress_ops_now;
CREATE SCHEMA regress_ops;
CREATE VIEW regress_ops.bbm_problems AS SELECT 'not ours'::text AS migration, ''::text AS problem, ''::text AS detail, ''::text AS advice;
CREATE TABLE renamed (id int PRIMARY KEY, n int);
INSERT INTO renamed SELECT generate_series(1, 10);
SELECT regress_ops_now.bbm_update('renamed', 'renamed', 'n = 10 / (id - 3)', on_error => 'split', max_attempts => 1, batch_size => 10, start => true) > 0 AS created;
SELECT regress_ops_now.bbm_wait('renamed', '1 minute');
SELECT name, status, rows_done FROM regress_ops_now.bbm_status();
SELECT name, status, rows_done FROM regress_ops_now.bbm_status_detail('renamed');
SELECT migration, rows FROM regress_ops_now.bbm_jobs();
SELECT migration, count, first_key FROM regress_ops_now.bbm_errors();
SELECT count(*) FROM regress_ops_now.bbm_doctor();
SELECT count(*) FROM regress_ops_now.bbm_throttle('renamed');
DROP TABLE renamed;
DROP SCHEMA regress_ops CASCADE;
ALTER SCHEMA regress_ops_now RENAME TO regress_ops;
DROP SCHEMA regress_ops;
DROP SCHEMA regress_ops CASCADE;
SELECT count(*) AS extensions FROM pg_extension WHERE extname = 'bbm';
DROP TABLE t;
