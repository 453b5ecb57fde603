# Everything at once: n = n + 1 on every row by several migrations with several workers,
# while workers are killed, terminated, cancelled and in each other's way, tables locked,
# migrations paused and started and servers stopped at once.  In the end every row is 1.
#
# BBM_SEED repeats a sequence (though not the timing), BBM_TORTURE_SECONDS is how
# long it goes on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $seed = $ENV{BBM_SEED} || int(rand(2**31));
my $seconds = $ENV{BBM_TORTURE_SECONDS} || 25;
srand($seed);
diag("BBM_SEED=$seed BBM_TORTURE_SECONDS=$seconds");

my $node = bbm_node(
	'torture',
	conf => <<'EOC');
bbm.max_workers = 4
bbm.retry_max_delay = 100ms
bbm.lock_timeout = 100ms
bbm.max_blocking_time = 20ms
bbm.max_batch_time = 90ms
bbm.naptime = 5s
EOC

# Enough rows to last, and keys with holes.
my %rows = map { $_ => 1200 * $seconds } ('alpha', 'beta', 'gamma');
value($node, q(CREATE FUNCTION step(tab text, col text, lo bigint, hi bigint, size integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	done bigint;
BEGIN
	EXECUTE format('UPDATE %s SET n = n + 1 WHERE %I BETWEEN $1 AND $2', tab, col) USING lo, hi;
	GET DIAGNOSTICS done = ROW_COUNT;
	-- some batches are long, and some fail
	PERFORM pg_sleep(CASE WHEN random() < 0.02 THEN 0.1 ELSE 0.003 END);
	IF random() < 0.005 THEN
		RAISE 'an unlucky batch';
	END IF;
	RETURN done;
END $$));
for my $table (sort keys %rows)
{
	counter_table($node, $table, $rows{$table});
	value($node, "UPDATE $table SET id = id + (id / 1000) * 1000000");
}
sub define_all
{
	my ($batch_size) = @_;
	value($node, <<"EOS");
SELECT bbm_create('alpha', 'alpha', 'step', batch_size => $batch_size, workers => 3, max_attempts => 100);
SELECT bbm_create('beta', 'beta', 'step', batch_size => 3 * $batch_size, sub_batch_size => $batch_size, workers => 2, max_attempts => 100);
SELECT bbm_create('gamma', 'gamma', 'step', batch_size => $batch_size, max_attempts => 100);
SELECT bbm_start();
EOS
	return;
}
define_all(2);

# Somebody else writes to the same rows, so that there are locks to wait for.
sub bystander
{
	return background($node, 'postgres', <<'EOS');
DO $$
BEGIN
	FOR i IN 1 .. 100000 LOOP
		PERFORM id FROM alpha WHERE id = (SELECT id FROM alpha WHERE n = 0 ORDER BY id LIMIT 1) FOR UPDATE;
		PERFORM pg_sleep(random() * 0.2);
		COMMIT;
	END LOOP;
END $$
EOS
}

sub try_psql
{
	my ($rc, $out, $err) = $node->psql('postgres', "SET statement_timeout = '20s'; $_[0]");
	return defined $out ? $out : '';
}

sub some_worker
{
	return try_psql(q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'bbm worker' ORDER BY random() LIMIT 1)) || 0;
}

sub some_migration
{
	return ('alpha', 'beta', 'gamma')[ rand 3 ];
}

my %done;
my @acts = (
	[ 4, 'terminate', sub { my $pid = some_worker(); try_psql("SELECT pg_terminate_backend($pid)") if $pid } ],
	[ 4, 'cancel', sub { my $pid = some_worker(); try_psql("SELECT pg_cancel_backend($pid)") if $pid } ],
	[ 2, 'kill', sub { my $pid = some_worker(); kill KILL => $pid if $pid } ],
	[ 4, 'update', sub {
			my $name = some_migration();
			try_psql("UPDATE batched_background_migrations SET status = 0 WHERE name = '$name'");
			sleep rand 0.2;
			try_psql("UPDATE batched_background_migrations SET status = 1 WHERE name = '$name'");
	} ],
	[ 2, 'pause', sub { try_psql('SELECT bbm_pause(cancel => true, wait => true)'); try_psql('SELECT bbm_start()') } ],
	[ 1, 'launcher', sub { try_psql(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'bbm launcher')) } ],
	[ 1, 'everybody', sub { try_psql(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'bbm%')) } ],
	[ 3, 'lock', sub { my $table = some_migration(); try_psql("BEGIN; LOCK TABLE $table; COMMIT") } ],
	[ 1, 'foreground', sub { try_psql(q(SET statement_timeout = '300ms'; CALL bbm_run('alpha'))) } ],
	[ 1, 'launch', sub { try_psql(q(SELECT bbm_launch_worker('0'))) } ],
	[ 1, 'alter', sub { my $name = some_migration(); try_psql("SELECT bbm_alter('$name', batch_size => " . (1 + int rand 4) . ')') } ],
	[ 1, 'immediate', sub { $node->stop('immediate'); start_anyway($node) } ],
	[ 1, 'postmaster', sub { $node->kill9; start_anyway($node) } ]);
my @deck = map { my $act = $_; ($act) x $act->[0] } @acts;

my $until = time + $seconds;
my $other = bystander();
while (time < $until)
{
	my $act = $deck[ rand @deck ];
	$act->[2]->();
	$done{ $act->[1] }++;
	sleep rand 0.3;
	# it lives as long as its connection
	unless ($other->{run}->pumpable)
	{
		finish_background($other);
		$other = bystander();
	}
}
note join ', ', map { "$_ $done{$_}" } sort keys %done;
$node->poll_query_until('postgres', 'SELECT true');
try_psql(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO%'));
finish_background($other);

my $left = value($node, q(SELECT string_agg(format('%s %s %s rows', name, status, rows_done), ', ') FROM bbm_status()));
note $left;
is(value($node, q(SELECT count(*) FROM bbm_status() WHERE status = 'failed')), 0, 'nothing of that failed a migration')
  or diag(value($node, 'SELECT * FROM bbm_status()'));
like($left, qr/running|active/, 'it went on for as long as the torture did');

# The rest in peace.
value($node, q(UPDATE batched_background_migrations SET batch_size = 3000, sub_batch_size = NULL; SELECT bbm_start()));
for my $name (sort keys %rows)
{
	finished($node, $name);
	once_each($node, $name, $rows{$name});
	ranges_ok($node, $name, $name);
}
no_workers($node);
is( value($node, q(SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND classid = 'batched_background_migrations'::regclass)),
	0, 'nor a lock');
log_clean(
	$node, undef,
	# what the job itself raises, and what was done to it
	qr/an unlucky batch/, qr/canceling statement due to (user request|lock timeout)/,
	qr/terminating background worker/);
my $log = log_since($node);
unlike($log, qr/\b(PANIC|TRAP):|signal 6|signal 11/, 'no PANIC');

# A worker's memory does not grow with what it does.
counter_table($node, 'memory', 40000);
define($node, 'memory', 'memory', batch_size => 1, start => 'true');
my (%used, $worker);
for my $jobs (2000, 25000)
{
	$node->poll_query_until('postgres', "SELECT jobs_finished > $jobs OR status = 'finished' FROM bbm_status('memory')");
	$worker = value($node, q(SELECT pid FROM bbm_workers() WHERE migration = 'memory')) or last;
	# the server writes a process's memory contexts and their sum to the log
	my $offset = log_size($node);
	value($node, "SELECT pg_log_backend_memory_contexts($worker)");
	for (1 .. 100)
	{
		last if log_since($node, $offset) =~ /\[$worker\] \[bbm worker\].*Grand total: .* (\d+) used/ && ($used{$jobs} = $1);
		sleep 0.05;
	}
}
finished($node, 'memory');
once_each($node, 'memory', 40000);
note "memory of the worker after so many jobs: ", join ', ', map { "$_: $used{$_}" } sort { $a <=> $b } keys %used;
is(scalar keys %used, 2, 'the memory of a worker was seen');
cmp_ok(abs($used{25000} - $used{2000}), '<', 65536, 'and is flat') if keys %used == 2;
no_workers($node);
done_testing();
