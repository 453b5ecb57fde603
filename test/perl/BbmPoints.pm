# Forced orders: a server whose processes stop at points (src/base/point.h), and for
# each point and each act a small migration that is hit by that act while one of its
# processes stands there.  Each row has to be done once, whatever happens.

package BbmPoints;

use strict;
use warnings;

use Exporter 'import';
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(points_node points_sql POINTS_CONF arm never claims_along release stands standing wait_ended force_orders ACTS);

# No batch is undone for the time that its process stands somewhere, and no poll of the launcher's helps.
use constant POINTS_CONF => <<'EOC';
bbm.naptime = 0
bbm.job_retention = 100
bbm.min_pace = 1
bbm.max_batch_time = 10min
bbm.max_blocking_time = 10min
EOC

# A server with points; skips the test where there is none.
sub points_node
{
	my ($name, %o) = @_;
	plan(skip_all => 'test/run builds no server with points') unless $ENV{BBM_POINTS_BINDIR};
	my $node = bbm_node($name, %o, bindir => $ENV{BBM_POINTS_BINDIR}, start => 0);
	$node->start;
	value($node, 'CREATE EXTENSION bbm');
	points_sql($node);
	return $node;
}

# The functions by which its points are controlled.
sub points_sql
{
	my ($node) = @_;
	my $module = $ENV{BBM_POINTS_MODULE};
	value($node, <<"EOS");
CREATE SCHEMA point;
CREATE FUNCTION point.arm(point text, migration bigint, passes integer, stops integer) RETURNS void LANGUAGE c AS '$module', 'bbm_test_arm';
CREATE FUNCTION point.release(point text) RETURNS void LANGUAGE c AS '$module', 'bbm_test_release';
CREATE FUNCTION point.standing(point text) RETURNS integer[] LANGUAGE c AS '$module', 'bbm_test_standing';
EOS
	return;
}

# arm($node, 'batch-locked', migration => id, passes => n, stops => n): processes that come there stop.
sub arm
{
	my ($node, $point, %o) = @_;
	$o{$_} ||= 0 for 'migration', 'passes';
	$o{stops} //= 1;
	value($node, "SELECT point.arm('$point', $o{migration}, $o{passes}, $o{stops})");
	return;
}

# What else the clock, or chance, decides (BBM_POINT_DUE) is not due at all.
sub never
{
	my ($node, $id, @points) = @_;
	arm($node, $_, migration => $id, passes => 1_000_000_000, stops => 0) for @points;
	return;
}

# However slow the machine: a process claims the next job in the transaction of the last one, if nobody else has the lock.
sub claims_along
{
	my ($node, $id) = @_;
	never($node, $id, 'slice-due', 'poll-due');
	return;
}

# Lets all that stand there go on; without a point, wherever they stand.
sub release
{
	my ($node, $point) = @_;
	value($node, 'SELECT point.release(' . ($point ? "'$point'" : 'NULL') . ')');
	return;
}

sub standing
{
	my ($node, $point) = @_;
	return value($node, "SELECT array_to_string(point.standing('$point'), ' ')");
}

# Waits until so many stand there; returns their pids.
sub stands
{
	my ($node, $point, $n) = @_;
	$n ||= 1;
	$node->poll_query_until('postgres', "SELECT cardinality(point.standing('$point')) >= $n")
	  or BAIL_OUT("nobody comes to $point");
	return split / /, standing($node, $point);
}

# ---------------------------------------------------------------------------
# Each point and each act
# ---------------------------------------------------------------------------

# How a process comes to a point: what the migration is like.  Its rows are 1 to {rows}.
my %scenarios = (
	plain  => {},
	subs   => { options => { sub_batch_size => 2, batch_size => 10 } },
	# the first batch does not get a lock in time, or fails
	requeue => { raise => 'lock_not_available' },
	failure => { raise => 'raise_exception' },
	# two phases, and the rows that are checked
	verify => { update => 'n = n + 1', filter => 'n = 0', options => { verify => 'true' } },
	# so many jobs that old ones are merged
	merge => { rows => 900, options => { batch_size => 1 } });

# From where to where is the transaction of a batch: its job's row is locked.
my %IN_BATCH = map { $_ => 1 } qw(batch-locked batch-statement batch-done batch-recorded batch-allocated batch-commit);

sub create_subject
{
	my ($node, $name, $scenario, $extra) = @_;
	my $s       = $scenarios{$scenario};
	my $rows    = $s->{rows} || 40;
	my %options = (batch_size => 5, workers => 2, %{ $s->{options} || {} }, %{ $extra || {} });
	my $options = join '', map { ", $_ => $options{$_}" } sort keys %options;
	my $raise   = $s->{raise} ? "IF pg_catalog.nextval('public.${name}_once') = 1 THEN RAISE 'planned' USING ERRCODE = '$s->{raise}'; END IF;" : '';
	my $define  = $s->{update}
	  ? "bbm_update('$name', '$name', '$s->{update}', '$s->{filter}'$options)"
	  : "bbm_create('$name', '$name', '${name}_job'$options)";
	# outside of the transaction's fate: which process has begun which batch, and how often
	return value($node, <<"EOS");
CREATE SEQUENCE ${name}_once;
CREATE TABLE $name (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO $name SELECT i FROM generate_series(1, $rows) i;
CREATE FUNCTION ${name}_job(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS \$\$
DECLARE
	done bigint;
BEGIN
	UPDATE public.$name SET n = n + 1 WHERE id BETWEEN lo AND hi;
	GET DIAGNOSTICS done = ROW_COUNT;
	$raise
	RETURN done;
END \$\$;
SELECT $define;
EOS
}

# Waits until a background statement has ended, or until it waits for a lock (then false).
sub ended_or_waits
{
	my ($node, $p) = @_;
	for (1 .. 20 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 unless $p->{run}->pumpable && eval { $p->{run}->pump_nb; $p->{run}->pumpable };
		return 0
		  if value($node, q(SELECT count(*) FROM pg_stat_activity WHERE application_name = 'act' AND wait_event_type IN ('Lock', 'Extension')
			OR application_name = 'act' AND wait_event LIKE 'Bbm%')) > 0;
		usleep(50_000);
	}
	BAIL_OUT('an act neither ends nor waits');
}

sub act_beside
{
	my ($node, $sql) = @_;
	return background($node, 'postgres', q(SET application_name = 'act'), $sql);
}

# What is done to the migration, or its process, while that stands at the point.  Each returns a
# statement that goes on beside, or nothing.
my %acts = (
	kill => sub {
		my ($node, $name, $point, $pid) = @_;
		my $since = value($node, 'SELECT clock_timestamp()');
		kill KILL => $pid;
		restarted($node, $since) or BAIL_OUT('the server does not come back');
		return;
	},
	immediate => sub {
		my ($node) = @_;
		$node->stop('immediate');
		$node->start;
		return;
	},
	postmaster => sub {
		my ($node) = @_;
		$node->kill9;
		start_anyway($node);
		return;
	},
	terminate => sub {
		my ($node, $name, $point, $pid) = @_;
		value($node, "SELECT pg_terminate_backend($pid)");
		return;
	},
	cancel => sub {
		my ($node, $name, $point, $pid) = @_;
		value($node, "SELECT pg_cancel_backend($pid)");
		return;
	},
	pause => sub {
		my ($node, $name, $point) = @_;
		my $p = act_beside($node, "SELECT bbm_pause('$name')");
		my $ended = ended_or_waits($node, $p);
		# a batch that has claimed the next range holds the migration's lock until it commits, as any claim
		my $claims = $point =~ /^batch-(?:allocated|commit)$/ && $node->{scenario} ne 'subs';
		ok($ended, "$point: a pause does not wait for a batch") if $point =~ /^(?:batch|requeue|failure)-/ && !$claims;
		$p->{is_pause} = 1;
		return $p;
	},
	drop => sub {
		my ($node, $name) = @_;
		my $p = act_beside($node, "SELECT bbm_drop('$name')");
		ended_or_waits($node, $p);
		$p->{is_drop} = 1;
		return $p;
	},
	alter => sub {
		my ($node, $name) = @_;
		my $p = act_beside($node, "SELECT bbm_alter('$name', batch_size => 3, workers => 3)");
		ended_or_waits($node, $p);
		return $p;
	},
	# DDL that waits for the batch, or the batch for it
	ddl => sub {
		my ($node, $name) = @_;
		my $p = act_beside($node, "ALTER TABLE $name ADD COLUMN extra integer DEFAULT 7");
		ended_or_waits($node, $p);
		return $p;
	},
	# another process works on the migration, as far as it gets
	second => sub {
		my ($node, $name) = @_;
		my $p = act_beside($node, "CALL bbm_run('$name')");
		ended_or_waits($node, $p);
		return $p;
	},
	# the job is taken away, which only a session without triggers can do, and another process does it
	steal => sub {
		my ($node, $name, $point) = @_;
		my $own = "batched_background_migration_id = (SELECT id FROM batched_background_migrations WHERE name = '$name')";
		my ($rc, $out, $err) = $node->psql('postgres', <<"EOS");
SET session_replication_role = replica;
SET lock_timeout = '200ms';
SELECT id FROM batched_background_migration_jobs WHERE $own AND status = 4 FOR UPDATE;
UPDATE batched_background_migration_jobs SET status = 1, claim_epoch = claim_epoch + 1 WHERE $own AND status = 4;
EOS
		my $stolen = $rc == 0 && $out =~ /\d/;
		is($rc, 3, "$point: nobody can take the job of a batch away") if $IN_BATCH{$point};
		return unless $stolen;
		my $p = act_beside($node, "CALL bbm_run('$name')");
		ended_or_waits($node, $p);
		$p->{is_run} = 1;
		return $p;
	});

# Each of them takes a second, and make check-local runs the more dangerous ones; test/points runs all.
use constant ACTS => $ENV{BBM_POINTS_ALL}
  ? qw(kill immediate postmaster terminate cancel pause drop alter ddl second steal)
  : qw(kill cancel pause drop second steal);

sub exists_sql { my ($name) = @_; return "EXISTS (SELECT FROM batched_background_migrations WHERE name = '$name')" }

# Whatever has happened: finishes what is left, and each row was done once.
sub check_end
{
	my ($node, $name, $what, $rows, $p) = @_;
	my ($out, $err) = $p ? finish_background($p) : ('', '');

	if ($p && $p->{is_drop} && $err eq '')
	{
		workers_gone($node);
		is( value($node, "SELECT count(*) FILTER (WHERE n > 1), " . exists_sql($name) . " FROM $name"),
			'0|f', "$what: it is gone, and no row was done twice");
		return;
	}
	if ($p && $p->{is_pause} && $err eq '')
	{
		workers_gone($node);
		my $done = value($node, "SELECT status || ' ' || (SELECT count(*) FROM $name WHERE n > 0) FROM bbm_status('$name')");
		my $left = value($node, "SELECT count(*) FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name = '$name' AND j.status = 4");
		like($done, qr/^(?:paused|finished)/, "$what: it stays paused");
		is($left, 0, "$what: and no job is running");
	}
	# a cancelled or paused migration is started again, a failed one as well
	value($node, "SELECT bbm_start('$name') FROM bbm_status('$name') WHERE status IN ('paused', 'failed')");
	$node->poll_query_until('postgres', "SELECT status IN ('finished', 'failed') FROM bbm_status('$name')");
	my $saw = value($node, <<"EOS");
SELECT concat_ws(' ', (SELECT concat_ws(' ', status, last_error) FROM bbm_status_detail('$name')),
	(SELECT format('%s rows, %s left out, %s done twice', count(*), count(*) FILTER (WHERE n = 0), count(*) FILTER (WHERE n > 1)) FROM $name),
	(SELECT format('%s jobs open, %s counted', count(*) FILTER (WHERE j.status <> 2), sum(j.row_count) FILTER (WHERE j.phase = 'work'))
	 FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name = '$name'))
EOS
	is($saw, "finished $rows rows, 0 left out, 0 done twice 0 jobs open, $rows counted", $what)
	  or diag("the act said: $out $err\n" . value($node, "SELECT * FROM bbm_jobs('$name')"));
	return;
}

# force_orders($node, [ point, scenario, options ], ...): at each of these points, each act.  Options: passes;
# options (of the migration); except (acts); any: processes of any migration; along: claims are made along;
# merge_after: from so many jobs on each has a merge, and none before.
sub force_orders
{
	my ($node, $acts, @points) = @_;
	my $n = 0;
	for (@points)
	{
		my ($point, $scenario, %o) = @$_;
		for my $act (grep { !$o{except} || $_ !~ $o{except} } @$acts)
		{
			$node->{scenario} = $scenario;
			my $name = sprintf '%s_%s_%d', $point =~ s/-/_/gr, $act, ++$n;
			my $rows = $scenarios{$scenario}{rows} || 40;
			my $id   = create_subject($node, $name, $scenario, $o{options});
			my $start = time;
			claims_along($node, $id) if $o{along};
			arm($node, 'merge-due', migration => $id, passes => $o{merge_after}, stops => 1_000_000) if $o{merge_after};
			# nobody else is to be launched, as for a migration that has just ended
			workers_gone($node) if $o{any};
			# in a launch nobody knows of a migration yet
			arm($node, $point, migration => $o{any} ? 0 : $id, passes => $o{passes});
			value($node, "SELECT bbm_start('$name')");
			my ($pid) = stands($node, $point);
			is(value($node, "SELECT count(*) FROM $name WHERE n > 1"), 0, "$point: no row is done twice") if $act eq 'second';
			my $p = $acts{$act}->($node, $name, $point, $pid);
			release($node);
			check_end($node, $name, "$point, $scenario: $act", $rows, $p);
			note sprintf '%s %s %s: %.1f s', $point, $scenario, $act, time - $start;
		}
	}
	workers_gone($node);
	is(value($node, q(SELECT count(*) FROM pg_locks WHERE locktype = 'userlock' OR (locktype = 'object' AND classid = 'batched_background_migrations'::regclass))),
		0, 'no lock is left');
	return;
}

1;
