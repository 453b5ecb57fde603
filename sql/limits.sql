--
-- The server's settings limit those of a migration whose owner is no superuser.
--

\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/wait_for.inc'
\set SHOW_CONTEXT never
SELECT current_user AS admin \gset
CREATE EXTENSION bbm;
\i :helper
CREATE ROLE regress_bbm_limited LOGIN;
GRANT EXECUTE ON FUNCTION bbm_create, bbm_alter, bbm_throttle, bbm_dry_run, bbm_launch_worker TO regress_bbm_limited;
GRANT SELECT, INSERT, UPDATE ON batched_background_migrations TO regress_bbm_limited;
CREATE SCHEMA limited AUTHORIZATION regress_bbm_limited;

-- where the server has no limit it is given one here
ALTER SYSTEM SET bbm.max_replication_delay = '10s';
ALTER SYSTEM SET bbm.wait_for_standbys = on;
ALTER SYSTEM SET bbm.max_horizon_age = '1h';
ALTER SYSTEM SET bbm.max_dead_tuples = 1000000;
ALTER SYSTEM SET bbm.max_dead_tuple_ratio = 0.5;
ALTER SYSTEM SET bbm.max_wal_rate = '10MB';
ALTER SYSTEM SET bbm.max_row_rate = 1000;
ALTER SYSTEM SET bbm.max_active_sessions = 50;
ALTER SYSTEM SET bbm.min_pace = 0.2;
ALTER SYSTEM SET bbm.max_pace = 0.5;
ALTER SYSTEM SET bbm.max_impact = 0.5;
ALTER SYSTEM SET bbm.log_min_duration = '1min';
ALTER SYSTEM SET bbm.retry_delay = '1s';
SELECT pg_reload_conf();

\c - regress_bbm_limited
CREATE TABLE limited.t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO limited.t SELECT generate_series(1, 10);
CREATE FUNCTION limited.try(entry text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    hint text;
BEGIN
    PERFORM bbm_create('m ' || entry, 'limited.t', 'UPDATE limited.t SET n = n + 1 WHERE id BETWEEN $1 AND $2', settings => ARRAY[entry]);
    RETURN 'as it is';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN SQLSTATE || ' ' || detail || ' ' || hint;
END $$;
-- just within, just beyond, and off
SELECT entry, limited.try(entry) FROM (VALUES
    (1, 'bbm.lock_timeout=1s'), (2, 'bbm.lock_timeout=1001ms'), (3, 'bbm.lock_timeout=1ms'),
    (4, 'bbm.max_blocking_time=1s'), (5, 'bbm.max_blocking_time=2s'), (6, 'bbm.max_blocking_time=0'),
    (7, 'bbm.max_batch_time=10min'), (8, 'bbm.max_batch_time=11min'), (9, 'bbm.max_batch_time=0'),
    (10, 'bbm.retry_delay=1s'), (11, 'bbm.retry_delay=999ms'), (12, 'bbm.retry_max_delay=30min'), (13, 'bbm.retry_max_delay=1min'),
    (14, 'bbm.log_min_duration=1min'), (15, 'bbm.log_min_duration=1s'), (16, 'bbm.log_min_duration=0'), (17, 'bbm.log_min_duration=-1'),
    (18, 'bbm.max_replication_lag=256MB'), (19, 'bbm.max_replication_lag=1GB'), (20, 'bbm.max_replication_lag=-1'),
    (21, 'bbm.max_replication_delay=1s'), (22, 'bbm.max_replication_delay=11s'), (23, 'bbm.max_replication_delay=-1'),
    (24, 'bbm.wait_for_standbys=on'), (25, 'bbm.wait_for_standbys=off'), (26, 'bbm.standby_names=replica1'),
    (27, 'bbm.max_slot_wal=10GB'), (28, 'bbm.max_slot_wal=11GB'), (29, 'bbm.max_slot_wal=-1'),
    (30, 'bbm.max_unarchived_wal=42'), (31, 'bbm.max_unarchived_wal=43'), (32, 'bbm.max_unarchived_wal=-1'),
    (33, 'bbm.wait_for_autovacuum=on'), (34, 'bbm.wait_for_autovacuum=off'),
    (35, 'bbm.max_horizon_age=1h'), (36, 'bbm.max_horizon_age=2h'), (37, 'bbm.max_horizon_age=-1'),
    (38, 'bbm.max_dead_tuples=0'), (39, 'bbm.max_dead_tuples=1000001'), (40, 'bbm.max_dead_tuples=-1'),
    (41, 'bbm.max_dead_tuple_ratio=0.5'), (42, 'bbm.max_dead_tuple_ratio=0.6'), (43, 'bbm.max_dead_tuple_ratio=-1'),
    (44, 'bbm.vacuum=on'), (45, 'bbm.vacuum=off'),
    (46, 'bbm.max_wal_rate=1MB'), (47, 'bbm.max_wal_rate=11MB'), (48, 'bbm.max_wal_rate=0'),
    (49, 'bbm.max_row_rate=1000'), (50, 'bbm.max_row_rate=1001'), (51, 'bbm.max_row_rate=0'),
    (52, 'bbm.max_active_sessions=50'), (53, 'bbm.max_active_sessions=51'), (54, 'bbm.max_active_sessions=-1'),
    (55, 'bbm.min_pace=0.2'), (56, 'bbm.min_pace=0.3'), (57, 'bbm.max_pace=0.5'), (58, 'bbm.max_pace=1'),
    (59, 'bbm.active_hours=00:00-24:00'), (60, 'bbm.condition=true'),
    (61, 'bbm.max_impact=0.5'), (62, 'bbm.max_impact=0.6'), (63, 'bbm.max_impact=-1'),
    (64, 'bbm.max_impact=-0.5'), (65, 'bbm.max_dead_tuple_ratio=-0.5')) AS v (i, entry) ORDER BY i;
-- one entry of many, and with plain statements
SELECT bbm_create('many', 'limited.t', 'UPDATE limited.t SET n = n + 1 WHERE id BETWEEN $1 AND $2',
                  settings => '{bbm.lock_timeout=1s, bbm.max_batch_time=1h}');
INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, settings)
VALUES ('plain', 10, 10, 'UPDATE limited.t SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'limited.t', 'id', '{bbm.max_batch_time=0}');
UPDATE batched_background_migrations SET settings = '{bbm.max_batch_time=0}' WHERE name = 'm bbm.vacuum=on';
SELECT bbm_alter('m bbm.vacuum=on', settings => '{bbm.max_batch_time=0}');

-- a superuser's may have what it likes, and one that is given away keeps within the limits from then on
\c - :admin
SELECT bbm_create('free', 'limited.t', 'UPDATE limited.t SET n = n + 1 WHERE id BETWEEN $1 AND $2 AND pg_sleep(0.4) IS NOT NULL',
                  batch_size => 1, allow_full_scan => true, settings => ARRAY['bbm.max_batch_time=0', 'bbm.active_hours=', 'bbm.wait_for_standbys=off']) > 0 AS created;
-- the limit is lowered: values that were accepted before are capped at it
ALTER SYSTEM SET bbm.max_batch_time = '100ms';
SELECT format('%s 10:00-10:01 UTC', to_char(clock_timestamp() AT TIME ZONE 'UTC' + interval '2 days', 'Dy')) AS hours \gset
ALTER SYSTEM SET bbm.active_hours = :'hours';
SELECT pg_reload_conf();
\c - :admin
SELECT rows FROM bbm_dry_run('free', 1);
SELECT bbm_create('any hour', 'limited.t', 'UPDATE limited.t SET n = n + 1 WHERE id BETWEEN $1 AND $2', settings => '{bbm.active_hours=}', start => true) > 0 AS created;
SELECT bbm_wait('any hour', '1 minute');
SELECT bbm_alter('free', owner => 'regress_bbm_limited');
-- hours of one's own are hours within the server's, and so is none
UPDATE batched_background_migrations SET settings = '{bbm.active_hours=00:00-24:00}' WHERE name = 'm bbm.active_hours=00:00-24:00';
UPDATE batched_background_migrations SET settings = '{bbm.active_hours=}' WHERE name = 'm bbm.vacuum=on';
UPDATE batched_background_migrations SET status = 1, share_table = true WHERE name IN ('m bbm.active_hours=00:00-24:00', 'm bbm.vacuum=on');
SELECT wait_for($$(SELECT count(*) = 2 FROM bbm_status_detail() WHERE waiting_on LIKE 'active hours: not before %')$$);
\c - regress_bbm_limited
SELECT rows FROM bbm_dry_run('free', 1);


-- whatever else of such a row is changed can be
UPDATE batched_background_migrations SET max_attempts = 3 WHERE name = 'free';
SELECT bbm_alter('free', max_attempts => 4);
SELECT bbm_alter('free', settings => '{bbm.max_batch_time=0}');

-- a worker that has nothing to do does not stay for ever
SELECT bbm_launch_worker('100 years');
SELECT bbm_launch_worker('1 hour 1 ms');
SELECT bbm_launch_worker('178000000 years');

\c - :admin
ALTER SYSTEM RESET ALL;
SELECT pg_reload_conf();
\c - :admin
DROP EXTENSION bbm;
SET client_min_messages = warning;
DROP SCHEMA limited CASCADE;
RESET client_min_messages;
DROP FUNCTION wait_for;
DROP ROLE regress_bbm_limited;
