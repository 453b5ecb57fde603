# Yielding: whoever waits for a lock of a batch gets it in bbm.max_blocking_time and a
# little; who deadlocks with one is not the victim; a batch has a time limit.  None of it
# is a failed attempt, all of it is counted, and every row is done once in the end.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

# Where a time limit is not the matter, it is off or far away.
my $node = bbm_node(
	'yielding',
	conf => <<'EOC');
bbm.max_blocking_time = 500ms
bbm.lock_timeout = 180s
# times are compared, and must not contain pauses for busy CPUs
bbm.min_pace = 1
EOC

# Times are bounds for a machine with other things to do; a batch at the gate would
# last for ever.
my $bound = 60;

my $asleep = q(SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event = 'PgSleep');

sub setting
{
	my ($name, $to) = @_;
	value($node, "ALTER SYSTEM SET $name = '$to'");
	value($node, 'SELECT pg_reload_conf()');
	$node->poll_query_until('postgres', "SELECT current_setting('$name') = '$to'");
	return;
}

sub requeue_reasons
{
	my ($name) = @_;
	return value($node, "SELECT requeue_reasons FROM bbm_status_detail('$name')");
}

# Runs a statement, once the condition is true: it waits for the batch in flight, but not long.
sub gets_through
{
	my ($on, $what, $sql, $condition) = @_;
	$on->poll_query_until('postgres', $condition || $asleep);
	my $started = time;
	my ($rc, $out, $err) =
	  $on->psql('postgres', "SET deadlock_timeout = '10min'; SET lock_timeout = '120s'; $sql");
	my $took = time - $started;
	is($rc, 0, "$what gets its lock") or diag($err);
	cmp_ok($took, '>', 0.3, "$what: had to wait");
	cmp_ok($took, '<', $bound, sprintf('%s: had it after %.2f s', $what, $took));
	return;
}

# A migration whose batches stop at the gate.
sub begin_gated
{
	my ($table, $rows, %o) = @_;
	counter_table($node, $table, $rows);
	gate($node, 'shut');
	define($node, $table, $table, job => 'gated', start => 'true', %o);
	return;
}

sub ends_well
{
	my ($name, $rows) = @_;
	gate($node, 'open');
	finished($node, $name);
	once_each($node, $name, $rows);
	ranges_ok($node, $name, $name);
	is(value($node, "SELECT max(attempts) FROM bbm_jobs('$name')"), 1, "$name: none of it was an attempt");
	return;
}

# DDL, a table lock, an index, an update of one row, against a batch that does not end.
begin_gated('a', 1000, batch_size => 1000);
gets_through($node, 'ALTER TABLE', 'ALTER TABLE a ADD COLUMN extra integer');
like(requeue_reasons('a'), qr/^{"blocking others": [1-9]\d*}$/, 'the batch was requeued for that');
is( value($node, q(SELECT last_error FROM bbm_status_detail('a'))),
	'57014: other sessions waited too long for locks of the batch', 'which bbm_status says');
gets_through($node, 'LOCK TABLE', 'BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE; COMMIT');
gets_through($node, 'an UPDATE of a row', 'UPDATE a SET extra = 1 WHERE id = 1');
gets_through($node, 'a foreign key', 'CREATE TABLE a2 (id bigint REFERENCES a)');
gets_through($node, 'CREATE INDEX CONCURRENTLY', 'CREATE INDEX CONCURRENTLY ON a (extra)');
is(value($node, q(SELECT max(reduced_sub_batch_size) BETWEEN 1 AND 63 FROM batched_background_migration_jobs)), 't', 'each time the batch is halved');
is(value($node, q(SELECT count(*) FROM bbm_jobs('a') WHERE requeue_reasons ? 'blocking others')), 1, 'bbm_jobs says which job');
ends_well('a', 1000);
cmp_ok(value($node, q(SELECT count(DISTINCT xmin::text) FROM a)), '>', 3, 'it was done in several commits');
like(log_since($node), qr/requeued job \d+: other sessions waited too long for locks of the batch/, 'the server log says so');

# The launcher is not involved, and has nothing else to do meanwhile.
sub launcher_wakes
{
	my $status = slurp_file('/proc/' . launcher_pid($node) . '/status');
	return $status =~ /^voluntary_ctxt_switches:\s*(\d+)/m ? $1 : 0;
}
SKIP:
{
	skip 'no /proc', 1 unless -r '/proc/self/status';
	begin_gated('b', 100);
	reach_gate($node);
	my $before = launcher_wakes();
	sleep 2;
	cmp_ok(launcher_wakes() - $before, '<=', 1, 'a batch in flight does not wake the launcher');
	ends_well('b', 100);
	workers_gone($node);
	$before = launcher_wakes();
	sleep 2;
	cmp_ok(launcher_wakes() - $before, '<=', 1, 'nor is it awake when there is nothing to do');
}

# The application updates rows one at a time beside a batch that is far too large.
counter_table($node, 'c', 2000);
value($node, <<'EOS');
ALTER TABLE c ADD COLUMN app integer NOT NULL DEFAULT 0;
CREATE FUNCTION slowly_c(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	done bigint;
BEGIN
	UPDATE c SET n = n + 1 WHERE id BETWEEN lo AND hi;
	GET DIAGNOSTICS done = ROW_COUNT;
	PERFORM pg_sleep(0.005 * done);
	RETURN done;
END $$;
EOS
my $script = "$PostgreSQL::Test::Utils::tmp_check/update.sql";
append_to_file($script, "\\set id random(1, 2000)\nUPDATE c SET app = app + 1 WHERE id = :id;\n\\sleep 5 ms\n");
define($node, 'c', 'c', job => 'slowly_c', batch_size => 2000, start => 'true');
$node->poll_query_until('postgres', $asleep);
my $prefix = "$PostgreSQL::Test::Utils::tmp_check/pgbench";
{
	local %ENV = $node->_get_env();
	ok( run_log([
			'pgbench', '-n', '-T', 8, '-c', 2, '-j', 2, '-f', $script, '-l', "--log-prefix=$prefix", $node->connstr('postgres') ]),
		'pgbench runs beside it');
}
my ($worst, $updates) = (0, 0);
for my $file (glob "$prefix.*")
{
	for my $line (split /\n/, slurp_file($file))
	{
		my $ms = (split ' ', $line)[2] / 1000;
		$worst = $ms if $ms > $worst;
		$updates++;
	}
}
note sprintf '%d updates, the slowest %.0f ms', $updates, $worst;
cmp_ok($updates, '>', 100, 'the application goes on');
cmp_ok($worst, '<', 1000 * $bound, 'and never waits for long');
finished($node, 'c');
once_each($node, 'c', 2000);
is(value($node, 'SELECT sum(app) FROM c'), $updates, 'no update of the application was lost');
like(requeue_reasons('c'), qr/blocking others/, 'the batch yielded');
is(value($node, q(SELECT max(attempts) FROM bbm_jobs('c'))), 1, 'and needed one attempt');

# A job may set what it likes: it is watched all the same, and nothing of it lasts.
counter_table($node, 'd', 20);
value($node, <<'EOS');
CREATE TABLE seen (what text);
CREATE FUNCTION stubborn(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO seen SELECT format('%s %s %s', current_setting('lock_timeout'), current_setting('deadlock_timeout'),
								   current_setting('statement_timeout'));
	SET lock_timeout = 0;
	SET deadlock_timeout = '1h';
	SET statement_timeout = 0;
	UPDATE d SET n = n + 1 WHERE id BETWEEN lo AND hi;
	BEGIN
		PERFORM pg_advisory_xact_lock_shared(13);
	EXCEPTION WHEN query_canceled THEN
		-- it ignores the cancel
		PERFORM pg_advisory_xact_lock_shared(13);
	END;
END $$;
EOS
my $waits = q(SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type IN ('bbm worker', 'client backend')
	AND wait_event_type = 'Lock' AND wait_event = 'advisory');
my $hold = $node->background_psql('postgres');
$hold->query_safe('SELECT pg_advisory_lock(13)');
# a batch in flight keeps the settings it started with
setting('bbm.max_batch_time', '3s');
setting('bbm.lock_timeout', '200ms');
define($node, 'd', 'd', job => 'stubborn', batch_size => 10, start => 'true');
gets_through($node, 'DDL against a job that waits for ever', 'ALTER TABLE d ADD COLUMN extra integer', $waits);
$node->poll_query_until('postgres', q(SELECT requeue_reasons ? 'time limit' FROM bbm_status_detail('d')));
like(requeue_reasons('d'), qr/time limit/, 'the time limit ends what waits for a lock without a limit');
is( value($node, q(SELECT bool_and(error_message ~ 'took too long') FROM bbm_jobs('d') WHERE error_message !~ 'other sessions|lock timeout')), 't',
	'and says so');
$hold->quit;
setting('bbm.max_batch_time', '10min');
finished($node, 'd');
once_each($node, 'd', 20);
is(value($node, q(SELECT string_agg(DISTINCT what, ', ') FROM seen)), '200ms 10ms 0', 'settings of a job end with it');
setting('bbm.lock_timeout', '1min');

# A lock that a job leaves behind in its session is not what a later batch is stopped for.
counter_table($node, 'e', 30);
value($node, <<'EOS');
CREATE FUNCTION leaves_lock(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_lock(14);
	UPDATE e SET n = n + 1 WHERE id BETWEEN lo AND hi;
	PERFORM pg_sleep(1);
END $$;
EOS
define($node, 'e', 'e', job => 'leaves_lock', batch_size => 10, start => 'true');
$node->poll_query_until('postgres', $asleep);
my $waiter = background($node, 'postgres', q(SELECT 'got it' FROM pg_advisory_lock(14)));
finished($node, 'e');
is((finish_background($waiter))[0], 'got it', 'a lock that a job has left is had when the worker is gone');
cmp_ok(value($node, q(SELECT requeued FROM bbm_status_detail('e'))), '<=', 1, 'and batches after it are not requeued');
once_each($node, 'e', 30);

# Our own do not yield to each other.
counter_table($node, 'f', 30);
value($node, <<'EOS');
CREATE FUNCTION one_by_one(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE f SET n = n + 1 WHERE id BETWEEN lo AND hi;
	PERFORM pg_advisory_xact_lock(15);
	WHILE EXISTS (SELECT FROM gate WHERE NOT open) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
EOS
gate($node, 'shut');
define($node, 'f', 'f', job => 'one_by_one', batch_size => 10, workers => 3, start => 'true');
ok($node->poll_query_until('postgres', q(SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 15 AND waitstart < clock_timestamp() - interval '1.5 s')),
	'a worker waits for another, for long');
gate($node, 'open');
finished($node, 'f');
once_each($node, 'f', 30);
is(value($node, q(SELECT requeued, requeue_reasons IS NULL FROM bbm_status_detail('f'))), '0|t', 'which does not yield to it');

# ... but to those who queue behind one of them.
counter_table($node, 'm', 100);
value($node, <<'EOS');
CREATE FUNCTION two_locks(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF lo > 1 THEN
		LOCK TABLE m IN SHARE ROW EXCLUSIVE MODE;
	END IF;
	PERFORM gated_m(lo, hi);
END $$;
EOS
gate($node, 'shut');
define($node, 'm', 'm', job => 'two_locks', batch_size => 20, workers => 2, start => 'true');
gets_through($node, 'an UPDATE behind a worker that waits for another', 'UPDATE m SET id = id WHERE id = 100',
	q(SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event_type = 'Lock' AND wait_event = 'relation'));
gate($node, 'open');
finished($node, 'm');
once_each($node, 'm', 100);
like(requeue_reasons('m'), qr/blocking others/, 'the worker in front yields');

# A cancel says nothing of the size.
begin_gated('g', 100);
reach_gate($node);
is(value($node, q(SELECT bbm_cancel('g'))), 1, 'a batch is cancelled');
is(requeue_reasons('g'), '{"cancelled": 1}', 'that is counted');
is(value($node, q(SELECT count(reduced_sub_batch_size) FROM batched_background_migration_jobs j JOIN batched_background_migrations m
	ON m.id = j.batched_background_migration_id WHERE m.name = 'g')), 0, 'and does not make the batch smaller');
value($node, q(SELECT bbm_start('g')));

# A batch over its time limit, that cannot be made smaller: in the end it counts.
value($node, q(SELECT bbm_pause('g', cancel => true, wait => true)));
value($node, q(SELECT bbm_alter('g', max_attempts => 1)));
value($node, q(UPDATE batched_background_migration_jobs SET no_progress = 900, reduced_sub_batch_size = 1, next_attempt_at = NULL
	WHERE batched_background_migration_id = (SELECT id FROM batched_background_migrations WHERE name = 'g')));
setting('bbm.max_batch_time', '100ms');
value($node, q(SELECT bbm_start('g')));
ok($node->poll_query_until('postgres', q(SELECT status = 'failed' FROM bbm_status('g'))), 'a batch that never gets done fails its migration');
is(value($node, q(SELECT last_error FROM bbm_status_detail('g'))), '57014: the batch took too long', 'with the reason');
is(value($node, q(SELECT failure_error_code, error_detail ~ 'each time since the last progress' FROM batched_background_migrations WHERE name = 'g')),
	'4|t', 'its code and the detail');
is(value($node, q(SELECT no_progress, attempts, requeue_reasons->'time limit' FROM batched_background_migration_jobs ORDER BY id DESC LIMIT 1)),
	'950|1|1', 'it was requeued once more before');
setting('bbm.max_batch_time', '10min');
value($node, q(SELECT bbm_retry('g')));
ends_well('g', 100);

# Without ranges, the number that the job gets becomes smaller.
counter_table($node, 'h', 100);
value($node, <<'EOS');
ALTER TABLE h ADD COLUMN done integer;
CREATE FUNCTION fill(tab text, col text, lo bigint, hi bigint, size integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	done_now bigint;
BEGIN
	UPDATE h SET n = n + 1, done = 1 WHERE id IN (SELECT id FROM h WHERE done IS NULL LIMIT size);
	GET DIAGNOSTICS done_now = ROW_COUNT;
	WHILE EXISTS (SELECT FROM gate WHERE NOT open) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN done_now;
END $$;
EOS
gate($node, 'shut');
value($node, 'CREATE INDEX ON h (done) WHERE done IS NULL');
value($node, q(SELECT bbm_create('h', 'h', 'fill', column_name => 'done', batching_strategy => 'NullKeySetBatchingStrategy', batch_size => 40, start => true)));
gets_through($node, 'LOCK TABLE against a job without ranges', 'BEGIN; LOCK TABLE h; COMMIT');
gate($node, 'open');
finished($node, 'h');
once_each($node, 'h', 100);
cmp_ok(value($node, q(SELECT max(rows) FROM bbm_jobs('h') WHERE requeued > 0)), '<=', 20, 'the job gets half the size');

# Deadlocks.  The others check for one later than bbm, but not so late that they would not
# find it before bbm.lock_timeout; and nobody yields because others wait.
setting('bbm.max_blocking_time', '0');
counter_table($node, 'i', 10);
value($node, <<'EOS');
CREATE TABLE other (id integer PRIMARY KEY);
INSERT INTO other VALUES (1), (2);
CREATE FUNCTION upward(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE i SET n = n + 1 WHERE id = lo;
	PERFORM pg_advisory_xact_lock_shared(16);
	FOR k IN lo + 1 .. hi LOOP
		UPDATE i SET n = n + 1 WHERE id = k;
	END LOOP;
END $$;
EOS
my $app = q(SET deadlock_timeout = '90s');
$hold = $node->background_psql('postgres');
my $at_lock = q(SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name IN ('bbm worker', 'run') AND wait_event_type = 'Lock' AND wait_event);
my %order = (
	'the application waits first' => sub {
		my ($one, $two) = @_;
		$hold->query_safe('SELECT pg_advisory_lock(16)');
		$one->query_safe('BEGIN; UPDATE i SET id = id WHERE id = 10');
		$_[2]->();
		$node->poll_query_until('postgres', "$at_lock = 'advisory'");
		my $update = background($node, 'postgres', $app, q(UPDATE i SET id = id WHERE id = 1; SELECT 'first done'));
		$node->poll_query_until('postgres',
			q(SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'UPDATE i SET id = id WHERE id = 1;%' AND wait_event_type = 'Lock'));
		# the one who waits is in the cycle through the lock that $one takes last
		$hold->query_safe('SELECT pg_advisory_unlock(16)');
		$node->poll_query_until('postgres', "$at_lock = 'transactionid'");
		my $out = $one->query_safe(q(UPDATE i SET id = id WHERE id = 1; COMMIT; SELECT 'second done'));
		return join ' ', (finish_background($update))[0], $out;
	},
	'the batch waits first' => sub {
		my ($one, $two) = @_;
		$one->query_safe('BEGIN; UPDATE i SET id = id WHERE id = 10');
		$_[2]->();
		$node->poll_query_until('postgres', "$at_lock = 'transactionid'");
		return $one->query_safe(q(UPDATE i SET id = id WHERE id = 1; COMMIT; SELECT 'first done second done'));
	},
	'a circle of three' => sub {
		my ($one, $two) = @_;
		$one->query_safe('BEGIN; UPDATE i SET id = id WHERE id = 10');
		$two->query_safe('BEGIN; DELETE FROM other WHERE id = 1');
		$_[2]->();
		$node->poll_query_until('postgres', "$at_lock = 'transactionid'");
		$one->query_until(qr/sent/, "\\echo sent\nDELETE FROM other WHERE id = 1;\n");
		$node->poll_query_until('postgres',
			q(SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'DELETE FROM other%' AND wait_event_type = 'Lock'));
		my $out = $two->query_safe(q(UPDATE i SET id = id WHERE id = 1; ROLLBACK; SELECT 'second done'));
		return join ' ', $one->query_safe(q(ROLLBACK; SELECT 'first done')), $out;
	});
for my $driver ('worker', 'foreground')
{
	for my $order (sort keys %order)
	{
		my ($one, $two) = map { $node->background_psql('postgres') } 1 .. 2;
		$_->query_safe($app) for $one, $two;
		value($node, 'UPDATE i SET n = 0');
		value($node, q(SELECT bbm_drop('i', if_exists => true)));
		define($node, 'i', 'i', job => 'upward');
		my $run;
		my $started = time;
		my $said = $order{$order}->(
			$one, $two,
			sub {
				$driver eq 'worker' ? value($node, q(SELECT bbm_start('i')))
				  : ($run = background($node, 'postgres', q(SET application_name = 'run'), q(CALL bbm_run('i'))));
			});
		like($said, qr/first done.*second done/s, "$driver, $order: everybody else gets done");
		cmp_ok(time - $started, '<', $bound, 'before they check for a deadlock themselves');
		$_->quit for $one, $two;
		finished($node, 'i');
		once_each($node, 'i', 10);
		like(requeue_reasons('i'), qr/^{"deadlock": [1-9]\d*}$/, 'the batch was the victim');
		is(value($node, q(SELECT max(attempts) FROM bbm_jobs('i'))), 1, 'and that was no attempt');
		if ($run)
		{
			my ($out, $err) = finish_background($run);
			unlike($err, qr/ERROR/, 'the session that ran it has not noticed');
		}
	}
}
$hold->quit;
setting('bbm.max_blocking_time', '500ms');

# Pins of buffers: a vacuum that must freeze a page waits until nobody has a pin of it, and a batch may keep one (here with a
# cursor).  No statement of the application waits for that, and the vacuum goes on when the batch ends, whatever the pace is.
counter_table($node, 'pinned', 100);
gate($node, 'shut');
value($node, q(CREATE FUNCTION pins(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
	DECLARE
		page CURSOR FOR SELECT n FROM public.pinned;
		n integer;
	BEGIN
		OPEN page;
		FETCH page INTO n;
		WHILE EXISTS (SELECT FROM public.gate WHERE NOT open) LOOP PERFORM pg_sleep(0.01); END LOOP;
		RETURN 0;
	END $$));
define($node, 'pinned', 'pinned', job => 'pins', start => 'true');
reach_gate($node);
my $vacuum = background($node, 'postgres', q(SET application_name = 'vacuum'), 'VACUUM (FREEZE) pinned');
# BufferPin, and from 19 on Buffer
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'vacuum' AND wait_event_type ~ '^Buffer')),
	'a vacuum waits for a pin of a batch');
is(value($node, q(SET statement_timeout = '60s'; UPDATE pinned SET n = 0 WHERE id = 50; SELECT count(*) FROM pinned)), 100, 'a statement of the application does not');
is(value($node, q(SELECT requeued FROM bbm_status_detail('pinned'))), 0, 'nor does the batch yield for it');
gate($node, 'open');
is((finish_background($vacuum))[1], '', 'the vacuum goes on with the end of the batch');
finished($node, 'pinned');

# A session that runs a migration itself yields as well, and goes on; its user's own
# cancel still ends it.  No worker is to be faster.
setting('bbm.enabled', 'off');
counter_table($node, 'j', 100);
gate($node, 'shut');
define($node, 'j', 'j', job => 'gated');
my $run = background($node, 'postgres', q(SET application_name = 'run'), q(CALL bbm_run('j')));
my $at_gate = q(SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'run' AND wait_event = 'PgSleep');
gets_through($node, 'ALTER TABLE against a session', 'ALTER TABLE j ADD COLUMN extra integer', $at_gate);
$node->poll_query_until('postgres', $at_gate);
value($node, q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'run'));
like((finish_background($run))[1], qr/canceling statement due to user request/, 'a cancel of its user ends it');
$run = background($node, 'postgres', q(SET application_name = 'run'), q(CALL bbm_run('j')));
ends_well('j', 100);
unlike((finish_background($run))[1], qr/ERROR/, 'it ends well');
setting('bbm.enabled', 'on');
no_workers($node);

# Whether others need a CPU: a session that waits does not, one that executes does, and so does another program.
value($node, "CREATE FUNCTION cpus_are_ours_for() RETURNS bigint LANGUAGE c AS '$ENV{BBM_TEST_MODULE}', 'bbm_test_cpus_are_ours_for'");
value(
	$node, <<'EOS');
CREATE FUNCTION ours_within(seconds int) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + make_interval(secs => seconds);
BEGIN
	WHILE clock_timestamp() < until LOOP
		IF cpus_are_ours_for() > 300000 THEN
			RETURN true;
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
	RETURN false;
END $$
EOS
my $ours = 'SELECT ours_within(%d)';

# The time that all programs have run, in hundredths of a second.
sub programs
{
	my ($user, $nice) = slurp_file('/proc/stat') =~ /^cpu +(\d+) (\d+)/;
	return $user + $nice;
}

# Is it said within a minute that nobody needs a CPU?  If not while nobody does, the test fails; undefined: the machine has other things to do.
sub nobody_needs_one
{
	my ($what) = @_;
	for (1 .. 12)
	{
		my $before = programs();
		if (value($node, sprintf($ours, 5)) eq 't')
		{
			pass($what);
			return 1;
		}
		if (programs() - $before < 50)
		{
			fail($what);
			return 1;
		}
	}
	return undef;
}

my $waiting = background($node, 'postgres', q(SET application_name = 'waits'), q(SELECT pg_sleep(600)));
my $others = 'programs outside of the test keep the CPUs busy';
SKIP:
{
	nobody_needs_one('nobody needs a CPU but bbm, whoever waits') or skip $others, 5;
	my $executes = background($node, 'postgres', q(SET application_name = 'executes'), q(DO 'BEGIN LOOP END LOOP; END'));
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'executes' AND state = 'active'});
	is(value($node, sprintf($ours, 2)), 'f', 'a session that executes needs one');
	value($node, q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'executes'));
	finish_background($executes);
	nobody_needs_one('and needs none when it has ended') or skip $others, 3;
	my $program = fork();
	if (!$program)
	{
		1 while 1;
	}
	is(value($node, sprintf($ours, 2)), 'f', 'another program needs one');
	kill 'KILL', $program;
	waitpid $program, 0;
	nobody_needs_one('and needs none when it has ended') or skip $others, 1;
}
value($node, q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'waits'));
finish_background($waiting);
log_clean($node);
$node->stop;

# All this does not need the library preloaded.
my $plain = bbm_node('plain', preload => 0, conf => "bbm.max_blocking_time = 500ms\nbbm.lock_timeout = 180s\nbbm.min_pace = 1\n");
for my $table ('k', 'l')
{
	counter_table($plain, $table, 100);
	define($plain, $table, $table, job => 'gated');
}
$run = background($plain, 'postgres', q(SET application_name = 'run'), q(CALL bbm_run('k')));
gets_through($plain, 'ALTER TABLE, not preloaded, against a session', 'ALTER TABLE k ADD COLUMN extra integer', $at_gate);
gate($plain, 'open');
unlike((finish_background($run))[1], qr/ERROR/, 'the session goes on');
gate($plain, 'shut');
value($plain, q(SELECT bbm_start('l')));
value($plain, q(SELECT bbm_launch_worker('1 s')));
gets_through($plain, 'ALTER TABLE, not preloaded, against a worker', 'ALTER TABLE l ADD COLUMN extra integer');
gate($plain, 'open');
for my $table ('k', 'l')
{
	finished($plain, $table);
	once_each($plain, $table, 100);
	like(value($plain, "SELECT requeue_reasons FROM bbm_status_detail('$table')"), qr/blocking others/, 'the batch yielded');
}
log_clean($plain);
done_testing();
