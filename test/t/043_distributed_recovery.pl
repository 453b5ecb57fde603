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

# ---- shards are paused in the record, and the migration is not: as after a crash of the coordinator that a pause has survived on one node alone

sub pause_record
{
	my ($name) = @_;
	value($c, 'UPDATE ' . of_migration('shard_record', $name) . q( SET active = false WHERE kind = 'control'));
	return;
}

table('held', 400, 4);
rate(2);
value($c, q(SELECT bbm_update('held', 'held', 'n = n + 1', batch_size => 2, start => true)));
ok($_->poll_query_until('postgres', q(SELECT count(*) > 0 FROM batched_background_migrations WHERE status = 4)), 'it is at work on ' . $_->name) foreach @worker;
pause_record('held');
rate(0);
ends('held', 'finished', 'shards that are paused, and not with the whole, go on');
once('held', 400, '... with every row once');
value($c, q(SELECT bbm_drop('held')));
# ... and one that is started after a failure gets its fresh attempts when they do
table('held_failed', 400, 4);
value($c, q(UPDATE held_failed SET pad = 'bad' WHERE id = 77));
define_picky('held_failed', ', start => true');
ends('held_failed', 'failed', 'one has failed');
value($c, q(UPDATE held_failed SET pad = ''));
works($c, 'off');
ok(workers_gone($c), 'nobody works on the coordinator');
value($c, q(SELECT bbm_start('held_failed')));
pause_record('held_failed');
works($c, 'on');
ends('held_failed', 'finished', '... and is finished, though its shards could not be started at first');
once('held_failed', 400, '... with every row once');
value($c, q(SELECT bbm_drop('held_failed')));

# ---- a distribution column whose name has a percent sign

$c->safe_psql('postgres', <<'EOS');
SET citus.shard_count = 4;
CREATE TABLE percents ("of 100%" boolean, id integer, n integer NOT NULL DEFAULT 0, PRIMARY KEY ("of 100%", id));
SELECT create_distributed_table('percents', 'of 100%', colocate_with => 'none');
INSERT INTO percents SELECT i % 2 = 0, i, 0 FROM generate_series(1, 400) i;
EOS
value($c, q(SELECT bbm_update('percents', 'percents', 'n = n + 1', batch_size => 100, start => true)));
ends('percents', 'finished', 'a row shows what belongs into a shard, whatever the column is called');
once('percents', 400, '... with every row once');
value($c, q(SELECT bbm_drop('percents')));

# ---- the coordinator crashes when it has committed, and the nodes have only prepared to: they learn of it when Citus recovers that

my @gate;

# From now on the coordinator's commits wait for a standby that does not exist, when its nodes have prepared theirs.
sub hold_commits
{
	setting('synchronous_standby_names', q('nobody'), $c);
	# in force as soon as a commit waits
	for (1 .. $PostgreSQL::Test::Utils::timeout_default)
	{
		push @gate, background($c, 'postgres', q(SET application_name = 'gate'), q(SELECT pg_logical_emit_message(true, 'gate', 'x')));
		for (1 .. 20)
		{
			usleep(50_000);
			return if value($c, q(SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gate' AND wait_event = 'SyncRep')) > 0;
		}
	}
	BAIL_OUT('no commit waits for a standby');
}

# A commit of such a session waits: the coordinator crashes, and comes back.
sub crash_in_commit
{
	my ($who, $what) = @_;
	ok($c->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_stat_activity WHERE $who AND wait_event = 'SyncRep'"), "the coordinator has committed: $what");
	ok(scalar(grep { value($_, 'SELECT count(*) FROM pg_prepared_xacts') > 0 } @worker), '... and nodes have prepared it when it crashes');
	$c->stop('immediate');
	finish_background($_) foreach splice @gate;
	$c->append_conf('postgresql.conf', q(synchronous_standby_names = ''));
	$c->start;
	return;
}

sub commits_half
{
	my ($sql) = @_;
	hold_commits();
	my $p = background($c, 'postgres', q(SET application_name = 'act'), $sql);
	crash_in_commit(q(application_name = 'act'), $sql);
	finish_background($p);
	return;
}

sub recover
{
	return cmp_ok(value($c, 'SELECT recover_prepared_transactions()'), '>', 0, '... until Citus recovers that');
}

# Somebody waits for what a node has prepared; or the statement (if it is one) has ended.
sub node_waits
{
	my ($p) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 0 if $p && !($p->{run}->pumpable && eval { $p->{run}->pump_nb; $p->{run}->pumpable });
		return 1 if grep { value($_, q(SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%bbm_shards_%')) > 0 } @worker;
		usleep(100_000);
	}
	BAIL_OUT('a statement neither ends nor waits');
}

# The statement comes before the nodes know of what was committed.
sub waits_and_is_last
{
	my ($sql, $active) = @_;
	my $p = background($c, 'postgres', q(SET application_name = 'act'), $sql);
	ok(node_waits($p), "$sql waits for the nodes");
	recover();
	unlike((finish_background($p))[1], qr/ERROR/, '... and is done');
	return is(value($c, 'SELECT count(*) FROM ' . of_migration('shard_record', 'half_told') . q( WHERE kind = 'control' AND active)), $active, '... and is the last word on all nodes');
}

setting('citus.recover_2pc_interval', '-1', $c);

# what is quarantined is to be tried again
table('half_retried', 400, 4);
value($c, q(UPDATE half_retried SET pad = 'bad' WHERE id IN (SELECT min(id) FROM half_retried GROUP BY get_shard_id_for_distribution_column('half_retried', id))));
define_picky('half_retried', q(, on_error => 'split', start => true));
ends('half_retried', 'finished, 4 rows quarantined', 'rows are quarantined');
value($c, q(UPDATE half_retried SET pad = ''));
commits_half(q(SELECT bbm_retry('half_retried')));
ends('half_retried', 'finished, 4 rows quarantined', 'no node knows that they are to be tried again');
recover();
is(value($c, q(SELECT bbm_retry('half_retried'))), 4, '... and then they are');
ends('half_retried', 'finished$', '... and are done');
once('half_retried', 400, '... with every row once');
value($c, q(SELECT bbm_drop('half_retried')));

# a start, and then a pause; and the other way round; nobody else tells the nodes
table('half_told', 400, 4);
rate(2);
value($c, q(SELECT bbm_update('half_told', 'half_told', 'n = n + 1', batch_size => 2)));
works($c, 'off');
commits_half(q(SELECT bbm_start('half_told')));
is(value($c, q(SELECT status FROM bbm_status('half_told'))), 'active', '... which says that it is started');
waits_and_is_last(q(SELECT bbm_pause('half_told')), 0);
works($c, 'on');
value($c, q(SELECT bbm_start('half_told')));
ok($_->poll_query_until('postgres', q(SELECT count(*) > 0 FROM batched_background_migrations WHERE status = 4)), 'it is at work on ' . $_->name) foreach @worker;
works($c, 'off');
ok(workers_gone($c), 'nobody works on the coordinator');
commits_half(q(SELECT bbm_pause('half_told')));
is(value($c, q(SELECT status FROM bbm_status('half_told'))), 'paused', '... which says that it is paused');
waits_and_is_last(q(SELECT bbm_start('half_told')), 4);
works($c, 'on');
rate(0);
ends('half_told', 'finished', 'it is finished');
once('half_told', 400, '... with every row once');
value($c, q(SELECT bbm_drop('half_told')));

# the record gets the parts of a shard that was split
table('half_split', 400, 4);
rate(2);
value($c, q(SELECT bbm_update('half_split', 'half_split', 'n = n + 1', batch_size => 2, start => true)));
ok($c->poll_query_until('postgres', q(SELECT count(*) > 0 FROM half_split WHERE n = 1)), 'some of it is done');
works($c, 'off');
ok(workers_gone($c), 'nobody works on the coordinator');
split_shard('half_split', 'block_writes');
hold_commits();
works($c, 'on');
crash_in_commit(q(backend_type = 'bbm worker'), 'the record of a shard that was split');
ok(node_waits(), 'it comes back and does that again');
recover();
rate(0);
ends('half_split', 'finished', 'it is finished');
is(value($c, q(SELECT count(*) FROM bbm_events WHERE name = 'half_split' AND event = 'failed')), 0, '... and did not fail');
once('half_split', 400, '... with every row once');
value($c, q(SELECT bbm_drop('half_split')));

# one is defined, or dropped
table('half_defined', 400, 4);
commits_half(q(SELECT bbm_update('half_defined', 'half_defined', 'n = n + 1', batch_size => 100, start => true)));
is(value($c, q(SELECT status IN ('active', 'running') FROM bbm_status('half_defined'))), 't', '... which has it');
recover();
ends('half_defined', 'finished', 'it is finished');
once('half_defined', 400, '... with every row once');
commits_half(q(SELECT bbm_drop('half_defined')));
is(value($c, q(SELECT count(*) FROM batched_background_migrations)), 0, '... which does not have it any more');
recover();
is(value($_, q(SELECT count(*) FROM pg_class WHERE relname ~ '^bbm_shards_')), 0, 'nothing of it is left on ' . $_->name) foreach @node;

# A node is away while the others are asked to start again what has failed: what had failed there is not news.
{
	my $table = 'started_late';
	table($table, 400, 2);
	my ($shard, undef, undef, $port) = @{ (shards_of($table))[0] };
	my ($away) = grep { $_->port == $port } @worker;
	value($c, "UPDATE $table SET pad = 'bad' WHERE id = (SELECT min(id) FROM $table WHERE get_shard_id_for_distribution_column('$table', id) = $shard)");
	define_picky($table, ', start => true');
	ends($table, 'failed', 'a row cannot be done');
	value($c, "UPDATE $table SET pad = ''");
	works($c, 'off');
	no_workers($c);
	value($c, "SELECT bbm_start('$table')");
	$away->stop('fast');
	works($c, 'on');
	ok($c->poll_query_until('postgres', "SELECT waiting_on LIKE '1 of % nodes that do not answer%' FROM bbm_status_detail('$table')"), '... the row is corrected, and its node away when the nodes are asked to start');
	$away->start;
	ends($table, 'finished', '... it is back, and starts, too');
	is(value($c, "SELECT count(*) FROM bbm_events WHERE name = '$table' AND event = 'failed'"), 1, '... and fails nothing once more');
	once($table, 400, '... with every row once');
	value($c, "SELECT bbm_drop('$table')");
}

foreach my $each (@node)
{
	is(value($each, q(SELECT count(*) FROM batched_background_migrations)), 0, 'nothing is left on ' . $each->name);
	$each->stop;
}
done_testing();
