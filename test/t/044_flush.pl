# A migration that somebody has seen finished is finished after a crash: that commit is
# flushed, although those of its batches are not.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use Test::More;

# nobody else flushes
my $node = bbm_node('flush', conf => "bbm.naptime = 0\nautovacuum = off\nwal_level = replica\nmax_wal_senders = 2\n");

counter_table($node, 'm', 100);
define($node, 'm', 'm', batch_size => 10);
my $walwriter = value($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
kill STOP => $walwriter;
value($node, "SELECT bbm_start('m')");
finished($node, 'm');
my $seen = value($node, 'SELECT status, finished_at FROM batched_background_migrations');

$node->kill9;
kill KILL => $walwriter;
start_anyway($node);
is(value($node, 'SELECT status, finished_at FROM batched_background_migrations'), $seen, 'what was seen finished is so after a crash');
once_each($node, 'm', 100);
ranges_ok($node, 'm', 'm');

# So is one that has failed, or that was paused because its jobs fail.
counter_table($node, $_, 100) for qw(broken tripped);
value($node, "CREATE FUNCTION fails(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN 1 / (lo - lo); END'");
define($node, 'broken', 'broken', job => 'fails', max_attempts => 1);
define($node, 'tripped', 'tripped', job => 'fails', batch_size => 1, max_failed_share => 0.1);
for ([ 'broken', 'failed' ], [ 'tripped', 'paused' ])
{
	my ($name, $becomes) = @$_;
	$walwriter = value($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
	kill STOP => $walwriter;
	value($node, "SELECT bbm_start('$name')");
	status_is($node, $name, $becomes);
	$seen = value($node, "SELECT status, updated_at FROM batched_background_migrations WHERE name = '$name'");
	no_workers($node);
	$node->kill9;
	kill KILL => $walwriter;
	start_anyway($node);
	is(value($node, "SELECT status, updated_at FROM batched_background_migrations WHERE name = '$name'"), $seen, "what was seen $becomes is so after a crash");
}

# None of these waits for a standby, which may be away: it would hold the migration's lock meanwhile.
value($node, 'CREATE TABLE commits (n int)');
value($node, "ALTER SYSTEM SET synchronous_standby_names = 'away'");
value($node, 'SELECT pg_reload_conf()');
# from when on commits wait, one of them shows
my $waits = background($node, 'postgres', q(DO 'BEGIN LOOP INSERT INTO commits VALUES (1); COMMIT; END LOOP; END'));
my $waiting = q(SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep');
$node->poll_query_until('postgres', $waiting, 1);
value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'));
finish_background($waits);
{
	local $ENV{PGOPTIONS} = '-c synchronous_commit=local';
	value($node, q(SELECT bbm_drop(name) FROM bbm_status()));
	value($node, "TRUNCATE $_; INSERT INTO $_ SELECT generate_series(1, 100)") for qw(m broken tripped);
	define($node, 'm', 'm', batch_size => 10);
	define($node, 'broken', 'broken', job => 'fails', max_attempts => 1);
	define($node, 'tripped', 'tripped', job => 'fails', batch_size => 1, max_failed_share => 0.1);
	value($node, 'SELECT bbm_start()');
	finished($node, 'm');
	ok(status_is($node, 'broken', 'failed'), 'a migration fails without a standby');
	ok(status_is($node, 'tripped', 'paused'), 'and is paused');
	is(value($node, $waiting), 0, 'nobody waits for a standby');

	# but a migration that is synchronous does, with its batches
	counter_table($node, 'together', 100);
	define($node, 'together', 'together', batch_size => 10, synchronous => 'true', start => 'true');
	ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event = 'SyncRep')),
		'a synchronous migration waits for a standby');
	value($node, 'ALTER SYSTEM RESET synchronous_standby_names');
	value($node, 'SELECT pg_reload_conf()');
	finished($node, 'together');
	once_each($node, 'together', 100);
}

no_workers($node);
log_clean($node);
done_testing();
