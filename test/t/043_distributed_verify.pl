# Distributed tables (Citus): verification, by each node of its shards; bounds of the key; a node
# that has lost the extension.  Skipped where the server does not offer the extension citus.

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

# rows of which some are left as they are
sub stubborn
{
	my ($table, $rows, $shards, $bad) = @_;
	table($table, $rows, $shards);
	value($c, "UPDATE $table SET pad = 'bad' WHERE $bad");
	return;
}

my $set = q('n = CASE WHEN pad = ''bad'' THEN n ELSE n + 1 END');

sub of_migration
{
	my ($column, $name) = @_;
	return value($c, "SELECT $column FROM batched_background_migrations WHERE name = '$name'");
}

sub finishes
{
	my ($name, $what) = @_;
	is(value($c, "SELECT bbm_wait('$name', '3 min')"), 'finished', $what);
	return;
}

# ---- by the filter: what is left in all shards is one failure, and one start does it

stubborn('left_over', 3000, 4, 'id % 300 = 7');
value($c, qq(SELECT bbm_update('left', 'left_over', $set, 'n = 0', batch_size => 100, "verify" => true, start => true)));
is(value($c, q(SELECT bbm_wait('left', '3 min'))), 'failed', 'rows that are left fail it');
is(of_migration('error_message, error_sqlstate', 'left'), 'verification found 10 rows that are not as they should be|23514', '... with their number in all shards');
my $shards_left = value($c, q(SELECT count(DISTINCT get_shard_id_for_distribution_column('left_over', id)) FROM left_over WHERE n = 0));
is(of_migration('error_detail, error_hint', 'left'), qq(They are in $shards_left of 4 shards. They still meet "filter": n = 0|Start the migration again: they are done, and it is verified anew.), '... and what to do');
is(value($c, q(SELECT bbm_verify('left'))), 10, '... which is what Citus counts');
is(value($c, q(SELECT count(*) FILTER (WHERE n = 1) FROM left_over)), 2990, '... and the others are done once');
value($c, q(UPDATE left_over SET pad = '' WHERE pad = 'bad'));
value($c, q(SELECT bbm_start('left')));
finishes('left', 'started again, it is finished');
once('left_over', 3000, '... with every row once');
is(value($c, q(SELECT count(*) FROM bbm_events WHERE name = 'left' AND event = 'failed')), 1, '... and has failed once');
is(value($c, q(SELECT rows_done FROM bbm_status('left'))), 3000 + 10, '... where rows that were left count twice, as in any migration');
value($c, q(SELECT bbm_drop('left')));

# ---- by a check; rows that come later are verified as well

stubborn('checked', 2000, 4, 'false');
rate(60);
value($c, q(SELECT bbm_update('checked', 'checked', 'n = n + 1', batch_size => 20, row_check => 'checked.n = 1', "verify" => true, start => true)));
ok($c->poll_query_until('postgres', q(SELECT count(*) > 60 FROM checked WHERE n = 1)), 'one with a check is at work');
value($c, q(INSERT INTO checked SELECT i, 0 FROM generate_series(5001, 5040) i));
move('checked', 'force_logical');
split_shard('checked', 'block_writes');
rate(0);
is(value($c, q(SELECT bbm_wait('checked', '3 min'))), 'failed', 'rows that have come are not as they should be');
is(of_migration('error_message', 'checked'), 'verification found 40 rows that are not as they should be', '... and were found');
like(of_migration('error_detail', 'checked'), qr/^They are in \d of 5 shards\. They do not meet the check: checked\.n = 1$/, '... by the check');
value($c, q(SELECT bbm_retry('checked')));
finishes('checked', 'tried again, it is finished');
once('checked', 2040, '... with every row once');
value($c, q(SELECT bbm_drop('checked')));

# ---- a shard moves while it is verified, and while what was found is done

$c->safe_psql('postgres', <<'EOS');
CREATE FUNCTION gated(n integer) RETURNS boolean STABLE LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(81);
	RETURN n = 1;
END $$;
EOS
stubborn('moved', 400, 1, 'id % 2 = 0');
my $home_of = q(SELECT nodeport FROM pg_dist_placement p JOIN pg_dist_shard USING (shardid) JOIN pg_dist_node USING (groupid) WHERE logicalrelid = 'moved'::regclass);
my @gate = map { $_->background_psql('postgres') } @worker;
$_->query_safe('SELECT pg_advisory_lock(81)') foreach @gate;
value($c, qq(SELECT bbm_update('moved', 'moved', $set, 'n = 0', batch_size => 20, row_check => 'gated(n)', "verify" => true,
	settings => '{bbm.lock_timeout=10min,bbm.max_blocking_time=10min}', start => true)));
my ($node) = grep { $_->port == value($c, $home_of) } @worker;
ok($node->poll_query_until('postgres', q(SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 81 AND NOT granted)), 'a shard is being verified');
my $mover = background($c, 'postgres', move_statement('moved', 'block_writes'));
$_->quit foreach @gate;
finish_background($mover);
isnt(value($c, $home_of), $node->port, '... and moves');
is(value($c, q(SELECT bbm_wait('moved', '3 min'))), 'failed', '... and is verified');
is(of_migration('error_message', 'moved'), 'verification found 200 rows that are not as they should be', '... as a whole');
value($c, q(UPDATE moved SET pad = '' WHERE pad = 'bad'));
rate(20);
value($c, q(SELECT bbm_start('moved')));
my $repaired = q(SELECT count(*) FROM moved WHERE n = 1 AND id % 2 = 0);
ok($c->poll_query_until('postgres', "SELECT ($repaired) > 10"), 'what was found is being done');
move('moved', 'block_writes');
cmp_ok(value($c, $repaired), '<', 200, '... when the shard moves');
my $now = value($c, $repaired);
ok($c->poll_query_until('postgres', "SELECT ($repaired) > $now"), '... and goes on where it is then');
split_shard('moved', 'block_writes');
$worker[0]->stop('immediate');
$worker[0]->start;
rate(0);
finishes('moved', 'it is finished, without another failure');
is(value($c, q(SELECT count(*) FROM bbm_events WHERE name = 'moved' AND event = 'failed')), 1, '... as its events say');
once('moved', 400, '... with every row once');
value($c, q(SELECT bbm_drop('moved')));

# ---- what is quarantined is tried again when verification has failed: what it has found is done, too

stubborn('twofold', 400, 2, 'id % 100 = 7');
value($c, q(UPDATE twofold SET pad = 'worse' WHERE id % 100 = 8));
value($c, q(SELECT bbm_update('twofold', 'twofold', 'n = CASE WHEN pad = ''bad'' THEN n WHEN pad = ''worse'' THEN 1 / n ELSE n + 1 END', 'n = 0', batch_size => 20, max_attempts => 1, on_error => 'split', "verify" => true, start => true)));
is(value($c, q(SELECT bbm_wait('twofold', '3 min'))), 'failed', 'rows are left, and rows are quarantined');
like(of_migration('error_message', 'twofold'), qr/^verification found/, '... which verification finds');
value($c, q(UPDATE twofold SET pad = '' WHERE pad IN ('bad', 'worse')));
cmp_ok(value($c, q(SELECT bbm_retry('twofold'))), '>', 0, 'tried again');
finishes('twofold', '... it is finished');
once('twofold', 400, '... with every row once');
is(value($c, qq(SELECT bool_or(repairs) FROM ) . of_migration('shard_record', 'twofold') . q( WHERE kind = 'shard')), 'f', '... and the next verification reports what it finds');
value($c, q(SELECT bbm_drop('twofold')));

# ---- a failure that is not verification's is the one to be shown

stubborn('causes', 400, 2, 'false');
my ($first, $second) = map { $_->[0] } shards_of('causes');
my $in = q{get_shard_id_for_distribution_column('causes', id)};
value($c, qq(UPDATE causes SET pad = 'bad' WHERE id IN (SELECT min(id) FROM causes WHERE $in = $first)));
value($c, qq(UPDATE causes SET pad = 'worse' WHERE id IN (SELECT max(id) FROM causes WHERE $in = $second)));
my $locker = $c->background_psql('postgres');
$locker->query_safe(qq(BEGIN; UPDATE causes SET n = n WHERE id = (SELECT min(id) FROM causes WHERE $in = $second)));
value($c, q(SELECT bbm_update('causes', 'causes', 'n = CASE WHEN pad = ''bad'' THEN n WHEN pad = ''worse'' THEN 1 / n ELSE n + 1 END', 'n = 0', batch_size => 20, max_attempts => 1, "verify" => true, start => true)));
ok($c->poll_query_until('postgres', q(SELECT waiting_on LIKE '%1 verified and not right%' FROM bbm_status_detail('causes'))), 'a shard is not right, the other one is at work');
$locker->quit;
is(value($c, q(SELECT bbm_wait('causes', '3 min'))), 'failed', '... and fails');
is(of_migration('error_message', 'causes'), 'division by zero', '... by what its status says');
value($c, q(SELECT bbm_drop('causes')));

# ---- somebody has changed the record: an error, and no crash

stubborn('spoilt', 100, 2, 'false');
value($c, q(SELECT bbm_update('spoilt', 'spoilt', 'n = n + 1', batch_size => 20)));
my $record = of_migration('shard_record', 'spoilt');
my $sync = "SELECT bbm_internal.bbm_shards_sync('$record', 'public.spoilt', 'go on')";
foreach (q(definition = definition - 'name', active = true), q(definition = NULL, active = true), q(definition = definition - 'min_found', active = NULL))
{
	value($c, "UPDATE $record SET $_ WHERE kind = 'control'");
	my $said = value($worker[0], $sync);
	like($said, /NULL$/ ? qr/"state": "waiting"/ : qr/"state": "failed".*"error": "the record of shard \d+ does not have .{1,2}(?:name|definition).{2,3}.*"sqlstate": "22004"/, "a node says that somebody has changed its record: $_") or diag($said);
}
value($c, q(SELECT bbm_alter('spoilt', batch_size => 10)));
value($c, q(SELECT bbm_start('spoilt')));
finishes('spoilt', 'bbm_alter has written it again');
once('spoilt', 100, '... and every row is done once');
value($c, q(SELECT bbm_drop('spoilt')));

# ---- what no node can tell by itself

$c->safe_psql('postgres', 'CREATE TABLE names (id bigint PRIMARY KEY); SELECT create_reference_table(\'names\'); INSERT INTO names SELECT i FROM generate_series(1, 10) i');
my $reads = qr/cannot run batches over distributed table "public\.checked".*which reads table "public\.names".*HINT:  Call bbm_verify/s;
refuses(q(SELECT bbm_update('x', 'checked', 'n = 3', 'id IN (SELECT id FROM names)', "verify" => true)), $reads, 'verification by a filter that reads a table');
refuses(q(SELECT bbm_update('x', 'checked', 'n = 3', row_check => 'id IN (SELECT id FROM names)', "verify" => true)), $reads, '... or by such a check');
refuses(q(SELECT bbm_update('x', 'checked', 'n = 3', row_check => 'nope = 3', "verify" => true)), qr/column "nope" does not exist/, '... or by a column that is not there');
# ... but what is set may come from one
value($c, q(SELECT bbm_update('reads', 'checked', 'n = (SELECT count(*) FROM names)', 'n <> 10', batch_size => 500, "verify" => true, start => true)));
finishes('reads', 'verification where the statement reads a table');
is(value($c, q(SELECT count(*) FILTER (WHERE n = 10), count(*) FROM checked)), '2040|2040', '... is done');
value($c, q(SELECT bbm_drop('reads')));
value($c, q(SELECT bbm_update('joins', 'checked', 'n = 11 FROM names WHERE names.id = checked.id', 'n <> 11', batch_size => 500, "verify" => true, start => true)));
finishes('joins', '... or joins it, and rows without a partner are not meant');
is(value($c, q(SELECT count(*) FROM checked WHERE n = 11)), '10', '... and are left');
value($c, q(SELECT bbm_drop('joins')));

# ---- bounds

stubborn('bounded', 3000, 4, 'false');
rate(60);
value($c, q(SELECT bbm_update('bounded', 'bounded', 'n = n + 1', 'n = 0', batch_size => 20, min_value => 501, max_value => 1500, "verify" => true, start => true)));
ok($c->poll_query_until('postgres', q(SELECT count(*) > 60 FROM bounded WHERE n = 1)), 'one with bounds is at work');
move('bounded', 'force_logical');
split_shard('bounded', 'block_writes');
rate(0);
finishes('bounded', 'it is finished, and verified in its range alone');
is(value($c, q(SELECT count(*) FILTER (WHERE n = 1), min(id) FILTER (WHERE n = 1), max(id) FILTER (WHERE n = 1), sum(n) FROM bounded)), '1000|501|1500|1000', '... with every row of it once, and no other');
is(value($c, q(SELECT rows_done, percent FROM bbm_status('bounded'))), '1000|100.0', '... as its status says');
is(value($c, q(SELECT bbm_verify('bounded', 'n = 5'))), 1000, '... which is what is counted');
value($c, q(SELECT bbm_drop('bounded')));
value($c, q(SELECT bbm_update('bounded', 'bounded', 'n = n + 1', 'n = 0', batch_size => 100, min_value => 2901, start => true)));
finishes('bounded', 'a lower bound alone');
is(value($c, q(SELECT sum(n) FROM bounded)), 1100, '... is one');
value($c, q(SELECT bbm_drop('bounded')));
value($c, q(SELECT bbm_update('bounded', 'bounded', 'n = n + 1', 'n = 0', batch_size => 100, max_value => 100, start => true)));
finishes('bounded', 'an upper bound alone');
is(value($c, q(SELECT sum(n) FROM bounded)), 1200, '... is one');
value($c, q(SELECT bbm_drop('bounded')));
value($c, q(SELECT bbm_update('bounded', 'bounded', 'n = n + 1', min_value => 1000001, start => true)));
finishes('bounded', 'one above all rows');
is(value($c, q(SELECT sum(n) FROM bounded)), 1200, '... does nothing');
value($c, q(SELECT bbm_drop('bounded')));
$c->safe_psql('postgres', <<'EOS');
SET citus.shard_count = 4;
CREATE TABLE by_text (id text PRIMARY KEY, n integer NOT NULL DEFAULT 0);
SELECT create_distributed_table('by_text', 'id', colocate_with => 'none');
INSERT INTO by_text SELECT to_char(i, 'FM0000') FROM generate_series(1, 1000) i;
EOS
refuses(q(SELECT bbm_update('x', 'by_text', 'n = 1', min_value => 5)), qr/min_value or max_value does not fit the batching key.*HINT:  Give min_key/s, 'a bound of another kind of key');
refuses(q(SELECT bbm_update('x', 'bounded', 'n = 1', min_key => '{5}')), qr/min_key or max_key does not fit the batching key/, '... either way');
refuses(q(SELECT bbm_update('x', 'bounded', 'n = 1', min_value => 5, max_value => 4)), qr/min_value|max_value/, '... or bounds in the wrong order');
value($c, q(SELECT bbm_update('by text', 'by_text', 'n = n + 1', min_key => '{0101}', max_key => '{0200}', batch_size => 10, start => true)));
finishes('by text', 'a key of another type');
is(value($c, q(SELECT count(*), min(id), max(id), max(n) FROM by_text WHERE n > 0)), '100|0101|0200|1', '... has its bounds as well');
is(value($c, q(SELECT bbm_verify('by text', 'n = 5'))), 100, '... also when it is counted');
value($c, q(SELECT bbm_drop('by text')));

# ---- a node has lost the extension

table('lost', 4000, 4);
rate(2);
value($c, q(SELECT bbm_update('lost', 'lost', 'n = n + 1', batch_size => 2, start => true)));
ok($_->poll_query_until('postgres', q(SELECT count(*) > 0 FROM batched_background_migrations WHERE status = 4)), 'one is at work') foreach @worker;
$worker[1]->safe_psql('postgres', 'SET citus.enable_ddl_propagation = off; DROP EXTENSION bbm CASCADE');
my $of_lost = $worker[1]->host . ':' . $worker[1]->port;
ok($c->poll_query_until('postgres', qq{SELECT waiting_on LIKE '1 of % nodes that do not answer (node $of_lost: %' FROM bbm_status_detail('lost')}), 'the status names a node that has lost the extension');
my $gone = qr/DETAIL:  .*node \Q$of_lost\E: the record of what is done in its shards is gone, with the extension bbm\.\nHINT:  What was done in its shards is not known any more\. Create the extension there/s;
refuses(qq(\\set VERBOSITY verbose\nSELECT $_), qr/ERROR:  55000: cannot \w+ migration "lost" on every node.*$gone/s, "... and so does $_")
  foreach (q(bbm_pause('lost', wait => true)), q(bbm_cancel('lost')), q(bbm_alter('lost', batch_size => 3)));
# created again, it has no record
$worker[1]->safe_psql('postgres', 'SET citus.enable_ddl_propagation = off; CREATE EXTENSION bbm');
ok($c->poll_query_until('postgres', qq{SELECT waiting_on LIKE '1 of % nodes that do not answer (node $of_lost: the record of what is done in its shards is gone%' FROM bbm_status_detail('lost')}), '... also when it was created again');
my ($rc, $out, $err) = $c->psql('postgres', q(SELECT bbm_pause('lost')));
ok($rc == 0 && $err =~ /WARNING:  migration "lost" is paused on 1 of 2 nodes\nDETAIL:  .*node \Q$of_lost\E: /, 'a pause is for the other one') or diag("$rc: $out; $err");
ok($worker[0]->poll_query_until('postgres', q(SELECT count(*) = 0 FROM batched_background_migrations WHERE status IN (1, 4))), '... which is paused');
refuses(qq(\\set VERBOSITY verbose\nSELECT bbm_start('lost')), qr/ERROR:  55000: cannot start migration "lost" on every node.*$gone/s, 'it cannot be started');
is(value($c, q(SELECT status FROM bbm_status('lost'))), 'paused', '... and stays paused');
refuses(q(SELECT bbm_start('lost')), qr/cannot start migration "lost" on every node.*$gone/s, 'the extension alone is not enough');
is(value($c, q(SELECT bbm_drop('lost'))), 't', 'it can be dropped');
value($c, q(SELECT bbm_update('rest', 'lost', 'n = n + 1', 'n = 0', batch_size => 500, settings => '{bbm.max_row_rate=0}', start => true)));
finishes('rest', '... and another one does the rest');
once('lost', 4000, '... with every row once');
value($c, q(SELECT bbm_drop('rest')));

# ---- a node cannot take a shard up just now: it waits

rate(0);
table('taken', 400, 2);
value($c, q(SELECT bbm_update('taken', 'taken', 'n = n + 1', batch_size => 100)));
my $of_record = value($c, q(SELECT shard_name(s.logicalrelid, s.shardid) FROM pg_dist_shard s JOIN pg_dist_placement p USING (shardid) JOIN pg_dist_node n USING (groupid)
	WHERE s.logicalrelid = (SELECT shard_record FROM batched_background_migrations WHERE name = 'taken')::regclass AND n.nodeport = ) . $worker[1]->port);
my $holder = $worker[1]->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT count(*) FROM (SELECT FROM $of_record WHERE kind = 'shard' FOR UPDATE) r");
value($c, q(SELECT bbm_start('taken')));
ok($c->poll_query_until('postgres', q(SELECT status = 'failed' OR waiting_on LIKE '%one waits for %lock timeout' FROM bbm_status_detail('taken'))), 'a node that waits for a lock says so');
is(value($c, q(SELECT status FROM bbm_status('taken'))), 'running', '... and fails nothing');
$holder->quit;
finishes('taken', '... and goes on without it');
once('taken', 400, '... with every row once');
value($c, q(SELECT bbm_drop('taken')));

foreach my $each (@node)
{
	is(value($each, q(SELECT count(*) FROM batched_background_migrations)), 0, 'nothing is left on ' . $each->name);
	$each->stop;
}
done_testing();
