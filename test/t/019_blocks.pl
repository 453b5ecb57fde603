# Block ranges under load: rows are inserted, updated so that they move, and
# deleted, and VACUUM truncates the table's end, while two workers do each row once.
#
# BBM_BLOCKS_SECONDS is how long the load goes on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $seconds = $ENV{BBM_BLOCKS_SECONDS} || 20;
my $node = bbm_node(
	'blocks',
	conf => <<'EOC');
bbm.max_workers = 4
bbm.lock_timeout = 200ms
# the load keeps all CPUs busy, and the batches are to run beside it
bbm.min_pace = 1
# only our own VACUUMs are counted
autovacuum = off
EOC

# Rows of many widths, so that an update seldom finds room in its block.  New ones
# count as done already, as a trigger would have it: otherwise there is no end.
value($node, <<'EOS');
CREATE TABLE rows (id bigint, n integer NOT NULL, pad text) WITH (fillfactor = 90);
ALTER TABLE rows ALTER pad SET STORAGE PLAIN;
INSERT INTO rows SELECT i, 0, repeat('x', (i % 7 * 150)::integer) FROM generate_series(1, 60000) i;
CREATE INDEX ON rows (id);
CREATE TABLE junk (id bigint, pad text) WITH (fillfactor = 90);
ALTER TABLE junk ALTER pad SET STORAGE PLAIN;
INSERT INTO junk SELECT i, repeat('x', (i % 7 * 100)::integer) FROM generate_series(1, 60000) i;
CREATE INDEX ON junk (id);
CREATE SEQUENCE new_ids START 1000000;
-- a batch takes its time, so that the load gets between
CREATE FUNCTION slowly(i bigint) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
	IF i % 100 = 0 THEN
		PERFORM pg_sleep(0.04);
	END IF;
	RETURN 1;
END $$;
CREATE FUNCTION slow_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM slowly(OLD.id);
	RETURN NULL;
END $$;
CREATE TRIGGER slow_delete AFTER DELETE ON junk FOR EACH ROW EXECUTE FUNCTION slow_delete();
EOS
my $rows = 60000;

# Deletes the rows that it has inserted, and of the others none that is counted.
my $script = $node->basedir . '/load.sql';
append_to_file($script, <<'EOS');
\set id random(1, 60000)
\set width random(0, 1200)
UPDATE rows SET pad = repeat('y', :width) WHERE id = :id;
UPDATE junk SET pad = repeat('y', :width) WHERE id = :id AND id % 3 <> 0;
INSERT INTO rows VALUES (nextval('new_ids'), 1, repeat('z', :width));
DELETE FROM rows WHERE id = (SELECT id FROM rows WHERE id >= 1000000 ORDER BY id LIMIT 1);
EOS

sub load
{
	my %p = (out => '', err => '');
	local %ENV = $node->_get_env();
	$p{run} = IPC::Run::start(
		[ 'pgbench', '-n', '-c', 2, '-T', 600, '-f', $script, $node->connstr('postgres') ],
		'<', \undef, '>', \$p{out}, '2>', \$p{err});
	return \%p;
}

sub unload
{
	my ($load) = @_;
	$load->{run}->kill_kill;
	return;
}

value($node, <<'EOS');
SELECT bbm_update('rows', 'rows', 'n = n + slowly(id)', 'n = 0', batch_size => 200, workers => 2);
SELECT bbm_delete('junk', 'junk', 'id % 3 = 0', batch_size => 100, workers => 2);
EOS
my $load = load();
$node->poll_query_until('postgres', 'SELECT n_tup_upd > 100 FROM pg_stat_user_tables WHERE relname = $$rows$$');
value($node, 'SELECT bbm_start()');
my $until = time + $seconds;
my $crash_at = time + $seconds / 2;
my ($vacuums, $crashed) = (0, 0);
while (time < $until || $vacuums <= 3)
{
	# the end of a table is truncated when its last rows are deleted
	my ($rc) = $node->psql('postgres', 'DELETE FROM rows WHERE id > 1000000 AND random() < 0.5');
	($rc) = $node->psql('postgres', 'VACUUM rows');
	$vacuums++ if $rc == 0;
	$node->psql('postgres', 'VACUUM junk');
	if (!$crashed && time > $crash_at)
	{
		$node->kill9;
		unload($load);
		start_anyway($node);
		$load = load();
		$crashed = 1;
	}
}
note "vacuums: $vacuums; ", value($node, q(SELECT string_agg(format('%s %s, %s done, round %s', s.name, s.status, s.rows_done,
	(SELECT round FROM batched_background_migrations m WHERE m.name = s.name)), '; ') FROM bbm_status_detail() s));
ok($crashed, 'the server was killed in the middle');
cmp_ok($vacuums, '>', 3, 'and VACUUM ran beside');
# as fast as it goes, with the load still on
value($node, q(CREATE OR REPLACE FUNCTION slowly(i bigint) RETURNS integer LANGUAGE sql AS 'SELECT 1'));
finished($node, 'rows');
finished($node, 'junk');
unload($load);
is(value($node, 'SELECT count(*), count(DISTINCT id), min(n), max(n) FROM rows WHERE id <= 60000'),
	"$rows|$rows|1|1", 'each row was done once');
is(value($node, 'SELECT count(*), count(*) FILTER (WHERE id % 3 = 0) FROM junk'), '40000|0', 'and all that were to go are gone');
is(value($node, q(SELECT sum(rows) FROM bbm_jobs('rows') WHERE phase = 'work')), $rows, 'the jobs have counted them');
is(value($node, q(SELECT sum(rows) FROM bbm_jobs('junk') WHERE phase = 'work')), 20000, 'the deleted ones, too');
note value($node, q(SELECT string_agg(format('%s round %s, %s: %s jobs, %s rows', name, round, phase, jobs, rows), E'\n' ORDER BY name, round, phase DESC)
	FROM (SELECT m.name, j.round, j.phase, count(*) AS jobs, sum(row_count) AS rows FROM batched_background_migration_jobs j
		JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id GROUP BY 1, 2, 3) p));
no_workers($node);
log_clean($node, undef, qr/canceling statement due to lock timeout/, qr/deadlock detected/);

# New rows that meet the filter for ever fail the migration, with a reason.
my $endless = background($node, 'postgres', q(DO $$
BEGIN
	LOOP
		INSERT INTO rows SELECT 2000000, 0, '' FROM generate_series(1, 100);
		COMMIT;
	END LOOP;
END $$));
$node->poll_query_until('postgres', 'SELECT count(*) > 0 FROM rows WHERE id = 2000000');
value($node, q(SELECT bbm_update('endless', 'rows', 'n = 1', 'n = 0', max_attempts => 2, start => true)));
status_is($node, 'endless', 'failed');
like(value($node, q(SELECT last_error FROM bbm_status_detail('endless'))), qr/^55000: after \d+ rounds \d+ rows remain to be done$/,
	'a table that is filled for ever fails the migration');
value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO%'));
finish_background($endless);
value($node, q(SELECT bbm_start('endless')));
finished($node, 'endless', 'which then goes on, and ends');
is(value($node, 'SELECT count(*) FROM rows WHERE n = 0'), 0, 'nothing is left');

# A migration in a cloned database goes on where it was, and its check finds what has been undone since.
value($node, <<'EOS');
CREATE FUNCTION pause(migration text, stop boolean) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
	IF stop THEN
		UPDATE batched_background_migrations SET status = 0 WHERE name = migration AND status = 4;
	END IF;
	RETURN 1;
END $$;
CREATE TABLE copied AS SELECT i AS id, 0 AS n FROM generate_series(1, 5000) i;
EOS
value($node, 'VACUUM copied');
value($node, <<'EOS');
SELECT bbm_update('copied', 'copied', $$n = pause('copied', id = 2500)$$, 'n = 0', batch_size => 226, start => true);
EOS
status_is($node, 'copied', 'paused');
workers_gone($node);
value($node, 'CREATE DATABASE copy TEMPLATE postgres STRATEGY file_copy');
value($node, 'UPDATE copied SET n = 0 WHERE id <= 10', 'copy');
value($node, q(SELECT bbm_start('copied')), $_) for 'postgres', 'copy';
finished($node, 'copied', 'the original finishes');
finished($node, 'copied', 'and so does the cloned database', 'copy');
is(value($node, 'SELECT count(*) FILTER (WHERE n = 1), count(*) FROM copied', $_), '5000|5000', "all rows are done in $_")
  for 'postgres', 'copy';
done_testing();
