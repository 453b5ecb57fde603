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

# A worker's memory does not grow with what it does.
my $node = bbm_node('memory');
counter_table($node, 'memory', 60000);
define($node, 'memory', 'memory', batch_size => 1, start => 'true');
my (%used, $worker);
for my $jobs (10000, 55000)
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
once_each($node, 'memory', 60000);
note "memory of the worker after so many jobs: ", join ', ', map { "$_: $used{$_}" } sort { $a <=> $b } keys %used;
is(scalar keys %used, 2, 'the memory of a worker was seen');
# what it asks once a second gets its lasting plan meanwhile, some 75 kB: three bytes a job would be seen
cmp_ok(abs($used{55000} - $used{10000}), '<', 2 * 65536, 'and is flat') if keys %used == 2;
no_workers($node);
done_testing();
