# Races as in 054, of what is done beside the batches: the end of a migration, bookkeeping, reports, previews,
# cancels, vacuums, launches, and commands on the extension and the database.  doc/proof.md has the list.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmPoints;
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

# one worker: the second process is a session, which a test begins when it wants
my $node = points_node('side_races', conf => POINTS_CONF . "bbm.max_workers = 1\nautovacuum = off\n");
my $module = $ENV{BBM_POINTS_MODULE};

sub jobs_of { my ($name) = @_; return "(SELECT j.* FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name = '$name')" }
sub start { my ($name) = @_; value($node, "SELECT bbm_start('$name')"); return }

# A table of so many rows, and a migration that is not started yet; its id.
sub subject
{
	my ($name, %o) = @_;
	my $rows = delete $o{rows} || 20;
	my $job  = delete $o{job} || "UPDATE $name SET n = n + 1 WHERE id BETWEEN \$1 AND \$2";
	$o{batch_size} ||= 5;
	my $options = join '', map { ", $_ => $o{$_}" } sort keys %o;
	return value($node, <<"EOS");
CREATE TABLE $name (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO $name SELECT i FROM generate_series(1, $rows) i;
SELECT bbm_create('$name', '$name', '$job'$options);
EOS
}

# A second process of the engine: a session that is found by its name.
sub second
{
	my ($name) = @_;
	return background($node, 'postgres', q(SET application_name = 'second'), "CALL bbm_run('$name')");
}

# Waits until a statement of a session of this name waits for a lock.
sub waits_for_lock
{
	my ($session, $what) = @_;
	return ok($node->poll_query_until('postgres',
		"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = '$session' AND wait_event_type = 'Lock')"), $what);
}

sub events
{
	my ($name, $event) = @_;
	return value($node, "SELECT count(*) FROM bbm_events WHERE name = '$name' AND event = '$event'");
}

# engine/step.c, finish: what is to follow is changed between the last claim and the locks.
{
	my $id = value($node, <<'EOS');
CREATE TABLE verified_late (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO verified_late SELECT generate_series(1, 20);
SELECT bbm_update('verified_late', 'verified_late', 'n = 1', 'n = 0', batch_size => 5);
EOS
	arm($node, 'end-begin', migration => $id);
	start('verified_late');
	stands($node, 'end-begin');
	value($node, q(SELECT bbm_alter('verified_late', verify => true)));
	release($node);
	finished($node, 'verified_late');
	is(value($node, "SELECT count(*) > 0 FROM @{[jobs_of('verified_late')]} j WHERE phase = 'verify'"), 't',
		'a verification that is asked for between the last claim and the end takes place');
}

# engine/outcome.c, a release: the job has been taken over meanwhile, and is claimed by another process.
{
	my $id = subject('released', settings => q('{bbm.min_pace=0.02,bbm.max_pace=0.02}'), workers => 2);
	arm($node, 'batch-begin', migration => $id, passes => 1);
	start('released');
	stands($node, 'batch-begin');
	value($node, q(SELECT bbm_pause('released')));
	arm($node, 'release-begin', migration => $id);
	release($node, 'batch-begin');
	stands($node, 'release-begin');
	my $job = value($node, "SELECT id FROM @{[jobs_of('released')]} j WHERE status = 4");
	value($node, "SET session_replication_role = replica; UPDATE batched_background_migration_jobs SET status = 1, claim_epoch = claim_epoch + 1 WHERE id = $job");
	arm($node, 'claim-committed', migration => $id);
	start('released');
	my $second = second('released');
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

# engine/no_rows.c: another process comes to the same end of ten jobs while one reports, and
# (rows) changes a row that the report has not seen; a pause waits for the report.
for my $rows (0, 1)
{
	my $name = $rows ? 'rows_meanwhile' : 'no_rows_twice';
	my $id = subject($name, rows => 30, batch_size => 1, workers => 2,
		job => "UPDATE $name SET n = n + 1 WHERE id BETWEEN \$1 AND \$2" . ($rows ? ' AND id = 20' : ' AND n < 0'));
	arm($node, 'batch-done', migration => $id, passes => 9);
	start($name);
	stands($node, 'batch-done');
	arm($node, 'batch-recorded', migration => $id, passes => 9);
	my $second = second($name);
	stands($node, 'batch-recorded');
	arm($node, 'no-rows-read', migration => $id);
	release($node, 'batch-done');
	stands($node, 'no-rows-read');
	release($node, 'batch-recorded');
	waits_for_lock('second', "$name: the other process goes on to its next claim");
	is(events($name, 'no_rows'), 0, '... and has not reported it');
	my $pause = background($node, 'postgres', q(SET application_name = 'pause'), "SELECT bbm_pause('$name')");
	waits_for_lock('pause', '... a pause waits for the report');
	release($node);
	finish_background($pause);
	finish_background($second);
	no_workers($node);
	is(events($name, 'no_rows'), 1, '... which is made once');
	start($name);
	finished($node, $name);
	is(events($name, 'no_rows'), 1, '... and not again');
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
	start('listed');
	stands($node, 'breaker-listed');
	my (undef, $err) = finish_background(second('listed'));
	is(value($node, q(SELECT status, error_message FROM batched_background_migrations WHERE name = 'listed')), '0|11 of the last 21 jobs failed',
		'the process that quarantines a job counts it, whoever counts beside it') or diag($err);
	release($node);
	no_workers($node);
	is(value($node, q(SELECT status, error_message FROM batched_background_migrations WHERE name = 'listed')), '0|11 of the last 21 jobs failed',
		'... and the other one does not pause it again');
	is(events('listed', 'paused'), 1, '... of which there is one event');
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

# engine/books.c, recount: a pause commits between the sample and the update.
{
	my $id = subject('recounted', rows => 600, batch_size => 1, max_value => 10);
	arm($node, 'batch-done', migration => $id);
	start('recounted');
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
	start('recounted');
	finished($node, 'recounted');
	once_each($node, 'recounted', 600);
}

# sql/access.c, bbm_cancel_running: the process has gone on to a batch of another migration when the signal arrives.
{
	my $first = subject('cancelled');
	my $other = subject('bystander', max_attempts => 1);
	arm($node, 'batch-statement', migration => $first);
	start('cancelled');
	stands($node, 'batch-statement');
	arm($node, 'cancel-listed');
	my $pause = background($node, 'postgres', q(SELECT bbm_pause('cancelled', cancel => true)));
	stands($node, 'cancel-listed');
	arm($node, 'batch-done', migration => $other);
	start('bystander');
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
	start('cancelled');
	finished($node, 'cancelled');
	once_each($node, 'cancelled', 20);
}

# throttle/vacuum.c: the table is dropped, or given to another owner, between the check and the VACUUM.
value($node, 'CREATE ROLE app LOGIN; CREATE ROLE other; GRANT EXECUTE ON FUNCTION bbm_create TO app; GRANT CREATE ON SCHEMA public TO app, other; GRANT app, other TO CURRENT_USER');
for my $how ('DROP TABLE', 'OWNER')
{
	my $name = $how eq 'OWNER' ? 'vacuum_given' : 'vacuum_dropped';
	my $id = value($node, <<"EOS");
CREATE TABLE $name (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
ALTER TABLE $name OWNER TO app;
INSERT INTO $name SELECT generate_series(1, 500);
UPDATE $name SET n = 0;
SET ROLE app;
SELECT bbm_create('$name', '$name', 'UPDATE $name SET n = n + 1 WHERE id BETWEEN \$1 AND \$2', batch_size => 100,
	settings => '{bbm.max_dead_tuples=100, bbm.vacuum=on}');
EOS
	$node->poll_query_until('postgres', "SELECT n_dead_tup >= 500 FROM pg_stat_user_tables WHERE relname = '$name'");
	arm($node, 'vacuum-checked', migration => $id);
	start($name);
	stands($node, 'vacuum-checked');
	my $offset = log_size($node);
	my $oid = value($node, "SELECT '$name'::regclass::oid");
	value($node, $how eq 'OWNER' ? "ALTER TABLE $name OWNER TO other" : "DROP TABLE $name");
	release($node);
	ok($node->poll_query_until('postgres', "SELECT status IN ('failed', 'running') FROM bbm_status('$name')"), "$name: its worker goes on");
	value($node, "SELECT bbm_drop('$name')");
	no_workers($node);
	is(value($node, "SELECT coalesce(sum(vacuum_count), 0) FROM pg_stat_all_tables WHERE relid = $oid"), 0, '... and does not vacuum the table');
	unlike(log_since($node, $offset), qr/PANIC|terminated by signal/, '... nor end');
}

# sql/run.c, bbm_launch_worker: another session has the last slot between the check and the launch.
{
	arm($node, 'launch-checked');
	my $first = background($node, 'postgres', 'SELECT bbm_launch_worker()');
	stands($node, 'launch-checked');
	my $offset = log_size($node);
	my $pid = value($node, q(SELECT bbm_launch_worker('10 min')));
	$node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM bbm_workers() WHERE pid = $pid)");
	release($node);
	finish_background($first);
	$node->wait_for_log(qr/worker exits because all slots are taken/, $offset);
	is(value($node, q(SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = 'bbm worker')), $pid,
		'of two workers that are launched for the last slot the second exits');
	value($node, "SELECT pg_terminate_backend($pid)");
	no_workers($node);
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
	start('joined');
	stands($node, 'verify-listed');
	value($node, 'ALTER TABLE joined ATTACH PARTITION joined_2 FOR VALUES FROM (100) TO (200)');
	release($node);
	finished($node, 'joined');
	once_each($node, 'joined', 40, 'the rows of a partition that a check has not listed are done');
}

# base/impact_counts.c: an entry becomes another migration's while a statement runs (it counts for neither), or
# at the very moment at which it is counted (it counts for that one, once).
{
	my $id = subject('watched');
	# so many that the last one gets the entry of the first migration
	my $entries = 16;
	value($node, "CREATE FUNCTION impact_window(migration_id bigint, kind integer, pulse boolean) RETURNS void LANGUAGE c AS '$module', 'bbm_test_impact_window'");
	my $counted = sub { my ($of) = @_; return value($node, "SELECT i.statements FROM batched_background_migrations m, bbm_internal.bbm_impact(m.id, m.owner_oid) i WHERE m.id = $of") };
	# an entry is nobody's when its last pause has been over for a moment
	my $over = sub {
		$node->poll_query_until('postgres',
			"SELECT clock_timestamp() > '@{[value($node, 'SELECT clock_timestamp()')]}'::timestamptz + '100 ms'");
	};
	# to be called while the only entry at work is that of $id
	my $take = sub {
		my ($by) = @_;
		value($node, "SELECT impact_window(100000 * $by + i, 1, false) FROM generate_series(2, $entries) i");
		value($node, "SELECT impact_window($id, 1, NULL)");
		$over->();
		value($node, "SELECT impact_window($by, 1, false)");
	};
	for my $when ('never', 'before', 'at once')
	{
		my $by = subject('takes_entry_' . $when =~ s/ /_/r);
		value($node, "SELECT impact_window($id, 1, false)");
		my $holder = $node->background_psql('postgres');
		$holder->query_safe('SELECT pg_advisory_lock(7)');
		# the first of a session does not count, as those of this test that are alone in theirs
		my $session = background($node, 'postgres', q(SET application_name = 'counts'), 'SELECT 1', 'SELECT pg_advisory_lock_shared(7)');
		waits_for_lock('counts', 'a statement runs');
		my $before = $counted->($id);
		$take->($by) if $when eq 'before';
		arm($node, 'impact-counts') if $when eq 'at once';
		$holder->quit;
		if ($when eq 'at once')
		{
			stands($node, 'impact-counts');
			$take->($by);
			release($node);
		}
		finish_background($session);
		if ($when eq 'never')
		{
			cmp_ok($counted->($id), '>', $before, 'it counts');
			value($node, "SELECT impact_window($id, 1, NULL)");
		}
		else
		{
			is($counted->($by), $when eq 'at once' ? 1 : 0, "it does so for another migration that has taken the entry: $when");
			value($node, "SELECT impact_window(100000 * $by + i, 1, NULL) FROM generate_series(2, $entries) i");
			value($node, "SELECT impact_window($by, 1, NULL)");
		}
		$over->();
	}
	value($node, 'DROP FUNCTION impact_window(bigint, integer, boolean)');
}

# catalog/jobs.c, bbm_job_ids_catch_up: another process takes a number while the sequence is set.
{
	my $id = subject('numbered', on_error => "'split'", max_attempts => 1, job => 'UPDATE numbered SET n = n + 1 / (id - 7) WHERE id BETWEEN $1 AND $2');
	my $other = subject('takes_numbers');
	start('numbered');
	finished($node, 'numbered');
	value($node, q(SELECT setval(pg_get_serial_sequence('batched_background_migration_jobs', 'id'), 1)));
	arm($node, 'ids-read');
	my $retry = background($node, 'postgres', q(SELECT bbm_retry('numbered')));
	stands($node, 'ids-read');
	my $second = second('takes_numbers');
	waits_for_lock('second', 'a job that is created while the sequence is set waits for that');
	release($node);
	finish_background($retry);
	finish_background($second);
	finished($node, $_) for 'numbered', 'takes_numbers';
	once_each($node, 'takes_numbers', 20);
	value($node, q(SELECT bbm_drop('numbered')));
}

# server/stalled.c: a migration is dropped, or started, between the check and its report.
{
	subject($_) for 'forgotten', 'remembered';
	value($node, <<'EOS');
SET session_replication_role = replica;
UPDATE batched_background_migrations SET created_at = '2020-01-01', updated_at = '2020-01-01' WHERE name IN ('forgotten', 'remembered');
EOS
	arm($node, 'stalled-found');
	value($node, "ALTER SYSTEM SET $_") for q(bbm.stale_pause_after = '1h'), q(bbm.naptime = '1s');
	value($node, 'SELECT pg_reload_conf()');
	stands($node, 'stalled-found');
	my $offset = log_size($node);
	value($node, q(SELECT bbm_drop('forgotten')));
	start('remembered');
	finished($node, 'remembered', 'what a report is about goes on');
	is(value($node, q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bbm discovery')), 1, '... while one process reports');
	release($node);
	$node->wait_for_log(qr/migration "$_" is paused, and nothing has happened to it since/, $offset) for 'forgotten', 'remembered';
	is(value($node, q(SELECT string_agg(name || ' ' || status, ', ' ORDER BY name) FROM bbm_events WHERE event = 'stalled')), 'forgotten paused, remembered paused',
		'... and is reported as it was at the check, and once');
	once_each($node, 'remembered', 20);
	value($node, "ALTER SYSTEM RESET $_") for 'bbm.stale_pause_after', 'bbm.naptime';
	value($node, 'SELECT pg_reload_conf()');
	workers_gone($node);
}

# base/slots.c: the launcher ends with a slot reserved, of which there is only this one.
{
	subject('reserved');
	arm($node, 'launch-reserved');
	start('reserved');
	my ($launcher) = stands($node, 'launch-reserved');
	value($node, "SELECT pg_terminate_backend($launcher)");
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bbm launcher' AND pid <> $launcher");
	release($node);
	finished($node, 'reserved', 'the slot that a launcher had reserved is free when it has ended');
	once_each($node, 'reserved', 20);
	no_workers($node);
}

# sql/control.c, wait_for_batches: a cancel comes between a claim and its batch, which it cannot hit.
{
	my $holder = $node->background_psql('postgres');
	$holder->query_safe('SELECT pg_advisory_lock(8)');
	value($node, <<'EOS');
CREATE FUNCTION waits_for_it(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql SET lock_timeout = 0 AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(8);
	UPDATE public.cancel_missed SET n = n + 1 WHERE id BETWEEN lo AND hi;
END $$;
EOS
	my $id = subject('cancel_missed', job => 'waits_for_it');
	arm($node, 'claim-committed', migration => $id);
	start('cancel_missed');
	stands($node, 'claim-committed');
	my $pause = background($node, 'postgres', q(SET application_name = 'pause'), q(SELECT bbm_pause('cancel_missed', cancel => true, wait => true)));
	$node->poll_query_until('postgres',
		q(SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pause' AND wait_event = 'Extension')));
	release($node);
	my ($out, $err) = finish_background($pause);
	is("$out$err", 1, 'a cancel that comes before its batch is sent again');
	is(value($node, "SELECT count(*) FROM @{[jobs_of('cancel_missed')]} j WHERE status = 4"), 0, '... and no batch is in flight');
	$holder->quit;
	start('cancel_missed');
	finished($node, 'cancel_missed');
	once_each($node, 'cancel_missed', 20);
}

# server/launcher.c, server/ddl.c: a database is dropped at each point of a launch for it.
for my $point (qw(launch-reserved launch-registered launch-attach launch-connected))
{
	value($node, 'CREATE DATABASE going');
	value($node, <<'EOS', 'going');
CREATE EXTENSION bbm;
CREATE TABLE t (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
SELECT bbm_create('m', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2');
EOS
	arm($node, $point);
	value($node, q(SELECT bbm_start('m')), 'going');
	stands($node, $point);
	my $drop = background($node, 'postgres', 'DROP DATABASE going');
	$node->poll_query_until('postgres',
		q(SELECT count(*) = 0 FROM pg_database WHERE datname = 'going' UNION ALL SELECT true FROM pg_stat_activity WHERE query LIKE 'DROP DATABASE%' AND wait_event IS NOT NULL AND pid <> pg_backend_pid() LIMIT 1));
	release($node);
	my (undef, $err) = finish_background($drop);
	is($err, '', "$point: the database is dropped");
	no_workers($node);
}

# catalog/extension.c: the extension is dropped while a process works, and created anew.
for my $point (qw(claim-committed batch-committed batch-aborted end-begin end-committed launch-connected))
{
	my $name = 'ext_' . $point =~ s/-/_/r;
	my $fails = $point eq 'batch-aborted' ? ' / (id - 3)' : '';
	my $id = subject($name, job => "UPDATE $name SET n = n + 1$fails WHERE id BETWEEN \$1 AND \$2");
	my $offset = log_size($node);
	arm($node, $point, migration => $point =~ /^launch/ ? 0 : $id);
	start($name);
	stands($node, $point);
	my $drop = background($node, 'postgres', q(SET application_name = 'drop'), 'DROP EXTENSION bbm CASCADE');
	$node->poll_query_until('postgres',
		q(SELECT NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'bbm') OR EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'drop' AND state = 'active' AND wait_event IS NOT NULL)));
	release($node);
	my (undef, $err) = finish_background($drop);
	unlike($err, qr/ERROR/, "$point: the extension is dropped");
	no_workers($node);
	my @errors = grep { /\[bbm worker\] .*(?:ERROR|FATAL|PANIC):/ && !/due to administrator command/ } split /\n/, log_since($node, $offset);
	is("@errors", '', '... and its worker exits without an error');
	value($node, 'CREATE EXTENSION bbm');
}

log_clean($node);
done_testing();
