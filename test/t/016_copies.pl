# Cloned and restored databases, made in every way there is from one that is at work: each
# waits and says so, until it is started; and the original goes on.  What 007_dump and
# 005_databases test is not repeated.  And logical replication, which copies some tables.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('original', streaming => 1, conf => "bbm.naptime = 1s\nwal_level = logical\n");
my $dir  = PostgreSQL::Test::Utils::tempdir;

# A database with the extension in a schema of its own, one migration that is done and one at work.
sub database
{
	my ($db, $schema) = @_;
	value($node, "CREATE DATABASE $db");
	value($node, "CREATE SCHEMA IF NOT EXISTS $schema; CREATE EXTENSION bbm SCHEMA $schema; ALTER DATABASE $db SET search_path = public, $schema", $db);
	counter_table($node, 't', 500, $db);
	gate($node, 'open', $db);
	define($node, 'done', 't', db => $db, batch_size => 100, max_value => 200, start => 'true');
	finished($node, 'done', "$db: some of it is done", $db);
	gate($node, 'shut', $db);
	define($node, 'rest', 't', db => $db, job => 'gated', batch_size => 100, workers => 2, min_value => 201, start => 'true');
	reach_gate($node, 2);
	return;
}

sub original_goes_on
{
	my ($db) = @_;
	ok($node->poll_query_until('postgres', in_flight(), 2), "$db: the original was not disturbed");
	gate($node, 'open', $db);
	finished($node, 'rest', "$db: the original finishes", $db);
	once_each($node, 't', 500, undef, $db);
	workers_gone($node);
	return;
}

sub copy_waits
{
	my ($to, $db, $how) = @_;
	is( value($to, q(SELECT string_agg(name || ' ' || status, ', ') FROM bbm_status()), $db),
		'done finished, rest running', "$how: the migrations came along");
	like(value($to, q(SELECT waiting_on FROM bbm_status_detail('rest')), $db), qr/start here/, "$how: what was at work waits, and says so");
	value($to, 'SELECT pg_sleep(1.2)', $db);
	is(value($to, "SELECT count(*) FROM pg_stat_activity WHERE datname = '$db' AND backend_type = 'bbm worker'"), 0, "$how: nothing runs");
	is( value($to, q(SELECT string_agg(DISTINCT event, ' ' ORDER BY event) FROM bbm_events), $db),
		'created finished running', "$how: and so did the events");
	gate($to, 'open', $db);
	value($to, q(SELECT bbm_start('rest')), $db);
	finished($to, 'rest', "$how: started there, it finishes", $db);
	once_each($to, 't', 500, undef, $db);
	# the numbers of all three tables go on
	value($to, q(SELECT bbm_create('next', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', start => true)), $db);
	finished($to, 'next', "$how: and another can be defined", $db);
	$to->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '$db' AND backend_type ~ 'bbm'");
	return;
}

sub psql_file
{
	my ($to, $db, $file, $how) = @_;
	my ($out, $err);
	my $ok = IPC::Run::run([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $to->connstr($db), '-f', "$dir/$file" ], '>', \$out, '2>', \$err);
	ok($ok, "$how: the restore succeeds") or diag($err);
	return;
}

# pg_dump: with INSERTs, and of one schema.
database('app', 'ops');
my @dump = ('pg_dump', '-d', $node->connstr('app'));
for my $case ([ 'inserts', '--inserts' ], [ 'columns', '--column-inserts', '--rows-per-insert=3' ])
{
	my ($name, @options) = @$case;
	command_ok([ @dump, @options, '-f', "$dir/$name.sql" ], "pg_dump @options while it runs");
	value($node, "CREATE DATABASE $name TEMPLATE template0; ALTER DATABASE $name SET search_path = public, ops");
	psql_file($node, $name, "$name.sql", "@options");
	copy_waits($node, $name, "@options");
}
# a schema is not the extension, which has to be named
command_ok([ @dump, '-n', 'public', '-f', "$dir/schema.sql" ], 'pg_dump of one schema while it runs');
unlike(slurp_file("$dir/schema.sql"), qr/batched_background/, '-n public: without the migrations');
value($node, 'CREATE DATABASE part TEMPLATE template0; ALTER DATABASE part SET search_path = public, ops');
value($node, 'DROP SCHEMA public', 'part');
psql_file($node, 'part', 'schema.sql', '-n public');
is(value($node, 'SELECT count(*), sum(n) FROM t', 'part'), '500|200', '-n public: the tables alone');
command_ok([ @dump, '-n', 'public', '-n', 'ops', '-e', 'bbm', '-f', "$dir/two.sql" ], 'pg_dump of schemas with -e bbm');
value($node, 'CREATE DATABASE two TEMPLATE template0; ALTER DATABASE two SET search_path = public, ops');
value($node, 'DROP SCHEMA public', 'two');
psql_file($node, 'two', 'two.sql', '-n -e bbm');
copy_waits($node, 'two', '-n -e bbm');
# pg_restore --clean, in parallel, over migrations that are there and do not run
command_ok([ @dump, '-Fd', '-j2', '-f', "$dir/dir" ], 'pg_dump -Fd -j2');
command_ok([ 'pg_restore', '-j2', '--clean', '--if-exists', '-d', $node->connstr('inserts'), "$dir/dir" ], 'pg_restore -j2 --clean --if-exists');
copy_waits($node, 'inserts', 'pg_restore --clean');
original_goes_on('app');

# A base backup cannot be distinguished from its original: it goes on, unless bbm.enabled is off.
database('base', 'ops');
$node->backup('base');
ok($node->poll_query_until('postgres', in_flight(), 2), 'pg_basebackup disturbs no batch');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($node, 'base');
$copy->append_conf('postgresql.conf', 'bbm.enabled = off');
$copy->start;
is(value($copy, q(SELECT status FROM bbm_status('rest')), 'base'), 'running', 'pg_basebackup: a server of its own');
like(value($copy, q(SELECT waiting_on FROM bbm_status_detail('rest')), 'base'), qr/bbm\.enabled/, '... waits, with bbm.enabled = off, and says so');
value($copy, 'SELECT pg_sleep(1.2)');
is(value($copy, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bbm worker'"), 0, '... and runs nothing');
original_goes_on('base');
gate($copy, 'open', 'base');
$copy->append_conf('postgresql.conf', 'bbm.enabled = on');
$copy->reload;
finished($copy, 'rest', '... and with the switch on goes on by itself', 'base');
once_each($copy, 't', 500, undef, 'base');
no_workers($copy);
log_clean($copy);
$copy->stop;

# Logical replication: to a server that has migrations of its own, from all tables there are.
my $subscriber = bbm_node('subscriber', conf => "wal_level = logical\n", extension => 0);
for my $side ($node, $subscriber)
{
	value($side, 'CREATE DATABASE pub');
	value($side, 'CREATE EXTENSION bbm', 'pub');
	counter_table($side, 't', 500, 'pub');
	counter_table($side, 'own', 100, 'pub');
	gate($side, 'open', 'pub');
}
value($subscriber, 'TRUNCATE t, gate', 'pub');
value($node, 'TRUNCATE own', 'pub');
# of the same ids, names and all, at work and done
define($subscriber, 'm', 'own', db => 'pub', batch_size => 10, start => 'true');
finished($subscriber, 'm', 'a migration of the subscriber', 'pub');
define($subscriber, 'waits', 'own', db => 'pub');
define($node, 'before', 't', db => 'pub', batch_size => 10, max_value => 100, start => 'true');
finished($node, 'before', 'one of the publisher', 'pub');
my $own = value($subscriber, q(SELECT m::text FROM batched_background_migrations m ORDER BY id), 'pub')
  . value($subscriber, q(SELECT j::text FROM batched_background_migration_jobs j ORDER BY id), 'pub')
  . value($subscriber, q(SELECT e::text FROM bbm_events e ORDER BY id), 'pub');
value($node, 'CREATE PUBLICATION everything FOR ALL TABLES', 'pub');
value($subscriber, 'CREATE SUBSCRIPTION sub CONNECTION $c$' . $node->connstr('pub') . '$c$ PUBLICATION everything', 'pub');
$subscriber->wait_for_subscription_sync($node, 'sub', 'pub');
is(value($subscriber, 'SELECT count(*), sum(n) FROM t', 'pub'), '500|100', 'FOR ALL TABLES: the first copy arrives');
define($node, 'm', 't', db => 'pub', batch_size => 10, workers => 2, start => 'true');
finished($node, 'm', 'the publisher migrates', 'pub');
value($node, q(SELECT bbm_drop('before')), 'pub');
value($node, q(CREATE TABLE flushed ()), 'pub');
$node->wait_for_catchup('sub');
is(value($subscriber, 'SELECT count(*), sum(n) FROM t', 'pub'), '500|600', 'what its batches change arrives');
is( value($subscriber, q(SELECT m::text FROM batched_background_migrations m ORDER BY id), 'pub')
	  . value($subscriber, q(SELECT j::text FROM batched_background_migration_jobs j ORDER BY id), 'pub')
	  . value($subscriber, q(SELECT e::text FROM bbm_events e ORDER BY id), 'pub'),
	$own, "the subscriber's own migrations, jobs and events are as they were");
value($subscriber, q(SELECT bbm_start('waits')), 'pub');
finished($subscriber, 'waits', 'and run', 'pub');
is(value($subscriber, 'SELECT min(n), max(n) FROM own', 'pub'), '2|2', '... each row once, by either');
unlike(log_since($subscriber), qr/\[logical replication[^\]]*\].*ERROR/, 'replication met no error');
# a TRUNCATE that is replicated empties no table here with migrations that run
is(value($subscriber, q(SELECT count(*) FROM pg_trigger WHERE tgname = 'bbm_truncate' AND tgenabled = 'A'), 'pub'), 6, 'TRUNCATE is guarded there, too');
no_workers($subscriber);
value($subscriber, 'DROP SUBSCRIPTION sub', 'pub');
log_clean($subscriber);
no_workers($node);
log_clean($node);
done_testing();
