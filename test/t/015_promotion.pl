# A promotion under load: the primary dies in the middle of batches, the standby goes on by
# itself and does each row once.  The old primary, started again as it was: what stops it,
# and that nothing else does.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = bbm_node('first', streaming => 1, conf => "bbm.naptime = 0\nwal_log_hints = on\nwal_keep_size = 1GB\n");
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('second');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

my $rows = 20000;
for my $table ('t', 'u')
{
	counter_table($primary, $table, $rows);
	# a few milliseconds a batch; and it does not get beyond a half before it is promoted
	value($primary, "CREATE FUNCTION slow_$table(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pg_sleep(0.01);
	IF lo > $rows / 2 THEN
		RETURN gated_$table(lo, hi);
	END IF;
	UPDATE public.$table SET n = n + 1 WHERE id BETWEEN lo AND hi;
	RETURN hi - lo + 1;
END \$\$");
	value($primary, "SELECT bbm_create('$table', '$table', 'slow_$table', batch_size => 20, workers => 2)");
}
# what the application does meanwhile: to the same rows, and to rows of its own
value($primary, 'ALTER TABLE t ADD COLUMN hits int NOT NULL DEFAULT 0; CREATE TABLE load (id int PRIMARY KEY, n int); INSERT INTO load SELECT generate_series(1, 100), 0');
my $script = PostgreSQL::Test::Utils::tempdir . '/load.sql';
append_to_file($script, <<"EOS");
\\set a random(1, $rows)
\\set b random(1, 100)
UPDATE t SET hits = hits + 1 WHERE id = :a;
UPDATE load SET n = n + 1 WHERE id = :b;
EOS

sub pgbench
{
	my ($node, $seconds) = @_;
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-R', '200', '-T', $seconds, '-f', $script, $node->connstr('postgres') ],
		'>', \$out, '2>', \$err);
	return [ $run, \$out, \$err ];
}

# Once with the standby asynchronous, so that it may lack the last of it.
my $load = pgbench($primary, 600);
value($primary, q(SELECT bbm_start()));
{
	# poll_query_until takes a NOTICE, that this is a standby, for a failure
	local $ENV{PGOPTIONS} = '-c client_min_messages=warning';
	ok($standby->poll_query_until('postgres', q(SELECT count(*) = 2 AND min(jobs_finished) > 50 FROM bbm_status_detail())),
		'the standby has seen jobs of both finish');
}
ok($primary->poll_query_until('postgres', q(SELECT count(*) > 0 FROM bbm_jobs('t') WHERE status = 'running')), 'workers are in the middle of batches');
$primary->stop('immediate');
$load->[0]->finish;
like(${ $load->[2] }, qr/aborted|terminat|unexpectedly|lost/, 'and the application was, too');

is(value($standby, q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'bbm%')), 0, 'nothing runs on the standby');
is( value($standby, q(SELECT count(*) FILTER (WHERE (SELECT count(*) FROM t WHERE n > 0) <> rows_done AND name = 't'
		OR (SELECT count(*) FROM u WHERE n > 0) <> rows_done AND name = 'u') FROM bbm_status())),
	0, 'there too, rows done are rows recorded');
my $done = value($standby, q(SELECT rows_done FROM bbm_status('t')));
cmp_ok($done, '<', $rows, "some of the work is done ($done rows), and not all");

$standby->promote;
gate($standby, 'open');
$load = pgbench($standby, 5);
ok($standby->poll_query_until('postgres', "SELECT rows_done > $done FROM bbm_status('t')"), 'promoted, it goes on by itself');
ok($load->[0]->finish, 'beside the application') or diag(${ $load->[2] });
for my $table ('t', 'u')
{
	finished($standby, $table, "$table finishes on the new primary");
	once_each($standby, $table, $rows);
	ranges_ok($standby, $table, $table);
}
no_workers($standby);
log_clean($standby);

# The old one, as it was.  It cannot know: with the switch off it stands still, and says why.
$primary->append_conf('postgresql.conf', 'bbm.enabled = off');
start_anyway($primary);
my $before = value($primary, q(SELECT sum(jobs_finished) FROM bbm_status_detail()));
is(value($primary, q(SELECT string_agg(status, ' ') FROM bbm_status())), 'running running', 'the old primary has its migrations running, by status');
like(value($primary, q(SELECT waiting_on FROM bbm_status_detail('t'))), qr/bbm\.enabled/, '... and waiting, fenced with bbm.enabled = off');
value($primary, q(SELECT pg_sleep(1)));
is(value($primary, q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bbm worker')), 0, '... with no worker');
is(value($primary, q(SELECT sum(jobs_finished) FROM bbm_status_detail())), $before, '... and nothing done');
is(value($primary, q(SELECT pg_is_in_recovery())), 'f', '... though it takes itself for a primary');
# without it, it is a primary like any other, on its own timeline, and as correct
gate($primary, 'open');
$primary->append_conf('postgresql.conf', 'bbm.enabled = on');
$primary->reload;
finished($primary, 'u', 'not fenced, it goes on for itself');
once_each($primary, 'u', $rows);
finished($primary, 't');
no_workers($primary);
log_clean($primary);
$primary->stop('fast');

# Rejoined, as it should be, it is a standby, and does nothing.
# pg_rewind reads the timeline from the control file
value($standby, 'CHECKPOINT');
my $port = $primary->port;
my $host = $primary->host;
command_ok(
	[ 'pg_rewind', '--no-sync', '--target-pgdata', $primary->data_dir, '--source-server', $standby->connstr('postgres') ],
	'pg_rewind of the old primary');
$primary->append_conf('postgresql.conf', "port = $port\nunix_socket_directories = '$host'\n");
$primary->enable_streaming($standby);
$primary->start;
counter_table($standby, 'v', 100);
define($standby, 'v', 'v', start => 'true');
finished($standby, 'v', 'the new primary starts others');
$standby->safe_psql('postgres', 'CREATE TABLE flushed ()');
$standby->wait_for_catchup($primary);
is(value($primary, q(SELECT status FROM bbm_status('v'))), 'finished', 'which the old one, rejoined, follows');
is(value($primary, q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'bbm%')), 0, 'without a process of ours');
done_testing();
