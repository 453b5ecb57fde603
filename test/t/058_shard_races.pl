# Races as in 054, of distributed tables (Citus): what changes between the nodes' reports and what the coordinator
# decides, while it completes the record after a split, and while the record is dropped.  Skipped where the server
# does not offer the extension citus.  doc/proof.md has the list.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmCitus;
use BbmPoints;
use BbmRaces;
use BbmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan(skip_all => 'test/run builds no server with points') unless $ENV{BBM_POINTS_BINDIR};
my @node = citus_cluster(bindir => $ENV{BBM_POINTS_BINDIR});
my ($c, @worker) = @node;
$c->safe_psql('postgres', 'CREATE EXTENSION bbm');
join_cluster();
points_sql($c);

# a migration that counts how often each row of the table is done; the id
sub define_migration
{
	my ($table) = @_;
	value($c, "SELECT bbm_update('$table', '$table', 'n = n + 1', batch_size => 10)");
	return value($c, "SELECT id FROM batched_background_migrations WHERE name = '$table'");
}

# a table of 400 rows in four shards, and its migration; the id
sub define_it
{
	my ($table) = @_;
	table($table, 400, 4);
	return define_migration($table);
}

# ... of which a part is done
sub half_done
{
	my ($table) = @_;
	rate(20);
	my $id = define_it($table);
	start_migration($c, $table);
	ok($c->poll_query_until('postgres', "SELECT count(*) > 0 FROM $table WHERE n = 1"), "$table: some of it is done");
	return $id;
}

# ... or the first row of each shard is quarantined, and few others are done
sub quarantines
{
	my ($table) = @_;
	table($table, 400, 4);
	value($c, "UPDATE $table SET pad = 'bad' WHERE id IN (SELECT min(id) FROM $table GROUP BY get_shard_id_for_distribution_column('$table', id))");
	value($c, "SELECT bbm_update('$table', '$table', 'n = n + 1 / CASE WHEN pad = ''bad'' THEN 0 ELSE 1 END', batch_size => 10, max_attempts => 1, on_error => 'split')");
	my $id = value($c, "SELECT id FROM batched_background_migrations WHERE name = '$table'");
	rate(10);
	start_migration($c, $table);
	ok($c->poll_query_until('postgres', "SELECT coalesce(sum(count), 0) = 4 FROM bbm_errors('$table')"), 'rows are quarantined');
	return $id;
}

# The nodes have done all that they have.
sub nodes_done
{
	my ($id) = @_;
	return ok($c->poll_query_until('postgres', "SELECT count(*) = 0 FROM bbm_internal.bbm_shards_$id WHERE kind = 'shard' AND state <> 'finished'"),
		'the nodes have done all');
}

# The coordinator has the reports of all nodes that all is done, and is about to decide.
sub about_to_finish
{
	my ($table) = @_;
	my $id = define_it($table);
	arm($c, 'cluster-reported', migration => $id);
	start_migration($c, $table);
	stands($c, 'cluster-reported');
	nodes_done($id);
	# the reports of before, and those that are new
	arm($c, 'cluster-decides', migration => $id, passes => 1);
	release($c, 'cluster-reported');
	stands($c, 'cluster-decides');
	return $id;
}

# The statement that splits a shard in two, after this hash value.
sub split_statement
{
	my ($shard, $at) = @_;
	my $nodes = value($c, q(SELECT string_agg(nodeid::text, ',' ORDER BY nodeid) FROM (SELECT nodeid FROM pg_dist_node WHERE groupid > 0 ORDER BY nodeid LIMIT 2) n));
	return "SELECT citus_split_shard_by_split_points($shard, ARRAY['$at'], ARRAY[$nodes], 'block_writes')";
}

# ... in the middle
sub split_in_half
{
	my ($shard) = @_;
	return split_statement($shard, value($c, "SELECT (shardminvalue::bigint + shardmaxvalue::bigint) / 2 FROM pg_dist_shard WHERE shardid = $shard"));
}

# Another session splits the shard with the lowest hash values; in the background.
sub split_first
{
	my ($table) = @_;
	my $shard = value($c, "SELECT shardid FROM pg_dist_shard WHERE logicalrelid = '$table'::regclass ORDER BY shardminvalue::integer LIMIT 1");
	return background($c, 'postgres', q(SET application_name = 'act'), split_in_half($shard));
}

# Splits a shard so that one of the parts is empty.
sub split_empty
{
	my ($table, $shard) = @_;
	my $at = value($c, "SELECT max(worker_hash(id)) FROM $table WHERE get_shard_id_for_distribution_column('$table', id) = $shard");
	value($c, split_statement($shard, $at));
	return;
}

sub ends_well
{
	my ($p, $what) = @_;
	my (undef, $err) = finish_background($p);
	return unlike($err, qr/ERROR/, $what);
}

# Each range of hash values has its rows in the record, and no other has.
sub record_complete
{
	my ($table, $id, $what) = @_;
	return ok($c->poll_query_until('postgres', <<"EOS"), $what);
SELECT count(*) FILTER (WHERE r.low IS NULL OR s.shardid IS NULL) = 0
FROM (SELECT low, high FROM bbm_internal.bbm_shards_$id WHERE kind = 'shard') r
FULL JOIN (SELECT * FROM pg_dist_shard WHERE logicalrelid = '$table'::regclass) s ON r.low = s.shardminvalue AND r.high = s.shardmaxvalue
EOS
}

sub finishes
{
	my ($table, $what) = @_;
	rate(0);
	is(value($c, "SELECT bbm_wait('$table', '3 min')"), 'finished', "$what: it is finished");
	once($table, 400, '... with every row once');
	return;
}

# engine/cluster.c: a pause commits between the reports that all is done and the decision.
{
	about_to_finish('paused_late');
	value($c, q(SELECT bbm_pause('paused_late')));
	release($c);
	no_workers($c);
	is(value($c, q(SELECT status FROM bbm_status('paused_late'))), 'paused', 'a pause between the reports and the decision: it stays paused');
	start_migration($c, 'paused_late');
	finishes('paused_late', '... and started');
}

# ... somebody has what is quarantined tried again: the reports say nothing about that.
{
	my $table = 'retried_late';
	my $id = quarantines($table);
	arm($c, 'cluster-reported', migration => $id);
	stands($c, 'cluster-reported');
	rate(0);
	nodes_done($id);
	arm($c, 'cluster-decides', migration => $id, passes => 1);
	release($c, 'cluster-reported');
	stands($c, 'cluster-decides');
	value($c, "UPDATE $table SET pad = ''");
	works($_, 'off') foreach @worker;
	is(value($c, "SELECT bbm_retry('$table')"), 4, 'what is quarantined is to be tried again, between the reports and the decision');
	release($c);
	ok($c->poll_query_until('postgres', "SELECT status = 'finished' OR waiting_on LIKE 'its nodes: 0 of 4 shards done%' FROM bbm_status_detail('$table')"), '... which is not made by them');
	is(value($c, "SELECT status FROM bbm_status('$table')"), 'running', '... and it is not finished');
	works($_, 'on') foreach @worker;
	finishes($table, '... until that is done');
}

# ... a shard is split then: its parts are as far as the whole was.
{
	about_to_finish('split_late');
	ends_well(split_first('split_late'), 'a shard is split between the reports and the decision');
	release($c);
	finishes('split_late', '... which is about all shards');
}

# ... or between the reports and the list of the shards, when nothing was done: the whole's report counts for neither part.
{
	my $id = define_it('split_reported');
	arm($c, 'cluster-reported', migration => $id);
	start_migration($c, 'split_reported');
	stands($c, 'cluster-reported');
	nodes_done($id);
	ends_well(split_first('split_reported'), 'a shard is split after the reports');
	arm($c, 'cluster-decides', migration => $id);
	release($c, 'cluster-reported');
	stands($c, 'cluster-decides');
	is(value($c, q(SELECT status <> 'finished' FROM bbm_status('split_reported'))), 't', '... and is not finished by them');
	release($c);
	finishes('split_reported', '... but by the next');
	record_complete('split_reported', $id, '... when the record has its parts');
}

# The statement that moves a shard from one node to another one.
sub move_to
{
	my ($shard, $from, $to) = @_;
	return sprintf q(SELECT citus_move_shard_placement(%d, '%s', %d, '%s', %d, 'block_writes')), $shard, $from->host, $from->port, $to->host, $to->port;
}

# Two nodes are asked about their shards: one has answered before the statement is run on the coordinator, the other one after that.
sub between_answers
{
	my ($first, $second, $statement) = @_;
	my ($pid) = stands($first, 'shards-asked');
	stands($second, 'shards-asked');
	release($first, 'shards-asked');
	ok($first->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid AND state = 'active'"), 'one node has answered');
	value($c, $statement);
	return release($second, 'shards-asked');
}

# engine/cluster.c: a shard moves while the nodes are asked, and is reported by both nodes, or by none.
for my $by (qw(both none))
{
	my $table = "reported_by_$by";
	table($table, 400, 2);
	my ($shard, undef, undef, $port) = @{ (shards_of($table))[0] };
	my ($from) = grep { $_->port == $port } @worker;
	my ($to) = grep { $_->port != $port } @worker;
	my $id = define_migration($table);
	works($from, 'off');
	no_workers($from);
	start_migration($c, $table);
	ok($c->poll_query_until('postgres', "SELECT count(*) = 1 FROM bbm_internal.bbm_shards_$id WHERE kind = 'shard' AND state = 'finished'"), 'one of two shards is done');
	# both are asked at once, and stop
	arm($c, 'cluster-reported', migration => $id);
	stands($c, 'cluster-reported');
	arm($_, 'shards-asked') foreach @worker;
	release($c);
	stands($_, 'shards-asked') foreach @worker;
	arm($c, 'cluster-decides', migration => $id);
	between_answers($by eq 'both' ? ($from, $to) : ($to, $from), move_to($shard, $from, $to));
	stands($c, 'cluster-decides');
	is(value($c, "SELECT status FROM bbm_status('$table')"), 'running', "the other one moves, and is reported by $by: it is not finished");
	release($c);
	finishes($table, '... but when the shard is done');
	works($from, 'on');
}

# engine/cluster.c: the coordinator locks all shards, and waits for one that is being moved, say, while another one is split.
# Citus then does not find that, which is no reason to fail; nor is it when nobody can say just then whether shards have moved.
for my $cancelled (0, 1)
{
	my $table = $cancelled ? 'split_unsaid' : 'split_next';
	my $id = half_done($table);
	value($c, "SELECT bbm_pause('$table', wait => true)");
	ends_well(split_first($table), 'a shard is split');
	setting('bbm.lock_timeout', '1min', $c);
	arm($c, 'parts-begin', migration => $id);
	start_migration($c, $table);
	stands($c, 'parts-begin');
	my ($first, $next) = map { $_->[0] } shards_of($table);
	my $mover = $c->background_psql('postgres', on_error_die => 1);
	$mover->query_safe($_) foreach 'BEGIN', "SELECT lock_shard_metadata(7, ARRAY[$first])";
	release($c);
	waits_for_lock($c, 'bbm worker', '... and while the record gets the parts, the coordinator waits for another one');
	value($c, split_in_half($next));
	arm($c, 'shards-compare', migration => $id) if $cancelled;
	$mover->query_safe('COMMIT');
	$mover->quit;
	value($c, 'SELECT pg_cancel_backend(' . (stands($c, 'shards-compare'))[0] . ')') if $cancelled;
	record_complete($table, $id, '... and a third one is split meanwhile: the record gets all parts');
	finishes($table, '... of a migration that goes on');
	setting('bbm.lock_timeout', '1s', $c);
}

# catalog/shard_records.c: a shard that is not done is split while the record is completed after another split.  Both have left
# an empty part, which counts as done, as no value is known that belongs there.
{
	my $table = 'empty_parts';
	$c->safe_psql('postgres', <<"EOS");
SET citus.shard_count = 2;
CREATE TABLE $table (id inet PRIMARY KEY, n integer NOT NULL DEFAULT 0);
SELECT create_distributed_table('$table', 'id', colocate_with => 'none');
INSERT INTO $table SELECT '10.0.0.0'::inet + i FROM generate_series(1, 200) i;
EOS
	my ($open, $done) = shards_of($table);
	my ($late) = grep { $_->port == $open->[3] } @worker;
	works($late, 'off');
	no_workers($late);
	my $id = define_migration($table);
	start_migration($c, $table);
	ok($c->poll_query_until('postgres', "SELECT count(*) = 1 FROM bbm_internal.bbm_shards_$id WHERE kind = 'shard' AND state = 'finished'"), 'one of two shards is done');
	split_empty($table, $done->[0]);
	ok($c->poll_query_until('postgres', "SELECT count(*) = 3 AND count(*) FILTER (WHERE status = 'finished') = 1 FROM bbm_jobs('$table')"), '... and then a part of it');
	arm($c, 'parts-begin', migration => $id);
	stands($c, 'parts-begin');
	split_empty($table, $open->[0]);
	arm($c, 'cluster-decides', migration => $id);
	release($c, 'parts-begin');
	stands($c, 'cluster-decides');
	# the next check, if there is one
	arm($c, 'cluster-reported', migration => $id);
	release($c, 'cluster-decides');
	ok($c->poll_query_until('postgres', "SELECT cardinality(point.standing('cluster-reported')) > 0 OR EXISTS (SELECT FROM bbm_status('$table') WHERE status = 'finished')"), 'the other one is split while the record gets the parts of the first');
	is(value($c, "SELECT status FROM bbm_status('$table')"), 'running', '... and is not taken for done');
	release($c);
	works($late, 'on');
	is(value($c, "SELECT bbm_wait('$table', '3 min')"), 'finished', '... but finished when it is');
	once($table, 200, '... with every row once');
}

# catalog/shard_records.c: another split of the same shard while the record is completed after the first one.
for my $point ('parts-begin', 'parts-listed', 'parts-copied')
{
	my $table = 'again_' . $point =~ s/-/_/r;
	my $id = half_done($table);
	value($c, "SELECT bbm_pause('$table', wait => true)");
	my $done = value($c, "SELECT count(*) FROM $table WHERE n = 1");
	ends_well(split_first($table), "$point: a shard is split");
	arm($c, $point, migration => $id);
	start_migration($c, $table);
	stands($c, $point);
	my $again = split_first($table);
	# it ends, or waits for the coordinator's lock
	if ($point eq 'parts-begin')
	{
		ends_well($again, "$point: a part of it is split again");
		release($c);
	}
	else
	{
		BbmPoints::ended_or_waits($c, $again);
		release($c);
		ends_well($again, "$point: a part of it is split again");
	}
	record_complete($table, $id, '... and the record has all parts, and none that is not there');
	cmp_ok($done, '<', 400, '... of a table that was not done');
	finishes($table, $point);
}

# ... what is quarantined is tried again meanwhile: the parts are not left out.
{
	my $table = 'retried_parts';
	my $id = quarantines($table);
	value($c, "SELECT bbm_pause('$table', wait => true)");
	value($c, "UPDATE $table SET pad = ''");
	ends_well(split_first($table), 'a shard that has such a row is split');
	arm($c, 'parts-copied', migration => $id);
	start_migration($c, $table);
	stands($c, 'parts-copied');
	my $retry = background($c, 'postgres', q(SET application_name = 'act'), "SELECT bbm_retry('$table')");
	BbmPoints::ended_or_waits($c, $retry);
	release($c);
	ends_well($retry, '... they are tried again while its parts are given the record');
	finishes($table, '... of all shards');
}

# ... a node takes its shards up between the two statements of a drop.
{
	my $id = half_done('dropped');
	arm($c, 'drop-ended');
	my $drop = background($c, 'postgres', q(SELECT bbm_drop('dropped')));
	stands($c, 'drop-ended');
	# as the coordinator would ask
	value($_, "SELECT bbm_internal.bbm_shards_sync('bbm_internal.bbm_shards_$id', 'public.dropped', 'go on')") foreach @worker;
	ok($_->poll_query_until('postgres', q(SELECT count(*) > 0 FROM batched_background_migrations)), 'a node takes its shards up while they are dropped') foreach @worker;
	release($c);
	ends_well($drop, '... which is done');
	rate(0);
	ok($_->poll_query_until('postgres', q(SELECT count(*) = 0 FROM batched_background_migrations)), '... and ends by itself on the node') foreach @worker;
	is(value($c, q(SELECT count(*) FROM dropped WHERE n > 1)), 0, '... and no row was done twice');
}

# engine/batch.c: what was quarantined is tried again before the next range; a node crashes in between.
{
	my $table = 'in_order';
	table($table, 200, 1);
	value($c, "UPDATE $table SET pad = 'bad' WHERE id IN (3, 7)");
	value($c, "SELECT bbm_update('$table', '$table', 'n = n + 1 / CASE WHEN pad = ''bad'' THEN 0 ELSE 1 END', batch_size => 10, max_attempts => 1, on_error => 'split')");
	rate(10);
	start_migration($c, $table);
	ok($c->poll_query_until('postgres', "SELECT coalesce(sum(count), 0) = 2 FROM bbm_errors('$table')"), 'two rows of one shard are quarantined');
	works($_, 'off') foreach @worker;
	no_workers($_) foreach @worker;
	cmp_ok(value($c, "SELECT count(*) FROM $table WHERE n = 1"), '<', 150, '... and most others are not done yet');
	value($c, "UPDATE $table SET pad = ''");
	# a crash is an attempt
	value($c, "SELECT bbm_alter('$table', max_attempts => 5)");
	is(value($c, "SELECT bbm_retry('$table')"), 2, '... when they are to be tried again');
	my $port = (shards_of($table))[0][3];
	my ($home) = grep { $_->port == $port } @worker;
	claims_along($home, 0);
	arm($home, 'batch-begin', passes => 1);
	rate(0);
	works($home, 'on');
	stands($home, 'batch-begin');
	# what is committed is to survive
	value($home, 'CHECKPOINT');
	works($home, 'off');
	$home->stop('immediate');
	$home->start;
	claims_along($home, 0);
	works($_, 'on') foreach @worker;
	is(value($c, "SELECT bbm_wait('$table', '3 min')"), 'finished', 'the node crashes when one of them is done, and finishes');
	once($table, 200, '... with every row once');
}

# catalog/shard_control.c: a pause writes the rows of each shard, as a node does not answer; a shard moves while the others say
# which they have, and is said by none.  (The last one here: the node has lost its record.)
{
	my $table = 'paused_moving';
	my $property = sprintf q(SELECT citus_set_node_property('%s', %d, 'shouldhaveshards', true)), $c->host, $c->port;
	my ($from, $lost) = @worker;
	value($c, $property);
	rate(2);
	table($table, 600, 3);
	my $id = define_migration($table);
	start_migration($c, $table);
	ok($_->poll_query_until('postgres', q(SELECT count(*) > 0 FROM batched_background_migrations WHERE shard_id <> 0 AND status = 4)), 'each node is at work on a shard') foreach @node;
	$lost->safe_psql('postgres', 'SET citus.enable_ddl_propagation = off; DROP EXTENSION bbm CASCADE');
	# nobody else asks
	works($c, 'off');
	no_workers($c);
	my ($shard) = map { $_->[0] } grep { $_->[3] == $from->port } shards_of($table);
	arm($_, 'shards-asked') foreach $c, $from;
	my $pause = background($c, 'postgres', q(SET application_name = 'act'), "SELECT bbm_pause('$table')");
	between_answers($c, $from, move_to($shard, $from, $c));
	like((finish_background($pause))[1], qr/^WARNING:  migration "$table" is paused on 1 of 2 nodes\n/, '... a pause is not for the node that has lost its record');
	my $active = sprintf q(run_command_on_shards('bbm_internal.bbm_shards_%d', $q$SELECT count(*) FROM %%s WHERE kind = 'control' AND active$q$)), $id;
	is(value($c, "SELECT count(*), sum(result::integer) FROM $active WHERE success"), '2|0', '... but for each shard of the others, also the one that has moved');
	ok($from->poll_query_until('postgres', q(SELECT count(*) = 0 FROM batched_background_migrations WHERE status IN (1, 4))), '... none of which goes on');
}

log_clean($_) foreach @node;
done_testing();
