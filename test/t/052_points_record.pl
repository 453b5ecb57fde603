# A process stands at each point after a batch that was undone, and of its record while something happens to
# it or to its migration: see BbmPoints.pm.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmPoints;
use BbmTest;
use Test::More;

my $node = points_node('points_record', conf => POINTS_CONF);
force_orders(
	$node, [ACTS],
	map({ [ $_, 'requeue' ] } qw(batch-aborted requeue-begin requeue-commit requeue-committed)),
	map({ [ $_, 'failure' ] } qw(failure-begin failure-commit failure-committed)));
log_clean($node);
done_testing();
