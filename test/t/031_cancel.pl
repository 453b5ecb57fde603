# A cancel that the owner's code catches: whoever waits for it to end does not wait for ever.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use Fcntl qw(O_NONBLOCK O_WRONLY);
use POSIX qw(mkfifo);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = bbm_node('cancel', conf => "bbm.naptime = 0\nlog_min_messages = log\n");

# Sleeps for ever: what it catches lets it go on.  "stubborn" also catches what PL/pgSQL's others does not.
my %catches = (caught => 'query_canceled OR others', stubborn => 'query_canceled OR assert_failure OR others');

sub functions
{
	my ($db) = @_;
	value($node, 'CREATE EXTENSION bbm', $db) if $db ne 'postgres';
	counter_table($node, 't', 100, $db);
	for my $name (keys %catches)
	{
		value($node, <<"EOS", $db);
CREATE FUNCTION sleep_$name() RETURNS boolean LANGUAGE plpgsql AS \$\$
BEGIN
	LOOP
		BEGIN
			PERFORM pg_sleep(1000000);
		EXCEPTION WHEN $catches{$name} THEN
			NULL;
		END;
	END LOOP;
END \$\$;
CREATE FUNCTION job_$name(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	UPDATE public.t SET n = n + 1 WHERE id BETWEEN lo AND hi;
	PERFORM public.sleep_$name();
END \$\$;
EOS
	}
	return;
}

# Batches that would never end are ended in time: nothing here has a reason to take a minute.
sub ends
{
	my ($what, $sql, $error, %o) = @_;
	my ($rc, $out, $err) = $node->psql($o{db} || 'postgres', "SET statement_timeout = '60s'; $sql", on_error_stop => 1);
	$error ? like($err, qr/$error/, $what) : is($err, '', $what);
	return $out;
}

sub begin
{
	my ($name, $job, %o) = @_;
	define($node, $name, 't', job => $job, batch_size => 50, start => 'true', %o);
	reach_gate($node);
	return;
}

# Opens a pipe for writing if somebody has it open, or waits to open it, for reading.
sub open_for_reader
{
	my ($path) = @_;
	my $writer;
	close($writer) if sysopen($writer, $path, O_WRONLY | O_NONBLOCK);
	return;
}

functions('postgres');

for my $kind (sort keys %catches)
{
	begin("paused $kind", "job_$kind");
	my $pid = worker_pid($node);
	my $offset = log_size($node);
	value($node, "SELECT bbm_pause('paused $kind', cancel => true)");
	ok($node->poll_query_until('postgres', "SELECT count(*) FROM bbm_workers() WHERE job IS NOT NULL", 0), "$kind: one cancel is enough for a pause");
	workers_gone($node);
	my $log = log_since($node, $offset);
	like($log, qr/\[$pid\] \[bbm worker\].*a statement caught the cancel/, '... the log says so');
	$kind eq 'stubborn' ? like($log, qr/\[$pid\] \[bbm worker\].*FATAL:  terminating background worker/, '... the worker is terminated')
	  : unlike($log, qr/FATAL/, '... the worker is not terminated');
	is(value($node, "SELECT max(attempts) FROM bbm_jobs('paused $kind')"), 0, '... that is no failed attempt') if $kind eq 'caught';
	value($node, "SELECT bbm_drop('paused $kind')");

	begin("cancelled $kind", "job_$kind");
	is(ends("$kind: bbm_cancel returns", "SELECT bbm_cancel('cancelled $kind')"), 1, '... having cancelled one');
	value($node, "SELECT bbm_drop('cancelled $kind')");

	begin("dropped $kind", "job_$kind");
	ends("$kind: bbm_drop returns", "SELECT bbm_drop('dropped $kind')");

	begin("in the way $kind", "job_$kind", settings => q('{bbm.max_blocking_time=100ms}'));
	ends("$kind: a session that waits for a row of the batch gets it", 'UPDATE t SET n = n WHERE id = 1');
	ends("... and the table", 'BEGIN; LOCK TABLE t; COMMIT');
	value($node, "SELECT bbm_cancel('in the way $kind'), bbm_drop('in the way $kind')");
}
is(value($node, 'SELECT max(n) FROM t'), 0, 'nothing of these is done');

# A limit of the batch's own.
begin('too long', 'job_caught', settings => q('{bbm.max_batch_time=100ms}'));
ok($node->poll_query_until('postgres', q(SELECT last_error LIKE '%batch took too long%' FROM bbm_status_detail('too long'))), 'a batch that takes too long is undone');
value($node, q(SELECT bbm_cancel('too long')));
ends('... and in a session that is its error', q(CALL bbm_run('too long')), 'ERROR:  the batch took too long');
is(value($node, q(SELECT status FROM bbm_status('too long'))), 'running', '... the migration stays started');
value($node, q(SELECT bbm_cancel('too long'), bbm_drop('too long')));

# Somebody cancels the session.
sub cancel_session
{
	my ($name, $what, $error) = @_;
	my $session = background($node, 'postgres', "SET application_name = 'runs'", "CALL bbm_run('$name')");
	$node->poll_query_until('postgres', q(SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'runs' AND wait_event = 'PgSleep'));
	value($node, q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'runs'));
	like((finish_background($session))[1], qr/$error/, $what);
	return;
}
# no worker is to go on with them
$node->append_conf('postgresql.conf', 'bbm.enabled = off');
$node->reload;
$node->poll_query_until('postgres', "SELECT current_setting('bbm.enabled') = 'off'");
define($node, 'by hand', 't', job => 'job_caught', batch_size => 50);
cancel_session('by hand', 'a cancel ends the call though its job catches it', 'ERROR:  canceling statement due to user request');
value($node, q(SELECT bbm_drop('by hand')));
value($node, q(CREATE FUNCTION job_once(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(1000000);
EXCEPTION WHEN query_canceled THEN
	UPDATE public.t SET n = n + 1 WHERE id BETWEEN lo AND hi;
END $$));
define($node, 'once', 't', job => 'job_once', batch_size => 50);
cancel_session('once', 'a job that catches it and ends ends the call as well', 'ERROR:  canceling statement due to user request');
is(value($node, q(SELECT jobs_finished FROM bbm_status_detail('once'))) . value($node, 'SELECT count(*) FROM t WHERE n = 1'), '150', '... and is done');
value($node, q(SELECT bbm_drop('once')));
# ... and so does a condition.  Its own time limit may come first: then it is asked again.
value($node, q(CREATE FUNCTION condition_once() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(1000000);
	RETURN false;
EXCEPTION WHEN query_canceled THEN
	RETURN true;
END $$));
value($node, 'UPDATE t SET n = 0');
define($node, 'asked', 't', settings => q('{bbm.condition=SELECT condition_once()}'));
my $asked = background($node, 'postgres', "SET application_name = 'runs'", q(CALL bbm_run('asked')));
my $cancels = q(SELECT count(pg_cancel_backend(pid)), (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'runs')
	FROM pg_stat_activity WHERE application_name = 'runs' AND wait_event = 'PgSleep');
$node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'runs' AND wait_event = 'PgSleep'));
$node->poll_query_until('postgres', "SELECT there = 0 FROM ($cancels) AS c (cancelled, there)");
like((finish_background($asked))[1], qr/ERROR:  canceling statement due to user request/, 'a condition that catches it ends the call as well');
is(value($node, 'SELECT max(n) FROM t'), 0, '... and nothing is done');
value($node, q(SELECT bbm_drop('asked')));

# The time limit of a condition cancels nothing else: not the batch that starts before the limit is over,
# nor when it is over so late that the condition has ended.  A process that opens a pipe checks for no
# cancel until another one opens the other end, and then fails, as a pipe cannot be seeked.
my $pipe = $node->basedir . '/pipe';
mkfifo($pipe, 0600) or die "mkfifo: $!";
link($pipe, "$pipe.2") or die "link: $!";
value($node, q(CREATE FUNCTION naps(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE public.t SET n = n + 1 WHERE id BETWEEN lo AND hi;
	PERFORM pg_sleep(1.5);
END $$));
define($node, 'late', 't', job => 'naps', batch_size => 50, settings => qq(ARRAY['bbm.condition=SELECT pg_read_file(''$pipe'') IS NOT NULL']));
my $late = background($node, 'postgres', q(CALL bbm_run('late')));
my $seen = 0;
for (1 .. $PostgreSQL::Test::Utils::timeout_default)
{
	# longer than the limit; if the server has opened it later than that, once more
	sleep 2;
	open_for_reader($pipe);
	$seen = value($node, q(SELECT waiting_on LIKE 'condition: cannot be read: it takes more than%' FROM bbm_status_detail('late'))) eq 't';
	$late->{run}->pump_nb;
	last if $seen || !$late->{run}->pumpable;
}
ok($seen, 'that a condition takes too long is reported only when it has ended');
# the next one finds a file there
open(my $file, '>', "$pipe.3") or die "open: $!";
close($file);
rename("$pipe.3", $pipe) or die "rename: $!";
while ($late->{run}->pumpable)
{
	open_for_reader("$pipe.2");
	$late->{run}->pump_nb;
	usleep(100_000);
}
unlike((finish_background($late))[1], qr/ERROR/, '... which cancels nothing else');
once_each($node, 't', 100, '... nor the batches, which begin before the time limit is over, and end after it');
value($node, q(SELECT bbm_drop('late')));

$node->append_conf('postgresql.conf', 'bbm.enabled = on');
$node->reload;
$node->poll_query_until('postgres', "SELECT current_setting('bbm.enabled') = 'on'");

# The owner's code that is no job: a condition, a deferred trigger, a row filter.
define($node, 'condition', 't', settings => q('{bbm.condition=SELECT sleep_caught()}'), start => 'true');
ok($node->poll_query_until('postgres', q(SELECT waiting_on LIKE 'condition: cannot be read: it takes more%' FROM bbm_status_detail('condition'))), 'a condition cannot be read');
ends('... and the migration can be dropped', q(SELECT bbm_drop('condition')));
workers_gone($node);

value($node, <<'EOS');
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM sleep_caught(); RETURN NULL; END $$;
CREATE TABLE late (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO late SELECT generate_series(1, 10);
CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();
EOS
define($node, 'deferred', 'late', start => 'true');
reach_gate($node);
ends('a deferred trigger: bbm_drop returns', q(SELECT bbm_drop('deferred')));
value($node, q(CREATE FUNCTION sleep_filter(bigint) RETURNS boolean STABLE LANGUAGE plpgsql AS 'BEGIN RETURN sleep_caught(); END'));
value($node, q(SELECT bbm_update('filter', 't', 'n = n + 1', 'sleep_filter(id)', start => true)));
reach_gate($node);
ends('a row filter: bbm_drop returns', q(SELECT bbm_drop('filter')));
value($node, q(ALTER TABLE late DISABLE TRIGGER late; ALTER TABLE late ADD CHECK (sleep_caught()) NOT VALID));
define($node, 'constraint', 'late', start => 'true');
reach_gate($node);
ends('a CHECK constraint: bbm_drop returns', q(SELECT bbm_drop('constraint')));
value($node, 'DROP TABLE late');
define($node, 'tried', 't', job => 'job_caught', batch_size => 50, settings => q('{bbm.max_batch_time=100ms}'));
ends('bbm_dry_run', q(SELECT bbm_dry_run('tried')), 'took longer than bbm.max_batch_time|canceling');
ends('bbm_dry_run of drawn batches', q(SELECT bbm_dry_run('tried', sample => true)), 'took longer than bbm.max_batch_time|canceling');
ends('bbm_preview', q(SELECT bbm_preview('tried')), 'took longer than bbm.max_batch_time|canceling');

# Commands that need our workers to go.
for my $kind (sort keys %catches)
{
	value($node, 'CREATE DATABASE app');
	functions('app');
	begin('m', "job_$kind", db => 'app');
	ends("$kind: ALTER DATABASE RENAME", 'ALTER DATABASE app RENAME TO renamed');
	$node->poll_query_until('renamed', in_flight(), 1);
	ends("$kind: DROP EXTENSION", 'DROP EXTENSION bbm', undef, db => 'renamed');
	workers_gone($node);
	value($node, 'CREATE EXTENSION bbm', 'renamed');
	begin('m', "job_$kind", db => 'renamed');
	ends("$kind: DROP DATABASE", 'DROP DATABASE renamed');
	no_workers($node);
}

counter_table($node, 'last', 100);
define($node, 'last', 'last', start => 'true');
finished($node, 'last', 'after all that a migration runs as ever');
log_clean($node);
done_testing();
