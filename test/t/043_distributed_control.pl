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

# rows a second of each shard: none is done while a busy machine moves them, and a batch is soon
my $slow = 2;
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
	value($c, "SELECT bbm_update('$table', '$table', 'n = n + 1', batch_size => 2, start => true" . ($options // '') . ')');
	ok($_->poll_query_until('postgres', $at_work), "$table is at work on node " . $_->name) foreach @worker;
	return;
}

# no rate any more, and larger batches: the rest is done soon
sub speed_up
{
	rate(0);
	value($c, "SELECT bbm_alter('$_', batch_size => 500)") foreach @_;
	return;
}

# rows of the shards that a node has
sub goes_on
{
	my ($table, $node, $what) = @_;
	my $shards = join ', ', map { $_->[0] } grep { $_->[3] == $node->port } shards_of($table);
	my $rows = "SELECT count(*) FROM $table WHERE n = 1 AND get_shard_id_for_distribution_column('$table', id) IN ($shards)";
	my $before = value($c, $rows);
	return ok($c->poll_query_until('postgres', "SELECT ($rows) > $before"), $what);
}

sub of_migration
{
	my ($column, $name) = @_;
	return value($c, "SELECT $column FROM batched_background_migrations WHERE name = '$name'");
}

# ---- a pause while a node is down: for the others, and for that one when it is back

my $of_one = $one->host . ':' . $one->port;
my $away = qr/WARNING:  migration "slow" is paused on 1 of 2 nodes\nDETAIL:  It may go on at the others: node \Q$of_one\E: .*HINT:  bbm pauses it there as soon as they answer/s;
my $unreached = "1 of 2 nodes: $of_one";

rate($slow);
table('slow', 4000, 4);
begin_on_both('slow');
$one->stop('immediate');
warns(q(BEGIN; SELECT bbm_pause('slow'); ROLLBACK), 1, $away, 'a pause with a node down says so');
is(of_migration('status, unreached_nodes', 'slow'), '4|', '... and can be rolled back');
my $done = value($two, q(SELECT sum(row_count) FROM batched_background_migration_jobs));
ok($two->poll_query_until('postgres', "SELECT sum(row_count) > $done FROM batched_background_migration_jobs"), '... after which the other node goes on');
warns(q(SELECT bbm_pause('slow')), 1, $away, 'a pause with a node down pauses');
ok($two->poll_query_until('postgres', $nobody), '... the other node');
is(value($c, q(SELECT status, waiting_on FROM bbm_status_detail('slow'))), "paused|may go on at $unreached", '... and the status says which does not know');
like(value($c, q(SELECT waiting_on FROM bbm_status('slow'))), qr/^may go on at 1 of 2 nodes/, '... also where there is little room');
warns(q(SELECT bbm_pause('slow')), 0, $away, 'another pause says so again');
warns(q(SELECT bbm_pause('slow', cancel => true)), 0, $away, '... and one that cancels');
refuses(q(SELECT bbm_pause('slow', wait => true)), qr/cannot pause migration "slow" on every node/, 'nobody can wait for its batches');
refuses(q(SELECT bbm_cancel('slow')), qr/cannot pause migration "slow" on every node.*HINT:  .*cancel => true/s, '... also with bbm_cancel');
refuses(q(SELECT bbm_start('slow')), qr/cannot start migration "slow" on every node.*could be started on 1 of 2 nodes, and nothing has changed/s, 'it cannot be started');
refuses(q(SELECT bbm_alter('slow', batch_size => 7)), qr/cannot alter migration "slow" on every node/, '... nor altered');
refuses(q(SELECT bbm_drop('slow')), qr/cannot drop migration "slow" on every node.*could be dropped on \d of \d nodes, and nothing has changed/s, '... nor dropped');
is(of_migration('status, unreached_nodes, batch_size', 'slow'), "0|$unreached|2", '... and stays as it is');
# which nodes do not know survives a crash of the coordinator
$c->stop('immediate');
$c->start;
$one->start;
ok($c->poll_query_until('postgres', q(SELECT unreached_nodes IS NULL FROM batched_background_migrations WHERE name = 'slow')), 'when the node is back, it is paused there');
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
speed_up('slow');
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
rate($slow);
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
speed_up('by_name', 'by_day');
foreach my $table ('by_name', 'by_day')
{
	value($c, "SELECT bbm_start('$table')");
	is(value($c, "SELECT bbm_wait('$table', '3 min')"), 'finished', "$table is finished");
	once($table, 2000, '... with every row once');
	value($c, "SELECT bbm_drop('$table')");
}

# ---- one that fails while a node is down

rate($slow);
table('bad', 4000, 4);
# a row of a shard of the other node, among its first
my ($shard) = grep { $_->[3] == $two->port } shards_of('bad');
my $poison = value($c, "SELECT min(id) FROM bad WHERE get_shard_id_for_distribution_column('bad', id) = $shard->[0]");
begin_on_both('bad', q(, settings => '{bbm.retry_delay=5s}', max_attempts => 2));
value($c, q(SELECT bbm_pause('bad', wait => true)));
$poison = value($c, "SELECT min(id) FROM bad WHERE n = 0 AND get_shard_id_for_distribution_column('bad', id) = $shard->[0]");
value($c, q(SELECT bbm_drop('bad')));
value($c, "UPDATE bad SET pad = 'x' WHERE id = $poison");
value($c, q(SELECT bbm_update('bad', 'bad', 'n = 1 / (CASE WHEN pad = ''x'' THEN 0 ELSE 1 END)', batch_size => 2, max_attempts => 2,
	settings => '{bbm.retry_delay=15s}', start => true)));
ok($_->poll_query_until('postgres', $at_work), 'one that will fail is at work') foreach @worker;
$one->stop('immediate');
is(value($c, q(SELECT bbm_wait('bad', '3 min'))), 'failed', 'it fails while a node is down');
is(of_migration('unreached_nodes', 'bad'), $unreached, '... which does not know yet');
ok($two->poll_query_until('postgres', $nobody), '... while the other one has stopped');
$one->start;
ok($c->poll_query_until('postgres', q(SELECT unreached_nodes IS NULL FROM batched_background_migrations WHERE name = 'bad')), '... until it is back');
ok($one->poll_query_until('postgres', $nobody), '... and stops, too');
is(of_migration('status, failure_error_code', 'bad'), '3|4', 'it stays failed');
speed_up('bad');
value($c, q(UPDATE bad SET pad = '' WHERE pad = 'x'));
is(value($c, q(SELECT bbm_retry('bad'))), 1, 'it is tried again');
is(value($c, q(SELECT bbm_wait('bad', '3 min'))), 'finished', '... and finished');
once('bad', 4000, '... with every row done');
value($c, q(SELECT bbm_drop('bad')));

# ---- one that is tried again while a node is down: once

table('retried', 400, 4);
$poison = value($c, "SELECT min(id) FROM retried WHERE get_shard_id_for_distribution_column('retried', id) IN (" . join(', ', map { $_->[0] } grep { $_->[3] == $two->port } shards_of('retried')) . ')');
value($c, "UPDATE retried SET pad = 'x' WHERE id = $poison");
value($c, q(SELECT bbm_update('retried', 'retried', 'n = n + 1 / (CASE WHEN pad = ''x'' THEN 0 ELSE 1 END)', batch_size => 10, max_attempts => 2, start => true)));
is(value($c, q(SELECT bbm_wait('retried', '3 min'))), 'failed', 'one has failed');
# the coordinator does not work until the node is down
works($c, 'off');
ok(workers_gone($c), 'nobody works on the coordinator');
is(value($c, q(SELECT bbm_retry('retried'))), 1, 'it is to be tried again');
$one->stop('immediate');
works($c, 'on');
is(value($c, q(SELECT bbm_wait('retried', '3 min'))), 'failed', 'it fails again, though a node is down');
$one->start;
ok($c->poll_query_until('postgres', q(SELECT unreached_nodes IS NULL FROM batched_background_migrations WHERE name = 'retried')), '... which learns it later');
value($c, q(UPDATE retried SET pad = ''));
value($c, q(SELECT bbm_retry('retried')));
is(value($c, q(SELECT bbm_wait('retried', '3 min'))), 'finished', '... and then is finished');
once('retried', 400, '... with every row once');
value($c, q(SELECT bbm_drop('retried')));

# ---- a definition on another node than the coordinator

my $there = quotemeta $c->host . ':' . $c->port;
table('elsewhere', 400, 4);
$c->safe_psql('postgres', 'CREATE SCHEMA aside; ALTER TABLE elsewhere SET SCHEMA aside');
refuses(q(SELECT bbm_update('from one', 'elsewhere', 'n = n + 1')), qr/table "elsewhere" does not exist/, 'a table that is not found here is none of the coordinator', $one);
refuses(q(SET search_path = aside, public; SELECT bbm_update('from one', 'elsewhere', 'nope = 1')), qr/column "nope".*DETAIL:  This is the answer of the coordinator, node $there.*HINT:  Call it there/s, 'an error of the coordinator is shown', $one);
refuses(q(SET search_path = aside, public; BEGIN; SELECT bbm_update('from one', 'elsewhere', 'n = n + 1')), qr/cannot define migration "from one" in a transaction block.*$there/s, 'a transaction block could not undo it', $one);
like(value($one, q(SET search_path = aside, public; SELECT bbm_update('from one', 'elsewhere', $$n = elsewhere.n + 1, pad = 'it''s done'$$, 'n < 7', batch_size => 50, target_duration => NULL, settings => '{bbm.max_row_rate=0}'))), qr/^\d+$/, 'it is defined by another node');
is(of_migration('table_name, filter, batch_size, settings, job_search_path', 'from one'), 'aside.elsewhere|n < 7|50|{bbm.max_row_rate=0}|aside, public', '... on the coordinator, with all that is given');
is(value($one, q(SELECT bbm_start('from one'))), 1, '... and started');
is(value($one, q(SELECT bbm_wait('from one', '3 min'))), 'finished', '... and finished');
once('aside.elsewhere', 400, '... with every row once');
value($one, q(SELECT bbm_drop('from one')));
like(value($one, q(SELECT bbm_delete('from one', 'aside.elsewhere', 'id % 2 = 0', start => true))), qr/^\d+$/, 'a DELETE as well');
is(value($one, q(SELECT bbm_wait('from one', '3 min'))), 'finished', '... that is started at once');
is(value($c, q(SELECT count(*) FROM aside.elsewhere)), 200, '... and deletes what it should');
value($one, q(SELECT bbm_drop('from one')));

# ---- control from another node than the coordinator

my $status = q(SELECT status FROM bbm_status('any'));
table('any_node', 4000, 4);
rate($slow);
value($c, q(SELECT bbm_update('any', 'any_node', 'n = n + 1', 'n = 0', batch_size => 2)));
is(value($one, $status), 'paused', 'another node knows its status');
is(value($one, q(SELECT bbm_start('any'))), 1, '... and starts it');
ok($_->poll_query_until('postgres', $at_work), '... on all nodes') foreach @worker;
ok($c->poll_query_until('postgres', q(SELECT rows_done > 0 FROM bbm_status('any'))), 'it is at work');
foreach my $shown ('bbm_status', 'bbm_status_detail', 'bbm_jobs')
{
	# what changes from one poll to the next is left out
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
value($two, q(SELECT bbm_alter('any', batch_size => 3, settings => '{bbm.max_row_rate=3}', target_duration => NULL)));
is(of_migration('batch_size, settings', 'any'), '3|{bbm.max_row_rate=3}', 'it alters');
value($two, q(SELECT bbm_alter('any', new_name => 'another name')));
value($c, q(SELECT bbm_start('another name')));
ok($_->poll_query_until('postgres', q(SELECT count(*) = 2 FROM batched_background_migrations WHERE name LIKE 'another name/%' AND batch_size = 3)), '... with its name, on all nodes') foreach @worker;
value($c, q(UPDATE batched_background_migrations SET name = 'any'));
ok($_->poll_query_until('postgres', q(SELECT count(*) = 2 FROM batched_background_migrations WHERE name LIKE 'any/%')), '... also with an UPDATE') foreach @worker;
value($c, q(SELECT bbm_pause('any', wait => true)));
my $left = value($c, 'SELECT count(*) FROM any_node WHERE n = 0');
is(value($one, q(SELECT bbm_verify('any'))), $left, 'it verifies');
is(value($c, q(SELECT bbm_verify('any'))), $left, '... as the coordinator does');
is(value($c, q(SELECT bbm_verify('any', 'any_node.n = 1'))), $left, '... with a check');
refuses(q(SELECT bbm_verify('any', 'true); DELETE FROM any_node; SELECT (true')), qr/"row_check" must not contain a semicolon/, '... which is an expression');
is(value($two, q(SELECT bbm_resume('any'))), 1, 'it resumes');
$one->stop('immediate');
warns(q(SELECT bbm_pause('any')), 1, qr/WARNING:  migration "any" is not paused on every node\nDETAIL:  It may go on at 1 of 2 nodes: \Q$of_one\E/, 'a pause with a node down says so, from another one, too', $two);
$one->start;
ok($c->poll_query_until('postgres', q(SELECT unreached_nodes IS NULL FROM batched_background_migrations)), '... which learns it later');
is(value($two, q(SELECT bbm_cancel('any'))), 0, 'it cancels');
# a shard by itself
my $part = value($two, q(SELECT min(name) FROM batched_background_migrations));
refuses("SELECT $_('$part')", qr/cannot \w+ migration "\Q$part\E".*one shard\.\nHINT:  Do that with the migration of the whole table/s, "$_ of a shard by itself", $two)
  foreach ('bbm_start', 'bbm_pause', 'bbm_cancel', 'bbm_retry', 'bbm_drop', 'bbm_verify');
refuses("UPDATE batched_background_migrations SET status = 1 WHERE name = '$part'", qr/the status of migration "\Q$part\E" cannot be set.*HINT:  Do that with/s, '... or with an UPDATE', $two);
is(value($one, q(SELECT bbm_start('any'))), 1, 'it is started again');
ok($_->poll_query_until('postgres', $at_work), '... on all nodes') foreach @worker;
warns(q(SELECT bbm_pause()), 0, qr/WARNING:  \d migrations? of (a shard goes|shards go) on.*HINT:  Pause those/s, 'a WARNING shows who pauses all on a node its shards', $one);
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
value($one, q(SELECT bbm_alter('any', settings => '{}', batch_size => 500)));
is(value($one, q(SELECT bbm_wait('any', '3 min'))), 'finished', 'it is finished');
value($one, q(SELECT bbm_ensure_finished('any')));
is(value($one, q(SELECT bbm_verify('any'))), 0, '... with no row left');
once('any_node', 4000, '... and every row once');
is(value($two, q(SELECT bbm_drop('any'))), 't', 'it is dropped from another node');
is(value($two, q(SELECT bbm_drop('any', if_exists => true))), 'f', '... once');
is(value($c, q(SELECT count(*) FROM batched_background_migrations)), 0, '... everywhere');

# ---- a node that is added, and one that is drained and removed

my $three = citus_node('three');
$three->start;
$three->safe_psql('postgres', 'CREATE EXTENSION citus');
rate($slow);
table('spread', 4000, 6);
begin_on_both('spread');
# one on which nothing of bbm can run: the others go on, and the status names it
$three->append_conf('postgresql.conf', q(shared_preload_libraries = 'citus'));
$three->restart;
join_cluster($three);
rate($slow);
is(value($three, q(SELECT count(*) FROM pg_extension WHERE extname = 'bbm')), 1, 'a node that is added gets the extension');
$c->safe_psql('postgres', q(SELECT rebalance_table_shards('spread', shard_transfer_mode => 'block_writes')));
my @moved = grep { $_->[3] == $three->port } shards_of('spread');
is(@moved, 2, '... and shards');
my $port = $three->port;
ok($c->poll_query_until('postgres', "SELECT waiting_on LIKE '1 of 4 nodes that do not answer (node %:$port: %the library is not preloaded%' FROM bbm_status_detail('spread')"),
	'... and is named where it cannot do them') or diag(value($c, q(SELECT waiting_on FROM bbm_status_detail('spread'))));
goes_on('spread', $two, '... while another one goes on');
my $of_moved = "get_shard_id_for_distribution_column('spread', id) = $moved[0][0]";
$done = value($c, "SELECT count(*) FROM spread WHERE n = 1 AND $of_moved");
$three->append_conf('postgresql.conf', q(shared_preload_libraries = 'citus,bbm'));
$three->restart;
ok($c->poll_query_until('postgres', "SELECT count(*) > $done FROM spread WHERE n = 1 AND $of_moved"), 'when it can, it goes on where the other node was');
$c->safe_psql('postgres', sprintf(q(SELECT citus_drain_node('%s', %d, shard_transfer_mode => 'block_writes')), $three->host, $three->port));
is(scalar(grep { $_->[3] == $three->port } shards_of('spread')), 0, 'it is drained');
$done = value($c, "SELECT count(*) FROM spread WHERE n = 1 AND $of_moved");
ok($c->poll_query_until('postgres', "SELECT count(*) > $done FROM spread WHERE n = 1 AND $of_moved"), '... and its shards are done elsewhere');
$c->safe_psql('postgres', sprintf(q(SELECT citus_remove_node('%s', %d)), $three->host, $three->port));
replace_node($three);
$three->stop;
ok($c->poll_query_until('postgres', q(SELECT waiting_on LIKE 'its nodes: % of 6 shards done%' FROM bbm_status_detail('spread'))), 'it is removed, and nobody waits for it');
speed_up('spread');
is(value($c, q(SELECT bbm_wait('spread', '3 min'))), 'finished', 'it is finished');
once('spread', 4000, '... with every row once');
value($c, q(SELECT bbm_drop('spread')));

# ---- a node fails over to its standby

$one->backup('standby');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($one, 'standby', has_streaming => 1);
$standby->append_conf('postgresql.conf', "bbm.max_row_rate = $slow");
$standby->start;
rate($slow);
table('fails_over', 4000, 4);
begin_on_both('fails_over');
goes_on('fails_over', $one, 'the node that will fail does batches');
my $node_of_one = value($c, 'SELECT nodeid FROM pg_dist_node WHERE nodeport = ' . $one->port);
$one->stop('immediate');
warns(q(SELECT bbm_pause('fails_over')), 1, qr/is paused on 1 of 2 nodes/, 'it fails, and somebody pauses the rest');
$standby->promote;
value($c, sprintf(q(SELECT citus_update_node(%d, '%s', %d)), $node_of_one, $standby->host, $standby->port));
replace_node($one, $standby);
($one, $two) = @worker = ($standby, $two);
ok($c->poll_query_until('postgres', q(SELECT unreached_nodes IS NULL FROM batched_background_migrations)), 'its standby, in its place, learns it');
ok($one->poll_query_until('postgres', $nobody), '... and pauses');
value($c, q(SELECT bbm_start('fails_over')));
goes_on('fails_over', $one, 'started again, it goes on there');
speed_up('fails_over');
is(value($c, q(SELECT bbm_wait('fails_over', '3 min'))), 'finished', 'it is finished');
once('fails_over', 4000, '... with every row once');
value($c, q(SELECT bbm_drop('fails_over')));

# ---- a table that is distributed, or is not any more, or in another way, in mid-run

sub redistributed
{
	my ($table, $act, $error, $code, $what) = @_;
	$done = value($c, "SELECT count(*) FROM $table WHERE n = 1");
	# Citus ends whom it takes for the victim of a deadlock with a batch; whoever repeats it gets through
	for my $attempt (1 .. 10)
	{
		my ($rc, undef, $stderr) = $c->psql('postgres', $act);
		last if $rc == 0;
		$stderr =~ /distributed deadlock/ && $attempt < 10 or die "$act: $stderr";
	}
	is(value($c, "SELECT bbm_wait('$table', '3 min')"), 'failed', "$what: it fails");
	like(of_migration('error_message || error_detail', $table), $error, '... with the reason');
	is(of_migration('failure_error_code', $table), $code, '... and its code');
	ok(value($c, "SELECT count(*) FILTER (WHERE n = 1) >= $done AND count(*) FILTER (WHERE n > 1) = 0 FROM $table") eq 't', '... no row is done twice');
	value($c, "SELECT bbm_drop('$table')");
	value($c, "SELECT bbm_update('$table', '$table', 'n = n + 1', 'n = 0', batch_size => 100, settings => '{bbm.max_row_rate=0}', start => true)");
	is(value($c, "SELECT bbm_wait('$table', '3 min')"), 'finished', '... and another one does the rest');
	once($table, 4000, '... with every row once');
	value($c, "SELECT bbm_drop('$table')");
	return;
}

rate($slow);
$c->safe_psql('postgres', q(CREATE TABLE grows (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0); INSERT INTO grows SELECT i, 0 FROM generate_series(1, 4000) i));
value($c, q(SELECT bbm_update('grows', 'grows', 'n = n + 1', batch_size => 2, start => true)));
ok($c->poll_query_until('postgres', q(SELECT count(*) > 2 FROM grows WHERE n = 1)), 'a plain table is at work');
redistributed('grows', q(SET citus.shard_count = 4; SELECT create_distributed_table('grows', 'id', colocate_with => 'none')), qr/cannot run batches over.*grows.*distributed table/, 1, 'create_distributed_table');
table('shrinks', 4000, 4);
begin_on_both('shrinks');
redistributed('shrinks', q(SELECT undistribute_table('shrinks')), qr/is not distributed as it was/, 1, 'undistribute_table');
foreach my $colocated ('true', 'false')
{
	table("differs_$colocated", 4000, 4);
	begin_on_both("differs_$colocated");
	redistributed("differs_$colocated", "SELECT alter_distributed_table('differs_$colocated', shard_count => 8, cascade_to_colocated => $colocated)",
		qr/is not distributed as it was/, 1, "alter_distributed_table, with its colocated tables: $colocated");
}
rate(0);

# ---- a node that has no shard of the table is away: what is about all shards does not need it

table('elsewhere', 400, 1);
$c->safe_psql('postgres', q(UPDATE elsewhere SET pad = 'bad' WHERE id % 100 = 7));
value($c, q(SELECT bbm_update('elsewhere', 'elsewhere', 'n = n + 1 / CASE WHEN pad = ''bad'' THEN 0 ELSE 1 END', batch_size => 20, max_attempts => 1, on_error => 'split')));
my ($its_id, $its_node, undef, $its_port) = @{ (shards_of('elsewhere'))[0] };
my ($without) = grep { $_->port != $its_port } @worker;
my $middle = value($c, "SELECT ((shardminvalue::bigint + shardmaxvalue::bigint) / 2)::text FROM pg_dist_shard WHERE shardid = $its_id");
$c->safe_psql('postgres', "SELECT citus_split_shard_by_split_points($its_id, ARRAY['$middle'], ARRAY[$its_node, $its_node], 'block_writes')");
$without->stop;
value($c, q(SELECT bbm_start('elsewhere')));
like(value($c, q(SELECT bbm_wait('elsewhere', '1 min'))), qr/^finished, .* quarantined$/, 'a node without a shard is away: after a split it is done, with the rows that cannot be');
is(value($c, q(SELECT coalesce(sum(count), 0) FROM bbm_errors('elsewhere'))), 4, '... which it shows');
$c->safe_psql('postgres', q(UPDATE elsewhere SET pad = ''));
is(value($c, q(SELECT bbm_retry('elsewhere'))), 4, '... and tries again');
is(value($c, q(SELECT bbm_wait('elsewhere', '1 min'))), 'finished', '... still without that node');
once('elsewhere', 400, '... with every row once');
$without->start;
value($c, q(SELECT bbm_drop('elsewhere')));

# ---- DROP EXTENSION

rate($slow);
table('ends', 4000, 4);
begin_on_both('ends');
my $ends = qr/NOTICE:  DROP EXTENSION bbm ends 1 migration of a distributed table, on all nodes\nDETAIL:  "ends" of table public\.ends, at work\./;
refuses('DROP EXTENSION bbm', qr/$ends.*ERROR:  cannot drop .*bbm_shards_\d+ depends on/s, 'DROP EXTENSION says what it would end, and does not');
goes_on('ends', $two, '... which goes on');
warns('DROP EXTENSION bbm CASCADE', '', $ends, 'with CASCADE it says so, too');
foreach my $node ($c, @worker)
{
	is(value($node, q(SELECT count(*) FROM pg_extension WHERE extname = 'bbm')), 0, 'the extension is gone from ' . $node->name);
	is(value($node, q(SELECT count(*) FROM pg_class WHERE relname LIKE 'bbm_shards%')), 0, '... with the record');
	ok(workers_gone($node), '... and all workers');
}
is(value($c, 'SELECT count(*) FILTER (WHERE n > 1), count(*) FROM ends'), '0|4000', 'no row was done twice');
$c->safe_psql('postgres', 'CREATE EXTENSION bbm');
value($c, q(SELECT bbm_update('ends', 'ends', 'n = n + 1', 'n = 0', batch_size => 100, settings => '{bbm.max_row_rate=0}', start => true)));
is(value($c, q(SELECT bbm_wait('ends', '3 min'))), 'finished', 'created again, the extension does the rest');
once('ends', 4000, '... with every row once');
value($c, q(SELECT bbm_drop('ends')));

# ---- the end

foreach my $node ($c, @worker)
{
	is(value($node, q(SELECT count(*) FROM batched_background_migrations)), 0, 'nothing is left on ' . $node->name);
	$node->stop;
}
done_testing();
