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
	map({ [ $_, 'merge', passes => 1 ] } qw(merge-locked merge-summed merge-commit)));
log_clean($node);
done_testing();
