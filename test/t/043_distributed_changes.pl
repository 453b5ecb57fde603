# Distributed tables (Citus) that change, and what is changed in one transaction: names, other types of the distribution
# column, parts of a split shard that are empty, metadata that are not synced, owners.  Skipped where the server does not
# offer the extension citus.

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
$c->safe_psql('postgres', 'CREATE EXTENSION bbm');
join_cluster();

sub of_migration
{
	my ($column, $name) = @_;
	return value($c, "SELECT $column FROM batched_background_migrations WHERE name = '$name'");
}

# a migration of the table that has done a part of it
sub half_done
{
	my ($table, $options) = @_;
	rate(20);
	value($c, "SELECT bbm_update('$table', '$table', 'n = n + 1', batch_size => 10, start => true" . ($options // '') . ')');
	ok($c->poll_query_until('postgres', "SELECT count(*) > 0 FROM $table WHERE n = 1"), "$table: some of it is done");
	return;
}

sub finishes
{
	my ($name, $what) = @_;
	rate(0);
	return is(value($c, "SELECT bbm_wait('$name', '2 min')"), 'finished', $what);
}

# ---- the table gets another name, and another one gets its name

table('renamed', 2000, 4);
$c->safe_psql('postgres', <<'EOS');
SET citus.shard_count = 4;
CREATE TABLE other (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
SELECT create_distributed_table('other', 'id', colocate_with => 'renamed');
INSERT INTO other SELECT i, 0 FROM generate_series(1, 2000) i;
EOS
half_done('renamed');
value($c, 'ALTER TABLE renamed RENAME TO renamed_old');
is(value($c, q(SELECT bbm_wait('renamed', '2 min'))), 'failed', 'a table that is renamed fails its migration');
is(of_migration('error_message, error_detail, failure_error_code', 'renamed'),
	'table "public.renamed" does not exist any more|The migration was defined for the table that is now public.renamed_old.|1', '... with the reason');
value($c, 'ALTER TABLE other RENAME TO renamed');
my $done = value($c, 'SELECT sum(n) FROM renamed_old');
value($c, q(SELECT bbm_start('renamed')));
is(value($c, q(SELECT bbm_wait('renamed', '2 min'))), 'failed', '... also if it is started when another, colocated one has its name');
is(of_migration('error_message, error_detail', 'renamed'),
	'table "public.renamed" is not the one that migration "renamed" is about|The migration was defined for the table that is now public.renamed_old.', '... with the reason');
is(value($c, 'SELECT (SELECT sum(n) FROM renamed), (SELECT sum(n) FROM renamed_old)'), "0|$done", '... and no row of either is done');
value($c, 'ALTER TABLE renamed RENAME TO other; ALTER TABLE renamed_old RENAME TO renamed');
value($c, q(SELECT bbm_start('renamed')));
finishes('renamed', 'when it has its name again, it is finished');
once('renamed', 2000, '... with every row once');
value($c, q(SELECT bbm_drop('renamed')));
# ... while it runs, in one transaction
half_done('renamed');
$c->safe_psql('postgres', 'BEGIN; ALTER TABLE renamed RENAME TO renamed_old; ALTER TABLE other RENAME TO renamed; COMMIT');
is(value($c, q(SELECT bbm_wait('renamed', '2 min'))), 'failed', 'another table gets its name while it runs');
is(value($c, 'SELECT sum(n), count(*) FROM renamed'), '0|2000', '... and no row of that is done');
value($c, q(SELECT bbm_drop('renamed')));
# ... and while a node is down, the others can be paused
value($c, 'ALTER TABLE renamed RENAME TO other; ALTER TABLE renamed_old RENAME TO renamed; UPDATE renamed SET n = 0');
half_done('renamed');
works($c, 'off');
ok(workers_gone($c), 'nobody works on the coordinator');
value($c, 'ALTER TABLE renamed RENAME TO renamed_old');
$worker[1]->stop('immediate');
my ($rc, undef, $said) = $c->psql('postgres', q(SELECT bbm_pause('renamed')));
ok($rc == 0 && $said =~ /WARNING:  migration "renamed" is paused on 1 of 2 nodes/, 'a table is renamed and a node is down: a pause is for the other one') or diag($said);
$worker[1]->start;
works($c, 'on');
ok($c->poll_query_until('postgres', q(SELECT unreached_nodes IS NULL FROM batched_background_migrations)), '... and for that one when it is back');
value($c, q(SELECT bbm_drop('renamed')));
# ... or its schema does
table('in_schema', 2000, 4);
half_done('in_schema');
value($c, 'CREATE SCHEMA aside');
value($c, 'ALTER TABLE in_schema SET SCHEMA aside');
is(value($c, q(SELECT bbm_wait('in_schema', '2 min'))), 'failed', 'a table that gets another schema fails it, too');
like(of_migration('error_detail', 'in_schema'), qr/is now aside\.in_schema/, '... with the reason');
value($c, q(SELECT bbm_drop('in_schema')));

# ---- the table is dropped

table('dropped', 2000, 4);
half_done('dropped');
value($c, 'DROP TABLE dropped');
is(value($c, q(SELECT bbm_wait('dropped', '2 min'))), 'failed', 'a table that is dropped fails it');
is(of_migration('error_message, error_detail, error_hint, failure_error_code', 'dropped'),
	'table "public.dropped" does not exist any more|It was there when the migration was defined.|bbm_drop the migration.|1', '... with the reason');
is(value($c, q(SELECT bbm_drop('dropped'))), 't', '... and it can be dropped');

# ---- what is defined, started, altered, paused and dropped in one transaction

table('at_once', 400, 4);
value($c, q(BEGIN; SELECT bbm_update('at_once', 'at_once', 'n = n + 1'); SAVEPOINT s; SELECT bbm_alter('at_once', batch_size => 50); SELECT bbm_start('at_once'); COMMIT));
finishes('at_once', 'one that is defined, altered and started in one transaction is finished');
is(of_migration('batch_size', 'at_once'), 50, '... as altered');
once('at_once', 400, '... with every row once');
value($c, q(SELECT bbm_drop('at_once')));
($rc, undef, $said) = $c->psql('postgres', q(BEGIN; SELECT bbm_update('at_once', 'at_once', 'n = n + 1', start => true); SELECT bbm_pause('at_once', wait => true); COMMIT));
ok($rc == 0 && $said !~ /WARNING/, 'one that is started and paused in its transaction') or diag($said);
is(of_migration('status, unreached_nodes', 'at_once'), '0|', '... is paused on all nodes');
value($c, q(SELECT bbm_start('at_once'); SELECT bbm_wait('at_once', '2 min')));
is(value($c, 'SELECT count(*), sum(n) FROM at_once'), '400|800', '... and is done when it is started');
value($c, q(SELECT bbm_drop('at_once')));
value($c, q(BEGIN; SELECT bbm_update('at_once', 'at_once', 'n = n + 1', start => true); SELECT bbm_drop('at_once'); COMMIT));
is(value($c, q(SELECT count(*) FROM pg_dist_partition WHERE logicalrelid::text LIKE '%bbm_shards%')), 0, '... or is dropped, with its record');
$c->psql('postgres', q(BEGIN; SELECT bbm_update('at_once', 'at_once', 'n = n + 1'); SELECT bbm_start('at_once'); ROLLBACK));
is(value($c, q(SELECT (SELECT count(*) FROM batched_background_migrations), (SELECT count(*) FROM pg_dist_partition WHERE logicalrelid::text LIKE '%bbm_shards%'))), '0|0', '... or rolled back');

# ---- types of the distribution column

$c->safe_psql('postgres', <<'EOS');
CREATE DOMAIN short AS text CHECK (VALUE LIKE 't%');
CREATE COLLATION backwards (provider = libc, locale = 'C');
EOS
my %values = ('char(4)' => 'i', 'varchar(1)' => q(substr('abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', 1 + i % 60, 1)), 'numeric(3,1)' => 'i % 100', 'numeric(2,2)' => '(i % 100) / 100.0',
	'numeric' => 'i', 'short' => q('t' || i), 'text COLLATE backwards' => 'i', 'boolean' => 'i % 2 = 0');
foreach my $type (sort keys %values)
{
	my $table = 'of_' . $type =~ s/\W+/_/gr;
	$c->safe_psql('postgres', <<"EOS");
SET citus.shard_count = 4;
CREATE TABLE $table (value $type, id integer, n integer NOT NULL DEFAULT 0, PRIMARY KEY (value, id));
SELECT create_distributed_table('$table', 'value', colocate_with => 'none');
INSERT INTO $table SELECT ($values{$type})::@{[ $type =~ s/ COLLATE.*//r ]}, i, 0 FROM generate_series(1, 400) i;
EOS
	half_done($table);
	# the part that is split has rows
	my $shard = value($c, "SELECT get_shard_id_for_distribution_column('$table', value) FROM $table LIMIT 1");
	my $at = value($c, "SELECT (shardminvalue::bigint + shardmaxvalue::bigint) / 2 FROM pg_dist_shard WHERE shardid = $shard");
	my $nodes = value($c, q(SELECT string_agg(nodeid::text, ',') FROM pg_dist_node WHERE groupid > 0));
	$c->safe_psql('postgres', "SELECT citus_split_shard_by_split_points($shard, ARRAY['$at'], ARRAY[$nodes], 'block_writes')");
	finishes($table, "$table: it is finished, through a split");
	once($table, 400, '... with every row once');
	value($c, "SELECT bbm_drop('$table')");
}

# ---- a part of a split shard is empty, and gets a row

$c->safe_psql('postgres', <<'EOS');
SET citus.shard_count = 2;
CREATE TABLE addresses (id inet PRIMARY KEY, n integer NOT NULL DEFAULT 0, pad text);
SELECT create_distributed_table('addresses', 'id', colocate_with => 'none');
INSERT INTO addresses SELECT '10.0.0.0'::inet + i, 0, '' FROM generate_series(1, 200) i;
EOS
foreach my $side ('first', 'second')
{
	value($c, q(UPDATE addresses SET n = 0, pad = ''));
	my ($shard) = map { $_->[0] } shards_of('addresses');
	my $in = "get_shard_id_for_distribution_column('addresses', id)";
	value($c, "UPDATE addresses SET pad = 'bad' WHERE id = (SELECT min(id) FROM addresses WHERE $in = $shard)");
	rate(5);
	value($c, q(SELECT bbm_update('addresses', 'addresses', 'n = n + 1 / CASE WHEN pad = ''bad'' THEN 0 ELSE 1 END', batch_size => 5, max_attempts => 1, on_error => 'split', start => true)));
	ok($c->poll_query_until('postgres', q(SELECT coalesce(sum(count), 0) = 1 FROM bbm_errors('addresses'))), 'a row is quarantined');
	# one part of it gets all rows
	my $at = value($c, $side eq 'first' ? "SELECT min(worker_hash(id)) - 1 FROM addresses WHERE $in = $shard" : "SELECT max(worker_hash(id)) FROM addresses WHERE $in = $shard");
	my $nodes = value($c, q(SELECT string_agg(nodeid::text, ',') FROM pg_dist_node WHERE groupid > 0));
	$c->safe_psql('postgres', "SELECT citus_split_shard_by_split_points($shard, ARRAY['$at'], ARRAY[$nodes], 'block_writes')");
	my $whose = $side eq 'first' ? "shardmaxvalue = '$at'" : "shardminvalue::integer = $at + 1";
	my $empty = value($c, "SELECT shardid FROM pg_dist_shard WHERE logicalrelid = 'addresses'::regclass AND $whose");
	# the others go on
	my $others = "SELECT sum(n) FROM addresses WHERE $in <> $empty";
	my $before = value($c, $others);
	ok($c->poll_query_until('postgres', "SELECT ($others) > $before"), "the $side part of a shard that was split is empty, and the others go on");
	# the other part has its record before a row tells what belongs into this one
	my $recorded = 'SELECT count(*) FROM (SELECT low, high FROM ' . of_migration('shard_record', 'addresses') . q{ WHERE kind = 'shard') r
		JOIN (SELECT * FROM pg_dist_shard WHERE logicalrelid = 'addresses'::regclass) s ON r.low = s.shardminvalue AND r.high = s.shardmaxvalue};
	ok($c->poll_query_until('postgres', "SELECT ($recorded) = count(*) - 1 FROM pg_dist_shard WHERE logicalrelid = 'addresses'::regclass"), '... the other part of it, too');
	is(value($c, q(SELECT coalesce(sum(count), 0) FROM bbm_errors('addresses'))), 1, '... with what is quarantined');
	value($c, "INSERT INTO addresses SELECT ip FROM (SELECT '10.0.0.0'::inet + i AS ip FROM generate_series(201, 400000) i) s
		WHERE get_shard_id_for_distribution_column('addresses', ip) = $empty LIMIT 1");
	rate(0);
	like(value($c, q(SELECT bbm_wait('addresses', '2 min'))), qr/^finished, 1 row/, '... and it is finished when that part has got a row');
	is(value($c, q(SELECT coalesce(sum(count), 0) FROM bbm_errors('addresses'))), 1, '... with what is quarantined, once');
	is(value($c, 'SELECT max(n), count(*) FILTER (WHERE n = 0 AND pad = \'\') <= 1 FROM addresses'), '1|t', '... and every other row once');
	value($c, q(UPDATE addresses SET pad = '' WHERE pad = 'bad'));
	is(value($c, q(SELECT bbm_retry('addresses'))), 1, '... which is tried again');
	finishes('addresses', '... and done');
	is(value($c, 'SELECT max(n), count(*) FILTER (WHERE n = 0) <= 1 FROM addresses'), '1|t', '... with every row once');
	value($c, q(SELECT bbm_drop('addresses')));
}

# ---- a node's metadata are not synced any more

table('unsynced', 2000, 4);
half_done('unsynced');
my $at = sprintf q('%s', %d), $worker[1]->host, $worker[1]->port;
my $away = quotemeta sprintf '%s:%d: its metadata are not synced (start_metadata_sync_to_node)', $worker[1]->host, $worker[1]->port;
value($c, "SELECT stop_metadata_sync_to_node($at)");
ok($c->poll_query_until('postgres', q(SELECT waiting_on LIKE '%its metadata are not synced%' FROM bbm_status_detail('unsynced'))), 'a node whose metadata are not synced is named');
foreach (q(bbm_alter('unsynced', batch_size => 50)), q(bbm_pause('unsynced', wait => true)))
{
	refuses("SELECT $_", qr/on every node.*DETAIL:  .*node $away\.\nHINT:  (?!What was done)/s, "... $_");
}
($rc, undef, $said) = $c->psql('postgres', q(SELECT bbm_pause('unsynced')));
ok($rc == 0 && $said =~ /DETAIL:  It may go on at the others: node $away\./, '... and a pause says so') or diag($said);
value($c, "SELECT start_metadata_sync_to_node($at)");
ok($c->poll_query_until('postgres', q(SELECT unreached_nodes IS NULL FROM batched_background_migrations)), '... until they are again');
value($c, q(SELECT bbm_start('unsynced')));
finishes('unsynced', '... and then it is finished');
once('unsynced', 2000, '... with every row once');
value($c, q(SELECT bbm_drop('unsynced')));

# ---- an owner who is no superuser: his shards move; who has no shard of his own there

$c->safe_psql('postgres', <<'EOS');
CREATE ROLE app LOGIN;
CREATE ROLE deploy LOGIN;
GRANT CREATE ON SCHEMA public TO app;
GRANT EXECUTE ON FUNCTION bbm_update, bbm_start, bbm_pause, bbm_drop TO app, deploy;
SET ROLE app;
SET citus.shard_count = 4;
CREATE TABLE of_app (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
SELECT create_distributed_table('of_app', 'id', colocate_with => 'none');
INSERT INTO of_app SELECT i, 0 FROM generate_series(1, 2000) i;
GRANT SELECT, UPDATE ON of_app TO deploy;
EOS
value($_, 'GRANT EXECUTE ON FUNCTION bbm_internal.bbm_shards_sync TO app, deploy') foreach @node;
refuses(q(SET ROLE deploy; SELECT bbm_update('of app', 'of_app', 'n = n + 1')), qr/permission denied for schema public.*HINT:  GRANT CREATE ON SCHEMA public TO deploy\./s, 'an owner as whom Citus could not move the record is refused');
rate(20);
value($c, q(SET ROLE app; SELECT bbm_update('of app', 'of_app', 'n = n + 1', batch_size => 10, start => true)));
ok($c->poll_query_until('postgres', 'SELECT count(*) > 0 FROM of_app WHERE n = 1'), 'a migration of another role is at work');
move('of_app', $_) foreach 'block_writes', 'force_logical';
split_shard('of_app', 'block_writes');
value($c, 'SET ROLE app; ' . move_statement('of_app', 'block_writes'));
my $record = of_migration('shard_record', 'of app');
like($record, qr/^public\.bbm_shards_\d+$/, '... through moves, with its record beside the table');
refuses('DROP EXTENSION bbm', qr/table bbm_shards_\d+ depends on extension bbm/, '... which DROP EXTENSION names');
# what it is about changes its owner
value($c, 'ALTER TABLE of_app OWNER TO deploy');
is(value($c, q(SELECT bbm_wait('of app', '2 min'))), 'failed', '... and fails when the table is not his any more');
like(of_migration('error_message', 'of app'), qr/^permission denied for table of_app/, '... with the reason');
refuses(q(UPDATE batched_background_migrations SET owner = 'deploy'), qr/owner of migration "of app" cannot be changed.*HINT:  Drop it, and define another one/s, '... and cannot be given to the new owner');
value($c, 'GRANT SELECT, UPDATE ON of_app TO app; ALTER ROLE app RENAME TO application');
# Citus before 13 leaves that to whoever renames it
value($_, q(DO $$ BEGIN IF to_regrole('app') IS NOT NULL THEN SET LOCAL citus.enable_ddl_propagation = off; ALTER ROLE app RENAME TO application; END IF; END $$))
  foreach @node;
value($c, q(SELECT bbm_start('of app')));
finishes('of app', 'with the right to do that, it is finished, though the role is renamed');
once('of_app', 2000, '... with every row once, through moves and a split');
is(value($c, q(SELECT bbm_drop('of app'))), 't', '... and can be dropped');
is(value($_, q(SELECT count(*) FROM pg_class WHERE relname ~ '^bbm_shards_[0-9]+$')), 0, '... with its record, on ' . $_->name) foreach @node;

# ---- a shard by itself cannot be run, either

table('by_hand', 400, 2);
value($c, q(SELECT bbm_update('by_hand', 'by_hand', 'n = n + 1', batch_size => 5, settings => '{bbm.max_row_rate=1}', start => true)));
ok($worker[0]->poll_query_until('postgres', q(SELECT count(*) = 1 FROM batched_background_migrations WHERE status = 4)), 'a shard is at work');
my $part = value($worker[0], q(SELECT name FROM batched_background_migrations));
refuses("CALL bbm_run('$part')", qr/cannot run migration "\Q$part\E".*one shard.*HINT:  Do that with the migration of the whole/s, 'a session cannot run a shard by itself', $worker[0]);
my ($quick) = $worker[0]->psql('postgres', q(SET statement_timeout = '60s'; CALL bbm_run()));
is($quick, 0, '... nor is one meant where all are to be run');
value($c, q(SELECT bbm_alter('by_hand', batch_size => 100, settings => '{}')));
value($c, q(CALL bbm_run('by_hand')));
once('by_hand', 400, 'the whole can be run on the coordinator');
value($c, q(SELECT bbm_drop('by_hand')));

# ---- the coordinator has shards, too

value($c, sprintf(q(SELECT citus_set_node_property('%s', %d, 'shouldhaveshards', true)), $c->host, $c->port));
table('everywhere', 2000, 6);
is(scalar(grep { $_->[3] == $c->port } shards_of('everywhere')), 2, 'the coordinator has shards');
half_done('everywhere');
value($c, q(SELECT bbm_pause('everywhere', wait => true)));
is(value($c, q(SELECT string_agg(DISTINCT status, ',') FROM bbm_status())), 'paused', '... and is paused with all of them');
value($c, q(SELECT bbm_start()));
ok($c->poll_query_until('postgres', q(SELECT count(*) = 2 FROM bbm_status() WHERE name LIKE 'everywhere/%' AND status = 'running')), '... and started');
value($c, q(SELECT bbm_drop('everywhere')));
is(value($c, q(SELECT count(*) FROM batched_background_migrations)), 0, '... and dropped while it runs');
is(value($c, 'SELECT max(n) FROM everywhere'), 1, '... with no row done twice');
value($c, q(SELECT bbm_update('everywhere', 'everywhere', 'n = n + 1', 'n = 0', batch_size => 100, start => true)));
finishes('everywhere', '... and finished');
once('everywhere', 2000, '... with every row once');
value($c, q(SELECT bbm_drop('everywhere')));

foreach my $each (@node)
{
	is(value($each, q(SELECT count(*) FROM batched_background_migrations)), 0, 'nothing is left on ' . $each->name);
	$each->stop;
}
done_testing();
