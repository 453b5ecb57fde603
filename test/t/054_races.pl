# Races that are known, each forced: what the comment on a transaction says another process or session
# may do between two statements, at the moment when it would hurt most.  doc/proof.md has the list.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmPoints;
use BbmRaces;
use BbmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# one worker: the second process is a session, which a test begins when it wants
my $node = points_node('races', streaming => 1, conf => POINTS_CONF . "bbm.max_workers = 1\nwal_writer_delay = 10s\nwal_keep_size = 256MB\n");

# Done once each, and what the jobs have counted is what was done.
sub all_done
{
	my ($name, $rows, $what) = @_;
	finished($node, $name, "$what: it finishes");
	once_each($node, $name, $rows, "$what: each row is done once");
	is(value($node, "SELECT sum(row_count) FROM @{[jobs_of($name)]} j"), $rows, "$what: and counted once");
	return;
}

# engine/claim.c: while a claim reads, a worker finishes its job.
{
	my $id = subject($node, 'finish_in_claim', workers => 2);
	arm($node, 'batch-done', migration => $id);
	start_migration($node, 'finish_in_claim');
	stands($node, 'batch-done');
	arm($node, 'claim-permitted', migration => $id);
	my $second = background($node, 'postgres', q(CALL bbm_run('finish_in_claim')));
	stands($node, 'claim-permitted');
	release($node, 'batch-done');
	# the first goes on up to its next claim, which waits for the second's
	$node->poll_query_until('postgres', "SELECT count(*) >= 1 FROM @{[jobs_of('finish_in_claim')]} j WHERE status = 2");
	release($node);
	finish_background($second);
	all_done('finish_in_claim', 20, 'a job ends while another process claims');
}

# ... or dies: the claim sees its job as running for a moment longer, and a later one takes it over.
{
	my $id = subject($node, 'death_in_claim', workers => 2);
	arm($node, 'batch-done', migration => $id);
	start_migration($node, 'death_in_claim');
	my ($pid) = stands($node, 'batch-done');
	arm($node, 'claim-permitted', migration => $id);
	my $second = background($node, 'postgres', q(CALL bbm_run('death_in_claim')));
	stands($node, 'claim-permitted');
	value($node, "SELECT pg_terminate_backend($pid)");
	$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
	release($node);
	finish_background($second);
	all_done('death_in_claim', 20, 'a worker dies while another process claims');
}

# engine/breaker.c, pause_it: between the count of failed jobs and the row's lock the limit is raised, or the user pauses.
for my $raised (1, 0)
{
	my $name = $raised ? 'limit_raised' : 'paused_first';
	value($node, "CREATE TABLE $name (id bigint PRIMARY KEY, d integer NOT NULL, n integer); INSERT INTO $name SELECT i, (i < 26)::integer FROM generate_series(1, 30) i");
	my $id = value($node, "SELECT bbm_create('$name', '$name', 'UPDATE $name SET n = 1 / d WHERE id BETWEEN \$1 AND \$2', "
		  . "batch_size => 1, max_attempts => 1, on_error => 'skip', max_errors => 1000, max_failed_share => 0)");
	arm($node, 'breaker-begin', migration => $id);
	start_migration($node, $name);
	stands($node, 'breaker-begin');
	value($node, $raised ? "SELECT bbm_alter('$name', max_failed_share => 1)" : "SELECT bbm_pause('$name')");
	release($node);
	if ($raised)
	{
		$node->poll_query_until('postgres', "SELECT status NOT IN ('active', 'running') FROM bbm_status('$name')");
		is(value($node, "SELECT status FROM bbm_status('$name')"), 'finished', 'max_failed_share is raised between the count and the lock: it goes on');
		is(value($node, "SELECT count(*) FROM bbm_events WHERE name = '$name' AND event = 'paused'"), 0, '... and was not paused');
	}
	else
	{
		no_workers($node, "$name: its worker exits");
		is(value($node, "SELECT status || '|' || (error_message IS NULL) FROM batched_background_migrations WHERE name = '$name'"), '0|true', '... and the pause stays the user\'s');
	}
}

# ... nobody does: it is paused, at the first of the jobs that fail.
{
	value($node, 'CREATE TABLE tripped (id bigint PRIMARY KEY, d integer NOT NULL, n integer); INSERT INTO tripped SELECT i, (i < 26)::integer FROM generate_series(1, 30) i');
	my $id = value($node, q{SELECT bbm_create('tripped', 'tripped', 'UPDATE tripped SET n = 1 / d WHERE id BETWEEN $1 AND $2', }
		  . q{batch_size => 1, max_attempts => 1, on_error => 'skip', max_errors => 1000, max_failed_share => 0)});
	arm($node, 'breaker-begin', migration => $id);
	start_migration($node, 'tripped');
	stands($node, 'breaker-begin');
	release($node);
	ok(status_is($node, 'tripped', 'paused'), 'nothing happens between the count and the lock: it is paused');
	value($node, q(SELECT bbm_drop('tripped'); SELECT bbm_drop('paused_first')));
}

# engine/step.c, set_running: the migration is paused, or dropped, between being read and being started.
{
	my $id = subject($node, 'pause_at_start');
	arm($node, 'start-begin', migration => $id);
	start_migration($node, 'pause_at_start');
	stands($node, 'start-begin');
	value($node, q(SELECT bbm_pause('pause_at_start')));
	release($node);
	no_workers($node, 'a pause before the start: the worker finds nothing to do');
	is(value($node, q(SELECT status, started_at IS NULL FROM batched_background_migrations WHERE name = 'pause_at_start')), '0|t', '... and has not started it');
	start_migration($node, 'pause_at_start');
	all_done('pause_at_start', 20, 'a pause before the start');
}

# server/worker.c: a request that comes after the last poll of a worker that exits is for the next one.
{
	my $id = subject($node, 'late_request');
	subject($node, 'before_it');
	arm($node, 'exit-idle');
	start_migration($node, 'before_it');
	stands($node, 'exit-idle');
	start_migration($node, 'late_request');
	release($node);
	all_done('late_request', 20, 'a request while the last worker exits');
}

# server/launcher.c: the request is withdrawn while its worker starts; and the migration's table is gone.
for my $point ('launch-registered', 'launch-attach', 'launch-connected')
{
	my $name = 'withdrawn_' . $point =~ s/-/_/r;
	subject($node, $name);
	arm($node, $point);
	start_migration($node, $name);
	stands($node, $point);
	value($node, "SELECT bbm_drop('$name')");
	value($node, "DROP TABLE $name");
	release($node);
	no_workers($node, "$point: a worker whose migration is gone exits");
}

# base/slots.c: the slot of a worker that is slow to start is not another's: the launcher dies meanwhile.
{
	my $id = subject($node, 'launcher_dies');
	arm($node, 'launch-attach');
	start_migration($node, 'launcher_dies');
	stands($node, 'launch-attach');
	my $launcher = launcher_pid($node);
	value($node, "SELECT pg_terminate_backend($launcher)");
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bbm launcher' AND pid <> $launcher");
	release($node);
	all_done('launcher_dies', 20, 'the launcher dies while a worker starts');
	no_workers($node);
}

# engine/batch.c, still_running: a job that was claimed along, or has a cursor, meets a pause before its next commit.
for my $options ([ 'after_sub_batch', sub_batch_size => 2 ], [ 'claimed_along' ])
{
	my ($name, @o) = @$options;
	my $id = subject($node, $name, @o);
	if ($name eq 'claimed_along')
	{
		claims_along($node, $id);
		arm($node, 'pause-due', migration => $id);
	}
	arm($node, 'batch-begin', migration => $id, passes => 1);
	start_migration($node, $name);
	stands($node, 'batch-begin');
	value($node, "SELECT bbm_pause('$name')");
	my $done = value($node, "SELECT count(*) FROM $name WHERE n > 0");
	arm($node, 'release-begin', migration => $id) if $name eq 'claimed_along';
	release($node, 'batch-begin');
	if ($name eq 'claimed_along')
	{
		$node->poll_query_until('postgres',
			"SELECT cardinality(point.standing('release-begin')) = 1 OR NOT EXISTS (SELECT FROM @{[jobs_of($name)]} j WHERE status = 4)");
		is(value($node, "SELECT count(*) FROM $name WHERE n > 0"), $done, "$name: nothing is done after the pause");
		# it was never begun; whoever takes it meanwhile must not lose it
		start_migration($node, $name);
		my $second = background($node, 'postgres', "CALL bbm_run('$name')");
		release($node);
		finish_background($second);
	}
	else
	{
		no_workers($node, "$name: a paused migration's worker exits");
		is(value($node, "SELECT count(*) FROM $name WHERE n > 0"), $done, "$name: nothing is done after the pause");
		start_migration($node, $name);
	}
	all_done($name, 20, "$name: a pause between two commits");
}

# engine/batch.c: another process looks for jobs that are left over, when one that has released all advisory locks has committed:
# what is left of it, or the job that was claimed along, is not left over.
for my $options ([ 'lets_go_along' ], [ 'lets_go_in_parts', sub_batch_size => 2 ])
{
	my ($name, @o) = @$options;
	value($node, <<"EOS");
CREATE FUNCTION $name(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pg_advisory_unlock_all();
	UPDATE public.$name SET n = n + 1 WHERE id BETWEEN lo AND hi;
END \$\$;
EOS
	my $id = subject($node, $name, job => $name, workers => 2, max_attempts => 1, @o);
	claims_along($node, $id);
	arm($node, 'batch-committed', migration => $id);
	start_migration($node, $name);
	stands($node, 'batch-committed');
	my $claim = "SELECT id || ' ' || claim_epoch FROM @{[jobs_of($name)]} j WHERE status = 4 AND worker_pid IN (SELECT pid FROM pg_stat_activity WHERE backend_type = 'bbm worker')";
	my $before = value($node, $claim);
	like($before, qr/^\d+ 1$/, "$name: a job is between two commits, or was claimed along");
	my $second = second($node, $name);
	# it has nothing else to do any more
	$node->poll_query_until('postgres', "SELECT count(*) = 4 AND count(*) FILTER (WHERE status = 4) <= 1 FROM @{[jobs_of($name)]} j");
	is(value($node, $claim), $before, '... and another process does not take it over');
	release($node);
	my (undef, $err) = finish_background($second);
	unlike($err, qr/ERROR/, '... nor fails the migration');
	all_done($name, 20, $name);
}

# ... or for a permit: with one worker, there is none for another process between two commits.
{
	value($node, <<'EOS');
CREATE FUNCTION lets_go_alone(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_unlock_all();
	UPDATE public.lets_go_alone SET n = n + 1 WHERE id BETWEEN lo AND hi;
END $$;
EOS
	my $id = subject($node, 'lets_go_alone', job => 'lets_go_alone', sub_batch_size => 2);
	arm($node, 'batch-begin', migration => $id, passes => 1);
	start_migration($node, 'lets_go_alone');
	stands($node, 'batch-begin');
	my $second = second($node, 'lets_go_alone');
	# it has found nothing that it may do, or has done something
	$node->poll_query_until('postgres', q(SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'second' AND wait_event_type = 'Extension'));
	is(value($node, "SELECT count(*) FROM @{[jobs_of('lets_go_alone')]} j"), 1, 'a job that has released all advisory locks, and is between two commits, has a permit that no other process gets');
	release($node);
	finish_background($second);
	all_done('lets_go_alone', 20, 'lets_go_alone');
}

# engine/batch.c, is_current: the table is another one, or has another key column type, since the claim.
{
	my $id = subject($node, 'rewritten');
	arm($node, 'claim-committed', migration => $id);
	start_migration($node, 'rewritten');
	stands($node, 'claim-committed');
	value($node, 'BEGIN; ALTER TABLE rewritten RENAME TO rewritten_old; CREATE TABLE rewritten (LIKE rewritten_old INCLUDING ALL); '
		  . 'INSERT INTO rewritten SELECT * FROM rewritten_old; COMMIT');
	release($node);
	$node->poll_query_until('postgres', q(SELECT status IN ('finished', 'failed') FROM bbm_status('rewritten')));
	is(value($node, 'SELECT sum(n) FROM rewritten_old'), 0, 'a table that is another one since the claim: the old one is left alone');
	is(value($node, q(SELECT (SELECT status FROM bbm_status('rewritten')) || ' ' || (SELECT count(*) FROM rewritten WHERE n > 1))) =~ /^(?:finished|failed) 0$/, 1, '... and no row is done twice');
}

# ... or has a child table, whose rows the range of the table alone must not take along.
{
	my $id = value($node, <<'EOS');
CREATE TABLE parent (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO parent SELECT generate_series(1, 20);
SELECT bbm_update('parent', 'parent', 'n = n + 1', batch_size => 5);
EOS
	arm($node, 'claim-committed', migration => $id);
	start_migration($node, 'parent');
	stands($node, 'claim-committed');
	value($node, 'CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent); INSERT INTO child SELECT generate_series(1, 20)');
	release($node);
	finished($node, 'parent', 'a table that has got a child table since the claim: it finishes');
	once_each($node, 'parent', 40, '... and each row of both is done once');
}

# catalog/merge.c: a job that was open when the sums were taken ends before the merge, which leaves it alone.
{
	my $id = subject($node, 'open_job', rows => 900, batch_size => 1, workers => 2);
	arm($node, 'batch-done', migration => $id);
	start_migration($node, 'open_job');
	stands($node, 'batch-done');
	# when there are jobs enough
	arm($node, 'merge-due', migration => $id, passes => 400);
	arm($node, 'merge-summed', migration => $id);
	my $second = background($node, 'postgres', q(CALL bbm_run('open_job')));
	stands($node, 'merge-summed');
	my $open = value($node, "SELECT min(id) FROM @{[jobs_of('open_job')]} j WHERE status = 4");
	# nobody else is to merge anything
	arm($node, 'claim-begin', migration => $id, stops => 4);
	release($node, 'batch-done');
	ok($node->poll_query_until('postgres', "SELECT status = 2 FROM batched_background_migration_jobs WHERE id = $open"),
		'a job ends between the sums and the merge');
	arm($node, 'merge-committed', migration => $id);
	release($node, 'merge-summed');
	stands($node, 'merge-committed');
	is(value($node, "SELECT merged_jobs FROM batched_background_migration_jobs WHERE id = $open"), 1, '... and is not merged');
	cmp_ok(value($node, "SELECT max(merged_jobs) FROM @{[jobs_of('open_job')]} j"), '>', 1, '... but others are');
	release($node);
	finish_background($second);
	all_done('open_job', 900, 'a job that ends during a merge');
	is(value($node, q(SELECT rows_done FROM bbm_status_detail('open_job'))), 900, '... and the sums have it');
}

# catalog/merge.c and totals.c: a job is deleted between the sums and the merge.
{
	my $id = subject($node, 'merging', rows => 900, batch_size => 1);
	arm($node, 'merge-due', migration => $id, passes => 400);
	arm($node, 'merge-summed', migration => $id);
	start_migration($node, 'merging');
	stands($node, 'merge-summed');
	my $deleted = value($node, <<"EOS");
SET session_replication_role = replica;
DELETE FROM batched_background_migration_jobs WHERE id = (SELECT id FROM @{[jobs_of('merging')]} j WHERE status = 2 ORDER BY id LIMIT 1) RETURNING row_count;
EOS
	release($node);
	finished($node, 'merging');
	once_each($node, 'merging', 900, 'a merge with a job that was deleted since the sums');
	is(value($node, "SELECT sum(row_count) FROM @{[jobs_of('merging')]} j"), 900 - $deleted, '... no other job is lost or counted twice');
	cmp_ok(value($node, "SELECT count(*) FROM @{[jobs_of('merging')]} j"), '<', 899, '... and jobs were merged');
}

# base/txn.c: a commit that was not flushed is lost with its batch.  No other process flushes for ten seconds.
{
	my $id = subject($node, 'unflushed');
	arm($node, 'batch-committed', migration => $id, passes => 1);
	start_migration($node, 'unflushed');
	stands($node, 'batch-committed');
	my $before = value($node, 'SELECT count(*) FROM unflushed WHERE n > 0');
	$node->stop('immediate');
	$node->start;
	all_done('unflushed', 20, "a crash after a commit that was not flushed ($before rows)");
}

# engine/step.c, finish: who has seen a migration finished sees it so after a crash, with all its rows.
{
	my $id = subject($node, 'flushed');
	arm($node, 'end-committed', migration => $id);
	start_migration($node, 'flushed');
	stands($node, 'end-committed');
	is(value($node, q(SELECT status FROM bbm_status('flushed'))), 'finished', 'a migration is seen finished');
	$node->stop('immediate');
	$node->start;
	is(value($node, q(SELECT status FROM bbm_status('flushed'))), 'finished', '... and is, after a crash');
	once_each($node, 'flushed', 20);
}

# A promotion: its launcher, its discovery and its first worker die, or the server does.
{
	$node->backup('base');
	my $id = subject($node, 'promoted', rows => 60);
	arm($node, 'batch-done', migration => $id, passes => 3);
	my $standby = PostgreSQL::Test::Cluster->new('promoted', install_path => $node->{_install_path});
	$standby->init_from_backup($node, 'base', has_streaming => 1);
	$standby->start;
	start_migration($node, 'promoted');
	stands($node, 'batch-done');
	value($node, 'CREATE TABLE flushed_too ()');
	$node->wait_for_catchup($standby);
	$node->stop('immediate');
	my $old = $node;
	$node = $standby;
	arm($node, 'launcher-begin');
	$node->promote;
	my ($launcher) = stands($node, 'launcher-begin');
	for my $point ('discovery-reserved', 'discovery-attach', 'discovery-connected', 'launch-attach')
	{
		arm($node, $point);
		release($node, 'launcher-begin');
		my ($pid) = stands($node, $point);
		my $since = value($node, 'SELECT clock_timestamp()');
		kill KILL => $pid;
		restarted($node, $since);
		# the next one comes there after a restart of the server, with its points forgotten
		last if value($node, q(SELECT status FROM bbm_status('promoted'))) eq 'finished';
		arm($node, 'launcher-begin');
		value($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'bbm launcher'");
		stands($node, 'launcher-begin');
	}
	release($node);
	all_done('promoted', 60, 'a promotion whose processes die as they come');
	$old->clean_node;
}
log_clean($node);
done_testing();
