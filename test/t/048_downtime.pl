# Time in which the server is down, or has no worker, is no part of a rate: the job of a
# worker that has died with the server still looks as if it ran.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('downtime', start => 0, conf => "bbm.naptime = 0\nbbm.min_pace = 1\n");

sub enable
{
	my ($on) = @_;
	$node->append_conf('postgresql.conf', "bbm.enabled = $on");
	$node->reload if $on eq 'on';
	return;
}

start_with_clock($node, 0);
value($node, 'CREATE EXTENSION bbm');
counter_table($node, 't', 1000);
# batches up to a row are done, and the next one lasts
value($node, <<'EOS');
CREATE TABLE allowed (row_id bigint NOT NULL);
INSERT INTO allowed VALUES (200);
CREATE FUNCTION as_far_as_allowed(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	UPDATE public.t SET n = n + 1 WHERE id BETWEEN lo AND hi;
	WHILE EXISTS (SELECT FROM public.allowed WHERE row_id < hi) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN hi - lo + 1;
END $$;
EOS
value($node, q(SELECT bbm_create('m', 't', 'as_far_as_allowed', batch_size => 100, start => true)));

# With that many rows done, in so much time that each second had some; what is shown beside them.
sub rate_is_right
{
	my ($rows, $workers, $what) = @_;
	ok($node->poll_query_until('postgres', "SELECT rows_done = $rows AND jobs_running = 1 FROM bbm_status_detail('m')"), "$what: $rows rows are done");
	my ($rate, $shown) = split /\|/, value($node, q(SELECT coalesce(rows_per_second, -1), workers FROM bbm_status_detail('m')));
	cmp_ok($rate, '>', 1, '... at a rate that leaves out when nobody was there');
	is($shown, $workers, "... by $workers workers");
	return;
}

rate_is_right(200, 1, 'before');
value($node, 'CHECKPOINT');
enable('off');
$node->stop('immediate');
start_with_clock($node, 3600);
rate_is_right(200, 0, 'after an hour without a server, and without a worker');
value($node, 'UPDATE allowed SET row_id = 600');
enable('on');
# the job that was interrupted comes last
rate_is_right(500, 1, 'when a worker has come');
value($node, 'UPDATE allowed SET row_id = 1000');
finished($node, 'm');
once_each($node, 't', 1000);

# A migration that keeps to a rate of its own: the time in which nobody is there is no part of its pace.
value($node, <<'EOS');
CREATE TABLE rated (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO rated SELECT generate_series(1, 1000);
SELECT bbm_create('rated', 'rated', 'UPDATE rated SET n = n + 1 FROM pg_sleep(0.1) WHERE id BETWEEN $1 AND $2', batch_size => 100,
	settings => '{bbm.max_row_rate=100}', start => true);
EOS
my $pace = q(SELECT pace > 0.001 FROM bbm_status_detail('rated'));
ok($node->poll_query_until('postgres', $pace), 'a migration keeps to a rate');
ok($node->poll_query_until('postgres', q(SELECT waiting_on LIKE 'row rate: %' FROM bbm_status_detail('rated'))), '... and waits');
enable('off');
$node->reload;
no_workers($node);
set_clock(7200);
is(value($node, $pace), 't', 'the time without a worker is no part of its pace');
enable('on');
is(value($node, q(SELECT bbm_wait('rated', '2 min'))), 'finished', 'it goes on');

# Nor is a pause, however short: of the time up to a sample, so much is left out.
value($node, <<'EOS');
CREATE TABLE paused (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO paused SELECT generate_series(1, 200);
SELECT bbm_create('paused', 'paused', 'UPDATE paused SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 100,
	settings => '{bbm.max_row_rate=1}', start => true);
EOS
ok($node->poll_query_until('postgres', q(SELECT rows_done = 100 FROM bbm_status('paused'))), 'a migration that is to be paused');
value($node, q(SELECT bbm_pause('paused', wait => true)));
set_clock(7214);
value($node, q(SELECT bbm_alter('paused', settings => '{}'); SELECT bbm_start('paused')));
finished($node, 'paused', '... goes on');
is( value($node, q(SELECT samples[cardinality(samples) - 1] >= 13000 FROM bbm_totals t JOIN batched_background_migrations m ON m.id = t.migration_id WHERE name = 'paused')),
	't', '... and the pause is left out');

done_testing();
