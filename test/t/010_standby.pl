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
# each function that writes says what kind of server this is, and what to do; those that read do so
my $arguments = q(CASE WHEN p.prokind = 'p' THEN $$('m')$$ WHEN p.proname IN ('bbm_create', 'bbm_update') THEN $$('x', 't', 'n = 1')$$
	WHEN p.proname = 'bbm_delete' THEN $$('x', 't', 'n = 1')$$ WHEN p.proname = 'bbm_import' THEN $$('t', 't')$$
	WHEN p.proname = 'bbm_sync_trigger' THEN $$('t', 'n = 1')$$ WHEN p.proname = 'bbm_launch_worker' THEN '()'
	WHEN p.proname IN ('bbm_doctor', 'bbm_workers') THEN '()' WHEN p.proname = 'bbm_verify' THEN $$('m', 'n >= 0')$$ WHEN p.proname = 'bbm_wait' THEN $$('m', '1 ms')$$ ELSE $$('m')$$ END);
my @calls = split /\n/, value($standby, qq(SELECT CASE p.prokind WHEN 'p' THEN 'CALL ' ELSE 'SELECT * FROM ' END || p.proname || $arguments
	FROM pg_proc p WHERE p.proname LIKE 'bbm\\_%' AND p.pronamespace = 'public'::regnamespace ORDER BY p.proname));
cmp_ok(scalar @calls, '>', 20, 'all functions are called there');
my %reads = map { $_ => 1 } qw(doctor ensure_finished errors jobs status status_detail verify wait workers);
for my $call (@calls)
{
	my ($name) = $call =~ /bbm_(\w+)/;
	my ($rc, $out, $err) = $standby->psql('postgres', $call);
	if ($name eq 'ensure_finished') { like($err, qr/is running.*This server is a standby/s, "$call answers there, and says what it is"); }
	elsif ($name =~ /doctor/) { is($err, '', "$call answers there"); }
	elsif ($reads{$name})
	{
		like($err, qr/^\S*\s*NOTICE:\s+this server is a standby\n/, "$call answers there, and says what it is");
		is(() = $err =~ /NOTICE/g, 1, 'once');
		unlike($err, qr/ERROR/, 'without an error');
	}
	else { like($err, qr/cannot execute (CALL )?bbm_$name\(\) during recovery.*This server is a standby.*on the primary/s, "$call says that it is a standby"); }
}
# a plain statement is as good as a call; nothing is said of other tables, and of a plan
for my $sql ("UPDATE batched_background_migrations SET status = 0 WHERE name = 'm'", "DELETE FROM batched_background_migrations",
	"INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name) VALUES ('x', 1, 1, 'f', 't', 'id')",
	"DELETE FROM batched_background_migration_jobs", "WITH x AS (DELETE FROM bbm_events RETURNING 1) SELECT * FROM x")
{
	my ($rc, $out, $err) = $standby->psql('postgres', $sql);
	like($err, qr/ERROR:\s+cannot execute .* during recovery.*This server is a standby.*on the primary/s, "$sql says that it is a standby");
}
my ($rc, $out, $err) = $standby->psql('postgres', 'UPDATE t SET n = 1');
like($err, qr/cannot execute UPDATE in a read-only transaction/, 'a statement of another table has the error of the server');
is($standby->psql('postgres', 'EXPLAIN UPDATE batched_background_migrations SET status = 1'), 0, 'and EXPLAIN is allowed');
like(value($standby, q(SELECT waiting_on FROM bbm_status_detail('m'))), qr/this server is a standby/, 'so does what a migration waits for');
like(value($standby, q(SELECT problem FROM bbm_doctor())), qr/the server is a standby/, 'and bbm_doctor');
is($standby->psql('postgres', 'SELECT 1'), 0, 'and the standby is well');

# What the standby has is what it goes on from: rows done are rows recorded.
$primary->stop('immediate');
is( value($standby, q(SELECT (SELECT count(*) FROM t WHERE n > 0) = rows_done FROM bbm_status('m'))),
	't', 'on the standby, rows done are rows recorded');
is(value($standby, q(SELECT jobs_finished, jobs_running FROM bbm_status_detail('m'))), '8|2', 'some of the work is done');

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

# A synchronous standby that does not answer.  Batches do not wait for it unless they
# are to; those that do can be cancelled, and a fast stop does not wait for them.
counter_table($standby, 's', 300);
$standby->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
$standby->reload;
$standby->poll_query_until('postgres', "SELECT current_setting('synchronous_standby_names') = 'nobody'");
my $local = 'SET synchronous_commit = local; SET statement_timeout = \'60s\';';
my $job   = 'UPDATE s SET n = n + 1 WHERE id BETWEEN $1 AND $2';
value($standby, "$local SELECT bbm_create('async', 's', '$job', batch_size => 100, start => true)");
finished($standby, 'async', 'batches do not wait for a synchronous standby');
my $waits = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event = 'SyncRep'";
# one that reaches outside of the server commits as the owner's sessions do
value($standby, <<"EOS");
$local
CREATE FUNCTION notifying(first bigint, last bigint) RETURNS void LANGUAGE plpgsql AS 'BEGIN NOTIFY nobody; END';
SELECT bbm_create('outside', 's', 'notifying', batch_size => 100, start => true);
EOS
ok($standby->poll_query_until('postgres', $waits, 1), 'but those that reach outside of the server do');
value($standby, "$local SELECT bbm_pause('outside', cancel => true, wait => true)");
value($standby, "$local SELECT bbm_drop('outside')");
value($standby, "$local UPDATE s SET n = 0");
value($standby, "$local SELECT bbm_create('sync', 's', '$job', batch_size => 100, synchronous => true, start => true)");
ok($standby->poll_query_until('postgres', $waits, 1), 'those that are to, do');
value($standby, "$local SELECT bbm_pause('sync', cancel => true, wait => true)");
pass('a batch that waits for its standby can be cancelled');
is(value($standby, 'SELECT count(*) FILTER (WHERE n = 1), count(*) FILTER (WHERE n > 1) FROM s'),
	'100|0', 'though it has committed');
is(value($standby, q(SELECT status, jobs_finished, jobs_running FROM bbm_status_detail('sync'))), 'paused|1|0', 'and is recorded as what it is');
value($standby, "$local SELECT bbm_start('sync')");
ok($standby->poll_query_until('postgres', $waits, 1), 'the next one waits again');
$standby->stop('fast');
$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$standby->start;
finished($standby, 'sync', 'a fast stop did not wait for it');
once_each($standby, 's', 300);
ranges_ok($standby, 'sync', 's');
no_workers($standby);
log_clean($standby, undef, qr/canceling (the )?wait for synchronous replication/);
log_clean($primary);
done_testing();
