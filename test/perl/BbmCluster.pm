# A coordinator and two nodes with Citus, on one machine, and what tests do with them.

package BbmCluster;

use strict;
use warnings;

use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

use Exporter 'import';
our @EXPORT = qw(cluster refuses once shards_of move_statement move split_shard rate);

my ($c, @worker);

# Starts the servers, and makes a cluster of them; returns the coordinator and the nodes, or
# nothing where the server does not offer the extension citus.
sub cluster
{
	($c, @worker) = map { bbm_node($_, extension => 0, start => 0) } 'coordinator', 'one', 'two';
	$c->start;
	return if !value($c, q(SELECT count(*) FROM pg_available_extensions WHERE name = 'citus'));
	$c->stop;
	foreach my $node ($c, @worker)
	{
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
citus.enable_statistics_collection = off
EOC
		$node->append_conf('postgresql.conf', "citus.local_hostname = '" . $node->host . "'");
		$node->start;
		$node->safe_psql('postgres', 'CREATE EXTENSION citus');
	}
	$c->safe_psql('postgres', 'CREATE EXTENSION bbm');
	value($c, sprintf(q(SELECT citus_set_coordinator_host('%s', %d)), $c->host, $c->port));
	value($c, sprintf(q(SELECT citus_add_node('%s', %d)), $_->host, $_->port)) foreach @worker;
	return ($c, @worker);
}

# an error, and what it hints at
sub refuses
{
	my ($sql, $error, $what, $node) = @_;
	my ($rc, undef, $stderr) = ($node || $c)->psql('postgres', $sql);
	ok($rc != 0 && $stderr =~ $error, $what) or diag("$rc: $stderr");
	return;
}

sub once
{
	my ($table, $rows, $what) = @_;
	is(value($c, "SELECT count(*), count(*) FILTER (WHERE n = 1) FROM $table"), "$rows|$rows", $what);
	return;
}

# [shard, node, host, port], in the order of their numbers
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

# a rate for all nodes: 0 for none
sub rate
{
	my ($rate) = @_;
	foreach my $node ($c, @worker)
	{
		$node->append_conf('postgresql.conf', "bbm.max_row_rate = $rate");
		$node->reload;
	}
	return;
}

1;
