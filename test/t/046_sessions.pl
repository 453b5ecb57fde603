
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
my $run = background($node, 'postgres', q(SET statement_timeout = '180s'), q(CALL bbm_run('reload')));
ok($node->poll_query_until('postgres', q(SELECT waiting_on LIKE 'active hours: %' FROM bbm_status_detail('reload'))),
	'a session in bbm_run waits for the active hours');
server_setting('RESET bbm.active_hours');
my ($out, $err) = finish_background($run);
like($err, qr/migration "reload" is finished: 1000 rows/, '... and goes on when a reload has turned them off');
once_each($node, 't_reload', 1000);
server_setting('RESET bbm.enabled');

# Who waits for a migration is not what it waits for; nor is who waits for one in another database.
value($node, 'CREATE DATABASE other');
value($node, 'CREATE EXTENSION bbm', 'other');
my %db = (here => 'postgres', there => 'other');
for my $name (sort keys %db)
{
	counter_table($node, "t_$name", 500, $db{$name});
	define($node, $name, "t_$name", db => $db{$name}, batch_size => 100, settings => q('{bbm.max_active_sessions=0, bbm.max_row_rate=500}'));
}
my @waits = map { background($node, $db{$_}, "SELECT bbm_wait('$_', '180s')") } qw(here there);
$node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM pg_stat_activity WHERE query LIKE 'SELECT bbm_wait%' AND state = 'active'));
value($node, "SELECT bbm_start('$_')", $db{$_}) for qw(here there);
for my $wait (@waits)
{
	($out) = finish_background($wait);
	is($out, 'finished', 'max_active_sessions: a migration does not wait for the session that waits for it');
}

done_testing();
