--
-- if_not_exists: the same definition is no error, another one shows what is different.
--

CREATE EXTENSION bbm;
CREATE TABLE t (id int PRIMARY KEY, n int, old int);
INSERT INTO t SELECT generate_series(1, 10);
CREATE TABLE k (at timestamptz PRIMARY KEY, n int);
INSERT INTO k SELECT timestamptz '2024-01-01 00:00:00+00' + i * interval '1 day' FROM generate_series(1, 10) i;

-- it is defined, then it is there
SELECT bbm_create('c', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', if_not_exists => true) AS id;
SELECT bbm_create('c', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', if_not_exists => true) AS id;
SELECT bbm_create('c', 'public.t', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', column_name => 'id',
                  if_not_exists => true, start => true) AS id;
-- the default strategy by its name is no other one
SELECT bbm_create('c', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', batching_strategy => 'SerialKeySetBatchingStrategy', if_not_exists => true) AS id;
SELECT bbm_create('c', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', batching_strategy => 'LooseIndexScanBatchingStrategy', if_not_exists => true) AS id;
SELECT bbm_create('c', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', if_not_exists => false);
SELECT bbm_create('c', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', if_not_exists => NULL);
SELECT bbm_update('u', 't', 'n = 2', 'n IS NULL', batch_size => 5, verify => true, settings => '{bbm.lock_timeout=100}', if_not_exists => true) > 0 AS defined;
SELECT bbm_update('u', 't', 'n = 2', 'n IS NULL', batch_size => 5, verify => true, settings => '{bbm.lock_timeout=100}', if_not_exists => true) > 0 AS defined;
SELECT bbm_delete('d', 't', 'n = 3', if_not_exists => true) > 0 AS defined;
SELECT bbm_delete('d', 't', 'n = 3', if_not_exists => true) > 0 AS defined;

-- another one: field by field
SELECT bbm_create('c', 't', 'UPDATE t SET n = 2 WHERE id BETWEEN $1 AND $2', workers => 2, target_duration => '5 ms', if_not_exists => true);
SELECT bbm_update('u', 't', 'n = 3', batch_size => 6, if_not_exists => true);
SELECT bbm_update('d', 't', 'n = 4', 'n = 3', if_not_exists => true);
SELECT bbm_create('c', 'k', 'UPDATE k SET n = 1 WHERE at BETWEEN $1 AND $2', if_not_exists => true);
SELECT bbm_update('u', 't', 'n = 2' || repeat(' + 1', 100), 'n IS NULL', batch_size => 5, verify => true, settings => '{bbm.lock_timeout=100}', if_not_exists => true);
SET search_path = public, pg_catalog;
SELECT bbm_create('c', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', if_not_exists => true);
RESET search_path;
-- what is not right is an error, whether there is one or not
SELECT bbm_create('c', 't', 'UPDATE t SET n = 1', if_not_exists => true);
SELECT bbm_create('c', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', workers => 0, if_not_exists => true);

-- bounds: given, or what the table has
INSERT INTO t VALUES (0), (11);
SELECT bbm_create('c', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', if_not_exists => true) > 0 AS same;
SELECT bbm_create('c', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', max_value => 5, if_not_exists => true);
SELECT bbm_update('b', 't', 'n = 1', max_value => 5, if_not_exists => true) > 0 AS defined;
SELECT bbm_update('b', 't', 'n = 1', max_value => 5, if_not_exists => true) > 0 AS same;
SELECT bbm_update('b', 't', 'n = 1', if_not_exists => true);
SELECT bbm_update('k', 'k', 'n = 1', min_key => '{2024-01-03 UTC}', if_not_exists => true) > 0 AS defined;
SELECT bbm_update('k', 'k', 'n = 1', min_key => '{2024-01-03 02:00+02}', if_not_exists => true) > 0 AS same;
SELECT bbm_update('k', 'k', 'n = 1', min_key => '{2024-01-04 UTC}', if_not_exists => true);

-- a change by bbm_alter is another definition, too, but not what bbm itself has recorded
SELECT bbm_alter('d', workers => 3);
SELECT bbm_delete('d', 't', 'n = 3', if_not_exists => true);
SELECT bbm_delete('d', 't', 'n = 3', workers => 3, if_not_exists => true) > 0 AS same;
SELECT bbm_update('f', 't', 'n = 1', 'n IS NULL', follow => true) > 0 AS defined;
INSERT INTO t VALUES (12);
CALL bbm_run('f');
SELECT max_value, follow, followed FROM batched_background_migrations WHERE name = 'f';
SELECT bbm_update('f', 't', 'n = 1', 'n IS NULL', follow => true, if_not_exists => true) > 0 AS same;
SELECT bbm_update('f', 't', 'n = 1', 'n IS NULL', if_not_exists => true);

-- one that is finished: the table may not be what it was, or where it was
SELECT bbm_update('moved', 't', 'n = old', 'n IS DISTINCT FROM old', if_not_exists => true) > 0 AS defined;
CALL bbm_run('moved');
CALL bbm_run('c');
ALTER TABLE t DROP COLUMN old;
SELECT bbm_update('moved', 't', 'n = old', 'n IS DISTINCT FROM old', if_not_exists => true) > 0 AS same;
ALTER TABLE t RENAME TO gone;
SELECT bbm_update('moved', 't', 'n = old', 'n IS DISTINCT FROM old', if_not_exists => true) > 0 AS same;
SELECT bbm_update('moved', 'public.t', 'n = old', 'n IS DISTINCT FROM old', if_not_exists => true) > 0 AS same;
SELECT bbm_update('moved', 'other.t', 'n = old', 'n IS DISTINCT FROM old', if_not_exists => true);
SELECT bbm_update('moved', 'tt', 'n = old - 1', 'n IS DISTINCT FROM old', max_value => 3, if_not_exists => true);
SELECT bbm_create('c', 't', 'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2', if_not_exists => true) > 0 AS same;
SELECT bbm_create('c', 't', 'UPDATE t SET n = 2 WHERE id BETWEEN $1 AND $2', if_not_exists => true);
-- one that is not finished needs it
SELECT bbm_update('u', 't', 'n = 2', 'n IS NULL', batch_size => 5, verify => true, settings => '{bbm.lock_timeout=100}', if_not_exists => true);
ALTER TABLE gone RENAME TO t;

-- another role's
CREATE ROLE bbm_regress_other LOGIN;
GRANT EXECUTE ON FUNCTION bbm_update TO bbm_regress_other;
GRANT SELECT, UPDATE ON t TO bbm_regress_other;
SET ROLE bbm_regress_other;
SELECT bbm_update('u', 't', 'n = 2', 'n IS NULL', if_not_exists => true);
SELECT bbm_update('theirs', 't', 'n = 2', 'n IS NULL', if_not_exists => true) > 0 AS defined;
RESET ROLE;
SELECT bbm_update('theirs', 't', 'n = 2', 'n IS NULL', if_not_exists => true);

-- nothing of this has left a second one, an event or another status
SELECT m.name, bbm_internal.bbm_status_name(m.status) AS status, string_agg(e.event, ', ' ORDER BY e.id) AS events
FROM batched_background_migrations m LEFT JOIN bbm_events e ON e.migration_id = m.id
GROUP BY m.id ORDER BY m.id;

REVOKE ALL ON FUNCTION bbm_update FROM bbm_regress_other;
DROP EXTENSION bbm;
DROP TABLE t, k;
DROP ROLE bbm_regress_other;
