
# Sessions that run a migration, or wait for one: what else they take part in.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('sessions', conf => <<'EOC');
bbm.naptime = 0
bbm.min_pace = 1
EOC

sub server_setting
{
	value($node, "ALTER SYSTEM $_") for @_;
	$node->reload;
	return;
}

# A reload reaches a session in bbm_run, too: it does not wait for hours that have changed.
counter_table($node, 't_reload', 1000);
define($node, 'reload', 't_reload', batch_size => 10);
my $then = ((gmtime)[2] + 12) % 24;
server_setting('SET bbm.enabled = off', sprintf q(SET bbm.active_hours = '%02d:00-%02d:30 UTC'), $then, $then);
$node->poll_query_until('postgres', q(SELECT current_setting('bbm.active_hours') <> ''));
my $run = background($node, 'postgres', q(SET statement_timeout = '100s'), q(CALL bbm_run('reload')));
ok($node->poll_query_until('postgres', q(SELECT waiting_on LIKE 'active hours: %' FROM bbm_status_detail('reload'))),
	'a session in bbm_run waits for the active hours');
server_setting('RESET bbm.active_hours');
my ($out, $err) = finish_background($run);
like($err, qr/migration "reload" is finished: 1000 rows/, '... and goes on when a reload has turned them off');
once_each($node, 't_reload', 1000);
server_setting('RESET bbm.enabled');

done_testing();
