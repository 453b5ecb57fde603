# The clock is set back by an hour: what has a limit of time keeps to it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('clock', start => 0, conf => "bbm.naptime = 1s\nbbm.max_blocking_time = 500ms\nbbm.min_pace = 1\n");
start_with_clock($node);
value($node, 'CREATE DATABASE other');
value($node, 'CREATE EXTENSION bbm', $_) for 'postgres', 'other';

# A job that is not there yet: the migration is of a time that has yet to come.
value($node, 'CREATE TABLE u AS SELECT 1::bigint AS id; ALTER TABLE u ADD PRIMARY KEY (id)');
$node->append_conf('postgresql.conf', 'bbm.enabled = off');
$node->reload;
ok($node->poll_query_until('postgres', q(SELECT current_setting('bbm.enabled') = 'off')), 'no worker starts');
value($node, q(INSERT INTO batched_background_migrations (name, min_value, max_value, batch_size, job_signature_name, table_name, column_name, status)
	VALUES ('early', 1, 1, 1, 'comes_later', 'u', 'id', 1)));
set_clock(-3600);
is(value($node, q(SELECT created_at > clock_timestamp() FROM batched_background_migrations)), 't', 'the clock is set back');
$node->append_conf('postgresql.conf', 'bbm.enabled = on');
$node->reload;
ok( $node->poll_query_until(
		'postgres', q(SELECT status = 'failed' OR waiting_on LIKE '%not there yet%' FROM bbm_status_detail('early'))),
	'a worker comes to a migration whose job is not there yet');
is(value($node, q(SELECT status FROM bbm_status('early'))), 'active', '... and waits for it');
value($node, 'CREATE FUNCTION comes_later(lo bigint, hi bigint) RETURNS bigint LANGUAGE sql AS $$ SELECT 1::bigint $$');
finished($node, 'early', '... which has come');

# Batches up to a row are done, and the next one lasts; without pg_sleep, which would sleep for the hour.
for my $db ('postgres', 'other')
{
	counter_table($node, 't', 500, $db);
	value($node, <<'EOS', $db);
CREATE TABLE allowed AS SELECT 200::bigint AS row_id;
CREATE FUNCTION as_far_as_allowed(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	UPDATE public.t SET n = n + 1 WHERE id BETWEEN lo AND hi;
	WHILE EXISTS (SELECT FROM public.allowed WHERE row_id < hi) LOOP
	END LOOP;
	RETURN hi - lo + 1;
END $$;
SELECT bbm_create('m', 't', 'as_far_as_allowed', batch_size => 100, start => true);
EOS
}
my $stands = q(SELECT rows_done = %d AND jobs_running = 1 FROM bbm_status_detail('m'));
ok($node->poll_query_until('postgres', sprintf($stands, 200)), 'a worker is in a batch');

set_clock(-7200);

# The worker that was in a batch then watches the next one as any other.
value($node, 'UPDATE allowed SET row_id = 300');
ok($node->poll_query_until('postgres', sprintf($stands, 300)), 'the worker goes on with the next batch');
my ($rc, $out, $err) = $node->psql('postgres', q(SET statement_timeout = '20s'; UPDATE t SET n = n WHERE id = 350));
is($rc, 0, '... which yields to a session that waits for it') or diag($err);
is(value($node, q(SELECT requeued > 0 FROM bbm_status_detail('m'))), 't', '... and is requeued');
value($node, 'UPDATE allowed SET row_id = 1000');
finished($node, 'm');
once_each($node, 't', 500);

# A command that needs a database without workers waits for them for as long as ever.
ok($node->poll_query_until('other', sprintf($stands, 200)), 'a worker is in the other database');
my $worker = value($node, 'SELECT pid FROM bbm_workers() WHERE job IS NOT NULL', 'other');
kill('STOP', $worker);
my $drop = background($node, 'postgres', q(SET application_name = 'drops'), 'DROP DATABASE other');
ok( $node->poll_query_until(
		'postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'drops' AND query ~ 'DROP' AND wait_event_type = 'Extension')),
	'DROP DATABASE waits for a worker that does not exit');
set_clock(-10800);
ok( $node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'drops')),
	'... and no longer than it should');
kill('CONT', $worker);
($out, $err) = finish_background($drop);
like($err, qr/being accessed by other users/, '... and says why it could not drop it');
value($node, 'DROP DATABASE other');

done_testing();
