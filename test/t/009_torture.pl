# Everything at once, see BbmTorture.pm; then the memory of a worker, exactly.
#
# BBM_SEED repeats a sequence (though not the timing), BBM_TORTURE_SECONDS is how
# long it goes on; test/torture sets both.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use BbmTorture;
use Test::More;
use Time::HiRes qw(sleep);

torture($ENV{BBM_SEED} || 1 + int(rand(2**31)), $ENV{BBM_TORTURE_SECONDS} || 60);

# A worker's memory does not grow with what it does: it is asked in the middle of two
# batches, at which it is held.
# It is the same point of a batch, and soon, without pauses and merging.
my $node = bbm_node('memory', conf => "bbm.min_pace = 1\nbbm.job_retention = -1\n");
counter_table($node, 'memory', 60000);
$node->safe_psql('postgres', <<'EOS');
CREATE TABLE held AS SELECT unnest('{10000, 55000}'::bigint[]) AS id;
CREATE FUNCTION is_released(asked bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	WHILE asked IN (10000, 55000) AND EXISTS (SELECT FROM public.held WHERE id = asked) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN true;
END $$;
EOS
define(
	$node, 'memory', 'memory',
	job        => 'UPDATE memory SET n = n + 1 WHERE id BETWEEN $1 AND $2 AND public.is_released(id)',
	batch_size => 1,
	start      => 'true');
my (%used, %workers);
for my $row (10000, 55000)
{
	# so many jobs take longer than a poll waits where the machine is slow
	for (1 .. 5)
	{
		last if $node->poll_query_until('postgres', "SELECT jobs_finished = $row - 1 FROM bbm_status_detail('memory')");
	}
	$node->poll_query_until('postgres', in_flight(), '1');
	my $worker = value($node, q(SELECT pid FROM bbm_workers() WHERE migration = 'memory'));
	$workers{$worker} = 1;
	# the server writes a process's memory contexts and their sum to the log
	my $offset = log_size($node);
	value($node, "SELECT pg_log_backend_memory_contexts($worker)");
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if log_since($node, $offset) =~ /\[$worker\] \[bbm worker\].*Grand total: .* (\d+) used/ && ($used{$row} = $1);
		sleep 0.1;
	}
	value($node, "DELETE FROM held WHERE id = $row");
}
finished($node, 'memory');
once_each($node, 'memory', 60000);
note "memory of the worker after so many jobs: ", join ', ', map { "$_: $used{$_}" } sort { $a <=> $b } keys %used;
is(join(' ', scalar keys %used, scalar keys %workers), '2 1', 'the memory of one worker was seen twice');
# two bytes a job would be seen
cmp_ok(abs($used{55000} - $used{10000}), '<', 65536, 'and is flat') if keys %used == 2;
no_workers($node);
done_testing();
