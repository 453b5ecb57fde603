# pg_upgrade from an older major in the middle of migrations of several strategies: in the
# new cluster each waits and says so, and started there it goes on where it was, with every
# row done once.  011_upgrade has the same within one major.
#
# BBM_OLD_BINDIR is the folder of the older server's programs; the extension has to be
# installed there as well.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $bindir = $ENV{BBM_OLD_BINDIR}
  or plan skip_all => 'BBM_OLD_BINDIR does not name the programs of an older major with the extension';

my $conf = "bbm.max_workers = 8\nmax_worker_processes = 20\n";
# checksums, as what initdb does without being asked differs between majors
my $old = bbm_node('old', bindir => $bindir, initdb => ['--data-checksums'], conf => $conf);

my @tables   = qw(ints texts parted blocks halted);
my $rows     = 600;
my @at_work  = qw(ints texts parted blocks);
my $all_rows = join ' UNION ALL ', map { "SELECT '$_' AS name, n FROM $_" } @tables;
my $jobs = 'SELECT m.name, j.* FROM batched_background_migrations m
	JOIN batched_background_migration_jobs j ON j.batched_background_migration_id = m.id';

# Whose batch stops at a row in the middle, while the gate is shut.
value($old, <<"EOS");
CREATE TABLE gate (open boolean NOT NULL);
INSERT INTO gate VALUES (false);
CREATE FUNCTION step(stop boolean) RETURNS integer LANGUAGE plpgsql AS \$\$
BEGIN
	WHILE stop AND EXISTS (SELECT FROM public.gate WHERE NOT open) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN 1;
END \$\$;
CREATE TABLE ints (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO ints SELECT i FROM generate_series(1, $rows) i;
CREATE TABLE halted (LIKE ints INCLUDING ALL);
INSERT INTO halted TABLE ints;
CREATE TABLE fresh (LIKE ints INCLUDING ALL);
INSERT INTO fresh TABLE ints;
CREATE TABLE texts (id text PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO texts SELECT (ARRAY['', 'é''', 'Z"{,'])[i % 3 + 1] || md5(i::text) FROM generate_series(1, $rows) i;
CREATE TABLE parted (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
CREATE TABLE "parted A" PARTITION OF parted FOR VALUES FROM (0) TO (200);
CREATE TABLE "parted B" PARTITION OF parted FOR VALUES FROM (200) TO (400);
CREATE TABLE "parted C" PARTITION OF parted FOR VALUES FROM (400) TO (1000);
INSERT INTO parted TABLE ints;
CREATE TABLE blocks (id integer, n integer NOT NULL, pad text);
INSERT INTO blocks SELECT i, 0, repeat('x', 200) FROM generate_series(1, $rows) i;
VACUUM ANALYZE;
EOS
my $middle = value($old, 'SELECT quote_literal(id) FROM texts ORDER BY id OFFSET 310 LIMIT 1');
define($old, 'ints', 'ints', batch_size => 50,
	job => 'UPDATE ints SET n = n + step(id = 310) WHERE id BETWEEN $1 AND $2');
for ([ halted => 'id = 310' ], [ texts => "id = $middle" ], [ parted => 'id = 310' ], [ blocks => 'id = 310', 'n = 0' ])
{
	my ($table, $stop, $where) = @$_;
	value($old, "SELECT bbm_update('$table', '$table', \$s\$n = n + step($stop)\$s\$, batch_size => 50"
		  . ($where ? ", filter => '$where')" : ')'));
}
define($old, 'done', 'fresh', start => 'true');
finished($old, 'done');
define($old, 'fresh', 'fresh');
value($old, q(SELECT bbm_start('halted')));
reach_gate($old);
value($old, q(SELECT bbm_pause('halted', cancel => true, wait => true)));
value($old, "SELECT bbm_start('$_')") for @at_work;
reach_gate($old, 4);

my $halves = value($old, "SELECT name, sum(n) FROM ($all_rows) r GROUP BY name ORDER BY name");
is(value($old, "SELECT string_agg(name, ' ' ORDER BY name) FROM
		(SELECT name FROM ($all_rows) r GROUP BY name HAVING sum(n) BETWEEN 100 AND $rows - 100) h"),
	join(' ', sort @tables), 'all are in the middle') or diag($halves);
my $old_jobs = value($old, "$jobs WHERE j.status = 2 ORDER BY j.id");
my $old_id   = value($old, 'SELECT system_identifier FROM pg_control_system()');
$old->stop('fast');

# As copies the old cluster's files are used twice; as links they are the new one's from
# then on, so that comes last.
sub upgrade
{
	my ($mode) = @_;
	my $new = bbm_node("new_$mode", start => 0, initdb => ['--data-checksums'], conf => $conf);
	chdir $new->basedir or die $!;
	command_ok(
		[
			'pg_upgrade', '--no-sync', $mode eq 'link' ? '--link' : (),
			'-d', $old->data_dir, '-D', $new->data_dir,
			'-b', $bindir, '-B', $new->config_data('--bindir'),
			'-s', $new->host, '-p', $old->port, '-P', $new->port
		],
		"pg_upgrade ($mode) with migrations at work");
	$new->start;
	note $old->config_data('--version'), ' to ', $new->config_data('--version');

	isnt(value($new, 'SELECT system_identifier FROM pg_control_system()'), $old_id, 'the new cluster has an identifier of its own');
	is( value($new, q(SELECT count(*) FROM batched_background_migrations WHERE started_at IS NOT NULL AND split_part(origin, '/', 1) <> )
		  . "'$old_id'"),
		0, 'those that were started are of the old one');
	is( value($new, q(SELECT string_agg(name || ' ' || status, ', ' ORDER BY name) FROM bbm_status())),
		'blocks running, done finished, fresh paused, halted paused, ints running, parted running, texts running',
		'the migrations are as they were');
	# a migration of the new cluster's own runs beside them: so there are workers, and they have polled
	value($new, 'CREATE TABLE own AS SELECT id, 0 AS n FROM ints; ALTER TABLE own ADD PRIMARY KEY (id)');
	define($new, 'own', 'own', start => 'true');
	finished($new, 'own', 'one that is defined there runs');
	workers_gone($new);
	is( value($new, q(SELECT string_agg(name, ' ' ORDER BY name) FROM bbm_status_detail() WHERE waiting_on LIKE 'a start here%' AND status = 'running')),
		join(' ', sort @at_work), 'what ran waits, and says for what');
	is(value($new, "SELECT name, sum(n) FROM ($all_rows) r GROUP BY name ORDER BY name"), $halves, '... and nothing of it was done');

	# Rows come to blocks that have been read.
	value($new, 'DELETE FROM blocks WHERE id <= 40');
	value($new, 'VACUUM blocks');
	value($new, q(INSERT INTO blocks SELECT i, 0, repeat('y', 200) FROM generate_series(1, 40) i));
	value($new, 'VACUUM blocks');

	gate($new, 'open');
	value($new, q(UPDATE batched_background_migrations SET status = 1 WHERE name IN ('ints', 'parted', 'blocks')));
	is( value($new, <<'EOS'), 'texts|1', 'a statement starts what is left of those that ran');
SELECT name, bbm_start(name) FROM bbm_status_detail() WHERE status IN ('active', 'running') AND waiting_on LIKE 'a start here%'
EOS
	value($new, "SELECT bbm_start('$_')") for qw(halted fresh);
	finished($new, $_, "$_: started there, it finishes") for (@at_work, 'halted', 'fresh');

	once_each($new, $_, $rows) for @tables;
	is(value($new, 'SELECT count(*), min(n), max(n) FROM fresh'), "$rows|2|2", 'so it was of one that began there');
	# 40 rows of the blocks were restored
	is(value($new, "SELECT sum(rows) FROM bbm_jobs('$_') WHERE phase = 'work'"), $_ eq 'blocks' ? $rows + 40 : $rows, "$_: no row was done in vain") for @tables;
	ranges_ok($new, $_, $_) for qw(ints halted);
	my %new_jobs = map { $_ => 1 } split /\n/, value($new, "$jobs WHERE j.status = 2 ORDER BY j.id");
	is(join("\n", grep { !$new_jobs{$_} } split /\n/, $old_jobs), '', 'the jobs that had ended are as they were');

	no_workers($new);
	log_clean($new);
	$new->stop;
	return;
}

upgrade($_) for qw(copy link);
log_clean($old);
done_testing();
