# A streaming standby: nothing runs there.  Promoted, it goes on by itself.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = bbm_node('primary', streaming => 1, conf => "bbm.naptime = 0\n");
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

counter_table($primary, 't', 2000);
# stops after eight batches
value($primary, q(CREATE FUNCTION to_800(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	IF lo > 800 THEN
		RETURN gated_t(lo, hi);
	END IF;
	UPDATE public.t SET n = n + 1 WHERE id BETWEEN lo AND hi;
	RETURN hi - lo + 1;
END $$));
value($primary, q(SELECT bbm_create('m', 't', 'to_800', batch_size => 100, workers => 2, start => true)));
reach_gate($primary, 2);

# asynchronous commits reach the WAL of a standby when somebody flushes
$primary->safe_psql('postgres', 'CREATE TABLE flushed ()');
$primary->wait_for_catchup($standby);

is(value($standby, q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'bbm%')), 0, 'no process of ours on a standby');
is(value($standby, q(SELECT status FROM bbm_status('m'))), 'running', 'bbm_status answers there');
like(value($standby, q(SELECT count(*) FROM bbm_jobs('m'))), qr/^[1-9]/, 'so does bbm_jobs');
is(value($standby, q(SELECT count(*) FROM bbm_workers())), 0, 'and bbm_workers');
for my $sql ("UPDATE batched_background_migrations SET status = 0", "SELECT bbm_start('m')", "SELECT bbm_pause('m')",
	"CALL bbm_run('m')", "SELECT bbm_launch_worker()")
{
	my ($rc, $out, $err) = $standby->psql('postgres', $sql);
	like($err, qr/ERROR:.*(read-only transaction|during recovery|recovery is in progress)/i, "$sql is refused there");
}
is($standby->psql('postgres', 'SELECT 1'), 0, 'and the standby is well');

# What the standby has is what it goes on from: rows done are rows recorded.
$primary->stop('immediate');
is( value($standby, q(SELECT (SELECT count(*) FROM t WHERE n > 0) = rows_done FROM bbm_status('m'))),
	't', 'on the standby, rows done are rows recorded');
is(value($standby, q(SELECT jobs_finished, jobs_running FROM bbm_status('m'))), '8|2', 'some of the work is done');

$standby->promote;
ok($standby->poll_query_until('postgres', in_flight(), 2), 'promoted, it goes on by itself');
gate($standby, 'open');
finished($standby, 'm');
once_each($standby, 't', 2000);
ranges_ok($standby, 'm', 't');

# and is a primary like any other
define($standby, 'next', 't');
value($standby, q(UPDATE batched_background_migrations SET status = 1 WHERE name = 'next'));
finished($standby, 'next', 'the new primary starts migrations');
no_workers($standby);
log_clean($standby);
log_clean($primary);
done_testing();
