--
-- A scan of a table of a billion rows, by its jobs alone: the rows of their
-- ranges are not read.  The job table stays small, the status reads little, and the last
-- claims take the CPU time that the first ones did.  (`make bench` has the figures.)
--

CREATE EXTENSION bbm;
ALTER SYSTEM SET bbm.enabled = off;
SELECT pg_reload_conf();
\c -

\getenv bbm_test BBM_TEST_MODULE
CREATE PROCEDURE table_scan(name text, jobs int, INOUT most_rows bigint, INOUT first_us float8, INOUT last_us float8)
    LANGUAGE c AS :'bbm_test', 'bbm_test_table_scan';
CREATE TABLE t (id bigint PRIMARY KEY, n int);
SELECT bbm_create('table scan', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', batch_size => 50000, min_value => 1,
                  max_value => 1000000000) AS id;
CALL table_scan('table scan', 20000, NULL, NULL, NULL) \gset
SELECT :most_rows < 10000 AS small, :last_us < 3 * :first_us OR :last_us < 500 AS flat;
-- it is an ordinary migration: what is left is to finish
SELECT percent, jobs_finished FROM bbm_status_detail('table scan');
SELECT count(*) FROM bbm_status();
-- for which little is read: by now everything is in shared buffers
CREATE FUNCTION blocks_read(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE plan json;
BEGIN
    EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ' || query INTO plan;
    RETURN (plan->0->'Plan'->>'Shared Hit Blocks')::bigint + (plan->0->'Plan'->>'Shared Read Blocks')::bigint;
END $$;
SELECT blocks_read('SELECT * FROM bbm_status()') < 1000 AS little;
SELECT min(min_value), max(max_value), sum(max_value - min_value + 1) AS keys, sum(merged_jobs) AS jobs
FROM batched_background_migration_jobs;
CALL bbm_run('table scan');

DROP EXTENSION bbm;
DROP PROCEDURE table_scan;
DROP FUNCTION blocks_read;
DROP TABLE t;
ALTER SYSTEM RESET bbm.enabled;
SELECT pg_reload_conf();
