# Distributed tables (Citus): how fast they are changed.  Printed, not tested, for doc/benchmark.md;
# BBM_TEST_ROWS is how many rows there are (60,000).  Servers of tests do not flush what they write, which
# is most of what a two-phase commit takes; with BBM_TEST_FSYNC=on these do.  Skipped where the server does
# not offer the extension citus.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmCitus;
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my @node = citus_cluster();
my ($c, @worker) = @node;
$c->safe_psql('postgres', 'CREATE EXTENSION bbm');
join_cluster();

# as shipped
setting('bbm.naptime', '10min', @node);
setting('fsync', $ENV{BBM_TEST_FSYNC} // 'off', @node);

my $many = $ENV{BBM_TEST_ROWS} // 60_000;
my $changes = 0;
table('fast', $many, 16);
$c->safe_psql('postgres', 'VACUUM ANALYZE fast');

# how many seconds it takes, on a table without dead tuples
sub seconds
{
	my ($table, $act) = @_;
	value($_, 'CHECKPOINT') foreach @node;
	my $begin = time;
	$act->();
	my $took = time - $begin;
	$c->safe_psql('postgres', "VACUUM $table");
	return $took;
}

sub by_bbm
{
	my ($table) = @_;
	$changes++ if $table eq 'fast';
	my $sessions = q(SELECT sessions FROM pg_stat_database WHERE datname = 'postgres');
	my $before = value($worker[0], $sessions);
	my $took = seconds($table, sub {
		value($c, "SELECT bbm_update('fast', '$table', 'n = n + 1', batch_size => 5000, start => true)");
		value($c, q(SELECT bbm_wait('fast', '10 min')));
	});
	diag(sprintf('%.1f s, %d sessions on a node', $took, value($worker[0], $sessions) - $before));
	value($c, q(SELECT bbm_drop('fast')));
	return $took;
}

# ---- three ways to change all rows

my $one = seconds('fast', sub { value($c, 'UPDATE fast SET n = n + 1') });
my $default = by_bbm('fast');
min_pace(1);
my $full = by_bbm('fast');
my $loop = seconds('fast', sub { $c->safe_psql('postgres', <<"EOS") });
DO \$\$
BEGIN
	FOR i IN 0 .. ($many - 1) / 5000 LOOP
		UPDATE fast SET n = n + 1 WHERE id BETWEEN i * 5000 + 1 AND (i + 1) * 5000;
		COMMIT;
	END LOOP;
END \$\$;
EOS
$changes += 2;
is(value($c, 'SELECT min(n), max(n) FROM fast'), "$changes|$changes", 'three ways to change all rows');
diag(sprintf('%d rows, 16 shards on 2 nodes: one UPDATE %.1f s, bbm with batches of 5000 %.1f s, with bbm.min_pace=1 %.1f s, a PL/pgSQL loop %.1f s',
	$many, $one, $default, $full, $loop));

# ---- the same rows, in as many shards, all on one of the nodes

my $second = sprintf q('%s', %d), $worker[1]->host, $worker[1]->port;
value($c, "SELECT citus_set_node_property($second, 'shouldhaveshards', false)");
table('fast_one', $many, 16);
value($c, "SELECT citus_set_node_property($second, 'shouldhaveshards', true)");
is(scalar(grep { $_->[3] == $worker[1]->port } shards_of('fast_one')), 0, 'the same rows on one node');
value($c, 'UPDATE fast_one SET n = n + 1');
$c->safe_psql('postgres', 'VACUUM ANALYZE fast_one');
my %on = ();
push @{ $on{$_} }, by_bbm($_) foreach ('fast_one', 'fast', 'fast_one', 'fast');
is(value($c, "SELECT min(n), max(n) FROM $_"), $_ eq 'fast' ? "$changes|$changes" : '3|3', "all rows of $_ are changed") foreach sort keys %on;
diag(sprintf('%d rows, 16 shards, bbm.min_pace=1, two runs each: on 1 node %.1f and %.1f s, on 2 nodes %.1f and %.1f s', $many, @{ $on{fast_one} }, @{ $on{fast} }));

$_->stop foreach @node;
done_testing();
