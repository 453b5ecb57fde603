# Crashes: of a worker, of the server, of the postmaster; and orderly restarts.  Each
# row is done once, and the migration goes on by itself.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

# no poll of the launcher's may help but the one at the start
my $node = bbm_node('crash', conf => "bbm.naptime = 0\n");

# Something is going to happen in the middle of two batches; after it everything
# must come out right with nobody's help.
sub survives
{
	my ($name, $what, $happen, $again) = @_;

	counter_table($node, $name, 500);
	gate($node, 'shut');
	define($node, $name, $name, job => 'gated', batch_size => 100, workers => 2);
	value($node, "SELECT bbm_start('$name')");
	reach_gate($node, 2);
	$happen->();
	ok($node->poll_query_until('postgres', in_flight(), 2), "$what: two workers come back by themselves");
	is(value($node, "SELECT count(*) FROM $name WHERE n <> 0"), 0, 'what was in flight is rolled back');
	is(value($node, "SELECT count(*) FROM bbm_jobs('$name') WHERE status = 'running'"), 2, 'and done again');
	gate($node, 'open');
	finished($node, $name, 'the migration finishes');
	once_each($node, $name, 500);
	ranges_ok($node, $name, $name);
	cmp_ok(value($node, "SELECT max(attempts) FROM bbm_jobs('$name')"), '<=', 2, 'no job needed more than two attempts');
	return;
}

# The next statement may still meet the old server.
sub wait_for_restart
{
	return restarted($node, @_);
}

sub now
{
	return value($node, 'SELECT clock_timestamp()');
}

survives('worker_killed', 'SIGKILL of a worker', sub {
	my $since = now();
	kill KILL => worker_pid($node);
	wait_for_restart($since);
});

survives('launcher_killed', 'SIGKILL of the launcher', sub {
	my $since = now();
	kill KILL => launcher_pid($node);
	wait_for_restart($since);
});

survives('backend_killed', 'SIGKILL of somebody else', sub {
	my $since = now();
	my $other = background($node, 'postgres', 'SELECT pg_sleep(1000)');
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'");
	kill KILL => value($node, "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'");
	wait_for_restart($since);
	finish_background($other);
});

survives('immediate', 'immediate stop', sub { $node->stop('immediate'); $node->start });

survives('postmaster_killed', 'SIGKILL of the postmaster', sub {
	$node->kill9;
	start_anyway($node);
});

survives('fast', 'fast restart', sub { $node->restart });

# stop waits for a minute at most, and fails when something of bbm's delays it
survives('smart', 'smart stop', sub { $node->stop('smart'); $node->start });

# The batch and its record are one transaction.  A trigger on the table of jobs stops
# it at the moment when the batch is done and its record is being written.
gate($node, 'open');
value($node, <<'EOS');
CREATE TABLE record_gate (open boolean);
INSERT INTO record_gate VALUES (false);
CREATE FUNCTION stop_in_record() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	WHILE EXISTS (SELECT FROM public.record_gate WHERE NOT open) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN NULL;
END $$;
CREATE TRIGGER stop_in_record AFTER UPDATE OF status ON batched_background_migration_jobs
	FOR EACH ROW WHEN (NEW.status = 2) EXECUTE FUNCTION stop_in_record();
EOS
counter_table($node, 'record', 300);
define($node, 'record', 'record', batch_size => 100);
value($node, "SELECT bbm_start('record')");
for my $how ('worker', 'server')
{
	reach_gate($node);
	is( value(
			$node,
			"SELECT count(*) FILTER (WHERE n > 0), (SELECT count(*) FROM bbm_jobs('record') WHERE status = 'finished') FROM record"),
		'0|0',
		"while a record is being written, the batch is not to be seen ($how)");
	my $since = now();
	if ($how eq 'worker')
	{
		kill KILL => worker_pid($node);
		wait_for_restart($since);
	}
	else
	{
		$node->stop('immediate'); $node->start;
	}
	is(value($node, 'SELECT count(*) FROM record WHERE n > 0'), 0, 'killed there, there is neither');
}
reach_gate($node);
value($node, 'UPDATE record_gate SET open = true');
finished($node, 'record');
once_each($node, 'record', 300);
ranges_ok($node, 'record', 'record');
value($node, 'DROP TRIGGER stop_in_record ON batched_background_migration_jobs');

# A batch that takes the server down with it, each time: it has its attempts like any
# other, the other batches are done before them, and then the migration fails.
counter_table($node, 'poison', 500);
value($node, <<'EOS');
CREATE FUNCTION poisoned(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE public.poison SET n = n + 1 WHERE id BETWEEN lo AND hi;
	IF 150 BETWEEN lo AND hi THEN
		COPY (SELECT) TO PROGRAM 'kill -9 $PPID';
	END IF;
END $$;
EOS
value($node, q(SELECT bbm_create('poison', 'poison', 'poisoned', batch_size => 100, max_attempts => 3)));
my $crashes = log_size($node);
value($node, q(SELECT bbm_start('poison')));
ok(poll_restarting($node, q(SELECT status FROM bbm_status('poison')), 'failed'), 'a batch that crashes the server ends by failing');
is(value($node, q(SELECT failure_error_code FROM batched_background_migrations WHERE name = 'poison')), 4, 'for want of attempts');
my @crashes = log_since($node, $crashes) =~ /terminated by signal 9/g;
# the first may be forgotten with the commits that nobody had flushed
cmp_ok(scalar @crashes, '<=', 4, 'after three crashes');
is( value($node, 'SELECT count(*) FILTER (WHERE n = 1), count(*) FILTER (WHERE n = 0), min(id) FILTER (WHERE n = 0), max(id) FILTER (WHERE n = 0) FROM poison'),
	'400|100|101|200',
	'with everything else done');
like(value($node, q(SELECT last_error FROM bbm_status_detail('poison'))), qr/gone/, 'and says why');
value($node, q(CREATE OR REPLACE FUNCTION poisoned(lo bigint, hi bigint) RETURNS void LANGUAGE sql AS
	'UPDATE public.poison SET n = n + 1 WHERE id BETWEEN lo AND hi'));
value($node, q(SELECT bbm_start('poison')));
finished($node, 'poison', 'corrected and started, it finishes');
once_each($node, 'poison', 500);

# At random moments of tiny batches, with commits that nobody has flushed.
# Three workers do not come to the end of it within these crashes, which are some seconds apart.
counter_table($node, 'tiny', 150000);
value($node, <<'EOS');
CREATE FUNCTION tiny_step(lo bigint, hi bigint) RETURNS void LANGUAGE sql AS
	'UPDATE public.tiny SET n = n + 1 WHERE id BETWEEN lo AND hi; SELECT pg_sleep(0.002)';
EOS
value($node, "SELECT bbm_create('tiny', 'tiny', 'tiny_step', batch_size => 1, workers => 3, max_attempts => 100)");
value($node, "SELECT bbm_start('tiny')");
my $jobs = 0;
for my $round (1 .. 4)
{
	$node->poll_query_until('postgres', "SELECT jobs_finished > $jobs OR status = 'finished' FROM bbm_status_detail('tiny')");
	if ($round % 2)
	{
		my $since = now();
		my $pid = value($node, "SELECT pid FROM bbm_workers() WHERE kind = 'worker' LIMIT 1");
		kill KILL => $pid if $pid;
		wait_for_restart($since);
	}
	else
	{
		$node->kill9;
		start_anyway($node);
	}
	$jobs = value($node, "SELECT jobs_finished FROM bbm_status_detail('tiny')");
	my ($rows, $recorded) = split /\|/,
	  value($node, "SELECT (SELECT count(*) FROM tiny WHERE n > 0), count(*) FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name = 'tiny' AND j.status = 2");
	is($rows, $recorded, "crash $round: rows done are rows recorded, in one snapshot");
}
is(value($node, "SELECT status FROM bbm_status('tiny')"), 'running', 'they came in the middle of the work');
value($node, "UPDATE batched_background_migrations SET batch_size = 1000 WHERE name = 'tiny'");
finished($node, 'tiny');
once_each($node, 'tiny', 150000);
ranges_ok($node, 'tiny', 'tiny');

no_workers($node);
log_clean($node);
done_testing();
