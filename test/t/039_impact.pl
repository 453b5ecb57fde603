# What a migration costs the statements of others, as bbm_status_detail() shows it: statements
# that wait for a lock of its batches, and statements that do not.

use strict;
use warnings;

use BbmTest;
use IPC::Run;
use Test::More;

my $node = bbm_node('impact');
my $scratch = $node->basedir;

# How busy the machine is is not what is tested here: a worker never pauses, but when all are silent.
value($node, q(ALTER SYSTEM SET bbm.min_pace = 1));
value($node, q(SELECT pg_reload_conf()));

# A batch takes 20 ms; with a lock, or without.
value($node, q(CREATE FUNCTION locks(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
	BEGIN PERFORM pg_advisory_xact_lock(39); PERFORM pg_sleep(0.02); RETURN 0; END $$));
value($node, q(CREATE FUNCTION sleeps(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
	BEGIN PERFORM pg_sleep(0.02); RETURN 0; END $$));

# The application wants that lock for a moment, in each of its sessions, all of the time.
open(my $file, '>', "$scratch/wants.sql") or die;
print $file "SELECT pg_advisory_xact_lock_shared(39);\n";
close $file;
my @pgbench = ('pgbench', '-h', $node->host, '-p', $node->port, '-n', '-M', 'prepared', '-c', 16, '-f', "$scratch/wants.sql");

sub begin
{
	my ($name, @options) = @_;
	counter_table($node, "t_$name", 100000);
	define($node, $name, "t_$name", job => $name, batch_size => 1, start => 'true', @options);
	my ($out, $err) = ('', '');
	return IPC::Run::start([ @pgbench, '-T', 3600, 'postgres' ], '>', \$out, '2>', \$err);
}

sub end
{
	my ($name, $application) = @_;
	value($node, "SELECT bbm_pause('$name', wait => true)");
	$application->signal('INT');
	$application->finish;
}

# the statements of its own workers do not count; bbm_wait() does not, either
counter_table($node, 't_alone', 300);
define($node, 'alone', 't_alone', job => 'sleeps', batch_size => 1, start => 'true');
value($node, q(SELECT bbm_wait('alone', '10 min')));
is(value($node, q(SELECT status, impact_mean, impact_statements FROM bbm_status_detail('alone'))), 'finished||0', 'no statement of bbm counts');

my $detail = 'SELECT impact_mean, impact_p99, impact_statements FROM bbm_status_detail';
sub shows
{
	my ($name, $condition, $what) = @_;
	ok($node->poll_query_until('postgres', "SELECT $condition FROM bbm_status_detail('$name')"), $what)
	  or diag(value($node, "$detail('$name')"));
}

my $application = begin('locks');
shows('locks', 'impact_mean > 1 AND impact_p99 IS NOT NULL', 'statements that wait for a batch take longer, and that shows');
end('locks', $application);

# while it does not run, nothing is counted
my $before = value($node, "$detail('locks')");
$node->command_ok([ @pgbench, '-t', 500, 'postgres' ], 'statements beside nothing');
is(value($node, "$detail('locks')"), $before, 'no statement counts while no migration runs');

$application = begin('sleeps');
shows('sleeps', 'impact_statements > 5000 AND impact_p99 IS NOT NULL AND abs(impact_mean) < 0.5',
	'statements that do not wait for a batch do not take longer');
is(value($node, "$detail('locks')"), $before, '... and do not count for a migration that does not run');
end('sleeps', $application);
is(value($node, q(SELECT impact_mean IS NULL FROM bbm_status_detail('locks')), 'postgres'), 'f', 'the figures of a migration stay when it is paused');

# Statements that find the lock of a batch taken go on without it, but later: the worker does not notice, but that it was measured.
value($node, q(CREATE FUNCTION holds(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
	BEGIN PERFORM pg_advisory_xact_lock(39); PERFORM pg_sleep(0.001); RETURN 0; END $$));
open($file, '>', "$scratch/wants.sql") or die;
print $file "SELECT CASE WHEN pg_try_advisory_xact_lock_shared(39) THEN NULL ELSE pg_sleep(0.002) END;\n";
close $file;
value($node, q(ALTER SYSTEM SET bbm.min_pace = 0.02));
value($node, q(SELECT pg_reload_conf()));
$application = begin('holds', settings => q('{bbm.max_impact=0.1}'));
ok($node->poll_query_until('postgres', q(SELECT reason = 'bbm.max_impact' AND share < 0.5 FROM batched_background_migrations m, bbm_internal.bbm_live_pace(m.id, m.owner_oid)
	WHERE name = 'holds')), 'the pace keeps to bbm.max_impact, and says so')
  or diag(value($node, q(SELECT p.*, i.* FROM batched_background_migrations m, bbm_internal.bbm_live_pace(m.id, m.owner_oid) p, bbm_internal.bbm_impact(m.id, m.owner_oid) i WHERE name = 'holds')));
ok($node->poll_query_until('postgres', q(SELECT pace_reason = 'bbm.max_impact' FROM bbm_status_detail('holds'))), '... in bbm_status_detail() as well');
value($node, q(SELECT bbm_alter('holds', settings => '{bbm.min_pace=1}')));
ok($node->poll_query_until('postgres', q(SELECT share = 1 FROM batched_background_migrations m, bbm_internal.bbm_live_pace(m.id, m.owner_oid) WHERE name = 'holds')),
	'without it, it does not');
end('holds', $application);

done_testing();
