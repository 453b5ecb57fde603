# A process stands at each point of the end of a round, and of a merge while something happens to
# it or to its migration: see BbmPoints.pm.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmPoints;
use BbmTest;
use Test::More;

my $node = points_node('points_end', conf => POINTS_CONF);
force_orders(
	$node, [ACTS],
	map({ [ $_, 'plain' ] } qw(end-begin end-running-read end-locked end-commit end-committed)),
	map({ [ 'end-locked', 'verify', passes => $_ ] } 0, 1),
	# of the sums alone, and of a merge
	[ 'merge-locked', 'merge', merge_after => 600 ],
	map({ [ $_, 'merge', merge_after => 600 ] } qw(merge-summed merge-commit)));
log_clean($node);
done_testing();
