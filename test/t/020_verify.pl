# Two workers verify, and the migration is paused and cancelled meanwhile: the
# ranges that are left are counted when it goes on, and it does not finish before.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('verify', conf => "bbm.max_workers = 2\n");
counter_table($node, 't', 40);
# a count waits, for as long as it takes, for the holder of a row's lock
value($node, <<'EOS');
CREATE FUNCTION is_good(id bigint, n integer) RETURNS boolean LANGUAGE plpgsql STABLE SET lock_timeout = 0 AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(1, id::integer);
	RETURN n = 1;
END $$;
EOS

# A session holds the lock of a row, 15 by default, until let_go.
my $holder;
sub hold
{
	my $row = shift // 15;
	$holder = background($node, 'postgres', "SELECT pg_advisory_lock(1, $row)", 'SELECT pg_sleep(600)');
	$node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = 1 AND granted));
	return;
}

sub let_go
{
	value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'));
	finish_background($holder);
	return;
}

# The jobs that verify, by status.
sub counts
{
	my ($round) = @_;
	return value($node, "SELECT string_agg(status || ' x ' || count, ', ' ORDER BY status) FROM
		(SELECT status, count(*) FROM batched_background_migration_jobs j WHERE phase = 'verify' AND round = $round
		 AND batched_background_migration_id = (SELECT max(id) FROM batched_background_migrations) GROUP BY 1) s");
}

sub all_but_one_counted
{
	my ($round) = @_;
	$node->poll_query_until('postgres', "SELECT count(*) FILTER (WHERE status = 2) = 3 AND count(*) FILTER (WHERE status = 4) = 1
		FROM batched_background_migration_jobs WHERE phase = 'verify' AND round = $round
		AND batched_background_migration_id = (SELECT max(id) FROM batched_background_migrations)");
	return;
}

sub update_and_verify
{
	my ($name) = @_;
	value($node, 'UPDATE t SET n = 0');
	value($node, "SELECT bbm_update('$name', 't', 'n = n + 1', 'n = 0', batch_size => 10, workers => 2, verify => true, row_check => 'is_good(id, n)', start => true)");
	all_but_one_counted(1);
	return;
}

# A pause lets the count end that has started.
hold();
update_and_verify('paused');
value($node, q(SELECT bbm_pause('paused')));
let_go();
value($node, q(SELECT bbm_pause('paused', wait => true)));
is(counts(1), '2 x 4', 'the count in flight has ended');
is(value($node, q(SELECT status FROM bbm_status('paused'))), 'paused', 'and the migration is paused');
value($node, q(SELECT bbm_start('paused')));
finished($node, 'paused');
is(counts(1), '2 x 4', 'nothing was counted twice');
once_each($node, 't', 40);

# A cancel requeues it.
hold();
update_and_verify('cancelled');
is(value($node, q(SELECT bbm_cancel('cancelled'))), 1, 'one count was in flight');
is(counts(1), '1 x 1, 2 x 3', 'and is requeued');
let_go();
value($node, q(SELECT bbm_start('cancelled')));
finished($node, 'cancelled');
is(counts(1), '2 x 4', 'it was counted in the end');

# A row that is spoilt before it is counted fails the migration; started again, it counts all rows again.
hold();
update_and_verify('spoilt');
value($node, q(SELECT bbm_cancel('spoilt')));
value($node, 'UPDATE t SET n = 2 WHERE id IN (3, 15)');
let_go();
value($node, q(SELECT bbm_start('spoilt')));
status_is($node, 'spoilt', 'failed');
is(value($node, q(SELECT last_error FROM bbm_status_detail('spoilt'))), '23514: verification found 1 rows that are not as they should be',
	'a row that was spoilt before its count fails it');
value($node, q(SELECT bbm_start('spoilt')));
status_is($node, 'spoilt', 'failed');
like(value($node, q(SELECT last_error FROM bbm_status_detail('spoilt'))), qr/found 2 rows/, 'started again it sees the other one, too');
value($node, 'UPDATE t SET n = 1');
# in the middle of it the server goes down; of a range of which no row had been found, and so none is done first
hold(35);
value($node, q(SELECT bbm_start('spoilt')));
all_but_one_counted(3);
$node->stop('immediate');
finish_background($holder);
start_anyway($node);
finished($node, 'spoilt', 'corrected, it finishes, over a crash');
is(counts(3), '2 x 4', 'with each range counted');
once_each($node, 't', 40);

# bbm_verify beside it waits for no lock longer than bbm.lock_timeout.
my $locker = background($node, 'postgres', 'BEGIN', 'LOCK TABLE t', 'SELECT pg_sleep(600)');
$node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_locks WHERE relation = 't'::regclass AND granted AND mode = 'AccessExclusiveLock'));
my ($rc, $out, $err) = $node->psql('postgres', q(SELECT bbm_verify('spoilt')));
like($err, qr/canceling statement due to lock timeout/, 'bbm_verify does not queue for long');
value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'));
finish_background($locker);
is(value($node, q(SELECT bbm_verify('spoilt'))), 0, 'and counts when it may');

no_workers($node);
log_clean($node, undef, qr/canceling statement due to user request/);
done_testing();
