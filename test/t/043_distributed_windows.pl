# Distributed tables (Citus): control between a split and the completion of the record, with a node that is down or does
# not answer at all; what is quarantined while verification's rows are done; nodes that lose what they need in mid-run.
# Skipped where the server does not offer the extension citus.

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
my ($one, $two) = @worker;
$c->safe_psql('postgres', 'CREATE EXTENSION bbm');
join_cluster();
my $nobody = q(SELECT count(*) = 0 FROM batched_background_migrations WHERE status IN (1, 4));
my $at_work = q(SELECT count(*) > 0 FROM batched_background_migrations WHERE status = 4);

sub of_migration
{
	my ($column, $name) = @_;
	return value($c, "SELECT $column FROM batched_background_migrations WHERE name = '$name'");
}

# a migration of the table, at work on both nodes
sub begin_on_both
{
	my ($table, $rate) = @_;
	rate($rate);
	value($c, "SELECT bbm_update('$table', '$table', 'n = n + 1', batch_size => 2, start => true)");
	ok($_->poll_query_until('postgres', $at_work), "$table is at work on node " . $_->name) foreach @worker;
	return;
}

sub finishes
{
	my ($name, $what) = @_;
	rate(0);
	return is(value($c, "SELECT bbm_wait('$name', '2 min')"), 'finished', $what);
}

# ---- a shard is split, and before the record has its parts somebody alters, pauses and starts the migration

table('windowed', 3000, 4);
begin_on_both('windowed', 2);
works($c, 'off');
ok(workers_gone($c), 'nobody works on the coordinator');
split_shard('windowed', 'block_writes') for 1 .. 2;
value($c, q(SELECT bbm_alter('windowed', batch_size => 7, new_name => 'altered window')));
is(value($c, q(SELECT bbm_pause('altered window', wait => true))), 1, 'a shard is split, and its record is not complete: a pause waits for all batches');
is(value($_, $nobody), 't', '... on a node') foreach @worker;
value($c, q(SELECT bbm_start('altered window')));
$two->stop('immediate');
my ($rc, undef, $said) = $c->psql('postgres', q(SELECT bbm_pause('altered window')));
ok($rc == 0 && $said =~ /WARNING:  migration "altered window" is paused on 1 of 2 nodes/, '... or is for the nodes that answer') or diag($said);
$two->start;
works($c, 'on');
ok($c->poll_query_until('postgres', q(SELECT unreached_nodes IS NULL FROM batched_background_migrations)), '... and for the other one when it is back');
ok($_->poll_query_until('postgres', $nobody), '... which pauses') foreach @worker;
is(value($c, sprintf(q(SELECT count(*) FROM bbm_internal.bbm_shards_%d WHERE active), of_migration('id', 'altered window'))), 0, '... and nothing is active any more');
value($c, q(SELECT bbm_start('altered window')));
ok($c->poll_query_until('postgres', q(SELECT count(*) = 6 AND min(status) <> 'unrecorded' FROM bbm_jobs('altered window'))), 'started, it has all parts');
ok($_->poll_query_until('postgres', q(SELECT count(*) > 0 AND bool_and(name LIKE 'altered window/%' AND batch_size = 7) FROM batched_background_migrations)), '... as altered') foreach @worker;
value($c, q(SELECT bbm_alter('altered window', batch_size => 500)));
finishes('altered window', '... and it is finished');
once('windowed', 3000, '... with every row once');
value($c, q(SELECT bbm_drop('altered window')));

# ---- a node accepts connections, and answers nothing

setting('citus.node_connection_timeout', "'2s'", $c);
table('frozen', 2000, 4);
begin_on_both('frozen', 2);
my $postmaster = $two->{_pid};
END { kill 'CONT', $postmaster if $postmaster }
kill 'STOP', $postmaster;
($rc, undef, $said) = $c->psql('postgres', q(SELECT bbm_pause('frozen')));
my $of_two = quotemeta($two->host . ':' . $two->port);
ok($rc == 0 && $said =~ /WARNING:  migration "frozen" is paused on 1 of 2 nodes\nDETAIL:  It may go on at the others: node $of_two: /, 'a node that does not answer is named by a pause') or diag($said);
ok($one->poll_query_until('postgres', $nobody), '... which is for the other one');
refuses(qq(SELECT $_), qr/cannot \w+ migration "frozen" on every node.*on 1 of 2 nodes, and nothing has changed on any; node $of_two: /s, "... and by $_")
  foreach (q(bbm_start('frozen')), q(bbm_alter('frozen', batch_size => 9)), q(bbm_pause('frozen', wait => true)));
refuses(q(SELECT bbm_drop('frozen')), qr/cannot drop migration "frozen" on every node.*on 2 of 3 nodes, and nothing has changed on any; node $of_two: /s, '... and by bbm_drop');
kill 'CONT', $postmaster;
ok($c->poll_query_until('postgres', q(SELECT unreached_nodes IS NULL FROM batched_background_migrations)), 'when it answers, it learns it');
ok($two->poll_query_until('postgres', $nobody), '... and pauses');
value($c, q(SELECT bbm_start('frozen')));
ok($_->poll_query_until('postgres', $at_work), 'started, it is at work') foreach @worker;
kill 'STOP', $postmaster;
ok($c->poll_query_until('postgres', q{SELECT waiting_on LIKE '1 of 3 nodes that do not answer (node %' FROM bbm_status_detail('frozen')}), '... and the status names a node that does not answer');
kill 'CONT', $postmaster;
value($c, q(SELECT bbm_alter('frozen', batch_size => 500)));
finishes('frozen', '... it is finished');
once('frozen', 2000, '... with every row once');
value($c, q(SELECT bbm_drop('frozen')));

# ---- a row is quarantined while the rows that verification has found are done

table('second', 400, 4);
value($c, q(UPDATE second SET pad = CASE WHEN id % 100 = 7 THEN 'bad' ELSE '' END));
value($c, q(SELECT bbm_update('second', 'second', 'n = CASE WHEN pad = ''bad'' THEN n WHEN pad = ''worse'' THEN 1 / n ELSE n + 1 END', 'n = 0', batch_size => 20, max_attempts => 1, on_error => 'split', "verify" => true, start => true)));
is(value($c, q(SELECT bbm_wait('second', '2 min'))), 'failed', 'verification finds rows that were not done');
value($c, q(UPDATE second SET pad = CASE WHEN id = 107 THEN 'worse' ELSE '' END));
value($c, q(SELECT bbm_start('second')));
is(value($c, q(SELECT bbm_wait('second', '2 min'))), 'failed', '... of which one cannot be done in the second round');
like(of_migration('error_message', 'second'), qr/^verification found 1 row/, '... which verification finds again');
is(value($c, q(SELECT coalesce(sum(count), 0) FROM bbm_errors('second'))), 1, '... and which is quarantined');
value($c, q(UPDATE second SET pad = ''));
move('second', 'block_writes') for 1 .. 3;
is(value($c, q(SELECT bbm_retry('second'))) > 0, 1, '... tried again, through moves');
finishes('second', '... it is finished');
once('second', 400, '... with every row once');
is(value($c, q(SELECT coalesce(sum(count), 0) FROM bbm_errors('second'))), 0, '... and nothing is quarantined any more');
value($c, q(SELECT bbm_drop('second')));

# ---- in mid-run a node has another version, and the access method changes

table('versions', 2000, 4);
begin_on_both('versions', 2);
value($two, q(UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'bbm'));
ok($c->poll_query_until('postgres', q{SELECT waiting_on LIKE '1 of 3 nodes that do not answer (node %version%' FROM bbm_status_detail('versions')}), 'a node with another version is named') or diag(value($c, q(SELECT waiting_on FROM bbm_status_detail('versions'))));
value($two, q(UPDATE pg_extension e SET extversion = a.default_version FROM pg_available_extensions a WHERE a.name = e.extname AND extname = 'bbm'));
SKIP:
{
	skip 'columnar tables are not offered', 2 if value($c, q(SELECT count(*) FROM pg_available_extensions WHERE name = 'citus_columnar')) eq '0';
	$c->safe_psql('postgres', 'CREATE EXTENSION IF NOT EXISTS citus_columnar');
	for (1 .. 10)
	{
		my ($rc, undef, $stderr) = $c->psql('postgres', q(ALTER TABLE versions DROP COLUMN pad; SELECT alter_table_set_access_method('versions', 'columnar')));
		last if $rc == 0;
		diag($stderr);
	}
	is(value($c, q(SELECT bbm_wait('versions', '2 min'))), 'failed', 'a table that becomes columnar fails it');
	like(of_migration('error_message', 'versions'), qr/is not distributed as it was/, '... with the reason');
}
value($c, q(SELECT bbm_drop('versions')));

foreach my $each (@node)
{
	is(value($each, q(SELECT count(*) FROM batched_background_migrations)), 0, 'nothing is left on ' . $each->name);
	$each->stop;
}
done_testing();
