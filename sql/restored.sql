--
-- Rows of a dump: whose they are, and what was valid elsewhere or once.
--

CREATE EXTENSION bbm;
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/fails.inc'
\i :helper
\set helper :abs_srcdir '/sql/wait_for.inc'
\i :helper
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 100);
CREATE ROLE regress_bbm_early LOGIN;
GRANT SELECT, UPDATE ON t TO regress_bbm_early;
GRANT EXECUTE ON FUNCTION bbm_update, bbm_alter, bbm_pause, bbm_drop, bbm_start TO regress_bbm_early;
SET client_min_messages = warning;

-- the owner was renamed, and another role has the name: in a dump of this server the OID says who it was
SET ROLE regress_bbm_early;
SELECT bbm_update('original', 't', 'n = 1') > 0 AS defined;
RESET ROLE;
ALTER ROLE regress_bbm_early RENAME TO regress_bbm_late;
CREATE ROLE regress_bbm_early LOGIN;
SELECT owner, owner_oid::regrole FROM batched_background_migrations;
CREATE TABLE dumped AS SELECT * FROM batched_background_migrations;
SELECT bbm_drop('original');
INSERT INTO batched_background_migrations SELECT * FROM dumped;
SELECT owner, owner_oid::regrole, restored FROM batched_background_migrations;
SELECT bbm_drop('original');
-- one of another server has the name alone, also if it was restored there
UPDATE dumped SET origin = '1/1';
INSERT INTO batched_background_migrations SELECT * FROM dumped;
SELECT owner, owner_oid::regrole FROM batched_background_migrations;
SELECT bbm_drop('original');
UPDATE dumped SET origin = (SELECT system_identifier FROM pg_control_system()) || '/1', restored = true;
INSERT INTO batched_background_migrations SELECT * FROM dumped;
SELECT owner, owner_oid::regrole FROM batched_background_migrations;
SELECT bbm_drop('original');

-- one whose owner does not exist here cannot be started, and does not keep the others from it
UPDATE dumped SET owner = 'regress_bbm_nobody', origin = '1/1', restored = false, name = 'orphan', id = id + 100;
INSERT INTO batched_background_migrations SELECT * FROM dumped;
SELECT bbm_update('one', 't', 'n = 1') > 0 AS defined;
SELECT bbm_update('two', 't', 'n = 1') > 0 AS defined;
SELECT bbm_start();
SELECT name, status FROM bbm_status() WHERE name = 'orphan';
SELECT * FROM fails($$SELECT bbm_start('orphan')$$);
SELECT bbm_wait('one', '1 minute'), bbm_wait('two', '1 minute');
SELECT bbm_alter('orphan', owner => current_user);
SELECT bbm_start();
SELECT bbm_wait('orphan', '1 minute');

-- settings that were valid in another version, or with time zones that are gone: the row loads, and the migration waits;
-- it can be seen, paused, started, altered, corrected and dropped
UPDATE dumped SET owner = current_user, name = 'zone', id = id + 100,
    settings = '{"bbm.active_hours=22:00-06:00 Gone/Zone",bbm.no_longer=1}';
INSERT INTO batched_background_migrations SELECT * FROM dumped;
UPDATE dumped SET name = 'condition', id = id + 100, settings = '{"bbm.condition=n >"}';
INSERT INTO batched_background_migrations SELECT * FROM dumped;
UPDATE dumped SET name = 'names', id = id + 100, settings = '{"bbm.standby_names=\"a",bbm.max_replication_lag=1MB}';
INSERT INTO batched_background_migrations SELECT * FROM dumped;
SELECT bbm_start();
SELECT wait_for($$(SELECT count(*) = 3 FROM bbm_status() WHERE waiting_on LIKE '%cannot be read%')$$);
SELECT waiting_on FROM bbm_status_detail() WHERE status = 'running';
SELECT signal, reason FROM bbm_throttle('zone') WHERE throttles;
SELECT bbm_pause();
UPDATE batched_background_migrations SET status = 1 WHERE name = 'zone';
UPDATE batched_background_migrations SET status = 0 WHERE name = 'zone';
SELECT bbm_alter(name, priority => 1) FROM unnest(ARRAY['zone', 'condition']) name;
SELECT * FROM fails($$SELECT bbm_alter('zone', settings => '{"bbm.active_hours=22:00-06:00 Gone/Zone"}')$$);
SELECT bbm_alter('condition', settings => '{}');
SELECT bbm_start('condition');
SELECT bbm_wait('condition', '1 minute');
SELECT bbm_drop('zone'), bbm_drop('names');
-- a name that begins like a statement
SELECT bbm_update('words', 't', 'n = 1') > 0 AS defined;
DO $$
DECLARE
    condition text;
BEGIN
    FOREACH condition IN ARRAY ARRAY['within > 1', 'selected', 'SELECT(true)', 'WITH x AS (SELECT true) TABLE x', 'select_1()', 'selecté'] LOOP
        UPDATE batched_background_migrations SET settings = ARRAY['bbm.condition=' || condition] WHERE name = 'words';
    END LOOP;
END $$;
-- what a type or a collation is called elsewhere is its name, and no OID
UPDATE dumped SET name = 'order', id = id + 100, settings = NULL, key_order = 'public."a/1, b/2"/16401 COLLATE public.c/16402(2) DESC, other.e/16403[''x/1'', ''"/2'']';
INSERT INTO batched_background_migrations SELECT * FROM dumped;
SELECT key_order FROM batched_background_migrations WHERE name = 'order';

-- what the server lacks that a dump was restored on: the row loads, and the migration fails when it is started, and says why
UPDATE dumped SET name = 'locale', id = id + 100, key_order = NULL, job_settings = '{lc_time=xx_XX,TimeZone=UTC}';
INSERT INTO batched_background_migrations SELECT * FROM dumped;
SELECT bbm_start('locale');
SELECT bbm_wait('locale', '1 minute');
SELECT last_error FROM bbm_status_detail('locale');
SELECT error_detail, error_hint FROM batched_background_migrations WHERE name = 'locale' \gx
UPDATE batched_background_migrations SET job_settings = DEFAULT WHERE name = 'locale';
SELECT bbm_start('locale');
SELECT bbm_wait('locale', '1 minute');
-- a type that the job's text names comes perhaps later
CREATE TYPE level AS ENUM ('low', 'high');
CREATE TABLE levels (level level PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO levels VALUES ('low'), ('high');
SELECT bbm_create('named', 'levels', 'UPDATE levels SET n = 1 WHERE level BETWEEN $1::level AND $2', batch_size => 1) > 0 AS defined;
SELECT bbm_create('keyed', 'levels', 'UPDATE levels SET n = 1 WHERE level BETWEEN $1 AND $2', batch_size => 1) > 0 AS defined;
TRUNCATE dumped;
INSERT INTO dumped SELECT * FROM batched_background_migrations WHERE name IN ('named', 'keyed');
SELECT bbm_drop('named'), bbm_drop('keyed');
ALTER TYPE level RENAME TO grade;
UPDATE dumped SET origin = '1/1', key_order = CASE name WHEN 'keyed' THEN key_order END;
INSERT INTO batched_background_migrations SELECT * FROM dumped;
SELECT bbm_start('named'), bbm_start('keyed');
SELECT wait_for($$(SELECT waiting_on LIKE '%not there yet%' FROM bbm_status_detail('named'))$$);
SELECT last_error FROM bbm_status_detail('named');
-- that of the key is known by its name
SELECT bbm_wait('keyed', '1 minute');
SELECT error_message, error_detail, error_hint FROM batched_background_migrations WHERE name = 'keyed' \gx
ALTER TYPE grade RENAME TO level;
SELECT bbm_start('keyed');
SELECT bbm_wait(name, '1 minute') FROM unnest(ARRAY['named', 'keyed']) name;

DROP EXTENSION bbm;
DROP TABLE t, dumped, levels;
DROP TYPE level;
DROP FUNCTION fails, wait_for;
DROP ROLE regress_bbm_early, regress_bbm_late;
