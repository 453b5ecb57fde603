--
-- What a migration costs the statements of others: which statements count, and
-- what is made of their durations.  No time is measured here.
--

CREATE EXTENSION bbm;
-- alone: the pulses of a background worker would end the windows that are simulated here
ALTER SYSTEM SET bbm.enabled = off;
SELECT pg_reload_conf();
\c -
\getenv module BBM_TEST_MODULE
CREATE FUNCTION buckets(us float8[]) RETURNS float8[] STRICT LANGUAGE c AS :'module', 'bbm_test_impact_buckets';
CREATE FUNCTION between_(silent float8[], worked float8[]) RETURNS float8[] STRICT LANGUAGE c AS :'module', 'bbm_test_impact_between';
CREATE FUNCTION simulated(runs int, windows int, common float8, effect float8) RETURNS float8[] STRICT LANGUAGE c AS :'module', 'bbm_test_impact_error';
CREATE FUNCTION shifts(migration_id bigint, us float8[], gap_us bigint) RETURNS float8[] STRICT LANGUAGE c AS :'module', 'bbm_test_impact_shift';
CREATE FUNCTION impact_window(migration_id bigint, kind int, pulse boolean) RETURNS void LANGUAGE c AS :'module', 'bbm_test_impact_window';

-- durations: exact at first, then 32 buckets for each doubling; what took too long, or ended before it began, does not count
SELECT buckets('{0, 1, 31, 32, 63, 64, 65, 127, 128, 1000, 1000000, 16777215, 16777216, -1, 1e15}');
SELECT count(*) FILTER (WHERE b <= us AND us < b * 33 / 32 + 1) = 100000 AS close, count(DISTINCT b) AS buckets
FROM (SELECT array_agg(i::float8) AS all_us FROM generate_series(1, 100000) i) a, unnest(all_us, buckets(all_us)) u (us, b);

-- a statement that takes twice as long; too few statements; the same; some that take much longer
CREATE FUNCTION n_times(n int, us float8) RETURNS float8[] LANGUAGE sql AS $$ SELECT array_fill(us, ARRAY[n]) $$;
SELECT between_(n_times(1000, 100), n_times(1000, 200)) AS twice;
SELECT between_(n_times(99, 100), n_times(1000, 200)) AS too_few, (between_(n_times(100, 100), n_times(999, 200)))[2:4] AS enough_for_mean;
SELECT between_(n_times(5000, 300), n_times(2000, 300)) AS same, between_('{}', '{}') AS none, (between_(n_times(1000, 200), n_times(1000, 100)))[2] AS faster;
SELECT round((between_(n_times(1000, 100), n_times(980, 100) || n_times(20, 10000)))[2]::numeric, 1) AS mean,
    round((between_(n_times(1000, 100), n_times(980, 100) || n_times(20, 10000)))[4]::numeric) AS p99;
-- durations of one to two milliseconds, and a tenth more: what the buckets make of it
SELECT abs(r[2] - 0.1) < 0.005 AS mean, abs(r[4] - 0.1) < 0.01 AS p99, r[3] < 0.01 AS error
FROM (SELECT between_((SELECT array_agg(1000.0 + i % 1000) FROM generate_series(1, 20000) i)::float8[],
    (SELECT array_agg(1.1 * (1000 + i % 1000)) FROM generate_series(1, 20000) i)::float8[])) v (r);

-- The error that is reported: of 400 runs of a minute, or of ten, twice the error covers how far off the figure is in 19 of 20, whatever statements and windows
-- have in common.  If each statement is taken by itself, it does so only if they have nothing in common.
SELECT minutes, common, r[1] BETWEEN 0.91 AND 0.98 AS covers, r[2] > 0.9 AS of_statements, abs(r[3] - 0.1) < 0.01 + r[5] / 4 AS unbiased, abs(r[4] / r[5] - 1) < 0.15 AS as_it_scatters
FROM (VALUES (1, 0), (1, 0.2), (1, 0.5), (10, 0.2), (10, 0.5)) c (minutes, common), LATERAL simulated(400, minutes * 1830, common, 0.1) v (r);
SELECT (simulated(1, 60, 0.2, 0.1))[4] AS few_windows_have_no_error;

--
-- Which statements count.  The session simulates that a migration works, in a
-- window that does not end.
--
CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 100);
SELECT bbm_create('m', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2') AS id \gset
CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql AS
$$ SELECT i.statements FROM batched_background_migrations m, bbm_internal.bbm_impact(m.id, m.owner_oid) i WHERE m.name = 'm' $$;
SELECT counted() AS without_a_window;
SELECT impact_window(:id, 1, true);
-- The first one after that does not count, as it is not known for how long it waited for a CPU.  What follows the
-- first counted() counts itself, which is the one that is subtracted.
SELECT 1 AS one;
SELECT counted() AS before \gset
SELECT 1 AS one;
SELECT counted() - :before - 1 AS n, counted() AS before \gset
\echo a query: :n
SELECT 1 / (id - 1) FROM t WHERE id = 1;
SELECT counted() - :before - 1 AS n, counted() AS before \gset
\echo an error: :n
CREATE TABLE made AS SELECT * FROM t;
UPDATE t SET n = n + 1;
DROP TABLE made;
DROP TABLE made;
SELECT counted() - :before - 1 AS n, counted() AS before \gset
\echo three commands, one of them with an error, and a change: :n
SELECT 1 AS one\; SELECT 2 AS two;
SELECT counted() - :before - 1 AS n, counted() AS before \gset
\echo two queries in one message: :n
-- what is nested belongs to the statement
-- a server with assertions ends when a deferred trigger catches an error at the commit
CREATE FUNCTION nests(fails boolean DEFAULT true) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 10 LOOP
        UPDATE t SET n = n + 1 WHERE id = i;
        CONTINUE WHEN NOT fails;
        BEGIN
            PERFORM 1 / 0;
        EXCEPTION WHEN division_by_zero THEN
        END;
    END LOOP;
    RETURN (SELECT count(*) FROM t);
END $$;
CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 5 LOOP
        UPDATE t SET n = n + 1 WHERE id = i;
        COMMIT;
        UPDATE t SET n = n + 1 WHERE id = i;
        ROLLBACK;
    END LOOP;
END $$;
CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nests(TG_NAME = 'fires'); RETURN NULL; END $$;
CREATE TABLE fired (id int);
CREATE TRIGGER fires AFTER INSERT ON fired FOR EACH ROW EXECUTE FUNCTION fires();
CREATE CONSTRAINT TRIGGER fires_later AFTER INSERT ON fired DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fires();
SELECT counted() AS before \gset
SELECT nests();
SELECT counted() - :before - 1 AS n, counted() AS before \gset
\echo a function: :n
CALL commits();
SELECT counted() - :before - 1 AS n, counted() AS before \gset
\echo a procedure that commits: :n
DO $$ BEGIN PERFORM nests(); EXECUTE 'CREATE TABLE made AS SELECT 1 AS one'; END $$;
SELECT counted() - :before - 1 AS n, counted() AS before \gset
\echo a block: :n
INSERT INTO fired VALUES (1), (2);
SELECT counted() - :before - 1 AS n, counted() AS before \gset
\echo triggers, also at the commit: :n
PREPARE p AS SELECT count(*) FROM t;
EXECUTE p;
SELECT counted() - :before - 1 AS n, counted() AS before \gset
\echo a prepared statement: :n
BEGIN;
DECLARE c CURSOR FOR SELECT nests() FROM t;
FETCH 3 FROM c;
FETCH 3 FROM c;
SAVEPOINT s;
SELECT 1 / (id - 1) FROM t WHERE id = 1;
ROLLBACK TO s;
INSERT INTO fired VALUES (1);
COMMIT;
SELECT counted() - :before - 1 AS n, counted() AS before \gset
\echo a transaction, of nine statements: :n
-- parallel workers are part of their leader's statement
SET min_parallel_table_scan_size = 0;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET parallel_leader_participation = off;
ANALYZE t;
SELECT counted() AS before \gset
SELECT sum(n) > 0 AS positive FROM t;
SELECT counted() - :before - 1 AS n, counted() AS before \gset
\echo a parallel query: :n
RESET ALL;
-- bbm's own do not count
SELECT counted() AS before \gset
SELECT bbm_wait('m', '1 ms');
CALL bbm_run('m');
SELECT counted() - :before - 1 AS n, counted() AS before \gset
\echo bbm_wait and bbm_run: :n
SELECT impact_window(:id, 1, true);
SELECT 1 AS one;
CALL bbm_run('none');
SELECT 1 AS one;
SELECT counted() AS before \gset
SELECT 1 AS one;
SELECT counted() - :before - 1 AS n, counted() AS before \gset
\echo a query after bbm_run has failed: :n

-- a window that is not drawn
SELECT impact_window(:id, 2, true);
SELECT 1 AS one;
SELECT 1 AS one;
SELECT counted() AS before \gset
SELECT 1 AS one;
SELECT counted() - :before AS n \gset
\echo in a window that is not drawn: :n
-- a silent one, between two pulses; and while one has not ended yet
SELECT impact_window(:id, 0, false);
SELECT 1 AS one;
SELECT counted() AS before \gset
SELECT 1 AS one;
SELECT counted() - :before - 1 AS n \gset
\echo in a silent window: :n
SELECT impact_window(:id, 0, true);
SELECT 1 AS one;
SELECT counted() AS before \gset
SELECT 1 AS one;
SELECT counted() - :before AS n \gset
\echo in one in which a pulse has not ended: :n
-- a statement ends where its procedure does, however often that commits: 3 ms later.  Counted for another migration,
-- as the statements up to here have taken as long as the machine was busy
SELECT bbm_create('slept', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2') AS slept \gset
CREATE PROCEDURE sleeps() LANGUAGE plpgsql AS $$ BEGIN COMMIT; PERFORM pg_sleep(0.003); END $$;
SELECT impact_window(:slept, 0, false);
SELECT 'CALL sleeps()' FROM generate_series(1, 100)
\set ECHO none
\gexec
SELECT impact_window(:slept, 1, true);
SELECT 'SET extra_float_digits = 1' FROM generate_series(1, 101)
\gexec
\set ECHO all
SELECT mean_ms >= 2 AS mean, mean < 0 AS the_others_are_faster FROM batched_background_migrations m, bbm_internal.bbm_impact(m.id, m.owner_oid) WHERE m.name = 'slept';
SELECT impact_window(:slept, 0, NULL);
SELECT impact_window(:id, 0, NULL);
-- a process that has had no pulse yet, however long those of its migration have taken
\c -
-- Windows are as long as pulses need them: not for the sake of the first one of a process, nor of those of half a minute ago.  1 ms after one of 50 ms; 10 ms; 50 ms;
-- and then 1 ms, each a second after the other
SELECT shifts(:id, ARRAY[50000] || array_fill(1000, ARRAY[50])::float8[], 1000000) = array_fill(0::float8, ARRAY[51]) AS short,
    (shifts(:id, array_fill(10000::float8, ARRAY[50]), 1000))[50] AS longer, (shifts(:id, array_fill(50000::float8, ARRAY[50]), 1000))[50] AS long;
SELECT shifts[5] > 0 AS still_long, shifts[100] AS short_again FROM shifts(:id, array_fill(1000::float8, ARRAY[100]), 1000000);
-- nobody else's
CREATE ROLE impact_nobody;
GRANT SELECT ON batched_background_migrations TO impact_nobody;
SELECT owner_oid FROM batched_background_migrations WHERE name = 'm' \gset
SET ROLE impact_nobody;
SELECT * FROM bbm_internal.bbm_impact(:id, :owner_oid);
RESET ROLE;
DROP OWNED BY impact_nobody;
DROP ROLE impact_nobody;
DROP TABLE t, fired, made;
DROP FUNCTION buckets, between_, simulated, shifts, impact_window, n_times, counted, nests, fires;
DROP EXTENSION bbm CASCADE;
ALTER SYSTEM RESET bbm.enabled;
SELECT pg_reload_conf();
