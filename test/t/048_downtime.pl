# Time in which the server is down, or has no worker, is no part of a rate: the job of a
# worker that has died with the server still looks as if it ran.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

# The clock, by a library between the server and the system.
my $folder  = PostgreSQL::Test::Utils::tempdir();
my $library = "$folder/clock.so";
my $clock   = "$folder/clock";
system_or_bail('cc', '-shared', '-fPIC', '-o', $library, "$FindBin::RealBin/../clock.c", '-ldl');

my $node = bbm_node('downtime', start => 0, conf => "bbm.naptime = 0\nbbm.min_pace = 1\n");

# Starts the server so many seconds later, by its clock.
sub start_at
{
	my ($seconds) = @_;
	append_to_file("$clock.new", $seconds);
	rename "$clock.new", $clock or die $!;
	local @ENV{qw(LD_PRELOAD BBM_TEST_CLOCK)} = ($library, $clock);
	$node->start;
	return;
}

sub enable
{
	my ($on) = @_;
	$node->append_conf('postgresql.conf', "bbm.enabled = $on");
	$node->reload if $on eq 'on';
	return;
}

start_at(0);
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
start_at(3600);
rate_is_right(200, 0, 'after an hour without a server, and without a worker');
value($node, 'UPDATE allowed SET row_id = 600');
enable('on');
# the job that was interrupted comes last
rate_is_right(500, 1, 'when a worker has come');
value($node, 'UPDATE allowed SET row_id = 1000');
finished($node, 'm');
once_each($node, 't', 1000);

done_testing();
