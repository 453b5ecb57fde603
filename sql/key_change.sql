--
-- What changes the batching key without naming it: columns that the server
-- computes, foreign keys of a table to itself, and triggers.
--

CREATE EXTENSION bbm;
\set VERBOSITY default
CREATE TABLE g (base int NOT NULL, k int GENERATED ALWAYS AS (base * 2) STORED, id int PRIMARY KEY, v int);
ALTER TABLE g ALTER k SET NOT NULL;
CREATE UNIQUE INDEX g_k ON g (k);
CREATE UNIQUE INDEX g_id_k ON g (id, k);
INSERT INTO g (base, id) SELECT i, i FROM generate_series(1, 100) i;

-- the only column of the key, and the second of one
SELECT bbm_update('generated', 'g', 'base = base + 1000', column_name => 'k');
SELECT bbm_update('generated', 'g', 'base = base + 1000', column_name => 'k', follow => true);
SELECT bbm_update('second', 'g', '(v, base) = (1, 2)', column_name => 'id, k');
-- others may be set, and the key's base when it is said
SELECT bbm_update('other', 'g', 'v = 1', column_name => 'k', batch_size => 10) > 0 AS created;
SELECT bbm_update('said', 'g', 'base = base', column_name => 'k', allow_key_change => true) > 0 AS created;
SELECT bbm_drop('said');

-- an identity, which can be given another value
CREATE TABLE identities (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int);
SELECT bbm_update('identity', 'identities', 'id = DEFAULT');

-- only a child table computes it, which the server refuses from 16 on
SELECT current_setting('server_version_num')::int < 160000 AS allowed \gset
CREATE TABLE parent (id int NOT NULL, base int NOT NULL, v int);
CREATE INDEX ON parent (id);
\if :allowed
CREATE TABLE child (id int NOT NULL GENERATED ALWAYS AS (base) STORED) INHERITS (parent);
CREATE INDEX ON child (id);
SELECT bbm_update('child', 'parent', 'base = base + 1', column_name => 'id');
\endif

-- a foreign key to itself that cascades
CREATE TABLE chain (code int PRIMARY KEY, before int NOT NULL REFERENCES chain ON UPDATE CASCADE, v int);
CREATE INDEX ON chain (before);
SELECT bbm_update('chain', 'chain', 'code = code + 1', column_name => 'before');
SELECT bbm_update('chain', 'chain', 'v = 1', column_name => 'before') > 0 AS created;

-- ... by way of another table, and the columns of all of a key that is set to null
CREATE TABLE round_trip (a int UNIQUE, k int PRIMARY KEY, other int);
CREATE TABLE between_them (c int PRIMARY KEY CONSTRAINT first_leg REFERENCES round_trip (a) ON UPDATE CASCADE, twice int GENERATED ALWAYS AS (c * 2) STORED UNIQUE);
ALTER TABLE round_trip ADD CONSTRAINT second_leg FOREIGN KEY (k) REFERENCES between_them (twice) ON UPDATE CASCADE;
SELECT bbm_update('round trip', 'round_trip', 'a = a + 10', column_name => 'k');
SELECT bbm_update('round trip', 'round_trip', 'other = 1', column_name => 'k') > 0 AS created;
ALTER TABLE round_trip DROP CONSTRAINT second_leg, ADD CONSTRAINT second_leg FOREIGN KEY (k) REFERENCES between_them (twice);
SELECT bbm_update('no action', 'round_trip', 'a = a + 10', column_name => 'k') > 0 AS created;
-- rows that stay when others are deleted: by a foreign key of the table to itself, or by way of another one
CREATE TABLE up (id int PRIMARY KEY, up int NOT NULL DEFAULT 1 REFERENCES up ON DELETE SET DEFAULT, gone bool);
CREATE INDEX ON up (up);
INSERT INTO up SELECT i, greatest(i - 1, 1), i % 2 = 0 OR i > 20 FROM generate_series(1, 40) i;
SELECT bbm_delete('up', 'up', 'gone', column_name => 'up', batch_size => 3);
SELECT bbm_delete('up', 'up', 'gone', batch_size => 3) > 0 AS created;
CALL bbm_run('up');
SELECT gone, count(*) FROM up GROUP BY gone;
CREATE TABLE parts (id int PRIMARY KEY, a int, b int, part int) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE links (id int PRIMARY KEY REFERENCES parts ON DELETE CASCADE);
ALTER TABLE parts ADD FOREIGN KEY (a) REFERENCES links ON DELETE SET NULL;
CREATE INDEX ON parts (a);
CREATE INDEX ON parts (b);
SELECT bbm_delete('parts', 'parts', 'part = 1', column_name => 'a');
SELECT bbm_delete('parts', 'parts_1', 'part = 1', column_name => 'a');
SELECT bbm_delete('parts', 'parts', 'part = 1', column_name => 'b') > 0 AS created;

-- a domain, and a collation of its own
CREATE DOMAIN word AS text COLLATE "C";
CREATE TABLE words (w word PRIMARY KEY, v int);
SELECT bbm_update('domain', 'words', $$w = w || 'x'$$);

-- a trigger is seen when it has done so: nothing of the batch stays
\set VERBOSITY terse
CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 100);
CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.id := NEW.id + CASE WHEN TG_ARGV[0] = 'far' THEN 1000 ELSE 0 END;
    RETURN NEW;
END $$;
CREATE TRIGGER away BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION away('far');
SELECT bbm_update('trigger', 't', 'v = v + 1', batch_size => 10, follow => true) > 0 AS created;
CALL bbm_run('trigger');
SELECT status, failure_error_code, error_sqlstate, error_message FROM batched_background_migrations WHERE name = 'trigger';
SELECT error_detail, error_hint FROM batched_background_migrations WHERE name = 'trigger';
SELECT count(*), max(id), max(v) FROM t;
-- as the hint says
UPDATE batched_background_migrations SET allow_key_change = true, follow = false WHERE name = 'trigger';
CALL bbm_run('trigger');
SELECT v, count(*), min(id) FROM t GROUP BY v;
-- one that leaves the key as it is
DROP TRIGGER away ON t;
CREATE TRIGGER away BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION away('near');
SELECT bbm_update('near', 't', 'v = v + 1', batch_size => 10, sub_batch_size => 3) > 0 AS created;
CALL bbm_run('near');
SELECT v, count(*) FROM t GROUP BY v;
-- one that comes after it was defined
DROP TRIGGER away ON t;
CREATE FUNCTION comes() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 't'::regclass) THEN
        CREATE TRIGGER away BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION away('far');
    END IF;
    RETURN 1;
END $$;
SELECT bbm_update('before', 't', 'v = v + 1', batch_size => 10) > 0 AS created;
SELECT jobs FROM bbm_dry_run('before', 2);
BEGIN;
SELECT comes();
COMMIT;
CALL bbm_run('before');
SELECT v, count(*) FROM t GROUP BY v;
-- one that comes while it runs: the batch at hand makes way for it, and is not done in spite of it
\getenv abs_srcdir PG_ABS_SRCDIR
\set helper :abs_srcdir '/sql/wait_for.inc'
\i :helper
CREATE FUNCTION held(id int, at int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    WHILE id = at AND NOT pg_try_advisory_xact_lock_shared(4242) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN 1;
END $$;
CREATE VIEW at_work AS SELECT pid FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event = 'PgSleep';
TRUNCATE t;
INSERT INTO t SELECT generate_series(1, 100);
DROP TRIGGER away ON t;
SELECT pg_advisory_lock(4242);
SELECT bbm_update('meanwhile', 't', 'v = v + held(id, 51)', batch_size => 10, settings => '{bbm.min_pace=1}', start => true) > 0 AS created;
SELECT wait_for($$EXISTS (SELECT FROM at_work)$$);
CREATE TRIGGER away BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION away('far');
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('meanwhile', '1 minute');
SELECT failure_error_code, error_message FROM batched_background_migrations WHERE name = 'meanwhile';
SELECT v, count(*), max(id) FROM t GROUP BY v ORDER BY v;
-- a rule of the table does not keep it from being seen, whatever it is about
DROP TRIGGER away ON t;
TRUNCATE t;
INSERT INTO t SELECT generate_series(1, 100);
CREATE FUNCTION next_batch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := NEW.id + 100; RETURN NEW; END $$;
CREATE TRIGGER away BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION next_batch();
CREATE TABLE seen (id int);
CREATE RULE also AS ON INSERT TO t DO ALSO INSERT INTO seen VALUES (NEW.id);
SELECT bbm_update('rule', 't', 'v = v + 1', batch_size => 10, max_value => 200) > 0 AS created;
CALL bbm_run('rule');
DROP RULE also ON t;
CREATE RULE also AS ON UPDATE TO t DO ALSO INSERT INTO seen VALUES (NEW.id);
CALL bbm_run('rule');
SELECT v, count(*) FROM t GROUP BY v;
-- ... but for one that replaces the UPDATE of some rows
DROP RULE also ON t;
CREATE RULE partly AS ON UPDATE TO t WHERE OLD.id = 3 DO INSTEAD NOTHING;
CALL bbm_run('rule');
\set VERBOSITY default
SELECT bbm_update('partly', 't', 'v = v + 1', batch_size => 10);
\set VERBOSITY terse
SELECT v, count(*) FROM t GROUP BY v;
DROP RULE partly ON t;
CREATE RULE no_update AS ON UPDATE TO t DO INSTEAD NOTHING;
SELECT bbm_update('replaced', 't', 'v = v + 1', batch_size => 10) > 0 AS created;
-- ... and is not disabled, or for replicas alone
ALTER TABLE t DISABLE RULE no_update;
SELECT bbm_update('disabled', 't', 'v = v + 1', batch_size => 10, max_value => 200) > 0 AS created;
CALL bbm_run('disabled');
ALTER TABLE t ENABLE REPLICA RULE no_update;
CALL bbm_run('disabled');
SELECT v, count(*) FROM t GROUP BY v;
DROP RULE no_update ON t;
DROP TABLE seen;
-- the rules of a partition do not apply to a statement on its table; those of the table do
CREATE TABLE q (id int PRIMARY KEY, v int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (1) TO (1000);
INSERT INTO q SELECT generate_series(1, 100);
CREATE TRIGGER away BEFORE UPDATE ON q1 FOR EACH ROW EXECUTE FUNCTION next_batch();
CREATE RULE no_update AS ON UPDATE TO q1 DO INSTEAD NOTHING;
SELECT bbm_update('rule of a partition', 'q', 'v = v + 1', batch_size => 10, max_value => 200) > 0 AS created;
CALL bbm_run('rule of a partition');
SELECT v, count(*) FROM q GROUP BY v;
DROP RULE no_update ON q1;
CREATE RULE partly AS ON UPDATE TO q WHERE OLD.id = 3 DO INSTEAD NOTHING;
SELECT bbm_update('rule of the table', 'q', 'v = v + 1', batch_size => 10);
DROP RULE partly ON q;
CREATE RULE no_update AS ON UPDATE TO q DO INSTEAD NOTHING;
SELECT bbm_update('replaced in all', 'q', 'v = v + 1', batch_size => 50) > 0 AS created;
CALL bbm_run('replaced in all');
SELECT v, count(*) FROM q GROUP BY v;
DROP TABLE q;
-- ... nor does a rule that a partition gets while the partitions are done one by one
CREATE TABLE q (id int PRIMARY KEY, v int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (1) TO (1000);
INSERT INTO q SELECT generate_series(1, 100);
CREATE TABLE gate (open boolean);
CREATE FUNCTION passes(id int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF id = 51 AND NOT EXISTS (SELECT FROM gate) THEN
        RAISE EXCEPTION 'the gate is closed';
    END IF;
    RETURN 1;
END $$;
SELECT bbm_update('rule later', 'q', 'v = v + passes(id)', batch_size => 10, max_value => 200, max_attempts => 1) > 0 AS created;
CALL bbm_run('rule later');
CREATE TRIGGER away BEFORE UPDATE ON q1 FOR EACH ROW EXECUTE FUNCTION next_batch();
CREATE RULE no_update AS ON UPDATE TO q1 DO INSTEAD NOTHING;
INSERT INTO gate VALUES (true);
CALL bbm_run('rule later');
SELECT partition_order FROM batched_background_migrations WHERE name = 'rule later';
SELECT v, count(*) FROM q GROUP BY v ORDER BY v;
DROP TABLE q, gate;
-- a trigger of one partition
CREATE TABLE p (id int NOT NULL, v int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (51);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (51) TO (10000);
CREATE UNIQUE INDEX ON p (id);
INSERT INTO p SELECT generate_series(1, 100);
CREATE TRIGGER away BEFORE UPDATE ON p2 FOR EACH ROW EXECUTE FUNCTION away('far');
SELECT bbm_update('partition', 'p', 'v = v + 1', column_name => 'id', batch_size => 10) > 0 AS created;
CALL bbm_run('partition');
SELECT v, count(*), max(id) FROM p GROUP BY v ORDER BY v;

-- ... that comes while its partition is done
DROP TRIGGER away ON p2;
TRUNCATE p;
INSERT INTO p SELECT i FROM generate_series(1, 100) i WHERE i <> 50;
SELECT pg_advisory_lock(4242);
SELECT bbm_update('partition meanwhile', 'p', 'v = v + held(id, 31)', column_name => 'id', batch_size => 10, settings => '{bbm.min_pace=1}', start => true) > 0 AS created;
SELECT wait_for($$EXISTS (SELECT FROM at_work)$$);
CREATE FUNCTION away_within() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.id := CASE NEW.id WHEN 35 THEN 50 ELSE NEW.id END; RETURN NEW; END $$;
CREATE TRIGGER away BEFORE UPDATE ON p1 FOR EACH ROW EXECUTE FUNCTION away_within();
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('partition meanwhile', '1 minute');
SELECT failure_error_code, error_message FROM batched_background_migrations WHERE name = 'partition meanwhile';
SELECT v, count(*) FROM p GROUP BY v ORDER BY v;

-- ... and the same while all are worked on as one table
CREATE TABLE l (id int NOT NULL, v int NOT NULL DEFAULT 0, r int NOT NULL DEFAULT 1) PARTITION BY LIST (r);
CREATE TABLE l1 PARTITION OF l FOR VALUES IN (1);
CREATE TABLE l2 PARTITION OF l FOR VALUES IN (2);
CREATE INDEX ON l (id);
INSERT INTO l SELECT i FROM generate_series(1, 100) i WHERE i <> 35;
CREATE FUNCTION away_back() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.id := CASE NEW.id WHEN 45 THEN 35 ELSE NEW.id END; RETURN NEW; END $$;
SELECT pg_advisory_lock(4242);
SELECT bbm_update('as one meanwhile', 'l', 'v = v + held(id, 31)', column_name => 'id', batch_size => 10, settings => '{bbm.min_pace=1}', start => true) > 0 AS created;
SELECT wait_for($$EXISTS (SELECT FROM at_work)$$);
CREATE TRIGGER away BEFORE UPDATE ON l1 FOR EACH ROW EXECUTE FUNCTION away_back();
SELECT pg_advisory_unlock(4242);
SELECT bbm_wait('as one meanwhile', '1 minute');
SELECT partition_order, failure_error_code, error_message FROM batched_background_migrations WHERE name = 'as one meanwhile';
SELECT max(v), count(*) FROM l WHERE id IN (35, 45);
DROP TABLE l;

SELECT bbm_drop(name) FROM batched_background_migrations ORDER BY name;
DROP EXTENSION bbm;
\if :allowed
DROP TABLE child;
\endif
DROP TABLE g, identities, parent, chain, round_trip, between_them, up, parts, links, words, t, p;
DROP DOMAIN word;
DROP VIEW at_work;
DROP FUNCTION away, comes, held, away_within, away_back, next_batch, passes, wait_for;
