# Races as in 054, of what is done beside the batches: the end of a migration, releases, bookkeeping, reports,
# previews, checks and cancels.  doc/proof.md has the list.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmPoints;
use BbmRaces;
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

# one worker: the second process is a session, which a test begins when it wants
my $node = points_node('side_races', conf => POINTS_CONF . "bbm.max_workers = 1\nautovacuum = off\n");

# engine/step.c, finish: what is to follow is changed between the last claim and the locks.
{
	my $id = value($node, <<'EOS');
CREATE TABLE verified_late (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO verified_late SELECT generate_series(1, 20);
SELECT bbm_update('verified_late', 'verified_late', 'n = 1', 'n = 0', batch_size => 5);
EOS
	arm($node, 'end-begin', migration => $id);
	start_migration($node, 'verified_late');
	stands($node, 'end-begin');
	value($node, q(SELECT bbm_alter('verified_late', verify => true)));
	release($node);
	finished($node, 'verified_late');
	is(value($node, "SELECT count(*) > 0 FROM @{[jobs_of('verified_late')]} j WHERE phase = 'verify'"), 't',
		'a verification that is asked for between the last claim and the end takes place');
}

# engine/outcome.c, a release: the job has been taken over meanwhile, and is claimed by another process.
{
	my $id = subject($node, 'released', workers => 2);
	claims_along($node, $id);
	arm($node, 'pause-due', migration => $id);
	arm($node, 'batch-begin', migration => $id, passes => 1);
	start_migration($node, 'released');
	stands($node, 'batch-begin');
	value($node, q(SELECT bbm_pause('released')));
	arm($node, 'release-begin', migration => $id);
	release($node, 'batch-begin');
	stands($node, 'release-begin');
	my $job = value($node, "SELECT id FROM @{[jobs_of('released')]} j WHERE status = 4");
	value($node, "SET session_replication_role = replica; UPDATE batched_background_migration_jobs SET status = 1, claim_epoch = claim_epoch + 1 WHERE id = $job");
	arm($node, 'claim-committed', migration => $id);
	start_migration($node, 'released');
	my $second = second($node, 'released');
	stands($node, 'claim-committed');
	my $claim = "SELECT status, attempts, claim_epoch FROM batched_background_migration_jobs WHERE id = $job";
	my $before = value($node, $claim);
	like($before, qr/^4\|/, 'a job that is to be released was taken over, and claimed');
	release($node, 'release-begin');
	$node->poll_query_until('postgres', "SELECT count(*) = 3 FROM @{[jobs_of('released')]} j WHERE status = 2");
	is(value($node, $claim), $before, '... and is not released by the process that had it before');
	release($node);
	finish_background($second);
	finished($node, 'released');
	once_each($node, 'released', 20);
}

# engine/outcome.c, fail_migration: the definition is corrected between an error and its record.  (Another process
# would have done all of it by then.)
{
	value($node, q(CREATE TABLE corrected (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0); INSERT INTO corrected SELECT generate_series(1, 20)));
	my $id = value($node, q(SELECT bbm_create('corrected', 'corrected', 'UPDATE corrected SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 5)));
	value($node, 'ALTER TABLE corrected RENAME COLUMN id TO key');
	arm($node, 'fail-begin');
	start_migration($node, 'corrected');
	stands($node, 'fail-begin');
	value($node, 'ALTER TABLE corrected RENAME COLUMN key TO id');
	value($node, q(UPDATE batched_background_migrations SET batch_size = 4 WHERE name = 'corrected'));
	release($node);
	finished($node, 'corrected', 'an error of a definition that has changed since is not recorded');
	once_each($node, 'corrected', 20);
}

# ... and of one that has not, it is.
{
	value($node, q(CREATE TABLE uncorrected (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0)));
	value($node, q(SELECT bbm_create('uncorrected', 'uncorrected', 'UPDATE uncorrected SET n = n + 1 WHERE id BETWEEN $1 AND $2')));
	value($node, 'ALTER TABLE uncorrected RENAME COLUMN id TO key');
	arm($node, 'fail-begin');
	start_migration($node, 'uncorrected');
	stands($node, 'fail-begin');
	release($node);
	ok(status_is($node, 'uncorrected', 'failed'), 'an error of a definition that has not changed is recorded');
	value($node, q(SELECT bbm_drop('uncorrected')));
}

# engine/no_rows.c: another process comes to the same end of ten jobs while one reports, and
# (rows) changes a row that the report has not seen; a pause waits for the report.
for my $rows (0, 1)
{
	my $name = $rows ? 'rows_meanwhile' : 'no_rows_twice';
	my $id = subject($node, $name, rows => 30, batch_size => 1, workers => 2,
		job => "UPDATE $name SET n = n + 1 WHERE id BETWEEN \$1 AND \$2" . ($rows ? ' AND id = 20' : ' AND n < 0'));
	arm($node, 'batch-done', migration => $id, passes => 9);
	start_migration($node, $name);
	stands($node, 'batch-done');
	arm($node, 'batch-recorded', migration => $id, passes => 9);
	my $second = second($node, $name);
	stands($node, 'batch-recorded');
	arm($node, 'no-rows-read', migration => $id);
	release($node, 'batch-done');
	stands($node, 'no-rows-read');
	release($node, 'batch-recorded');
	waits_for_lock($node, 'second', "$name: the other process goes on to its next claim");
	is(events($node, $name, 'no_rows'), 0, '... and has not reported it');
	my $pause = background($node, 'postgres', q(SET application_name = 'pause'), "SELECT bbm_pause('$name')");
	waits_for_lock($node, 'pause', '... a pause waits for the report');
	release($node);
	finish_background($pause);
	finish_background($second);
	no_workers($node);
	is(events($node, $name, 'no_rows'), 1, '... which is made once');
	start_migration($node, $name);
	finished($node, $name);
	is(events($node, $name, 'no_rows'), 1, '... and not again');
	is(value($node, "SELECT sum(n) FROM $name"), $rows, '... and every row is done');
}

# catalog/recent.c: a job is quarantined after the list of those that were, and before the count.
{
	my $id = value($node, <<'EOS');
CREATE TABLE listed (id bigint PRIMARY KEY, d integer NOT NULL, n integer);
INSERT INTO listed SELECT i, (i BETWEEN 10 AND 19)::integer FROM generate_series(1, 30) i;
SELECT bbm_create('listed', 'listed', 'UPDATE listed SET n = 1 / d WHERE id BETWEEN $1 AND $2', workers => 2,
	batch_size => 1, max_attempts => 1, on_error => 'skip', max_errors => 1000, max_failed_share => 0.5);
EOS
	# the check of the tenth failure, which is the twentieth job
	arm($node, 'breaker-listed', migration => $id, passes => 9);
	start_migration($node, 'listed');
	stands($node, 'breaker-listed');
	my (undef, $err) = finish_background(second($node, 'listed'));
	is(value($node, q(SELECT status, error_message FROM batched_background_migrations WHERE name = 'listed')), '0|11 of the last 21 jobs failed',
		'the process that quarantines a job counts it, whoever counts beside it') or diag($err);
	release($node);
	no_workers($node);
	is(value($node, q(SELECT status, error_message FROM batched_background_migrations WHERE name = 'listed')), '0|11 of the last 21 jobs failed',
		'... and the other one does not pause it again');
	is(events($node, 'listed', 'paused'), 1, '... of which there is one event');
	value($node, q(SELECT bbm_drop('listed')));
}

# target/changes.c: rows are changed, deleted and inserted between the preview's first snapshot and its batch.
{
	value($node, <<'EOS');
CREATE TABLE previewed (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO previewed SELECT generate_series(2, 8, 2);
SELECT bbm_create('previewed', 'previewed', 'UPDATE previewed SET n = n + 1 WHERE id BETWEEN $1 AND $2');
EOS
	arm($node, 'preview-snapshot');
	my $preview = background($node, 'postgres',
		q(SELECT operation, key ->> 'id', before ->> 'n', after ->> 'n' FROM bbm_preview('previewed') WHERE key IS NOT NULL ORDER BY (key ->> 'id')::integer));
	stands($node, 'preview-snapshot');
	value($node, 'UPDATE previewed SET n = 5 WHERE id = 4; DELETE FROM previewed WHERE id = 6; INSERT INTO previewed VALUES (7)');
	release($node);
	my ($out, $err) = finish_background($preview);
	is("$out$err", "update|2|0|1\nupdate|4|0|6\ndelete|6|0|\ninsert|7||1\nupdate|8|0|1",
		'a preview shows what came between its snapshot and its batch as if it were the batch\'s');
	is(value($node, q(SELECT string_agg(id || ':' || n, ' ' ORDER BY id) FROM previewed)), '2:0 4:5 7:0 8:0', '... and leaves that alone');
}

# sql/trial.c, target/draw.c: rows are deleted between two drawn batches, whose locks end with each.
{
	value($node, <<'EOS');
CREATE TABLE drawn (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0) WITH (fillfactor = 10);
INSERT INTO drawn SELECT generate_series(1, 5000);
ANALYZE drawn;
SELECT bbm_create('drawn', 'drawn', 'UPDATE drawn SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 10);
EOS
	arm($node, 'preview-batch', passes => 1);
	my $preview = background($node, 'postgres',
		q(SELECT count(*), bool_and(after ->> 'n' = '1') FROM bbm_preview('drawn', 100) WHERE key IS NOT NULL));
	stands($node, 'preview-batch');
	value($node, q(SET lock_timeout = '10s'; DELETE FROM drawn WHERE id > 5));
	my ($rc) = $node->psql('postgres', q(SET lock_timeout = '200ms'; ALTER TABLE drawn ADD COLUMN more integer));
	isnt($rc, 0, 'between two batches of a preview the table cannot be altered,');
	release($node);
	my ($out, $err) = finish_background($preview);
	like($out, qr/^1?\d\|t$/, '... but its rows be deleted: the next batches have fewer, or none') or diag($err);
	is(value($node, 'SELECT count(*), max(n) FROM drawn'), '5|0', '... and nothing is left of it');
}

# engine/bisect.c: a key is inserted before the one that cannot be done, between the try and its record.
{
	my $id = value($node, <<'EOS');
CREATE TABLE quarantined (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0, d integer NOT NULL DEFAULT 1);
INSERT INTO quarantined (id, d) SELECT 10 * i, (i <> 3)::integer FROM generate_series(1, 5) i;
SELECT bbm_create('quarantined', 'quarantined', 'UPDATE quarantined SET n = n + 1 / d WHERE id BETWEEN $1 AND $2', max_attempts => 1, on_error => 'split');
EOS
	arm($node, 'batch-bisected', migration => $id);
	start_migration($node, 'quarantined');
	stands($node, 'batch-bisected');
	value($node, 'INSERT INTO quarantined (id) VALUES (25)');
	release($node);
	finished($node, 'quarantined');
	is(value($node, 'SELECT count(*) FROM bbm_migration_errors WHERE 30 BETWEEN min_value AND max_value'), 1,
		'a key comes before the one that cannot be done: that one is quarantined');
	value($node, q(UPDATE quarantined SET d = 1; SELECT bbm_retry('quarantined')));
	finished($node, 'quarantined');
	once_each($node, 'quarantined', 6);
}

# engine/books.c, recount: a pause commits between the sample and the update.
{
	my $id = subject($node, 'recounted', rows => 600, batch_size => 1, max_value => 10);
	arm($node, 'batch-done', migration => $id);
	start_migration($node, 'recounted');
	stands($node, 'batch-done');
	value($node, q(UPDATE batched_background_migrations SET max_value = 600 WHERE name = 'recounted'));
	arm($node, 'recount-sampled', migration => $id);
	release($node, 'batch-done');
	stands($node, 'recount-sampled');
	value($node, q(SELECT bbm_pause('recounted')));
	my $row   = q(SELECT total_tuple_count, updated_at FROM batched_background_migrations WHERE name = 'recounted');
	my $state = value($node, $row);
	like($state, qr/^\|/, 'how much there is to do is to be sampled anew');
	release($node);
	no_workers($node);
	is(value($node, $row), $state, 'a pause after the sample: the row stays as the user has left it');
	start_migration($node, 'recounted');
	finished($node, 'recounted');
	once_each($node, 'recounted', 600);
}

# ... or the user extends the range: the sample is of the one before.
{
	my $id = subject($node, 'extended', rows => 600, batch_size => 1, max_value => 10);
	arm($node, 'batch-done', migration => $id);
	start_migration($node, 'extended');
	stands($node, 'batch-done');
	value($node, q(UPDATE batched_background_migrations SET max_value = 20 WHERE name = 'extended'));
	arm($node, 'recount-sampled', migration => $id);
	release($node, 'batch-done');
	stands($node, 'recount-sampled');
	value($node, q(UPDATE batched_background_migrations SET max_value = 600 WHERE name = 'extended'));
	arm($node, 'recount-committed', migration => $id);
	release($node, 'recount-sampled');
	stands($node, 'recount-committed');
	is(value($node, q(SELECT total_tuple_count FROM batched_background_migrations WHERE name = 'extended')), '', 'the range is extended after the sample: it is to be sampled anew');
	release($node);
	finished($node, 'extended');
	once_each($node, 'extended', 600);
}

# sql/access.c, bbm_cancel_running: the process has gone on to a batch of another migration when the signal arrives.
{
	my $first = subject($node, 'cancelled');
	my $other = subject($node, 'bystander', max_attempts => 1);
	arm($node, 'batch-statement', migration => $first);
	start_migration($node, 'cancelled');
	stands($node, 'batch-statement');
	arm($node, 'cancel-listed');
	my $pause = background($node, 'postgres', q(SELECT bbm_pause('cancelled', cancel => true)));
	stands($node, 'cancel-listed');
	arm($node, 'batch-done', migration => $other);
	start_migration($node, 'bystander');
	release($node, 'batch-statement');
	stands($node, 'batch-done');
	release($node, 'cancel-listed');
	finish_background($pause);
	$node->poll_query_until('postgres', "SELECT sum(requeued) = 1 FROM @{[jobs_of('bystander')]} j");
	release($node);
	finished($node, 'bystander', 'a cancel that hits another batch costs no attempt');
	once_each($node, 'bystander', 20);
	is(value($node, "SELECT sum(failures) || ' ' || sum(requeued) FROM @{[jobs_of('bystander')]} j"), '0 1', '... which is requeued once');
	is(value($node, q(SELECT status FROM bbm_status('cancelled'))), 'paused', '... and the one that was meant is paused');
	start_migration($node, 'cancelled');
	finished($node, 'cancelled');
	once_each($node, 'cancelled', 20);
}

# engine/verify.c: a partition is attached between the list of those to check and the snapshot of the check.
{
	my $id = value($node, <<'EOS');
CREATE TABLE joined (id bigint, n integer NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
CREATE TABLE joined_1 PARTITION OF joined FOR VALUES FROM (0) TO (100);
CREATE TABLE joined_2 (LIKE joined INCLUDING ALL);
INSERT INTO joined SELECT generate_series(1, 20);
INSERT INTO joined_2 SELECT generate_series(101, 120);
SELECT bbm_update('joined', 'joined', 'n = n + 1', 'n = 0', batching_strategy => 'BlockRangeBatchingStrategy');
EOS
	arm($node, 'verify-listed', migration => $id);
	start_migration($node, 'joined');
	stands($node, 'verify-listed');
	value($node, 'ALTER TABLE joined ATTACH PARTITION joined_2 FOR VALUES FROM (100) TO (200)');
	release($node);
	finished($node, 'joined');
	once_each($node, 'joined', 40, 'the rows of a partition that a check has not listed are done');
}

# target/hierarchy.c, bbm_partitions_snapshot: a partition is rewritten by a session for which a check waits.  A snapshot from before
# that would see none of its rows.
{
	value($node, <<'EOS');
CREATE TABLE rewritten (id bigint, half integer NOT NULL, n integer NOT NULL DEFAULT 0) PARTITION BY LIST (half);
CREATE TABLE rewritten_1 PARTITION OF rewritten FOR VALUES IN (1);
CREATE TABLE rewritten_2 PARTITION OF rewritten FOR VALUES IN (2);
CREATE INDEX ON rewritten (id);
EOS
	value($node, $_) for q(ALTER SYSTEM SET bbm.lock_timeout = '1min'), 'SELECT pg_reload_conf()';
	my $key = "column_name => 'id', min_value => 1, max_value => 20";
	for my $case (
		# name, options, where the check stands, after how many passes, what is left to do
		[ 'without_key', "$key, rows_stay => true", 'end-begin', 0, 'n = 0, id = NULL' ],
		[ 'by_range', $key, 'batch-begin', 2, 'n = 0' ],
		[ 'by_block', "batching_strategy => 'BlockRangeBatchingStrategy'", 'verify-listed', 0, 'n = 0' ])
	{
		my ($name, $options, $point, $passes, $change) = @$case;
		my $id = value($node, <<"EOS");
ALTER TABLE rewritten_1 SET LOGGED;
TRUNCATE rewritten;
INSERT INTO rewritten SELECT i, 1 + i / 11 FROM generate_series(1, 20) i;
SELECT bbm_update('$name', 'rewritten', 'n = 1', 'n = 0', batch_size => 100, $options);
EOS
		arm($node, $point, migration => $id, passes => $passes);
		start_migration($node, $name);
		stands($node, $point);
		value($node, "UPDATE rewritten SET $change WHERE id = 7");
		my $rewrites = $node->background_psql('postgres');
		$rewrites->query_safe('BEGIN; ALTER TABLE rewritten_1 SET UNLOGGED');
		release($node);
		ok($node->poll_query_until('postgres',
			"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event_type = 'Lock')"),
			"$name: a check waits for a partition that is rewritten");
		my $verifies = background($node, 'postgres', q(SET application_name = 'verifies'), "SELECT bbm_verify('$name')");
		waits_for_lock($node, 'verifies', '... and so does bbm_verify');
		$rewrites->query_safe('COMMIT');
		$rewrites->quit;
		my ($out) = finish_background($verifies);
		if ($name eq 'without_key')
		{
			is($out, 1, '... which counts the row that is left to do');
			$node->poll_query_until('postgres', "SELECT status IN ('finished', 'failed') FROM bbm_status('$name')");
			is(value($node, "SELECT failure_error_code, error_message FROM batched_background_migrations WHERE name = '$name'"),
				'2|1 row has a null key and is in no range', '... and the migration does not pass it over');
		}
		else
		{
			finished($node, $name);
			once_each($node, 'rewritten', 20, '... and the row that is left to do is done');
		}
		value($node, "SELECT bbm_drop('$name')");
	}
	value($node, $_) for 'ALTER SYSTEM RESET bbm.lock_timeout', 'SELECT pg_reload_conf()';
}

# catalog/jobs.c, bbm_job_ids_catch_up: another process takes a number while the sequence is set.
{
	my $id = subject($node, 'numbered', on_error => "'split'", max_attempts => 1, job => 'UPDATE numbered SET n = n + 1 / (id - 7) WHERE id BETWEEN $1 AND $2');
	my $other = subject($node, 'takes_numbers');
	start_migration($node, 'numbered');
	finished($node, 'numbered');
	value($node, q(SELECT setval(pg_get_serial_sequence('batched_background_migration_jobs', 'id'), 1)));
	arm($node, 'ids-read');
	my $retry = background($node, 'postgres', q(SELECT bbm_retry('numbered')));
	stands($node, 'ids-read');
	my $second = second($node, 'takes_numbers');
	waits_for_lock($node, 'second', 'a job that is created while the sequence is set waits for that');
	release($node);
	finish_background($retry);
	finish_background($second);
	finished($node, $_) for 'numbered', 'takes_numbers';
	once_each($node, 'takes_numbers', 20);
	value($node, q(SELECT bbm_drop('numbered')));
}

# target/statement.c, target/hierarchy.c: a child table is dropped after the list of its siblings was read, and before it is
# asked for tables of its own.  The catalog's lock makes the moment: each wait for it shows what was committed meanwhile.
{
	value($node, <<'EOS');
CREATE TABLE tree (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
CREATE TABLE tree_a (PRIMARY KEY (id)) INHERITS (tree);
CREATE TABLE tree_b (PRIMARY KEY (id)) INHERITS (tree);
CREATE TABLE tree_aa (PRIMARY KEY (id)) INHERITS (tree_a);
INSERT INTO tree SELECT generate_series(1, 10);
INSERT INTO tree_aa SELECT generate_series(11, 20);
EOS
	arm($node, 'statement-checked');
	my $defines = background($node, 'postgres', q(SET application_name = 'defines'), q(SELECT bbm_update('tree', 'tree', 'n = n + 1')));
	stands($node, 'statement-checked');
	my ($drops, $holds) = map { $node->background_psql('postgres') } 1, 2;
	$drops->query_safe(q(SET application_name = 'drops'; BEGIN; DROP TABLE tree_b));
	$holds->query_safe('BEGIN; LOCK TABLE pg_inherits');
	release($node);
	waits_for_lock($node, 'defines', 'the check of a statement reads the child tables');
	$drops->query_until(qr/sent/, "\\echo sent\nLOCK TABLE pg_inherits; COMMIT;\n");
	waits_for_lock($node, 'drops', '... the transaction that drops one is to be next');
	$holds->query_safe('COMMIT');
	my ($out, $err) = finish_background($defines);
	like($out, qr/^\d+$/, '... and is seen without an error') or diag($err);
	$_->quit for $drops, $holds;
	start_migration($node, 'tree');
	finished($node, 'tree');
	once_each($node, 'tree', 20);
}

# target/cascade.c: a table whose foreign key is being described is dropped.
{
	value($node, <<'EOS');
CREATE TABLE referred (id bigint PRIMARY KEY);
CREATE TABLE refers (id bigint PRIMARY KEY REFERENCES referred ON DELETE CASCADE);
CREATE TABLE refers_to_that (id bigint PRIMARY KEY REFERENCES refers ON DELETE CASCADE);
EOS
	arm($node, 'cascade-found', passes => 1);
	my $defines = background($node, 'postgres', q(SELECT bbm_delete('referred', 'referred', 'id < 0')));
	stands($node, 'cascade-found');
	value($node, 'DROP TABLE refers_to_that');
	release($node);
	my (undef, $err) = finish_background($defines);
	like($err, qr/NOTICE:.*rows of other tables go with those.*table public\.refers: ON DELETE CASCADE/s, 'a foreign key whose table is dropped: the others are described');
	unlike($err, qr/ERROR|refers_to_that/, '... and that one is not');
}

# throttle/table.c: a partition is dropped between the list of the table's relations and what is read of each.
{
	my $id = value($node, <<'EOS');
CREATE TABLE parts (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200);
INSERT INTO parts SELECT generate_series(1, 20);
INSERT INTO parts SELECT generate_series(101, 120);
SELECT bbm_update('parts', 'parts', 'n = n + 1', batch_size => 5, settings => '{bbm.max_dead_tuples=1000}');
EOS
	arm($node, 'relations-listed', migration => $id);
	start_migration($node, 'parts');
	stands($node, 'relations-listed');
	value($node, q(SET lock_timeout = '10s'; DROP TABLE parts_2));
	release($node);
	finished($node, 'parts', 'a partition that is dropped while the signals list it harms nothing');
	once_each($node, 'parts', 20);
}

# target/key_scan.c: a claim finds another index than the table had when it was checked, and one in which a key may be null.
{
	my $id = value($node, <<'EOS');
CREATE TABLE walked (id bigint NOT NULL, n integer NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX walked_1 ON walked (id NULLS FIRST);
INSERT INTO walked SELECT generate_series(1, 20);
SELECT bbm_create('walked', 'walked', 'UPDATE walked SET n = n + 1 WHERE id BETWEEN $1 AND $2', column_name => 'id', batch_size => 5);
EOS
	arm($node, 'claim-permitted', migration => $id);
	start_migration($node, 'walked');
	stands($node, 'claim-permitted');
	value($node, <<'EOS');
SET lock_timeout = '10s';
BEGIN;
DROP INDEX walked_1;
CREATE UNIQUE INDEX walked_2 ON walked (id NULLS FIRST);
ALTER TABLE walked ALTER id DROP NOT NULL;
INSERT INTO walked VALUES (NULL);
COMMIT;
EOS
	release($node);
	ok(status_is($node, 'walked', 'failed'), 'a claim whose index is another one now goes on with that');
	is(value($node, q(SELECT error_message FROM batched_background_migrations WHERE name = 'walked')), '1 row has a null key and is in no range',
		'... and takes no key that is null into a range');
	once_each($node, '(SELECT n FROM walked WHERE id IS NOT NULL) ranges', 20);
	value($node, q(DELETE FROM walked WHERE id IS NULL; SELECT bbm_start('walked')));
	finished($node, 'walked');
}

# engine/claim.c, take_failed: a session has a job's row locked, and the job is due.  It is checked ten times in ten seconds.
{
	value($node, 'CREATE FUNCTION divider(bigint) RETURNS integer LANGUAGE plpgsql AS $$BEGIN RETURN 0; END$$');
	my $id = subject($node, 'locked_job', rows => 5, job => 'UPDATE locked_job SET n = n + 1 / divider(id) WHERE id BETWEEN $1 AND $2');
	arm($node, 'claim-begin', migration => $id, passes => 1);
	start_migration($node, 'locked_job');
	stands($node, 'claim-begin');
	my $locker = background($node, 'postgres', "SET application_name = 'locker'", 'BEGIN',
		"SELECT FROM batched_background_migration_jobs WHERE batched_background_migration_id = $id FOR UPDATE", 'SELECT pg_sleep(1000)');
	ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'locker' AND wait_event = 'PgSleep')),
		'a job that has failed is locked');
	release($node);
	ok($node->poll_query_until('postgres', q(SELECT waiting_on = 'a lock on a job that is due' FROM bbm_status_detail('locked_job'))), '... which its migration waits for');
	# a hundred times in a minute and a half, whatever wakes the worker
	arm($node, 'claim-begin', migration => $id, passes => 100);
	value($node, 'DO $$BEGIN FOR i IN 1 .. 200 LOOP PERFORM pg_reload_conf(), pg_sleep(0.01); END LOOP; END$$');
	is(standing($node, 'claim-begin'), '', '... without checking it again and again');
	value($node, 'CREATE OR REPLACE FUNCTION divider(bigint) RETURNS integer LANGUAGE plpgsql AS $$BEGIN RETURN 1; END$$');
	release($node);
	value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'locker'));
	finish_background($locker);
	finished($node, 'locked_job', '... and it goes on when the lock is gone');
}

log_clean($node);
done_testing();
