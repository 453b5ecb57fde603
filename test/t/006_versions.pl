# A library that is newer or older than the SQL; and no preloading.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('versions', conf => "bbm.naptime = 1s\n");

sub version
{
	my ($version) = @_;
	value($node, "UPDATE pg_extension SET extversion = '$version' WHERE extname = 'bbm'");
	return;
}

my $version = value($node, q(SELECT extversion FROM pg_extension WHERE extname = 'bbm'));

for my $other ('0.9', '99.0')
{
	my $name = "t_" . int($other);

	# In the middle of batches that would go on for half a minute.
	counter_table($node, $name, 500);
	value($node, <<"EOS");
CREATE FUNCTION slow_$name(lo bigint, hi bigint) RETURNS void LANGUAGE sql AS
	'UPDATE public.$name SET n = n + 1 WHERE id BETWEEN lo AND hi; SELECT pg_sleep(0.5)';
SELECT bbm_create('$name', '$name', 'slow_$name', batch_size => 5, workers => 2, start => true);
EOS
	reach_gate($node, 2);
	my $offset = log_size($node);
	version($other);
	no_workers($node, "SQL of version $other: the workers exit");
	my $log = log_since($node, $offset);
	like($log, qr/LOG:.*version $other.*$version/, 'and say why');
	unlike($log, qr/\[bbm (worker|discovery|launcher)\].*(ERROR|FATAL|PANIC)/, 'without an error');
	my $done = value($node, "SELECT count(*) FROM $name WHERE n = 1");
	cmp_ok($done, '<', 500, 'before the work was done');
	is(value($node, "SELECT count(*) FROM $name WHERE n > 1"), 0, 'and with nothing done twice');

	# Every function that writes says so, and what to do about it.
	for my $sql (
		"SELECT bbm_start('$name')", "SELECT bbm_pause('$name')",
		"SELECT bbm_create('x', '$name', 'SELECT \$1, \$2')", "SELECT bbm_alter('$name', workers => 3)",
		"SELECT bbm_cancel('$name')", "SELECT bbm_retry('$name')", "SELECT bbm_drop('$name')",
		"SELECT bbm_wait('$name', '1 s')", "SELECT bbm_ensure_finished('$name')",
		"CALL bbm_run('$name')", "SELECT bbm_launch_worker()",
		"UPDATE batched_background_migrations SET status = 0 WHERE name = '$name'",
		"DELETE FROM batched_background_migrations WHERE name = '$name'")
	{
		my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");
		like($err, qr/ERROR:  55000: extension "bbm" has version $other, but the library is $version\n.*HINT:.*ALTER EXTENSION bbm UPDATE/s,
			"$sql is refused");
	}
	my ($rc, $out, $err) = $node->psql('postgres', 'SELECT name, status FROM bbm_status()');
	ok($rc == 0 || $err =~ /HINT:.*ALTER EXTENSION/, 'bbm_status answers, or says why not');

	version($version);
	value($node, "UPDATE batched_background_migrations SET batch_size = 500 WHERE name = '$name'");
	finished($node, $name, 'with the right version it goes on by itself');
	once_each($node, $name, 500);
	ranges_ok($node, $name, $name);
}
no_workers($node);
log_clean($node);
$node->stop;

# Not preloaded: nothing runs by itself, and that is said; but everything can be run.
$node = bbm_node('bare', preload => 0);
gate_table();
is(value($node, q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'bbm%')), 0, 'not preloaded: no process of ours');
define($node, 'run', 't', batch_size => 50, start => 'true');
like(value($node, q(SELECT waiting_on FROM bbm_status_detail('run'))), qr/preload/, 'bbm_status says what is missing');

sub gate_table
{
	counter_table($node, 't', 500);
	gate($node, 'open');
	return;
}

my ($rc, $out, $err) = $node->psql('postgres', q(CALL bbm_run('run')));
is($rc, 0, 'bbm_run works') or diag($err);
like($err, qr/NOTICE:.*run.*finished/, 'and says when it is done');
finished($node, 'run');
once_each($node, 't', 500);
ranges_ok($node, 'run', 't');

# Several sessions on one migration, one killed on the way.
value($node, 'UPDATE t SET n = 0');
gate($node, 'shut');
define($node, 'shared', 't', job => 'gated', batch_size => 10, workers => 3);
my @runs = map { background($node, 'postgres', "SET application_name = 'run$_'", q(CALL bbm_run('shared'))) } 1 .. 3;
my $sleeping = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'run%' AND wait_event = 'PgSleep'";
ok($node->poll_query_until('postgres', $sleeping, 3), 'three sessions run one migration');
my $gone = value($node, q(SELECT pid FROM pg_stat_activity WHERE application_name = 'run1'));
value($node, "SELECT pg_terminate_backend($gone)");
gate($node, 'open');
finish_background($_) for @runs;
is($runs[$_]{err} =~ /ERROR|FATAL/ ? 1 : 0, 0, 'session ' . ($_ + 1) . ' is content') for (1, 2);
finished($node, 'shared');
once_each($node, 't', 500);
ranges_ok($node, 'shared', 't');

# Cancelled in the middle: the batch is requeued, and another run ends it.
value($node, 'UPDATE t SET n = 0');
gate($node, 'shut');
define($node, 'cancelled', 't', job => 'gated', batch_size => 100);
my $run = background($node, 'postgres', q(SET application_name = 'run'), q(CALL bbm_run('cancelled')));
$node->poll_query_until('postgres', $sleeping, 1);
value($node, q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'run'));
like((finish_background($run))[1], qr/ERROR:.*cancel/, 'bbm_run can be cancelled');
is(value($node, q(SELECT count(*) FROM t WHERE n <> 0)), 0, 'the batch is rolled back');
is(value($node, q(SELECT status, attempts FROM bbm_jobs('cancelled'))), 'new|0', 'and requeued');
gate($node, 'open');
value($node, q(CALL bbm_run()));
finished($node, 'cancelled', 'bbm_run() runs all there is');
once_each($node, 't', 500);

# A background worker on request.
value($node, 'UPDATE t SET n = 0');
gate($node, 'shut');
define($node, 'launched', 't', job => 'gated', batch_size => 100, start => 'true');
my $worker = value($node, q(SELECT bbm_launch_worker('1 hour')));
reach_gate($node);
is(worker_pid($node), $worker, 'bbm_launch_worker works');
is(value($node, q(SELECT pid, migration FROM bbm_workers())), "$worker|launched", 'and is to be seen');
is(value($node, q(SELECT waiting_on IS NULL FROM bbm_status_detail('launched'))), 't', 'as is that nothing is missing');
value($node, "SELECT pg_cancel_backend($worker)");
ok( $node->poll_query_until(
		'postgres', q(SELECT bool_or(status = 'new' AND attempts = 0 OR attempts > 1) FROM bbm_jobs('launched'))),
	'a cancelled batch is requeued');
value($node, q(SET statement_timeout = '60s'; UPDATE batched_background_migrations SET status = 0 WHERE name = 'launched'));
gate($node, 'open');
$node->poll_query_until('postgres', q(SELECT jobs_running = 0 FROM bbm_status_detail('launched')));
my ($status, $out, $err) = $node->psql('postgres', q(UPDATE batched_background_migrations SET status = 1 WHERE name = 'launched'));
is($err, '', 'nobody is warned while a worker is there that was launched');
finished($node, 'launched', 'it follows an UPDATE without a notification');
once_each($node, 't', 500);
is(value($node, q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'bbm worker')), $worker, 'and stays for as long as it is to');
value($node, "SELECT pg_terminate_backend($worker)");
workers_gone($node);
value($node, q(SELECT bbm_launch_worker('1 s')));
no_workers($node, 'one exits when there is nothing to do for so long');
($status, $out, $err) = $node->psql('postgres', q(SELECT bbm_update('nobody', 't', 'n = 0', start => true); SELECT bbm_drop('nobody')));
like($err, qr/WARNING:  no worker runs migrations on this server: the library is not preloaded/, '... and then a start gets a warning');

# … killed, it is not restarted; the next one takes over.
value($node, 'UPDATE t SET n = 0');
gate($node, 'shut');
define($node, 'killed', 't', job => 'gated', batch_size => 100, start => 'true');
$worker = value($node, q(SELECT bbm_launch_worker()));
reach_gate($node);
kill KILL => $worker;
poll_restarting($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $worker");
like(value($node, q(SELECT waiting_on FROM bbm_status_detail('killed'))), qr/preload/, 'killed with the server, it stays away');
gate($node, 'open');
value($node, q(SELECT bbm_launch_worker('0')));
finished($node, 'killed', 'the next one goes on');
once_each($node, 't', 500);
ranges_ok($node, 'killed', 't');
no_workers($node);
log_clean($node);

# Preloaded later: what is started goes on by itself.
value($node, 'UPDATE t SET n = 0');
define($node, 'later', 't', batch_size => 100, start => 'true');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'bbm'");
$node->restart;
finished($node, 'later', 'once the library is preloaded, what was started runs');
once_each($node, 't', 500);

done_testing();
