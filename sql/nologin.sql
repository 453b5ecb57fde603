--
-- An owner that may not log in: before PostgreSQL 17 no worker can run as it.
-- (There are two expected outputs.)
--

SELECT current_setting('server_version_num')::int < 170000 AS owner_needs_login;
CREATE EXTENSION bbm;
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/wait_for.inc'
\i :helper
CREATE ROLE regress_bbm_nologin;
GRANT EXECUTE ON FUNCTION bbm_create TO regress_bbm_nologin;
CREATE TABLE t (id int PRIMARY KEY, who text);
INSERT INTO t VALUES (1), (2);
ALTER TABLE t OWNER TO regress_bbm_nologin;
SET ROLE regress_bbm_nologin;
DO $$
DECLARE state text; message text; detail text; hint text;
BEGIN
    PERFORM bbm_create('nologin', 't', 'UPDATE t SET who = current_user WHERE id BETWEEN $1 AND $2');
    RAISE NOTICE 'created';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RAISE NOTICE E'%: %\n%\n%', state, message, detail, hint;
END $$;
RESET ROLE;
SELECT name, status, owner FROM batched_background_migrations;
DELETE FROM batched_background_migrations;

-- an INSERT shows only later what comes of it
INSERT INTO batched_background_migrations
  (name, max_value, batch_size, job_signature_name, table_name, column_name, status, owner)
VALUES ('inserted', 2, 1, 'UPDATE t SET who = current_user WHERE id BETWEEN $1 AND $2', 'public.t', 'id', 1,
        'regress_bbm_nologin');
SELECT bbm_wait('inserted', '1 minute');
SELECT status, failure_error_code, error_sqlstate, error_message, error_hint FROM batched_background_migrations;
SELECT * FROM t ORDER BY id;
-- with the role corrected it goes on
ALTER ROLE regress_bbm_nologin LOGIN;
UPDATE batched_background_migrations SET status = 1 WHERE status = 3;
SELECT bbm_wait('inserted', '1 minute');
SELECT * FROM t ORDER BY id;

-- several at once, as when a role loses LOGIN while they run; none by a worker that is still there
SELECT wait_for($$NOT EXISTS (SELECT FROM bbm_workers())$$);
ALTER ROLE regress_bbm_nologin NOLOGIN;
INSERT INTO batched_background_migrations
  (name, max_value, batch_size, job_signature_name, table_name, column_name, status, owner)
SELECT 'inserted ' || i, 2, 1, 'UPDATE t SET who = current_user WHERE id BETWEEN $1 AND $2', 'public.t', 'id', 1,
       'regress_bbm_nologin' FROM generate_series(1, 5) i;
SELECT count(bbm_wait(name, '1 minute')) FROM batched_background_migrations WHERE name LIKE 'inserted _';
SELECT count(*), bool_and(status = CASE WHEN current_setting('server_version_num')::int < 170000 THEN 3 ELSE 2 END)
FROM batched_background_migrations WHERE name LIKE 'inserted _';
DELETE FROM batched_background_migrations WHERE name LIKE 'inserted _';
ALTER ROLE regress_bbm_nologin LOGIN;

-- neither is it possible to give it away to such a one
ALTER ROLE regress_bbm_nologin NOLOGIN;
SELECT bbm_create('given', 't', 'UPDATE t SET who = current_user WHERE id BETWEEN $1 AND $2') > 0 AS created;
SELECT bbm_alter('given', owner => 'regress_bbm_nologin');

SET client_min_messages = warning;
DROP EXTENSION bbm;
DROP TABLE t;
DROP ROLE regress_bbm_nologin;
DROP FUNCTION wait_for;
