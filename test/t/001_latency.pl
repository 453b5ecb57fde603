# From the commit of UPDATE … SET status = 1 to the first changed row; and what an
# idle server does for us, which is nothing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = bbm_node(
	'latency',
	extension => 0,
	# the visits of autovacuum are traffic in the database, too
	conf => "bbm.min_pace = 1\nautovacuum = off\ntrack_commit_timestamp = on\nlog_connections = on\nlog_disconnections = on\n");

$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql('app',      'CREATE EXTENSION bbm');
counter_table($node, 't', 1000, 'app');

# Both times are commit times, taken inside the server.
sub latency
{
	my ($name, $start) = @_;
	define($node, $name, 't', db => 'app', batch_size => 100);
	workers_gone($node);
	$node->safe_psql('app', $start);
	$node->poll_query_until('app', "SELECT status FROM bbm_status('$name')", 'finished');
	return value($node, <<"EOS", 'app');
SELECT extract(epoch FROM min(pg_xact_commit_timestamp(t.xmin))
             - (SELECT pg_xact_commit_timestamp(e.xmin) FROM bbm_events e
                WHERE e.name = '$name' AND e.event = 'started')) * 1000
FROM t
EOS
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return $sorted[ @sorted / 2 ];
}

# It takes the start of a process that logs in, as does a psql: where that is slow, so may this be.  What polls
# would be slow everywhere.
sub at_once
{
	my $limit = 5 * median(map { my $started = time; value($node, 'SELECT 1', 'app'); 1000 * (time - $started) } 1 .. 5);
	$limit = 100 if $limit < 100;
	note sprintf 'limit %.0f ms', $limit;
	return $limit;
}

# An UPDATE of the first batch rewrites its rows, so the oldest rows there are
# those of the first batch.
my @update = map { latency("update $_", "UPDATE batched_background_migrations SET status = 1 WHERE name = 'update $_'") }
  1 .. 9;
note "from UPDATE to the first row, ms: @update";
cmp_ok(median(@update), '<', at_once(), 'an UPDATE of status starts within 100 ms');
cmp_ok((sort { $a <=> $b } @update)[0], '>', 0, 'and not before it has committed');

my @start = map { latency("start $_", "SELECT bbm_start('start $_')") } 1 .. 5;
note "from bbm_start to the first row, ms: @start";
cmp_ok(median(@start), '<', at_once(), 'bbm_start as well');

is(value($node, 'SELECT count(*), min(n), max(n) FROM t', 'app'), '1000|14|14', 'each did each row once');

# Idle, with a migration of every status there, one of them due for a retry much
# later: nobody may stay for that.
$node->append_conf('postgresql.conf', "bbm.retry_delay = 1h\n");
$node->reload;
define($node, 'paused', 't', db => 'app');
define($node, 'failed', 't', db => 'app', max_attempts => 1, job => 'UPDATE t SET n = 1 / (n - n) WHERE id BETWEEN $1 AND $2');
value($node, "SELECT bbm_start('failed')", 'app');
status_is($node, 'failed', 'failed', 'app');
define($node, 'later', 't', db => 'app', job => 'UPDATE t SET n = 1 / (n - n) WHERE id BETWEEN $1 AND $2');
value($node, "SELECT bbm_start('later')", 'app');
ok( $node->poll_query_until('app', "SELECT next_attempt_at > now() + '5 min' FROM bbm_status_detail('later')"),
	'a job failed and will be tried again much later');
no_workers($node, 'nobody stays for that');
like(
	value($node, "SELECT waiting_on FROM bbm_status_detail('later')", 'app'),
	qr/retry/, 'bbm_status says that it waits for the retry');

# The statistics of a session that has just ended may come late.
sub settled
{
	my ($sql) = @_;
	my ($last, $same) = ('', 0);
	for (1 .. 600)
	{
		my $now = value($node, $sql);
		$same = $now eq $last ? $same + 1 : 0;
		return $now if $same == 5;
		$last = $now;
		sleep 0.1;
	}
	return 'never';
}

my $launcher = launcher_pid($node);

# Linux counts how often a process went to sleep.
sub naps
{
	my $file = "/proc/$launcher/status";
	return -r $file && slurp_file($file) =~ /^voluntary_ctxt_switches:\s*(\d+)/m ? $1 : 0;
}

my $traffic = "SELECT sessions, xact_commit, xact_rollback, tup_returned FROM pg_stat_database WHERE datname = 'app'";
my $before  = settled($traffic);
my $naps    = naps();
my $offset  = log_size($node);
sleep 2.5;
is(naps(), $naps, 'the launcher slept on');
is(value($node, $traffic), $before, 'no connection, transaction or read in the database');
is( value(
		$node, "SELECT backend_type, datname, state FROM pg_stat_activity WHERE backend_type LIKE 'bbm%'"),
	'bbm launcher||',
	'the launcher alone is there, and in no database');
is(launcher_pid($node), $launcher, 'still the same');
unlike(log_since($node, $offset), qr/\[bbm /, 'none of ours wrote to the log');

# … and it is awake at once for all that.
cmp_ok(
	median(map { latency("again $_", "UPDATE batched_background_migrations SET status = 1 WHERE name = 'again $_'") } 1 .. 3),
	'<', at_once(), 'after that it starts as quickly');

log_clean($node);
done_testing();
