# Distributed tables (Citus) of other kinds than a plain one, and other work than one statement:
# partitioned tables, reference tables, functions.  Skipped where the server does not offer the
# extension citus.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmCitus;
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my ($c, @worker) = citus_cluster();
$c->safe_psql('postgres', 'CREATE EXTENSION bbm');
join_cluster();

# ---- a partitioned table

$c->safe_psql('postgres', <<'EOS');
SET citus.shard_count = 4;
CREATE TABLE parted (id bigint, at date, n integer NOT NULL DEFAULT 0, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE parted_old PARTITION OF parted FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE parted_new PARTITION OF parted DEFAULT;
SELECT create_distributed_table('parted', 'id', colocate_with => 'none');
INSERT INTO parted SELECT i, '2020-01-01'::date + (i * 7 % 700)::int, 0 FROM generate_series(1, 6000) i;
EOS
rate(60);
value($c, q(SELECT bbm_update('parted', 'parted', 'n = parted.n + 1', 'parted.at > ''1999-01-01''', batch_size => 20, start => true)));
is(value($c, q(SELECT column_name FROM batched_background_migrations WHERE name = 'parted')), 'id', 'a partitioned table has the default key of one');
ok($c->poll_query_until('postgres', q(SELECT count(*) > 100 FROM parted WHERE n = 1)), '... and is at work');
# rows move between partitions, with their key as it is
my $moves = value($c, q(WITH moved AS (UPDATE parted SET at = '2021-06-01' WHERE at < '2020-02-01' RETURNING 1) SELECT count(*) FROM moved));
ok($moves > 100, 'rows move to another partition meanwhile');
move('parted', 'force_logical');
split_shard('parted', 'block_writes');
$c->safe_psql('postgres', q(CREATE TABLE parted_late PARTITION OF parted FOR VALUES FROM ('2022-01-01') TO ('2023-01-01'); ALTER TABLE parted DETACH PARTITION parted_late));
move('parted', 'block_writes');
rate(0);
is(value($c, q(SELECT bbm_wait('parted', '3 min'))), 'finished', 'it is finished, through two moves and a split');
once('parted', 6000, '... and every row is done once');
is(value($c, q(SELECT rows_done, jobs_finished FROM bbm_status_detail('parted'))), '6000|5', '... as its status says');
value($c, q(SELECT bbm_drop('parted')));

# elsewhere such a filter allows to do the partitions one by one, but a shard has one cursor
value($c, q(SELECT bbm_update('filtered', 'parted', 'n = 2', 'n = 1', batch_size => 200, start => true)));
is(value($c, q(SELECT bbm_wait('filtered', '3 min'))), 'finished', 'one whose filter ends is finished');
is(value($c, q(SELECT count(*), sum(n) FROM parted)), '6000|12000', '... and every row is done');
value($c, q(SELECT bbm_drop('filtered')));
is(join(' ', map { value($_, q(SELECT count(*) FROM bbm_events WHERE event = 'attached')) } @worker), '0 0', 'a node that takes a shard over does not report its partitions as new');

value($c, q(SELECT bbm_delete('one', 'parted_new', 'id % 2 = 0', batch_size => 50, start => true)));
is(value($c, q(SELECT bbm_wait('one', '3 min'))), 'finished', 'a partition by its own name');
is(value($c, q(SELECT count(*) FILTER (WHERE id % 2 = 0) FROM parted_new)), 0, '... and a DELETE');
isnt(value($c, q(SELECT count(*) FILTER (WHERE id % 2 = 0) FROM parted_old)), 0, '... that leaves the other partitions alone');
value($c, q(SELECT bbm_drop('one')));
is(value($_, q(SELECT count(*) FROM batched_background_migrations)), 0, 'nothing is left on a node') foreach @worker;

SKIP:
{
	skip 'columnar tables are not offered', 1 if value($c, q(SELECT count(*) FROM pg_available_extensions WHERE name = 'citus_columnar')) eq '0';
	$c->safe_psql('postgres', 'CREATE EXTENSION citus_columnar');
	$c->safe_psql('postgres', q(CREATE TABLE parted_cold PARTITION OF parted FOR VALUES FROM ('2010-01-01') TO ('2011-01-01') USING columnar));
	refuses(q(SELECT bbm_update('x', 'parted', 'n = 1')), qr/distributed table "public\.parted".*Partition "public\.parted_cold" is not a heap/s, 'a columnar partition');
}

$_->stop foreach $c, @worker;
done_testing();
