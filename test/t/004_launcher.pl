# The launcher: it comes back, it waits for free slots, it keeps to its limits, and it
# is fair.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

# no poll of its own may help, unless a test is about that
my $node = bbm_node('launcher', conf => "bbm.naptime = 0\nbbm.max_workers = 3\n");

sub start
{
	my ($name) = @_;
	value($node, "UPDATE batched_background_migrations SET status = 1 WHERE name = '$name'");
	return;
}

# The most jobs that ever were in their batch at the same time, from their own times.
sub most_at_once
{
	my ($where) = @_;
	return value($node, <<"EOS");
WITH j AS (
	SELECT j.* FROM batched_background_migration_jobs j
	JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id
	WHERE $where),
e AS (
	SELECT started_at AS at, 1 AS step FROM j UNION ALL SELECT finished_at, -1 FROM j),
s AS (
	SELECT sum(step) OVER (ORDER BY at, step) AS n FROM e)
SELECT max(n) FROM s
EOS
}

sub set
{
	my ($setting) = @_;
	$node->append_conf('postgresql.conf', $setting);
	$node->reload;
	return;
}

# Terminated in the middle of work: the worker goes on, and what is started while
# it is away is found.
counter_table($node, 'a', 500);
define($node, 'a', 'a', job => 'gated', batch_size => 100);
start('a');
reach_gate($node);
my $worker   = worker_pid($node);
my $launcher = launcher_pid($node);
counter_table($node, 'b', 500);
define($node, 'b', 'b', workers => 2);
value($node, <<"EOS");
SELECT pg_terminate_backend($launcher, 10000);
UPDATE batched_background_migrations SET status = 1 WHERE name = 'b';
EOS
finished($node, 'b', 'what is started while the launcher is away runs');
ok( $node->poll_query_until(
		'postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bbm launcher' AND pid <> $launcher"),
	'a launcher that was terminated comes back');
# from 17 on extensions name what they wait for
my $named = value($node, q(SHOW server_version_num)) >= 170000;
my $event = $named ? 'BbmLauncherMain' : 'Extension';
ok( $node->poll_query_until(
		'postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bbm launcher' AND wait_event = '$event'"),
	"it waits for $event");
is(worker_pid($node), $worker, 'its worker has worked on');
gate($node, 'open');
finished($node, 'a');
once_each($node, 'a', 500);
once_each($node, 'b', 500);
no_workers($node);

# The kill switch: off leaves the batch in flight, starts nothing, and says so; on goes
# on without another event.
gate($node, 'shut');
counter_table($node, 'c', 500);
define($node, 'c', 'c', job => 'gated', batch_size => 100);
start('c');
reach_gate($node);
set('bbm.enabled = off');
$node->poll_query_until('postgres', "SELECT current_setting('bbm.enabled') = 'off'");
ok($node->poll_query_until('postgres', in_flight(), 1), 'bbm.enabled = off leaves the batch in flight');
gate($node, 'open');
no_workers($node, 'after it the worker exits');
is(value($node, 'SELECT count(*) FROM c WHERE n = 1'), 100, 'with its batch done');
is(value($node, q(SELECT status, jobs_finished, jobs_running FROM bbm_status_detail('c'))), 'running|1|0', 'and recorded');
counter_table($node, 'd', 500);
define($node, 'd', 'd');
start('d');
like(value($node, q(SELECT waiting_on FROM bbm_status_detail('d'))), qr/bbm\.enabled/, 'one that is started says what it waits for');
like(value($node, q(SELECT waiting_on FROM bbm_status_detail('c'))), qr/bbm\.enabled/, 'and so does one that was at work');
is( value($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'bbm (worker|discovery)'"),
	0, 'nothing is started while it is off');
$node->restart;
is(value($node, q(SELECT count(*) FROM bbm_jobs('d'))), 0, 'nor after a restart');
set('bbm.enabled = on');
finished($node, 'c', 'bbm.enabled = on: what was at work goes on');
finished($node, 'd', 'and what was started begins');
once_each($node, 'c', 500);
once_each($node, 'd', 500);

# workers => n means n, and not more.
gate($node, 'shut');
counter_table($node, 'e', 1000);
define($node, 'e', 'e', job => 'gated', batch_size => 10, workers => 2);
start('e');
reach_gate($node, 2);
gate($node, 'open');
finished($node, 'e');
once_each($node, 'e', 1000);
ranges_ok($node, 'e', 'e');
is(most_at_once("m.name = 'e'"), 2, 'two workers: two jobs at once, and never three');

# bbm.max_workers is the limit of all together, whatever they ask for.
gate($node, 'shut');
for my $name ('f', 'g')
{
	counter_table($node, $name, 1000);
	define($node, $name, $name, job => 'gated', batch_size => 10, workers => 8);
	start($name);
}
reach_gate($node, 3);
# one that has ended may still be shown for a moment
ok($node->poll_query_until('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bbm worker'", 3), 'three workers and no more');
gate($node, 'open');
finished($node, 'f');
finished($node, 'g');
once_each($node, 'f', 1000);
once_each($node, 'g', 1000);
is(most_at_once("m.name IN ('f', 'g')"), 3, 'bbm.max_workers jobs at once, and never more');

# Two migrations on one table, one after the other unless both agree to share it.
gate($node, 'shut');
counter_table($node, 'h', 300);
define($node, 'h1', 'h', job => 'gated', batch_size => 300);
define($node, 'h2', 'h', batch_size => 300);
start('h1');
reach_gate($node);
start('h2');
ok( $node->poll_query_until('postgres', q(SELECT waiting_on LIKE 'another migration on the table%' FROM bbm_status_detail('h2'))),
	'a second migration on a table waits for the first');
is(value($node, q(SELECT count(*) FROM bbm_jobs('h2'))), 0, 'and has not started');
gate($node, 'open');
finished($node, $_) for ('h1', 'h2');
is(value($node, 'SELECT count(*), min(n), max(n) FROM h'), '300|2|2', 'both did each row once');

# A migration that nobody announced is found by the launcher's own poll.
counter_table($node, 'i', 100);
define($node, 'i', 'i');
start('i');
finished($node, 'i');
define($node, 'unannounced', 'i');
# as replication or a restore would write it: no trigger, no event
value($node, q(SET session_replication_role = replica;
	UPDATE batched_background_migrations SET status = 1, origin = (SELECT origin FROM batched_background_migrations WHERE name = 'i')
	WHERE name = 'unannounced'));
is(value($node, q(SELECT count(*) FROM bbm_jobs('unannounced'))), 0, 'what nobody announced does not run');
set('bbm.naptime = 1s');
finished($node, 'unannounced', 'until the launcher polls');
set('bbm.naptime = 0');

# A worker that has polled and found nothing says that it exits after another has called
# for help: the call stands, and the worker that is started for it finds nothing and exits, too.
value($node, qq(CREATE FUNCTION call_past_leaving(wanted integer) RETURNS void LANGUAGE c AS '$ENV{BBM_TEST_MODULE}', 'bbm_test_call_past_leaving'));
set('log_min_messages = debug1');
$node->poll_query_until('postgres', "SELECT current_setting('log_min_messages') = 'debug1'");
my $offset = log_size($node);
value($node, 'SELECT call_past_leaving(2)');
my $called;
for (1 .. 20 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if $called = log_since($node, $offset) =~ /starting background worker process "bbm worker/;
	sleep 0.05;
}
ok($called, 'a call for help that comes while another exits is heard');
set('log_min_messages = warning');

# Settings of the owner and of the database that would be in the way.
value($node, <<'EOS');
CREATE ROLE strange LOGIN;
ALTER ROLE strange SET default_transaction_read_only = on;
ALTER ROLE strange SET default_transaction_isolation = serializable;
ALTER ROLE strange SET statement_timeout = '1ms';
ALTER ROLE strange SET idle_in_transaction_session_timeout = '1ms';
ALTER ROLE strange SET search_path = nowhere;
ALTER ROLE strange SET client_min_messages = debug1;
ALTER ROLE strange SET log_min_messages = error;
ALTER ROLE strange CONNECTION LIMIT 0;
ALTER DATABASE postgres SET lock_timeout = '1ms';
ALTER DATABASE postgres SET default_transaction_deferrable = on;
EOS
counter_table($node, 'k', 300);
value($node, 'ALTER TABLE k OWNER TO strange');
define($node, 'k', 'k', batch_size => 10, workers => 2);
value($node, q(UPDATE batched_background_migrations SET owner = 'strange' WHERE name = 'k'));
start('k');
finished($node, 'k', 'strange settings of its role and its database do not stop it');
once_each($node, 'k', 300);
ranges_ok($node, 'k', 'k');
value($node, 'ALTER DATABASE postgres RESET ALL');

no_workers($node);
log_clean($node);
$node->stop;

# One worker for two owners and two databases: a small migration does not wait for
# a large one; nor does it where the worker pauses after each batch, for longer than it waits for within its turn.
$node = bbm_node('fair', conf => "bbm.max_workers = 1\nbbm.max_pace = 0.1\n");
value($node, 'CREATE DATABASE other');
value($node, 'CREATE EXTENSION bbm', 'other');
value($node, 'CREATE ROLE somebody LOGIN');
counter_table($node, 'large', 100000);
value($node, q(CREATE FUNCTION slowly(lo bigint, hi bigint) RETURNS void LANGUAGE sql AS
	'UPDATE public.large SET n = n + 1 WHERE id BETWEEN lo AND hi; SELECT pg_sleep(0.02)'));
value($node, q(SELECT bbm_create('large', 'large', 'slowly', batch_size => 10, start => true)));
$node->poll_query_until('postgres', q(SELECT jobs_finished > 20 FROM bbm_status_detail('large')));

counter_table($node, 'same', 100);
define($node, 'same owner', 'same', batch_size => 20, start => 'true');
my $jobs = value($node, q(SELECT jobs_finished FROM bbm_status_detail('large')));
finished($node, 'same owner', 'a small migration of the same owner finishes while the large one runs');
cmp_ok(value($node, q(SELECT jobs_finished FROM bbm_status_detail('large'))) - $jobs, '<', 100, '... in turns with it');

counter_table($node, 'mine', 100);
value($node, 'ALTER TABLE mine OWNER TO somebody');
define($node, 'another owner', 'mine', batch_size => 20);
value($node, q(UPDATE batched_background_migrations SET owner = 'somebody' WHERE name = 'another owner'));
start('another owner');
finished($node, 'another owner', 'so does one of another owner');

counter_table($node, 'away', 100, 'other');
define($node, 'another database', 'away', db => 'other', batch_size => 20, start => 'true');
finished($node, 'another database', 'and one in another database', 'other');

is(value($node, q(SELECT status FROM bbm_status('large'))), 'running', 'the large one is still at it');
my $done = value($node, q(SELECT jobs_finished FROM bbm_status_detail('large')));
$node->poll_query_until('postgres', "SELECT jobs_finished > $done + 10 FROM bbm_status_detail('large')");
pass('and goes on');
cmp_ok($done, '<', 5000, 'they did not wait for its half');
value($node, q(SELECT bbm_cancel('large')));
is(value($node, 'SELECT count(*) FILTER (WHERE n = 1) = (SELECT rows_done FROM bbm_status(\'large\')), max(n) FROM large'),
	't|1', 'what it says it has done is done');
no_workers($node);
log_clean($node);
$node->stop;

# No slot for a background worker: logged once; it goes on when there is one.
$node = bbm_node('slots', conf => <<'EOC');
bbm.naptime = 0
max_logical_replication_workers = 0
max_worker_processes = 2
max_parallel_workers = 0
EOC
counter_table($node, 'a', 500);
define($node, 'a', 'a', batch_size => 100);
value($node, 'CREATE DATABASE hog');
value($node, 'CREATE EXTENSION bbm', 'hog');
workers_gone($node);
# the server's slot of a worker is free only when the postmaster has seen its exit
sub hog
{
	for (1 .. 600)
	{
		my ($status, $pid) = $node->psql('hog', q(SELECT bbm_launch_worker('1 hour')));

		return $pid if $status == 0;
		sleep(0.1);
	}
	die 'no slot becomes free';
}
my $hog = hog();
$offset = log_size($node);
start('a');
ok( $node->poll_query_until(
		'postgres', "SELECT pg_read_file('" . $node->logfile . "', $offset, 1000000) LIKE '%out of background worker slots%'"),
	'that there is no slot is logged');
like(value($node, q(SELECT waiting_on FROM bbm_status_detail('a'))), qr/worker/, 'bbm_status says that it waits for a worker');
# another event makes it try again, and again
for (1 .. 3)
{
	value($node, q(SELECT bbm_pause('a'), bbm_start('a')));
	value($node, q(UPDATE batched_background_migrations SET status = 1));
}
is(value($node, q(SELECT count(*) FROM bbm_jobs('a'))), 0, 'nothing runs');
# the launcher tries every second; wait for two
$node->poll_query_until('postgres', "SELECT clock_timestamp() > stats_reset + '2.5 s' FROM (SELECT now() AS stats_reset, pg_sleep(2.6)) s");
my @logged = log_since($node, $offset) =~ /WARNING:.*out of background worker slots/g;
is(scalar @logged, 1, 'it is logged once');
value($node, "SELECT pg_terminate_backend($hog)");
finished($node, 'a', 'when a slot is free, it runs');
once_each($node, 'a', 500);
workers_gone($node);
$hog = hog();
# that a slot was had in between makes the next refusal news
$offset = log_size($node);
define($node, 'again', 'a', batch_size => 100, start => 'true');
ok( $node->poll_query_until(
		'postgres', "SELECT pg_read_file('" . $node->logfile . "', $offset, 1000000) LIKE '%out of background worker slots%'"),
	'and logged again the next time');
value($node, "SELECT pg_terminate_backend($hog)");
finished($node, 'again');

# Sessions that run migrations, as many as have a slot, do not keep discovery from its own.
value($node, 'CREATE DATABASE unseen');
value($node, 'CREATE EXTENSION bbm', 'unseen');
counter_table($node, 'unseen', 10, 'unseen');
define($node, 'unseen', 'unseen', db => 'unseen');
counter_table($node, 'waits', 10);
define($node, 'waits', 'waits', settings => q('{bbm.condition=false}'));
workers_gone($node);
my @sessions = map { background($node, 'postgres', q(CALL bbm_run('waits'))) } 1 .. 17;
$node->poll_query_until('postgres', q(SELECT count(*) = 16 FROM bbm_workers() WHERE kind = 'foreground'));
value($node, q(SET session_replication_role = replica; UPDATE batched_background_migrations SET status = 1), 'unseen');
value($node, q(SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = 'bbm launcher'));
finished($node, 'unseen', 'what nobody announced is found while all slots of sessions are taken', 'unseen');
value($node, q(SELECT bbm_pause('waits')));
finish_background($_) for @sessions;
value($node, 'DROP DATABASE unseen WITH (FORCE)');

# More owners than there is room for: discovery finds the others, now and then, and one of them is served when there is room.
workers_gone($node);
value($node, "CREATE FUNCTION requests(n integer, due timestamptz) RETURNS void LANGUAGE c AS '$ENV{BBM_TEST_MODULE}', 'bbm_test_requests'");
value($node, <<'EOS');
CREATE ROLE crowded LOGIN;
GRANT EXECUTE ON FUNCTION bbm_create TO crowded;
GRANT CREATE ON SCHEMA public TO crowded;
SET ROLE crowded;
CREATE TABLE crowded (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO crowded SELECT generate_series(1, 10);
SELECT bbm_create('crowded', 'crowded', 'UPDATE crowded SET n = n + 1 WHERE id BETWEEN $1 AND $2');
EOS
set('log_min_messages = debug1');
value($node, q(SELECT requests(10000, now() + interval '1 hour')));
$offset = log_size($node);
my $crowded_since = time;
start('crowded');
my $discoveries = sub { return scalar(() = log_since($node, $offset) =~ /starting background worker process "bbm discovery/g) };
for (1 .. 20 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if $discoveries->() > 0;
	sleep 0.05;
}
cmp_ok($discoveries->(), '>=', 1, 'what has no room is looked for');
value($node, 'SELECT pg_sleep(5)');
# every ten seconds
my $looked = $discoveries->();
cmp_ok($looked, '<=', 2 + (time - $crowded_since) / 10, '... but not all the time');
is(value($node, q(SELECT status FROM bbm_status('crowded'))), 'active', '... and the owner waits');
value($node, q(SELECT requests(10000, 'infinity')));
finished($node, 'crowded', '... until there is room');
once_each($node, 'crowded', 10);
log_clean($node);

done_testing();
