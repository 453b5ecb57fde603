# Throttles: a migration waits while the server is busy, shows why it waits, and
# goes on by itself.  Nothing of that is a failure or an attempt.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use POSIX qw(setsid);
use Time::HiRes qw(time);

my $node = bbm_node('primary', streaming => 1, conf => <<'EOC');
bbm.naptime = 0
bbm.max_workers = 8
max_worker_processes = 20
max_prepared_transactions = 5
max_replication_slots = 5
archive_mode = on
archive_command = 'exit 1'
# dead tuples, and pauses for busy CPUs, are here when a test asks for them
autovacuum = off
bbm.min_pace = 1
autovacuum_naptime = 1s
log_min_messages = debug1
EOC
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

# A started migration over a table of its own.  Options: rows (300), batch (100), job, others as bbm_create.
sub migration
{
	my ($name, $settings, %o) = @_;
	my $rows = delete $o{rows} || 300;
	my $batch = delete $o{batch_size} || 100;
	my $prepare = delete $o{prepare};

	counter_table($node, "t_$name", $rows);
	value($node, $prepare) if $prepare;
	$settings = join ', ', map { "'$_'" } @$settings;
	define($node, $name, "t_$name", %o, batch_size => $batch, settings => "ARRAY[$settings]::text[]");
	value($node, "SELECT bbm_start('$name')");
	return;
}

# It waits for that, and no batch of it runs, unless it may go on at any moment.
sub waits
{
	my ($name, $pattern, $for_a_moment) = @_;
	$pattern =~ s/'/''/g;
	my $ok = $node->poll_query_until('postgres',
		"SELECT waiting_on LIKE '$pattern' AND status IN ('active', 'running') FROM bbm_status_detail('$name')");
	ok($ok, "$name: waits for $pattern") or diag(value($node, "SELECT status, waiting_on FROM bbm_status_detail('$name')"));
	is( value($node, "SELECT count(*) FROM bbm_workers() WHERE migration = '$name' AND job IS NOT NULL"),
		0, "$name: no batch runs") unless $for_a_moment;
	return;
}

# And now it goes on, and did each row once in the first attempt.
sub goes_on
{
	my ($name, $rows) = @_;
	$rows ||= 300;
	finished($node, $name);
	once_each($node, "t_$name", $rows);
	ranges_ok($node, $name, "t_$name");
	is( value($node, "SELECT max(attempts), count(error_message) FROM bbm_jobs('$name')"),
		'1|0', "$name: no attempt failed");
	return;
}

sub settings
{
	my ($name, @settings) = @_;
	my $list = join ', ', map { "'$_'" } @settings;
	value($node, "SELECT bbm_alter('$name', settings => ARRAY[$list]::text[])");
	return;
}

sub paced
{
	my ($table) = @_;
	return "CREATE FUNCTION paced_$table(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pg_sleep(0.02);
	UPDATE public.$table SET n = n + 1 WHERE id BETWEEN lo AND hi;
	RETURN hi - lo + 1;
END \$\$";
}

sub server_setting
{
	value($node, "ALTER SYSTEM $_") for @_;
	$node->reload;
	return;
}

# In a database of its own, one that waits to the end of this file: its worker exits and is
# started again, but not all the time.
value($node, 'CREATE DATABASE long');
value($node, 'CREATE EXTENSION bbm', 'long');
my $long_oid = value($node, q(SELECT oid FROM pg_database WHERE datname = 'long'));
counter_table($node, 't', 300, 'long');
value($node, 'CREATE TABLE light AS SELECT false AS green', 'long');
define($node, 'long', 't', db => 'long', settings => q(ARRAY['bbm.condition=SELECT green FROM light']));
value($node, q(SELECT bbm_start('long')), 'long');
my $long_since = time;

# What a check costs, with everything on and nothing wrong.
counter_table($node, 't_cost', 300);
define($node, 'cost', 't_cost', settings => q(ARRAY['bbm.max_replication_lag=1GB', 'bbm.max_replication_delay=1h',
	'bbm.standby_names=standby', 'bbm.max_slot_wal=1TB', 'bbm.max_unarchived_wal=42', 'bbm.max_horizon_age=1d',
	'bbm.max_dead_tuples=1000000', 'bbm.max_dead_tuple_ratio=1', 'bbm.max_wal_rate=1GB', 'bbm.max_row_rate=1000000',
	'bbm.max_active_sessions=1000', 'bbm.min_pace=0.2', 'bbm.active_hours=00:00-12:00 Europe/Berlin, 12:00-00:00 Europe/Berlin']));
value($node, q(SELECT bbm_start('cost')));
finished($node, 'cost', 'with every signal on and nothing wrong it runs');
my $checks = <<'EOS';
SELECT round(min(us)::numeric, 1) FROM (
	SELECT sum(p.microseconds) AS us FROM generate_series(1, 50) i
	CROSS JOIN LATERAL bbm_throttle('cost' || left(i::text, 0)) p GROUP BY i) checks
EOS
my $cost = value($node, $checks);
diag("a check of all signals takes $cost microseconds");
# (30 where nothing else runs)
cmp_ok($cost, '<', 1000, 'a check of all signals takes less than a millisecond');
is(value($node, q(SELECT count(*), count(*) FILTER (WHERE throttles) FROM bbm_throttle('cost'))), '12|0', 'none of which throttles');

# A standby that does not replay: in bytes, in time, and the last batch.
$node->wait_for_catchup($standby);
value($standby, 'SELECT pg_wal_replay_pause()');
$standby->poll_query_until('postgres', q(SELECT pg_get_wal_replay_pause_state() = 'paused'));
value($node, 'CREATE TABLE much AS SELECT i, repeat(i::text, 50) FROM generate_series(1, 20000) i');
migration('lag', ['bbm.max_replication_lag=1MB']);
waits('lag', 'standby replay lag: standby is % behind (limit 1024 kB)');
migration('named', ['bbm.max_replication_lag=1MB', 'bbm.standby_names=standby']);
waits('named', 'standby replay lag: standby is % behind (limit 1024 kB)');
migration('delay', ['bbm.max_replication_delay=500ms'], rows => 1000, batch_size => 10,
	job => 'paced_t_delay', prepare => paced('t_delay'));
waits('delay', 'standby replay delay: standby is % s behind (limit 0.5 s)');
migration('last', ['bbm.wait_for_standbys=on']);
waits('last', 'replay of the last batch: standby has not replayed it');
is(value($node, 'SELECT count(*) FROM t_lag WHERE n > 0'), 0, 'lag: no batch was started');
# a pause takes effect meanwhile, without a batch to wait for, and so does a start
value($node, q(SELECT bbm_pause('lag', wait => true)));
is(value($node, q(SELECT status, waiting_on IS NULL FROM bbm_status_detail('lag'))), 'paused|t', 'lag: can be paused while it waits');
value($node, q(UPDATE batched_background_migrations SET status = 1 WHERE name = 'lag'));
waits('lag', 'standby replay lag:%');
value($standby, 'SELECT pg_wal_replay_resume()');
goes_on('lag');
goes_on('named');
goes_on('delay', 1000);
goes_on('last');

# A standby that is not there cannot be read, so it throttles.
migration('absent', [ 'bbm.standby_names=standby, absent', 'bbm.max_replication_lag=1GB' ]);
waits('absent', q(standby replay lag: cannot be read: standby "absent" is not connected));
settings('absent', 'bbm.standby_names=STANDBY', 'bbm.max_replication_lag=1GB');
goes_on('absent');
$standby->stop;
migration('gone', [ 'bbm.standby_names=standby', 'bbm.wait_for_standbys=on', 'bbm.max_replication_lag=-1' ]);
waits('gone', q(replay of the last batch: cannot be read: standby "standby" is not connected));
$standby->start;
goes_on('gone');

# A slot that nobody reads.
value($node, q(SELECT pg_create_physical_replication_slot('unread', true)));
sub switch_wal
{
	my ($n) = @_;
	value($node, q(SELECT pg_logical_emit_message(false, 'x', 'y'); SELECT pg_switch_wal())) for 1 .. $n;
	return;
}
switch_wal(3);
migration('slot', ['bbm.max_slot_wal=32MB']);
waits('slot', 'WAL kept by a slot: unread keeps % (limit 32 MB)');
value($node, q(SELECT pg_drop_replication_slot('unread')));
goes_on('slot');

# An archiver that fails.  The server's own setting, which a reload changes at once.
switch_wal(4);
server_setting('SET bbm.max_unarchived_wal = 2');
migration('archive', []);
waits('archive', 'unarchived WAL: % segments wait to be archived (limit 2)');
server_setting(q(SET archive_command = 'true'));
goes_on('archive');
server_setting(q(SET archive_command = 'exit 1'));
switch_wal(4);
migration('reload', []);
waits('reload', 'unarchived WAL: % segments wait to be archived (limit 2)');
server_setting('RESET bbm.max_unarchived_wal');
goes_on('reload');

# Transactions that keep dead tuples from being removed.  A younger one that has the same horizon, in a slot that may be found
# first, does not hide the old one.
sub end_of
{
	my ($session, $seconds) = @_;
	value($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep($seconds)'");
	finish_background($session);
	return;
}
my $slot = background($node, 'postgres', 'SELECT pg_sleep(602)');
$node->poll_query_until('postgres', q(SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(602)')));
my $old = background($node, 'postgres', 'BEGIN', 'SELECT txid_current()', 'SELECT pg_sleep(600)');
$node->poll_query_until('postgres', q(SELECT EXISTS (SELECT FROM pg_stat_activity
	WHERE query = 'SELECT pg_sleep(600)' AND clock_timestamp() - xact_start > '1.1 s')));
end_of($slot, 602);
my $young = background($node, 'postgres', 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'SELECT 1', 'SELECT pg_sleep(603)');
$node->poll_query_until('postgres', q(SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(603)')));
is( value($node, q(SELECT count(DISTINCT coalesce(backend_xid, backend_xmin)::text) FROM pg_stat_activity
	WHERE query IN ('SELECT pg_sleep(600)', 'SELECT pg_sleep(603)'))), 1, 'horizon: two have the same');
migration('horizon', ['bbm.max_horizon_age=1s']);
waits('horizon', 'old snapshot: process % has kept dead tuples for % s (limit 1.0 s)');
is( value($node, q(SELECT reason LIKE 'old snapshot: process ' || pid || ' %' FROM bbm_throttle('horizon'), pg_stat_activity
	WHERE signal = 'old snapshot' AND query = 'SELECT pg_sleep(600)')), 't', 'horizon: the old one is named');
end_of($old, 600);
end_of($young, 603);
goes_on('horizon');
$node->safe_psql('postgres', q(BEGIN; CREATE TABLE not_yet (); PREPARE TRANSACTION 'old'));
migration('prepared', ['bbm.max_horizon_age=500ms'], rows => 1000, batch_size => 10,
	job => 'paced_t_prepared', prepare => paced('t_prepared'));
waits('prepared', 'old snapshot: a prepared transaction has kept dead tuples for % s (limit 0.5 s)');
$node->safe_psql('postgres', q(ROLLBACK PREPARED 'old'));
goes_on('prepared', 1000);

# A session that waits for a migration does not throttle it: not by itself, nor in a function or in a transaction
# that has written.
counter_table($node, 't_waited', 1000);
value($node, paced('t_waited'));
define($node, 'waited', 't_waited', batch_size => 10, job => 'paced_t_waited', settings => q(ARRAY['bbm.max_horizon_age=100ms']));
my @waiters = (
	background($node, 'postgres', q(SELECT bbm_wait('waited'))),
	background($node, 'postgres', q(DO $$ BEGIN PERFORM bbm_wait('waited'); END $$)),
	background($node, 'postgres', 'BEGIN', 'CREATE TABLE waits_too ()', q(SELECT bbm_wait('waited'))));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 3 FROM pg_stat_activity
	WHERE query LIKE '%bbm\_wait%' AND wait_event_type = 'Extension')), 'three sessions wait');
value($node, q(SELECT bbm_start('waited')));
goes_on('waited', 1000);
finish_background($_) for @waiters;

# Dead tuples: whoever vacuums.  Its own batches do not leave as many again before the last.
migration('dead', ['bbm.max_dead_tuples=299'], prepare => 'UPDATE t_dead SET n = 0');
waits('dead', 'dead tuples: the table has 300 dead tuples (limit 299)');
value($node, 'VACUUM t_dead');
goes_on('dead');
migration('share', ['bbm.max_dead_tuple_ratio=0.25'], prepare => 'UPDATE t_share SET n = 0');
waits('share', q(dead tuples: 50.0 percent of the table's tuples are dead (limit 25.0)));
settings('share');
goes_on('share');

# Those that a vacuum has left for the sake of who waits for the migration, and of nobody else, are not waited for.
counter_table($node, 't_kept', 300);
define($node, 'kept', 't_kept', batch_size => 100, settings => q(ARRAY['bbm.max_dead_tuples=299']));
my $patient = background($node, 'postgres', q(SELECT bbm_wait('kept', '10 minutes')));
$node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%bbm\_wait%' AND wait_event_type = 'Extension'));
# somebody else with as old a snapshot
my $keeper = $node->background_psql('postgres');
$keeper->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
value($node, 'UPDATE t_kept SET n = 0');
value($node, q(SELECT bbm_start('kept')));
waits('kept', 'dead tuples: the table has 300 dead tuples (limit 299)');
value($node, 'VACUUM t_kept');
is(value($node, q(SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 't_kept')), 300, 'kept: a vacuum leaves them');
is(value($node, q(SELECT throttles FROM bbm_throttle('kept') WHERE signal = 'dead tuples')), 't', 'kept: for somebody else, too');
$keeper->query_safe('COMMIT');
$keeper->quit;
goes_on('kept');
is((finish_background($patient))[0], 'finished', 'kept: and who waits for it sees its end');

# A phase that only verifies does not wait for what its reading cannot make worse: here for the dead tuples of its
# own last batch, which nobody vacuums.  It does wait for throttles that do not depend on what a batch does.
migration('verifies', ['bbm.max_dead_tuples=100', 'bbm.max_row_rate=1', 'bbm.condition=(SELECT max(n) = 0 FROM public.t_verifies)'],
	batch_size => 300, verify => 'true', 'row_check' => q('n = 1'));
waits('verifies', 'condition: not met');
is(value($node, q(SELECT n_dead_tup > 100 FROM pg_stat_user_tables WHERE relname = 't_verifies')), 't', 'verifies: there are dead tuples');
is(value($node, q(SELECT count(*) FROM bbm_throttle('verifies') WHERE signal IN ('dead tuples', 'row rate', 'autovacuum', 'unarchived WAL'))),
	0, 'verifies: throttles that do not apply are not shown');
settings('verifies', 'bbm.max_dead_tuples=100', 'bbm.max_row_rate=1');
finished($node, 'verifies');
once_each($node, 't_verifies', 300);

# Where nothing is left to do, nothing is waited for.
migration('ends', ['bbm.max_dead_tuples=100', 'bbm.max_row_rate=1'], batch_size => 300);
goes_on('ends');

# Its workers vacuum it themselves, if they are to and may.
migration('vacuums', [ 'bbm.max_dead_tuples=100', 'bbm.vacuum=on' ], prepare => 'UPDATE t_vacuums SET n = 0', batch_size => 300);
goes_on('vacuums');
is(value($node, q(SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 't_vacuums')), 1, 'the table was vacuumed once');
# but not made shorter, which takes a lock that standbys replay: all its rows but the first are gone, and all pages stay
migration('empties', [ 'bbm.max_dead_tuples=100', 'bbm.vacuum=on' ], rows => 20000, batch_size => 20000,
	prepare => 'DELETE FROM t_empties WHERE id > 1; CREATE TABLE empty_pages AS SELECT pg_relation_size(\'t_empties\') AS before');
finished($node, 'empties', 'a table with many empty pages');
is(value($node, q(SELECT vacuum_count, pg_relation_size('t_empties') - before FROM empty_pages, pg_stat_user_tables WHERE relname = 't_empties')),
	'1|0', 'is vacuumed, and keeps its pages');
value($node, 'CREATE ROLE guest LOGIN; GRANT EXECUTE ON FUNCTION bbm_create TO guest');
counter_table($node, 't_guest', 300);
value($node, 'GRANT SELECT, UPDATE ON t_guest TO guest; UPDATE t_guest SET n = 0');
$node->poll_query_until('postgres', q(SELECT n_dead_tup = 300 FROM pg_stat_user_tables WHERE relname = 't_guest'));
value($node, q(SET ROLE guest; SELECT bbm_create('guest', 't_guest', 'UPDATE t_guest SET n = n + 1 WHERE id BETWEEN $1 AND $2',
	batch_size => 300, settings => '{bbm.max_dead_tuples=100, bbm.vacuum=on}', start => true)));
waits('guest', 'dead tuples: %');
like(log_since($node), qr/LOG:  migration "guest": could not vacuum the table: permission denied to vacuum "t_guest"/,
	'a role that may not vacuum gets a log message');
value($node, 'VACUUM t_guest');
goes_on('guest');

# Autovacuum at work on the table, for long.
counter_table($node, 't_autovacuum', 20000);
value($node, 'ALTER TABLE t_autovacuum SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1,
	autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0)');
value($node, 'UPDATE t_autovacuum SET n = 0');
server_setting('SET autovacuum = on');
$node->poll_query_until('postgres', q(SELECT EXISTS (SELECT FROM pg_stat_progress_vacuum
	WHERE relid = 't_autovacuum'::regclass AND datname = current_database())));
define($node, 'autovacuum', 't_autovacuum', batch_size => 5000);
value($node, q(SELECT bbm_start('autovacuum')));
waits('autovacuum', 'autovacuum: process % vacuums t_autovacuum');
server_setting('SET autovacuum = off');
value($node, q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'));
goes_on('autovacuum', 20000);

# Sessions of others.
my @busy = map { background($node, 'postgres', 'SELECT pg_sleep(601)') } 1 .. 2;
$node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(601)' AND state = 'active'));
migration('sessions', ['bbm.max_active_sessions=1']);
waits('sessions', 'active sessions: % sessions are active (limit 1)');
value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(601)'));
finish_background($_) for @busy;
goes_on('sessions');
server_setting('SET track_activities = off');
migration('blind', ['bbm.max_active_sessions=100']);
waits('blind', 'active sessions: cannot be read: track_activities is off');
server_setting('RESET track_activities');
goes_on('blind');

# Hours: twelve from now.
my $then = ((gmtime)[2] + 12) % 24;
migration('hours', [ sprintf 'bbm.active_hours=%02d:00-%02d:30 UTC', $then, $then ]);
waits('hours', 'active hours: not before % UTC)');
settings('hours', sprintf 'bbm.active_hours=%02d:00-%02d:00 UTC', ($then + 10) % 24, ($then + 15) % 24);
goes_on('hours');

# Rates: the average is kept, whoever does the batches.
# each batch is to be waited for for longer than a slow machine takes to see it
migration('rows', ['bbm.max_row_rate=200'], rows => 2000, batch_size => 500, workers => 2);
waits('rows', 'row rate: limit 200 rows a second', 1);
goes_on('rows', 2000);
my $seconds = q(SELECT extract(epoch FROM max(started_at) - min(started_at)) FROM bbm_jobs);
cmp_ok(value($node, "$seconds('rows')"), '>=', 5.0, '2000 rows at 200 a second');
migration('wal', ['bbm.max_wal_rate=100kB'], rows => 2000, batch_size => 500);
goes_on('wal', 2000);
is( value($node, q(SELECT sum(wal_bytes) FILTER (WHERE first < last) / 102400.0 <= extract(epoch FROM max(last) - min(first))
	FROM (SELECT wal_bytes, started_at AS first, max(started_at) OVER () AS last FROM bbm_jobs('wal')) jobs)),
	't', 'WAL at 100 kB a second');

# The pace.  A fifth of a millisecond a key, and what a worker works of the time.
value($node, q(CREATE FUNCTION computes(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
	DECLARE ends timestamptz := clock_timestamp() + (hi - lo + 1) * interval '200 us';
	BEGIN WHILE clock_timestamp() < ends LOOP END LOOP; RETURN 0; END $$));
sub pace
{
	my ($name) = @_;
	return "SELECT p.share, p.reason FROM batched_background_migrations m, bbm_internal.bbm_live_pace(m.id, m.owner_oid) p WHERE m.name = '$name'";
}
# its CPU time, in seconds
sub cpu_of
{
	my ($pid) = @_;
	my @stat = split ' ', slurp_file("/proc/$pid/stat") =~ s/.*\)//r;
	return ($stat[11] + $stat[12]) / (`getconf CLK_TCK` || 100);
}
migration('pace', ['bbm.max_pace=0.1'], rows => 200000, batch_size => 10, job => 'computes');
ok($node->poll_query_until('postgres', pace('pace'), '0.1|bbm.max_pace'), 'pace: a worker keeps to bbm.max_pace, and says that it does');
SKIP:
{
	skip 'the system does not report the CPU time of a process', 1 unless -r '/proc/self/stat';
	# it may be about to choose a migration
	my $pid = '';
	$pid = worker_pid($node) while $pid eq '';
	my ($began, $before) = (time, cpu_of($pid));
	$node->poll_query_until('postgres', 'SELECT pg_sleep(5) IS NOT NULL');
	cmp_ok((cpu_of($pid) - $before) / (time - $began), '<', 0.15, 'pace: it computes for about a tenth of the time, at most');
}
# another process may come by, or the one be about to choose a migration
is(value($node, q(SELECT count(s.waiting_on), count(w.waiting_on) FROM bbm_status_detail('pace') s LEFT JOIN bbm_workers() w ON w.migration = s.name WHERE s.status = 'running')),
	'0|0', 'pace: nobody waits for anything meanwhile');
# the next job is claimed before the pacing pause: when the migration is paused meanwhile, the job does not start
settings('pace', 'bbm.max_pace=0.01');
value($node, q(CREATE TABLE computed (lo bigint)));
value($node, q(CREATE OR REPLACE FUNCTION computes(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
	DECLARE ends timestamptz := clock_timestamp() + (hi - lo + 1) * interval '200 us';
	BEGIN WHILE clock_timestamp() < ends LOOP END LOOP; INSERT INTO public.computed VALUES (lo); RETURN 0; END $$));
my ($requeued, $after) = (0, 0);
for (1 .. 50)
{
	$node->poll_query_until('postgres', 'SELECT count(*) > 2 FROM computed');
	value($node, q(SELECT bbm_pause('pace', wait => true)));
	my $before = value($node, 'SELECT count(*) FROM computed');
	$requeued = value($node, q(SELECT count(*) FROM bbm_jobs('pace') WHERE status = 'new' AND attempts = 0));
	value($node, 'SELECT pg_sleep(0.5)');
	$after += value($node, 'SELECT count(*) FROM computed') - $before;
	last if $requeued || $after;
	value($node, q(TRUNCATE computed; SELECT bbm_start('pace')));
}
cmp_ok($requeued, '>', 0, 'pace: a job that was claimed before a pause of the process is requeued when its migration is paused');
is($after, 0, 'pace: ... and nothing is done after that');
# a pause of the process is over in a moment: it hides nothing that lasts for an hour
counter_table($node, 't_retry', 10);
value($node, q(CREATE FUNCTION fails(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'no luck'; END $$));
define($node, 'retry', 't_retry', job => 'fails', start => 'true',
	settings => q(ARRAY['bbm.retry_delay=1h', 'bbm.retry_max_delay=1h', 'bbm.max_pace=0.01']));
ok($node->poll_query_until('postgres', q(SELECT waiting_on = 'retry of a failed job' FROM bbm_status_detail('retry'))), 'retry: waits for an hour');
value($node, q(SELECT bbm_start('pace')));
my @shown;
while (@shown < 10)
{
	# two of them may come by at once
	push @shown, grep { $_ ne '' } split /\n/,
		value($node, q(SELECT s.waiting_on FROM bbm_workers() w, bbm_status_detail('retry') s WHERE w.migration = s.name AND w.job IS NULL));
}
is(join(', ', grep { $_ ne 'retry of a failed job' } @shown), '', 'retry: ... also while a worker that comes by paces itself');
value($node, q(SELECT bbm_drop('retry'), bbm_pause('pace', wait => true)));
# sessions that wait for its locks: a batch keeps a row for 50 ms, which a session wants all of the time
value($node, q(CREATE TABLE hot (n bigint NOT NULL); INSERT INTO hot VALUES (0)));
value($node, q(CREATE FUNCTION heats(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
	BEGIN UPDATE public.hot SET n = n + 1; PERFORM pg_sleep(0.05); RETURN 0; END $$));
migration('hot', [ 'bbm.min_pace=0.1', 'bbm.max_pace=1' ], rows => 20000, batch_size => 1, job => 'heats');
my $wants = background($node, 'postgres', q(DO $$ BEGIN LOOP UPDATE hot SET n = n + 1; COMMIT; END LOOP; END $$));
ok($node->poll_query_until('postgres', 'SELECT EXISTS (' . pace('hot') . q( AND p.share < 0.5 AND p.reason = 'sessions wait for its locks') . ')'),
	'hot: a worker whose locks others wait for works less');
value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO $$ BEGIN LOOP UPDATE hot%'));
finish_background($wants);
value($node, q(SELECT bbm_pause('hot', wait => true), bbm_drop('hot')));
# WAL buffers that are full, and for which sessions wait as well
{
	my $small = bbm_node('small', conf => "wal_buffers = 32kB\nsynchronous_commit = off\nautovacuum = off\n");
	counter_table($small, 't', 100000);
	value($small, q(CREATE TABLE written (i int, filler text)));
	value($small, q(CREATE FUNCTION writes(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
		BEGIN INSERT INTO public.written SELECT i, repeat('x', 1000) FROM generate_series(1, 100) i; RETURN 0; END $$));
	define($small, 'wal', 't', job => 'writes', batch_size => 1, start => 'true');
	my @writers = map { background($small, 'postgres', q(DO $$ BEGIN LOOP INSERT INTO written SELECT i, repeat('y', 1000) FROM generate_series(1, 20) i; COMMIT; END LOOP; END $$)) } 1 .. 4;
	ok($small->poll_query_until('postgres', 'SELECT EXISTS (' . pace('wal') . q( AND p.reason = 'WAL buffers are full') . ')'),
		'wal: a worker that finds the WAL buffers full, beside sessions that wait for them, works less');
	value($small, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO $$ BEGIN LOOP INSERT INTO written%'));
	finish_background($_) for @writers;
	$small->stop('immediate');
}
# Busy CPUs: as many processes as there are CPUs take what they get, each a session of its own where those count.
SKIP:
{
	skip 'the system does not report for how long a process waits for a CPU', 2 unless -r '/proc/self/schedstat';
	my @busy;
	for (1 .. 2 * (`nproc` || 1))
	{
		my $pid = fork();
		die "fork: $!" unless defined $pid;
		if ($pid == 0)
		{
			setsid();
			alarm 300;
			1 while 1;
		}
		push @busy, $pid;
	}
	settings('pace', 'bbm.min_pace=0.05');
	value($node, q(TRUNCATE computed; SELECT bbm_start('pace')));
	ok($node->poll_query_until('postgres', 'SELECT EXISTS (' . pace('pace') . q( AND p.share < 0.5 AND p.reason = 'CPUs are busy') . ')'),
		'pace: a worker that has to wait for a CPU works less');
	ok($node->poll_query_until('postgres', 'SELECT count(*) > 100 FROM computed'), 'pace: ... and goes on');
	kill 'KILL', @busy;
	waitpid $_, 0 for @busy;
}
value($node, q(SELECT bbm_pause('pace', wait => true), bbm_drop('pace')));

# Between sub-batches: during a short wait the process keeps the job, during a long one it releases the job.
migration('sub_batches', ['bbm.max_row_rate=2000'], rows => 2000, batch_size => 2000, sub_batch_size => 500);
goes_on('sub_batches', 2000);
is( value($node, q(SELECT claim_epoch, finished_at - started_at > '0.7 s' FROM batched_background_migration_jobs
	WHERE batched_background_migration_id = (SELECT id FROM batched_background_migrations WHERE name = 'sub_batches'))),
	'1|t', 'sub-batches keep to the rate, with one claim');
value($node, 'CREATE TABLE light AS SELECT true AS green; CREATE TABLE red_was_seen ()');
# from a half on, not before it has been red
value($node, paced('t_given') =~ s/(PERFORM pg_sleep\(0.02\);)/$1\n	WHILE lo > 1000 AND NOT EXISTS (SELECT FROM public.light WHERE NOT green) AND to_regclass('public.red_was_seen') IS NOT NULL LOOP PERFORM pg_sleep(0.01); END LOOP;/r);
migration('given', [ 'bbm.condition=SELECT green FROM light', 'bbm.retry_delay=1s' ], rows => 2000,
	batch_size => 2000, sub_batch_size => 10, job => 'paced_t_given');
$node->poll_query_until('postgres', 'SELECT count(*) >= 100 FROM t_given WHERE n > 0');
value($node, 'UPDATE light SET green = false');
ok($node->poll_query_until('postgres', q(SELECT status = 'new' AND attempts = 0 FROM bbm_jobs('given'))), 'its job is released');
is(value($node, q(SELECT requeued FROM bbm_status_detail('given'))), 0, 'which is no requeue');
waits('given', 'condition: not met');
value($node, 'DROP TABLE red_was_seen; UPDATE light SET green = true');
finished($node, 'given');
once_each($node, 't_given', 2000);

# Its own lock_timeout and log_min_duration.
server_setting(q(SET bbm.lock_timeout = '1 h'));
my $offset = log_size($node);
counter_table($node, 't_locks', 300);
my $locker = background($node, 'postgres', 'BEGIN', 'SELECT count(*) FROM (SELECT FROM t_locks FOR UPDATE) l', 'SELECT pg_sleep(602)');
$node->poll_query_until('postgres', q(SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(602)')));
define($node, 'locks', 't_locks', batch_size => 100, settings => q(ARRAY['bbm.lock_timeout=10ms', 'bbm.log_min_duration=0']));
value($node, q(SELECT bbm_start('locks')));
ok( $node->poll_query_until('postgres', q(SELECT bool_or(error_sqlstate = '55P03') FROM bbm_jobs('locks'))),
	'a migration has a lock_timeout of its own');
value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(602)'));
finish_background($locker);
finished($node, 'locks');
once_each($node, 't_locks', 300);
is(value($node, q(SELECT max(attempts) FROM bbm_jobs('locks'))), 1, 'which is no failed attempt');
like(log_since($node, $offset), qr/LOG:  migration "locks": job \d+ took/, 'and a log_min_duration');
server_setting('RESET bbm.lock_timeout');

# The one that waited all the time.
cmp_ok(time - $long_since, '>', 15, 'long enough for a worker to exit');
is( value($node, q(SELECT status, waiting_on FROM bbm_status_detail('long')), 'long'),
	'running|condition: not met', 'what it waits for is known, though no worker may be there');
my $starts = () = log_since($node) =~ /starting background worker process "bbm worker for database $long_oid"/g;
my $waited = time - $long_since;
note(sprintf '%d workers in %.0f seconds', $starts, $waited);
cmp_ok($starts, '>', 1, 'its worker has exited and was started again');
cmp_ok($starts, '<', 3 + $waited / 2, 'but not all the time');
is(() = log_since($node) =~ /LOG:  migration "long" waits: condition: not met/g, 1, 'the log has it once');
value($node, 'UPDATE light SET green = true', 'long');
# an event makes it check at once
value($node, q(SELECT bbm_alter('long', workers => 2)), 'long');
finished($node, 'long', undef, 'long');
once_each($node, 't', 300, undef, 'long');
like(log_since($node), qr/LOG:  migration "long" goes on after waiting for/, 'and the log has its end');

no_workers($node);
log_clean($node, undef, qr/canceling autovacuum task/);
$standby->stop;
$node->stop;

# Without preloading: the same, in the session or a worker that stays.
my $plain = bbm_node('plain', preload => 0);
counter_table($plain, 't', 1000);
define($plain, 'm', 't', batch_size => 50, settings => q(ARRAY['bbm.max_row_rate=500']));
my ($rc, $out, $err) = $plain->psql('postgres', q(CALL bbm_run('m')));
like($err, qr/NOTICE:  migration "m" is finished: 1000 rows/, 'in the foreground it is finished');
unlike($err, qr/waits/, 'short waits are not reported');
cmp_ok(value($plain, "$seconds('m')"), '>=', 1.0, 'at its rate');
once_each($plain, 't', 1000);
log_clean($plain);
done_testing();
