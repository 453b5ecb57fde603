# Beside the extensions that DBAs preload, with all that they and the server can log: their hooks
# run in our workers, and find there what they would find around a client's statement.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $libdir = `$ENV{PG_CONFIG} --pkglibdir`;
chomp $libdir;
my @wanted  = qw(pgaudit pg_stat_statements auto_explain plpgsql_check pg_cron pg_partman_bgw);
my @present = grep { -e "$libdir/$_.so" } @wanted;
my %has     = map { $_ => 1 } @present;
plan skip_all => 'none of ' . join(', ', @wanted) . ' is installed' unless @present;
for (@wanted)
{
  SKIP:
	{
		skip "$_ is not installed", 1 unless $has{$_};
		pass("beside $_");
	}
}

my %conf = (
	pgaudit => <<'EOC',
pgaudit.log = 'all'
pgaudit.log_catalog = on
pgaudit.log_parameter = on
pgaudit.log_relation = on
pgaudit.log_client = off
pgaudit.role = 'auditor'
EOC
	pg_stat_statements => <<'EOC',
pg_stat_statements.track = all
pg_stat_statements.track_planning = on
pg_stat_statements.track_utility = on
EOC
	auto_explain => <<'EOC',
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
auto_explain.log_analyze = on
auto_explain.log_buffers = on
auto_explain.log_wal = on
auto_explain.log_triggers = on
auto_explain.log_verbose = on
auto_explain.log_settings = on
EOC
	plpgsql_check => <<'EOC',
plpgsql_check.mode = 'every_start'
plpgsql_check.fatal_errors = off
plpgsql_check.profiler = on
plpgsql_check.enable_tracer = on
plpgsql_check.tracer = on
EOC
	pg_cron        => "cron.database_name = 'postgres'\ncron.log_statement = on\ncron.log_run = on\ncron.use_background_workers = on\n",
	pg_partman_bgw => "pg_partman_bgw.dbname = 'postgres'\npg_partman_bgw.interval = 1\n");
my $node = bbm_node('others', preload => 0, extension => 0, conf => join('', map { $conf{$_} } @present) . <<"EOC");
shared_preload_libraries = 'bbm,@{[join ',', @present]}'
max_worker_processes = 20
bbm.max_workers = 4
bbm.log_min_duration = 0
compute_query_id = on
track_io_timing = on
track_functions = all
track_activity_query_size = 1024
log_statement = all
log_min_duration_statement = 0
log_duration = on
log_lock_waits = on
log_temp_files = 0
log_connections = on
log_disconnections = on
log_error_verbosity = verbose
log_min_error_statement = warning
log_line_prefix = '%m [%p] [%b] %q%a %e '
EOC

# How often did a process die?  The postmaster says so.
sub crashes
{
	my @lines = log_since($node) =~ /^.*(?:was terminated by signal|PANIC: |TRAP: |server process .* exited with exit code [2-9]).*$/mg;
	return join "\n", @lines;
}

# Also what the owner's own statements say.
sub as_app
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', 'app', '-v', 'ON_ERROR_STOP=1' ]);
	die "as the owner: $sql\n$err" if $rc != 0;
	return $out;
}

value($node, 'CREATE ROLE auditor; CREATE ROLE app LOGIN; CREATE SCHEMA app AUTHORIZATION app; ALTER ROLE app SET search_path = app, public');
value($node, 'CREATE EXTENSION bbm');
value($node, "CREATE EXTENSION $_") for grep { $has{$_} } qw(pgaudit pg_stat_statements plpgsql_check pg_cron);
value($node, 'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO app; GRANT EXECUTE ON ALL PROCEDURES IN SCHEMA public TO app;
	GRANT SELECT ON ALL TABLES IN SCHEMA public TO app');

# What is migrated: a table for each kind.  Names are of this round, as a round leaves nothing behind.
sub make_tables
{
	as_app(<<'EOS');
CREATE TABLE ints (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, v int);
CREATE TABLE texts (a text, b date, n int NOT NULL DEFAULT 0, PRIMARY KEY (a, b));
CREATE TABLE parts (id int, k int, n int NOT NULL DEFAULT 0, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (0);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (1, 2);
CREATE TABLE deferred (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, parent int REFERENCES deferred DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE poison (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE TABLE undone (id int PRIMARY KEY, n int);
CREATE INDEX ON undone (n);
CREATE TABLE heap (x int, n int NOT NULL DEFAULT 0);
CREATE TABLE many (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE TABLE log (id int, at timestamptz DEFAULT now());
INSERT INTO ints SELECT i FROM generate_series(1, 500) i;
INSERT INTO texts SELECT 'key ' || i, '2020-01-01'::date + i FROM generate_series(1, 100) i;
INSERT INTO parts SELECT i, i % 3 FROM generate_series(1, 300) i;
INSERT INTO deferred SELECT i, 0, nullif(i - 1, 0) FROM generate_series(1, 100) i;
INSERT INTO poison SELECT i, CASE i WHEN 17 THEN 2147483647 ELSE 0 END FROM generate_series(1, 40) i;
INSERT INTO undone SELECT i FROM generate_series(1, 100) i;
INSERT INTO heap SELECT i FROM generate_series(1, 2000) i;
INSERT INTO many SELECT i FROM generate_series(1, 400) i;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO app.log VALUES (new.id);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER note AFTER UPDATE ON deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note();
CREATE FUNCTION by_range(lo bigint, hi bigint) RETURNS int LANGUAGE plpgsql AS $$
DECLARE done int;
BEGIN
	EXECUTE 'UPDATE app.ints SET v = id WHERE id BETWEEN $1 AND $2' USING lo, hi;
	GET DIAGNOSTICS done = ROW_COUNT;
	BEGIN
		PERFORM 1 / (lo - lo);
	EXCEPTION WHEN division_by_zero THEN
		RAISE WARNING 'as expected';
	END;
	RETURN done;
END $$;
CREATE FUNCTION by_name(table_name text, column_name text, lo int, hi int, size int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('UPDATE %s SET n = n + 1 WHERE %I BETWEEN $1 AND $2', table_name, column_name) USING lo, hi;
END $$;
ALTER TABLE many SET (autovacuum_enabled = off);
-- whose dead tuples a worker is to vacuum away
ALTER TABLE ints SET (autovacuum_enabled = off);
GRANT ALL ON ALL TABLES IN SCHEMA app TO auditor;
EOS
	return;
}

# Calls that define a migration each: name, call, what its rows must be, and whether they are.
my @kinds = (
	[ 'ints', q(bbm_update('ints', 'ints', 'n = n + 1', batch_size => 50, workers => 2, %s)), 'SELECT count(*) FROM ints WHERE n = 1', 500 ],
	[ 'range', q(bbm_create('range', 'ints', 'by_range', batch_size => 50, %s)), 'SELECT count(*) FROM ints WHERE v = id', 500 ],
	[ 'texts', q(bbm_update('texts', 'texts', 'n = n + 1', batch_size => 7, sub_batch_size => 3, column_name => 'a,b', %s)), 'SELECT count(*) FROM texts WHERE n = 1', 100 ],
	[ 'parts', q(bbm_update('parts', 'parts', 'n = n + 1', 'n = 0', batch_size => 30, verify => true, %s)), 'SELECT count(*) FROM parts WHERE n = 1', 300 ],
	[ 'named', q(bbm_create('named', 'many', 'by_name', batch_size => 40, target_duration => '1 s', %s)), 'SELECT count(*) FROM many WHERE n = 1', 400 ],
	[ 'deferred', q(bbm_create('deferred', 'deferred', 'UPDATE app.deferred SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 9, %s)),
		'SELECT (SELECT count(*) FROM deferred WHERE n = 1) + (SELECT count(*) FROM log)', 200 ],
	[ 'poison', q(bbm_update('poison', 'poison', 'n = n + 1', batch_size => 20, on_error => 'split', max_attempts => 1, %s)), 'SELECT count(*) FROM poison WHERE n = 1', 39 ],
	[ 'undone', q(bbm_update('undone', 'undone', 'n = id', batch_size => 30, column_name => 'n', batching_strategy => 'NullKeySetBatchingStrategy', %s)),
		'SELECT count(*) FROM undone WHERE n = id', 100 ],
	[ 'heap', q(bbm_update('heap', 'heap', 'n = 1', 'n = 0', batch_size => 300, batching_strategy => 'BlockRangeBatchingStrategy', verify => true, %s)),
		'SELECT count(*) FROM heap WHERE n = 1', 2000 ]);

sub check_rows
{
	my ($how) = @_;
	for (@kinds)
	{
		is(as_app($_->[2]), $_->[3], "rows of \"$_->[0]\" $how");
	}
	return;
}

sub drop_all
{
	as_app('SELECT count(bbm_drop(name)) FROM bbm_status()');
	value($node, 'DROP SCHEMA app CASCADE; CREATE SCHEMA app AUTHORIZATION app');
	return;
}

# Everything once in workers, and once in a session.
sub in_workers
{
	my ($what) = @_;

	make_tables();
	as_app('SELECT ' . sprintf($_->[1], 'start => true')) for @kinds;
	finished($node, $_->[0], "$what: \"$_->[0]\" finishes in workers") for @kinds;
	check_rows("in workers, $what");
	is(as_app('SELECT count(*) FROM bbm_errors(\'poison\')'), '1', 'the row that cannot be done is quarantined');
	like(slurp_file($node->logfile), qr/migration "poison" is finished, 1 row quarantined/, 'the log says so');
	as_app(q(SELECT count(*) FROM bbm_status() s, bbm_jobs(s.name)));
	return;
}

sub in_a_session
{
	my ($what) = @_;

	make_tables();
	as_app('SELECT ' . sprintf($_->[1], 'start => false')) for @kinds;
	# a dry run does batches and undoes them, and a poison row ends it
	as_app("SELECT jobs FROM bbm_dry_run('$_->[0]', 2)") for grep { $_->[0] ne 'poison' } @kinds;
	as_app("SELECT count(*) FROM bbm_preview('$_->[0]', 2)") for grep { $_->[0] ne 'poison' } @kinds;
	as_app(q(SELECT bbm_verify('parts'), bbm_verify('heap'), bbm_verify('ints', 'n = 1')));
	as_app(q(SELECT count(*) FROM bbm_throttle('ints')));
	as_app("CALL bbm_run('$_->[0]')") for @kinds;
	check_rows("in a session, $what");
	return;
}

# What controls migrations, and what throttles them.
sub controls
{
	my ($what) = @_;

	make_tables();
	# an idle owner's worker, not preloaded for: it polls, in the same database
	as_app(q(SELECT bbm_launch_worker('1 second') > 0));
	as_app(q(SELECT bbm_update('c', 'many', 'n = n + 1', batch_size => 10, start => true,
		settings => ARRAY['bbm.condition=SELECT false', 'bbm.lock_timeout=1s'])));
	$node->poll_query_until('postgres', q(SELECT waiting_on LIKE 'condition%' OR waiting_on LIKE '%not met%' FROM bbm_status_detail('c')));
	as_app(q(SELECT bbm_pause('c', cancel => true, wait => true)));
	as_app(q(SELECT bbm_alter('c', settings => ARRAY['bbm.condition=SELECT true'])));
	as_app(q(SELECT bbm_start('c')));
	finished($node, 'c', "$what: a condition");

	# dead tuples, and a worker that vacuums them away
	as_app(q(UPDATE ints SET v = 0; UPDATE ints SET v = 1));
	$node->poll_query_until('postgres', q(SELECT n_dead_tup > 500 FROM pg_stat_user_tables WHERE relname = 'ints'));
	as_app(q(SELECT bbm_update('v', 'ints', 'n = n + 1', batch_size => 100, start => true,
		settings => ARRAY['bbm.vacuum=on', 'bbm.max_dead_tuples=100'])));
	finished($node, 'v', "$what: a worker vacuums");
	is(as_app(q(SELECT vacuum_count > 0 FROM pg_stat_user_tables WHERE relname = 'ints')), 't', 'it has vacuumed');

	# an owner who may not, one whose job is refused, one that fails
	value($node, q(REVOKE UPDATE ON app.undone FROM app; ALTER TABLE app.undone OWNER TO postgres; GRANT SELECT ON app.undone TO app));
	value($node, q(INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, status, owner, settings)
		VALUES ('may not', 100, 10, 'UPDATE app.undone SET n = 1 WHERE id BETWEEN $1 AND $2', 'app.undone', 'id', 1, 'app', '{bbm.missing_job_timeout=0}')));
	$node->poll_query_until('postgres', q(SELECT status = 'failed' FROM bbm_status('may not')));
	like(value($node, q(SELECT last_error FROM bbm_status_detail('may not'))), qr/permission denied for table undone/, 'a job that its owner may not do is refused');
	value($node, q(REVOKE SELECT ON app.undone FROM app));
	value($node, q(SELECT bbm_start('may not')));
	$node->poll_query_until('postgres', q(SELECT status = 'failed' FROM bbm_status('may not')));
	like(value($node, q(SELECT last_error FROM bbm_status_detail('may not'))), qr/permission denied for table undone/, 'and so is a key that he may not read');

	as_app(q(SELECT bbm_sync_trigger('ints', 'v = n')));
	as_app(q(SELECT bbm_sync_trigger('ints', 'v = n', drop => true)));
	as_app(q(SELECT bbm_retry('c'), bbm_cancel('c')));
	as_app(q(SELECT count(*) FROM bbm_workers()));
	as_app(q(SELECT bbm_ensure_finished('c', 'v')));
	drop_all();
	return;
}

in_workers('events logged at once');
drop_all();
in_a_session('events logged at once');
drop_all();
controls('events logged at once');
if ($has{pgaudit})
{
	# ... or when the statement has ended, with the rows it has had
	$node->append_conf('postgresql.conf', "pgaudit.log_rows = on\npgaudit.log_statement_once = on\n");
	$node->reload;
	in_workers('rows logged');
	drop_all();
}

# hooks, and the log, find the statement's text in a worker, too
like(log_since($node), qr/\[bbm worker\] .*STATEMENT:  SELECT .*by_range/, 'a worker\'s statement has a text');
SKIP:
{
	skip 'without pgaudit', 3 unless $has{pgaudit};
	my $log = log_since($node);
	like($log, qr/\[bbm worker\].*AUDIT: .*WRITE,UPDATE,TABLE,app\.ints/, 'what a worker writes is audited');
	like($log, qr/\[bbm worker\].*AUDIT: .*READ,SELECT,TABLE,app\.ints/, 'and that it reads a key');
	like($log, qr/\[bbm worker\].*AUDIT: .*VACUUM/, 'and that it vacuums');
}
SKIP:
{
	skip 'without pg_stat_statements', 2 unless $has{pg_stat_statements};
	is(value($node, q(SELECT count(*) > 0 FROM pg_stat_statements WHERE query LIKE 'UPDATE ONLY app.ints%' AND calls > 1)), 't', 'the statement of a batch is counted');
	is(value($node, q(SELECT count(*) FROM pg_stat_statements WHERE query ~ '^(UPDATE x SET|SELECT .* FROM x WHERE)')), '0', 'what is only checked is none');
}
if ($has{pg_cron})
{
	is(value($node, q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher')), '1', 'pg_cron runs');
}

# Commands that want our workers to exit.
value($node, 'CREATE DATABASE other');
value($node, 'CREATE EXTENSION bbm; CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO t SELECT i FROM generate_series(1, 100) i', 'other');
value($node, q(SELECT bbm_create('slow', 't', 'UPDATE t SET n = n + 1 + length(pg_sleep(0.1)::text) WHERE id BETWEEN $1 AND $2', batch_size => 1, start => true)), 'other');
$node->poll_query_until('other', q(SELECT count(*) > 0 FROM batched_background_migration_jobs));
value($node, 'DROP DATABASE other');
value($node, 'SET client_min_messages = error; DROP EXTENSION bbm CASCADE; CREATE EXTENSION bbm');

is(crashes(), '', 'no process has crashed');
unlike(log_since($node), qr/\[bbm (worker|launcher|discovery|discovery)\].* XX[0-9]{3} /, 'nor met an internal error');
log_clean($node, 'the log is clean', qr/\[(pg_cron|pg_partman)/);
$node->stop;
done_testing();
