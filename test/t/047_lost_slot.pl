
# A replication slot that the server has given up keeps no rows, whatever xmin it had.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('primary', streaming => 1, conf => <<'EOC');
bbm.naptime = 0
bbm.min_pace = 1
bbm.max_slot_wal = -1
autovacuum = off
min_wal_size = 32MB
max_wal_size = 32MB
EOC
$node->backup('base');
value($node, q(SELECT pg_create_physical_replication_slot('lost')));
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', <<'EOC');
primary_slot_name = 'lost'
hot_standby_feedback = on
wal_receiver_status_interval = 1
EOC
$standby->start;
ok($node->poll_query_until('postgres', q(SELECT xmin IS NOT NULL AND restart_lsn IS NOT NULL FROM pg_replication_slots)), 'a standby keeps rows, by a slot');
$standby->stop;

counter_table($node, 't', 100);
define($node, 'm', 't', batch_size => 10, settings => q('{bbm.max_horizon_age=100ms, bbm.max_row_rate=50}'), start => 'true');
ok($node->poll_query_until('postgres', q(SELECT waiting_on LIKE 'old snapshot: a replication slot %' FROM bbm_status_detail('m'))), 'a migration waits for the slot');
value($node, q(ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'));
$node->reload;
for (1 .. 4)
{
	value($node, 'SELECT pg_logical_emit_message(true, repeat(chr(97), 100000), chr(98))');
	value($node, 'SELECT pg_switch_wal()');
}
value($node, 'CHECKPOINT');
is(value($node, 'SELECT wal_status, xmin IS NOT NULL FROM pg_replication_slots'), 'lost|t', 'the server gives the slot up');
# not by what vacuum has left, but by what it removes
value($node, 'CREATE TABLE dead AS SELECT 1 AS n');
# again if a batch of the migration began before it
my $vacuumed = '';
for (1 .. 100)
{
	value($node, 'UPDATE dead SET n = n + 1');
	$vacuumed = ($node->psql('postgres', 'VACUUM (VERBOSE) dead'))[2];
	last if $vacuumed =~ /tuples: [1-9]\d* removed/;
}
like($vacuumed, qr/tuples: [1-9]\d* removed/, '... and vacuum does not go by it');
my ($status) = finish_background(background($node, 'postgres', q(SELECT bbm_wait('m', '180s'))));
is($status, 'finished', '... nor does the migration wait for it any more');

done_testing();
