# Calls that nobody would write: every function, and plain statements on the tables, with arguments
# drawn from a seed, as a superuser, as a role with all grants and as one with none.  None of them may
# crash a process or meet an internal error (SQLSTATE class XX).
#
#   BBM_FUZZ_SEED, BBM_FUZZ_CALLS    repeat a run, or make a longer one

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed  = $ENV{BBM_FUZZ_SEED}  || (time ^ $$) % 1_000_000;
my $calls = $ENV{BBM_FUZZ_CALLS} || 2000;
srand($seed);
diag("BBM_FUZZ_SEED=$seed BBM_FUZZ_CALLS=$calls");

my $node = bbm_node('fuzz', conf => <<'EOC');
bbm.max_workers = 3
bbm.naptime = 1
bbm.lock_timeout = 100ms
max_worker_processes = 16
log_min_messages = error
log_error_verbosity = default
log_line_prefix = '%m [%p] [%b] %q%a %u %e '
EOC

sub pick { return $_[ int rand @_ ] }

# ---- what there is to be named

my @roles      = qw(granted bare postgres nobody_at_all gone_role pg_monitor);
my @migrations = map { "m$_" } 1 .. 8;
my @tables     = qw(t1 t2 public.t1 text_key parts parts_a heap_only a_view a_matview a_sequence gone_table
  batched_background_migrations pg_class pg_catalog.pg_proc information_schema.tables "Odd.Name" child nowhere.t1 . .. "");
my @columns = ('id', 'n', 'id,n', 'a,b', 'v', 'ctid', 'tableoid', 'gone_column', 'k', 'id desc', 'id,', ',', '"id"', 'Id', '*');
my @jobs    = (
	'UPDATE t1 SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'UPDATE public.t2 SET n = 1 / (n - n) WHERE id BETWEEN $1 AND $2',
	'DELETE FROM t2 WHERE id BETWEEN $1 AND $2', 'UPDATE t1 SET n = n', 'UPDATE t1 SET n = $3 WHERE id BETWEEN $1 AND $2',
	'INSERT INTO t2 SELECT id, n FROM t1 WHERE id BETWEEN $1 AND $2 ON CONFLICT DO NOTHING', 'by_range', 'by_name', 'overloaded',
	'gone_function', 'pg_sleep', 'public.by_range', 'SELECT 1', 'DROP TABLE t1', 'COMMIT', '', ' ', ';', '"', '$1', 'a.b.c.d',
	'UPDATE gone_table SET n = 1 WHERE id BETWEEN $1 AND $2', 'raises', 'big_number', 'UPDATE parts SET n = n + 1 WHERE id BETWEEN $1 AND $2',
	'WITH w AS (UPDATE t1 SET n = 2 WHERE id BETWEEN $1 AND $2 RETURNING 1) SELECT count(*) FROM w');
my @sets = ('n = n + 1', 'n = 1 / 0', 'n = (SELECT max(id) FROM t2)', 'n = x.n FROM t2 x WHERE x.id = t1.id', 'id = id + 1', 'k = 1', 'gone_column = 1',
	'n = DEFAULT', '(n) = (SELECT 1)', 'n', '=', '', 'n = $1', 'n = n; DROP TABLE t1', 'n = now()', q(n = 'text'), 'n = n -- ', 'n = n /* ', 'n = 1 RETURNING 1');
my @conditions = ('n = 0', 'true', 'false', 'NULL', 'n IS NULL', '1 / 0 = 1', 'random() < 0.5', 'gone_column = 1', 'id = ANY (ARRAY[1, 2])',
	'EXISTS (SELECT FROM t2 WHERE t2.id = t1.id)', 'ctid IS NOT NULL', 'xmin IS NULL', '', ')', 'true) OR (true', 'n = $1', 'n = 0 LIMIT 1', 'n = 0 -- ', 'current_user = \'x\'', 'n');
my @settings = ('bbm.lock_timeout=1ms', 'bbm.condition=SELECT true', 'bbm.condition=SELECT 1/0', 'bbm.condition=', 'bbm.max_dead_tuples=0', 'bbm.active_hours=00:00-24:00',
	'bbm.active_hours=x', 'bbm.max_wal_rate=1kB', 'bbm.gone=1', '=', 'x', '', 'bbm.vacuum=on', 'bbm.max_batch_time=-1', 'bbm.max_row_rate=2147483647', 'bbm.max_pace=NaN', 'bbm.max_impact=NaN',
	'bbm.wait_for_autovacuum=maybe', 'bbm.max_horizon_age=1s', 'bbm.max_active_sessions=0', 'bbm.max_dead_tuple_ratio=0.5', 'bbm.max_replication_lag=1', 'bbm.max_unarchived_wal=1');
my @strange = ('', ' ', "'", '\\', '%s', '%', '$$', "\x{c3}\x{a9}\x{e2}\x{82}\x{ac}", 'x' x 600, 'NaN', '-1', '1 day', '{', '{}', 'null', '*', "a\nb", 'on', 'public', 'pg_temp.t');
my %text = (
	name => \@migrations, names => \@migrations, new_name => \@migrations, table_name => \@tables, column_name => \@columns, job => \@jobs, set => \@sets,
	where => \@conditions, filter => \@conditions, check => \@conditions, row_check => \@conditions, index_name => [qw(t1_pkey text_key_pkey gone_index t1_n_idx)],
	on_error => [qw(fail split skip)], origin => ['x', '0/0'], restored => ['true', 'false'],
	batching_strategy => [qw(SerialKeySetBatchingStrategy NullKeySetBatchingStrategy LooseIndexScanBatchingStrategy BlockRangeBatchingStrategy NoSuchStrategy)],
	job_signature_name => \@jobs, set_clause => \@sets, filter => \@conditions, row_check => \@conditions, owner => \@roles, operation => [qw(update delete insert)],
	job_search_path => ['public', '', '"$user", public', 'pg_catalog', ',', '"', 'gone_schema'], key_order => ['int4 asc', 'x', ''], error_sqlstate => ['XX000x', '22012', '']);

# ---- values as SQL, by type

sub quoted
{
	my ($text) = @_;
	return 'NULL' unless defined $text;
	$text =~ s/'/''/g;
	return $text =~ /[\\\n]/ ? "E'" . ($text =~ s/\\/\\\\/gr =~ s/\n/\\n/gr) . "'" : "'$text'";
}

my @numbers = (-1, 0, 1, 2, 3, 5, 10, 50, 100, 256, 257, 1000, 2147483647);
my %values  = (
	boolean  => [qw(true false)],
	bigint   => [ @numbers, 2147483648, 4294967296, 4294967297, 9223372036854775807, '(-9223372036854775807 - 1)' ],
	integer  => [ @numbers, '(-2147483647 - 1)' ],
	smallint => [ -32768, -1, 0, 1, 2, 3, 4, 5, 32767 ],
	'double precision' => [ 0, 1, -1, q('NaN'::float8), q('Infinity'::float8), q('-Infinity'::float8), 1e308, 0.001 ],
	numeric  => [ 0, 1, q('NaN'::numeric), '1e100' ],
	interval => [ map { "interval '$_'" } '0', '1 ms', '10 ms', '100 ms', '1 second', '-1 second', '178000000 years', '-178000000 years', '1 month', '1 day -1 hour', '2 days' ],
	oid      => [ 0, 1, 10, 4294967295, q('t1'::regclass::oid), q('granted'::regrole::oid), q('bare'::regrole::oid), "'batched_background_migrations'::regclass::oid" ],
	regclass => [ q('t1'::regclass), '0::regclass', '4294967295::regclass', q('a_view'::regclass) ],
	'timestamp with time zone' => [ q('infinity'::timestamptz), q('-infinity'::timestamptz), 'now()', q('epoch'::timestamptz), q('294276-12-31'::timestamptz), q('4713-01-01 BC'::timestamptz) ],
	pg_lsn   => [ q('0/0'::pg_lsn), q('FFFFFFFF/FFFFFFFF'::pg_lsn) ],
	'"char"' => [ q('x'::"char") ]);

sub value_of
{
	my ($type, $name) = @_;
	return 'NULL' if rand() < 0.08;
	# of another type
	return pick('1.5::money', q('x'::bit), 'ROW(1, 2)', q('{1}'::int[]), q('[1]'::jsonb), "''::bytea") if rand() < 0.02;
	if ($type =~ /^(.*)\[\]$/)
	{
		my $base = $1;
		return "'{}'::$type" if rand() < 0.1;
		return "ARRAY[ARRAY[NULL, NULL], ARRAY[NULL, NULL]]::$type" if rand() < 0.05;
		return 'ARRAY[' . join(', ', map { value_of($base, $name) } 1 .. 1 + int rand 3) . "]::$type";
	}
	if ($type eq 'text' || $type eq 'name' || $type =~ /^character/)
	{
		my $of = $text{ $name // '' };
		$of = \@settings if ($name // '') eq 'settings';
		return quoted(pick(@$of)) if $of && rand() < 0.8;
		return quoted(pick(@strange, pick(@tables), pick(@columns), pick(@jobs), pick(@migrations), pick(@conditions)));
	}
	return pick(@{ $values{$type} }) if $values{$type};
	return "NULL::$type";
}

# ---- statements

my (@functions, %columns_of);

# What may take long is drawn less often.
sub a_call
{
	my $f;
	do { $f = pick(@functions) } while ($f->{name} =~ /^bbm_(wait|run|launch_worker|cancel)$/ && rand() < 0.8);
	my @given = grep { $_->{n} < $f->{required} || rand() < 0.35 } @{ $f->{args} };
	# one too few
	shift @given if rand() < 0.02;
	my $args = join ', ', map {
		my $value = value_of($_->{type}, $_->{name});
		$f->{variadic} ? "VARIADIC $value" : $_->{name} ? "\"$_->{name}\" => $value" : $value
	} @given;
	return "CALL \"$f->{name}\"($args)" if $f->{kind} eq 'p';
	return pick("SELECT * FROM \"$f->{name}\"($args) LIMIT 5", "SELECT \"$f->{name}\"($args)");
}

sub a_table { return pick((('batched_background_migrations') x 4), (('batched_background_migration_jobs') x 2), sort keys %columns_of) }

sub a_where
{
	my ($table) = @_;
	my $key = pick(sort keys %{ $columns_of{$table} });
	return pick('', " WHERE \"$key\" = " . value_of($columns_of{$table}{$key}, $key), ' WHERE id = (SELECT max(id) FROM batched_background_migrations)',
		" WHERE \"$key\" IS NULL", " WHERE \"$key\"::text > " . quoted(pick(@strange)));
}

# An INSERT as somebody might write it, with a few of the columns changed.
sub an_insert
{
	my %row = (name => quoted(pick(@migrations)), max_value => 100, batch_size => 10, status => pick(0, 1), table_name => quoted('public.' . pick(qw(t1 t2 gone_table))),
		column_name => quoted('id'), job_signature_name => quoted(pick(@jobs)));
	my $columns = $columns_of{batched_background_migrations};
	for (1 .. int rand 4)
	{
		my $column = pick(sort keys %$columns);
		$row{$column} = value_of($columns->{$column}, $column);
	}
	delete $row{ pick(sort keys %row) } if rand() < 0.1;
	my @names = sort keys %row;
	return 'INSERT INTO batched_background_migrations (' . join(', ', map { "\"$_\"" } @names) . ') VALUES (' . join(', ', map { $row{$_} } @names) . ')';
}

sub a_write
{
	my $table   = a_table();
	my $columns = $columns_of{$table};
	my @names   = sort keys %$columns;
	my @some    = map { pick(@names) } 1 .. 1 + int rand 3;
	my %seen;
	@some = grep { !$seen{$_}++ } @some;
	return an_insert() if rand() < 0.4;
	return pick(
		"INSERT INTO $table (" . join(', ', map { "\"$_\"" } @some) . ') VALUES (' . join(', ', map { value_of($columns->{$_}, $_) } @some) . ')',
		"UPDATE $table SET " . join(', ', map { "\"$_\" = " . value_of($columns->{$_}, $_) } @some) . a_where($table),
		"UPDATE batched_background_migrations SET status = " . pick(0, 1, 1, 2, 3, 4, 9) . a_where('batched_background_migrations'),
		"DELETE FROM $table" . a_where($table), "DELETE FROM $table WHERE false",
		"SELECT count(*) FROM $table" . a_where($table), "TRUNCATE $table", 'TRUNCATE batched_background_migrations, batched_background_migration_jobs',
		"SELECT 1 FROM $table" . a_where($table) . ' FOR UPDATE');
}

# The world around the calls; names come and go.
sub a_change
{
	return pick(
		'DROP TABLE IF EXISTS gone_table', 'CREATE TABLE IF NOT EXISTS gone_table (id int PRIMARY KEY, n int)', 'INSERT INTO gone_table SELECT i FROM generate_series(1, 20) i',
		'DROP TABLE IF EXISTS t2', 'CREATE TABLE IF NOT EXISTS t2 (id int PRIMARY KEY, n int); INSERT INTO t2 SELECT i, 0 FROM generate_series(1, 50) i ON CONFLICT DO NOTHING; GRANT ALL ON t2 TO PUBLIC',
		'ALTER TABLE t1 ALTER id TYPE bigint', 'ALTER TABLE t1 ALTER id TYPE int', 'DROP INDEX IF EXISTS t1_n_idx', 'CREATE INDEX IF NOT EXISTS t1_n_idx ON t1 (n)',
		'ALTER TABLE parts DETACH PARTITION parts_a', 'ALTER TABLE parts ATTACH PARTITION parts_a FOR VALUES FROM (0) TO (50)',
		'DROP TABLE IF EXISTS parts_b', 'CREATE TABLE IF NOT EXISTS parts_b PARTITION OF parts FOR VALUES FROM (50) TO (1000)',
		'DROP FUNCTION IF EXISTS gone_function(bigint, bigint)', 'CREATE OR REPLACE FUNCTION gone_function(bigint, bigint) RETURNS int LANGUAGE sql AS \'SELECT 1\'',
		'CREATE ROLE gone_role LOGIN', 'DROP OWNED BY gone_role; DROP ROLE gone_role', 'ALTER ROLE granted NOLOGIN', 'ALTER ROLE granted LOGIN',
		'DROP TABLE IF EXISTS child', 'CREATE TABLE IF NOT EXISTS child () INHERITS (t1)', 'ALTER TABLE t1 RENAME TO t1_renamed', 'ALTER TABLE t1_renamed RENAME TO t1',
		'CREATE TEMP TABLE IF NOT EXISTS t1 (id int PRIMARY KEY, n int)', 'DROP TABLE IF EXISTS pg_temp.t1',
		'CREATE TEMP TABLE IF NOT EXISTS victim (id bigint, status smallint, name text, owner_oid oid)',
		map { "CREATE OR REPLACE TRIGGER trap BEFORE INSERT OR UPDATE OR DELETE ON victim FOR EACH ROW EXECUTE FUNCTION $_()" } qw(bbm_migration_guard bbm_migration_event bbm_job_guard bbm_replica_guard),
		'INSERT INTO victim VALUES (1, 1, \'x\', 1); UPDATE victim SET id = 2; DELETE FROM victim');
}

sub a_setting
{
	return pick('BEGIN', 'COMMIT', 'ROLLBACK', 'SAVEPOINT a', 'ROLLBACK TO a', 'RELEASE a', 'BEGIN ISOLATION LEVEL SERIALIZABLE', 'BEGIN READ ONLY',
		'SET search_path = ' . pick('pg_temp', 'gone_schema', '""', 'public', 'pg_catalog, public'), 'RESET search_path', 'SET DateStyle = ' . pick(qw(German SQL ISO)), 'SET extra_float_digits = -15',
		'SET bbm.' . pick(qw(lock_timeout max_batch_time max_dead_tuples max_wal_rate enabled condition max_workers active_hours)) . ' = ' . pick('0', '1', '-1', 'DEFAULT', "'x'"),
		'SET ROLE ' . pick('granted', 'bare', 'NONE', 'NONE', 'NONE'), 'SET SESSION AUTHORIZATION ' . pick('DEFAULT', 'DEFAULT', 'bare'), 'DISCARD ALL', 'SET plan_cache_mode = ' . pick(qw(force_generic_plan force_custom_plan)),
		'SET enable_indexscan = off', 'SET jit_above_cost = 0', 'RESET ALL');
}

sub statement
{
	my $r = rand();
	return $r < 0.55 ? a_call() : $r < 0.8 ? a_write() : $r < 0.9 ? a_change() : a_setting();
}

# ---- the database

value($node, <<'EOS');
CREATE ROLE granted LOGIN;
CREATE ROLE bare LOGIN;
ALTER ROLE granted SET statement_timeout = 400;
ALTER ROLE granted SET lock_timeout = 200;
ALTER ROLE bare SET statement_timeout = 400;
ALTER ROLE bare SET lock_timeout = 200;
ALTER ROLE postgres SET statement_timeout = 400;
ALTER ROLE postgres SET lock_timeout = 200;
GRANT ALL ON SCHEMA public TO granted;
GRANT ALL ON ALL TABLES IN SCHEMA public TO granted;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO granted;
GRANT ALL ON ALL FUNCTIONS IN SCHEMA public TO granted;
GRANT ALL ON ALL PROCEDURES IN SCHEMA public TO granted;
CREATE TABLE t1 (id int PRIMARY KEY, n int);
CREATE TABLE t2 (id int PRIMARY KEY, n int);
CREATE TABLE text_key (a text, b date, n int, v text DEFAULT '', PRIMARY KEY (a, b));
CREATE TABLE parts (id int PRIMARY KEY, n int, k int) PARTITION BY RANGE (id);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES FROM (0) TO (50);
CREATE TABLE parts_b PARTITION OF parts FOR VALUES FROM (50) TO (1000);
CREATE TABLE heap_only (n int, v text);
CREATE TABLE "Odd.Name" ("Id" uuid PRIMARY KEY, n int);
CREATE VIEW a_view AS SELECT * FROM t1;
CREATE MATERIALIZED VIEW a_matview AS SELECT 1 AS id;
CREATE SEQUENCE a_sequence;
INSERT INTO t1 SELECT i, 0 FROM generate_series(1, 200) i;
INSERT INTO t2 SELECT i, 0 FROM generate_series(1, 50) i;
INSERT INTO text_key SELECT 'k' || i, '2020-01-01'::date + i, 0 FROM generate_series(1, 50) i;
INSERT INTO parts SELECT i, 0, 0 FROM generate_series(1, 100) i;
INSERT INTO heap_only SELECT 0, 'x' FROM generate_series(1, 500) i;
CREATE FUNCTION by_range(lo bigint, hi bigint) RETURNS bigint LANGUAGE sql AS 'UPDATE t1 SET n = n + 1 WHERE id BETWEEN lo AND hi; SELECT 1::bigint';
CREATE FUNCTION by_name(table_name text, column_name text, lo bigint, hi bigint, size int) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION overloaded(int, bigint) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION overloaded(bigint, int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION raises(bigint, bigint) RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION USING ERRCODE = ''P0001'', MESSAGE = repeat(''x'', 5000); END';
CREATE FUNCTION big_number(bigint, bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 9223372036854775807';
ALTER TABLE t1 OWNER TO granted;
ALTER TABLE text_key OWNER TO granted;
ALTER TABLE parts OWNER TO granted;
GRANT ALL ON t1, t2, text_key, parts, heap_only, "Odd.Name" TO PUBLIC;
EOS

for (split /\n/, value($node, q(
	SELECT p.proname, p.prokind, p.pronargs - p.pronargdefaults, p.provariadic <> 0,
		(SELECT string_agg(format_type(t.type, NULL) || '=' || coalesce(p.proargnames[t.n], ''), '|' ORDER BY t.n) FROM unnest(p.proargtypes) WITH ORDINALITY t (type, n))
	FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
	WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	  AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bbm') ORDER BY 1, p.oid)))
{
	my ($name, $kind, $required, $variadic, $args) = split /\|/, $_, 5;
	my $n = 0;
	my @args = map { my ($type, $arg) = split /=/, $_, 2; { n => $n++, type => $type, name => $arg } } split /\|/, $args;
	push @functions, { name => $name, kind => $kind, required => $required, variadic => $variadic eq 't', args => \@args };
}
ok(@functions > 20, 'there are functions to call');
for (split /\n/, value($node, q(
	SELECT c.relname, a.attname, format_type(a.atttypid, NULL)
	FROM pg_depend d JOIN pg_class c ON c.oid = d.objid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
	WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND c.relkind IN ('r', 'v') ORDER BY 1, a.attnum)))
{
	my ($table, $column, $type) = split /\|/;
	$columns_of{$table}{$column} = $type;
}

# ---- the run

my $began = value($node, 'SELECT pg_postmaster_start_time()');
my %share = (postgres => 0.25, granted => 0.5, bare => 0.25);
my @runs;
# perl's order of hashes is another in each run, hence the sorting here and above
for my $role (sort keys %share)
{
	my $file = "$PostgreSQL::Test::Utils::tmp_check/fuzz_$role.sql";
	my @statements = ('SET client_min_messages = error');
	push @statements, statement() for 1 .. $calls * $share{$role};
	append_to_file($file, join(";\n", @statements) . ";\nROLLBACK;\n\\echo the end\n");
	my %p = (role => $role, out => '', err => '');
	local %ENV = $node->_get_env();
	$p{run} = IPC::Run::start([ 'psql', '-Xq', '-o', '/dev/null', '-U', $role, '-d', $node->connstr('postgres'), '-f', $file ], '<', \undef, '>', \$p{out}, '2>', \$p{err});
	push @runs, \%p;
}
for (@runs)
{
	$_->{run}->finish;
	is($_->{run}->result(0), 0, "the session of $_->{role} lives to the end");
	# no text of ours has opened a quotation for those that follow
	ok($_->{out} =~ /^the end$/m && $_->{err} !~ /invalid command/, 'its statements were sent one by one');
}

# A statement as it was, for each that met an internal error.
my @internal;
my $was  = '';
my $seen = () = log_since($node) =~ / [0-9A-Z]{5} ERROR: /g;
# or there would be nothing to find below
cmp_ok($seen, '>', $calls / 10, 'errors of the calls are in the log, with their SQLSTATEs');
for (split /\n/, log_since($node))
{
	push @internal, $_ if / XX[0-9A-Z]{3} (ERROR|FATAL|PANIC|LOG|WARNING): / || ($was && /STATEMENT:|CONTEXT:|DETAIL:/);
	$was = / XX[0-9A-Z]{3} /;
}
is(join("\n", @internal), '', "no internal error (seed $seed)");
is(value($node, q(SELECT string_agg(DISTINCT error_message, E'\n') FROM batched_background_migrations WHERE error_sqlstate LIKE 'XX___')), '', 'nor was one recorded');
is(value($node, 'SELECT pg_postmaster_start_time()'), $began, 'the server is the one that was started');
log_clean($node, "no process has crashed (seed $seed)", qr/FATAL:/);
$node->stop;
done_testing();
