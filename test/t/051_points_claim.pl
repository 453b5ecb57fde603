# A process stands at each point of a claim, of the start of a migration, and of a launch while something happens to
# it or to its migration: see BbmPoints.pm.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmPoints;
use BbmTest;
use Test::More;

my $node = points_node('points_claim', conf => POINTS_CONF);
force_orders(
	$node, [ACTS],
	map({ [ $_, 'plain' ] } qw(claim-begin claim-permitted claim-allocated claim-commit claim-committed
			start-begin start-commit start-committed)),
	map({ [ $_, 'plain', any => 1 ] } qw(launch-reserved launch-registered launch-attach launch-connected)));
log_clean($node);
done_testing();
