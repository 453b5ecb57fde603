# Databases, extensions, tables and roles that come and go while workers are at work
# in them: nothing needs FORCE, nothing is done twice, and all else goes on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

# no poll of the launcher's own may help
my $node = bbm_node('databases', conf => "bbm.naptime = 0\nallow_in_place_tablespaces = on\n");
my $launcher = launcher_pid($node);

# A database with a migration that is in the middle of two batches.
sub busy
{
	my ($db) = @_;
	value($node, "CREATE DATABASE $db");
	value($node, 'CREATE EXTENSION bbm', $db);
	counter_table($node, 't', 500, $db);
	define($node, 'm', 't', db => $db, job => 'gated', batch_size => 100, workers => 2, start => 'true');
	reach_gate($node, 2);
	return;
}

# Of the workers in a database.
sub workers_in
{
	my ($db) = @_;
	return value($node, "SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE datname = '$db' AND backend_type = 'bbm worker'");
}

# A command that wants the database for itself; not longer than its workers need to exit.
sub command
{
	my ($sql, $what) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-v', 'ON_ERROR_STOP=1' ]);
	return ok($rc == 0 && $err eq '', $what) || (diag($err), 0);
}

# The migration goes on by itself and ends well.
sub goes_on
{
	my ($db, $what) = @_;
	ok($node->poll_query_until('postgres', in_flight(), 2), "$what: the workers come back by themselves");
	gate($node, 'open', $db);
	finished($node, 'm', "$what: and finish", $db);
	once_each($node, 't', 500, "$what: each row was done once", $db);
	ranges_ok($node, 'm', 't', $db);
	is(value($node, "SELECT max(attempts) FROM bbm_jobs('m')", $db), 1, "$what: yielding is no failed attempt");
	workers_gone($node);
	value($node, "DROP DATABASE $db");
	return;
}

busy('app');
command('ALTER DATABASE app RENAME TO renamed', 'ALTER DATABASE RENAME while it works');
goes_on('renamed', 'RENAME');

busy('app');
value($node, "CREATE TABLESPACE place LOCATION ''");
command('ALTER DATABASE app SET TABLESPACE place', 'ALTER DATABASE SET TABLESPACE while it works');
goes_on('app', 'SET TABLESPACE');

for my $strategy ('wal_log', 'file_copy')
{
	busy('app');
	command("CREATE DATABASE clone TEMPLATE app STRATEGY $strategy", "CREATE DATABASE TEMPLATE while it works ($strategy)");
	is(workers_in('clone'), '', 'the clone runs nothing');
	is(value($node, q(SELECT status FROM bbm_status('m')), 'clone'), 'running', 'though its migration is running by name');
	like(value($node, q(SELECT is_copy, waiting_on FROM bbm_status_detail('m')), 'clone'), qr/^t\|.*start here/, 'and says what it waits for');
	goes_on('app', 'TEMPLATE');
	is(value($node, 'SELECT count(*) FROM t WHERE n <> 0', 'clone'), 0, 'the clone was made between two batches');
	gate($node, 'open', 'clone');
	value($node, q(UPDATE batched_background_migrations SET status = 1), 'clone');
	finished($node, 'm', 'started there, the clone works as well', 'clone');
	once_each($node, 't', 500, undef, 'clone');
	ranges_ok($node, 'm', 't', 'clone');
	workers_gone($node);
	value($node, 'DROP DATABASE clone');
}

# Dropped in the middle of a batch.
busy('app');
command('DROP DATABASE app', 'DROP DATABASE while it works');
no_workers($node);
busy('app');
command('DROP DATABASE app WITH (FORCE)', 'DROP DATABASE FORCE as well');
no_workers($node);

# A command that fails leaves everything as it was.
busy('app');
my $session = $node->background_psql('app');
my ($rc, $out, $err) = $node->psql('postgres', 'ALTER DATABASE app RENAME TO other');
like($err, qr/is being accessed by other users/, 'somebody else is still in the way of a RENAME');
unlike($err, qr/There (is|are) [2-9]/, 'our workers are not');
ok($node->poll_query_until('postgres', in_flight(), 2), 'and they come back');
$session->quit;
command('BEGIN; ALTER DATABASE app RENAME TO other; ROLLBACK', 'a RENAME that is rolled back');
goes_on('app', 'a command that failed');

# A role that may not run the command disturbs nobody with it.
busy('app');
value($node, 'CREATE ROLE nobody LOGIN');
my $pids = workers_in('app');
for my $sql ('DROP DATABASE app', 'ALTER DATABASE app RENAME TO mine', 'CREATE DATABASE mine TEMPLATE app')
{
	($rc, $out, $err) = $node->psql('postgres', "SET ROLE nobody; $sql");
	like($err, qr/ERROR:.*(must be owner|permission denied)/, "$sql by somebody else is refused");
}
is(workers_in('app'), $pids, 'and the workers were left alone');
goes_on('app', 'somebody else');

# Nobody may connect: that is no reason to fill the log, and it is temporary.
busy('app');
$node->append_conf('postgresql.conf', 'bbm.naptime = 1s');
$node->reload;
my $offset = log_size($node);
value($node, 'ALTER DATABASE app ALLOW_CONNECTIONS false');
value($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app' AND backend_type = 'bbm worker'");
my $started = time;
value($node, 'SELECT pg_sleep(3)');
my @refused = log_since($node, $offset) =~ /not currently accepting connections/g;
note 'refused ', scalar @refused, ' times';
cmp_ok(scalar @refused, '<', 7 + time - $started, 'a database that refuses connections is left in peace');
value($node, 'ALTER DATABASE app ALLOW_CONNECTIONS true');
ok($node->poll_query_until('postgres', in_flight(), 2), 'and found again when it does not');
gate($node, 'open', 'app');
finished($node, 'm', undef, 'app');
once_each($node, 't', 500, undef, 'app');
$node->append_conf('postgresql.conf', 'bbm.naptime = 0');
$node->reload;
workers_gone($node);
value($node, 'DROP DATABASE app');

# CREATE EXTENSION, rolled back and committed, with a migration that starts in it.
value($node, 'CREATE DATABASE app');
counter_table($node, 't', 500, 'app');
gate($node, 'open', 'app');
my $create = q(CREATE EXTENSION bbm;
	SELECT bbm_create('m', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 100, start => true););
value($node, "BEGIN; $create ROLLBACK", 'app');
workers_gone($node);
is(value($node, 'SELECT max(n) FROM t', 'app'), 0, 'CREATE EXTENSION that is rolled back leaves nothing to do');
value($node, "BEGIN; $create COMMIT", 'app');
finished($node, 'm', 'a migration that is started in the transaction of CREATE EXTENSION runs', 'app');
once_each($node, 't', 500, undef, 'app');

# DROP EXTENSION in the middle of a batch, rolled back, and for good; and another one.
value($node, 'UPDATE t SET n = 0', 'app');
gate($node, 'shut', 'app');
define($node, 'again', 't', db => 'app', job => 'gated', batch_size => 100, workers => 2, start => 'true');
reach_gate($node, 2);
value($node, "SET statement_timeout = '60s'; BEGIN; DROP EXTENSION bbm; ROLLBACK", 'app');
ok($node->poll_query_until('postgres', in_flight(), 2), 'after a DROP EXTENSION that is rolled back the workers come back');
value($node, "SET statement_timeout = '60s'; DROP EXTENSION bbm", 'app');
no_workers($node, 'DROP EXTENSION while it works');
is(value($node, 'SELECT max(n) FROM t', 'app'), 0, 'what was in flight is rolled back');
value($node, 'CREATE EXTENSION bbm', 'app');
define($node, 'again', 't', db => 'app', job => 'gated', batch_size => 100, workers => 2, start => 'true');
reach_gate($node, 2);
gate($node, 'open', 'app');
finished($node, 'again', 'in a new extension a migration of the same name runs', 'app');
once_each($node, 't', 500, undef, 'app');
is(value($node, q(SELECT min(id) FROM bbm_jobs('again')), 'app'), 1, 'from its beginning');

# … in one transaction, and into another schema.
value($node, 'UPDATE t SET n = 0', 'app');
gate($node, 'shut', 'app');
define($node, 'moved', 't', db => 'app', job => 'gated', batch_size => 100, workers => 2, start => 'true');
reach_gate($node, 2);
value($node, <<'EOS', 'app');
SET statement_timeout = '60s';
BEGIN;
DROP EXTENSION bbm;
CREATE SCHEMA jobs;
CREATE EXTENSION bbm SCHEMA jobs;
SET search_path = jobs, public;
UPDATE gate SET open = true;
SELECT bbm_create('moved', 't', 'gated_t', batch_size => 100, workers => 2, start => true);
COMMIT;
EOS
value($node, q(ALTER DATABASE app SET search_path = public, jobs));
finished($node, 'moved', 'the extension dropped and created elsewhere in one transaction', 'app');
once_each($node, 't', 500, undef, 'app');
ranges_ok($node, 'moved', 't', 'app');

# … with its schema, which nobody but the locks announces.
value($node, 'UPDATE t SET n = 0', 'app');
value($node, q(CREATE FUNCTION slow_t(lo bigint, hi bigint) RETURNS void LANGUAGE sql AS
	'UPDATE public.t SET n = n + 1 WHERE id BETWEEN lo AND hi; SELECT pg_sleep(0.1)'), 'app');
value($node, q(SELECT bbm_create('cascade', 't', 'slow_t', batch_size => 1, workers => 2, start => true)), 'app');
$node->poll_query_until('app', q(SELECT jobs_finished > 3 FROM bbm_status_detail('cascade')));
value($node, "SET statement_timeout = '60s'; DROP SCHEMA jobs CASCADE", 'app');
no_workers($node, 'DROP SCHEMA … CASCADE while it works');
is(value($node, 'SELECT count(*) > 3, count(*) < 500, max(n) FROM t WHERE n > 0', 'app'), 't|t|1', 'in the middle, with nothing done twice');
value($node, 'CREATE EXTENSION bbm', 'app');

# DROP TABLE in the middle of its batches: waits for the one in flight, and fails
# that migration alone.
value($node, 'CREATE TABLE kept AS TABLE t; ALTER TABLE kept ADD PRIMARY KEY (id); UPDATE kept SET n = 0; UPDATE t SET n = 0', 'app');
gate($node, 'shut', 'app');
define($node, 'doomed', 't', db => 'app', job => 'gated', batch_size => 50, workers => 2, start => 'true', settings => q('{bbm.max_blocking_time=10min}'));
reach_gate($node, 2);
my $drop = background($node, 'app', "SET application_name = 'dropper'", "SET statement_timeout = '60s'", 'DROP TABLE t');
$node->poll_query_until('postgres', "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE application_name = 'dropper'");
define($node, 'bystander', 'kept', db => 'app', batch_size => 50, start => 'true');
gate($node, 'open', 'app');
is((finish_background($drop))[1], '', 'DROP TABLE while it works');
ok(status_is($node, 'doomed', 'failed', 'app'), 'fails its migration');
is(value($node, q(SELECT failure_error_code, error_sqlstate FROM batched_background_migrations WHERE name = 'doomed'), 'app'),
	'1|42P01', 'with its code');
finished($node, 'bystander', 'and no other', 'app');
once_each($node, 'kept', 500, undef, 'app');

# Roles: what they may is revoked, they are dropped, in the middle of a batch.
value($node, q(CREATE ROLE guest LOGIN; CREATE ROLE heir LOGIN));
value($node, q(UPDATE kept SET n = 0; GRANT SELECT, UPDATE ON kept TO guest; GRANT ALL ON gate TO PUBLIC), 'app');
value($node, q(CREATE FUNCTION gated_kept(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE public.kept SET n = n + 1 WHERE id BETWEEN lo AND hi;
	WHILE EXISTS (SELECT FROM public.gate WHERE NOT open) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$), 'app');
gate($node, 'shut', 'app');
define($node, 'guest', 'kept', db => 'app', job => 'gated', batch_size => 100);
value($node, q(UPDATE batched_background_migrations SET owner = 'guest', status = 1 WHERE name = 'guest'), 'app');
reach_gate($node);
# workers of other migrations may still be about to exit
ok($node->poll_query_until('postgres', q(SELECT DISTINCT usename FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND state = 'active'), 'guest'), 'the worker is its owner');
value($node, "SET statement_timeout = '60s'; DROP OWNED BY guest; DROP ROLE guest", 'app');
gate($node, 'open', 'app');
ok(status_is($node, 'guest', 'failed', 'app'), 'DROP OWNED and DROP ROLE of the owner while it works fail the migration');
like(value($node, q(SELECT last_error FROM bbm_status_detail('guest')), 'app'), qr/permission denied|role/, 'with the reason');
no_workers($node);
is(value($node, q(SELECT count(*) FROM bbm_status()), 'app'), 3, 'bbm_status bears with it');
value($node, q(GRANT SELECT, UPDATE ON kept TO heir; GRANT ALL ON SCHEMA public TO heir), 'app');
($rc, $out, $err) = $node->psql('app', q(SELECT bbm_start('guest')));
unlike($err, qr/server closed the connection|cache lookup failed/, 'a start of it is no accident');
value($node, q(SELECT bbm_pause('guest')), 'app');
value($node, q(SELECT bbm_alter('guest', owner => 'heir'), bbm_start('guest')), 'app');
finished($node, 'guest', 'with another owner it runs', 'app');
once_each($node, 'kept', 500, undef, 'app');

# dropped between two batches, with the migration waiting
define($node, 'orphan', 'kept', db => 'app');
value($node, q(CREATE ROLE short LOGIN));
value($node, q(UPDATE batched_background_migrations SET owner = 'short' WHERE name = 'orphan'), 'app');
value($node, q(DROP ROLE short));
($rc, $out, $err) = $node->psql('app', q(UPDATE batched_background_migrations SET status = 1 WHERE name = 'orphan'));
if ($rc == 0)
{
	ok(status_is($node, 'orphan', 'failed', 'app'), 'a start without an owner fails the migration');
	like(value($node, q(SELECT last_error FROM bbm_status_detail('orphan')), 'app'), qr/role/, 'with the reason');
}
else
{
	like($err, qr/role.*(dropped|does not exist)/, 'a start without an owner is refused');
	is(value($node, q(SELECT status FROM bbm_status('orphan')), 'app'), 'paused', 'and leaves it as it was');
}

# Rapid combinations.
workers_gone($node);
value($node, 'DROP DATABASE app');
for my $round (1 .. 6)
{
	value($node, 'CREATE DATABASE app');
	value($node, 'CREATE EXTENSION bbm', 'app');
	counter_table($node, 't', 200, 'app');
	gate($node, $round % 2 ? 'open' : 'shut', 'app');
	define($node, 'm', 't', db => 'app', job => 'gated', batch_size => 5, workers => 2, start => 'true');
	value($node, 'DROP EXTENSION bbm', 'app') if $round % 3 == 1;
	value($node, 'CREATE EXTENSION bbm', 'app') if $round == 4;
	value($node, 'ALTER DATABASE app RENAME TO app2');
	value($node, 'CREATE DATABASE app3 TEMPLATE app2');
	value($node, 'ALTER DATABASE app2 RENAME TO app');
	value($node, 'DROP DATABASE app') if $round % 2;
	value($node, 'ALTER DATABASE app3 RENAME TO app') if $round % 2;
	value($node, 'DROP DATABASE app3') unless $round % 2;
	value($node, 'DROP DATABASE app') unless $round == 6;
}
pass('rapid combinations of all that');
like(workers_in('app') eq '' ? value($node, 'SELECT status FROM bbm_status()', 'app') : 'running', qr/^(active|running)$/, 'what is left of them runs');
gate($node, 'open', 'app');
finished($node, 'm', 'and finishes', 'app');
once_each($node, 't', 200, undef, 'app');

# A database of any encoding: what bbm says, and what it shortens, is text there.
my %letters = (LATIN1 => 'c3a9', EUC_JP => 'e8a18c', SQL_ASCII => '78');
for my $encoding (sort keys %letters)
{
	value($node, "CREATE DATABASE encoded ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	my ($rc, $out, $err) = $node->psql('encoded', 'CREATE EXTENSION bbm');
	is("$rc$err", '0', "$encoding: CREATE EXTENSION");
	counter_table($node, 't', 200, 'encoded');
	my $letter = "convert_from('\\x$letters{$encoding}', 'UTF8')";
	value($node, "ALTER TABLE t ADD COLUMN k text; UPDATE t SET k = repeat($letter, 100) || id; ALTER TABLE t ADD UNIQUE (k), ALTER COLUMN k SET NOT NULL", 'encoded');
	value($node, "SELECT bbm_update(repeat($letter, 60), 't', 'n = 1 / (id - 17)', column_name => 'k', batch_size => 10, max_attempts => 1)", 'encoded');
	is(value($node, q(SELECT name LIKE '%...%' AND bbm_internal.bbm_width(name) BETWEEN 30 AND 45 FROM bbm_status()), 'encoded'), 't', "$encoding: a long name is shortened");
	value($node, 'SELECT bbm_start()', 'encoded');
	$node->poll_query_until('encoded', q(SELECT status = 'failed' FROM bbm_status()));
	($rc, $out, $err) = $node->psql('encoded', q(SELECT bbm_ensure_finished((SELECT name FROM bbm_status_detail()))));
	like($err, qr/HINT:  bbm_jobs shows which job/, "$encoding: a failure is shown");
	($rc, $out, $err) = $node->psql('encoded', q(SELECT bbm_preview((SELECT name FROM bbm_status_detail()), 0, false); DROP TABLE t;
		SELECT advice FROM bbm_doctor(); SELECT count(*) FROM bbm_jobs(); SELECT bbm_start((SELECT name FROM bbm_status_detail()))));
	is("$rc$err", '0', "$encoding: all that is said is text") or diag($out);
	like($out, qr/bbm_alter\(\.\.\., restart => true\)/, "$encoding: ... and readable");
	workers_gone($node);
	value($node, 'DROP DATABASE encoded');
}

counter_table($node, 'last', 100);
define($node, 'last', 'last', start => 'true');
finished($node, 'last', 'after all that a migration runs as ever');
is(launcher_pid($node), $launcher, 'and the launcher is the same');
no_workers($node);

# A lock on our tables in one database, however long it is held, keeps nobody from being found in another one.
my @checked = qw(postgres other);
value($node, 'CREATE DATABASE other');
value($node, 'CREATE EXTENSION bbm', 'other');
# two that are locked leave the slot to each other, and each says why it is not checked
my @locks = map { background($node, $_, 'BEGIN', 'LOCK TABLE batched_background_migrations', 'SELECT pg_sleep(1000)') } @checked;
$node->poll_query_until($_, q(SELECT EXISTS (SELECT FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'batched_background_migrations'::regclass))) for @checked;
value($node, "SELECT pg_terminate_backend($launcher)");
for my $db (@checked)
{
	my $oid = value($node, "SELECT oid FROM pg_database WHERE datname = '$db'");
	$node->wait_for_log(qr/\[bbm discovery\] LOG:  cannot run migrations in database with OID $oid just now/);
	pass("a database whose tables are locked is named: $db");
}
value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'));
finish_background($_) for @locks;
$launcher = launcher_pid($node);
for my $db (@checked)
{
	counter_table($node, 'silent', 100, $db);
	define($node, 'silent', 'silent', db => $db);
	# nobody announces it
	value($node, q(SET session_replication_role = replica; UPDATE batched_background_migrations SET status = 1 WHERE name = 'silent'), $db);
}
my $locks = background($node, 'postgres', 'BEGIN', 'LOCK TABLE batched_background_migrations', 'SELECT pg_sleep(1000)');
$node->poll_query_until('postgres', q(SELECT EXISTS (SELECT FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'batched_background_migrations'::regclass)));
value($node, "SELECT pg_terminate_backend($launcher)");
finished($node, 'silent', 'while a database is locked, the others are checked', 'other');
value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'));
finish_background($locks);
finished($node, 'silent', 'and then it is, too');
no_workers($node);

# Two sessions drop the extension: the second one finds it gone, as that of any extension would.
my $holder = background($node, 'other', 'SELECT pg_advisory_lock(7)', 'SELECT pg_sleep(1000)');
$node->poll_query_until('other', q(SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND granted)));
my $waiting = sub { $node->poll_query_until('other', "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ '^$_[0]')") };
my @drops = background($node, 'other', 'BEGIN', 'DROP EXTENSION bbm', 'SELECT pg_advisory_xact_lock(7)', 'COMMIT');
$waiting->('SELECT pg_advisory_xact_lock');
push @drops, background($node, 'other', 'DROP EXTENSION IF EXISTS bbm');
$waiting->('DROP EXTENSION IF EXISTS');
value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'));
finish_background($holder);
is((finish_background($drops[0]))[1], '', 'of two sessions that drop the extension, one does');
is((finish_background($drops[1]))[1], 'NOTICE:  extension "bbm" does not exist, skipping', '... and the other one finds that it is gone');

# Whoever waits for our workers to exit holds back no vacuum meanwhile.  A process that is stopped does not answer.
busy('stopped');
my @stopped = split ' ', workers_in('stopped');
kill STOP => @stopped;
my $drop = background($node, 'postgres', 'DROP DATABASE stopped');
ok($node->poll_query_until('postgres',
	q(SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'DROP DATABASE stopped' AND wait_event_type = 'Extension' AND backend_xmin IS NULL)),
	'DROP DATABASE waits without a snapshot');
kill CONT => @stopped;
my (undef, $problem) = finish_background($drop);
is($problem, '', '... and is done when the workers have exited');

# a worker whose database or role went away while it started may say so
log_clean($node, undef, qr/\[bbm (?:worker|discovery)\].* FATAL:  (database \d+ does not exist|role .* does not exist|database "app" is not currently accepting connections)/);
done_testing();
