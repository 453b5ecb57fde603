# Giving way: whoever waits for a lock of a batch gets it in bbm.max_blocking_time and a
# little; who deadlocks with one is not the victim; a batch has a time limit.  None of it
# is a failed attempt, all of it is counted, and every row is done once in the end.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $node = bbm_node(
	'giving_way',
	conf => <<'EOC');
bbm.max_blocking_time = 500ms
bbm.lock_timeout = 20s
EOC

# Times are bounds for a machine with other things to do; a batch at the gate would
# last for ever.
my $bound = 10;

sub given_back
{
	my ($name) = @_;
	return value($node, "SELECT given_back, given_back_for FROM bbm_status('$name')");
}

# Runs a statement while a batch stands at the gate: how long it took, and what it said.
sub against_batch
{
	my ($name, $sql) = @_;
	reach_gate($node);
	my $begun = time;
	my ($rc, $out, $err) = $node->psql('postgres', "SET lock_timeout = '60s'; $sql");
	my $took = time - $begun;
	is($rc, 0, "$name gets its lock") or diag($err);
	cmp_ok($took, '>', 0.3, "$name had to wait");
	cmp_ok($took, '<', $bound, "$name had it soon: after " . sprintf('%.2f s', $took));
	return;
}

sub begin_gated
{
	my ($table, $rows, %o) = @_;
	counter_table($node, $table, $rows);
	gate($node, 'shut');
	define($node, $table, $table, job => 'gated', start => 'true', %o);
	return;
}

sub ends_well
{
	my ($name, $rows) = @_;
	gate($node, 'open');
	finished($node, $name);
	once_each($node, $name, $rows);
	ranges_ok($node, $name, $name);
	is(value($node, "SELECT max(attempts) FROM bbm_jobs('$name')"), 1, "$name: none of it was an attempt");
	return;
}

# DDL, a table lock, an update of one row, against a batch that does not end.
begin_gated('a', 1000, batch_size => 1000);
against_batch('ALTER TABLE', 'ALTER TABLE a ADD COLUMN extra integer');
like(given_back('a'), qr/^[1-9]\d*\|[1-9]\d* blocking others$/, 'the batch was given back for that');
is( value($node, q(SELECT last_error FROM bbm_status('a'))),
	'57014: other sessions waited too long for locks of the batch', 'which bbm_status says');
against_batch('LOCK TABLE', 'BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE; COMMIT');
against_batch('an UPDATE of a row', 'UPDATE a SET extra = 1 WHERE id = 1');
cmp_ok(value($node, q(SELECT max(part_size) FROM batched_background_migration_jobs)), '<=', 125, 'each time the batch is halved');
is(value($node, q(SELECT count(*) FROM bbm_jobs('a') WHERE given_back_for LIKE '%blocking others')), 1, 'bbm_jobs says which job');
ends_well('a', 1000);
cmp_ok(value($node, q(SELECT count(DISTINCT xmin::text) FROM a)), '>', 1, 'it was done in several commits');
like(log_since($node), qr/gave back job \d+: other sessions waited too long for locks of the batch/, 'the server log tells');

no_workers($node);
log_clean($node);
done_testing();
