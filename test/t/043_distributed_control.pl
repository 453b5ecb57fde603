# Distributed tables (Citus): control of the whole while a node does not answer, and from
# any node; nodes that come, go and fail over; tables that are distributed, or not any more,
# in mid-run.  Skipped where the server does not offer the extension citus.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmCitus;
use BbmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my @node = citus_cluster(streaming => 1);
my ($c, @worker) = @node;
my ($one, $two) = @worker;

$c->safe_psql('postgres', 'CREATE EXTENSION bbm');
join_cluster();

my $nobody = q(SELECT count(*) = 0 FROM batched_background_migrations WHERE status IN (1, 4));
my $at_work = q(SELECT count(*) > 0 FROM batched_background_migrations WHERE status = 4);

# a result, with a warning
sub warns
{
	my ($sql, $result, $warning, $what, $node) = @_;
	my ($rc, $stdout, $stderr) = ($node || $c)->psql('postgres', $sql);
	ok($rc == 0 && $stdout eq $result && $stderr =~ $warning, $what) or diag("$rc: $stdout; $stderr");
	return;
}

# a migration of the table, at work on both nodes
sub begin_on_both
{
	my ($table, $options) = @_;
	value($c, "SELECT bbm_update('$table', '$table', 'n = n + 1', batch_size => 10, start => true" . ($options // '') . ')');
	ok($_->poll_query_until('postgres', $at_work), "$table is at work on node " . $_->name) foreach @worker;
	return;
}

sub of_migration
{
	my ($column, $name) = @_;
	return value($c, "SELECT $column FROM batched_background_migrations WHERE name = '$name'");
}

# ---- a pause while a node is down: for the others, and for that one when it is back

my $of_one = $one->host . ':' . $one->port;
my $away = qr/WARNING:  migration "slow" is paused on 1 of 2 nodes\nDETAIL:  It may go on at the others: node \Q$of_one\E: .*HINT:  bbm tells them/s;
my $unreached = "1 of 2 nodes: $of_one";

rate(30);
table('slow', 4000, 4);
begin_on_both('slow');
$one->stop('immediate');
warns(q(BEGIN; SELECT bbm_pause('slow'); ROLLBACK), 1, $away, 'a pause with a node down says so');
is(of_migration('status, unreached_nodes', 'slow'), '4|', '... and can be rolled back');
my $done = value($two, q(SELECT sum(row_count) FROM batched_background_migration_jobs));
ok($two->poll_query_until('postgres', "SELECT sum(row_count) > $done FROM batched_background_migration_jobs"), '... after which the other node goes on');
warns(q(SELECT bbm_pause('slow')), 1, $away, 'a pause with a node down pauses');
ok($two->poll_query_until('postgres', $nobody), '... the other node');
is(value($c, q(SELECT status, waiting_on FROM bbm_status_detail('slow'))), "paused|may go on at $unreached", '... and the status says which is not told');
like(value($c, q(SELECT waiting_on FROM bbm_status('slow'))), qr/^may go on at 1 of 2 nodes/, '... also where there is little room');
warns(q(SELECT bbm_pause('slow')), 0, $away, 'another pause says so again');
warns(q(SELECT bbm_pause('slow', cancel => true)), 0, $away, '... and one that cancels');
refuses(q(SELECT bbm_pause('slow', wait => true)), qr/cannot pause migration "slow" on every node/, 'nobody can wait for its batches');
refuses(q(SELECT bbm_cancel('slow')), qr/cannot pause migration "slow" on every node.*HINT:  .*cancel => true/s, '... also with bbm_cancel');
refuses(q(SELECT bbm_start('slow')), qr/cannot start migration "slow" on every node.*could be started on 1 of 2 nodes, and nothing has changed/s, 'it cannot be started');
refuses(q(SELECT bbm_alter('slow', batch_size => 7)), qr/cannot alter migration "slow" on every node/, '... nor altered');
refuses(q(SELECT bbm_drop('slow')), qr/cannot drop migration "slow" on every node.*could be dropped on \d of \d nodes, and nothing has changed/s, '... nor dropped');
is(of_migration('status, unreached_nodes, batch_size', 'slow'), "0|$unreached|10", '... and stays as it is');
# what is to be told survives a crash of the coordinator
$c->stop('immediate');
$c->start;
$one->start;
ok($c->poll_query_until('postgres', q(SELECT unreached_nodes IS NULL FROM batched_background_migrations WHERE name = 'slow')), 'when the node is back, it is told');
ok($one->poll_query_until('postgres', $nobody), '... and pauses');
is(value($c, q(SELECT status, waiting_on FROM bbm_status_detail('slow'))), 'paused|', '... and the status shows no more');
$done = value($c, q(SELECT count(*) FROM slow WHERE n = 1));
ok($done > 0 && $done < 4000, 'it is half done');
value($_, q(SELECT bbm_start())) foreach @worker;
ok($_->poll_query_until('postgres', $nobody), '... and none goes on') foreach @worker;
is(value($c, q(SELECT count(*) FROM slow WHERE n = 1)), $done, '... with another batch');
value($c, q(SELECT bbm_start('slow')));
ok($_->poll_query_until('postgres', $at_work), 'started again, it is at work') foreach @worker;
$one->stop('immediate');
warns(q(UPDATE batched_background_migrations SET status = 0 WHERE name = 'slow'), '', $away, 'an UPDATE pauses as well');
ok($two->poll_query_until('postgres', $nobody), '... the node that answers');
$one->start;
ok($c->poll_query_until('postgres', q(SELECT unreached_nodes IS NULL FROM batched_background_migrations WHERE name = 'slow')), '... and the other one later');
rate(0);
value($c, q(SELECT bbm_start('slow')));
is(value($c, q(SELECT bbm_wait('slow', '3 min'))), 'finished', 'it is finished');
once('slow', 4000, '... with every row once');
value($c, q(SELECT bbm_drop('slow')));

# ---- keys of other types; a shard that has been split

$c->safe_psql('postgres', <<'EOS');
SET citus.shard_count = 4;
CREATE TABLE by_name (tenant varchar(20), id int, n integer NOT NULL DEFAULT 0, PRIMARY KEY (tenant, id));
SELECT create_distributed_table('by_name', 'tenant', colocate_with => 'none');
INSERT INTO by_name SELECT 'tenant ''' || i % 40, i, 0 FROM generate_series(1, 2000) i;
CREATE TABLE by_day (day date, id int, n integer NOT NULL DEFAULT 0, PRIMARY KEY (day, id));
SELECT create_distributed_table('by_day', 'day', colocate_with => 'none');
INSERT INTO by_day SELECT '2020-01-01'::date + i % 300, i, 0 FROM generate_series(1, 2000) i;
EOS
$c->safe_psql('postgres', q(SELECT isolate_tenant_to_new_shard('by_name', 'tenant ''7', shard_transfer_mode => 'block_writes')));
# this node writes dates in its own way
$two->append_conf('postgresql.conf', q(datestyle = 'German'));
rate(30);
foreach my $table ('by_name', 'by_day')
{
	begin_on_both($table);
	$one->stop('immediate');
	warns("SELECT bbm_pause('$table')", 1, qr/"$table" is paused on 1 of 2 nodes/, "$table: paused on one node");
	ok($two->poll_query_until('postgres', $nobody), '... with all of its shards');
	$one->start;
	ok($c->poll_query_until('postgres', "SELECT unreached_nodes IS NULL FROM batched_background_migrations WHERE name = '$table'"), '... and then on the other');
	ok($one->poll_query_until('postgres', $nobody), '... with all of its shards');
	is(value($c, sprintf(q(SELECT count(*) FROM bbm_internal.bbm_shards_%d WHERE active), of_migration('id', $table))), 0, '... and nothing is active any more');
}
rate(0);
foreach my $table ('by_name', 'by_day')
{
	value($c, "SELECT bbm_start('$table')");
	is(value($c, "SELECT bbm_wait('$table', '3 min')"), 'finished', "$table is finished");
	once($table, 2000, '... with every row once');
	value($c, "SELECT bbm_drop('$table')");
}

# ---- one that fails while a node is down

rate(30);
table('bad', 4000, 4);
# a row of a shard of the other node, among its first
my ($shard) = grep { $_->[3] == $two->port } shards_of('bad');
my $poison = value($c, "SELECT min(id) FROM bad WHERE get_shard_id_for_distribution_column('bad', id) = $shard->[0]");
begin_on_both('bad', q(, settings => '{bbm.retry_delay=5s}', max_attempts => 2));
value($c, q(SELECT bbm_pause('bad', wait => true)));
$poison = value($c, "SELECT min(id) FROM bad WHERE n = 0 AND get_shard_id_for_distribution_column('bad', id) = $shard->[0]");
value($c, q(SELECT bbm_drop('bad')));
value($c, "UPDATE bad SET pad = 'x' WHERE id = $poison");
value($c, q(SELECT bbm_update('bad', 'bad', 'n = 1 / (CASE WHEN pad = ''x'' THEN 0 ELSE 1 END)', batch_size => 10, max_attempts => 2,
	settings => '{bbm.retry_delay=3s}', start => true)));
ok($_->poll_query_until('postgres', $at_work), 'one that will fail is at work') foreach @worker;
$one->stop('immediate');
is(value($c, q(SELECT bbm_wait('bad', '3 min'))), 'failed', 'it fails while a node is down');
is(of_migration('unreached_nodes', 'bad'), $unreached, '... which is not told yet');
ok($two->poll_query_until('postgres', $nobody), '... while the other one has stopped');
$one->start;
ok($c->poll_query_until('postgres', q(SELECT unreached_nodes IS NULL FROM batched_background_migrations WHERE name = 'bad')), '... until it is back');
ok($one->poll_query_until('postgres', $nobody), '... and stops, too');
is(of_migration('status, failure_error_code', 'bad'), '3|4', 'it stays failed');
rate(0);
value($c, q(UPDATE bad SET pad = '' WHERE pad = 'x'));
is(value($c, q(SELECT bbm_retry('bad'))), 1, 'it is tried again');
is(value($c, q(SELECT bbm_wait('bad', '3 min'))), 'finished', '... and finished');
once('bad', 4000, '... with every row done');
value($c, q(SELECT bbm_drop('bad')));

# ---- the end

foreach my $node (@node)
{
	is(value($node, q(SELECT count(*) FROM batched_background_migrations)), 0, 'nothing is left on ' . $node->name);
	$node->stop;
}
done_testing();
