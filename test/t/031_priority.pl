# Priorities: which of an owner's migrations comes first, that none waits forever, and who keeps a table.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('priority', conf => <<'EOC');
bbm.max_workers = 1
bbm.naptime = 0
EOC

sub enabled
{
	my ($to) = @_;
	$node->append_conf('postgresql.conf', "bbm.enabled = $to");
	$node->reload;
	ok($node->poll_query_until('postgres', "SELECT current_setting('bbm.enabled') = '$to'"), "bbm.enabled is $to");
	return;
}

# In this order they were first started by a worker.
sub order_of_start
{
	my ($like) = @_;
	return value($node, "SELECT string_agg(name, ', ' ORDER BY id) FROM bbm_events WHERE event = 'running' AND name LIKE '$like%'");
}

# ----
# One worker, and three migrations that are started while it may not work.
enabled('off');
for my $priority (0, 100, -100)
{
	counter_table($node, "t_$priority" =~ s/-/minus_/r, 100);
	define($node, "order $priority", "t_$priority" =~ s/-/minus_/r, batch_size => 10, priority => $priority, start => 'true');
}
enabled('on');
finished($node, "order $_") for (0, 100, -100);
is(order_of_start('order'), 'order 100, order 0, order -100', 'the highest priority comes first');

# ----
# One of a low priority has waited for an hour: it counts as first, and is the first by its id.  By
# priority alone it would be the last.
enabled('off');
counter_table($node, "waited_$_", 100) for (1 .. 3);
define($node, 'waited long', 'waited_1', batch_size => 10, priority => 0, start => 'true');
define($node, 'waited not', 'waited_2', batch_size => 10, priority => 0, start => 'true');
define($node, 'waited first', 'waited_3', batch_size => 10, priority => 100, start => 'true');
value($node, <<'EOS');
ALTER TABLE batched_background_migrations DISABLE TRIGGER bbm_guard;
UPDATE batched_background_migrations SET updated_at = now() - interval '1 hour' WHERE name = 'waited long';
ALTER TABLE batched_background_migrations ENABLE TRIGGER bbm_guard;
EOS
enabled('on');
finished($node, "waited $_") for ('long', 'not', 'first');
is(order_of_start('waited'), 'waited long, waited first, waited not', 'a migration that has waited for long comes before a higher priority');

# ----
# Two on one table and a single worker: what one of them waits for is not a worker, as another would not help.
counter_table($node, 'single', 100);
gate($node, 'shut');
define($node, 'single first', 'single', job => 'gated', batch_size => 10, start => 'true');
reach_gate($node);
define($node, 'single second', 'single', batch_size => 10, start => 'true');
is(value($node, q(SELECT waiting_on FROM bbm_status_detail('single second'))),
	'another migration on the table, id ' . value($node, q(SELECT id FROM bbm_status_detail('single first'))),
	'one that no worker has tried names the other migration on its table, too');
value($node, q(SELECT bbm_alter('single second', share_table => true)));
is(value($node, q(SELECT waiting_on FROM bbm_status_detail('single second'))), value($node, q(SELECT 'another migration on the table, id ' || id FROM bbm_status_detail('single first'))),
	'... unless both share the table');
value($node, q(SELECT bbm_alter('single first', share_table => true)));
is(value($node, q(SELECT waiting_on FROM bbm_status_detail('single second'))), 'a worker', '... and then it is a worker');
gate($node, 'open');
finished($node, "single $_") for ('first', 'second');
gate($node, 'shut');

# ----
# Two on one table: the one of a higher priority does not release it for the other, until that counts as much.
$node->append_conf('postgresql.conf', 'bbm.max_workers = 2');
$node->restart;
counter_table($node, 'held', 100);
my $waiters = q(SELECT count(*) FROM pg_locks WHERE locktype = 'userlock' AND objsubid = 4);
define($node, 'higher', 'held', job => 'gated', batch_size => 10, priority => 100, start => 'true');
reach_gate($node);
define($node, 'lower', 'held', batch_size => 10, start => 'true');
ok($node->poll_query_until('postgres', q(SELECT waiting_on LIKE 'another migration on the table%' FROM bbm_status_detail('lower'))),
	'the one of a lower priority waits for the table');
is(value($node, $waiters), '0', 'but does not ask for it');
value($node, q(SELECT bbm_alter('lower', priority => 100)));
ok($node->poll_query_until('postgres', $waiters, '1'), 'with the same priority it does');
gate($node, 'open');
finished($node, $_) for ('higher', 'lower');
is(value($node, 'SELECT count(*) FROM held WHERE n = 2'), '100', 'both have done all');

no_workers($node);
log_clean($node);
$node->stop;
done_testing();
