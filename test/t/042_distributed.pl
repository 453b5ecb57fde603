# Distributed tables (Citus): each node does its shards, exactly once, while shards move
# and are split, and nodes crash.  A coordinator and two nodes, on one machine.  Skipped
# where the server does not offer the extension citus.  BBM_TEST_SEED repeats a run.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmCitus;
use BbmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @node = citus_cluster();
my ($c, @worker) = @node;

# ---- what is refused

$c->safe_psql('postgres', 'CREATE EXTENSION bbm');
join_cluster();
is(value($worker[0], q(SELECT count(*) FROM pg_extension WHERE extname = 'bbm')), 1, 'Citus carries the extension to its nodes');

table('plain', 10, 2);
$c->safe_psql('postgres', <<'EOS');
CREATE TABLE nokey (id int, n int);
SELECT create_distributed_table('nokey', 'id');
CREATE TABLE local (id int PRIMARY KEY, n int);
CREATE FUNCTION job(lo bigint, hi bigint) RETURNS void LANGUAGE sql AS 'SELECT';
EOS
my $plain = 'cannot run batches over distributed table "public.plain"';
refuses(q(SELECT bbm_create('x', 'plain', 'UPDATE plain SET n = 1 WHERE id BETWEEN $1 AND $2')), qr/$plain.*HINT:  Use bbm_update/s, 'a statement');
refuses(q(SELECT bbm_create('x', 'plain', 'job')), qr/$plain.*HINT:  Use a function/s, 'a function that does not get the name of the table');
refuses(q(SELECT bbm_update('x', 'plain', 'id = 1', column_name => 'id')), qr/key|distributed/, 'a change of the distribution column');
refuses(q(SELECT bbm_update('x', 'plain', 'n = (SELECT max(n) FROM local)')), qr/$plain.*reads another table/s, 'a statement that reads another table');
refuses(q(SELECT bbm_update('x', 'plain', 'n = (SELECT max(n) FROM plain p)')), qr/$plain.*without a comparison/s, '... or its own');
refuses(q(SELECT bbm_update('x', 'plain', 'n = l.n FROM local l WHERE l.id = plain.id')), qr/$plain.*reads another table/s, '... with FROM');
refuses(q(SELECT bbm_delete('x', 'plain', 'EXISTS (SELECT FROM local l WHERE l.id = plain.id)')), qr/$plain.*reads another table/s, '... in a DELETE');
my %instead = ('workers => 2' => 'bbm.max_workers', 
	'follow => true' => 'Define another', q(index_name => 'plain_pkey') => 'column_name', q(batching_strategy => 'BlockRangeBatchingStrategy') => 'Leave that out');
refuses("\\set VERBOSITY verbose\nSELECT bbm_update('x', 'plain', 'n = 1', $_)", qr/ERROR:  0A000: $plain.*DETAIL:  .* is not supported for it.*HINT:  .*\Q$instead{$_}\E/s, "option $_")
  foreach sort keys %instead;
refuses(q(SELECT bbm_update('x', 'nokey', 'n = 1')), qr/no primary key/, 'a table without a key');
refuses(q(SELECT bbm_update('x', 'plain', 'nope = 1')), qr/column "nope"/, 'a column that does not exist');
my $shard = value($c, q(SELECT 'plain_' || min(shardid) FROM pg_dist_shard WHERE logicalrelid = 'plain'::regclass));
my ($home) = grep { value($_, "SELECT to_regclass('public.$shard') IS NOT NULL") eq 't' } @worker;
refuses("SELECT bbm_update('x', '$shard', 'n = 1')", qr/shard of .*plain.*HINT:  Name the table/s, 'a shard by its own name', $home);
# ... also by a job whose table is another one
$home->safe_psql('postgres', <<"EOS");
SET citus.enable_ddl_propagation = off;
CREATE TABLE aside (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO aside VALUES (1);
CREATE FUNCTION hidden(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS 'BEGIN UPDATE $shard SET n = 1 WHERE id BETWEEN lo AND hi; END';
EOS
my $writes = qr/the job writes "public\.$shard", a shard of distributed table public\.plain.*HINT:  Define a migration of the table/s;
refuses("SELECT bbm_create('x', 'aside', 'UPDATE $shard SET n = 1 WHERE id BETWEEN \$1 AND \$2')", $writes, '... or by a statement on another table', $home);
value($home, q(SELECT bbm_create('x', 'aside', 'hidden')));
refuses(q(CALL bbm_run('x')), $writes, '... or by a function', $home);
value($home, q(SELECT bbm_drop('x')));
# ... or by an INSERT, which is checked when a worker starts it, as is one of the table on another node
foreach (["public.$shard", 'It is a shard of'], ['public.plain', 'It is a distributed table'])
{
	$home->safe_psql('postgres', "INSERT INTO batched_background_migrations (name, table_name, job_signature_name, column_name, min_value, max_value, batch_size, status)
		VALUES ('x', '$_->[0]', 'UPDATE aside SET n = 1 WHERE id BETWEEN \$1 AND \$2', 'id', 1, 100, 10, 1)");
	is(value($home, q(SELECT bbm_wait('x', '3 min'))), 'failed', "an INSERT with $_->[0] fails");
	like(value($home, q(SELECT failure_error_code, error_sqlstate, error_detail, error_hint FROM batched_background_migrations)), qr/^1\|0A000\|$_->[1].*\|\S/, '... with the reason');
	value($home, q(SELECT bbm_drop('x')));
}
$home->safe_psql('postgres', 'SET citus.enable_ddl_propagation = off; DROP FUNCTION hidden; DROP TABLE aside');
$c->safe_psql('postgres', <<'EOS');
SET citus.shard_count = 2;
CREATE TABLE copies (id int PRIMARY KEY, n int);
SET citus.shard_replication_factor = 2;
SELECT create_distributed_table('copies', 'id', colocate_with => 'none');
EOS
refuses(q(SELECT bbm_update('x', 'copies', 'n = 1')), qr/several copies.*HINT:  Use streaming replication/s, 'a table with several copies of a shard');
SKIP:
{
	skip 'columnar tables are not offered', 2 if value($c, q(SELECT count(*) FROM pg_available_extensions WHERE name = 'citus_columnar')) eq '0';
	$c->safe_psql('postgres', q(CREATE EXTENSION IF NOT EXISTS citus_columnar; CREATE TABLE columns (id int PRIMARY KEY, n int) USING columnar;
		SELECT create_distributed_table('columns', 'id', colocate_with => 'none'); CREATE TABLE columns_ref (id int PRIMARY KEY, n int) USING columnar; SELECT create_reference_table('columns_ref')));
	refuses(q(SELECT bbm_update('x', 'columns', 'n = 1')), qr/public\.columns.*not a heap.*HINT/s, 'a columnar table');
	refuses(q(SELECT bbm_update('x', 'columns_ref', 'n = 1')), qr/public\.columns_ref.*columnar.*HINT:  Make it a heap/s, '... or reference table');
}

# ---- a node that is not ready: named in the error

my $named = $worker[1]->port;
my $at = sprintf q('%s', %d), $worker[1]->host, $worker[1]->port;
my $update = q(SELECT bbm_update('x', 'plain', 'n = 1'));
$worker[1]->safe_psql('postgres', 'SET citus.enable_ddl_propagation = off; DROP EXTENSION bbm');
refuses($update, qr/$named.*"bbm_internal" does not exist.*HINT:  Each node needs the extension/s, 'a node without the extension');
$worker[1]->safe_psql('postgres', 'SET citus.enable_ddl_propagation = off; CREATE EXTENSION bbm');
$worker[1]->safe_psql('postgres', q(UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'bbm'));
refuses($update, qr/$named.*version 0\.9/s, 'a node with another version of the extension');
$worker[1]->safe_psql('postgres', q(UPDATE pg_extension e SET extversion = a.default_version FROM pg_available_extensions a WHERE a.name = e.extname AND extname = 'bbm'));
$worker[1]->append_conf('postgresql.conf', q(shared_preload_libraries = 'citus'));
$worker[1]->restart;
refuses($update, qr/$named.*not preloaded/s, 'a node where the library is not preloaded');
$worker[1]->append_conf('postgresql.conf', q(shared_preload_libraries = 'citus,bbm'));
$worker[1]->stop;
refuses($update, qr/$named/, 'a node that is down');
$worker[1]->start;
value($c, "SELECT stop_metadata_sync_to_node($at)");
refuses($update, qr/$named.*metadata are not synced.*HINT:.*start_metadata_sync_to_node/s, 'a node whose metadata are not synced');
value($c, "SELECT start_metadata_sync_to_node($at)");
is(value($c, q(SELECT count(*) FROM batched_background_migrations)), 0, 'nothing of that is left');
is(value($c, q(SELECT count(*) FROM pg_dist_partition WHERE logicalrelid::text LIKE '%bbm_shards%')), 0, '... and no record');

# ---- one that runs, is paused, is started, and is dropped

table('quick', 2000, 4);
value($c, q(SELECT bbm_update('quick', 'quick', 'n = n + 1', batch_size => 100, start => true)));
is(value($c, q(SELECT bbm_wait('quick', '3 min'))), 'finished', 'it is finished');
once('quick', 2000, '... and every row is done once');
is(value($c, q(SELECT status, percent, rows_done, estimated_total FROM bbm_status_detail('quick'))), 'finished|100.0|2000|2000', '... as its status says');
value($c, q(SELECT bbm_ensure_finished('quick')));
is(value($_, q(SELECT count(*) FROM batched_background_migrations)), 0, 'nothing is left on a node') foreach @worker;
refuses(q(SELECT bbm_alter('quick', batch_size => 5)), qr/migration "quick" is finished and stays so/s, 'it cannot be altered any more');
is(value($c, q(SELECT bbm_drop('quick'))), 't', 'it is dropped');
is(value($c, q(SELECT count(*) FROM pg_dist_partition WHERE logicalrelid::text LIKE '%bbm_shards%')), 0, '... with its record');

$c->safe_psql('postgres', <<'EOS');
CREATE TABLE single (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
SELECT create_distributed_table('single', NULL, colocate_with => 'none');
INSERT INTO single SELECT i, 0 FROM generate_series(1, 500) i;
EOS
value($c, q(SELECT bbm_delete('single', 'single', 'id % 2 = 0', batch_size => 100, start => true)));
is(value($c, q(SELECT bbm_wait('single', '3 min'))), 'finished', 'a table of one shard, and a DELETE');
is(value($c, q(SELECT count(*), count(*) FILTER (WHERE id % 2 = 1) FROM single)), '250|250', '... which has deleted what it should');
value($c, q(SELECT bbm_drop('single')));

rate(50);
table('slow', 4000, 4);
value($c, q(SELECT bbm_update('slow', 'slow', 'n = n + 1', batch_size => 20, start => true)));
my $begun = q(SELECT count(*) > 0 FROM slow WHERE n = 1);
ok($c->poll_query_until('postgres', $begun), 'one that takes long has begun');
value($c, q(SELECT bbm_pause('slow')));
# a batch in flight ends; after that there is none, on any node
my $nobody = q(SELECT count(*) = 0 FROM batched_background_migrations WHERE status IN (1, 4));
ok($_->poll_query_until('postgres', $nobody), 'paused on the coordinator, it pauses on a node') foreach @worker;
my $done = value($c, q(SELECT count(*) FROM slow WHERE n = 1));
value($_, q(SELECT bbm_start())) foreach @worker;
ok($_->poll_query_until('postgres', $nobody), 'a node cannot start it by itself') foreach @worker;
is(value($c, q(SELECT count(*) FROM slow WHERE n = 1)), $done, '... and does no batch');
$worker[0]->stop('immediate');
my $down = $worker[0]->port;
my $half = qr/on 1 of 2 nodes, and nothing has changed on any; node \S+:$down: .*HINT:  Repeat it/s;
refuses(q(SELECT bbm_start('slow')), qr/cannot start migration "slow" on every node.*could be started $half/s, 'a node that cannot be reached is an error');
is(value($c, q(SELECT status FROM bbm_status('slow'))), 'paused', '... and nothing has changed');
$worker[0]->start;
value($c, q(SELECT bbm_start('slow')));
ok($_->poll_query_until('postgres', q(SELECT count(*) > 0 FROM batched_background_migrations WHERE status = 4)), 'started again, it runs on a node') foreach @worker;
$worker[0]->stop('immediate');
refuses(q(SELECT bbm_pause('slow', wait => true)), qr/cannot pause migration "slow" on every node.*could be paused on 1 of 2 nodes, and nothing has changed on any; node \S+:$down: .*HINT:  .*cancel => true/s,
	'nobody can wait for the batches of a node that is down');
is(value($c, q(SELECT status FROM bbm_status('slow'))), 'running', '... and nothing has changed');
$worker[0]->start;
value($c, q(SELECT bbm_pause('slow', wait => true)));
rate(0);
value($c, q(SELECT bbm_start('slow')));
is(value($c, q(SELECT bbm_wait('slow', '3 min'))), 'finished', 'started again, it is finished');
once('slow', 4000, '... and every row is done once');
value($c, q(SELECT bbm_drop('slow')));

# ---- a pause that awaits or cancels the batches of all nodes

my $waits_in_batch = q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 78 AND NOT granted);
my @gate;

# every batch from here on waits, one on each node
sub shut_gates
{
	@gate = map { $_->background_psql('postgres') } @worker;
	$_->query_safe('SELECT pg_advisory_lock(78)') foreach @gate;
	return;
}

sub all_in_batch
{
	my ($what) = @_;
	ok($_->poll_query_until('postgres', "SELECT ($waits_in_batch) = 1"), $what) foreach @worker;
	return;
}

table('gated', 400, 2);
shut_gates();
value($c, q(SELECT bbm_update('gated', 'gated', 'n = n + 1 + length(pg_advisory_xact_lock_shared(78)::text)', batch_size => 20,
	settings => '{bbm.lock_timeout=10min,bbm.max_blocking_time=10min}', start => true)));
all_in_batch('each node has a batch in flight');
refuses(q(SET statement_timeout = '3s'; SELECT bbm_pause('gated', wait => true)), qr/statement timeout/, 'a pause waits for them');
is(value($c, q(SELECT status FROM bbm_status('gated'))), 'running', '... and is rolled back with its statement');
my $goes_on = q(SELECT count(*) = 1 FROM batched_background_migrations WHERE status IN (1, 4));
ok($_->poll_query_until('postgres', $goes_on), '... after which a node goes on by itself') foreach @worker;
my $pause = background($c, 'postgres', q(SELECT bbm_pause('gated', wait => true)));
ok($_->poll_query_until('postgres', $nobody), 'before the pause commits, it is paused on a node') foreach @worker;
(shift @gate)->quit;
# the other node's batch is in flight, so that this cannot be over
my $asked = q(SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%bbm_pause%' AND pid <> pg_backend_pid() AND state = 'active');
is(value($c, $asked), 1, 'it waits for the other node');
is(value($worker[1], $waits_in_batch), 1, '... which has a batch');
my $in_flight = q(SELECT count(*) FROM batched_background_migration_jobs WHERE status = 4);
ok($worker[0]->poll_query_until('postgres', "SELECT ($in_flight) = 0"), '... while the first one has none');
my $jobs = value($worker[0], q(SELECT count(*) FROM batched_background_migration_jobs));
ok($c->poll_query_until('postgres', q(SELECT waiting_on LIKE '%a session that pauses it' FROM bbm_status('gated'))), 'nobody has the nodes go on meanwhile');
(shift @gate)->quit;
finish_background($pause);
is(value($worker[0], q(SELECT count(*) FROM batched_background_migration_jobs)), $jobs, '... and none has begun another batch');
is(value($c, q(SELECT status FROM bbm_status('gated'))), 'paused', 'when it has ended, it is paused');
is(value($_, $in_flight), 0, '... and no batch is in flight on a node') foreach @worker;
$done = value($c, q(SELECT count(*) FROM gated WHERE n = 1));

shut_gates();
value($c, q(SELECT bbm_start('gated')));
all_in_batch('started again, each node has a batch');
is(value($c, q(SELECT bbm_cancel('gated'))), 2, 'both are cancelled');
is(value($_, $waits_in_batch), 0, '... and are gone from a node') foreach @worker;
is(value($c, q(SELECT status FROM bbm_status('gated'))), 'paused', '... and it is paused');
value($c, q(SELECT bbm_start('gated')));
all_in_batch('started again, each node has a batch');
is(value($c, q(SELECT bbm_pause('gated', cancel => true))), 1, 'a pause cancels them');
ok($_->poll_query_until('postgres', "SELECT ($waits_in_batch) = 0"), '... on a node') foreach @worker;
is(value($c, q(SELECT count(*) FROM gated WHERE n = 1)), $done, '... and nothing of them is done');
value($c, q(SELECT bbm_start('gated')));
all_in_batch('started again, each node has a batch');
$pause = background($c, 'postgres', q(SELECT bbm_pause('gated', wait => true)));
ok($_->poll_query_until('postgres', $nobody), 'a pause waits for it on a node') foreach @worker;
$worker[1]->stop('immediate');
my (undef, $lost) = finish_background($pause);
$down = $worker[1]->port;
like($lost, qr/cannot await the batches of migration "gated" on every node.*paused on 1 of 2 nodes, and goes on there; node \S+:$down: .*HINT:  Repeat it/s,
	'... one of which goes away: the pause says so');
$worker[1]->start;
is(value($c, q(SELECT status FROM bbm_status('gated'))), 'running', '... and is rolled back');
$_->quit foreach @gate;
is(value($c, q(SELECT bbm_wait('gated', '3 min'))), 'finished', '... it goes on, and is finished');
once('gated', 400, '... with every row once');
value($c, q(SELECT bbm_drop('gated')));

# ---- several workers on a node, each in a shard of its own: one is killed, and a shard leaves the others

table('several', 800, 4);
shut_gates();
value($c, q(SELECT bbm_update('several', 'several', 'n = n + 1 + length(pg_advisory_xact_lock_shared(78)::text)', batch_size => 20,
	settings => '{bbm.lock_timeout=10min,bbm.max_blocking_time=10min}', start => true)));
ok($_->poll_query_until('postgres', "SELECT ($waits_in_batch) = 2"), 'a node works on two shards at once') foreach @worker;
is(value($_, q(SELECT count(DISTINCT pid) FROM bbm_workers() WHERE job IS NOT NULL)), 2, '... with two workers') foreach @worker;
rate(50);
kill KILL => value($worker[0], q(SELECT min(pid) FROM bbm_workers() WHERE job IS NOT NULL));
# the gate's session ends with the server
{
	local $SIG{PIPE} = 'IGNORE';
	eval { (shift @gate)->quit };
}
ok($c->poll_query_until('postgres', q(SELECT count(*) > 0 FROM several WHERE n = 1)), 'one is killed, and work goes on');
my ($leaves) = map { $_->[0] } grep { $_->[3] == $worker[0]->port } shards_of('several');
move('several', 'block_writes', $leaves);
cmp_ok(value($c, q(SELECT count(*) FROM several WHERE n = 1)), '<', 800, 'a shard leaves, when not all is done');
(shift @gate)->quit;
rate(0);
is(value($c, q(SELECT bbm_wait('several', '3 min'))), 'finished', '... and it is finished');
once('several', 800, '... and every row is done once');
value($c, q(SELECT bbm_drop('several')));

# ---- an error in one shard

table('bad', 400, 4);
value($c, q(UPDATE bad SET pad = 'x' WHERE id = 77));
value($c, q(SELECT bbm_update('bad', 'bad', 'n = n + 1 / (CASE WHEN pad = ''x'' THEN 0 ELSE 1 END)', batch_size => 10, max_attempts => 2, start => true)));
is(value($c, q(SELECT bbm_wait('bad', '3 min'))), 'failed', 'a row that cannot be done fails it');
like(value($c, q(SELECT error_message, error_detail FROM batched_background_migrations WHERE name = 'bad')), qr/division by zero\|Shard public\.bad_\d+/, '... with the error and the shard');
# the range that has failed goes where its shard goes
my ($bad) = value($c, q(SELECT error_detail FROM batched_background_migrations WHERE name = 'bad')) =~ /bad_(\d+)/;
move('bad', 'block_writes', $bad);
value($c, q(UPDATE bad SET pad = '' WHERE id = 77));
value($c, q(SELECT bbm_start('bad')));
is(value($c, q(SELECT bbm_wait('bad', '3 min'))), 'finished', '... and it goes on when it can');
once('bad', 400, '... with every row once');
value($c, q(SELECT bbm_drop('bad')));

# ---- bbm_retry: fresh attempts, on the node that has the shard

table('retried', 400, 4);
value($c, q(UPDATE retried SET pad = 'x' WHERE id = 77));
value($c, q(SELECT bbm_update('retried', 'retried', 'n = n + 1 / (CASE WHEN pad = ''x'' THEN 0 ELSE 1 END)', batch_size => 10, max_attempts => 2, start => true)));

sub fails_after
{
	my ($attempts, $what) = @_;
	is(value($c, q(SELECT bbm_wait('retried', '3 min'))), 'failed', $what);
	is(join(' ', grep { $_ ne '' } map { value($_, q(SELECT attempts FROM batched_background_migration_jobs WHERE status = 3)) } @worker),
		$attempts, '... after its attempts');
	return;
}

fails_after(2, 'a shard fails');
is(value($c, q(SELECT bbm_retry('retried'))), 1, 'one shard is tried again');
fails_after(2, '... and fails again');
is(value($c, q(SELECT count(*) FROM bbm_events WHERE name = 'retried' AND event = 'failed')), 2, '... for the second time');
$worker[1]->stop;
refuses(q(SELECT bbm_retry('retried')), qr/cannot start migration "retried" on every node/, 'a node that is down does not try again');
is(value($c, q(SELECT status, jobs_failed FROM bbm_status_detail('retried'))), 'failed|1', '... and nothing has changed');
$worker[1]->start;
value($c, q(UPDATE retried SET pad = '' WHERE id = 77));
value($c, q(SELECT bbm_pause('retried')));
is(value($c, q(SELECT bbm_retry('retried'))), 1, 'when it is paused, one shard is to be tried again');
is(value($c, q(SELECT status FROM bbm_status('retried'))), 'paused', '... and it stays paused');
value($c, q(SELECT bbm_start('retried')));
is(value($c, q(SELECT bbm_wait('retried', '3 min'))), 'finished', '... until it is started');
once('retried', 400, '... with every row once');
value($c, q(SELECT bbm_drop('retried')));

# ---- bbm_alter

table('altered', 4000, 4);
value($c, q(SELECT bbm_update('altered', 'altered', 'n = n + 1', batch_size => 1, settings => '{bbm.max_row_rate=1}', start => true)));
ok($_->poll_query_until('postgres', q(SELECT count(*) = 2 FROM batched_background_migrations WHERE status = 4)), 'one that takes days runs on a node') foreach @worker;

# how all of its shards are done
sub as_altered
{
	my ($shards, $batch_size, $what) = @_;
	ok($_->poll_query_until('postgres', "SELECT count(*) = $shards FROM batched_background_migrations WHERE batch_size = $batch_size"), $what) foreach @worker;
	return;
}
value($c, q(UPDATE batched_background_migrations SET batch_size = 2 WHERE name = 'altered'));
as_altered(2, 2, 'an UPDATE arrives at a node');
value($c, q(SELECT bbm_alter('altered', batch_size => 3, max_attempts => 7, on_error => 'skip')));
as_altered(2, 3, '... and so is bbm_alter');
is(value($_, q(SELECT DISTINCT max_attempts, on_error, settings FROM batched_background_migrations)), '7|skip|{bbm.max_row_rate=1}', '... with all that is given, and no more') foreach @worker;
value($c, q(SELECT bbm_pause('altered', wait => true)));
value($c, q(SELECT bbm_alter('altered', batch_size => 4)));
value($c, q(SELECT bbm_start('altered')));
as_altered(2, 4, 'what was altered in a pause arrives after it');
my ($moves) = shards_of('altered');
move('altered', 'block_writes', $moves->[0]);
ok($c->poll_query_until('postgres', q(SELECT percent IS NOT NULL FROM bbm_status('altered'))), 'a shard has moved');
my ($new_home) = grep { $_->port != $moves->[3] } @worker;
ok($new_home->poll_query_until('postgres', q(SELECT count(*) = 3 FROM batched_background_migrations WHERE batch_size = 4 AND max_attempts = 7)), '... and is done as altered');
refuses("SELECT bbm_alter('altered', $_)", qr/cannot alter migration "altered".*distributed table.*HINT:  Alter how/s, "what the nodes do not get: $_")
  foreach ('workers => 2', q(job => 'UPDATE altered SET n = 2 WHERE id BETWEEN $1 AND $2'), 'restart => true', q(batch_size => 9, workers => 2), 'follow => true', q(index_name => 'altered_pkey'), q(owner => 'postgres'));
refuses("UPDATE batched_background_migrations SET $_ WHERE name = 'altered'", qr/cannot be changed.*distributed table/s, "... with an UPDATE: $_")
  foreach ('workers = 2', q(row_check = 'n = 1'));
refuses(q(SELECT bbm_alter(name, batch_size => 9) FROM batched_background_migrations LIMIT 1), qr/cannot alter migration "altered\/\d+".*one shard/s, 'a shard by itself', $new_home);
$worker[0]->stop;
refuses(q(SELECT bbm_alter('altered', batch_size => 9)), qr/cannot alter migration "altered" on every node.*could be altered on 1 of 2 nodes/s, 'a node that is down is named');
is(value($c, q(SELECT batch_size FROM batched_background_migrations WHERE name = 'altered')), 4, '... and nothing has changed');
$worker[0]->start;
value($c, q(SELECT bbm_alter('altered', batch_size => 500, settings => '{}')));
is(value($c, q(SELECT bbm_wait('altered', '3 min'))), 'finished', 'without its rate it is finished');
once('altered', 4000, '... with every row once');
value($c, q(SELECT bbm_drop('altered')));

# ---- a role that is no superuser

$c->safe_psql('postgres', <<'EOS');
CREATE ROLE app LOGIN;
GRANT CREATE ON SCHEMA public TO app;
GRANT EXECUTE ON FUNCTION bbm_update, bbm_start, bbm_pause, bbm_drop TO app;
SET ROLE app;
SET citus.shard_count = 4;
CREATE TABLE of_app (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
SELECT create_distributed_table('of_app', 'id', colocate_with => 'none');
INSERT INTO of_app SELECT i, 0 FROM generate_series(1, 1000) i;
EOS
refuses(q(SET ROLE app; SELECT bbm_update('of app', 'of_app', 'n = n + 1')), qr/permission denied for function bbm_internal.bbm_shards_sync/, 'a role needs a right on each node');
value($_, 'GRANT EXECUTE ON FUNCTION bbm_internal.bbm_shards_sync TO app') foreach @node;
value($c, q(SET ROLE app; SELECT bbm_update('of app', 'of_app', 'n = n + 1', batch_size => 100, start => true)));
is(value($c, q(SELECT bbm_wait('of app', '3 min'))), 'finished', '... with it, its migration is finished');
once('of_app', 1000, '... with every row once');
refuses(sprintf(q(SELECT bbm_internal.bbm_shards_sync('%s', 'public.of_app', 'go on')), value($c, q(SELECT shard_record FROM batched_background_migrations))),
	qr/must be owner of table/, 'nobody else begins with its shards, not even a superuser');
value($c, q(SET ROLE app; SELECT bbm_drop('of app')));

# ---- a key that is not an integer, in the order of two columns; one tenant's shard

$c->safe_psql('postgres', <<'EOS');
SET citus.shard_count = 4;
CREATE TABLE keyed (tenant text, id uuid DEFAULT gen_random_uuid(), n integer NOT NULL DEFAULT 0, PRIMARY KEY (tenant, id));
SELECT create_distributed_table('keyed', 'tenant', colocate_with => 'none');
INSERT INTO keyed (tenant) SELECT 'tenant ' || i % 17 FROM generate_series(1, 3000) i;
EOS
$c->safe_psql('postgres', q(SELECT isolate_tenant_to_new_shard('keyed', 'tenant 3', shard_transfer_mode => 'block_writes')));
rate(50);
value($c, q(SELECT bbm_update('keyed', 'keyed', 'n = n + 1', batch_size => 20, sub_batch_size => 7, start => true)));
ok($c->poll_query_until('postgres', q(SELECT count(*) > 20 FROM keyed WHERE n = 1)), 'a key of two columns is at work');
$c->safe_psql('postgres', q(SELECT isolate_tenant_to_new_shard('keyed', 'tenant 5', 'CASCADE', shard_transfer_mode => 'block_writes')));
rate(0);
is(value($c, q(SELECT bbm_wait('keyed', '3 min'))), 'finished', '... and is finished, though a tenant got a shard of its own');
once('keyed', 3000, '... with every row once');
value($c, q(SELECT bbm_drop('keyed')));

# ---- a move waits for the batch in flight, and the next batch for the move

table('held', 300, 1);
my ($of_held) = shards_of('held');
my ($node) = grep { $_->port == $of_held->[3] } @worker;
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(77)');
value($c, q(SELECT bbm_update('held', 'held', 'n = n + 1 + length(pg_advisory_xact_lock_shared(77)::text)', batch_size => 100,
	settings => '{bbm.lock_timeout=10min,bbm.max_blocking_time=10min}', start => true)));
my $in_batch = q(SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted);
ok($node->poll_query_until('postgres', $in_batch), 'a batch is in flight');
my $mover = background($c, 'postgres', move_statement('held', 'block_writes'));
my $move_waits = q(SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND NOT granted);
my $moved = "SELECT count(*) = 0 FROM pg_dist_placement p JOIN pg_dist_local_group USING (groupid) WHERE shardid = $of_held->[0]";
ok($node->poll_query_until('postgres', "SELECT ($move_waits) OR ($moved)"), 'its shard is to be moved ...');
is(value($node, $moved), 'f', '... which waits for the batch');
$holder->quit;
finish_background($mover);
is(value($node, $moved), 't', '... and then takes place');
is(value($c, q(SELECT bbm_wait('held', '3 min'))), 'finished', '... and the other node finishes it');
once('held', 300, '... with every row once');
value($c, q(SELECT bbm_drop('held')));

# ---- crashes, moves, a split and a rebalance

sub kill_a_worker
{
	my $node = $worker[int(rand(@worker))];
	my $pid = $node->safe_psql('postgres', q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'bbm worker' LIMIT 1));
	return if $pid eq '';
	kill 'KILL', $pid;
	# the server notices, and restarts all its processes
	poll_restarting($node, q(SELECT 1), '1');
	return;
}

sub kill_a_node
{
	my $node = $worker[int(rand(@worker))];
	$node->stop('immediate');
	$node->start;
	return;
}

sub stop_the_coordinator
{
	$c->stop('immediate');
	$c->start;
	return;
}

# Citus itself may refuse it while a node recovers, or while one of its own operations is not over yet
sub try
{
	my ($what, $act) = @_;
	for (1 .. 60)
	{
		return 1 if eval { local $SIG{__DIE__}; $act->(); 1 };
		note("$what: $@");
		$c->poll_query_until('postgres', 'SELECT bool_and(success) FROM run_command_on_all_nodes(\'SELECT 1\')');
		PostgreSQL::Test::Utils::system_log('true');
		select undef, undef, undef, 1;
	}
	return 0;
}

my $rows = 20_000;
table('busy', $rows, 6);
rate(100);
value($c, q(SELECT bbm_update('busy', 'busy', 'n = n + 1', batch_size => 25, sub_batch_size => 10, start => true)));
ok($c->poll_query_until('postgres', q(SELECT count(*) > 50 FROM busy WHERE n = 1)), 'the one that is disturbed has begun');
my @acts = (
	[ 'a move with logical replication', sub { move('busy', 'force_logical') } ],
	[ 'a move that blocks writes', sub { move('busy', 'block_writes') } ],
	[ 'another move that blocks writes', sub { move('busy', 'block_writes') } ],
	[ 'a split', sub { split_shard('busy', rand() < 0.5 ? 'block_writes' : 'force_logical') } ],
	[ 'kill -9 of a worker', \&kill_a_worker ],
	[ 'kill -9 of another worker', \&kill_a_worker ],
	[ 'a crash of a node', \&kill_a_node ],
	[ 'an immediate stop of the coordinator', \&stop_the_coordinator ],
	[ 'a rebalance', sub { $c->safe_psql('postgres', q(SELECT rebalance_table_shards('busy', shard_transfer_mode => 'block_writes'))) } ]);
foreach (reverse 1 .. $#acts)
{
	my $other = int(rand($_ + 1));
	@acts[$_, $other] = @acts[$other, $_];
}
foreach my $act (@acts)
{
	my $before = value($c, q(SELECT count(*) FROM busy WHERE n = 1));
	ok(try(@$act), $act->[0]);
	ok($c->poll_query_until('postgres', "SELECT count(*) > $before OR count(*) = $rows FROM busy WHERE n = 1"), '... and work goes on');
	is(value($c, q(SELECT count(*) FROM busy WHERE n > 1)), 0, '... and no row is done twice');
}
rate(0);
is(value($c, q(SELECT bbm_wait('busy', '10 min'))), 'finished', 'it is finished');
once('busy', $rows, '... and every row is done once');
is(value($c, q(SELECT rows_done, (SELECT sum(row_count) FROM batched_background_migration_jobs) FROM bbm_status('busy'))), "$rows|$rows", '... as its status says');

# ---- a table that is distributed in another way meanwhile

table('changed', 2000, 4);
rate(20);
value($c, q(SELECT bbm_update('changed', 'changed', 'n = n + 1', batch_size => 10, start => true)));
ok($c->poll_query_until('postgres', q(SELECT count(*) > 0 FROM changed WHERE n = 1)), 'one is at work');
value($c, q(SELECT undistribute_table('changed')));
is(value($c, q(SELECT bbm_wait('changed', '3 min'))), 'failed', '... and fails when its table is not distributed any more');
like(value($c, q(SELECT error_message FROM batched_background_migrations WHERE name = 'changed')), qr/is not distributed as it was/, '... with the reason');
value($c, q(SELECT bbm_drop('changed')));
rate(0);

# ---- the extension

table('last_one', 200, 2);
value($c, q(SELECT bbm_update('last', 'last_one', 'n = n + 1')));
refuses('DROP EXTENSION bbm', qr/bbm_shards_\d+ depends on/, 'DROP EXTENSION says what depends on it');
value($c, q(SELECT bbm_drop(name) FROM bbm_status()));

foreach my $node (@node)
{
	is(value($node, q(SELECT count(*) FROM batched_background_migrations)), 0, 'nothing is left on ' . $node->name);
	$node->stop;
}
done_testing();
