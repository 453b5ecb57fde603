# A process stands at each point of a batch while something happens to
# it or to its migration: see BbmPoints.pm.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmPoints;
use BbmTest;
use Test::More;

my $node = points_node('points_batch', conf => POINTS_CONF);
force_orders(
	$node, [ACTS],
	map({ [ $_, 'plain', passes => 2 ] }
		qw(batch-begin batch-locked batch-statement batch-done batch-recorded batch-commit batch-committed)),
	# the other process may have the lock at that moment, but not each time
	[ 'batch-allocated', 'plain', passes => 2, along => 1, options => { batch_size => 1 } ],
	# in the middle of a job that commits several times
	map({ [ $_, 'subs', passes => 1 ] } qw(batch-begin batch-recorded batch-commit batch-committed)));
log_clean($node);
done_testing();
