# A migration that somebody has seen finished is finished after a crash: that commit is
# flushed, although those of its batches are not.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use Test::More;

# nobody else flushes
my $node = bbm_node('flush', conf => "bbm.naptime = 0\nautovacuum = off\n");

counter_table($node, 'm', 100);
define($node, 'm', 'm', batch_size => 10);
my $walwriter = value($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
kill STOP => $walwriter;
value($node, "SELECT bbm_start('m')");
finished($node, 'm');
my $seen = value($node, 'SELECT status, finished_at FROM batched_background_migrations');

$node->kill9;
kill KILL => $walwriter;
start_anyway($node);
is(value($node, 'SELECT status, finished_at FROM batched_background_migrations'), $seen, 'what was seen finished is so after a crash');
once_each($node, 'm', 100);
ranges_ok($node, 'm', 'm');

no_workers($node);
log_clean($node);
done_testing();
