# Commands that need a database without our workers: one that the server refuses disturbs nobody,
# one that is undone lets the workers come back at once, and any number may run side by side.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

# no poll of the launcher's own may help
my $node = bbm_node('commands', conf => "bbm.naptime = 0\nallow_in_place_tablespaces = on\nmax_prepared_transactions = 2\n");
value($node, "CREATE TABLESPACE $_ LOCATION ''") for ('place', 'forbidden');

# A database with a migration that is in the middle of two batches.
value($node, 'CREATE DATABASE app');
value($node, 'CREATE EXTENSION bbm', 'app');
counter_table($node, 't', 500, 'app');
define($node, 'm', 't', db => 'app', job => 'gated', batch_size => 100, workers => 2, start => 'true');
reach_gate($node, 2);

# Of the workers in it.
sub workers
{
	return value($node, q(SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE datname = 'app' AND backend_type = 'bbm worker'));
}

# A command that the server refuses disturbs nobody.
value($node, 'CREATE ROLE nobody LOGIN; CREATE ROLE holder LOGIN; CREATE ROLE creator LOGIN CREATEDB; GRANT CREATE ON TABLESPACE place TO holder');
value($node, 'ALTER DATABASE app OWNER TO holder');
my $pids = workers();

sub refused
{
	my ($role, $sql, $error, $db) = @_;
	my ($rc, $out, $err) = $node->psql($db || 'postgres', "SET SESSION AUTHORIZATION $role; $sql");
	like($err, qr/ERROR:.*$error/, "$sql by $role is refused");
	is(workers(), $pids, '... and the workers were left alone');
	return;
}
for my $sql ('DROP DATABASE app', 'DROP DATABASE IF EXISTS app WITH (FORCE)', 'ALTER DATABASE app RENAME TO mine',
	'ALTER DATABASE app SET TABLESPACE place', 'CREATE DATABASE mine TEMPLATE app')
{
	refused('nobody', $sql, '(must be owner|permission denied)');
	refused('nobody', "DO \$\$ BEGIN $sql; EXCEPTION WHEN OTHERS THEN RAISE; END \$\$", '(must be owner|permission denied|cannot)');
}
refused('creator', 'CREATE DATABASE mine TEMPLATE app',       'permission denied to copy');
refused('creator', 'ALTER DATABASE app RENAME TO mine',       'must be owner');
refused('holder',  'ALTER DATABASE app RENAME TO mine',       'permission denied to rename');
refused('holder',  'CREATE DATABASE mine TEMPLATE app',       'permission denied to create');
refused('holder',  'BEGIN; DROP DATABASE app; COMMIT',        'cannot run inside a transaction block');
refused('holder',  'DO $$ BEGIN DROP DATABASE app; END $$',   'cannot be executed from a function');
refused('holder',  'ALTER DATABASE app SET TABLESPACE gone',  'does not exist');
refused('holder',  'ALTER DATABASE app SET TABLESPACE forbidden', 'permission denied for tablespace');
refused('holder',  'ALTER DATABASE app SET TABLESPACE pg_global', '(permission denied|pg_global)');
refused('holder',  'DROP DATABASE app',                       'currently open database', 'app');
refused('holder',  'SET default_transaction_read_only = on; DROP DATABASE app', 'read-only transaction');
refused('postgres', 'ALTER DATABASE app RENAME TO postgres',  'already exists');
refused('postgres', 'ALTER DATABASE app RENAME TO other',     'current database', 'app');
refused('postgres', 'CREATE DATABASE postgres TEMPLATE app',  'already exists');
refused('postgres', 'BEGIN; CREATE DATABASE mine TEMPLATE app; COMMIT', 'cannot run inside a transaction block');
refused('postgres', 'DROP EXTENSION bbm, gone',               'does not exist', 'app');
for my $role ('nobody', 'holder')
{
	refused($role, 'DROP EXTENSION bbm',                         'must be owner', 'app');
	refused($role, 'DROP EXTENSION IF EXISTS bbm CASCADE',       'must be owner', 'app');
	refused($role, 'BEGIN; SAVEPOINT a; DROP EXTENSION bbm; ROLLBACK TO a; SELECT 1; COMMIT', 'must be owner', 'app');
	refused($role, 'DO $$ BEGIN DROP EXTENSION bbm; EXCEPTION WHEN OTHERS THEN RAISE; END $$', 'must be owner', 'app');
}
is(value($node, q(DROP DATABASE IF EXISTS gone; SELECT 1)), 1, 'IF EXISTS of no database');
is(workers(), $pids, '... disturbs nobody either');
value($node, 'ALTER DATABASE app OWNER TO postgres');

# A command that a savepoint rolls back has ended, though its transaction has not.
for my $sql ('ALTER DATABASE app RENAME TO other', 'DO $$ BEGIN ALTER DATABASE app RENAME TO other; RAISE; EXCEPTION WHEN OTHERS THEN END $$')
{
	my $open = $node->background_psql('postgres');
	$open->query_safe('BEGIN');
	$open->query_safe('SAVEPOINT a');
	$open->query_safe($sql);
	$open->query_safe('ROLLBACK TO a') if $sql !~ /DO/;
	ok($node->poll_query_until('postgres', in_flight(), 2), "$sql, undone in a transaction that goes on: the workers come back");
	$open->query_safe('COMMIT');
	$open->quit;
}
{
	my $open = $node->background_psql('app');
	$open->query_safe($_) for ('BEGIN', 'SAVEPOINT a', 'DROP EXTENSION bbm', 'ROLLBACK TO a');
	ok($node->poll_query_until('postgres', in_flight(), 2), 'DROP EXTENSION, undone in a transaction that goes on: the workers come back');
	$open->query_safe($_) for ('SAVEPOINT b', 'SAVEPOINT c', 'DROP EXTENSION bbm', 'RELEASE c');
	no_workers($node, 'one in a savepoint that is released keeps them away');
	# the rollback is of another savepoint: the lock that shows it to workers stays
	my $kept = $open->query_safe(q(SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'userlock'));
	$open->query_safe($_) for ('SAVEPOINT d', 'ROLLBACK TO d');
	is($open->query_safe(q(SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'userlock')), $kept, '... also when another one after it is undone');
	cmp_ok($kept, '>', 0, '... by a lock');
	$open->query_safe('ROLLBACK TO b');
	ok($node->poll_query_until('postgres', in_flight(), 2), '... until the one around it is undone');
	$open->quit;
}

# Any number at once; and no worker waits for a database that somebody has locked.
counter_table($node, 'beside', 10);
value($node, "CREATE DATABASE spare$_") for (1 .. 9);
{
	my $open = $node->background_psql('postgres');
	$open->query_safe('BEGIN');
	$open->query_safe("ALTER DATABASE spare$_ RENAME TO other$_") for (1 .. 9);
	$open->query_safe('ALTER DATABASE app RENAME TO other');
	define($node, 'beside', 'beside', start => 'true');
	finished($node, 'beside', 'ten databases renamed at once: a migration of another one runs');
	is(value($node, q(SELECT count(*) FROM pg_locks WHERE classid = 'pg_database'::regclass AND NOT granted)), 0,
		'... and no worker waits for the tenth');
	$open->query_safe('ROLLBACK');
	$open->quit;
}
ok($node->poll_query_until('postgres', in_flight(), 2), 'when that is rolled back the workers come back');
value($node, "DROP DATABASE spare$_") for (1 .. 9);

# Prepared, it outlives its session.
my $prepares = $node->background_psql('postgres');
$prepares->query_safe(q(BEGIN; ALTER DATABASE app RENAME TO other; PREPARE TRANSACTION 'renames'));
value($node, q(SELECT bbm_drop('beside')));
define($node, 'beside', 'beside', start => 'true');
finished($node, 'beside', 'while a prepared transaction has a database, a migration of another one runs');
is(value($node, q(SELECT count(*) FROM pg_locks WHERE classid = 'pg_database'::regclass AND NOT granted)), 0, '... and no worker waits');
value($node, q(ROLLBACK PREPARED 'renames'; SELECT bbm_drop('beside')));
ok($node->poll_query_until('postgres', in_flight(), 2), 'when it is rolled back the workers come back, though the session that has prepared it is there');
$prepares->quit;
gate($node, 'open', 'app');
finished($node, 'm', 'and finish', 'app');
once_each($node, 't', 500, undef, 'app');
is(value($node, q(SELECT max(attempts) FROM bbm_jobs('m')), 'app'), 1, 'nothing of all this was a failed attempt');
workers_gone($node);

# The template that nobody names.
value($node, 'CREATE EXTENSION bbm', 'template1');
counter_table($node, 't', 500, 'template1');
define($node, 'm', 't', db => 'template1', job => 'gated', batch_size => 100, start => 'true');
reach_gate($node, 1);
is(($node->psql('postgres', 'CREATE DATABASE clone'))[2], '', 'CREATE DATABASE while a worker is in template1');
ok($node->poll_query_until('postgres', in_flight(), 1), '... which comes back');
value($node, 'DROP DATABASE clone');
value($node, 'DROP EXTENSION bbm; DROP TABLE t, gate; DROP FUNCTION gated_t', 'template1');
workers_gone($node);

# The launcher leaves databases alone whose catalog row says that nobody can connect: no FATAL at every poll.
value($node, "CREATE DATABASE $_; ALTER DATABASE $_ ALLOW_CONNECTIONS " . ($_ eq 'closed' ? 'false' : 'true')) for ('closed', 'invalid', 'limited');
value($node, 'CREATE EXTENSION bbm', 'invalid');
counter_table($node, 't', 100, 'invalid');
define($node, 'm', 't', db => 'invalid', job => 'gated', start => 'true');
reach_gate($node, 1);
# as a DROP DATABASE that has failed midway leaves it
value($node, q(UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'invalid'));
value($node, 'ALTER DATABASE limited CONNECTION LIMIT 0');
my $offset = log_size($node);
value($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'invalid'");
$node->append_conf('postgresql.conf', "bbm.naptime = 1s\nlog_min_messages = debug1");
$node->reload;
for (1 .. 600)
{
	# three of them can be polled: twice each, and then some
	last if (() = log_since($node, $offset) =~ /starting background worker process "bbm discovery/g) > 8;
	value($node, 'SELECT pg_sleep(0.1)');
}
cmp_ok(scalar(() = log_since($node, $offset) =~ /starting background worker process "bbm discovery/g), '>', 8, 'the launcher polls, again and again');
is(join("\n", grep { !/terminating background worker .*due to administrator command/ } log_since($node, $offset) =~ /^.*FATAL:.*$/mg),
	'', '... and not where it cannot connect');
$node->append_conf('postgresql.conf', "bbm.naptime = 0\nlog_min_messages = warning");
$node->reload;
log_clean($node);
done_testing();
