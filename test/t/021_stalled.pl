# Migrations that do not move are reported, with the reason: an event, a notification, a
# WARNING in the log, at ever longer intervals; those that move are not.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use Test::More;

my $node = bbm_node('stalled', conf => <<'EOC');
bbm.naptime = 1s
bbm.stalled_after = 1s
bbm.stale_pause_after = 0
bbm.retry_delay = 1h
bbm.retry_max_delay = 1h
EOC
counter_table($node, $_, 100) for 'retries', 'busy', 'forgotten', 'parted', 'asleep';

sub events
{
	my ($name) = @_;
	return "SELECT count(*) FROM bbm_events WHERE name = '$name' AND event = 'stalled'";
}

# Has it been reported at least so often?  A slow machine is late for the first time.
sub reported
{
	my ($name, $times) = @_;
	return events($name) =~ s/count\(\*\)/count(*) >= $times/r;
}

# One that waits for an hour to retry, one whose jobs end now and then, one whose single job commits
# now and then, and one that is paused.
value($node, q(CREATE FUNCTION fails(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'no luck'; END $$));
value($node, q(CREATE TABLE moves (name text, at timestamptz DEFAULT clock_timestamp())));
value($node, qq(CREATE FUNCTION slow_$_(lo bigint, hi bigint) RETURNS bigint LANGUAGE sql AS
	'WITH done AS (UPDATE public.$_ SET n = n + 1 WHERE id BETWEEN lo AND hi RETURNING 1), nap AS (SELECT pg_sleep(0.4)),
	moved AS (INSERT INTO public.moves VALUES (''$_'') RETURNING 1) SELECT count(*) FROM done, nap, moved'))
  for 'busy', 'parted';
define($node, 'retries', 'retries', job => 'fails', batch_size => 100, start => 'true');
define($node, 'busy', 'busy', job => 'slow_busy', batch_size => 10, start => 'true');
define($node, 'parted', 'parted', job => 'slow_parted', batch_size => 100, sub_batch_size => 10, start => 'true');
define($node, 'forgotten', 'forgotten');
# times that nothing can be reckoned with keep nobody else from being reported
define($node, "time $_", 'forgotten') for 'infinity', '-infinity';
value($node, qq(SET session_replication_role = replica; UPDATE batched_background_migrations SET created_at = '$_' WHERE name = 'time $_'))
  for 'infinity', '-infinity';
# outside of its hours nothing is expected of it
my $hours = value($node, q(SET timezone = 'UTC'; SELECT to_char(now() + interval '6 hours', 'HH24:MI') || '-' || to_char(now() + interval '8 hours', 'HH24:MI') || ' UTC'));
define($node, 'asleep', 'asleep', settings => "ARRAY['bbm.active_hours=$hours']", start => 'true');
$node->poll_query_until('postgres', q(SELECT waiting_on LIKE 'active hours: %' FROM bbm_status_detail('asleep')));
my $asleep = value($node, events('asleep'));
my $listener = background($node, 'postgres', 'LISTEN bbm', "DO \$\$ BEGIN WHILE (@{[events('retries')]}) < 3 LOOP PERFORM pg_sleep(0.05); COMMIT; END LOOP; END \$\$", 'SELECT 1');

ok($node->poll_query_until('postgres', reported('retries', 1)), 'one that does not move is reported');
# a slow machine may be reported it before its batch has failed: then the next time it is so
ok( $node->poll_query_until('postgres',
		q(SELECT bool_or(detail ~ '^no progress since .*; waits for: retry of a failed job; last error: P0001: no luck$') FROM bbm_events WHERE name = 'retries' AND event = 'stalled')),
	'... what it waits for and the last error') or diag(value($node, q(SELECT detail FROM bbm_events WHERE event = 'stalled')));
is(value($node, q(SELECT DISTINCT status FROM bbm_events WHERE name = 'retries' AND event = 'stalled' AND detail ~ 'no luck$')), 'running', '... with its status');
$node->wait_for_log(
	qr/\[bbm discovery\] WARNING:  migration "retries" has made no progress since .*\n.*DETAIL:  It waits for: retry of a failed job\. The last error was: P0001: no luck/);
pass('... in the log, too');
my ($out, $err) = finish_background($listener);
like($out, qr/Asynchronous notification "bbm" with payload "\{"id": \d+, "name": "retries", "event": "stalled", "status": "running"/,
	'... and to who listens');
is(value($node, q(SELECT last_progress_at IS NULL FROM bbm_status_detail('retries'))), 't', 'last_progress_at is NULL where no job was done');

# Again only when it has been stalled for twice as long.
ok($node->poll_query_until('postgres', reported('retries', 3)), 'it is reported again');
is( value($node, <<'EOS'), 't', '... at ever longer intervals');
SELECT bool_and(at - since >= 2 * (before - since))
FROM (SELECT e.at, lag(e.at) OVER (ORDER BY e.id) AS before, greatest(s.updated_at, s.created_at) AS since
      FROM bbm_events e JOIN batched_background_migrations s USING (name) WHERE name = 'retries' AND event = 'stalled') t
EOS
finished($node, $_) for 'busy', 'parted';
# on a machine that has them wait for long enough, they have not moved
is( value($node, <<'EOS'), 'retries', 'those that move are not reported, nor paused ones');
WITH moves_ AS (
	SELECT name, at FROM moves UNION ALL SELECT name, started_at FROM bbm_status_detail()),
gaps AS (SELECT name, at - lag(at) OVER (PARTITION BY name ORDER BY at) AS gap FROM moves_ WHERE name IN ('busy', 'parted'))
SELECT string_agg(DISTINCT name, ' ') FROM bbm_events
WHERE event = 'stalled' AND name <> 'asleep' AND name NOT IN (SELECT name FROM gaps WHERE gap > '0.75 s')
EOS
is(value($node, q(SELECT last_progress_at BETWEEN started_at AND finished_at FROM bbm_status_detail('busy'))), 't', 'last_progress_at is when the last job was done');

is(value($node, events('asleep')), $asleep, 'nor is one outside of its active hours');
# After a restart discovery comes before any worker has seen that; a later one has reported the other.
$node->restart;
define($node, 'later', 'forgotten', job => 'fails', batch_size => 100, start => 'true');
ok($node->poll_query_until('postgres', reported('later', 1)), 'after a restart one that does not move is reported');
is(value($node, events('asleep')), $asleep, '... and not one outside of its active hours, which nobody has seen yet');
value($node, q(SELECT bbm_drop('later')));
value($node, q(SELECT bbm_drop('asleep')));

# Paused and forgotten.
value($node, q(SELECT bbm_pause('retries')));
$node->append_conf('postgresql.conf', "bbm.stalled_after = 0\nbbm.stale_pause_after = 1s");
$node->reload;
ok($node->poll_query_until('postgres', reported('forgotten', 1)), 'one that is paused for too long is reported');
is(value($node, events('time -infinity')), 1, '... also one whose times have no beginning');
like(value($node, q(SELECT status || ': ' || detail FROM bbm_events WHERE name = 'forgotten' AND event = 'stalled')),
	qr/^paused: paused, and nothing has happened since /, '... and since when');
like(log_since($node), qr/WARNING:  migration "forgotten" is paused, and nothing has happened to it since/, '... in the log, too');

# What happens to it counts, and a start of one that moves; off is off.
my $unpaused = events('retries') . q( AND status <> 'paused');
my $reported = value($node, $unpaused);
value($node, q(SELECT bbm_retry('retries'), bbm_start('retries')));
$node->poll_query_until('postgres', q(SELECT attempt = 1 FROM bbm_status_detail('retries')));
ok($node->poll_query_until('postgres', reported('forgotten', 2)), 'polls go on');
is(value($node, $unpaused), $reported, 'with bbm.stalled_after off, one that does not move is not reported');
# a session that runs it says so, too, while it waits for the retry
my $run = background($node, 'postgres', q(SET application_name = 'runs'), q(CALL bbm_run('retries')));
my $notice = qr/NOTICE:  migration "retries": 0\.0 percent, 0 rows, 0 jobs\nDETAIL:  The last error was: P0001: no luck/;
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if $run->{err} =~ $notice || !$run->{run}->pumpable;
	$run->{run}->pump_nb;
	select(undef, undef, undef, 0.1);
}
value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'runs'));
like((finish_background($run))[1], $notice, 'CALL bbm_run shows the last error with its progress');
no_workers($node) if value($node, q(SELECT bbm_drop('retries')));
log_clean($node, undef, qr/no luck/);
done_testing();
