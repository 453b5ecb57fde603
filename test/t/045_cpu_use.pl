# How many CPUs others use, beside bbm's own processes: a session that becomes one of these may
# have run for long before that, on its own account.  And what a batch that fails costs them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('cpu_use', conf => "bbm.enabled = off\n");

counter_table($node, 'm', 10);
define($node, 'm', 'm', job => 'gated');
value($node, "CREATE FUNCTION cpu_use(ms int) RETURNS float8[] LANGUAGE c AS '$ENV{BBM_TEST_MODULE}', 'bbm_test_cpu_use'");

# A session that executes a statement needs one, at whatever moment it is asked about; who waits, or has no statement, needs none.
{
	value($node, "CREATE FUNCTION idle_for(pid int) RETURNS bigint STRICT LANGUAGE c AS '$ENV{BBM_TEST_MODULE}', 'bbm_test_session_idle_for'");
	# The least and the greatest of 50 answers.
	my $idle_for = sub {
		my ($session) = @_;
		return split / /, value($node,
			"SELECT concat_ws(' ', min(i), max(i)) FROM pg_stat_activity, generate_series(1, 50) g, LATERAL (SELECT idle_for(pid + 0 * g) AS i) x WHERE application_name = '$session'");
	};
	my $holder = $node->background_psql('postgres');
	$holder->query_safe(q(SET application_name = 'idle'));
	$holder->query_safe('SELECT pg_advisory_lock(2)');
	my $executes = background($node, 'postgres', q(SET application_name = 'executes'), q(DO 'BEGIN LOOP END LOOP; END'));
	my $waits    = background($node, 'postgres', q(SET application_name = 'waits'), q(SELECT pg_advisory_lock(2)));
	$node->poll_query_until('postgres',
		q{SELECT count(*) = 2 FROM pg_stat_activity WHERE application_name = 'executes' AND state = 'active' AND query LIKE 'DO%' OR application_name = 'waits' AND wait_event_type = 'Lock'});
	my ($least, $most) = $idle_for->('executes');
	is("$least $most", '0 0', 'a session that executes needs a CPU');
	($least) = $idle_for->('waits');
	cmp_ok($least, '>', 0, 'a session that waits for a lock needs none');
	($least) = $idle_for->('idle');
	cmp_ok($least, '>', 0, 'a session without a statement needs none');
	value($node, q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'executes'));
	finish_background($executes);
	$holder->quit;
	finish_background($waits);
}

# A batch that fails has used a CPU, and the process pauses for that.
counter_table($node, 'failing', 10);
value($node, <<'EOS');
CREATE SEQUENCE tries;
CREATE FUNCTION fails_first(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	IF nextval('tries') = 1 THEN
		FOR i IN 1 .. 5000000 LOOP
		END LOOP;
		RAISE EXCEPTION 'it fails';
	END IF;
	UPDATE failing SET n = n + 1 WHERE id BETWEEN lo AND hi;
	RETURN hi - lo + 1;
END $$;
ALTER SYSTEM SET bbm.max_pace = 0.1;
SELECT pg_reload_conf();
EOS
$node->poll_query_until('postgres', q(SELECT current_setting('bbm.max_pace') = '0.1'));
define($node, 'failing', 'failing', job => 'fails_first');
value($node, q(CALL bbm_run('failing')));
once_each($node, 'failing', 10);
SKIP:
{
	skip 'the system does not tell for how long a process has run', 1 unless -r '/proc/self/schedstat';
	cmp_ok(value($node, q(SELECT coalesce(sum(seconds), 0) FROM bbm_wait_metrics WHERE migration = 'failing' AND reason = 'pace')), '>', 0.2,
		'a batch that fails is paid for with a pause');
}

# Several that fail in a row are known to, although there are pauses between them.
counter_table($node, 'all_fail', 40);
value($node, <<'EOS');
CREATE FUNCTION fails(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 5000000 LOOP
	END LOOP;
	RAISE EXCEPTION 'it fails';
END $$;
EOS
define($node, 'all_fail', 'all_fail', job => 'fails', batch_size => 1, settings => q('{bbm.retry_delay=1min}'));
my $failing = background($node, 'postgres', q(SET application_name = 'failing'), q(CALL bbm_run('all_fail')));
ok($node->poll_query_until('postgres', q(SELECT waiting_on ~ '^a while, after \d+ errors in a row$' FROM bbm_workers())),
	'batches that fail in a row are counted across pauses');
value($node, q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'failing'));
finish_background($failing);
# a wait of 20 to 30 seconds begins with the sixth error; a pause takes ten at most
is(value($node, <<'EOS'), '', '... and the first wait after too many comes at once');
SELECT string_agg(format('job %s after %s', number, waited), ', ') FROM
	(SELECT row_number() OVER jobs AS number, j.started_at - lag(j.updated_at) OVER jobs AS waited
	 FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id
	 WHERE m.name = 'all_fail' WINDOW jobs AS (ORDER BY j.id)) j
WHERE number > 6 AND waited < '19 s'
EOS
value($node, 'ALTER SYSTEM RESET bbm.max_pace');
value($node, 'SELECT pg_reload_conf()');

# The workers of another server on the machine are bbm's as well, as long as they run.
SKIP:
{
	skip 'the system has no list of processes', 6 unless -d '/proc/self' && -d '/dev/shm';
	my $other = bbm_node('other', conf => "cluster_name = 'another one'\n");
	counter_table($other, 'm', 10);
	define($other, 'm', 'm', job => 'gated');
	# by the clock of this session no time passes, so that it would search again
	value($node, "CREATE FUNCTION cpu_ours(ms int) RETURNS integer[] LANGUAGE c AS '$ENV{BBM_TEST_MODULE}', 'bbm_test_cpu_ours'");
	my $session = $node->background_psql('postgres');
	$session->query_safe('SELECT cpu_ours(0)');
	value($other, "SELECT bbm_start('m')");
	reach_gate($other);
	my $pid = worker_pid($other);
	is($session->query_safe("SELECT $pid = ANY (cpu_ours(0))"), 't', 'a worker of another server is one of ours as soon as it begins');
	$session->quit;
	value($node, "CREATE FUNCTION neighbours() RETURNS integer[] LANGUAGE c AS '$ENV{BBM_TEST_MODULE}', 'bbm_test_neighbours'");
	is(value($node, "SELECT $pid = ANY (neighbours())"), 't', 'a worker of another server is known');
	my $file = sprintf '/dev/shm/bbm.%d/%d', $>, $pid;
	ok(-f $file, '... by a file');
	my $since = value($other, 'SELECT clock_timestamp()');
	kill KILL => $pid;
	restarted($other, $since);
	is(value($node, "SELECT $pid = ANY (neighbours())"), 'f', '... until it ends');
	ok(!-e $file, '... and the file of one that was killed is removed');

	# a number that is another process's now
	my $not_his = sprintf '/dev/shm/bbm.%d/%d', $>, $$;
	append_to_file($not_his, '');
	is(value($node, "SELECT $$ = ANY (neighbours())"), 'f', 'a process with such a file that is no worker is none');
	gate($other, 'open');
	finished($other, 'm');
	workers_gone($other);
	log_clean($other);
	$other->stop;
}

my $cpus = value($node, 'SELECT (cpu_use(1900))[1] FROM cpu_use(0)');
if ($cpus < 2)
{
	log_clean($node);
	done_testing();
	exit;
}

# The session waits for this one, which reads what the CPUs do before and after; by a clock that says that nearly two seconds have passed.
value($node, <<'EOS');
CREATE FUNCTION others_meanwhile() RETURNS float8 LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cpu_use(0);
	PERFORM pg_advisory_unlock(1);
	LOOP
		PERFORM pg_stat_clear_snapshot();
		EXIT WHEN EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'run' AND wait_event = 'PgSleep');
		PERFORM pg_sleep(0.001);
	END LOOP;
	RETURN (cpu_use(1900))[2];
END $$
EOS
my $observer = background($node, 'postgres', q(SET application_name = 'observer'), 'SELECT pg_advisory_lock(1)',
	q(DO 'BEGIN LOOP PERFORM pg_stat_clear_snapshot(); EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE locktype = ''advisory'' AND NOT granted); PERFORM pg_sleep(0.01); END LOOP; END'),
	'SELECT others_meanwhile()');
$node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory'));
my $seconds = 2.2 * $cpus;
my $run = background($node, 'postgres', q(SET application_name = 'run'),
	"DO 'DECLARE until timestamptz := clock_timestamp() + interval ''$seconds s''; BEGIN WHILE clock_timestamp() < until LOOP END LOOP; END'",
	'SELECT pg_advisory_lock(1)', q(CALL bbm_run('m')));
my ($out) = finish_background($observer);
my ($others) = $out =~ /([\d.e-]+)$/;
cmp_ok($others, '>', 0, 'what the session has run before is not taken for what it runs now');
gate($node, 'open');
finish_background($run);
finished($node, 'm');
log_clean($node);
done_testing();
