# A claim that is worth several commits, by background workers: a pause, a lock, a crash and
# another migration's turn in the middle of it, each of which goes on from the last commit;
# and a small table that two workers share.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

# a slow machine is no reason to pause, and a requeued job is run again soon
my $node = bbm_node('claims', conf => "bbm.naptime = 0\nbbm.min_pace = 1\nbbm.retry_delay = '10 ms'\n");

# A migration whose only job has commits of 100 rows; it stops in the third while the gate is shut.
sub in_third_commit
{
	my ($name, %o) = @_;
	# what the function does when it is past the gate
	my $then = delete $o{then} || '';

	counter_table($node, $name, 1000);
	value($node, <<"EOS");
CREATE FUNCTION third_$name(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS \$\$
DECLARE
	done bigint;
BEGIN
	UPDATE public.$name SET n = n + 1 WHERE id BETWEEN lo AND hi;
	GET DIAGNOSTICS done = ROW_COUNT;
	WHILE lo > 200 AND EXISTS (SELECT FROM public.gate WHERE NOT open) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	$then
	RETURN done;
END \$\$;
EOS
	define($node, $name, $name, job => "third_$name", batch_size => 100, max_batch_size => 100, target_duration => "'1 day'", %o);
	gate($node, 'shut');
	value($node, "SELECT bbm_start('$name')");
	reach_gate($node);
	return;
}

# cursor_value|status|attempts|requeued|failures of its jobs
sub jobs_of
{
	my ($name) = @_;
	return value($node, 'SELECT cursor_value, j.status, attempts, requeued, failures FROM batched_background_migration_jobs j'
		  . " JOIN batched_background_migrations m ON m.id = batched_background_migration_id WHERE m.name = '$name' ORDER BY j.id");
}

# How many rows each commit had; the ids of transactions show which rows were committed together.
sub commits
{
	my ($table) = @_;
	return value($node, "SELECT string_agg(rows::text, ' ' ORDER BY first) FROM (SELECT count(*) AS rows, min(id) AS first FROM $table WHERE n = 1 GROUP BY xmin::text) c");
}

my $tens = join ' ', (100) x 10;

# What is seen from outside while the third commit runs; then a pause.
in_third_commit('pauses');
is(jobs_of('pauses'), '200|4|1|0|0', 'the cursor is where the second commit has ended');
is(commits('pauses'), '100 100', 'two commits are to be seen');
is(value($node, q(SELECT percent, rows_done FROM bbm_status('pauses'))), '20.0|200', 'and the percent has moved within the job');
value($node, q(SELECT bbm_pause('pauses')));
gate($node, 'open');
no_workers($node);
is(jobs_of('pauses'), '300|1|0|0|0', 'a pause lets the commit end, and releases the job: neither an attempt nor a requeue');
is(value($node, q(SELECT status, percent, (SELECT count(error_message) FROM batched_background_migration_jobs) FROM bbm_status('pauses'))), 'paused|30.0|0', 'which is no error');
value($node, q(SELECT bbm_start('pauses')));
finished($node, 'pauses');
once_each($node, 'pauses', 1000);
is(commits('pauses'), $tens, 'it went on from there, in the same commits');
is(jobs_of('pauses'), '900|2|1|0|0', 'as the same job');

# The worker dies in the third commit: whoever takes the job over begins with that.
in_third_commit('crashes');
kill KILL => worker_pid($node);
poll_restarting($node, q(SELECT attempts = 2 FROM bbm_jobs('crashes')))
  || fail('nobody took the job over');
reach_gate($node);
is(jobs_of('crashes'), '200|4|2|0|1', 'after a crash the job is taken over at its cursor');
is(commits('crashes'), '100 100', 'and what was committed is there');
gate($node, 'open');
finished($node, 'crashes');
once_each($node, 'crashes', 1000);
is(commits('crashes'), $tens, 'no row was committed twice, and none with those before the crash');

# A lock stops the third commit: the job is requeued at its cursor, and tries less.
counter_table($node, 'waits', 1000);
my $psql = $node->background_psql('postgres');
$psql->query_safe('BEGIN; SELECT FROM waits WHERE id = 250 FOR UPDATE');
define($node, 'waits', 'waits', batch_size => 100, max_batch_size => 100, target_duration => "'1 day'",
	settings => "'{bbm.lock_timeout=10ms}'");
value($node, q(SELECT bbm_start('waits')));
# halved until nothing is left before the row
ok($node->poll_query_until('postgres', q(SELECT count(*) = 249 FROM waits WHERE n = 1)), 'what comes before the locked row is done');
like(jobs_of('waits'), qr/^249\|[14]\|\d\|[1-9]\d*\|0$/, 'by a job that was requeued, from its cursor on');
$psql->query_safe('COMMIT');
$psql->quit;
finished($node, 'waits');
once_each($node, 'waits', 1000);
is(value($node, q(SELECT count(*) FROM bbm_jobs('waits'))), 1, 'it is still one job');

# A small table is shared: the first claim does not take all of it.
counter_table($node, 'small', 400);
gate($node, 'shut');
define($node, 'small', 'small', job => 'gated', target_duration => "'1 day'", workers => 2);
value($node, q(SELECT bbm_start('small')));
reach_gate($node, 2);
is(value($node, q(SELECT count(*), count(DISTINCT min_value), max(max_value) < 400 FROM bbm_jobs('small') WHERE status = 'running')), '2|2|t',
	'two workers are at work on it');
gate($node, 'open');
finished($node, 'small');
once_each($node, 'small', 400);
ranges_ok($node, 'small', 'small');

# The time slice ends within a claim: another migration, with the only worker, does not wait for its end.
$node->append_conf('postgresql.conf', 'bbm.max_workers = 1');
$node->restart;
counter_table($node, 'other', 100);
define($node, 'other', 'other');
in_third_commit('long', then => <<'EOS');
IF lo > 300 AND NOT EXISTS (SELECT FROM public.other WHERE n = 1) THEN
		RAISE 'the other migration has not had its turn';
	END IF;
EOS
value($node, q(SELECT bbm_start('other')));
# the slice of a second has ended when this commit does
$node->poll_query_until('postgres', q(SELECT clock_timestamp() > started_at + interval '2 s' FROM bbm_jobs('long')));
gate($node, 'open');
finished($node, 'long');
finished($node, 'other');
once_each($node, 'long', 1000);
is(value($node, q(SELECT count(*), sum(failures) FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = batched_background_migration_id WHERE m.name = 'long')),
	'1|0', 'another migration had its turn before the next commit of the job');

log_clean($node);
$node->stop;
done_testing();
