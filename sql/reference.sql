--
-- The examples of doc/reference.md that define, as they stand there, and run to
-- their end.
--

-- the examples under a heading
CREATE FUNCTION examples(page text, heading text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(block[1], '' ORDER BY o)
    FROM regexp_matches((regexp_match(page, '\n## ' || heading || '\n(.*?)(\n## |$)'))[1], E'```sql\n(.*?)```', 'g')
         WITH ORDINALITY AS b (block, o)
$$;
\set page `cat "$PG_ABS_SRCDIR/doc/reference.md"`
SELECT examples(:'page', 'Sizes that follow the time') AS sizes, examples(:'page', 'Rows that arrive later') AS later,
       examples(:'page', 'bbm_create') AS bbm_create, examples(:'page', 'bbm_alter') AS bbm_alter,
       examples(:'page', 'bbm_drop') AS bbm_drop, examples(:'page', 'bbm_update') AS bbm_update,
       examples(:'page', 'bbm_delete') AS bbm_delete, examples(:'page', 'bbm_dry_run') AS bbm_dry_run,
       -- the job with a key of two columns
       (regexp_match(:'page', E'\n(''UPDATE public.visits SET .*?'')\n'))[1] AS two_columns \gset

CREATE EXTENSION bbm;
ALTER SYSTEM SET bbm.enabled = off;
SELECT pg_reload_conf();
\c -
SET client_min_messages = warning;
CREATE ROLE other_app LOGIN;
CREATE TABLE items (id bigint PRIMARY KEY, price numeric, quantity int, total numeric);
INSERT INTO items SELECT i, i, 2 FROM generate_series(1, 3000) i;
CREATE TABLE visits (tenant int, at timestamptz, seen boolean, PRIMARY KEY (tenant, at));
INSERT INTO visits SELECT i % 3, '2019-12-31 12:00+00'::timestamptz + i * interval '1 hour' FROM generate_series(1, 30) i;

:bbm_create
:bbm_alter
SELECT name, owner, batch_size, target_duration, workers FROM batched_background_migrations;
:bbm_drop
:bbm_update
SELECT bbm_pause('fill items.total');
-- its times are never the same
\o /dev/null
:bbm_dry_run
\o
:sizes
:later
SELECT bbm_create('two columns', 'public.visits', :two_columns, batch_size => 10);
:bbm_delete
SELECT name, batching_strategy, batch_size, target_duration, max_batch_wal, follow, verify
FROM batched_background_migrations ORDER BY id;
CALL bbm_run();
SELECT name, status, rows_done FROM bbm_status();
SELECT count(*) FROM items WHERE total = price * quantity;
SELECT count(*), bool_and(seen) FROM visits;

DROP EXTENSION bbm;
DROP TABLE items, visits;
DROP FUNCTION examples;
DROP ROLE other_app;
ALTER SYSTEM RESET bbm.enabled;
SELECT pg_reload_conf();
