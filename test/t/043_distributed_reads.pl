# Distributed tables (Citus): a "set" or a filter that reads a reference table, or a table that is
# colocated, reads on each node the shard that belongs to the shard of the batch.  Skipped where the
# server does not offer the extension citus.

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

# a column that was dropped: the numbers of a table's columns are not those of its shards'
$c->safe_psql('postgres', <<'EOS');
SET citus.shard_count = 4;
CREATE SCHEMA app;
CREATE TABLE app.rates (gone int, code text PRIMARY KEY, factor integer NOT NULL);
ALTER TABLE app.rates DROP COLUMN gone;
SELECT create_reference_table('app.rates');
INSERT INTO app.rates SELECT 'code ' || i, i FROM generate_series(0, 9) i;
CREATE TABLE items (gone int, id bigint PRIMARY KEY, code text, n integer NOT NULL DEFAULT 0, total bigint NOT NULL DEFAULT 0);
ALTER TABLE items DROP COLUMN gone;
SELECT create_distributed_table('items', 'id', colocate_with => 'none');
INSERT INTO items SELECT i, 'code ' || i % 10 FROM generate_series(1, 3000) i;
CREATE TABLE parts (gone int, item bigint, no int, price integer NOT NULL, PRIMARY KEY (item, no));
ALTER TABLE parts DROP COLUMN gone;
SELECT create_distributed_table('parts', 'item', colocate_with => 'items');
INSERT INTO parts SELECT i, j, i + j FROM generate_series(1, 3000) i, generate_series(1, 3) j WHERE i % 3 <> 0;
CREATE TABLE far (id bigint PRIMARY KEY, v integer);
SELECT create_distributed_table('far', 'id', colocate_with => 'none');
CREATE TABLE local (id bigint PRIMARY KEY, v integer);
CREATE VIEW factors AS SELECT * FROM app.rates;
CREATE SCHEMA twin;
CREATE TABLE twin.rates (code text PRIMARY KEY, factor integer);
SELECT create_reference_table('twin.rates');
EOS

# ---- what is refused

my $items = 'cannot run batches over distributed table "public.items"';

sub refused
{
	my ($set, $error, $what) = @_;
	refuses(qq(SELECT bbm_update('x', 'items', '$set')), qr/$items.*$error.*HINT:/s, $what);
	return;
}

refused('n = (SELECT max(v) FROM local)', 'reads another table, "public.local"', 'a local table');
refused('n = f.v FROM far f WHERE f.id = items.id', '"public.far", which is not colocated', 'a table that is not colocated');
refused('n = (SELECT count(*) FROM parts)', '"public.parts" without a comparison', 'all of a colocated table');
refuses(q(SELECT bbm_update('x', 'items', 'n = (SELECT count(*) FROM parts)')), qr/HINT:  Add parts.item = items.id to the WHERE/, '... with what is missing');
refused('n = (SELECT count(*) FROM parts WHERE item > items.id)', 'without a comparison', '... or another comparison');
refused('n = (SELECT count(*) FROM parts WHERE item = items.id OR no = 1)', 'without a comparison', '... or one that is not always made');
refused('n = (SELECT count(*) FROM parts WHERE no = items.id)', 'without a comparison', '... or one of another column');
refused('n = (SELECT count(*) FROM parts p LEFT JOIN parts q ON q.item = items.id WHERE p.item = items.id)', 'without a comparison', '... or one of a LEFT JOIN');
refused('n = (SELECT max(s.no) FROM (SELECT no FROM parts) s)', 'without a comparison', '... deeper');
refused('n = (SELECT max(n) FROM items i)', '"public.items" without a comparison', '... or of the table itself');
refused('n = (SELECT max(factor) FROM factors)', 'reads another table, "public.factors"', 'a view');
refused('n = (WITH rates AS (SELECT 1 AS factor) SELECT max(r.factor) FROM app.rates r, rates)', 'and the name of a WITH', 'a name that is used otherwise');
refused('n = (SELECT max(r.factor) FROM app.rates r, twin.rates)', 'two tables that are named "rates"', 'two tables of one name');
refuses(q(SELECT bbm_update('x', 'items', 'n = (SELECT max(factor) FROM app.rates FOR SHARE)')), qr/FOR SHARE/, 'a lock on rows that are read');
refuses(q(SELECT bbm_delete('x', 'items', 'id IN (SELECT item FROM parts)')), qr/$items.*without a comparison/s, 'a DELETE, in the same way');
$c->safe_psql('postgres', <<'EOS');
CREATE ROLE poor LOGIN;
GRANT USAGE ON SCHEMA app TO poor;
GRANT ALL ON items TO poor;
EOS
value($_, 'GRANT EXECUTE ON FUNCTION bbm_internal.bbm_shards_sync TO poor; GRANT EXECUTE ON FUNCTION bbm_update TO poor') foreach $c, @worker;
refuses(q(SET ROLE poor; SELECT bbm_update('x', 'items', 'n = (SELECT max(factor) FROM app.rates)')), qr/permission denied for table rates/, 'a table that the owner may not read');
is(value($c, 'SELECT count(*) FROM batched_background_migrations'), 0, 'nothing of that is left');

# ---- a reference table and a colocated one, through moves, a split and a crash

my $set = q(n = items.n + 1, total = r.factor * (SELECT coalesce(sum(price), 0) FROM parts WHERE parts.item = items.id)
	FROM app . /* which */ rates AS r WHERE r.code = items.code -- all);
my $right = q(SELECT count(*) FROM items i WHERE n = 1 AND total = substr(code, 6)::int * CASE WHEN id % 3 = 0 THEN 0 ELSE 3 * id + 6 END);
rate(60);
value($c, qq(SELECT bbm_update('both', 'items', \$\$$set\$\$, batch_size => 20, start => true)));
ok($c->poll_query_until('postgres', q(SELECT count(*) > 60 FROM items WHERE n = 1)), 'one that reads two tables is at work');
move('items', 'force_logical');
split_shard('items', 'block_writes');
$worker[0]->stop('immediate');
$worker[0]->start;
ok($c->poll_query_until('postgres', q(SELECT count(*) > 0 FROM bbm_status('both') WHERE status = 'running')), '... and goes on after a crash');
move('items', 'block_writes');
rate(0);
is(value($c, q(SELECT bbm_wait('both', '3 min'))), 'finished', '... and is finished');
is(value($c, $right), 3000, '... with what both tables have, once in every row');
value($c, q(SELECT bbm_drop('both')));

# the rows of the table itself, by its distribution column; and a filter
value($c, q(SELECT bbm_update('self', 'items', 'n = (SELECT i.n + 5 FROM public.items i WHERE i.id = items.id)',
	'EXISTS (SELECT FROM app.rates WHERE rates.code = items.code AND factor < 5) AND n = 1', batch_size => 200, start => true)));
is(value($c, q(SELECT bbm_wait('self', '3 min'))), 'finished', 'one that reads its own table, and a filter that reads another one');
is(value($c, q(SELECT count(*) FILTER (WHERE n = 6 AND id % 10 < 5), count(*) FILTER (WHERE n = 1 AND id % 10 >= 5) FROM items)), '1500|1500', '... has done the rows that are meant');
is(value($c, q(SELECT bbm_verify('self'))), 0, '... as Citus counts them');
value($c, q(SELECT bbm_drop('self')));
value($c, q(SELECT bbm_delete('orphans', 'items', 'NOT EXISTS (SELECT FROM parts WHERE item = items.id)', batch_size => 200, start => true)));
is(value($c, q(SELECT bbm_wait('orphans', '3 min'))), 'finished', 'a DELETE of what has no row in a colocated table');
is(value($c, q(SELECT count(*), count(*) FILTER (WHERE id % 3 = 0) FROM items)), '2000|0', '... has deleted those, and no others');
value($c, q(SELECT bbm_drop('orphans')));

# ---- all rows of a single shard are beside each other

$c->safe_psql('postgres', <<'EOS');
CREATE TABLE one (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
SELECT create_distributed_table('one', NULL, colocate_with => 'none');
INSERT INTO one SELECT i, 0 FROM generate_series(1, 500) i;
CREATE TABLE beside (v integer);
SELECT create_distributed_table('beside', NULL, colocate_with => 'one');
INSERT INTO beside VALUES (3), (4);
EOS
value($c, q(SELECT bbm_update('single', 'one', 'n = (SELECT sum(v) FROM beside)', batch_size => 100, start => true)));
is(value($c, q(SELECT bbm_wait('single', '3 min'))), 'finished', 'a table of one shard reads one that is colocated');
is(value($c, q(SELECT count(*) FROM one WHERE n = 7)), 500, '... all of it');
value($c, q(SELECT bbm_drop('single')));

# ---- a table that is read leaves

sub fails
{
	my ($name, $error, $what) = @_;
	is(value($c, "SELECT bbm_wait('$name', '3 min')"), 'failed', $what);
	like(value($c, qq(SELECT concat_ws(' ', error_message, error_detail) FROM batched_background_migrations WHERE name = '$name')), $error, '... with the reason');
	value($c, "SELECT bbm_drop('$name')");
	return;
}

rate(20);
value($c, q(UPDATE items SET n = 0));
# ... while a batch on each node that has read it is in flight
my @gate = map { $_->background_psql('postgres') } @worker;
$_->query_safe('SELECT pg_advisory_lock(79)') foreach @gate;
value($c, q(SELECT bbm_update('leaves', 'items', 'n = items.n + p.no + length(pg_advisory_xact_lock_shared(79)::text) FROM parts p WHERE p.item = items.id AND p.no = 1',
	batch_size => 10, settings => '{bbm.lock_timeout=10min,bbm.max_blocking_time=10min}', start => true)));
ok($_->poll_query_until('postgres', q(SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 79 AND NOT granted)), 'a batch that reads a colocated table is in flight') foreach @worker;
value($c, q(SELECT update_distributed_table_colocation('parts', 'none')));
$_->quit foreach @gate;
fails('leaves', qr/"public\.parts", which is not colocated/, '... and the migration fails when that is not colocated any more');
is(value($c, q(SELECT count(*) FROM items WHERE n > 0)), 0, '... and the batches are undone');
value($c, q(SELECT bbm_update('undone', 'items', 'n = rates.factor FROM app.rates WHERE rates.code = items.code', batch_size => 10, start => true)));
ok($c->poll_query_until('postgres', q(SELECT count(*) > 20 FROM items WHERE n > 1)), 'one that reads a reference table is at work');
value($c, q(SELECT undistribute_table('app.rates')));
fails('undone', qr/relation "app\.rates" does not exist|reads another table, "app\.rates"/, '... and fails when that is none any more');
rate(0);

foreach my $node ($c, @worker)
{
	is(value($node, q(SELECT count(*) FROM batched_background_migrations)), 0, 'nothing is left on ' . $node->name);
	$node->stop;
}
done_testing();
