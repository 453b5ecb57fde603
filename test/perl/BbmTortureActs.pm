# What BbmTorture does to a server: a deck of acts, each as often in it as its
# weight; and what all of them together may leave in the log.

package BbmTortureActs;

use strict;
use warnings;

use Exporter 'import';
use BbmTest;
use Errno qw(EIO ENOSPC);
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

our @EXPORT = qw(torture_conf deck calm cut_off missing_tools unexpected_lines);

# What makes disks fail, and clocks jump: libraries that a server is started with.  The second is
# Debian's faketime.
my $DISK = PostgreSQL::Test::Utils::tempdir . '/disk.so';
my ($FAKETIME) = glob '/usr/lib/*/faketime/libfaketime.so.1';
my $compiled = system('cc', '-shared', '-fPIC', '-O1', '-o', $DISK, "$ENV{TESTDIR}/test/disk.c", '-ldl') == 0;

# A run goes on without what cannot be had; these are the acts it does without.
sub missing_tools
{
	return ($compiled ? () : ('disk errors: test/disk.c cannot be compiled'),
		$FAKETIME ? () : ('a clock that jumps: faketime is not installed'));
}

# Limits that are met all the time.
sub torture_conf
{
	return <<'EOC';
bbm.max_workers = 5
bbm.retry_max_delay = 100ms
bbm.lock_timeout = 100ms
bbm.max_blocking_time = 20ms
bbm.max_batch_time = 90ms
bbm.naptime = 5s
bbm.job_retention = 40
max_prepared_transactions = 10
max_worker_processes = 12
wal_keep_size = 512MB
deadlock_timeout = 50ms
log_line_prefix = '%m [%p] [%b] %q%a <%e> '
EOC
}

# A statement that may fail: by a time limit, by what was done to the server just before.
sub try
{
	my ($state, $sql, $node) = @_;
	# a psql that cannot connect does not read what it is sent, of which IPC::Run dies
	my ($rc, $out) = eval { ($node || $state->{node})->psql('postgres', "SET statement_timeout = '5s'; SET lock_timeout = '2s'; $sql") };
	return defined $rc && $rc == 0 ? $out : '';
}

# One that must not be in a transaction block.
sub try_alone
{
	my ($state, $sql) = @_;
	local $ENV{PGOPTIONS} = '-c statement_timeout=10s -c lock_timeout=2s';
	eval { $state->{node}->psql('postgres', $sql) };
	return;
}

sub some_process
{
	my ($state, $kind) = @_;
	return try($state, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'bbm $kind' ORDER BY random() LIMIT 1") || 0;
}

# Not waited for; calm() ends those that are left.
sub beside
{
	my ($state, @sql) = @_;
	my @running = grep { $_->{run}->pumpable || (eval { $_->{run}->finish } && 0) } @{ $state->{beside} || [] };
	push @running, background($state->{node}, 'postgres', @sql) if @running < 6;
	$state->{beside} = \@running;
	return;
}

sub restart
{
	my ($state, $how) = @_;
	my $node = $state->{node};
	$how eq 'kill9' ? $node->kill9 : $node->stop($how, fail_ok => 1);
	# few, so that there are too few at times; the standby has more
	$node->adjust_conf('postgresql.conf', 'max_worker_processes', (4, 5, 6, 12)[ rand 4 ]) if rand() < 0.5;
	start_anyway($node);
	return;
}

# The server, and none of its clients, runs with that environment for as long as the function takes, and crashes
# before and after.
sub with_environment
{
	my ($state, $environment, $meanwhile) = @_;
	my $node    = $state->{node};
	my $folder  = PostgreSQL::Test::Utils::tempdir;
	my $bindir  = $node->config_data('--bindir');
	chomp $bindir;
	append_to_file("$folder/postgres", "#!/bin/sh\n" . join('', map { "export $_='$environment->{$_}'\n" } sort keys %$environment) . "exec '$bindir/postgres' \"\$@\"\n");
	chmod 0755, "$folder/postgres";
	$node->stop('immediate', fail_ok => 1);
	# it may end while it starts
	run_log([ 'pg_ctl', '-w', '-t', 20, '-D', $node->data_dir, '-l', $node->logfile, '-p', "$folder/postgres", '-o', '--cluster-name=' . $node->name, 'start' ]);
	$meanwhile->();
	# it may have ended by itself, and the test does not know of it
	run_log([ 'pg_ctl', '-w', '-D', $node->data_dir, '-m', 'immediate', 'stop' ]) if -e $node->data_dir . '/postmaster.pid';
	start_anyway($node);
	return;
}

# For a few seconds some reads and writes of data and WAL fail, in all processes of the server: those that are
# not safe to go on end it, and it recovers, perhaps again and again.
sub disk
{
	my ($state) = @_;
	with_environment(
		$state,
		{ LD_PRELOAD => $DISK, BBM_TEST_READ_ERRORS => 20, BBM_TEST_WRITE_ERRORS => 2, BBM_TEST_ERRNO => rand() < 0.5 ? EIO : ENOSPC },
		sub { sleep 1 + rand 3 });
	return;
}

# The clock is set back and forth, by up to a month, and in the end right.
sub clock
{
	my ($state) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir . '/clock';
	my $set  = sub {
		open my $handle, '>', $file or die "$file: $!";
		print $handle "$_[0]\n";
		close $handle;
	};
	$set->('+0');
	with_environment(
		$state,
		{ LD_PRELOAD => $FAKETIME, FAKETIME_TIMESTAMP_FILE => $file, FAKETIME_NO_CACHE => 1, FAKETIME_DONT_FAKE_MONOTONIC => 1 },
		sub {
			for (1 .. 4)
			{
				$set->(('+30d', '+3h', '+61', '+5', '+0', '-5', '-59', '-2h', '-20d')[ rand 9 ]);
				sleep 0.3 + rand 0.7;
			}
			# what has noted a time to come must not wait for that
			$set->('+0');
			sleep rand 1;
		});
	return;
}

# The standby gets nothing any more, or again.
sub cut_off
{
	my ($state, $off) = @_;
	my $standby = $state->{standby};
	eval { $standby->psql('postgres', $off ? q(ALTER SYSTEM SET primary_conninfo = 'host=/nowhere') : 'ALTER SYSTEM RESET primary_conninfo') };
	try($state, 'SELECT pg_reload_conf()', $standby);
	return;
}

sub control
{
	my ($state, $t) = @_;
	my $update = "UPDATE batched_background_migrations SET status = %d WHERE name = '$t'";
	my @ways   = (
		sub { try($state, sprintf $update, 0); sleep rand 0.2; try($state, sprintf $update, 1) },
		sub { try($state, "SELECT bbm_pause('$t', cancel => true, wait => true)"); try($state, "SELECT bbm_start('$t')") },
		sub { try($state, 'SELECT bbm_pause()'); try($state, 'SELECT bbm_start()') },
		sub { try($state, 'BEGIN; ' . sprintf($update, 0) . '; SELECT pg_sleep(0.1); ROLLBACK') },
		sub { try($state, "BEGIN; SELECT bbm_pause('$t'); SAVEPOINT s; SELECT bbm_start('$t'); ROLLBACK TO s; ROLLBACK") },
		sub { try($state, 'UPDATE batched_background_migrations SET status = 1') },
		sub { try($state, "SELECT bbm_cancel('$t')"); try($state, "SELECT bbm_resume('$t')") },
		sub { try($state, "SELECT bbm_retry('$t')") });
	$ways[ rand @ways ]->();
	return;
}

sub alter
{
	my ($state, $t) = @_;
	my @ways = (
		'batch_size => ' . (1 + int rand 10), 'workers => ' . (1 + int rand 4),
		'sub_batch_size => ' . (1 + int rand 4), q(target_duration => '5ms', min_batch_size => 1));
	try($state, "SELECT bbm_alter('$t', " . $ways[ rand @ways ] . ')');
	return;
}

sub ddl
{
	my ($state, $t) = @_;
	my @ways = (
		"ALTER TABLE $t ADD COLUMN IF NOT EXISTS extra integer DEFAULT 0",
		"ALTER TABLE $t DROP COLUMN IF EXISTS extra",
		"VACUUM $t", "VACUUM FULL $t", "ANALYZE $t",
		"REINDEX TABLE CONCURRENTLY $t",
		"REINDEX TABLE $t",
		$t eq 'parted' ? "CREATE INDEX ON $t (touched)" : "CREATE INDEX CONCURRENTLY IF NOT EXISTS ${t}_touched ON $t (touched)",
		$t eq 'parted' ? "DROP INDEX IF EXISTS parted_touched_idx" : "DROP INDEX CONCURRENTLY IF EXISTS ${t}_touched",
		"CLUSTER $t USING ${t}_id_key",
		"BEGIN; ALTER TABLE $t ADD COLUMN rolled_back integer; ROLLBACK");
	try_alone($state, $ways[ rand @ways ]);
	return;
}

# A partition with rows of its own comes, goes, or is dropped.
sub partition
{
	my ($state) = @_;
	my @ways = (
		'CREATE TABLE parted_3 (LIKE parted INCLUDING ALL); INSERT INTO parted_3 (id, late) SELECT i, true FROM generate_series(500000000, 500000099) i; '
		  . 'ALTER TABLE parted ATTACH PARTITION parted_3 FOR VALUES FROM (500000000) TO (600000000)',
		'ALTER TABLE parted DETACH PARTITION parted_3; DROP TABLE parted_3',
		'DROP TABLE parted_3');
	try($state, 'BEGIN; ' . $ways[ rand @ways ] . '; COMMIT');
	return;
}

# Locks, snapshots and waits of other sessions.
sub bystander
{
	my ($state, $t) = @_;
	my $id   = 1 + int rand 200;
	my $mode = ('ACCESS SHARE', 'SHARE', 'SHARE ROW EXCLUSIVE', 'ACCESS EXCLUSIVE')[ rand 4 ];
	my $gid  = 'torture ' . int rand 1e9;
	my @ways = (
		sub { try($state, "BEGIN; LOCK TABLE $t IN $mode MODE; SELECT pg_sleep(0.1); COMMIT") },
		sub { beside($state, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM $t; SELECT pg_sleep(3); COMMIT") },
		sub { beside($state, "BEGIN; UPDATE $t SET touched = 0 WHERE id = $id; SELECT pg_sleep(1); ROLLBACK") },
		sub { beside($state, "BEGIN; SELECT id FROM batched_background_migration_jobs ORDER BY id DESC LIMIT 3 FOR UPDATE; SELECT pg_sleep(0.3); ROLLBACK") },
		sub {
			# backwards, against the order of a batch
			beside($state, "BEGIN; UPDATE $t SET touched = 0 WHERE id = $id + 3; SELECT pg_sleep(0.05); UPDATE $t SET touched = 0 WHERE id = $id; COMMIT");
		},
		sub {
			try($state, "BEGIN; UPDATE $t SET touched = 0 WHERE id = $id; PREPARE TRANSACTION '$gid'");
			sleep 0.3;
			try($state, (rand() < 0.5 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid'");
		});
	$ways[ rand @ways ]->();
	return;
}

# More sessions than there are connections.
sub crowd
{
	my ($state) = @_;
	my $script = PostgreSQL::Test::Utils::tempdir . '/crowd.sql';
	append_to_file($script, "SELECT pg_sleep(0.3);\n") unless -e $script;
	local %ENV = $state->{node}->_get_env();
	my ($out, $err) = ('', '');
	my @runs = map {
		IPC::Run::start([ 'pgbench', '-n', '-U', 'crowd', '-c', 20, '-t', 1, '-f', $script, $state->{node}->connstr('postgres') ],
			'<', \undef, '>', \$out, '2>', \$err)
	} 1 .. 3;
	for my $run (@runs) { eval { $run->finish } }
	return;
}

# A job is taken away from a worker that lives, which no fault can do: it is stopped between
# two transactions, others do the job, and when it goes on it must find that out.
sub thief
{
	my ($state) = @_;
	my ($pid, $name) = split /\|/, try($state, <<'EOS') or return;
SELECT w.pid, w.migration FROM bbm_workers() w JOIN batched_background_migrations m ON m.name = w.migration
WHERE m.workers > 1 ORDER BY w.job IS NOT NULL AND m.settings IS NOT NULL AND m.sub_batch_size > 0 DESC, random() LIMIT 1
EOS
	return unless $name;
	kill STOP => $pid;
	# also should it hold what our next statement waits for
	system "(sleep 3; kill -CONT $pid) >/dev/null 2>&1 &";
	my $own = "batched_background_migration_id = (SELECT id FROM batched_background_migrations WHERE name = '$name')";
	my $ids = try($state, <<"EOS");
SET session_replication_role = replica;
SET lock_timeout = '100ms';
BEGIN;
LOCK TABLE batched_background_migration_jobs IN EXCLUSIVE MODE;
SELECT string_agg(id::text, ', ') FROM batched_background_migration_jobs WHERE $own AND status = 4;
UPDATE batched_background_migration_jobs SET status = 1, claim_epoch = claim_epoch + 1 WHERE $own AND status = 4;
COMMIT;
EOS
	if ($ids)
	{
		for (1 .. 20)
		{
			last if try($state, "SELECT count(*) = 0 FROM batched_background_migration_jobs WHERE $own AND id IN ($ids) AND status <> 2") eq 't'
			  && ++$state->{done}{'jobs taken away and done'};
			sleep 0.1;
		}
	}
	kill CONT => $pid;
	return $ids;
}

sub switch_off
{
	my ($state) = @_;
	try_alone($state, q(ALTER SYSTEM SET bbm.enabled = off));
	try($state, 'SELECT pg_reload_conf()');
	sleep rand 0.5;
	switch_on($state);
	return;
}

sub switch_on
{
	my ($state) = @_;
	try_alone($state, q(ALTER SYSTEM RESET bbm.enabled));
	try($state, 'SELECT pg_reload_conf()');
	return;
}

sub standby
{
	my ($state) = @_;
	my $standby = $state->{standby};
	my @ways    = (
		sub { try($state, 'SELECT pg_wal_replay_pause()', $standby) },
		sub { try($state, 'SELECT pg_wal_replay_resume()', $standby) },
		sub { $standby->stop(rand() < 0.5 ? 'immediate' : 'fast', fail_ok => 1); start_anyway($standby) },
		sub {
			my $ours = try($state, q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'bbm%'), $standby);
			is($ours, 0, 'nothing of ours runs on the standby') if $ours ne '' && $ours ne '0';
		});
	$ways[ rand @ways ]->();
	return;
}

# All acts, each as often as its weight; some() gives the name of a subject.
sub deck
{
	my ($state, $some) = @_;
	my $kill = sub {
		my ($signal, $kind) = @_;
		my $pid = some_process($state, $kind) or return;
		kill KILL => $pid if $signal eq 'kill';
		try($state, "SELECT pg_${signal}_backend($pid)") if $signal ne 'kill';
	};
	my @acts = (
		[ 5, 'terminate', sub { $kill->('terminate', 'worker') } ],
		[ 5, 'cancel', sub { $kill->('cancel', 'worker') } ],
		[ 2, 'kill', sub { $kill->('kill', 'worker') } ],
		[ 1, 'launcher', sub { $kill->('terminate', 'launcher') } ],
		[ 1, 'kill launcher', sub { $kill->('kill', 'launcher') } ],
		[ 1, 'everybody', sub { try($state, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'bbm%')) } ],
		[ 6, 'control', sub { control($state, $some->()) } ],
		[ 3, 'alter', sub { alter($state, $some->()) } ],
		[ 6, 'ddl', sub { ddl($state, $some->()) } ],
		[ 3, 'partition', sub { partition($state) } ],
		[ 6, 'bystander', sub { bystander($state, $some->()) } ],
		[ 6, 'thief', sub { thief($state) || thief($state) } ],
		[ 1, 'crowd', sub { crowd($state) } ],
		[ 1, 'switch', sub { switch_off($state) } ],
		[ 1, 'foreground', sub { my $t = $some->(); try_alone($state, "SET statement_timeout = '300ms'; CALL bbm_run('$t')") } ],
		[ 1, 'launch', sub { try($state, q(SELECT bbm_launch_worker('0'))) } ],
		[ 2, 'standby', sub { standby($state) } ],
		[ 1, 'cut off', sub { cut_off($state, 1); sleep 1 + rand 2; cut_off($state, 0) } ],
		[ 1, 'immediate', sub { restart($state, 'immediate') } ],
		[ 1, 'fast', sub { restart($state, 'fast') } ],
		[ 1, 'postmaster', sub { restart($state, 'kill9') } ]);
	push @acts, [ 1, 'disk', sub { disk($state) } ] if $compiled;
	push @acts, [ 1, 'clock', sub { clock($state) } ] if $FAKETIME;
	return [ map { my $act = $_; ($act) x $act->[0] } @acts ];
}

# Ends what is still going on beside; the standby has caught up.
sub calm
{
	my ($state) = @_;
	poll_restarting($state->{node}, 'SELECT true');
	switch_on($state);
	try($state, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND query LIKE '%pg_sleep%'));
	for my $p (@{ $state->{beside} || [] }) { eval { $p->{run}->finish } }
	cut_off($state, 0);
	try($state, 'SELECT pg_wal_replay_resume()', $state->{standby});
	$state->{node}->wait_for_catchup($state->{standby});
	return;
}

# What the acts, and the jobs themselves, make processes of ours say.
my @expected = (
	qr/an unlucky batch|division by zero/,
	qr/canceling statement due to (user request|lock timeout|statement timeout)/,
	qr/terminating (background worker|walreceiver|connection|autovacuum)/,
	qr/terminating connection (due to|because of)/,
	qr/deadlock detected/,
	qr/could not start a worker: out of background worker slots/,
	qr/the database system is (starting up|shutting down|in recovery)/,
	# a disk that fails
	qr/Input\/output error|No space left on device/,
	qr/terminated by signal 6: Aborted/);

# Of our processes nothing but that; of anybody's, nothing that says the server itself is at fault.
sub unexpected_lines
{
	my ($node) = @_;
	return grep {
		my $line = $_;
		(
			$line =~ /\b(PANIC|TRAP):|terminated by signal (?!9\b|3\b)|stuck spinlock|<XX...>|WARNING:  (leaked|problem in|you don't own|buffer refcount|snapshot)/
			  || $line =~ /\[bbm (launcher|worker|discovery)\].*(WARNING|ERROR|FATAL):/
		  )
		  && !grep { $line =~ $_ } @expected
	} split /\n/, log_since($node);
}

1;
