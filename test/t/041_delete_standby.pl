# What a reader on a standby sees of a mass delete, as doc/howto.md says: whole batches; and no
# lock of the table, if VACUUM does not cut off its end.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use BbmTest;

# VACUUM removes rows, and cuts tables off, when the test says so
my $primary = bbm_node('primary', streaming => 1, conf => "autovacuum = off\nbbm.min_pace = 1\n");
$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->append_conf('postgresql.conf', "hot_standby_feedback = off\nmax_standby_streaming_delay = 0\nmax_standby_archive_delay = 0\n");
$standby->start;

for my $table (qw(kept cut))
{
	$primary->safe_psql('postgres', "CREATE TABLE $table (id int PRIMARY KEY, filler text NOT NULL DEFAULT repeat('x', 100));
INSERT INTO $table SELECT generate_series(1, 20000); VACUUM $table");
}
$primary->safe_psql('postgres', 'ALTER TABLE kept SET (vacuum_truncate = off)');
$primary->wait_for_catchup($standby);

# each snapshot of the standby shows whole batches, at whatever moment it is taken
$primary->safe_psql('postgres', "SELECT bbm_delete('$_', '$_', 'id > 10000', batch_size => 1000, start => true)") for qw(kept cut);
my ($seen, $halves) = (0, 0);
my $left = 20000;
my $until = time + $PostgreSQL::Test::Utils::timeout_default;
while (time < $until)
{
	my ($status, $count) = $standby->psql('postgres', 'SELECT count(*) FROM kept');
	# cancelled: the primary has pruned what the snapshot needs
	next if $status;
	$left = $count;
	$seen++;
	$halves++ if $left % 1000;
	last if $left == 10000;
}
is($left,   10000, "the standby has the deletes");
is($halves, 0,     "none of its $seen snapshots shows half of a batch");
finished($primary, $_) for qw(kept cut);
$primary->wait_for_catchup($standby);

# a session that has read the table, and holds nothing but its lock
sub reader
{
	my ($table) = @_;
	my $reader = $standby->background_psql('postgres', on_error_stop => 0);
	$reader->query_safe('BEGIN');
	is($reader->query_safe("SELECT count(*) FROM $table"), 10000, "$table: a reader on the standby, in a transaction");
	return $reader;
}

sub pages
{
	my ($table) = @_;
	return value($standby, "SELECT pg_relation_size('$table') / current_setting('block_size')::int");
}

for my $table (qw(kept cut))
{
	my $before = pages($table);
	my $reader = reader($table);
	my $pid    = $reader->query_safe('SELECT pg_backend_pid()');
	$primary->safe_psql('postgres', "VACUUM $table");
	$primary->wait_for_catchup($standby);
	my $alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid";
	if ($table eq 'kept')
	{
		is(pages($table), $before, 'VACUUM leaves the end of the table where it is');
		is(value($standby, $alive), 1, '... and the reader alone');
		is($reader->query_safe("SELECT count(*) FROM $table"), 10000, '... which reads on');
		$reader->quit;
	}
	else
	{
		cmp_ok(pages($table), '<', $before, 'by default VACUUM cuts off the end of the table');
		# its locks are gone before it is
		ok($standby->poll_query_until('postgres', $alive, 0), '... and the reader, too');
		eval { $reader->quit };
	}
}

$standby->stop;
$primary->stop;
done_testing();
