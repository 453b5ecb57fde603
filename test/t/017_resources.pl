# Out of what a server can be out of: disk, WAL, locks, connections; and a clock that is
# set back.  The migration waits, says so, and goes on when there is more.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

# Fills a file system to its last byte; returns the file that does it.
sub fill
{
	my ($folder) = @_;
	my $block = 'x' x 4096;
	open(my $file, '>', "$folder/filler") or die "$folder/filler: $!";
	$file->autoflush;
	1 while (syswrite($file, $block) || 0) == length $block;
	close $file;
	return "$folder/filler";
}

SKIP:
{
	my $small = $ENV{BBM_TEST_SMALL};
	skip 'no small file systems: only root may mount them', 1 unless $small;

	# The data's.
	my $node = bbm_node('disk', conf => "bbm.naptime = 0\nmax_wal_size = 1GB\n");
	mkdir "$small/data/place" or die $!;
	value($node, "CREATE TABLESPACE small LOCATION '$small/data/place'");
	counter_table($node, 't', 2000);
	value($node, 'ALTER TABLE t ADD COLUMN filler text, SET TABLESPACE small');
	my $job = q(UPDATE t SET n = n + 1, filler = repeat('x', 2000) WHERE id BETWEEN $1 AND $2);
	define($node, 'm', 't', job => $job =~ s/'/''/gr, batch_size => 100, workers => 2);
	my $filler = fill("$small/data");
	value($node, q(SELECT bbm_start('m')));
	ok($node->poll_query_until('postgres', q(SELECT last_error LIKE '53100:%' FROM bbm_status_detail('m'))), 'a full disk is met');
	ok($node->poll_query_until('postgres', q(SELECT waiting_on LIKE '53100: could not extend file%' FROM bbm_status_detail('m'))), '... and is what is waited for');
	is(value($node, q(SELECT status FROM bbm_status('m'))), 'running', 'and fails no migration');
	is(value($node, q(SELECT coalesce(max(attempts), 0) FROM bbm_jobs('m') WHERE status <> 'running')), 0, 'nor costs an attempt');
	unlink $filler or die $!;
	finished($node, 'm', 'with room again it finishes');
	once_each($node, 't', 2000);
	ranges_ok($node, 'm', 't');
	no_workers($node);
	log_clean($node);
	$node->stop;

	# WAL's: no server survives that, but the migration does.
	$node = bbm_node('wal', conf => "bbm.naptime = 0\nmax_wal_size = 8MB\nmin_wal_size = 2MB\nwal_recycle = off\n",
		initdb => [ '--wal-segsize=1', '-X', "$small/wal/pg_wal" ]);
	counter_table($node, 't', 20000);
	define($node, 'm', 't', batch_size => 50, workers => 2);
	value($node, q(CREATE FUNCTION slowly(lo bigint, hi bigint) RETURNS void LANGUAGE sql AS
		'UPDATE public.t SET n = n + 1 WHERE id BETWEEN lo AND hi; SELECT pg_sleep(0.002)'));
	value($node, q(SELECT bbm_alter('m', job => 'slowly')));
	$filler = fill("$small/wal");
	value($node, q(SELECT bbm_start('m')));
	my $down = 0;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$down = log_since($node) =~ /PANIC:.*No space left on device/ and last;
		select(undef, undef, undef, 0.1);
	}
	ok($down, 'without room for WAL the server goes down');
	unlink $filler or die $!;
	$node->stop('immediate', fail_ok => 1);
	start_anyway($node);
	finished($node, 'm', 'and with it comes back and finishes');
	once_each($node, 't', 20000);
	ranges_ok($node, 'm', 't');
	no_workers($node);
	log_clean($node, undef, qr/No space left on device|terminated by signal 6/);
	$node->stop;
}

# Locks.
my ($out, $err);
my $node = bbm_node('locks', conf => "bbm.naptime = 0\nmax_locks_per_transaction = 10\nmax_connections = 12\nlog_min_messages = debug1\n");
counter_table($node, 't', 500);
# stops in its batch until the locks are taken, which nobody can write down then
value($node, <<'EOS');
CREATE FUNCTION until_taken(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE public.t SET n = n + 1 WHERE id BETWEEN lo AND hi;
	WHILE EXISTS (SELECT FROM public.gate WHERE NOT open)
		AND NOT EXISTS (SELECT FROM pg_stat_get_activity(NULL) WHERE application_name = 'taken')
	LOOP
		PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
	END LOOP;
END $$
EOS
value($node, q(SELECT bbm_create('m', 't', 'until_taken', batch_size => 50, workers => 2, start => true)));
reach_gate($node, 2);
my $launcher = launcher_pid($node);
my @workers = split / /, value($node, q(SELECT string_agg(pid::text, ' ') FROM bbm_workers() WHERE job IS NOT NULL));
# nobody can even log in then, nor read a view of shared catalogs, so one session does and sees all of it
my $hog = background($node, 'postgres', <<'EOS', q(SET application_name = 'taken'), <<'EOS2');
DO $$
BEGIN
	FOR i IN 1 .. 100000 LOOP
		PERFORM pg_advisory_lock(i);
	END LOOP;
EXCEPTION WHEN out_of_memory THEN
	RAISE NOTICE 'all are taken';
END $$;
DO $$
BEGIN
	PERFORM bbm_pause('m');
EXCEPTION WHEN out_of_memory THEN
	RAISE NOTICE 'a pause is refused';
END $$;
EOS
DO $$
DECLARE
	i int := 1000000;
BEGIN
	-- also what the workers let go of, until they have met it
	WHILE (pg_stat_file('enough', true)).size IS NULL LOOP
		BEGIN
			LOOP
				PERFORM pg_advisory_lock(i);
				i := i + 1;
			END LOOP;
		EXCEPTION WHEN out_of_memory THEN
			NULL;
		END;
		PERFORM pg_sleep(0.001);
	END LOOP;
END $$;
EOS2
my $met = 0;
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	$met = log_since($node) =~ /\[bbm worker\].*out of shared memory/ and last;
	select(undef, undef, undef, 0.1);
}
# one is missing, and cannot be started
kill 'TERM', @workers;
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if log_since($node) =~ /\[bbm launcher\].*cannot go on just now: out of shared memory/;
	select(undef, undef, undef, 0.1);
}
select(undef, undef, undef, 0.5);
append_to_file($node->data_dir . '/enough', "x");
($out, $err) = finish_background($hog);
like($err, qr/all are taken.*a pause is refused/s, 'with all locks of the server taken a pause is refused, clearly');
gate($node, 'open');
ok($met, 'the workers met it');
finished($node, 'm', 'when there are locks again, it finishes');
is(launcher_pid($node), $launcher, 'and the launcher is the same');
once_each($node, 't', 500);
ranges_ok($node, 'm', 't');
# a worker that gets no lock to record its job exits, and another takes the job over, once: an attempt, as after any crash
cmp_ok(value($node, q(SELECT max(attempts) FROM bbm_jobs('m'))), '<=', 2, 'what was refused was no attempt');
workers_gone($node);
# the processes that start meanwhile cannot do without locks
my $no_locks = qr/\[bbm (worker|discovery)\] .*ERROR:  out of shared memory/;

# Connections: workers have slots of their own.
gate($node, 'open');
value($node, 'UPDATE t SET n = 0');
define($node, 'c', 't', job => 'gated', batch_size => 50, workers => 2);
# the last connection is a session that stays, as one that has just ended may still have its own
my $last = $node->background_psql('postgres');
my $until = sub {
	my ($condition) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if $last->query_safe("SELECT $condition FROM pg_stat_activity WHERE backend_type = 'client backend'") eq 't';
		select(undef, undef, undef, 0.1);
	}
	return;
};
$until->('count(*) = 1');
my @idle = map { background($node, 'postgres', "SET application_name = 'idle'", 'SELECT pg_sleep(1000)') } 1 .. 11;
$until->(q(count(*) FILTER (WHERE application_name = 'idle' AND wait_event = 'PgSleep') = 11));
$last->query_safe(q(SELECT bbm_start('c')));
is( $last->query_safe(q(SELECT bbm_wait('c', '3 minutes'), (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'))),
	'finished|12', 'with all connections in use, a migration starts and finishes');
$last->query_safe("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'idle'");
$until->('count(*) = 1');
$last->quit;
finish_background($_) for @idle;
once_each($node, 't', 500);
no_workers($node);
log_clean($node, undef, $no_locks);
$node->stop;

# A clock that is set back.
$node = bbm_node('clock', start => 0, conf => "bbm.naptime = 1s\nbbm.retry_delay = 1s\n");
start_with_clock($node);
value($node, 'CREATE EXTENSION bbm');
counter_table($node, 't', 2000);
# pg_sleep would sleep for the hour
value($node, 'CREATE FUNCTION busy(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		UPDATE public.t SET n = n + 1 WHERE id BETWEEN lo AND hi;
		WHILE lo > 50 AND EXISTS (SELECT FROM public.gate WHERE NOT open) LOOP
		END LOOP;
	END $$');
define($node, 'm', 't', job => 'busy', batch_size => 50, workers => 2, start => 'true');
# held up in a session: by a lock, and after errors in a row
counter_table($node, $_, 2000) for 'u', 'v';
value($node, "CREATE TABLE gate_$_ AS SELECT true AS open") for 'u', 'v';
value($node, 'CREATE FUNCTION waits(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		UPDATE public.u SET n = n + 1 WHERE id BETWEEN lo AND hi;
		WHILE lo > 50 AND EXISTS (SELECT FROM public.gate_u WHERE NOT open) LOOP
		END LOOP;
	END $$');
value($node, 'CREATE FUNCTION breaks(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		UPDATE public.v SET n = n + 1 WHERE id BETWEEN lo AND hi;
		IF EXISTS (SELECT FROM public.gate_v WHERE NOT open) THEN
			RAISE division_by_zero;
		END IF;
	END $$');
value($node, 'UPDATE gate_u SET open = false');
value($node, 'UPDATE gate_v SET open = false');
define($node, 'locked', 'u', job => 'waits', batch_size => 50);
define($node, 'breaks', 'v', job => 'breaks', batch_size => 20, max_attempts => 100, settings => q(ARRAY['bbm.retry_delay=20s']));
my $run_locked = $node->background_psql('postgres', on_error_stop => 0);
my $run_breaks = $node->background_psql('postgres', on_error_stop => 0);
my $holder = $node->background_psql('postgres');
$run_locked->query_until(qr/begins/, "\\echo begins\nCALL bbm_run('locked');\n\\echo ended\n");
$run_breaks->query_until(qr/begins/, "\\echo begins\nCALL bbm_run('breaks');\n\\echo ended\n");
$node->poll_query_until('postgres', q(SELECT jobs_running = 1 AND jobs_finished = 1 FROM bbm_status_detail('locked')));
$holder->query_safe(q(BEGIN; SELECT bbm_alter('locked', batch_size => 100)));
value($node, 'UPDATE gate_u SET open = true');
$node->poll_query_until('postgres', q(SELECT waiting_on LIKE 'a lock on%' FROM bbm_status_detail('locked')));
$node->poll_query_until('postgres', q(SELECT waiting_on LIKE 'a while, after % errors in a row' FROM bbm_status_detail('breaks')));
$node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM bbm_jobs('m') WHERE status = 'running'));
$node->poll_query_until('postgres', q(SELECT jobs_finished > 0 FROM bbm_status_detail('m')));
my $waiter = background($node, 'postgres', q(SET application_name = 'waiter'), q(SELECT bbm_wait('m', '5 s')));
$node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'waiter' AND query LIKE '%bbm_wait%'));
my $before = value($node, 'SELECT clock_timestamp()');
set_clock('-3600');
is(value($node, "SELECT clock_timestamp() < '$before'"), 't', 'the clock is set back by an hour');
is(value($node, "SELECT last_progress_at <= clock_timestamp() FROM bbm_status_detail('m')"), 't', 'nothing was done in the future');
is(value($node, "SELECT count(*) FROM bbm_migration_metrics WHERE last_progress_at > clock_timestamp()"), 0, 'nor by the metrics');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'waiter')), 'a wait with a limit ends');
$holder->query_safe('COMMIT');
$holder->quit;
finished($node, 'locked', 'a session that waited for a lock goes on');
value($node, 'UPDATE gate_v SET open = true');
ok($node->poll_query_until('postgres', q(SELECT jobs_finished > 3 FROM bbm_status_detail('breaks'))), 'and so does one that waited after errors');
value($node, q(SELECT bbm_retry('breaks')));
finished($node, 'breaks');
$_->quit for $run_locked, $run_breaks;
gate($node, 'open');
finished($node, 'm', 'what was at work finishes');
once_each($node, 't', 2000);
ranges_ok($node, 'm', 't');
define($node, 'next', 't', start => 'true');
finished($node, 'next', 'what is started then does');
is(value($node, "SELECT started_at < '$before' FROM bbm_status_detail('next')"), 't', 'by workers with that clock');
workers_gone($node);
# nobody announces this one
define($node, 'found', 't');
value($node, q(SET session_replication_role = replica; UPDATE batched_background_migrations SET status = 1 WHERE name = 'found'));
finished($node, 'found', 'and so does one that only a poll can find');
is(value($node, 'SELECT min(n), max(n) FROM t'), '3|3', 'each row once, by each');

# A retry waits for the time that its row says, unless asked for.
value($node, 'CREATE FUNCTION fails(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		IF EXISTS (SELECT FROM public.gate WHERE NOT open) THEN
			RAISE division_by_zero;
		END IF;
	END $$');
gate($node, 'shut');
define($node, 'fails', 't', job => 'fails', batch_size => 2000, max_attempts => 100, start => 'true');
$node->poll_query_until('postgres', q(SELECT attempt >= 1 FROM bbm_status_detail('fails')));
set_clock('-7200');
gate($node, 'open');
value($node, q(SELECT bbm_retry('fails')));
finished($node, 'fails', 'bbm_retry does not wait for the clock');
no_workers($node);

# A day without anything to do: the launcher is there, and what is due by then is done.
gate($node, 'shut');
define($node, 'due', 't', job => 'fails', batch_size => 2000, settings => q(ARRAY['bbm.retry_delay=10h', 'bbm.retry_max_delay=20h']), start => 'true');
$node->poll_query_until('postgres', q(SELECT waiting_on = 'retry of a failed job' FROM bbm_status_detail('due')));
workers_gone($node);
gate($node, 'open');
$launcher = launcher_pid($node);
is(value($node, q(SELECT status, attempt FROM bbm_status_detail('due'))), 'running|1', 'a retry is due in hours, and no worker waits for it');
set_clock('86400');
finished($node, 'due', 'a day later it is done');
cmp_ok(value($node, q(SELECT finished_at - started_at > '20 hours' FROM bbm_status_detail('due'))), 'eq', 't', 'after a day by the clock');
define($node, 'day', 't', start => 'true');
finished($node, 'day', 'and what is started then finishes');
is(value($node, 'SELECT min(n), max(n) FROM t'), '4|4', 'each row once');
is(launcher_pid($node), $launcher, 'by the same launcher');
no_workers($node);
log_clean($node);
done_testing();
