# Pausing, cancelling and terminating: what stops when, what is requeued, and that
# a pause waits for nobody.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('pause');
my $jobs = 'SELECT count(*) FROM batched_background_migration_jobs j'
  . ' JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name =';

sub set_status
{
	my ($name, $status, $and) = @_;
	return value($node,
		"SET statement_timeout = '60s'; UPDATE batched_background_migrations SET status = $status WHERE name = '$name'; "
		  . ($and || ''));
}

# A batch in flight that does not end: the pause returns all the same, the batch goes
# on, and none follows it.
counter_table($node, 'a', 1000);
define($node, 'a', 'a', job => 'gated', batch_size => 100);
set_status('a', 1);
reach_gate($node);
my $worker = worker_pid($node);
set_status('a', 0);
pass('a pause does not wait for the batch in flight');
is(worker_pid($node), $worker, 'which goes on');
is(value($node, q(SELECT status, jobs_running, workers FROM bbm_status_detail('a'))), 'paused|1|1', 'and is still shown');
gate($node, 'open');
no_workers($node);
is(value($node, "$jobs 'a'"), 1, 'after it none is claimed');
is(value($node, 'SELECT count(*) FILTER (WHERE n = 1), count(*) FILTER (WHERE n <> 0) FROM a'), '100|100', 'it was done and committed');
is(value($node, q(SELECT status, jobs_finished, rows_done FROM bbm_status_detail('a'))), 'paused|1|100', 'and recorded');
set_status('a', 1);
finished($node, 'a');
once_each($node, 'a', 1000);
ranges_ok($node, 'a', 'a');

# The moment a pause has committed, the number of claims is final: with several
# workers in the middle of tiny batches, again and again.
# more than a fast machine does in twelve rounds of a slow one
counter_table($node, 'b', 200000);
define($node, 'b', 'b', batch_size => 1, workers => 3);
my ($late, $between) = (0, 0);
for my $round (1 .. 12)
{
	set_status('b', 1);
	# some claims later
	$node->poll_query_until('postgres', "SELECT ($jobs 'b') > $between OR status = 'finished' FROM bbm_status('b')");
	$between = set_status('b', 0, "$jobs 'b';");
	workers_gone($node);
	my $after = value($node, "$jobs 'b'");
	$late += $after - $between;
	$between = $after;
}
is($late, 0, 'no claim after a pause has committed, in 12 pauses between tiny batches');
is(value($node, q(SELECT status FROM bbm_status('b'))), 'paused', 'that were taken in the middle of the work');
is(value($node, q(SELECT jobs_running, jobs_failed FROM bbm_status_detail('b'))), '0|0', 'and left nothing half done');
value($node, "UPDATE batched_background_migrations SET batch_size = 1000 WHERE name = 'b'");
set_status('b', 1);
finished($node, 'b');
once_each($node, 'b', 200000);
ranges_ok($node, 'b', 'b');

# While a pause is not decided, claims wait, and nothing counts as failed.
gate($node, 'shut');
counter_table($node, 'c', 1000);
define($node, 'c', 'c', job => 'gated', batch_size => 100, workers => 2);
set_status('c', 1);
reach_gate($node, 2);
my $psql = $node->background_psql('postgres');
$psql->query_safe(q(BEGIN; UPDATE batched_background_migrations SET status = 0 WHERE name = 'c'));
gate($node, 'open');
$node->poll_query_until('postgres', 'SELECT count(*) = 200 FROM c WHERE n = 1');
$node->poll_query_until('postgres', q(SELECT waiting_on LIKE 'a lock on the migration: process %, idle in transaction since %' FROM bbm_status_detail('c')));
is(value($node, "$jobs 'c'"), 2, 'nothing is claimed while a pause is open');
$psql->query_safe('ROLLBACK');
$psql->quit;
finished($node, 'c', 'rolled back, it never was');
once_each($node, 'c', 1000);
is(value($node, q(SELECT max(attempts) FROM bbm_jobs('c'))), 1, 'and counts as nothing');

# A job that is claimed again after a wait for another claim starts when that wait is over: here the other claim is stopped while
# it has the lock on the claims of the table.
gate($node, 'shut');
counter_table($node, 'l', 100);
define($node, 'again', 'l', job => 'gated', batch_size => 100, sub_batch_size => 50, share_table => 'true',
	settings => q('{bbm.lock_timeout=60s}'), start => 'true');
reach_gate($node);
set_status('again', 0);
gate($node, 'open');
no_workers($node);
gate($node, 'shut');
value($node, <<'EOS');
CREATE TABLE claim_gate (open boolean);
INSERT INTO claim_gate VALUES (false);
CREATE FUNCTION stop_in_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	WHILE EXISTS (SELECT FROM public.claim_gate WHERE NOT open) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN NEW;
END $$;
CREATE TRIGGER stop_in_claim BEFORE INSERT ON batched_background_migration_jobs FOR EACH ROW EXECUTE FUNCTION stop_in_claim();
EOS
define($node, 'beside', 'l', share_table => 'true', start => 'true');
$node->poll_query_until('postgres', in_flight(), '1');
set_status('again', 1);
$node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event_type = 'Lock'));
my $over = value($node, 'SELECT clock_timestamp()');
value($node, 'UPDATE claim_gate SET open = true');
reach_gate($node);
is(value($node, "SELECT started_at > '$over' FROM bbm_jobs('again')"), 't', 'a job that is claimed again starts when the wait for the claim is over');
gate($node, 'open');
finished($node, $_) for 'again', 'beside';
value($node, 'DROP TRIGGER stop_in_claim ON batched_background_migration_jobs');

# Cancel: the batch is rolled back and requeued, its attempt is not counted.
gate($node, 'shut');
counter_table($node, 'd', 1000);
define($node, 'd', 'd', job => 'gated', batch_size => 100, workers => 2);
set_status('d', 1);
reach_gate($node, 2);
is(value($node, q(SELECT bbm_pause('d', cancel => true, wait => true))), 1, 'pause, cancel and wait return');
is( value($node, q(SELECT status, jobs_running FROM bbm_status_detail('d'))),
	'paused|0', 'and then no batch is in flight');
is(value($node, 'SELECT count(*) FROM d WHERE n <> 0'), 0, 'what they did is rolled back');
is(value($node, q(SELECT string_agg(status || attempts, ' ') FROM bbm_jobs('d'))), 'new0 new0', 'and the jobs are requeued');
set_status('d', 1);
reach_gate($node, 2);
is(value($node, q(SELECT bbm_cancel('d'))), 2, 'bbm_cancel says how many');
is(value($node, 'SELECT count(*) FROM d WHERE n <> 0'), 0, 'and they are gone');
no_workers($node);
is(value($node, q(SELECT bbm_cancel('d'))), 0, 'there is nothing left to cancel');
set_status('d', 1);
reach_gate($node, 2);
value($node, q(SELECT bbm_pause('d', cancel => true)));
$node->poll_query_until('postgres', q(SELECT jobs_running = 0 FROM bbm_status_detail('d')));
pass('cancel alone cancels as well');
gate($node, 'open');
set_status('d', 1);
finished($node, 'd');
once_each($node, 'd', 1000);
ranges_ok($node, 'd', 'd');

# Wait alone: it returns when the batch has ended, not before.
gate($node, 'shut');
counter_table($node, 'e', 1000);
define($node, 'e', 'e', job => 'gated', batch_size => 500);
set_status('e', 1);
reach_gate($node);
my $waiter = background($node, 'postgres', q(SET application_name = 'waiter'), q(SELECT bbm_pause('e', wait => true)));
ok( $node->poll_query_until(
		'postgres', q(SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE application_name = 'waiter')),
	'a pause that waits, waits');
ok($node->poll_query_until('postgres', in_flight(), 1), 'while the batch is in flight');
gate($node, 'open');
is((finish_background($waiter))[0], '1', 'and returns when that has ended');
is(value($node, 'SELECT count(*) FROM e WHERE n = 1'), 500, 'with the batch done');
is(value($node, q(SELECT status, jobs_finished FROM bbm_status_detail('e'))), 'paused|1', 'and none after it');
set_status('e', 1);
finished($node, 'e');
once_each($node, 'e', 1000);

# In the middle of a job of many commits a pause takes effect at the next one.
gate($node, 'shut');
counter_table($node, 'f', 1000);
define($node, 'f', 'f', job => 'gated', batch_size => 500, sub_batch_size => 50);
set_status('f', 1);
reach_gate($node);
set_status('f', 0);
gate($node, 'open');
no_workers($node);
is(value($node, 'SELECT count(*) FROM f WHERE n = 1'), 50, 'a pause stops a job between two of its commits');
is( value($node, q(SELECT status, cursor_value, attempts FROM batched_background_migration_jobs ORDER BY id DESC LIMIT 1)),
	'1|50|0', 'which stays where it was');
set_status('f', 1);
finished($node, 'f');
once_each($node, 'f', 1000);
ranges_ok($node, 'f', 'f');

# pg_cancel_backend of a worker requeues the batch, pg_terminate_backend makes an orphan;
# both are done once, by whoever comes next.
gate($node, 'shut');
counter_table($node, 'g', 200);
define($node, 'g', 'g', job => 'gated');
set_status('g', 1);
reach_gate($node);
$worker = worker_pid($node);
value($node, "SELECT pg_cancel_backend($worker)");
$node->poll_query_until('postgres', "SELECT claim_epoch >= 2 AND status = 4 FROM batched_background_migration_jobs ORDER BY id DESC LIMIT 1");
reach_gate($node);
is(value($node, q(SELECT attempts FROM bbm_jobs('g'))), 1, 'a cancelled batch is tried again, and its attempt is not counted');
like(value($node, q(SELECT status FROM bbm_status('g'))), qr/running/, 'the migration goes on');
$worker = worker_pid($node);
value($node, "SELECT pg_terminate_backend($worker)");
$node->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event = 'PgSleep' AND pid <> $worker");
is(value($node, q(SELECT attempts FROM bbm_jobs('g'))), 2, 'an orphan is taken over by another worker, and its attempt is counted');
gate($node, 'open');
finished($node, 'g');
once_each($node, 'g', 200);
ranges_ok($node, 'g', 'g');

# A canceled launcher shrugs.
my $launcher = launcher_pid($node);
value($node, "SELECT pg_cancel_backend($launcher)");
counter_table($node, 'h', 100);
define($node, 'h', 'h');
set_status('h', 1);
finished($node, 'h', 'a cancel does nothing to the launcher');
is(launcher_pid($node), $launcher, 'it is still the same');

# A start that is rolled back is none.
define($node, 'i', 'h');
value($node, q(BEGIN; UPDATE batched_background_migrations SET status = 1 WHERE name = 'i'; ROLLBACK));
value($node, q(BEGIN; SAVEPOINT s; UPDATE batched_background_migrations SET status = 1 WHERE name = 'i'; ROLLBACK TO s; COMMIT));
workers_gone($node);
is(value($node, "$jobs 'i'"), 0, 'a start that is rolled back is none');

# What a user does is in the server log, once it is committed.
my $since = -s $node->logfile;
value($node, q(BEGIN; UPDATE batched_background_migrations SET status = 1 WHERE name = 'i'; ROLLBACK; BEGIN; SAVEPOINT s;
	SELECT bbm_drop('i'); ROLLBACK TO s; UPDATE batched_background_migrations SET batch_size = 50 WHERE name = 'i'; COMMIT));
value($node, q(SELECT bbm_drop('i')));
my $logged = slurp_file($node->logfile, $since);
is(join("\n", $logged =~ /LOG:  (migration "i": .*)/g), qq(migration "i": altered by role "postgres"\nmigration "i": dropped by role "postgres"),
	'what a user does is logged, and what is rolled back is not');

# To drop one in the middle of a batch takes no longer than to cancel that.
gate($node, 'shut');
define($node, 'j', 'h', job => 'gated');
set_status('j', 1);
reach_gate($node);
value($node, q(SET statement_timeout = '60s'; SELECT bbm_drop('j')));
is(value($node, 'SELECT count(*), max(n) FROM h'), '100|1', 'bbm_drop cancels the batch in flight');
is(value($node, q(SELECT count(*) FROM bbm_status('j'))), 0, 'and the migration is gone');

no_workers($node);
log_clean($node);
done_testing();
