# What the TAP tests share: a server with bbm, tables whose rows count how often
# they were done, jobs that stop in the middle of a batch, and the checks.

package BbmTest;

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(dirname);
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(
  bbm_node counter_table define gate reach_gate in_flight status_is finished
  once_each ranges_ok no_workers workers_gone launcher_pid worker_pid value
  background finish_background log_since log_size log_clean start_anyway poll_restarting restarted
  set_clock start_with_clock
);

# Why a test ended early belongs in its output, not only in its log.
$SIG{__DIE__} = sub { diag($_[0]) if defined $^S && !$^S };

# Older minor releases, 16.2 for one, leave the newline at the end of what a query of a background session says.
if (eval { require PostgreSQL::Test::BackgroundPsql })
{
	my $query = \&PostgreSQL::Test::BackgroundPsql::query;
	no warnings 'redefine';
	*PostgreSQL::Test::BackgroundPsql::query = sub {
		my ($output, $failed) = $query->(@_);
		$output =~ s/\r?\n\z// if defined $output;
		return wantarray ? ($output, $failed) : $output;
	};
}

# A server that preloads bbm, with the extension in database postgres.  Its settings
# of bbm are those that are shipped but for one: a failed job is tried again soon.
# Options: conf (text), preload (1), extension (1), streaming (0), start (1), initdb (its options),
# bindir (of another installation).
sub bbm_node
{
	my ($name, %o) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, $o{bindir} ? (install_path => dirname($o{bindir})) : ());

	$node->init($o{streaming} ? (allows_streaming => 1) : (), $o{initdb} ? (extra => $o{initdb}) : ());
	$node->append_conf('postgresql.conf', <<"EOC");
restart_after_crash = on
log_statement = none
log_line_prefix = '%m [%p] [%b] %q%a '
max_connections = 40
shared_buffers = 16MB
bbm.retry_delay = 20ms
EOC
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'bbm'")
	  unless defined $o{preload} && !$o{preload};
	$node->append_conf('postgresql.conf', $o{conf}) if $o{conf};
	return $node if defined $o{start} && !$o{start};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION bbm')
	  unless defined $o{extension} && !$o{extension};
	return $node;
}

# A clock that is so many seconds ahead, or behind, for each server that start_with_clock
# starts: by a library between the server and the system.
my $clock_folder;

sub set_clock
{
	my ($seconds) = @_;
	$clock_folder //= PostgreSQL::Test::Utils::tempdir();
	append_to_file("$clock_folder/new", $seconds);
	rename "$clock_folder/new", "$clock_folder/clock" or die $!;
	return;
}

sub start_with_clock
{
	my ($node, $seconds) = @_;
	set_clock($seconds // 0);
	my $library = "$clock_folder/clock.so";
	PostgreSQL::Test::Utils::system_or_bail('cc', '-shared', '-fPIC', '-o', $library, dirname(__FILE__) . '/../clock.c', '-ldl')
	  unless -e $library;
	local @ENV{qw(LD_PRELOAD BBM_TEST_CLOCK)} = ($library, "$clock_folder/clock");
	$node->start;
	return;
}

# One value, from whichever database.
sub value
{
	my ($node, $sql, $db) = @_;
	return $node->safe_psql($db || 'postgres', $sql);
}

# A table of so many rows with n = 0, and a job function for it that stops in
# the middle of its batch while the gate is shut.  The gate is shut by default.
sub counter_table
{
	my ($node, $table, $rows, $db) = @_;
	$node->safe_psql($db || 'postgres', <<"EOS");
CREATE TABLE IF NOT EXISTS gate (open boolean NOT NULL);
INSERT INTO gate SELECT false WHERE NOT EXISTS (SELECT FROM gate);
CREATE TABLE $table (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO $table SELECT i FROM generate_series(1, $rows) i;
CREATE FUNCTION gated_$table(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS \$\$
DECLARE
	done bigint;
BEGIN
	UPDATE public.$table SET n = n + 1 WHERE id BETWEEN lo AND hi;
	GET DIAGNOSTICS done = ROW_COUNT;
	WHILE EXISTS (SELECT FROM public.gate WHERE NOT open) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN done;
END \$\$;
EOS
	return;
}

# define($node, $name, $table, option => SQL value, …): a paused migration that
# counts each row once more.  job => 'gated' takes the table's gated function.
sub define
{
	my ($node, $name, $table, %o) = @_;
	my $db  = delete $o{db}  || 'postgres';
	my $job = delete $o{job} || "UPDATE $table SET n = n + 1 WHERE id BETWEEN \$1 AND \$2";
	$job = "gated_$table" if $job eq 'gated';
	# an adaptive size is for those that ask for it
	$o{batch_size} //= 1000 unless $o{target_duration};
	my $options = join '', map { ", $_ => $o{$_}" } sort keys %o;
	return value($node, "SELECT bbm_create('$name', '$table', '$job'$options)", $db);
}

# gate($node, 'open' or 'shut')
sub gate
{
	my ($node, $to, $db) = @_;
	value($node, 'UPDATE gate SET open = ' . ($to eq 'open' ? 'true' : 'false'), $db);
	return;
}

# How many workers are inside a batch, stopped at the gate (or asleep in one).  To be
# polled: between two naps one is awake for a moment.
sub in_flight
{
	return "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event = 'PgSleep'";
}

# Waits until so many are.
sub reach_gate
{
	my ($node, $n) = @_;
	$n = 1 unless defined $n;
	return $node->poll_query_until('postgres', in_flight(), $n)
	  || BAIL_OUT_of($node, "no $n workers at the gate");
}

sub BAIL_OUT_of
{
	my ($node, $why) = @_;
	fail($why);
	diag(value($node, 'SELECT * FROM bbm_workers()'), "\n", value($node, 'SELECT * FROM bbm_status_detail()'));
	return 0;
}

# Waits for a status by its word.
sub status_is
{
	my ($node, $name, $word, $db) = @_;
	return $node->poll_query_until($db || 'postgres',
		"SELECT status FROM bbm_status('$name')", $word);
}

# Waits for the end, and fails if it is not the good one.
sub finished
{
	my ($node, $name, $what, $db) = @_;
	$node->poll_query_until($db || 'postgres',
		"SELECT status IN ('finished', 'failed') FROM bbm_status('$name')");
	my $state = value($node, "SELECT status, last_error FROM bbm_status_detail('$name')", $db);
	my $ok    = $state =~ /^finished\|/;
	ok($ok, $what || "migration $name finishes")
	  or diag("$state\n" . value($node, "SELECT * FROM bbm_status_detail('$name')", $db));
	return $ok;
}

# Each row was done once, and there are as many as there should be.
sub once_each
{
	my ($node, $table, $rows, $what, $db) = @_;
	return is(
		value($node, "SELECT count(*), count(*) FILTER (WHERE n = 0), count(*) FILTER (WHERE n > 1) FROM $table", $db),
		"$rows|0|0",
		$what || "each of $rows rows of $table was done once");
}

# All jobs are finished, none overlaps another, and no key is outside of them.
sub ranges_ok
{
	my ($node, $name, $table, $db) = @_;
	return is(
		value($node, <<"EOS", $db),
WITH jobs_ AS (
	SELECT j.*, lag(j.max_value) OVER (ORDER BY j.min_value) AS before
	FROM batched_background_migration_jobs j
	JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id
	WHERE m.name = '$name'),
edges_ AS (
	SELECT min_value AS key, max_value AS last FROM jobs_ UNION ALL SELECT id, NULL FROM $table),
keys_ AS (
	SELECT key, last, max(last) OVER (ORDER BY key, last NULLS LAST) AS covered FROM edges_)
SELECT (SELECT count(*) FROM jobs_ WHERE status <> 2),
       (SELECT count(*) FROM jobs_ WHERE before >= min_value),
       (SELECT count(*) FROM keys_ WHERE last IS NULL AND covered >= key IS NOT TRUE),
       (SELECT sum(row_count) FROM jobs_) - (SELECT count(*) FROM $table)
EOS
		'0|0|0|0',
		"$name: jobs finished, none overlaps, no key is missing, rows counted");
}

# Nobody of ours but the launcher.
sub workers_gone
{
	my ($node) = @_;
	return $node->poll_query_until('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('bbm worker', 'bbm discovery')", '0');
}

sub no_workers
{
	my ($node, $what) = @_;
	return ok(workers_gone($node), $what || 'no worker is left');
}

sub launcher_pid
{
	my ($node) = @_;
	return value($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'bbm launcher'");
}

# Of the one that is in a batch.
sub worker_pid
{
	my ($node) = @_;
	return value($node, 'SELECT pid FROM bbm_workers() WHERE job IS NOT NULL LIMIT 1');
}

# Sends statements that will not return soon; finish_background waits for them
# and returns their output and their errors.
sub background
{
	my ($node, $db, @sql) = @_;
	my %p = (out => '', err => '');
	local %ENV = $node->_get_env();

	$p{run} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), map { ('-c', $_) } @sql ],
		'<', \undef, '>', \$p{out}, '2>', \$p{err});
	return \%p;
}

sub finish_background
{
	my ($p) = @_;
	$p->{run}->finish;
	chomp($p->{out}, $p->{err});
	return ($p->{out}, $p->{err});
}

sub log_size
{
	my ($node) = @_;
	return -s $node->logfile;
}

sub log_since
{
	my ($node, $offset) = @_;
	return slurp_file($node->logfile, $offset || 0);
}

# Nothing in the log that no test expects: crashes of the server's own making,
# errors of our processes.  Others of ours are passed as patterns.
sub log_clean
{
	my ($node, $what, @expected) = @_;
	my @bad = grep {
		my $line = $_;
		($line =~ /\b(PANIC|TRAP):|terminated by signal (?!9\b|3\b)|stuck spinlock|could not find (entry|parent)|WARNING:  (leaked|problem in|you don't own|buffer refcount|snapshot|terminating)/
			  || $line =~ /\[bbm (launcher|worker|discovery)\] .*(ERROR|FATAL):/)
		  && $line !~ /terminating (background worker|connection) .*(due to administrator command|because of crash)/
		  && !grep { $line =~ $_ } @expected
	} split /\n/, log_since($node);
	is(join("\n", @bad), '', $what || 'nothing unexpected in the server log');
	return;
}

# poll_query_until of a server that restarts meanwhile: a psql that it refuses may be gone before its statement is written to it.
sub poll_restarting
{
	my ($node, $sql, $expected) = @_;
	for (1 .. 100)
	{
		my $seen = eval { local $SIG{__DIE__}; $node->poll_query_until('postgres', $sql, $expected) };
		return $seen if defined $seen;
		usleep(100_000);
	}
	return 0;
}

# Waits until the server is back after a crash, with a launcher that has begun since then.
sub restarted
{
	my ($node, $since) = @_;
	return poll_restarting($node,
		"SELECT NOT pg_is_in_recovery() AND count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bbm launcher' AND backend_start > '$since'");
}

# Starts a server whose processes may still be on their way out.
sub start_anyway
{
	my ($node) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 if $node->start(fail_ok => 1);
		usleep(100_000);
		# it may have come up late
		$node->stop('fast', fail_ok => 1);
	}
	BAIL_OUT('the server does not start');
}

1;
