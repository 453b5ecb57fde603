# What the tests of distributed tables share: a coordinator and two nodes with Citus,
# on one machine; tables whose rows count how often they were done; shards that move.

package BbmCitus;

use strict;
use warnings;

use BbmTest;
use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  citus_cluster citus_node join_cluster replace_node refuses table once shards_of move_statement move split_shard setting rate min_pace works
);

my @node;
my ($c, @worker);

# A server with Citus and bbm at hand.  Options as bbm_node.
sub citus_node
{
	my ($name, %o) = @_;
	my $node = bbm_node($name, %o, extension => 0, start => 0);
	# what is tested here is that work goes on, not for how long a busy machine lets it rest
	$node->append_conf('postgresql.conf', <<'EOC');
shared_preload_libraries = 'citus,bbm'
wal_level = logical
max_connections = 100
max_worker_processes = 24
max_wal_senders = 20
max_replication_slots = 20
bbm.naptime = 1s
bbm.max_workers = 4
citus.max_adaptive_executor_pool_size = 2
citus.node_conninfo = 'sslmode=disable'
citus.local_hostname = '/nowhere'
citus.enable_statistics_collection = off
citus.recover_2pc_interval = 1s
EOC
	# the number below it is the node's own
	$node->append_conf('postgresql.conf', "citus.local_hostname = '" . $node->host . "'");
	return $node;
}

# The coordinator and two nodes, which do not know each other yet; with (streaming => 1)
# the nodes can have standbys; (bindir => ...) is that of another installation.  Skips the
# test where Citus is not offered.
sub citus_cluster
{
	my (%o) = @_;
	my @where = $o{bindir} ? (bindir => $o{bindir}) : ();
	my $offered = bbm_node('offers', @where, extension => 0, preload => 0);

	plan skip_all => 'the server does not offer the extension citus'
	  if !value($offered, q(SELECT count(*) FROM pg_available_extensions WHERE name = 'citus'));
	$offered->stop;
	my $seed = $ENV{BBM_TEST_SEED} // int(rand(1_000_000));
	srand($seed);
	diag("BBM_TEST_SEED=$seed");
	@node = (citus_node('coordinator', @where), citus_node('one', %o), citus_node('two', %o));
	foreach (@node)
	{
		$_->start;
		$_->safe_psql('postgres', 'CREATE EXTENSION citus');
	}
	($c, @worker) = @node;
	return @node;
}

# Adds nodes to the cluster; those that it has by default.
sub join_cluster
{
	my @new = @_ ? @_ : @worker;
	value($c, sprintf(q(SELECT citus_set_coordinator_host('%s', %d)), $c->host, $c->port));
	value($c, sprintf(q(SELECT citus_add_node('%s', %d)), $_->host, $_->port)) foreach @new;
	push @node, @_;
	return;
}

# Another server has taken the place of a node, or (without one) the node has left.
sub replace_node
{
	my ($old, $new) = @_;
	@$_ = map { $_ == $old ? $new // () : $_ } @$_ foreach \@node, \@worker;
	return;
}

# an error, and what it hints at
sub refuses
{
	my ($sql, $error, $what, $node) = @_;
	my ($rc, undef, $stderr) = ($node || $c)->psql('postgres', $sql);
	ok($rc != 0 && $stderr =~ $error, $what) or diag("$rc: $stderr");
	return;
}

sub table
{
	my ($table, $rows, $shards) = @_;
	$c->safe_psql('postgres', <<"EOS");
SET citus.shard_count = $shards;
CREATE TABLE $table (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0, pad text);
SELECT create_distributed_table('$table', 'id', colocate_with => 'none');
INSERT INTO $table SELECT i, 0, 'some text' FROM generate_series(1, $rows) i;
EOS
	return;
}

sub once
{
	my ($table, $rows, $what) = @_;
	is(value($c, "SELECT count(*), count(*) FILTER (WHERE n = 1) FROM $table"), "$rows|$rows", $what);
	return;
}

sub shards_of
{
	my ($table) = @_;
	return map { [split /\|/] } split /\n/, value($c, <<"EOS");
SELECT s.shardid, n.nodeid, n.nodename, n.nodeport FROM pg_dist_shard s JOIN pg_dist_placement p USING (shardid)
JOIN pg_dist_node n USING (groupid) WHERE s.logicalrelid = '$table'::regclass ORDER BY s.shardid
EOS
}

# the statement that moves a shard, any unless it is named, to the other node
sub move_statement
{
	my ($table, $mode, $shard) = @_;
	my @shards = grep { !defined $shard || $_->[0] == $shard } shards_of($table);
	my ($id, $from, $host, $port) = @{ $shards[int(rand(@shards))] };
	my ($to) = grep { $_->port != $port } @worker;
	return sprintf(q(SELECT citus_move_shard_placement(%d, '%s', %d, '%s', %d, shard_transfer_mode => '%s')),
		$id, $host, $port, $to->host, $to->port, $mode);
}

sub move
{
	$c->safe_psql('postgres', move_statement(@_));
	return;
}

sub split_shard
{
	my ($table, $mode) = @_;
	my @shards = shards_of($table);
	my $id = $shards[int(rand(@shards))][0];
	my $at = value($c, "SELECT ((shardminvalue::bigint + shardmaxvalue::bigint) / 2)::text FROM pg_dist_shard WHERE shardid = $id");
	my $nodes = value($c, 'SELECT string_agg(nodeid::text, \',\' ORDER BY nodeid) FROM pg_dist_node WHERE groupid > 0');
	$c->safe_psql('postgres', "SELECT citus_split_shard_by_split_points($id, ARRAY['$at'], ARRAY[$nodes], '$mode')");
	return;
}

# a setting for these nodes
sub setting
{
	my ($name, $value, @where) = @_;
	foreach my $node (@where)
	{
		$node->append_conf('postgresql.conf', "$name = $value");
		$node->reload;
	}
	return;
}

# ... for all: rows a second of each shard, 0 for no limit
sub rate
{
	setting('bbm.max_row_rate', $_[0], @node);
	return;
}

# ... at its default, a worker leaves most of a busy machine to others; at 1 it does not pause
sub min_pace
{
	setting('bbm.min_pace', $_[0], @node);
	return;
}

# "on" or "off": may a node have workers?
sub works
{
	my ($node, $whether) = @_;
	setting('bbm.enabled', $whether, $node);
	return;
}

1;
