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

# ---- control from another node than the coordinator

my $there = quotemeta $c->host . ':' . $c->port;
my $status = q(SELECT status FROM bbm_status('any'));
table('any_node', 4000, 4);
rate(30);
value($c, q(SELECT bbm_update('any', 'any_node', 'n = n + 1', 'n = 0', batch_size => 10)));
is(value($one, $status), 'paused', 'another node knows its status');
is(value($one, q(SELECT bbm_start('any'))), 1, '... and starts it');
ok($_->poll_query_until('postgres', $at_work), '... on all nodes') foreach @worker;
ok($c->poll_query_until('postgres', q(SELECT rows_done > 0 FROM bbm_status('any'))), 'it is at work');
foreach my $shown ('bbm_status', 'bbm_status_detail', 'bbm_jobs')
{
	# what changes from one look to the next is left out
	my $row = q(to_jsonb(s) - '{rows_done,rows,rows_per_second,rows_per_second_5min,percent,eta,waiting_on,last_progress_at,pace,pace_reason,jobs_finished,jobs_running,id}'::text[]);
	my $sql = "SELECT jsonb_agg($row ORDER BY s::text) FROM $shown('any') s";
	$sql =~ s/ORDER BY s::text/ORDER BY min_value/ if $shown eq 'bbm_jobs';
	is(value($one, $sql), value($c, $sql), "$shown is what the coordinator shows");
}
is(value($one, q(SELECT count(*) FROM bbm_status() WHERE name = 'any')), 0, 'without a name a node shows what is its own');
is(value($one, q(SELECT count(*) FROM bbm_status() WHERE name LIKE 'any/%')), 2, '... the shards that it has');
is(value($one, q(SELECT bbm_wait('any', '1ms'))), 'running', 'it waits');
refuses(q(SELECT bbm_ensure_finished('any')), qr/not all migrations are finished\nDETAIL:  Migration "any", on the coordinator, is running/, '... and checks', $one);
refuses(q(BEGIN; SELECT bbm_pause('any')), qr/cannot control migration "any" in a transaction block.*$there.*HINT:  Call it outside/s, 'a transaction block could not undo it', $one);
is(value($c, $status), 'running', '... and it goes on');
is(value($one, q(SELECT bbm_pause('any', wait => true))), 1, 'it pauses');
is(value($c, $status), 'paused', '... the whole');
ok($_->poll_query_until('postgres', $nobody), '... on all nodes') foreach @worker;
value($two, q(SELECT bbm_alter('any', batch_size => 20, settings => '{bbm.max_row_rate=31}', target_duration => NULL)));
is(of_migration('batch_size, settings', 'any'), '20|{bbm.max_row_rate=31}', 'it alters');
my $left = value($c, 'SELECT count(*) FROM any_node WHERE n = 0');
is(value($one, q(SELECT bbm_verify('any'))), $left, 'it verifies');
is(value($c, q(SELECT bbm_verify('any'))), $left, '... as the coordinator does');
is(value($c, q(SELECT bbm_verify('any', 'any_node.n = 1'))), $left, '... with a check');
refuses(q(SELECT bbm_verify('any', 'true); DELETE FROM any_node; SELECT (true')), qr/"row_check" must not contain a semicolon/, '... which is an expression');
is(value($two, q(SELECT bbm_resume('any'))), 1, 'it resumes');
$one->stop('immediate');
warns(q(SELECT bbm_pause('any')), 1, qr/WARNING:  migration "any" is not paused on every node\nDETAIL:  It may go on at 1 of 2 nodes: \Q$of_one\E/, 'a pause with a node down says so, from another one, too', $two);
$one->start;
ok($c->poll_query_until('postgres', q(SELECT unreached_nodes IS NULL FROM batched_background_migrations)), '... which is told later');
is(value($two, q(SELECT bbm_cancel('any'))), 0, 'it cancels');
# a shard by itself
my $part = value($two, q(SELECT min(name) FROM batched_background_migrations));
refuses("SELECT $_('$part')", qr/cannot \w+ migration "\Q$part\E".*one shard\.\nHINT:  Do that with the migration of the whole table/s, "$_ of a shard by itself", $two)
  foreach ('bbm_start', 'bbm_pause', 'bbm_cancel', 'bbm_retry', 'bbm_drop', 'bbm_verify');
refuses("UPDATE batched_background_migrations SET status = 1 WHERE name = '$part'", qr/the status of migration "\Q$part\E" cannot be set.*HINT:  Do that with/s, '... or with an UPDATE', $two);
is(value($one, q(SELECT bbm_start('any'))), 1, 'it is started again');
ok($_->poll_query_until('postgres', $at_work), '... on all nodes') foreach @worker;
warns(q(SELECT bbm_pause()), 0, qr/WARNING:  \d migrations? of (a shard goes|shards go) on.*HINT:  Pause those/s, 'who pauses all on a node is told of its shards', $one);
is(value($c, $status), 'running', '... and the whole goes on');
refuses(q(SELECT bbm_start('anny')), qr/migration "anny" does not exist\nDETAIL:  .*coordinator, node $there/, 'a name that does not exist', $one);
refuses(q(SELECT bbm_wait('anny')), qr/migration "anny" does not exist/, '... to wait for', $one);
refuses(q(SELECT bbm_ensure_finished('anny')), qr/migration "anny" does not exist\nDETAIL:  .*coordinator, node $there/, '... to check', $one);
refuses(q(SELECT bbm_dry_run('any')), qr/migration "any" does not exist\nDETAIL:  .*coordinator, node $there/, 'what a node cannot do names the coordinator', $one);
# a role that may do nothing there
value($c, q(CREATE ROLE nobody LOGIN));
$_->safe_psql('postgres', 'GRANT EXECUTE ON FUNCTION bbm_start TO nobody') foreach @node;
refuses(q(SET ROLE nobody; SELECT bbm_start('any')), qr/permission denied for migration "any"/, 'a role has the rights that it has there', $one);
is(value($one, q(SET ROLE nobody; SELECT count(*) FROM bbm_status('any'))), 0, '... and sees what it sees there');
# what is defined on the node comes first
$one->safe_psql('postgres', q(SET citus.enable_ddl_propagation = off; CREATE TABLE of_node (id int PRIMARY KEY, n int)));
value($one, q(SELECT bbm_create('any', 'of_node', 'UPDATE of_node SET n = 1 WHERE id BETWEEN $1 AND $2')));
is(value($one, $status), 'paused', 'a migration of the same name on the node is the one that is meant there');
value($one, q(SELECT bbm_drop('any')));
is(value($one, $status), 'running', '... until it is dropped');
$c->stop;
refuses(q(SELECT bbm_pause('any')), qr/failed to connect.*DETAIL:  .*coordinator, node $there/s, 'without the coordinator, nobody pauses it', $one);
refuses($status, qr/failed to connect/, '... or sees how far it is', $one);
$c->start;
rate(0);
value($one, q(SELECT bbm_alter('any', settings => '{}')));
is(value($one, q(SELECT bbm_wait('any', '3 min'))), 'finished', 'it is finished');
value($one, q(SELECT bbm_ensure_finished('any')));
is(value($one, q(SELECT bbm_verify('any'))), 0, '... with no row left');
once('any_node', 4000, '... and every row once');
is(value($two, q(SELECT bbm_drop('any'))), 't', 'it is dropped from another node');
is(value($two, q(SELECT bbm_drop('any', if_exists => true))), 'f', '... once');
is(value($c, q(SELECT count(*) FROM batched_background_migrations)), 0, '... everywhere');

# ---- the end

foreach my $node (@node)
{
	is(value($node, q(SELECT count(*) FROM batched_background_migrations)), 0, 'nothing is left on ' . $node->name);
	$node->stop;
}
done_testing();
