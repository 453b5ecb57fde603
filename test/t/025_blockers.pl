# The blocking session is named: a migration that waits for a lock says which, and for
# which processes, also between two tries; so do its last error and the log.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

# A short lock timeout, for more tries; and no pauses, in which it would wait for the CPU.
my $node = bbm_node('blockers', conf => <<'EOC');
bbm.lock_timeout = 300ms
bbm.min_pace = 1
EOC
my $other = $node->background_psql('postgres');
my $pid = $other->query_safe('SELECT pg_backend_pid()');
my $since = qr/since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^ .]*/;
my $idle = qr/process $pid, idle in transaction $since/;

sub waiting_on
{
	my ($name) = @_;
	return value($node, "SELECT coalesce(waiting_on, '(nothing)') FROM bbm_status_detail('$name')");
}

# Waits until the migration has tried so often in vain, and checks its status again and again
# meanwhile.  It names what it waits for from the first such check on.
sub named
{
	my ($name, $what, $times) = @_;
	$node->poll_query_until('postgres', "SELECT waiting_on ~ 'process $pid, idle in transaction' FROM bbm_status_detail('$name')")
	  || BAIL_OUT("$name: waits for " . waiting_on($name));
	my ($checks, @wrong) = (0);
	for (1 .. 6000)
	{
		my $seen = waiting_on($name);
		$checks++;
		push @wrong, $seen if $seen !~ /^\Q$what\E: $idle$/;
		last if $checks >= 10 && value($node, $times) eq 't';
		usleep(20_000);
	}
	is("@wrong", '', "$name: each check names it");
	return;
}

sub requeued
{
	my ($name, $n) = @_;
	return "SELECT requeued >= $n FROM bbm_status_detail('$name')";
}

# A line of the log a minute, and there may have been one before.
my $began = time;
sub once_a_minute
{
	my ($n, $what) = @_;
	ok($n >= 1 && $n <= 1 + (time - $began) / 60, $what) or diag("$n lines in " . (time - $began) . ' s');
	$began = time;
	return;
}

# A table lock of a session that is idle in transaction.
value($node, <<'EOS');
CREATE TABLE big (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO big SELECT i FROM generate_series(1, 2000) i;
EOS
my $slowly = 'UPDATE big SET n = n + 1 FROM pg_sleep(0.02) WHERE id BETWEEN $1 AND $2';
define($node, 'table', 'big', job => $slowly, batch_size => 10);
$other->query_safe('BEGIN; LOCK TABLE big IN SHARE MODE');
value($node, q(SELECT bbm_start('table')));
named('table', 'a lock on public.big', q(SELECT last_error ~ 'public.big: process' FROM bbm_status_detail('table')));
is(value($node, q(SELECT status, last_progress_at IS NULL FROM bbm_status_detail('table'))), 'active|t', '... also before a worker starts it');
$node->wait_for_log(qr/migration "table" cannot go on just now/);
$other->query_safe('COMMIT');
$node->poll_query_until('postgres', q(SELECT jobs_finished > 0 FROM bbm_status_detail('table')));
$other->query_safe('BEGIN; LOCK TABLE big IN SHARE MODE');
named('table', 'a lock on public.big', requeued('table', 4));
is(value($node, q(SELECT DISTINCT waiting_on FROM bbm_workers() WHERE migration = 'table' AND waiting_on !~ 'public.big: process')),
	'', 'so does bbm_workers');
like(value($node, q(SELECT last_error FROM bbm_status_detail('table'))),
	qr/^55P03: canceling statement due to lock timeout \(a lock on public\.big: $idle\)$/, 'so does last_error');
like(value($node, q(SELECT DISTINCT regexp_replace(error_detail, ' since .*', '') FROM batched_background_migration_jobs WHERE error_detail IS NOT NULL)),
	qr/^a lock on public\.big: process $pid, idle in transaction$/, '... and the job that was requeued');
my @lines = grep { /cannot go on just now.*public\.big: process/ } split /\n/, log_since($node);
like($lines[0], qr/cannot go on just now: 55P03: .* \(a lock on public\.big: $idle\)$/, 'so does the log');
once_a_minute(scalar @lines, '... in one line a minute, however often it was');
$other->query_safe('COMMIT');
finished($node, 'table');
once_each($node, 'big', 2000);
is(waiting_on('table'), '(nothing)', 'and then it waits for nothing');
is( value($node, <<'EOS'),
SELECT last_error IS NULL, last_progress_at = (SELECT max(finished_at) FROM bbm_jobs('table')) FROM bbm_status_detail('table')
EOS
	't|t', 'has no error left, and shows when the last progress was');

# Another session has the lock of a range's first row: no row of that range gets done.  The other ranges go on; the status says
# for which session the migration waits.
value($node, 'UPDATE big SET n = 0');
$other->query_safe('BEGIN; UPDATE big SET n = n WHERE id = 1001');
my $log = log_size($node);
define($node, 'row', 'big', start => 'true', batch_size => 500);
$node->poll_query_until('postgres', q(SELECT jobs_finished = 3 FROM bbm_status_detail('row')));
# a range that is done ends what is known of a lock: from the next time on it is only about this one
my $times = value($node, q(SELECT requeued FROM bbm_status_detail('row')));
$node->poll_query_until('postgres', requeued('row', $times + 1));
my @seen = map { usleep(50_000); waiting_on('row') } 1 .. 20;
is(scalar(grep { !/a lock on a row of public\.big: $idle/ } @seen), 0, 'a row: each check names it') or diag(join "\n", @seen);
isnt(scalar(grep { /^a lock on a row of public\.big: $idle$/ } @seen), 0, '... while it is waited for');
like(value($node, q(SELECT last_error FROM bbm_status_detail('row'))), qr/^55P03: .* \(a lock on a row of public\.big: $idle\)$/, 'so does last_error');
is(value($node, q(SELECT last_progress_at IS NOT NULL FROM bbm_status_detail('row'))), 't', 'last_progress_at shows the progress of the other ranges');
my $lines = log_since($node, $log);
like($lines, qr/requeued job \d+: canceling statement due to lock timeout/, 'so does the log');
like($lines, qr/DETAIL:  It waited for a lock on a row of public\.big: $idle\./, '... in the DETAIL');
my @given = $lines =~ /requeued job/g;
once_a_minute(scalar @given, '... once a minute');
$other->query_safe('ROLLBACK');
finished($node, 'row');
once_each($node, 'big', 2000);

# Two sessions block: the one that has the lock, and the one that has requested it before.
value($node, 'UPDATE big SET n = 0');
define($node, 'queue', 'big');
$other->query_safe('BEGIN; LOCK TABLE big IN ACCESS SHARE MODE');
my $second = $node->background_psql('postgres');
my $second_pid = $second->query_safe('SELECT pg_backend_pid()');
$second->query_until(qr/sent/, "\\echo sent\nBEGIN; LOCK TABLE big IN ACCESS EXCLUSIVE MODE;\n");
$node->poll_query_until('postgres', "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $second_pid");
value($node, q(SELECT bbm_start('queue')));
$node->poll_query_until('postgres', "SELECT waiting_on ~ 'process $second_pid' FROM bbm_status_detail('queue')");
like(waiting_on('queue'), qr/^a lock on public\.big: process $second_pid, in a transaction $since$/,
	'a session that waits before it blocks, and one that holds a lock that does not conflict does not');
$other->query_safe('COMMIT');
$second->query_safe('COMMIT');
finished($node, 'queue');

# A claim: the migration's row is changed in a transaction that is still open.
value($node, 'UPDATE big SET n = 0');
define($node, 'slow', 'big', job => $slowly, batch_size => 10, start => 'true');
$node->poll_query_until('postgres', q(SELECT jobs_finished > 0 FROM bbm_status_detail('slow')));
$log = log_size($node);
$other->query_safe(q(BEGIN; UPDATE batched_background_migrations SET status = 0 WHERE name = 'slow'));
named('slow', 'a lock on the migration', q(SELECT true));
$node->poll_query_until('postgres', q(SELECT last_error IS NOT NULL FROM bbm_status_detail('slow')));
like(value($node, q(SELECT last_error FROM bbm_status_detail('slow'))),
	qr/^55P03: canceling statement due to lock timeout \(a lock on the migration: $idle\)$/, 'so does last_error');
$node->wait_for_log(qr/cannot go on/, $log);
named('slow', 'a lock on the migration', 'SELECT true');
$lines = log_since($node, $log);
like($lines, qr/cannot go on just now: 55P03: .* \(a lock on the migration: $idle\)/, 'so does the log');
@given = $lines =~ /cannot go on/g;
once_a_minute(scalar @given, '... once');
$other->query_safe('ROLLBACK');
$node->poll_query_until('postgres', q(SELECT waiting_on IS NULL AND last_error IS NULL FROM bbm_status_detail('slow')));
finished($node, 'slow');
once_each($node, 'big', 2000);

# After a transient error outside of a batch it tries again and again, with one line in the log, and another at its end.
value($node, <<'EOS');
CREATE SEQUENCE tries;
CREATE TABLE disk (full_ boolean);
INSERT INTO disk VALUES (true);
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF (SELECT full_ FROM public.disk) THEN
		PERFORM nextval('public.tries');
		RAISE 'could not extend file' USING ERRCODE = 'disk_full';
	END IF;
	RETURN NEW;
END $$;
GRANT ALL ON SEQUENCE tries TO PUBLIC;
CREATE TRIGGER full_disk BEFORE INSERT ON batched_background_migration_jobs FOR EACH ROW EXECUTE FUNCTION full_disk();
EOS
$log = log_size($node);
define($node, 'claims', 'big', start => 'true');
ok($node->poll_query_until('postgres', 'SELECT last_value >= 6 FROM tries'), 'a claim that fails is tried again and again');
is(value($node, q(SELECT waiting_on = last_error AND last_error = '53100: could not extend file' FROM bbm_status_detail('claims'))), 't', '... as bbm_status says');
value($node, 'UPDATE disk SET full_ = false');
finished($node, 'claims');
$node->wait_for_log(qr/migration "claims" goes on after \d+ errors/, $log);
once_a_minute(scalar(() = log_since($node, $log) =~ /migration "claims" cannot go on just now: 53100: could not extend file/g), '... in one line of the log a minute');
is(scalar(() = log_since($node, $log) =~ /migration "claims" goes on after/g), 1, '... and one at the end');
is(scalar(() = log_since($node, $log) =~ /ERROR:  could not extend file/g), 0, '... and in no other');

$other->quit;
$second->quit;
log_clean($node);
$node->stop;
done_testing();
