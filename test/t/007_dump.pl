# pg_dump while migrations run, and what is restored: it loads, waits and says so,
# and once started does what the dump has not done.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

# no batch yields to what waits for it before the test says so
my $node = bbm_node('dump', conf => "bbm.naptime = 1s\nbbm.max_blocking_time = 10min\n");
my $dir  = PostgreSQL::Test::Utils::tempdir;
my $conn = $node->connstr('postgres');

$node->safe_psql('postgres', 'CREATE ROLE early LOGIN');
counter_table($node, 't', 1000);
counter_table($node, 'u', 1000);
define($node, 'running', 't', job => 'gated', batch_size => 100, workers => 2);
define($node, 'done', 'u');
define($node, 'paused', 'u');
value($node, "ALTER TABLE u OWNER TO early; UPDATE batched_background_migrations SET owner = 'early' WHERE name = 'paused'");
# a dump has the owner's name, which has to be the one of now
value($node, 'ALTER ROLE early RENAME TO gone');
ok($node->poll_query_until('postgres', "SELECT owner = 'gone' FROM batched_background_migrations WHERE name = 'paused'"),
	'the new name of an owner is recorded');
define($node, 'failed', 'u', max_attempts => 1, job => 'UPDATE u SET n = n / (id - id) WHERE id BETWEEN $1 AND $2');

# Half of it done, two batches in the middle of it.
value($node, "SELECT bbm_start('done')");
finished($node, 'done');
value($node, "SELECT bbm_start('failed')");
status_is($node, 'failed', 'failed');
gate($node, 'open');
value($node, "UPDATE batched_background_migrations SET max_value = 400 WHERE name = 'running'");
value($node, "SELECT bbm_start('running')");
finished($node, 'running', 'four batches are done');
# a finished one stays so: the rest is another
gate($node, 'shut');
define($node, 'rest', 't', job => 'gated', batch_size => 100, workers => 2, min_value => 401);
value($node, "SELECT bbm_start('rest')");
reach_gate($node, 2);

my @plain = ('pg_dump', '-d', $conn);
command_ok([ @plain, '-f', "$dir/plain.sql" ], 'a dump while it runs');
command_ok([ @plain, '--clean', '--if-exists', '-f', "$dir/clean.sql" ], 'with --clean');
command_ok([ @plain, '--data-only', '-f', "$dir/data.sql" ], 'of the data alone');
command_ok([ @plain, '--no-owner', '-f', "$dir/no-owner.sql" ], 'with --no-owner');
command_ok([ @plain, '-Fd', '-j2', '-f', "$dir/parallel" ], 'in parallel');
command_ok([ @plain, '-Fc', '-f', "$dir/custom" ], 'in one file');
ok($node->poll_query_until('postgres', in_flight(), 2), 'the batches in flight were not disturbed');

# A restored database does not run its migrations and says so, and is complete after a start.
sub copy_ok
{
	my ($to, $db, $how) = @_;

	is(value($to, 'SELECT count(*), count(*) FILTER (WHERE n = 1) FROM t', $db), '1000|400', "$how: the rows as they were committed");
	is( value(
			$to,
			"SELECT string_agg(name || ' ' || status, ', ') FROM bbm_status()", $db),
		'running finished, done finished, paused paused, failed failed, rest running',
		"$how: the migrations as they were");
	like(value($to, "SELECT is_copy, waiting_on FROM bbm_status_detail('rest')", $db), qr/^t\|.*start here/, "$how: what ran waits, and says for what");
	# the launcher polls every second, and finds nothing to do there
	value($to, 'SELECT pg_sleep(1.2)', $db);
	is(value($to, "SELECT count(*) FROM pg_stat_activity WHERE datname = '$db' AND backend_type = 'bbm worker'"),
		0, "$how: nothing runs there");
	is( value($to, "SELECT count(*) FROM bbm_events WHERE name = 'rest' AND event = 'started'", $db),
		1, "$how: the events came along");

	gate($to, 'open', $db);
	value($to, "UPDATE batched_background_migrations SET status = 1 WHERE name = 'rest'", $db);
	finished($to, 'rest', "$how: started there, it finishes", $db);
	once_each($to, 't', 1000, "$how: each row was done once", $db);
	is(value($to, "SELECT is_copy, waiting_on IS NULL FROM bbm_status_detail('rest')", $db), 'f|t', "$how: waits for nothing");

	# numbers go on after those of the dump
	value($to, "SELECT bbm_create('fresh', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN \$1 AND \$2', start => true)", $db);
	finished($to, 'fresh', "$how: a new one can be defined and runs", $db);
	is(value($to, "SELECT id FROM batched_background_migrations WHERE name = 'fresh'", $db), 6, "$how: with the next id");

	# the one that had failed
	value($to, "DROP TABLE u CASCADE", $db);
	value($to, "CREATE TABLE u AS SELECT i::bigint AS id, 0 AS n FROM generate_series(1, 1000) i; ALTER TABLE u ADD PRIMARY KEY (id); GRANT ALL ON u TO PUBLIC", $db);
	value($to, "SELECT bbm_alter('failed', job => 'UPDATE u SET n = n + 1 WHERE id BETWEEN \$1 AND \$2'), bbm_start('failed')", $db);
	finished($to, 'failed', "$how: a failed one can be corrected and started", $db);
	once_each($to, 'u', 1000, "$how: and did its rows once", $db);
	return;
}

sub restore
{
	my ($to, $db, $how, @command) = @_;
	my ($out, $err);
	my $ok = IPC::Run::run(\@command, '>', \$out, '2>', \$err);
	ok($ok && $err !~ /ERROR/, "$how: the restore succeeds") or diag($err);
	return $ok && $err !~ /ERROR/;
}

sub psql_to
{
	my ($to, $db, $file) = @_;
	return ('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $to->connstr($db), '-f', "$dir/$file");
}

# Beside the original, in the same server.
for my $case (
	[ 'plain',    sub { psql_to($node, 'plain', 'plain.sql') } ],
	[ 'parallel', sub { ('pg_restore', '-j2', '-e', '-d', $node->connstr('parallel'), "$dir/parallel") } ],
	[ 'custom', sub { ('pg_restore', '--single-transaction', '-d', $node->connstr('custom'), "$dir/custom") } ],
	[ 'data', sub { psql_to($node, 'data', 'data.sql') } ])
{
	my ($db, $command) = @$case;
	value($node, "CREATE DATABASE $db TEMPLATE template0");
	if ($db eq 'data')
	{
		command_ok([ @plain, '--schema-only', '-f', "$dir/schema.sql" ], 'a dump of the schema alone');
		restore($node, $db, 'schema', psql_to($node, $db, 'schema.sql'));
	}
	copy_ok($node, $db, $db) if restore($node, $db, $db, $command->());
}

# Over the original, while that works.
ok($node->poll_query_until('postgres', in_flight(), 2), 'the original is still at work');
{
	my ($out, $err) = ('', '');
	my $psql = IPC::Run::start([ psql_to($node, 'postgres', 'clean.sql') ], '>', \$out, '2>', \$err);
	# DROP TABLE waits for the batches, and for these alone
	ok( $node->poll_query_until(
			'postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ '(DROP|ALTER) TABLE'"),
		'--clean: DROP TABLE waits for the batches in flight');
	gate($node, 'open');
	my $ok = $psql->finish && $err !~ /ERROR/;
	ok($ok, '--clean: the restore succeeds') or diag($err);
	copy_ok($node, 'postgres', '--clean') if $ok;
}
no_workers($node);
log_clean($node);
$node->stop;

# Into another cluster, where a role is missing.
my $other = bbm_node('elsewhere', extension => 0, conf => "bbm.naptime = 1s\n");
value($other, 'CREATE DATABASE restored');
if (restore($other, 'restored', '--no-owner', psql_to($other, 'restored', 'no-owner.sql')))
{
	copy_ok($other, 'restored', '--no-owner');
	my ($rc, $out, $err) = $other->psql('restored', "SELECT bbm_start('paused')");
	like($err, qr/role "gone" does not exist/, 'a migration whose owner is missing cannot be started');
	value($other, "SELECT bbm_alter('paused', owner => current_user)", 'restored');
	value($other, "SELECT bbm_start('paused')", 'restored');
	finished($other, 'paused', 'but can be given to another', 'restored');
}
no_workers($other);
log_clean($other);

done_testing();
