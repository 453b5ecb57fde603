# A worker with nothing to do, or with more than its share, lets others work: slots, and time slices of a table.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('fair', conf => <<'EOC');
bbm.max_workers = 2
bbm.naptime = 0
max_worker_processes = 16
EOC

value($node, <<'EOS');
CREATE ROLE owner_a LOGIN;
CREATE ROLE owner_b LOGIN;
CREATE ROLE owner_c LOGIN;
CREATE ROLE reader LOGIN;
GRANT EXECUTE ON FUNCTION bbm_create, bbm_update, bbm_start, bbm_launch_worker TO PUBLIC;
GRANT CREATE ON SCHEMA public TO PUBLIC;
EOS

# A migration of another role's, on a table of its own unless "table" says which.
sub define_for
{
	my ($role, $name, $table, %o) = @_;
	my $own = !$o{table};
	value($node, "SET ROLE $role; CREATE TABLE $table (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
		INSERT INTO $table SELECT generate_series(1, " . ($o{rows} // 100) . ')') if $own;
	delete $o{rows};
	my $job = delete $o{job} // "UPDATE $table SET n = n + 1 WHERE id BETWEEN \$1 AND \$2";
	$table = delete $o{table} if !$own;
	$o{batch_size} //= 10;
	my $options = join '', map { ", $_ => $o{$_}" } sort keys %o;
	value($node, "SET ROLE $role; SELECT bbm_create('$name', '$table', '$job'$options)");
	return;
}

sub start { return value($node, "SELECT bbm_start('$_[0]')") }

# ----
# A migration that only waits: for its time slice of a table, for which it polls ten times a second and
# so kept its slot for as long as that took.  With both slots taken by such migrations, another owner's
# starts at once, and finishes while they wait.
counter_table($node, 'held', 100);
value($node, 'GRANT SELECT, UPDATE ON held TO owner_a, owner_b; GRANT SELECT ON gate TO PUBLIC');
define($node, 'holder', 'held', job => 'gated', batch_size => 10, start => 'false');
my $holder = background($node, 'postgres', q(CALL bbm_run('holder')));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep')),
	'a session is in a batch of the table');
my $waits_since = time;
define_for('owner_a', 'waits a', 'none', table => 'held', job => 'UPDATE public.held SET n = n + 1 WHERE id BETWEEN $1 AND $2', start => 'true');
define_for('owner_b', 'waits b', 'none', table => 'held', job => 'UPDATE public.held SET n = n + 1 WHERE id BETWEEN $1 AND $2', start => 'true');
for my $name ('waits a', 'waits b')
{
	ok($node->poll_query_until('postgres', "SELECT waiting_on LIKE 'another migration%' FROM bbm_status_detail('$name')"), "$name waits");
}
define_for('owner_c', 'ready', 't_ready', rows => 1000, start => 'true');
finished($node, 'ready', 'another owner\'s migration finishes while all slots were taken by those that wait');
my $started = value($node, q(SELECT count(*) FROM bbm_jobs('waits a')));
SKIP:
{
	# after ten seconds the batch of another migration is not waited for any more
	skip 'the machine is too slow', 1 if time - $waits_since > 9;
	is($started, '0', 'they have not started meanwhile');
}
gate($node, 'open');
finish_background($holder);
finished($node, 'waits a', 'a migration that has lost its slot gets one for its time slice');
finished($node, 'waits b', 'and so does the other');

# ----
# Throttled migrations of many owners: each polls, and none keeps a slot from a migration that could work.
value($node, join ';', map { <<"EOS" } 1 .. 8);
CREATE ROLE held_$_ LOGIN; SET ROLE held_$_; CREATE TABLE t_held_$_ (id bigint PRIMARY KEY, n integer); INSERT INTO t_held_$_ VALUES (1);
SELECT bbm_update('held $_', 't_held_$_', 'n = 1', settings => '{bbm.condition=false}', start => true); RESET ROLE
EOS
ok($node->poll_query_until('postgres', q(SELECT count(*) = 8 FROM bbm_status_detail() WHERE waiting_on = 'condition: not met')), 'eight owners are throttled');
define_for('owner_c', 'ready again', 't_again', rows => 2000, start => 'true');
finished($node, 'ready again', 'a ready one finishes');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 8 FROM bbm_status_detail() WHERE waiting_on = 'condition: not met')), 'and the others still wait');
value($node, q(SELECT bbm_drop('held ' || i) FROM generate_series(1, 8) i));

# ----
# An owner has no more than a share of the slots while another has work ready.
value($node, 'UPDATE gate SET open = true');
define_for('owner_a', 'greedy', 't_greedy', rows => 100000, batch_size => 1, workers => 256,
	job => 'UPDATE public.t_greedy SET n = n + 1 WHERE id BETWEEN $1 AND $2 AND pg_sleep(0.005) IS NOT NULL', allow_full_scan => 'true', start => 'true');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM bbm_workers() WHERE role = 'owner_a' AND job IS NOT NULL)),
	'alone, an owner has all slots');
define_for('owner_b', 'modest', 't_modest', rows => 100000, batch_size => 1, workers => 256,
	job => 'UPDATE public.t_modest SET n = n + 1 WHERE id BETWEEN $1 AND $2 AND pg_sleep(0.005) IS NOT NULL', allow_full_scan => 'true', start => 'true');
ok($node->poll_query_until('postgres', q(SELECT count(*) FILTER (WHERE role = 'owner_a' AND job IS NOT NULL) = 1 AND
	count(*) FILTER (WHERE role = 'owner_b' AND job IS NOT NULL) = 1 FROM bbm_workers())), 'two have one each');
# a third one gets its time slice, too, though there are fewer slots than owners
define_for('owner_c', 'third', 't_third', rows => 300, start => 'true');
finished($node, 'third', 'a third owner has its turn');
is(value($node, q(SELECT count(*) FROM bbm_status() WHERE status = 'running' AND name IN ('greedy', 'modest'))), '2', 'while the others go on');
value($node, q(SELECT bbm_drop('modest')));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM bbm_workers() WHERE role = 'owner_a' AND job IS NOT NULL)),
	'and alone again, the one has all again');
value($node, q(SELECT bbm_drop('greedy')));

# ----
# A launched worker is one of the server's workers: it takes a slot, and releases it when it has nothing to do and
# somebody else has.
workers_gone($node);
value($node, q(SET SESSION AUTHORIZATION owner_a; SELECT bbm_launch_worker('1 hour') FROM generate_series(1, 2)));
# a worker that the launcher was about to start may have taken the slot of one of them, and exits itself: then one more can be
my $err = '';
for (1 .. 10)
{
	(undef, undef, $err) = $node->psql('postgres', q(SET SESSION AUTHORIZATION owner_a; SELECT bbm_launch_worker('1 hour')));
	last if $err ne '';
}
like($err, qr/as many run as are allowed/, 'no more workers can be launched than there are slots');
define_for('owner_c', 'beside', 't_beside', start => 'true');
finished($node, 'beside', 'launched workers without work exit for others');
value($node, q(SELECT count(pg_terminate_backend(pid)) FROM bbm_workers() WHERE kind = 'launched worker'));
workers_gone($node);

# ----
# A migration whose owner may only read the table does not compete for it: its job sleeps, and the table owner's
# migration does not wait for it.
value($node, <<'EOS');
SET ROLE owner_a;
CREATE TABLE theirs (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0, secret text);
INSERT INTO theirs SELECT generate_series(1, 100);
GRANT SELECT (id) ON theirs TO reader;
SET ROLE reader;
CREATE FUNCTION sleeps(lo bigint, hi bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint FROM pg_sleep(600)';
EOS
my ($rc, $stdout, $stderr) = $node->psql('postgres', q(SET ROLE reader;
	SELECT bbm_create('sleeps', 'theirs', 'sleeps', settings => '{bbm.max_batch_time=0}')));
like($stderr, qr/permission denied to give a migration the setting/, 'the limit of a batch\'s time cannot be turned off');
define_for('reader', 'sleeps', 'none', table => 'theirs', job => 'sleeps', start => 'true');
ok($node->poll_query_until('postgres', q(SELECT jobs_running = 1 FROM bbm_status_detail('sleeps'))), 'a reader\'s job sleeps');
define_for('owner_a', 'owners', 'none', table => 'theirs', job => 'UPDATE public.theirs SET n = n + 1 WHERE id BETWEEN $1 AND $2', start => 'true');
finished($node, 'owners', 'the owner\'s migration does not wait for it');
is(value($node, q(SELECT jobs_running FROM bbm_status_detail('sleeps'))), '1', 'which is still in its batch');
value($node, q(SELECT bbm_cancel('sleeps'), bbm_drop('sleeps')));

# ----
# A turn ends: a batch that does not is not waited for for ever, also of who may write.
value($node, 'GRANT SELECT, UPDATE ON theirs TO reader');
define($node, 'for ever', 'theirs', job => 'sleeps', settings => q('{bbm.max_batch_time=0}'), start => 'true');
ok($node->poll_query_until('postgres', q(SELECT jobs_running = 1 FROM bbm_status_detail('for ever'))), 'a superuser\'s job sleeps without a limit');
define_for('owner_a', 'goes on', 'none', table => 'theirs', batch_size => 1,
	job => 'UPDATE public.theirs SET n = n + 1 WHERE id BETWEEN $1 AND $2', start => 'true');
ok($node->poll_query_until('postgres', q(SELECT waiting_on LIKE 'another migration%' FROM bbm_status_detail('goes on'))), 'another waits for it');
finished($node, 'goes on', 'but not for ever');
is(value($node, q(SELECT jobs_running FROM bbm_status_detail('for ever'))), '1', 'the other is still in its batch');
# Those that have waited so long have not waited so long for each other: they take turns.  (One whose batches take
# as long does not wait for either; that is for a machine that is slower than this test can do anything about.)
value($node, 'CREATE TABLE met (which integer, other boolean)');
for my $i (1, 2)
{
	my $other = 3 - $i;
	value($node, <<"EOS");
CREATE FUNCTION passes_$i(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql SET lock_timeout = 0 AS \$\$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(3, $i);
	INSERT INTO public.met SELECT $i, NOT pg_try_advisory_xact_lock(3, $other);
	UPDATE public.theirs SET n = n + 1 WHERE id BETWEEN lo AND hi;
	PERFORM pg_sleep(0.1);
	RETURN hi - lo + 1;
END \$\$;
EOS
	define($node, "passes $i", 'theirs', job => "passes_$i", batch_size => 4);
}
my @passing = map { background($node, 'postgres', "CALL bbm_run('passes $_')") } 1, 2;
finish_background($_) for @passing;
is(value($node, 'SELECT count(DISTINCT which), count(*) FROM met'), '2|50', 'two that have waited for it do not wait for ever either');
is( value($node, q(SELECT count(*) FROM met WHERE other AND NOT EXISTS
	(SELECT FROM batched_background_migration_jobs WHERE finished_at - started_at > '10 s'))), '0', '... but not at once');
value($node, q(SELECT bbm_cancel('for ever'), bbm_drop('for ever')));

# So does that of a job with many commits, between two of them.
value($node, 'CREATE FUNCTION slow(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(0.5);
	UPDATE public.theirs SET secret = \'x\' WHERE id BETWEEN lo AND hi;
	RETURN hi - lo + 1;
END $$');
define($node, 'one job', 'theirs', job => 'slow', batch_size => 100, sub_batch_size => 1, start => 'true');
ok($node->poll_query_until('postgres', q(SELECT rows_done > 2 FROM bbm_status('one job'))), 'a job of a hundred commits');
define_for('owner_a', 'in between', 'none', table => 'theirs', job => 'UPDATE public.theirs SET n = n + 1 WHERE id BETWEEN $1 AND $2', start => 'true');
finished($node, 'in between', 'another has its turn before it ends');
cmp_ok(value($node, q(SELECT rows_done FROM bbm_status('one job'))), '<', 100, 'it is not done yet');
# the rest of it may be quick
value($node, q(CREATE OR REPLACE FUNCTION slow(lo bigint, hi bigint) RETURNS bigint LANGUAGE sql AS
	$$ UPDATE public.theirs SET secret = 'x' WHERE id BETWEEN lo AND hi; SELECT hi - lo + 1 $$));
finished($node, 'one job');
is(value($node, q(SELECT requeued, rows_done FROM bbm_status_detail('one job'))), '0|100', 'which is no batch requeued, and all is done');
is( value($node, q(SELECT claim_epoch > 1 FROM batched_background_migration_jobs j JOIN batched_background_migrations m
	ON m.id = j.batched_background_migration_id WHERE m.name = 'one job')), 't', 'it had let go of the table, and was claimed again');

no_workers($node);
log_clean($node);
$node->stop;

# ----
# Without preloading there are as many launched workers in a database as there may be.
my $plain = bbm_node('plain', preload => 0, conf => 'max_worker_processes = 16');
value($plain, q(SELECT bbm_launch_worker('1 hour')));
my $more = q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bbm worker');
for my $n (2 .. 4)
{
	ok($plain->poll_query_until('postgres', q(SELECT count(*) = ) . ($n - 1) . q( FROM pg_locks WHERE locktype = 'userlock' AND objsubid = 6)), 'it has its place');
	value($plain, q(SELECT bbm_launch_worker('1 hour')));
}
ok($plain->poll_query_until('postgres', q(SELECT count(*) = 4 FROM pg_locks WHERE locktype = 'userlock' AND objsubid = 6)), 'four workers');
(undef, undef, $err) = $plain->psql('postgres', q(SELECT bbm_launch_worker('1 hour')));
like($err, qr/as many run as are allowed/, 'a fifth is refused');
is(value($plain, $more), '4', 'four are there');
$plain->stop;

# ----
# With a single slot: a worker that works does not give it to a throttled owner each time that is to poll, but when the poll
# is eight seconds late.  (At full pace: one that waits for busy CPUs gives its slot up to anybody.)
my $one = bbm_node('one', conf => "bbm.max_workers = 1\nbbm.naptime = 0\nbbm.job_retention = -1\nbbm.min_pace = 1");
value($one, 'CREATE ROLE owner_a LOGIN; GRANT EXECUTE ON FUNCTION bbm_update TO owner_a; GRANT CREATE ON SCHEMA public TO owner_a');
value($one, 'CREATE TABLE works (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0); INSERT INTO works SELECT generate_series(1, 150)');
value($one, q(SET ROLE owner_a; SET client_min_messages = warning; CREATE TABLE held (id bigint PRIMARY KEY, n integer); INSERT INTO held VALUES (1);
	SELECT bbm_update('held', 'held', 'n = 1', settings => '{bbm.condition=false}', start => true)));
ok($one->poll_query_until('postgres', q(SELECT waiting_on = 'condition: not met' FROM bbm_status_detail('held'))), 'an owner is on hold');
define($one, 'works', 'works', job => 'UPDATE public.works SET n = n + 1 WHERE id BETWEEN $1 AND $2 AND pg_sleep(0.1) IS NOT NULL',
	batch_size => 1, start => 'true');
finished($one, 'works', 'another works');
is( value($one, <<'EOS'), 't', '... in few workers');
SELECT count(DISTINCT worker_pid) <= 2 + extract(epoch FROM m.finished_at - m.started_at) / 8
FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id
WHERE m.name = 'works' GROUP BY m.id
EOS
value($one, q(SELECT bbm_alter('held', settings => '{bbm.condition=true}')));
finished($one, 'held', 'and the throttled one goes on');
$one->stop;

done_testing();
