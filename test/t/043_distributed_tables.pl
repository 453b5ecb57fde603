# Distributed tables (Citus) of other kinds than a plain one, and other work than one statement:
# partitioned tables, reference tables, functions.  Skipped where the server does not offer the
# extension citus.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmCitus;
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my ($c, @worker) = citus_cluster();
$c->safe_psql('postgres', 'CREATE EXTENSION bbm');
join_cluster();

# ---- a partitioned table

$c->safe_psql('postgres', <<'EOS');
SET citus.shard_count = 4;
CREATE TABLE parted (id bigint, at date, n integer NOT NULL DEFAULT 0, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE parted_old PARTITION OF parted FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE parted_new PARTITION OF parted DEFAULT;
SELECT create_distributed_table('parted', 'id', colocate_with => 'none');
INSERT INTO parted SELECT i, '2020-01-01'::date + (i * 7 % 700)::int, 0 FROM generate_series(1, 6000) i;
EOS
rate(60);
value($c, q(SELECT bbm_update('parted', 'parted', 'n = parted.n + 1', 'parted.at > ''1999-01-01''', batch_size => 20, start => true)));
is(value($c, q(SELECT column_name FROM batched_background_migrations WHERE name = 'parted')), 'id', 'a partitioned table has the default key of one');
ok($c->poll_query_until('postgres', q(SELECT count(*) > 100 FROM parted WHERE n = 1)), '... and is at work');
# rows move between partitions, with their key as it is
my $moves = value($c, q(WITH moved AS (UPDATE parted SET at = '2021-06-01' WHERE at < '2020-02-01' RETURNING 1) SELECT count(*) FROM moved));
ok($moves > 100, 'rows move to another partition meanwhile');
move('parted', 'force_logical');
split_shard('parted', 'block_writes');
$c->safe_psql('postgres', q(CREATE TABLE parted_late PARTITION OF parted FOR VALUES FROM ('2022-01-01') TO ('2023-01-01'); ALTER TABLE parted DETACH PARTITION parted_late));
move('parted', 'block_writes');
rate(0);
is(value($c, q(SELECT bbm_wait('parted', '3 min'))), 'finished', 'it is finished, through two moves and a split');
once('parted', 6000, '... and every row is done once');
is(value($c, q(SELECT rows_done, jobs_finished FROM bbm_status_detail('parted'))), '6000|5', '... as its status says');
value($c, q(SELECT bbm_drop('parted')));

# elsewhere such a filter allows to do the partitions one by one, but a shard has one cursor
value($c, q(SELECT bbm_update('filtered', 'parted', 'n = 2', 'n = 1', batch_size => 200, start => true)));
is(value($c, q(SELECT bbm_wait('filtered', '3 min'))), 'finished', 'one whose filter ends is finished');
is(value($c, q(SELECT count(*), sum(n) FROM parted)), '6000|12000', '... and every row is done');
value($c, q(SELECT bbm_drop('filtered')));
is(join(' ', map { value($_, q(SELECT count(*) FROM bbm_events WHERE event = 'attached')) } @worker), '0 0', 'a node that takes a shard over does not report its partitions as new');

value($c, q(SELECT bbm_delete('one', 'parted_new', 'id % 2 = 0', batch_size => 50, start => true)));
is(value($c, q(SELECT bbm_wait('one', '3 min'))), 'finished', 'a partition by its own name');
is(value($c, q(SELECT count(*) FILTER (WHERE id % 2 = 0) FROM parted_new)), 0, '... and a DELETE');
isnt(value($c, q(SELECT count(*) FILTER (WHERE id % 2 = 0) FROM parted_old)), 0, '... that leaves the other partitions alone');
value($c, q(SELECT bbm_drop('one')));
is(value($_, q(SELECT count(*) FROM batched_background_migrations)), 0, 'nothing is left on a node') foreach @worker;

SKIP:
{
	skip 'columnar tables are not offered', 1 if value($c, q(SELECT count(*) FROM pg_available_extensions WHERE name = 'citus_columnar')) eq '0';
	$c->safe_psql('postgres', 'CREATE EXTENSION IF NOT EXISTS citus_columnar');
	$c->safe_psql('postgres', q(CREATE TABLE parted_cold PARTITION OF parted FOR VALUES FROM ('2010-01-01') TO ('2011-01-01') USING columnar));
	refuses(q(SELECT bbm_update('x', 'parted', 'n = 1')), qr/distributed table "public\.parted".*Partition "public\.parted_cold" is not a heap/s, 'a columnar partition');
}

# ---- a schema that is distributed as a whole

$c->safe_psql('postgres', <<'EOS');
CREATE ROLE renter LOGIN;
GRANT USAGE ON SCHEMA bbm_internal TO renter;
GRANT EXECUTE ON FUNCTION bbm_update, bbm_drop TO renter;
SET citus.enable_schema_based_sharding = on;
CREATE SCHEMA "Tenant 1" AUTHORIZATION renter;
SET ROLE renter;
CREATE TABLE "Tenant 1".x (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO "Tenant 1".x SELECT i, 0 FROM generate_series(1, 1500) i;
EOS
value($_, 'GRANT EXECUTE ON FUNCTION bbm_internal.bbm_shards_sync TO renter') foreach $c, @worker;
rate(100);
my $tenant = '"Tenant 1".x';
value($c, qq(SET ROLE renter; SELECT bbm_update('tenant', '$tenant', 'n = x.n + 1', batch_size => 20, start => true)));
ok($c->poll_query_until('postgres', "SELECT count(*) > 40 FROM $tenant WHERE n = 1"), 'a table of a distributed schema is at work');
move($tenant, 'block_writes');
$c->safe_psql('postgres', q(SELECT citus_schema_move('"Tenant 1"', nodeid, 'force_logical') FROM pg_dist_node WHERE groupid > 0
	AND groupid NOT IN (SELECT groupid FROM pg_dist_placement JOIN pg_dist_shard USING (shardid) WHERE logicalrelid = '"Tenant 1".x'::regclass)));
my $record = value($c, q(SELECT shard_record FROM batched_background_migrations WHERE name = 'tenant'));
refuses('DROP EXTENSION bbm', qr/table \Q$record\E depends on extension bbm/, '... whose record is beside it, and DROP EXTENSION says so');
rate(0);
is(value($c, q(SELECT bbm_wait('tenant', '3 min'))), 'finished', 'it is finished, though the schema has moved');
once($tenant, 1500, '... and every row is done once');
value($c, q(SET ROLE renter; SELECT bbm_drop('tenant')));
value($c, qq(SET ROLE renter; SELECT bbm_update('tenant', '$tenant', 'n = x.n + 1')));
$c->safe_psql('postgres', 'DROP SCHEMA "Tenant 1" CASCADE');
is(value($c, q(SELECT bbm_drop('tenant'))), 't', 'one whose schema is dropped can be dropped');
is(value($c, q(SELECT count(*) FROM pg_dist_partition WHERE logicalrelid::text LIKE '%bbm_shards%')), 0, '... with its record');

# ---- a function that gets the name of the shard

$c->safe_psql('postgres', <<'EOS');
SET citus.shard_count = 4;
CREATE TABLE worked (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0, home text);
SELECT create_distributed_table('worked', 'id', colocate_with => 'none');
INSERT INTO worked SELECT i, 0 FROM generate_series(1, 2000) i;
CREATE FUNCTION work(table_name text, column_name text, lo bigint, hi bigint, size int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	rows bigint;
BEGIN
	EXECUTE format('UPDATE %s SET n = n + 1, home = %L WHERE %I BETWEEN $1 AND $2', table_name, table_name, column_name) USING lo, hi;
	GET DIAGNOSTICS rows = ROW_COUNT;
	RETURN rows;
END $$;
CREATE FUNCTION nameless(lo bigint, hi bigint) RETURNS void LANGUAGE sql AS 'UPDATE worked SET n = n + 1 WHERE id BETWEEN $1 AND $2';
CREATE FUNCTION through(table_name text, column_name text, lo bigint, hi bigint, size int) RETURNS void LANGUAGE sql AS
	'UPDATE worked SET n = n + 1 WHERE id BETWEEN $3 AND $4';
SET citus.enable_ddl_propagation = off;
CREATE FUNCTION homely(table_name text, column_name text, lo bigint, hi bigint, size int) RETURNS void LANGUAGE sql AS 'SELECT';
EOS
my $worked = 'cannot run batches over distributed table "public.worked"';
refuses(q(SELECT bbm_create('x', 'worked', 'UPDATE worked SET n = 1 WHERE id BETWEEN $1 AND $2')), qr/$worked.*HINT:  Use bbm_update.*table_name/s, 'a statement is refused');
refuses(q(SELECT bbm_create('x', 'worked', 'nameless')), qr/$worked.*HINT:  Use a function \(table_name/s, '... and a function that does not get the name');
refuses(q(SELECT bbm_create('x', 'worked', 'nope')), qr/function "nope" does not exist/, '... and one that does not exist');
my $unknown = join '.*', (qr/\d+: ERROR:  function public\.homely\(.*\) does not exist/) x 2;
refuses(q(SELECT bbm_create('x', 'worked', 'homely')), qr/not each node.*$unknown.*HINT:.*the job's function/s, '... or not on the nodes');
rate(60);
value($c, q(SELECT bbm_create('worked', 'worked', 'work', batch_size => 20, start => true)));
ok($c->poll_query_until('postgres', q(SELECT count(*) > 100 FROM worked WHERE n = 1)), 'a function that gets the name is at work');
move('worked', 'force_logical');
split_shard('worked', 'block_writes');
rate(0);
is(value($c, q(SELECT bbm_wait('worked', '3 min'))), 'finished', '... and is finished, through a move and a split');
once('worked', 2000, '... with every row once');
like(value($c, q(SELECT min(home) FROM worked)), qr/^public\.worked_\d+$/, '... by the names of the shards');
is(value($c, q(SELECT rows_done FROM bbm_status('worked'))), 2000, '... as its status says');
value($c, q(SELECT bbm_drop('worked')));
value($c, q(SELECT bbm_create('through', 'worked', 'through', start => true)));
is(value($c, q(SELECT bbm_wait('through', '3 min'))), 'failed', 'a function that writes to the table as a whole fails');
like(value($c, q(SELECT error_message FROM batched_background_migrations WHERE name = 'through')), qr/the job writes distributed table "public\.worked"/, '... with the reason');
once('worked', 2000, '... and has changed nothing');
value($c, q(SELECT bbm_drop('through')));

# ---- rows that cannot be done

$c->safe_psql('postgres', <<'EOS');
SET citus.shard_count = 4;
CREATE TABLE poisoned (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0, divisor integer NOT NULL DEFAULT 1);
SELECT create_distributed_table('poisoned', 'id', colocate_with => 'none');
INSERT INTO poisoned SELECT i, 0, CASE WHEN i % 300 = 77 THEN 0 ELSE 1 END FROM generate_series(1, 3000) i;
EOS
rate(60);
value($c, q(SELECT bbm_update('poisoned', 'poisoned', 'n = n + 1 / divisor', batch_size => 20, max_attempts => 2, on_error => 'split', start => true)));
ok($c->poll_query_until('postgres', q(SELECT count(*) > 0 FROM bbm_errors('poisoned'))), 'a row that cannot be done is shown on the coordinator');
# what is known of it goes where its shard goes
foreach my $mode ('block_writes', 'force_logical')
{
	move('poisoned', $mode, $_->[0]) foreach shards_of('poisoned');
}
split_shard('poisoned', 'block_writes');
rate(0);
# a range of keys of which the shard has only one is that row
like(value($c, q(SELECT bbm_wait('poisoned', '3 min'))), qr/^finished, .* quarantined$/, 'it is finished but for those rows, through moves of all shards and a split');
is(value($c, q(SELECT count(*) FILTER (WHERE n = 1), count(*) FILTER (WHERE n = 0 AND divisor = 0), count(*) FROM poisoned)), '2990|10|3000', '... every other row is done once');
is(value($c, q(SELECT error_message, count, last_key FROM bbm_errors('poisoned'))), 'division by zero|10|2777', '... and the coordinator has each of them');
$worker[1]->stop;
refuses(q(SELECT bbm_retry('poisoned')), qr/cannot retry migration "poisoned" on every node.*could be retried on 1 of 2 nodes, and nothing has changed on any; node \S+: /s, '... which cannot be tried again while a node is down');
is(value($c, q(SELECT status, (SELECT sum(count) FROM bbm_errors('poisoned')) FROM bbm_status('poisoned'))), 'finished|10', '... and stay quarantined');
$worker[1]->start;
# six can be done now, and are, wherever their shards are; four are quarantined again
value($c, 'UPDATE poisoned SET divisor = 1 WHERE divisor = 0 AND id % 900 <> 77');
split_shard('poisoned', 'block_writes');
is(value($worker[0], q(SELECT bbm_retry('poisoned'))), 10, 'they are tried again, as another node says');
like(value($c, q(SELECT bbm_wait('poisoned', '3 min'))), qr/^finished, .* quarantined$/, '... and it is finished again but for some');
is(value($c, q(SELECT count(*) FILTER (WHERE n = 1), count(*) FILTER (WHERE n = 0 AND divisor = 0), count(*) FROM poisoned)), '2996|4|3000', '... with every other row done once');
is(value($c, q(SELECT count FROM bbm_errors('poisoned'))), 4, '... which are quarantined');
is(value($c, q(SELECT rows_done, percent FROM bbm_status_detail('poisoned'))), '2996|100.0', '... as its status says');
# ... by the nodes that have their shards by then
value($c, q(UPDATE poisoned SET divisor = 1));
works($_, 'off') foreach @worker;
is(value($c, q(SELECT bbm_retry('poisoned'))), 4, 'the rest is to be tried again');
split_shard('poisoned', 'block_writes');
foreach my $mode ('block_writes', 'force_logical')
{
	move('poisoned', $mode, $_->[0]) foreach shards_of('poisoned');
}
$worker[0]->stop('immediate');
$worker[0]->start;
works($_, 'on') foreach @worker;
is(value($c, q(SELECT bbm_wait('poisoned', '3 min'))), 'finished', '... and is done, through moves of all shards, a split and a crash');
once('poisoned', 3000, '... with every row once');
is(value($c, q(SELECT count(*) FROM bbm_errors('poisoned'))), 0, '... and nothing is quarantined any more');
is(value($c, q(SELECT bbm_retry('poisoned'))), 0, '... so that there is nothing to try again');
is(value($c, q(SELECT status FROM bbm_status('poisoned'))), 'finished', '... and it stays finished');
value($c, q(SELECT bbm_drop('poisoned')));

# ---- ranges that cannot be done are skipped

value($c, q(UPDATE poisoned SET n = 0, divisor = CASE WHEN id IN (77, 1500) THEN 0 ELSE 1 END));
rate(60);
value($c, q(SELECT bbm_update('skipping', 'poisoned', 'n = n + 1 / divisor', batch_size => 20, max_attempts => 2, on_error => 'skip', start => true)));
ok($c->poll_query_until('postgres', q(SELECT count(*) > 0 FROM bbm_errors('skipping'))), 'a range that cannot be done is shown on the coordinator');
foreach my $mode ('block_writes', 'force_logical')
{
	move('poisoned', $mode, $_->[0]) foreach shards_of('poisoned');
}
rate(0);
is(value($c, q(SELECT bbm_wait('skipping', '3 min'))), 'finished, 2 ranges quarantined', 'it is finished but for those ranges, through moves of all shards');
is(value($c, q(SELECT count(*) FILTER (WHERE n > 1), count(*) FILTER (WHERE n = 0) > 2, count(*) FILTER (WHERE n = 0) <= 40, count(*) FILTER (WHERE n = 0 AND divisor = 0) FROM poisoned)),
	'0|t|t|2', '... which are batches, and no row is done twice');
is(value($c, q(SELECT count FROM bbm_errors('skipping'))), 2, '... and the coordinator has both');
value($c, q(UPDATE poisoned SET divisor = 1 WHERE id = 77));
value($c, q(SELECT bbm_retry('skipping')));
is(value($c, q(SELECT bbm_wait('skipping', '3 min'))), 'finished, 1 range quarantined', 'tried again, one of them is done');
split_shard('poisoned', 'block_writes');
value($c, q(UPDATE poisoned SET divisor = 1));
is(value($c, q(SELECT bbm_retry('skipping'))), 1, 'the other one is tried again, in both parts of its shard');
is(value($c, q(SELECT bbm_wait('skipping', '3 min'))), 'finished', '... and done');
once('poisoned', 3000, '... with every row once');
value($c, q(SELECT bbm_drop('skipping')));
# a range that is tried again in several commits goes on where the last one was, on another node as well
value($c, q(UPDATE poisoned SET n = 0, divisor = CASE WHEN id % 2 = 0 THEN 0 ELSE 1 END));
value($c, q(SELECT bbm_update('in parts', 'poisoned', 'n = n + 1 / divisor', batch_size => 1000, sub_batch_size => 5, max_attempts => 5, on_error => 'skip', settings => '{bbm.retry_delay=10ms}', start => true)));
like(value($c, q(SELECT bbm_wait('in parts', '3 min'))), qr/^finished, \d+ ranges quarantined$/, 'a range of which a part cannot be done');
my $before_retry = value($c, 'SELECT sum(n) FROM poisoned');
is(value($c, q(SELECT rows_done FROM bbm_status_detail('in parts'))), $before_retry, '... is skipped from there on');
value($c, q(UPDATE poisoned SET divisor = 1));
rate(40);
value($c, q(SELECT bbm_retry('in parts')));
ok($c->poll_query_until('postgres', "SELECT sum(n) > $before_retry + 40 FROM poisoned"), '... tried again, in small commits');
move('poisoned', 'block_writes', $_->[0]) foreach shards_of('poisoned');
split_shard('poisoned', 'block_writes');
$worker[1]->stop('immediate');
$worker[1]->start;
rate(0);
is(value($c, q(SELECT bbm_wait('in parts', '3 min'))), 'finished', '... it is done, through moves of all shards, a split and a crash');
once('poisoned', 3000, '... with every row once');
is(value($c, q(SELECT rows_done FROM bbm_status_detail('in parts'))), 3000, '... as its status says');
value($c, q(SELECT bbm_drop('in parts')));
value($c, q(UPDATE poisoned SET divisor = CASE WHEN id % 300 = 77 THEN 0 ELSE 1 END));
value($c, q(SELECT bbm_update('poisoned', 'poisoned', 'n = n + 1 / divisor', 'divisor = 0', batch_size => 20, max_attempts => 1, max_errors => 1, on_error => 'split', start => true)));
is(value($c, q(SELECT bbm_wait('poisoned', '3 min'))), 'failed', 'too many of them fail it');
like(value($c, q(SELECT error_message FROM batched_background_migrations)), qr/more than 1 rows cannot be done/, '... with the reason');
value($c, q(SELECT bbm_alter('poisoned', max_errors => 10)));
value($c, q(SELECT bbm_start('poisoned')));
like(value($c, q(SELECT bbm_wait('poisoned', '3 min'))), qr/^finished, .* quarantined$/, '... until more are allowed');
value($c, q(SELECT bbm_drop('poisoned')));

# ---- a reference table

$c->safe_psql('postgres', <<'EOS');
CREATE TABLE reference (id int PRIMARY KEY, n integer NOT NULL DEFAULT 0);
SELECT create_reference_table('reference');
INSERT INTO reference SELECT i, 0 FROM generate_series(1, 3000) i;
EOS

# each node reads its own copy
sub copies
{
	my ($sql) = @_;
	return join ' ', map { value($_, $sql) } $c, @worker;
}

refuses(q(SELECT bbm_update('x', 'reference', 'n = 1', 'n = 0', batching_strategy => 'BlockRangeBatchingStrategy')), qr/BlockRangeBatchingStrategy does not fit table "reference"/, 'blocks of a reference table are refused');
like(value($c, q(SELECT bbm_update('reference', 'reference', 'n = reference.n + 1', batch_size => 10, settings => '{bbm.max_row_rate=200}'))), qr/^\d+$/, 'a reference table');
like(value($c, q(SELECT d::text FROM bbm_dry_run('reference', 2) d LIMIT 1)), qr/\b20\b/, '... of which some batches can be tried');
is(copies('SELECT sum(n) FROM reference'), '0 0 0', '... and rolled back');
value($c, q(SELECT bbm_start('reference')));
my $some = q(SELECT count(*) > %d FROM reference WHERE n = 1);
ok($c->poll_query_until('postgres', sprintf($some, 50)), '... is at work');
is(value($_, q(SELECT count(*) FROM batched_background_migrations)), 0, '... on the coordinator alone') foreach @worker;
# what is lost with the coordinator must not be done on the nodes, nor the other way round
foreach my $crash (1 .. 3)
{
	my $before = value($c, q(SELECT count(*) FROM reference WHERE n = 1));
	$c->stop('immediate');
	$c->start;
	ok($c->poll_query_until('postgres', sprintf($some, $before + 20)), "... and after crash $crash of the coordinator");
}
my $before = value($c, q(SELECT count(*) FROM reference WHERE n = 1));
$worker[1]->stop('immediate');
ok($c->poll_query_until('postgres', q(SELECT waiting_on IS NOT NULL OR requeued > 0 FROM bbm_status_detail('reference'))), '... and waits while a node is down');
$worker[1]->start;
ok($c->poll_query_until('postgres', sprintf($some, $before + 20)), '... after which it goes on');
value($c, q(SELECT bbm_pause('reference', wait => true)));
value($c, q(SELECT bbm_alter('reference', settings => '{}', batch_size => 500)));
value($c, q(SELECT bbm_start('reference')));
is(value($c, q(SELECT bbm_wait('reference', '3 min'))), 'finished', 'it is finished');
is(copies(q(SELECT count(*) FILTER (WHERE n = 1) FROM reference)), '3000 3000 3000', '... and every row is done once in each copy');
is(value($c, q(SELECT rows_done, estimated_total, percent FROM bbm_status_detail('reference'))), '3000|3000|100.0', '... as its status says');
value($c, q(SELECT bbm_drop('reference')));

# every kind of job and option is as with a local table
sub runs
{
	my ($what, $definition, $state) = @_;
	value($c, 'UPDATE reference SET n = 0');
	value($c, "SELECT bbm_$definition");
	is(value($c, q(SELECT bbm_wait('kind', '3 min'))), $state // 'finished', "$what: $definition");
	my $copies = copies(q(SELECT count(*) || '/' || coalesce(sum(n), 0) FROM reference));
	is($copies, join(' ', (value($c, q(SELECT count(*) || '/' || coalesce(sum(n), 0) FROM reference))) x 3), '... with all copies the same');
	return value($c, 'SELECT sum(n) FROM reference');
}

is(runs('a statement', q(create('kind', 'reference', 'UPDATE reference SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 300, workers => 2, start => true))), 3000, '... and each row once');
value($c, q(SELECT bbm_drop('kind')));
is(runs('a poison row', q(update('kind', 'reference', 'n = n + 1 / (id - 77)', batch_size => 300, max_attempts => 2, on_error => 'split', start => true)), 'finished, 1 row quarantined'),
	value($c, 'SELECT sum(1 / (id - 77)) FROM reference WHERE id <> 77'), '... and each other row once');
is(value($c, q(SELECT first_key, error_message FROM bbm_errors('kind'))), '77|division by zero', '... which is quarantined');
value($c, q(SELECT bbm_drop('kind')));
is(runs('verification', q(update('kind', 'reference', 'n = 5', 'n <> 5', batch_size => 300, verify => true, start => true))), 15000, '... and each row once');
is(value($c, q(SELECT bbm_verify('kind'))), 0, '... and counted on demand');
value($c, q(SELECT bbm_drop('kind')));
value($c, q(SELECT bbm_update('kind', 'reference', 'n = n + 1')));
is(value($c, q(SELECT count(*) > 0 FROM bbm_preview('kind', 2))), 't', 'a preview');
value($c, q(SELECT bbm_drop('kind')));
is(runs('a DELETE', q(delete('kind', 'reference', 'id % 3 = 0', batch_size => 300, start => true))), 0, '... as it should');
is(value($c, 'SELECT count(*) FROM reference'), 2000, '... of the rows that are meant');
value($c, q(SELECT bbm_drop('kind')));

# a local table becomes one between two batches of a worker
$c->safe_psql('postgres', 'CREATE TABLE becomes (id int PRIMARY KEY, n integer NOT NULL DEFAULT 0); INSERT INTO becomes SELECT i, 0 FROM generate_series(1, 1000) i');
my $holder = $c->background_psql('postgres');
$holder->query_safe('BEGIN');
$holder->query_safe('SELECT FROM becomes WHERE id = 500 FOR UPDATE');
value($c, q(SELECT bbm_update('becomes', 'becomes', 'n = n + 1', batch_size => 50,
	settings => '{bbm.lock_timeout=10min,bbm.max_blocking_time=10min}', start => true)));
ok($c->poll_query_until('postgres', q(SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted)), 'a batch of a local table is in flight');
my $convert = background($c, 'postgres', q(SELECT create_reference_table('becomes')));
ok($c->poll_query_until('postgres', q(SELECT count(*) > 0 FROM pg_locks WHERE relation = 'becomes'::regclass AND NOT granted)), '... while the table is to become a reference table');
$holder->quit;
finish_background($convert);
is(value($c, q(SELECT bbm_wait('becomes', '3 min'))), 'finished', '... and the migration is finished after that');
is(copies(q(SELECT count(*) FILTER (WHERE n = 1) FROM becomes)), '1000 1000 1000', '... with every row once in each copy');
value($c, q(SELECT bbm_drop('becomes')));

$_->stop foreach $c, @worker;
done_testing();
