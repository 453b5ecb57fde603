# Two-phase commit: a start that is prepared takes effect when it is committed,
# from whichever session, and after a restart in between.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

# no poll of the launcher's own may help
my $node = bbm_node('prepared', conf => "max_prepared_transactions = 5\nbbm.naptime = 0\n");
counter_table($node, 't', 1000);
gate($node, 'open');

sub jobs
{
	my ($name) = @_;
	return value($node,
		"SELECT count(*) FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name = '$name'");
}

sub prepare
{
	my ($gid, $sql, $what) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "BEGIN; $sql; PREPARE TRANSACTION '$gid'");
	return ok($rc == 0 && $err eq '', $what) || (diag($err), 0);
}

# A start.
define($node, 'start', 't', batch_size => 100);
workers_gone($node);
SKIP:
{
	prepare('start', q(UPDATE batched_background_migrations SET status = 1 WHERE name = 'start'),
		'a start can be prepared')
	  or skip 'no prepared transaction', 2;

	# another one starts and ends meanwhile, and does not wait for the first
	define($node, 'other', 't', batch_size => 500);
	value($node, "SELECT bbm_start('other')");
	finished($node, 'other');
	no_workers($node);
	is(jobs('start'), 0, 'nothing happens until it is committed');
}
$node->psql('postgres', "COMMIT PREPARED 'start'");
if (value($node, q(SELECT status FROM bbm_status('start'))) eq 'paused')
{
	fail('it could not be started');
}
else
{
	finished($node, 'start', 'then it runs');
	is(value($node, 'SELECT count(*), min(n), max(n) FROM t'), '1000|2|2', 'both did each row once');
}

# A start that is rolled back.
define($node, 'back', 't');
SKIP:
{
	prepare('back', q(SELECT bbm_start('back')), 'bbm_start can be prepared')
	  or skip 'no prepared transaction', 1;
	$node->safe_psql('postgres', "ROLLBACK PREPARED 'back'");
	is(value($node, q(SELECT status FROM bbm_status('back'))), 'paused', 'rolled back, it is not started');
}

# Transactions that are none of bbm's: their commits start no process.  With distributed tables (Citus) each write to several
# nodes is such a one on each of them.
SKIP:
{
	# the launcher searches for what it was asked to discover before it starts a worker
	my $discovers = sub { scalar(() = log_since($node, $_[0]) =~ /starting background worker process "bbm discovery/g) };
	my $runs = sub { define($node, $_[0], 't'); value($node, "SELECT bbm_start('$_[0]')"); finished($node, $_[0]); return };
	value($node, q(ALTER SYSTEM SET log_min_messages = 'debug1'; SELECT pg_reload_conf()));
	$runs->('before');
	my $since = log_size($node);
	prepare('no_start', 'UPDATE t SET n = n - 2', 'a transaction of others can be prepared')
	  or skip 'no prepared transaction', 3;
	$node->safe_psql('postgres', "COMMIT PREPARED 'no_start'");
	$runs->('after');
	is($discovers->($since), 0, '... and its commit starts no process');

	# the extension itself, with a migration
	value($node, 'CREATE DATABASE prepared');
	my ($rc, undef, $err) = $node->psql('prepared', <<'EOS');
SET client_min_messages = error;
BEGIN;
CREATE TABLE u AS SELECT i::bigint AS id, 0 AS n FROM generate_series(1, 10) i;
ALTER TABLE u ADD PRIMARY KEY (id);
CREATE EXTENSION bbm;
SELECT bbm_update('with it', 'u', 'n = n + 1', start => true);
PREPARE TRANSACTION 'extension';
EOS
	is("$rc: $err", '0: ', 'the extension can be created, with a migration, and prepared');
	value($node, "COMMIT PREPARED 'extension'", 'prepared');
	ok($node->poll_query_until('prepared', 'SELECT min(n) = 1 FROM u'), '... and committed, it runs');
	value($node, q(ALTER SYSTEM RESET log_min_messages; SELECT pg_reload_conf()));
}

# A migration defined and started, prepared, and committed after a restart.
SKIP:
{
	prepare(
		'create',
		q(SELECT bbm_create('create', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', start => true)),
		'a definition can be prepared')
	  or skip 'no prepared transaction', 3;
	$node->stop('immediate'); $node->start;
	workers_gone($node);
	is(value($node, 'SELECT max(n) FROM t'), 2, 'nothing ran of it');
	$node->safe_psql('postgres', "COMMIT PREPARED 'create'");
	finished($node, 'create', 'committed after a restart, it runs');
	is(value($node, 'SELECT count(*), min(n), max(n) FROM t'), '1000|3|3', 'and did each row once');
}

# A prepared pause: claims wait for it, nothing fails, and it takes effect.
$node->safe_psql('postgres', 'UPDATE t SET n = 0');
gate($node, 'shut');
define($node, 'pause', 't', job => 'gated', batch_size => 100);
value($node, "SELECT bbm_start('pause')");
reach_gate($node);
SKIP:
{
	prepare('pause', q(UPDATE batched_background_migrations SET status = 0 WHERE name = 'pause'),
		'a pause can be prepared while a batch runs')
	  or skip 'no prepared transaction', 4;
	gate($node, 'open');
	$node->poll_query_until('postgres', 'SELECT count(*) = 100 FROM t WHERE n = 1');
	$node->poll_query_until('postgres', "SELECT waiting_on LIKE 'a lock on the migration: prepared transaction with id %' FROM bbm_status_detail('pause')");
	is(jobs('pause'), 1, 'no batch is claimed while it is undecided');
	$node->safe_psql('postgres', "COMMIT PREPARED 'pause'");
	no_workers($node);
	is(jobs('pause'), 1, 'nor after it was committed');
	value($node, "SELECT bbm_start('pause')");
	finished($node, 'pause');
	once_each($node, 't', 1000);
}

log_clean($node);
done_testing();
