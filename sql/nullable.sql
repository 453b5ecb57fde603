--
-- Keys that may be null by the table's schema, and the rows in which they are.
--

CREATE EXTENSION bbm;
-- alone: no background worker takes a hand in it
ALTER SYSTEM SET bbm.enabled = off;
ALTER SYSTEM SET bbm.retry_delay = '1 ms';
SELECT pg_reload_conf();
\c -
\set SHOW_CONTEXT never
SELECT current_user AS me \gset
CREATE FUNCTION outcome(name text) RETURNS TABLE (status smallint, code smallint, sqlstate text, message text, detail text, hint text)
LANGUAGE sql AS
    'SELECT status, failure_error_code, error_sqlstate, error_message, error_detail, error_hint
     FROM batched_background_migrations m WHERE m.name = $1';
CREATE FUNCTION new(name text) RETURNS void LANGUAGE sql AS 'SELECT bbm_drop(name, if_exists => true)';
-- a registry's job, and one of a range
CREATE FUNCTION job5(table_name text, column_name text, min bigint, max bigint, batch_size integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE %s SET n = n + 1 WHERE %I BETWEEN $1 AND $2', table_name, column_name) USING min, max;
END $$;
CREATE FUNCTION job2(min bigint, max bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE t SET n = n + 1 WHERE id BETWEEN min AND max;
END $$;

/* Filled, as the container registry's blobs.id is: nothing is different. */

CREATE TABLE t (id bigint, digest text NOT NULL PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE INDEX ON t (id);
INSERT INTO t SELECT i, 'd' || i FROM generate_series(1, 100) i;
INSERT INTO batched_background_migrations (name, min_value, max_value, batch_size, job_signature_name, table_name, column_name, status)
VALUES ('m', 1, 100, 30, 'job5', 'public.t', 'id', 1);
CALL bbm_run('m');
SELECT min(n), max(n), count(*) FROM t;
SELECT bbm_ensure_finished('m');
-- a CHECK, validated or not, changes nothing
SELECT new('m');
ALTER TABLE t ADD CONSTRAINT filled CHECK (id IS NOT NULL);
SELECT bbm_create('m', 't', 'job2', 'id', batch_size => 30) > 0 AS defined;
CALL bbm_run('m');
SELECT min(n), max(n), count(*) FROM t;
ALTER TABLE t DROP CONSTRAINT filled;

/* Rows with a null key: reported by bbm_update and by a dry run; not ignored at the end. */

INSERT INTO t VALUES (NULL, 'null 1'), (NULL, 'null 2');
-- that a check is there says nothing of the rows from before
ALTER TABLE t ADD CONSTRAINT filled CHECK (id IS NOT NULL) NOT VALID;
UPDATE t SET n = 0 WHERE id IS NOT NULL;
SELECT new('m');
SELECT bbm_create('m', 't', 'job2', 'id', batch_size => 30) > 0 AS defined;
SELECT min_value, max_value FROM batched_background_migrations;
SELECT jobs, keys, rows, complete FROM bbm_dry_run('m', 2);
SELECT jobs, keys, rows, complete FROM bbm_dry_run('m', 10);
CALL bbm_run('m');
\x
SELECT * FROM outcome('m');
\x
SELECT id IS NULL AS null, min(n), max(n), count(*) FROM t GROUP BY 1 ORDER BY 1;
SELECT bbm_ensure_finished('m');
-- it stays so when it is started again, and no range is done twice
\set VERBOSITY terse
CALL bbm_run('m');
SELECT id IS NULL AS null, min(n), max(n), count(*) FROM t GROUP BY 1 ORDER BY 1;
-- done by hand, and excepted
ALTER TABLE t DROP CONSTRAINT filled;
UPDATE t SET n = n + 1 WHERE id IS NULL;
SELECT bbm_alter('m', skip_null_keys => true);
\set VERBOSITY default
CALL bbm_run('m');
\set VERBOSITY terse
SELECT bbm_ensure_finished('m');
SELECT min(n), max(n), count(*) FROM t;
-- ... or in the definition
SELECT new('m');
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, status, skip_null_keys)
VALUES ('m', 100, 30, 'job5', 'public.t', 'id', 1, true);
CALL bbm_run('m');
SELECT bbm_verify('m', 'n = 2');
SELECT new('m');
SELECT bbm_create('m', 't', 'job2', 'id', batch_size => 30, filter => 'id IS NOT NULL') > 0 AS defined;
CALL bbm_run('m');
SELECT id IS NULL AS null, n, count(*) FROM t GROUP BY 1, 2 ORDER BY 1, 2;
-- of such a range as well as of all
SELECT new('m');
SELECT bbm_create('m', 't', 'job2', 'id', min_value => 5, max_value => 6) > 0 AS defined;
CALL bbm_run('m');
UPDATE t SET id = 101 + right(digest, 1)::int, n = 7 WHERE id IS NULL;
CALL bbm_run('m');
SELECT bbm_ensure_finished('m');
SELECT n, count(*) FROM t GROUP BY n ORDER BY n;

/* Written by bbm_update and bbm_delete: those that meet the where. */

UPDATE t SET n = 0;
INSERT INTO t VALUES (NULL, 'null 3', 0), (NULL, 'null 4', 5);
SELECT new('m');
SELECT bbm_update('m', 't', 'n = 1', 'n = 0', 'id', batch_size => 40) > 0 AS defined;
CALL bbm_run('m');
UPDATE t SET n = 1 WHERE id IS NULL AND n = 0;
CALL bbm_run('m');
SELECT bbm_ensure_finished('m');
SELECT n, count(*) FROM t GROUP BY n ORDER BY n;
SELECT new('m');
SELECT bbm_delete('m', 't', 'n = 1 -- all but one', 'id', batch_size => 40) > 0 AS defined;
CALL bbm_run('m');
DELETE FROM t WHERE id IS NULL AND n = 1;
CALL bbm_run('m');
SELECT * FROM t;
-- with no key at all
SELECT new('m');
SELECT bbm_update('m', 't', 'n = 1', column_name => 'id') > 0 AS defined;
CALL bbm_run('m');
SELECT new('m');
SELECT bbm_update('m', 't', 'n = 1', 'n = 5', column_name => 'digest') > 0 AS defined;
CALL bbm_run('m');
-- by blocks nothing has a key
UPDATE t SET n = 0;
SELECT new('m');
SELECT bbm_update('m', 't', 'n = 1', 'n = 0', batching_strategy => 'BlockRangeBatchingStrategy') > 0 AS defined;
CALL bbm_run('m');
SELECT * FROM t;
-- more than are counted
TRUNCATE t;
INSERT INTO t SELECT NULL, 'n' || i FROM generate_series(1, 100001) i;
SELECT new('m');
SELECT bbm_update('m', 't', 'n = n + 1', column_name => 'id') > 0 AS defined;
CALL bbm_run('m');
SELECT bbm_verify('m', 'n = 1');
DROP TABLE t;

/* Wherever an index has its nulls: each row once, by its index and by a query. */

CREATE TABLE wrong (definition text, what text);
CREATE FUNCTION try(definition text, type text, options text) RETURNS SETOF text LANGUAGE sql AS $$
    VALUES
    (format('CREATE TABLE o (k %s, b int NOT NULL DEFAULT 0, p int NOT NULL DEFAULT 0, n int NOT NULL DEFAULT 0)%s', type,
            CASE WHEN options ~ 'parted' THEN ' PARTITION BY LIST (p)' ELSE '' END)),
    (CASE WHEN options ~ 'parted' THEN 'CREATE TABLE o0 PARTITION OF o FOR VALUES IN (0); CREATE TABLE o1 PARTITION OF o FOR VALUES IN (1)' ELSE '' END),
    (format('CREATE INDEX ON o %s', definition)),
    (format('INSERT INTO o (k, b, p) SELECT CASE WHEN i %% 7 <> 0 THEN i END::%s, i %% 3, %s FROM generate_series(-20, 70) i', type,
            CASE WHEN options ~ 'parted' THEN 'i & 1' ELSE '0' END)),
    (format($f$SELECT bbm_update('o', 'o', 'n = n + 1', column_name => 'k%s', batch_size => 6, sub_batch_size => 4%s)$f$,
            CASE WHEN definition ~ 'b' THEN ', b' ELSE '' END, split_part(options, '/', 2))),
    ($f$CALL bbm_run('o')$f$),
    (format($f$INSERT INTO wrong SELECT %L, format('k %%s done %%s times', k, n) FROM o WHERE n <> (k IS NOT NULL)::int$f$, definition || ' ' || type || ' ' || options)),
    (format($f$INSERT INTO wrong SELECT %L, format('ended as %%s with %%s: %%s', status, error_sqlstate, error_message) FROM batched_background_migrations
               WHERE name = 'o' AND error_message !~ '^13 rows have a null key'$f$, definition || ' ' || type || ' ' || options)),
    ($f$SELECT bbm_drop('o')$f$),
    ('DROP TABLE o')
$$;
SET client_min_messages = error;
\set VERBOSITY sqlstate
\set ECHO none
\o /dev/null
SELECT t FROM unnest('{(k), (k NULLS FIRST), (k DESC), (k DESC NULLS LAST), "(k, b)", "(k NULLS FIRST, b DESC)",
                       "(k DESC NULLS LAST, b)", "(k DESC, b DESC)"}'::text[]) d,
    unnest('{int, numeric}'::text[]) type, unnest(ARRAY['', '/, batching_strategy => ''LooseIndexScanBatchingStrategy''', 'parted',
                                                 'parted/, rows_stay => true']) o,
    try(d, type, o) t \gexec
\o
\set ECHO all
RESET client_min_messages;
\set VERBOSITY terse
SELECT * FROM wrong;
SELECT new('m');

/* A composite value with parts that are null, or all of them, is a key like any other. */

CREATE TYPE pair AS (a int, b int);
CREATE TABLE o (k pair, p int NOT NULL, n int NOT NULL DEFAULT 0) PARTITION BY LIST (p);
CREATE TABLE o0 PARTITION OF o FOR VALUES IN (0);
CREATE TABLE o1 PARTITION OF o FOR VALUES IN (1);
CREATE INDEX ON o (k);
INSERT INTO o SELECT ROW(nullif(i / 4, 2), nullif(i % 4, 1))::pair, i & 1 FROM generate_series(0, 19) i;
INSERT INTO o VALUES (ROW(NULL, NULL), 1);
SELECT count(*) FROM o WHERE k IS NOT NULL;
SELECT bbm_update('m', 'o', 'n = n + 1', column_name => 'k', batch_size => 3) > 0 AS defined;
CALL bbm_run('m');
SELECT n, count(*) FROM o GROUP BY n;
INSERT INTO o VALUES (NULL, 0);
SELECT new('m');
SELECT bbm_update('m', 'o', 'n = n + 1', column_name => 'k', batch_size => 3) > 0 AS defined;
CALL bbm_run('m');
SELECT n, count(*) FROM o GROUP BY n ORDER BY n;
SELECT new('m');
DROP TABLE o;
DROP TYPE pair;

/* Of several columns only the first may be null. */

CREATE TABLE c (a int, b int, n int NOT NULL DEFAULT 0);
CREATE INDEX ON c (a, b);
INSERT INTO c SELECT nullif(i % 4, 0), i FROM generate_series(1, 20) i;
\set VERBOSITY default
SELECT bbm_update('m', 'c', 'n = n + 1', column_name => 'a, b');
ALTER TABLE c ADD CONSTRAINT b CHECK (b IS NOT NULL AND b > 0) NOT VALID;
SELECT bbm_update('m', 'c', 'n = n + 1', column_name => 'a, b');
\set VERBOSITY terse
ALTER TABLE c VALIDATE CONSTRAINT b;
SELECT bbm_update('m', 'c', 'n = n + 1', column_name => 'a, b', batch_size => 4) > 0 AS defined;
CALL bbm_run('m');
SELECT a IS NULL AS null, min(n), max(n), count(*) FROM c GROUP BY 1 ORDER BY 1;
-- a check that is not violated by a null is no proof
SELECT new('m');
ALTER TABLE c DROP CONSTRAINT b, ADD CONSTRAINT b CHECK (b > 0);
SELECT bbm_update('m', 'c', 'n = n + 1', column_name => 'a, b');
DROP TABLE c;

/* Nulls that come while it runs. */

CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE FUNCTION pausing(min bigint, max bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE t SET n = n + 1 WHERE id BETWEEN min AND max;
    IF min <= 5 THEN PERFORM bbm_pause('m'); END IF;
END $$;
INSERT INTO t SELECT generate_series(1, 20);
SELECT bbm_create('m', 't', 'pausing', batch_size => 5) > 0 AS defined;
CALL bbm_run('m');
-- the NOT NULL goes, and there they are, also where the index begins
ALTER TABLE t DROP CONSTRAINT t_pkey, ALTER id DROP NOT NULL;
CREATE INDEX ON t (id NULLS FIRST);
UPDATE t SET id = NULL WHERE id IN (2, 19);
CALL bbm_run('m');
SELECT id IS NULL AS null, n, count(*) FROM t GROUP BY 1, 2 ORDER BY 1, 2;
-- of a second column it is an error when it is met, and at the end
DROP TABLE t;
CREATE TABLE t (id bigint NOT NULL, k bigint NOT NULL, n int NOT NULL DEFAULT 0);
CREATE INDEX ON t (id, k);
INSERT INTO t SELECT i, i FROM generate_series(1, 20) i;
CREATE FUNCTION pausing2(a bigint, b bigint, c bigint, d bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE t SET n = n + 1 WHERE (id, k) >= (a, b) AND (id, k) <= (c, d);
    IF a <= 5 THEN PERFORM bbm_pause('m'); END IF;
END $$;
SELECT new('m');
SELECT bbm_create('m', 't', 'pausing2', 'id, k', batch_size => 5) > 0 AS defined;
CALL bbm_run('m');
ALTER TABLE t ALTER k DROP NOT NULL;
UPDATE t SET k = NULL WHERE id = 15;
CALL bbm_run('m');
SELECT code, sqlstate, message FROM outcome('m');
-- a trigger that takes the key away: the row has left its batch
DROP TABLE t;
CREATE TABLE t (id bigint, n int NOT NULL DEFAULT 0);
CREATE INDEX ON t (id);
INSERT INTO t SELECT generate_series(1, 20);
CREATE FUNCTION take_away() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := NULL; RETURN NEW; END $$;
CREATE TRIGGER take_away BEFORE UPDATE ON t FOR EACH ROW WHEN (OLD.id = 7) EXECUTE FUNCTION take_away();
SELECT new('m');
SELECT bbm_update('m', 't', 'n = n + 1', column_name => 'id', batch_size => 5) > 0 AS defined;
CALL bbm_run('m');
SELECT code, sqlstate, message FROM outcome('m');
SELECT n, count(*) FROM t GROUP BY n ORDER BY n;
DROP TRIGGER take_away ON t;
CALL bbm_run('m');
SELECT n, count(*) FROM t GROUP BY n ORDER BY n;

/* What comes later, followed. */

SELECT new('m');
SELECT bbm_update('m', 't', 'n = 2', 'n = 1', 'id', batch_size => 5, follow => true) > 0 AS defined;
INSERT INTO t VALUES (21, 1), (22, 1), (NULL, 1);
CALL bbm_run('m');
SELECT id IS NULL AS null, n, count(*) FROM t GROUP BY 1, 2 ORDER BY 1, 2;
-- and it goes on with what comes after that
INSERT INTO t VALUES (23, 1);
UPDATE t SET id = 24 WHERE id IS NULL;
CALL bbm_run('m');
SELECT bbm_ensure_finished('m');
SELECT n, count(*) FROM t GROUP BY n ORDER BY n;

/* Verification has them too. */

INSERT INTO t VALUES (NULL, 2), (NULL, 3);
SELECT new('m');
SELECT bbm_update('m', 't', 'n = 3', 'n = 2 AND id IS NOT NULL', 'id', verify => true, row_check => 'n = 3') > 0 AS defined;
SELECT bbm_verify('m'), bbm_verify('m', 'n > 1');
CALL bbm_run('m');
\x
SELECT * FROM outcome('m');
\x
SELECT bbm_verify('m');
UPDATE t SET n = 3 WHERE id IS NULL;
SELECT bbm_verify('m');
CALL bbm_run('m');
SELECT bbm_ensure_finished('m');
DROP TABLE t;

/* Partitions of which one may have nulls, and one has. */

CREATE TABLE pt (id bigint, p int NOT NULL, n int NOT NULL DEFAULT 0) PARTITION BY LIST (p);
CREATE TABLE p1 PARTITION OF pt FOR VALUES IN (1);
CREATE TABLE p2 PARTITION OF pt FOR VALUES IN (2);
CREATE TABLE p3 (id bigint NOT NULL, p int NOT NULL, n int NOT NULL DEFAULT 0);
ALTER TABLE pt ATTACH PARTITION p3 FOR VALUES IN (3);
CREATE INDEX ON pt (id);
INSERT INTO pt SELECT i, i % 3 + 1 FROM generate_series(1, 60) i;
INSERT INTO pt VALUES (NULL, 2);
SELECT name, bbm_update(name, 'pt', set, clause, 'id', batch_size => 7, rows_stay => stay) > 0 AS defined
FROM (VALUES ('as one table', 'n = n + 1', NULL, false), ('by filter', 'n = 2', 'n = 1', false), ('rows stay', 'n = n + 1', NULL, true))
    v(name, set, clause, stay);
CALL bbm_run('as one table');
UPDATE pt SET n = n + 1 WHERE id IS NULL;
CALL bbm_run('by filter');
UPDATE pt SET n = n + 1 WHERE id IS NULL;
CALL bbm_run('by filter');
CALL bbm_run('rows stay');
SELECT name, status, partition_order, error_message, error_detail FROM batched_background_migrations WHERE name <> 'm' ORDER BY id;
SELECT id IS NULL AS null, n, count(*) FROM pt GROUP BY 1, 2;
UPDATE pt SET id = 1 WHERE id IS NULL;
SELECT new('as one table'), new('rows stay'), new('by filter');
-- one that is attached meanwhile
SELECT bbm_update('m2', 'pt', 'n = n + 1', column_name => 'id', batch_size => 100, rows_stay => true) > 0 AS defined;
CREATE TABLE p4 (LIKE pt INCLUDING DEFAULTS INCLUDING INDEXES);
INSERT INTO p4 VALUES (NULL, 4), (1, 4);
ALTER TABLE pt ATTACH PARTITION p4 FOR VALUES IN (4);
CALL bbm_run('m2');
SELECT error_message, error_detail FROM batched_background_migrations WHERE name = 'm2';
-- of a policy only what the owner sees counts
SELECT new('m2');
CREATE ROLE bbm_nulls LOGIN;
ALTER TABLE pt ENABLE ROW LEVEL SECURITY;
CREATE POLICY theirs ON pt TO bbm_nulls USING (p <> 4);
GRANT SELECT, UPDATE ON pt TO bbm_nulls;
GRANT EXECUTE ON FUNCTION bbm_update TO bbm_nulls;
GRANT EXECUTE ON PROCEDURE bbm_run TO bbm_nulls;
GRANT CREATE ON SCHEMA public TO bbm_nulls;
\c - bbm_nulls
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT bbm_update('theirs', 'pt', 'n = 7', column_name => 'id', batch_size => 30) > 0 AS defined;
CALL bbm_run('theirs');
\c - :me
\set VERBOSITY terse
\set SHOW_CONTEXT never
INSERT INTO pt VALUES (NULL, 1);
SELECT bbm_drop('theirs');
\c - bbm_nulls
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT bbm_update('theirs', 'pt', 'n = 8', column_name => 'id', batch_size => 30) > 0 AS defined;
CALL bbm_run('theirs');
\c - :me
SELECT p, id IS NULL AS null, n, count(*) FROM pt GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
SELECT bbm_drop('theirs');
DROP TABLE pt;

/* What is known not to be null, of the columns that an update leaves behind: also by a valid check. */

CREATE TABLE pt (id bigint NOT NULL, p int NOT NULL, a int, b int) PARTITION BY LIST (p);
CREATE TABLE p1 PARTITION OF pt FOR VALUES IN (1);
CREATE INDEX ON pt (id);
INSERT INTO pt SELECT i, 1, i FROM generate_series(1, 10) i;
ALTER TABLE pt ADD CONSTRAINT a CHECK (a IS NOT NULL) NOT VALID;
SELECT bbm_update('not valid', 'pt', 'b = a * 2', 'b IS NULL', 'id') > 0 AS defined;
CALL bbm_run('not valid');
UPDATE pt SET b = NULL;
ALTER TABLE pt VALIDATE CONSTRAINT a;
SELECT bbm_update('valid', 'pt', 'b = a * 2', 'b IS NULL', 'id') > 0 AS defined;
CALL bbm_run('valid');
SELECT name, partition_order FROM batched_background_migrations WHERE name ~ 'valid' ORDER BY name;

DROP EXTENSION bbm;
DROP TABLE pt, wrong;
DROP FUNCTION outcome, new, job5, job2, pausing, pausing2, take_away, try;
REVOKE ALL ON SCHEMA public FROM bbm_nulls;
DROP ROLE bbm_nulls;
ALTER SYSTEM RESET bbm.enabled;
ALTER SYSTEM RESET bbm.retry_delay;
SELECT pg_reload_conf();
