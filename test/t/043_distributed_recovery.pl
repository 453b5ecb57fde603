# Distributed tables (Citus): rows that are quarantined and found by verification, and what is started while a node is
# down; the coordinator crashes when a transaction has ended on some servers of the cluster alone.  Skipped where the
# server does not offer the extension citus.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmCitus;
use BbmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my @node = citus_cluster();
my ($c, @worker) = @node;
my ($one, $two) = @worker;
$c->safe_psql('postgres', 'CREATE EXTENSION bbm');
join_cluster();

sub of_migration
{
	my ($column, $name) = @_;
	return value($c, "SELECT $column FROM batched_background_migrations WHERE name = '$name'");
}

sub ends
{
	my ($name, $how, $what) = @_;
	return like(value($c, "SELECT bbm_wait('$name', '3 min')"), qr/^$how/, $what);
}

sub quarantined
{
	my ($name, $n, $what) = @_;
	return is(value($c, "SELECT coalesce(sum(count), 0) FROM bbm_errors('$name')"), $n, $what);
}

# A migration of the table that cannot do a row while its pad is 'bad'.
sub define_picky
{
	my ($table, $options) = @_;
	value($c, "SELECT bbm_update('$table', '$table', 'n = n + 1 / CASE WHEN pad = ''bad'' THEN 0 ELSE 1 END', batch_size => 20, max_attempts => 1" . ($options // '') . ')');
	return;
}

# ---- what is quarantined, and found by verification, is done once

foreach my $type ('bigint', 'text')
{
	my $table = "by_$type";
	$c->safe_psql('postgres', <<"EOS");
SET citus.shard_count = 4;
CREATE TABLE $table (id $type PRIMARY KEY, n integer NOT NULL DEFAULT 0, pad text);
SELECT create_distributed_table('$table', 'id', colocate_with => 'none');
INSERT INTO $table SELECT i::text::$type, 0, CASE WHEN i % 100 = 7 THEN 'bad' END FROM generate_series(1000, 1399) i;
EOS
	my $split = $type eq 'text';
	define_picky($table, q(, on_error => 'split', row_check => 'n > 0', "verify" => true, start => true));
	ends($table, 'failed', "$table: verification finds the rows that are quarantined");
	quarantined($table, 4, '... which are shown');
	value($c, "UPDATE $table SET pad = '' WHERE id IN ('1007', '1107')");
	split_shard($table, 'block_writes') if $split;
	move($table, 'block_writes');
	value($c, "SELECT bbm_start('$table')");
	ends($table, 'failed', '... and found again, as some cannot be done yet, where they are by now');
	# a node that has got a shard since has only found them
	value($c, "SELECT bbm_start('$table')");
	ends($table, 'failed', '... or by those that had to find them first');
	is(value($c, "SELECT count(*) FROM $table WHERE n = 1"), 398, '... which have done the others');
	quarantined($table, 2, '... and these are quarantined no more') if !$split;
	value($c, "UPDATE $table SET pad = ''");
	value($c, "SELECT bbm_start('$table')");
	ends($table, 'finished', '... started when all can be done, it is finished');
	quarantined($table, 0, '... with nothing quarantined') if !$split;
	# nobody knows in which part of a split shard a row is
	my $tried = value($c, "SELECT bbm_retry('$table')");
	is($tried, 0, '... or to be tried again') if !$split;
	ends($table, 'finished', '... which is done when that was tried');
	quarantined($table, 0, '... with nothing quarantined');
	once($table, 400, '... and every row once');
	value($c, "SELECT bbm_drop('$table')");
}

# ---- all are started while a node is down: those that need it are named, and the others start

table('needs_both', 400, 4);
value($c, q(SELECT bbm_update('needs_both', 'needs_both', 'n = n + 1', batch_size => 100)));
$c->safe_psql('postgres', 'CREATE TABLE needs_none (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0); INSERT INTO needs_none SELECT generate_series(1, 100)');
value($c, q(SELECT bbm_update('needs_none', 'needs_none', 'n = n + 1', batch_size => 100)));
$one->stop;
my ($rc, $out, $said) = $c->psql('postgres', 'SELECT bbm_start()');
ok($rc == 0 && $out eq '1', 'all are started while a node is down: one is') or diag("$rc: $out; $said");
my $of_one = quotemeta($one->host . ':' . $one->port);
like($said, qr/WARNING:  cannot start migration "needs_both" on every node\nDETAIL:  It could be started on 1 of 2 nodes, and nothing has changed on any; node $of_one: .*\nHINT:  Repeat it/s, '... and a warning names the other one, and the node');
is(value($c, q(SELECT status FROM bbm_status('needs_both'))), 'paused', '... which stays paused');
ends('needs_none', 'finished', 'the one that was started is finished');
$one->start;
is(value($c, 'SELECT bbm_start()'), 1, 'when the node is back, the other one is started');
ends('needs_both', 'finished', '... and finished');
once('needs_both', 400, '... with every row once');
value($c, "SELECT bbm_drop('$_')") foreach 'needs_both', 'needs_none';

# ---- several that fail are tried again while a node is down: each once, though one process leads them by turns

my @fail = ('fails_first', 'fails_next');
foreach my $table (@fail)
{
	table($table, 400, 4);
	my $here = join ', ', map { $_->[0] } grep { $_->[3] == $two->port } shards_of($table);
	value($c, "UPDATE $table SET pad = 'bad' WHERE id = (SELECT min(id) FROM $table WHERE get_shard_id_for_distribution_column('$table', id) IN ($here))");
	define_picky($table, ', start => true');
	ends($table, 'failed', "$table: it fails");
}
# the coordinator does not work until the node is down
works($c, 'off');
ok(workers_gone($c), 'nobody works on the coordinator');
is(value($c, "SELECT bbm_retry('$_')"), 1, "$_ is to be tried again") foreach @fail;
$one->stop('immediate');
works($c, 'on');
ends($_, 'failed', "$_: it fails again, though a node is down") foreach @fail;
$one->start;
ok($c->poll_query_until('postgres', q(SELECT count(*) = 0 FROM batched_background_migrations WHERE unreached_nodes IS NOT NULL)), 'the node is told later');
foreach my $table (@fail)
{
	value($c, "UPDATE $table SET pad = ''");
	value($c, "SELECT bbm_retry('$table')");
	ends($table, 'finished', "$table: it is finished");
	once($table, 400, '... with every row once');
	value($c, "SELECT bbm_drop('$table')");
}

foreach my $each (@node)
{
	is(value($each, q(SELECT count(*) FROM batched_background_migrations)), 0, 'nothing is left on ' . $each->name);
	$each->stop;
}
done_testing();
