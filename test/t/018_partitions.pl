# Workers on partitioned tables: partitions come and go while batches run, and
# some are on another server.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use BbmTest;

my $node = bbm_node('partitions');

# A batch of the row with this id waits until the gate is open; it is a lock that the test has.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE gate (id int);
CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM gate WHERE id = new.id) THEN
        PERFORM pg_advisory_xact_lock_shared(1);
    END IF;
    RETURN new;
END $$;
CREATE TABLE pt (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
CREATE TABLE pt_1 PARTITION OF pt FOR VALUES FROM (0) TO (100);
CREATE TABLE pt_2 PARTITION OF pt FOR VALUES FROM (100) TO (200);
CREATE TABLE pt_3 PARTITION OF pt FOR VALUES FROM (200) TO (300);
CREATE TRIGGER gate BEFORE UPDATE ON pt FOR EACH ROW EXECUTE FUNCTION wait_at_gate();
SQL

my $patient = '{bbm.lock_timeout=10min, bbm.max_blocking_time=10min}';

sub begin_at_gate
{
	my ($name, $id, %options) = @_;
	# the batch at the gate waits, for as long as it takes, unless DDL is to get through
	my $settings = $options{yields} ? '' : ", settings => '$patient'";
	$node->safe_psql('postgres', qq{
		TRUNCATE pt, gate;
		INSERT INTO pt SELECT generate_series(0, 299);
		INSERT INTO gate VALUES ($id);
	});
	my $holder = $node->background_psql('postgres');
	$holder->query_safe('SELECT pg_advisory_lock(1)');
	my $workers = $options{workers} // 1;
	$node->safe_psql('postgres',
		"SELECT bbm_update('$name', 'pt', 'n = n + 1', batch_size => 10, max_value => 1000,
			workers => $workers, start => true$settings)");
	ok( $node->poll_query_until('postgres',
			"SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"),
		"$name: a batch is in flight");
	return $holder;
}

sub open_gate
{
	my ($holder) = @_;
	$holder->query_safe('DELETE FROM gate');
	$holder->query_safe('SELECT pg_advisory_unlock(1)');
	$holder->quit;
	return;
}

sub waits
{
	my ($what, $like) = @_;
	ok( $node->poll_query_until('postgres',
			"SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ '$like'"),
		$what);
	return;
}

sub ends
{
	my ($name) = @_;
	is($node->safe_psql('postgres', "SELECT bbm_wait('$name', '180 s')"), 'finished', "$name: is finished");
	return;
}

sub events
{
	my ($name) = @_;
	return $node->safe_psql('postgres',
		"SELECT string_agg(event || ' ' || detail, ', ' ORDER BY id) FROM bbm_events
		 WHERE name = '$name' AND event IN ('attached', 'detached')");
}

# DETACH waits for the batch, and what is left of the partition is not touched
my $holder = begin_at_gate('detach', 105);
my $ddl = $node->background_psql('postgres');
$ddl->query_until(qr/sent/, "\\echo sent\nALTER TABLE pt DETACH PARTITION pt_2;\n\\echo detached\n");
waits('DETACH waits for the batch', 'DETACH PARTITION pt_2');
open_gate($holder);
$ddl->query_until(qr/detached/, '');
$ddl->quit;
ends('detach');
is($node->safe_psql('postgres', 'SELECT n, count(*) FROM pt GROUP BY n'), '1|200', 'what is left is done once');
like($node->safe_psql('postgres', 'SELECT n, count(*) FROM pt_2 GROUP BY n ORDER BY n'),
	qr/^(0\|\d+\n)?1\|\d+$/, 'some rows of the detached one, and no row twice');
is(events('detach'), 'detached public.pt_2', 'it is reported in the events');
like(slurp_file($node->logfile), qr/migration "detach": table public.pt_2 was detached/, 'and in the log');
$node->safe_psql('postgres', 'ALTER TABLE pt ATTACH PARTITION pt_2 FOR VALUES FROM (100) TO (200)');

# the same without a lock that waits for the batch: the partition is on its way while it runs
$holder = begin_at_gate('concurrently', 105);
$ddl = $node->background_psql('postgres');
$ddl->query_until(qr/sent/, "\\echo sent\nALTER TABLE pt DETACH PARTITION pt_2 CONCURRENTLY;\n\\echo detached\n");
ok( $node->poll_query_until('postgres', 'SELECT count(*) > 0 FROM pg_inherits WHERE inhdetachpending'),
	'DETACH CONCURRENTLY is half way');
open_gate($holder);
$ddl->query_until(qr/detached/, '');
$ddl->quit;
ends('concurrently');
is($node->safe_psql('postgres', 'SELECT n, count(*) FROM pt GROUP BY n'), '1|200', 'what is left is done once');
is(events('concurrently'), 'detached public.pt_2', 'it is reported');
$node->safe_psql('postgres', 'ALTER TABLE pt ATTACH PARTITION pt_2 FOR VALUES FROM (100) TO (200)');

# while a batch runs, another partition goes and comes back, one is renamed, one comes, with several workers
$holder = begin_at_gate('busy', 5, workers => 3, yields => 1);
$node->safe_psql('postgres', <<'SQL');
-- in one, as a worker that found it empty would be done with it
BEGIN;
CREATE TABLE pt_4 PARTITION OF pt FOR VALUES FROM (300) TO (400);
INSERT INTO pt SELECT generate_series(300, 399);
COMMIT;
SQL
$node->safe_psql('postgres', q{
	SET lock_timeout = '60 s';
	ALTER TABLE pt_3 RENAME TO pt_three;
});
open_gate($holder);
ends('busy');
is($node->safe_psql('postgres', 'SELECT n, count(*) FROM pt GROUP BY n'), '1|400', 'every row is done once');
is(events('busy'), 'attached public.pt_4', 'the new partition is reported');

# DROP TABLE of a partition in mid-run; its jobs end
$holder = begin_at_gate('drop', 5, yields => 1);
$node->safe_psql('postgres', 'DROP TABLE pt_4');
open_gate($holder);
ends('drop');
is($node->safe_psql('postgres', 'SELECT n, count(*) FROM pt GROUP BY n'), '1|300', 'what is left is done once');

# ... and a rename of the very partition between two batches of it
$holder = begin_at_gate('rename', 105);
$ddl = $node->background_psql('postgres');
$ddl->query_until(qr/sent/, "\\echo sent\nALTER TABLE pt_2 RENAME TO pt_two;\n\\echo renamed\n");
waits('RENAME waits for the batch', 'RENAME TO pt_two');
open_gate($holder);
$ddl->query_until(qr/renamed/, '');
$ddl->quit;
ends('rename');
is($node->safe_psql('postgres', 'SELECT n, count(*) FROM pt GROUP BY n'), '1|300', 'every row is done once');

# the key's type changes between two batches: an integer's width is harmless, another order is not
sub change_type
{
	my ($name, $from, $to) = @_;
	$node->safe_psql('postgres', qq{
		DROP TABLE IF EXISTS typed;
		TRUNCATE gate;
		INSERT INTO gate VALUES (105);
		CREATE TABLE typed (id int, k $from PRIMARY KEY, n int NOT NULL DEFAULT 0);
		INSERT INTO typed SELECT x, x FROM generate_series(100, 299) x;
		CREATE TRIGGER gate BEFORE UPDATE ON typed FOR EACH ROW EXECUTE FUNCTION wait_at_gate();
	});
	my $gate = $node->background_psql('postgres');
	$gate->query_safe('SELECT pg_advisory_lock(1)');
	$node->safe_psql('postgres', "SELECT bbm_update('$name', 'typed', 'n = n + 1', batch_size => 10, start => true, settings => '$patient')");
	ok( $node->poll_query_until('postgres',
			"SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"),
		"$name: a batch is in flight");
	my $alter = $node->background_psql('postgres');
	$alter->query_until(qr/sent/, "\\echo sent\nALTER TABLE typed ALTER k TYPE $to USING k::$to;\n\\echo altered\n");
	waits("$name: ALTER waits for the batch", "ALTER k TYPE $to USING");
	open_gate($gate);
	$alter->query_until(qr/altered/, '');
	$alter->quit;
	return $node->safe_psql('postgres', "SELECT bbm_wait('$name', '180 s')");
}
is(change_type('wider', 'int', 'bigint'), 'finished', 'int to bigint goes on');
is($node->safe_psql('postgres', 'SELECT n, count(*) FROM typed GROUP BY n'), '1|200', 'every row is done once');
is(change_type('other', 'text', 'int'), 'failed', 'text to int fails');
is($node->safe_psql('postgres',
		"SELECT failure_error_code, error_message FROM batched_background_migrations WHERE name = 'other'"),
	'2|the type of batching key "k" has changed', 'with its code and reason');

# partitions on another server
my $remote = PostgreSQL::Test::Cluster->new('remote');
$remote->init;
$remote->start;
$remote->safe_psql('postgres', q{
	CREATE TABLE far (id int PRIMARY KEY, k text COLLATE "C" NOT NULL, n int NOT NULL DEFAULT 0);
	INSERT INTO far SELECT x, x % 7 || ' ''"\\' FROM generate_series(1000, 1099) x;
});
my ($host, $port) = ($remote->host, $remote->port);
$node->safe_psql('postgres', qq{
	CREATE EXTENSION postgres_fdw;
	CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
	CREATE USER MAPPING FOR CURRENT_USER SERVER far;
	CREATE TABLE mixed (id int NOT NULL, k text COLLATE "C" NOT NULL, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
	CREATE TABLE near PARTITION OF mixed (PRIMARY KEY (id)) FOR VALUES FROM (0) TO (1000);
	CREATE INDEX ON near (k);
	INSERT INTO near SELECT x, x % 7 FROM generate_series(0, 49) x;
	CREATE FOREIGN TABLE far PARTITION OF mixed FOR VALUES FROM (1000) TO (2000) SERVER far OPTIONS (table_name 'far');
	CREATE FUNCTION far_partition(table_name text, column_name text, min int, max int, batch_size int) RETURNS void
	LANGUAGE plpgsql AS \$\$
	BEGIN EXECUTE format('UPDATE %s SET n = n + 1 WHERE %I BETWEEN \$1 AND \$2', \$1, \$2) USING min, max; END \$\$;
	SELECT bbm_update('by id', 'mixed', 'n = n + 1', column_name => 'id', batch_size => 15, workers => 2, start => true);
	SELECT bbm_update('by text', 'mixed', 'n = n + 1', column_name => 'k', batch_size => 15, sub_batch_size => 4,
		start => true);
	SELECT bbm_create('statement', 'mixed', 'UPDATE mixed SET n = n + 1 WHERE id BETWEEN \$1 AND \$2',
		column_name => 'id', batch_size => 15, start => true);
	SELECT bbm_create('function', 'mixed', 'far_partition', column_name => 'id', batch_size => 15, start => true);
	SELECT bbm_update('plain', 'far', 'n = n + 1', column_name => 'id', batch_size => 15, start => true);
	SELECT bbm_update('loose', 'far', 'n = n + 1', column_name => 'k', batch_size => 2,
		batching_strategy => 'LooseIndexScanBatchingStrategy', start => true);
});
ends($_) for ('by id', 'by text', 'statement', 'function', 'plain', 'loose');
is($node->safe_psql('postgres', 'SELECT tableoid::regclass, n, count(*) FROM mixed GROUP BY 1, 2 ORDER BY 1'),
	"near|4|50\nfar|6|100", 'every row there and here is done once by each');
is($remote->safe_psql('postgres', 'SELECT n, count(*) FROM far GROUP BY n'), '6|100', 'and so the other server says');
my ($ret, $out, $err) = $node->psql('postgres',
	"SELECT bbm_update('x', 'mixed', 'n = n + 1', 'n < 0', batching_strategy => 'BlockRangeBatchingStrategy')");
like($err, qr/does not fit table "far"/, 'block ranges need blocks');

# the other server is away for a while
$remote->stop;
$node->safe_psql('postgres',
	"SELECT bbm_update('away', 'far', 'n = n + 1', 'n = 6', column_name => 'id', batch_size => 50, min_value => 1000,
		max_value => 1099, start => true)");
ok( $node->poll_query_until('postgres',
		"SELECT waiting_on ~ '08001: could not connect to server' AND last_error ~ '^08001: could not connect to server' FROM bbm_status_detail('away')"),
	'it waits while the other server is away, and says so')
  or diag($node->safe_psql('postgres', "SELECT waiting_on, last_error FROM bbm_status_detail('away')"));
is($node->safe_psql('postgres', "SELECT status FROM bbm_status('away')"), 'running', 'and the migration does not fail');
$remote->start;
ends('away');
is($remote->safe_psql('postgres', 'SELECT n, count(*) FROM far GROUP BY n'), '7|100', 'every row is done once');

$remote->stop;
$node->stop;
done_testing();
