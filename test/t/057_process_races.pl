# Races as in 054, of processes and commands: vacuums, launches, cancels, reports of what stalls, counts of the
# statements of others, and commands on the database and the extension.  doc/proof.md has the list.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmPoints;
use BbmRaces;
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# one worker: the second process is a session, which a test begins when it wants
my $node = points_node('process_races', streaming => 1, conf => POINTS_CONF . "bbm.max_workers = 1\nautovacuum = off\n");
my $module = $ENV{BBM_POINTS_MODULE};

# A session that pauses the migration, cancels its batch and waits for that, and does nothing else; it gives up after a while.
sub pause_beside
{
	my ($server, $name) = @_;
	return background($server, 'postgres', q(SET application_name = 'pause'), 'SET synchronous_commit = local', "SET statement_timeout = '60s'",
		"SELECT bbm_pause('$name', cancel => true, wait => true)");
}

# throttle/vacuum.c: the table is dropped, or given to another owner, between the check and the VACUUM.
value($node, 'CREATE ROLE app LOGIN; CREATE ROLE other; GRANT EXECUTE ON FUNCTION bbm_create TO app; GRANT CREATE ON SCHEMA public TO app, other; GRANT app, other TO CURRENT_USER');
for my $how ('DROP TABLE', 'OWNER')
{
	my $name = $how eq 'OWNER' ? 'vacuum_given' : 'vacuum_dropped';
	my $id = value($node, <<"EOS");
CREATE TABLE $name (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
ALTER TABLE $name OWNER TO app;
INSERT INTO $name SELECT generate_series(1, 500);
UPDATE $name SET n = 0;
SET ROLE app;
SELECT bbm_create('$name', '$name', 'UPDATE $name SET n = n + 1 WHERE id BETWEEN \$1 AND \$2', batch_size => 100,
	settings => '{bbm.max_dead_tuples=100, bbm.vacuum=on}');
EOS
	$node->poll_query_until('postgres', "SELECT n_dead_tup >= 500 FROM pg_stat_user_tables WHERE relname = '$name'");
	arm($node, 'vacuum-checked', migration => $id);
	start_migration($node, $name);
	stands($node, 'vacuum-checked');
	my $offset = log_size($node);
	my $oid = value($node, "SELECT '$name'::regclass::oid");
	value($node, $how eq 'OWNER' ? "ALTER TABLE $name OWNER TO other" : "DROP TABLE $name");
	release($node);
	ok($node->poll_query_until('postgres', "SELECT status IN ('failed', 'running') FROM bbm_status('$name')"), "$name: its worker goes on");
	value($node, "SELECT bbm_drop('$name')");
	no_workers($node);
	is(value($node, "SELECT coalesce(sum(vacuum_count), 0) FROM pg_stat_all_tables WHERE relid = $oid"), 0, '... and does not vacuum the table');
	unlike(log_since($node, $offset), qr/PANIC|terminated by signal/, '... nor end');
}

# sql/run.c, bbm_launch_worker: another session has the last slot between the check and the launch.
{
	arm($node, 'launch-checked');
	my $first = background($node, 'postgres', 'SELECT bbm_launch_worker()');
	stands($node, 'launch-checked');
	my $offset = log_size($node);
	my $pid = value($node, q(SELECT bbm_launch_worker('10 min')));
	$node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM bbm_workers() WHERE pid = $pid)");
	release($node);
	finish_background($first);
	$node->wait_for_log(qr/worker exits because all slots are taken/, $offset);
	is(value($node, q(SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = 'bbm worker')), $pid,
		'of two workers that are launched for the last slot the second exits');
	value($node, "SELECT pg_terminate_backend($pid)");
	no_workers($node);
}

# base/impact_counts.c: an entry becomes another migration's while a statement runs (it counts for neither), or
# at the very moment at which it is counted (it counts for that one, once).
{
	my $id = subject($node, 'watched');
	# so many that the last one gets the entry of the first migration
	my $entries = 16;
	value($node, "CREATE FUNCTION impact_window(migration_id bigint, kind integer, pulse boolean) RETURNS void LANGUAGE c AS '$module', 'bbm_test_impact_window'");
	my $counted = sub { my ($of) = @_; return value($node, "SELECT i.statements FROM batched_background_migrations m, bbm_internal.bbm_impact(m.id, m.owner_oid) i WHERE m.id = $of") };
	# an entry is nobody's when its last pause has been over for a moment
	my $over = sub {
		$node->poll_query_until('postgres',
			"SELECT clock_timestamp() > '@{[value($node, 'SELECT clock_timestamp()')]}'::timestamptz + '100 ms'");
	};
	# to be called while the only entry at work is that of $id
	my $take = sub {
		my ($by) = @_;
		value($node, "SELECT impact_window(100000 * $by + i, 1, false) FROM generate_series(2, $entries) i");
		value($node, "SELECT impact_window($id, 1, NULL)");
		$over->();
		value($node, "SELECT impact_window($by, 1, false)");
	};
	for my $when ('never', 'before', 'at once')
	{
		my $by = subject($node, 'takes_entry_' . $when =~ s/ /_/r);
		value($node, "SELECT impact_window($id, 1, false)");
		my $holder = $node->background_psql('postgres');
		$holder->query_safe('SELECT pg_advisory_lock(7)');
		# the first of a session does not count, as those of this test that are alone in theirs
		my $session = background($node, 'postgres', q(SET application_name = 'counts'), 'SELECT 1', 'SELECT pg_advisory_lock_shared(7)');
		waits_for_lock($node, 'counts', 'a statement runs');
		my $before = $counted->($id);
		$take->($by) if $when eq 'before';
		arm($node, 'impact-counts') if $when eq 'at once';
		$holder->quit;
		if ($when eq 'at once')
		{
			stands($node, 'impact-counts');
			$take->($by);
			release($node);
		}
		finish_background($session);
		if ($when eq 'never')
		{
			cmp_ok($counted->($id), '>', $before, 'it counts');
			value($node, "SELECT impact_window($id, 1, NULL)");
		}
		else
		{
			# at once: that statement, and by chance one of the session that lets it go on
			my $by_now = $counted->($by);
			ok($when eq 'at once' ? $by_now == 1 || $by_now == 2 : $by_now == 0, "it does so for another migration that has taken the entry: $when")
			  || diag("counted: $by_now");
			value($node, "SELECT impact_window(100000 * $by + i, 1, NULL) FROM generate_series(2, $entries) i");
			value($node, "SELECT impact_window($by, 1, NULL)");
		}
		$over->();
	}
	value($node, 'DROP FUNCTION impact_window(bigint, integer, boolean)');
}

# server/stalled.c: a migration is dropped, or started, between the check and its report.
{
	subject($node, $_) for 'forgotten', 'remembered';
	value($node, <<'EOS');
SET session_replication_role = replica;
UPDATE batched_background_migrations SET created_at = '2020-01-01', updated_at = '2020-01-01' WHERE name IN ('forgotten', 'remembered');
EOS
	arm($node, 'stalled-found');
	value($node, "ALTER SYSTEM SET $_") for q(bbm.stale_pause_after = '1h'), q(bbm.naptime = '1s');
	value($node, 'SELECT pg_reload_conf()');
	stands($node, 'stalled-found');
	my $offset = log_size($node);
	value($node, q(SELECT bbm_drop('forgotten')));
	start_migration($node, 'remembered');
	finished($node, 'remembered', 'what a report is about goes on');
	is(value($node, q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bbm discovery')), 1, '... while one process reports');
	release($node);
	$node->wait_for_log(qr/migration "$_" is paused, and nothing has happened to it since/, $offset) for 'forgotten', 'remembered';
	is(value($node, q(SELECT string_agg(name || ' ' || status, ', ' ORDER BY name) FROM bbm_events WHERE event = 'stalled')), 'forgotten paused, remembered paused',
		'... and is reported as it was at the check, and once');
	once_each($node, 'remembered', 20);
	value($node, "ALTER SYSTEM RESET $_") for 'bbm.stale_pause_after', 'bbm.naptime';
	value($node, 'SELECT pg_reload_conf()');
	workers_gone($node);
}

# base/requests.c: a request comes after the last poll of the only worker that there may be.
{
	subject($node, 'before_it');
	subject($node, 'comes_late');
	arm($node, 'exit-idle');
	start_migration($node, 'before_it');
	stands($node, 'exit-idle');
	start_migration($node, 'comes_late');
	release($node);
	finished($node, 'comes_late', 'a request that comes while the only worker exits is for the next one');
	once_each($node, 'comes_late', 20);
	no_workers($node);
}

# base/slots.c: the launcher ends with a slot reserved, of which there is only this one.
{
	subject($node, 'reserved');
	arm($node, 'launch-reserved');
	start_migration($node, 'reserved');
	my ($launcher) = stands($node, 'launch-reserved');
	value($node, "SELECT pg_terminate_backend($launcher)");
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bbm launcher' AND pid <> $launcher");
	release($node);
	finished($node, 'reserved', 'the slot that a launcher had reserved is free when it has ended');
	once_each($node, 'reserved', 20);
	no_workers($node);
}

# sql/control.c, wait_for_batches: a cancel comes between a claim and its batch, which it hits when that begins.
{
	my $holder = $node->background_psql('postgres');
	$holder->query_safe('SELECT pg_advisory_lock(8)');
	value($node, <<'EOS');
CREATE FUNCTION waits_for_it(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql SET lock_timeout = 0 AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(8);
	UPDATE public.cancel_early SET n = n + 1 WHERE id BETWEEN lo AND hi;
END $$;
EOS
	my $id = subject($node, 'cancel_early', job => 'waits_for_it');
	arm($node, 'claim-committed', migration => $id);
	start_migration($node, 'cancel_early');
	stands($node, 'claim-committed');
	my $pause = pause_beside($node, 'cancel_early');
	$node->poll_query_until('postgres',
		q(SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pause' AND wait_event_type = 'Extension')));
	release($node);
	my ($out, $err) = finish_background($pause);
	is("$out$err", 1, 'a cancel that comes before its batch hits it');
	is(value($node, "SELECT count(*) FROM @{[jobs_of('cancel_early')]} j WHERE status = 4"), 0, '... and no batch is in flight');
	$holder->quit;
	start_migration($node, 'cancel_early');
	finished($node, 'cancel_early');
	once_each($node, 'cancel_early', 20);
}

# ... or while a commit of a job waits for a standby, which is all that it ends: the job goes on, and waits for the pause to commit.
{
	my $id = subject($node, 'cancel_lost', batch_size => 20, sub_batch_size => 5, synchronous => 'true', settings => q('{bbm.lock_timeout=1h}'));
	value($node, q(ALTER SYSTEM SET synchronous_standby_names = 'absent'));
	value($node, 'SELECT pg_reload_conf()');
	# commits until one waits: then the setting has taken effect
	my $waits = sub { return "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = '$_[0]' AND wait_event = 'SyncRep'" };
	my $commits = background($node, 'postgres', q(SET application_name = 'commits'),
		q(DO 'BEGIN LOOP PERFORM pg_logical_emit_message(true, pg_current_xact_id()::text, ''''); COMMIT; END LOOP; END'));
	$node->poll_query_until('postgres', $waits->('commits'));
	my $offset = log_size($node);
	{
		local $ENV{PGOPTIONS} = '-c synchronous_commit=local';
		# nor does the job end between two commits for any other reason
		never($node, $id, 'slice-due');
		start_migration($node, 'cancel_lost');
		ok($node->poll_query_until('postgres', $waits->('bbm worker')), 'a commit of a job waits for a standby');
		my ($out, $err) = finish_background(pause_beside($node, 'cancel_lost'));
		is("$out$err", 1, 'a cancel that ends this wait alone is sent again');
	}
	like(log_since($node, $offset), qr/canceling wait for synchronous replication due to user request/, '... as the commit took the first one');
	is(value($node, "SELECT sum(n) || ' done, ' || (SELECT count(*) FROM @{[jobs_of('cancel_lost')]} j WHERE status = 4) || ' in flight' FROM cancel_lost"), '5 done, 0 in flight', '... and ends the job');
	value($node, 'ALTER SYSTEM RESET synchronous_standby_names');
	value($node, 'SELECT pg_reload_conf()');
	value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'commits'));
	finish_background($commits);
	release($node);
	start_migration($node, 'cancel_lost');
	finished($node, 'cancel_lost');
	once_each($node, 'cancel_lost', 20);
}

# server/launcher.c, server/ddl.c: a database is dropped at each point of a launch for it.
for my $point (qw(launch-reserved launch-registered launch-attach launch-connected))
{
	value($node, 'CREATE DATABASE going');
	value($node, <<'EOS', 'going');
CREATE EXTENSION bbm;
CREATE TABLE t (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
SELECT bbm_create('m', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2');
EOS
	arm($node, $point);
	value($node, q(SELECT bbm_start('m')), 'going');
	stands($node, $point);
	my $drop = background($node, 'postgres', 'DROP DATABASE going');
	$node->poll_query_until('postgres',
		q(SELECT NOT EXISTS (SELECT FROM pg_database WHERE datname = 'going') OR EXISTS (SELECT FROM pg_stat_activity WHERE query = 'DROP DATABASE going' AND wait_event_type = 'Extension')));
	release($node);
	my (undef, $err) = finish_background($drop);
	is($err, '', "$point: the database is dropped");
	no_workers($node);
}

# server/launcher.c: what ends before it begins is not started again at once, since that would fill the log; nor is it forgotten.
{
	subject($node, 'stillborn');
	arm($node, 'launch-attach', stops => 5);
	my $began = time;
	start_migration($node, 'stillborn');
	for (1 .. 5)
	{
		my ($pid) = stands($node, 'launch-attach');
		kill 'TERM', $pid;
		$node->poll_query_until('postgres', "SELECT NOT $pid = ANY (point.standing('launch-attach'))");
	}
	# 200 ms, and then twice as long each time
	cmp_ok(time - $began, '>=', 3, 'a worker that ends before it begins is started again after growing delays');
	release($node);
	is(value($node, q(SELECT bbm_wait('stillborn', '3 min'))), 'finished', '... until one begins');
	no_workers($node);

	# before it takes its slot, and before it has checked anything
	for my $point ('discovery-attach', 'discovery-connected')
	{
		my $name = 'undiscovered_' . $point =~ s/-/_/r;
		subject($node, $name);
		value($node, qq(SET session_replication_role = replica; UPDATE batched_background_migrations SET status = 1 WHERE name = '$name'));
		arm($node, $point);
		value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'bbm launcher'));
		my ($pid) = stands($node, $point);
		kill 'TERM', $pid;
		is(value($node, qq(SELECT bbm_wait('$name', '1 min'))), 'finished', "$point: a discovery that ends there is tried again");
		release($node);
		no_workers($node);
	}
}

# server/launcher.c: a database is opened, and a migration started in it, while the launcher has listed those that are open.
{
	value($node, 'CREATE DATABASE opened');
	value($node, 'CREATE EXTENSION bbm', 'opened');
	value($node, 'CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO t SELECT generate_series(1, 100)', 'opened');
	value($node, q(SELECT bbm_create('opened', 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2')), 'opened');
	value($node, 'ALTER DATABASE opened ALLOW_CONNECTIONS false');
	arm($node, 'launcher-listed');
	value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'bbm launcher'));
	stands($node, 'launcher-listed');
	value($node, 'ALTER DATABASE opened ALLOW_CONNECTIONS true');
	value($node, q(SELECT bbm_start('opened')), 'opened');
	release($node);
	is(value($node, q(SELECT bbm_wait('opened', '1 min')), 'opened'), 'finished', 'a migration that is started then runs');
	no_workers($node);
	value($node, 'DROP DATABASE opened');
}

# catalog/extension.c: the extension is dropped while a process works, and created anew.
for my $point (qw(claim-committed batch-committed batch-aborted end-begin end-committed launch-connected))
{
	my $name = 'ext_' . $point =~ s/-/_/r;
	my $fails = $point eq 'batch-aborted' ? ' / (id - 3)' : '';
	my $id = subject($node, $name, job => "UPDATE $name SET n = n + 1$fails WHERE id BETWEEN \$1 AND \$2");
	my $offset = log_size($node);
	arm($node, $point, migration => $point =~ /^launch/ ? 0 : $id);
	start_migration($node, $name);
	stands($node, $point);
	my $drop = background($node, 'postgres', q(SET application_name = 'drop'), 'DROP EXTENSION bbm CASCADE');
	$node->poll_query_until('postgres',
		q(SELECT NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'bbm') OR EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'drop' AND state = 'active' AND wait_event IS NOT NULL)));
	release($node);
	my (undef, $err) = finish_background($drop);
	unlike($err, qr/ERROR/, "$point: the extension is dropped");
	no_workers($node);
	my @errors = grep { /\[bbm worker\] .*(?:ERROR|FATAL|PANIC):/ && !/due to administrator command/ } split /\n/, log_since($node, $offset);
	is("@errors", '', '... and its worker exits without an error');
	value($node, 'CREATE EXTENSION bbm');
}

# base/requests.c: help is asked for after the last poll of a worker that exits: two workers do a phase, one finds no range any more, and the other one begins the next phase.
{
	value($node, 'ALTER SYSTEM SET bbm.max_workers = 2');
	$node->restart;
	my $id = subject($node, 'help_comes_late', batch_size => 10, workers => 2, verify => 'true', filter => "'n = 0'");
	arm($node, 'batch-begin', migration => $id, passes => 1);
	arm($node, 'exit-idle');
	start_migration($node, 'help_comes_late');
	stands($node, 'batch-begin');
	stands($node, 'exit-idle');
	arm($node, 'batch-statement', migration => $id, passes => 1, stops => 2);
	release($node, 'batch-begin');
	# the help that it asks for
	stands($node, 'batch-statement');
	release($node, 'exit-idle');
	ok($node->poll_query_until('postgres', q(SELECT cardinality(point.standing('batch-statement')) = 2)),
		'help that is asked for while a worker exits comes');
	release($node);
	finished($node, 'help_comes_late');
	once_each($node, 'help_comes_late', 20);
	no_workers($node);
}

# ... or a worker exits before another one that has polled while it worked: when its job is to be tried again is not forgotten.
{
	value($node, 'CREATE SEQUENCE tries');
	my $id = subject($node, 'left_for_later', rows => 5, workers => 2, settings => q('{bbm.retry_delay=6s}'),
		job => q(UPDATE left_for_later SET n = n + 1 + 0 / (nextval(''tries'') - 1)::integer WHERE id BETWEEN $1 AND $2));
	arm($node, 'batch-begin', migration => $id);
	arm($node, 'exit-idle');
	start_migration($node, 'left_for_later');
	stands($node, 'batch-begin');
	my ($pid) = stands($node, 'exit-idle');
	release($node, 'batch-begin');
	ok($node->poll_query_until('postgres', "SELECT array_agg(pid) = ARRAY[$pid] FROM pg_stat_activity WHERE backend_type = 'bbm worker'"),
		'a worker leaves a job for later, while another one that has not seen it exits');
	release($node);
	finished($node, 'left_for_later', '... and that is done');
	once_each($node, 'left_for_later', 5);
	is(value($node, "SELECT attempts FROM @{[jobs_of('left_for_later')]} j"), 2, '... in its second attempt');
	no_workers($node);
}

# base/cpu_use.c: what the system says of the CPUs, and of each process of bbm, is read by one of these for all.
{
	my $many = points_node('cpu_reads', conf => "bbm.naptime = 0\nbbm.max_workers = 6\nautovacuum = off\n");
	value($many, <<'EOS');
CREATE TABLE many (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0) WITH (fillfactor = 50);
INSERT INTO many SELECT generate_series(1, 300000);
SELECT bbm_create('many', 'many', 'UPDATE many SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 5, workers => 6);
EOS
	# read every 250 ms: for 15 s by one, and for less than three by each of six
	arm($many, 'cpu-read', passes => 60);
	my $began = time;
	value($many, q(SELECT bbm_start('many')));
	$many->poll_query_until('postgres', q(SELECT count(*) = 6 FROM bbm_workers() WHERE migration = 'many'));
	value($many, 'SELECT pg_sleep(5)');
	my $working = value($many, q(SELECT count(*) FROM bbm_workers() WHERE migration = 'many'));
	my $standing = standing($many, 'cpu-read');
	SKIP:
	{
		skip 'the machine is too slow', 1 if time - $began > 14 || $working < 6;
		is($standing, '', 'six workers do not read more often what is the same for all');
	}
	release($many);
	value($many, q(SELECT bbm_drop('many')));
	$many->stop;
}

log_clean($node);
done_testing();
