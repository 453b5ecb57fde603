# The fault harness: migrations of every strategy, the application's writes beside
# them, and acts that break in on both, drawn from a seed.  What has to hold is
# checked whenever a migration has finished, and in the end.
#
# A subject is a table with its migration.  Its rows have
#
#	id			unique; whatever the key is, it is derived from it
#	n			how often the migration has done the row
#	late		the application has inserted it while the migration ran
#	touched, v	the application's
#
# Rows that are not late must be done once; late ones at most once.  When a subject
# has finished it is checked, dropped, and comes again with other sizes.

package BbmTorture;

use strict;
use warnings;

use Exporter 'import';
use BbmHistory;
use BbmTest;
use BbmTortureActs;
use IPC::Run;
use List::Util qw(shuffle sum);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

our @EXPORT = qw(torture);

# More than this of anonymous memory, in kB, no process of bbm may gain after its first seconds.
use constant { GROWTH => 16 * 1024, WARM => 3 };

# ---------------------------------------------------------------------------
# Subjects
# ---------------------------------------------------------------------------

# define: what follows the names in the call of bbm_create; {n} {s} {w} {r} are sizes and limits.
# ranges: the key of a row, the first and last key of a job, comparable.
my $INT = [ 'id', 'min_value', 'max_value' ];
my $FUNCTION = <<'EOS';
CREATE OR REPLACE FUNCTION {t}_job({args}) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	done bigint;
BEGIN
	UPDATE {t} SET n = n + 1 WHERE id BETWEEN lo AND hi;
	GET DIAGNOSTICS done = ROW_COUNT;
	-- some batches are long, and some fail
	PERFORM pg_sleep(CASE WHEN random() < 0.02 THEN 0.1 ELSE 0.002 END);
	-- with the lock that says the worker lives
	IF random() < 0.05 THEN
		PERFORM pg_advisory_unlock_all();
	END IF;
	IF random() < 0.005 OR EXISTS (SELECT FROM faults WHERE tab = '{t}' AND id BETWEEN lo AND hi) THEN
		RAISE 'an unlucky batch';
	END IF;
	RETURN done;
END $$;
EOS
my %subjects = (
	plain => {
		define => q(bbm_create('{t}', '{t}', 'UPDATE {t} SET n = n + 1 WHERE id BETWEEN $1 AND $2', workers => {w}, {s} max_attempts => 100, batch_size => {n}{r})),
		ranges => $INT,
	},
	ranged => {
		functions => $FUNCTION =~ s/\{args\}/lo bigint, hi bigint/r,
		define    => q(bbm_create('{t}', '{t}', '{t}_job', workers => {w}, {s} max_attempts => 100, batch_size => {n}{r})),
		ranges    => $INT,
	},
	registry => {
		functions => $FUNCTION =~ s/\{args\}/tab_ text, col_ text, lo bigint, hi bigint, size integer/r,
		define    => q(bbm_create('{t}', '{t}', '{t}_job', workers => {w}, max_attempts => 100, batch_size => {n}{r})),
		ranges    => $INT,
	},
	# fails for good, and is corrected and tried again
	corrected => {
		functions => $FUNCTION =~ s/\{args\}/lo bigint, hi bigint/r,
		fill      => q(INSERT INTO faults SELECT '{t}', id FROM {t} WHERE id % 211 = 5),
		define    => q(bbm_create('{t}', '{t}', '{t}_job', workers => {w}, max_attempts => 3, batch_size => {n}{r})),
		ranges    => $INT,
		fails     => qr/an unlucky batch/,
	},
	composite => {
		columns => q(, a integer GENERATED ALWAYS AS ((id % 7)::integer) STORED, b text GENERATED ALWAYS AS (md5(id::text)) STORED, PRIMARY KEY (a, b)),
		define  => q(bbm_create('{t}', '{t}', 'UPDATE {t} SET n = n + 1 WHERE (a, b) >= ($1, $2) AND (a, b) <= ($3, $4)', column_name => 'a, b', workers => {w}, {s} max_attempts => 100, batch_size => {n}{r})),
		ranges => [ 'a || b', 'min_key[1] || min_key[2]', 'max_key[1] || max_key[2]' ],
	},
	texts => {
		columns => q(, t text GENERATED ALWAYS AS (md5(id::text)) STORED PRIMARY KEY),
		define  => q(bbm_create('{t}', '{t}', 'UPDATE {t} SET n = n + 1 WHERE t BETWEEN $1 AND $2', workers => {w}, {s} max_attempts => 100, batch_size => {n}{r})),
		ranges => [ 't', 'min_key[1]', 'max_key[1]' ],
	},
	loose => {
		columns => q(, g bigint GENERATED ALWAYS AS (id / 10) STORED NOT NULL),
		index   => q(CREATE INDEX ON {t} (g)),
		define  => q(bbm_create('{t}', '{t}', 'UPDATE {t} SET n = n + 1 WHERE g BETWEEN $1 AND $2', column_name => 'g', batching_strategy => 'LooseIndexScanBatchingStrategy', workers => {w}, max_attempts => 100, batch_size => 1 + {n} / 10)),
		ranges => [ 'g', 'min_value', 'max_value' ],
	},
	nulls => {
		columns => q(, f bigint),
		index   => q(CREATE INDEX ON {t} (f) WHERE f IS NULL),
		define  => q(bbm_update('{t}', '{t}', 'f = id, n = n + 1', column_name => 'f', batching_strategy => 'NullKeySetBatchingStrategy', workers => {w}, max_attempts => 100, batch_size => {n}{r})),
		done   => 'f IS NOT NULL OR late',
	},
	# rows that come or are touched are filled by the trigger, so not each is the migration's
	blocks => {
		columns => q(, filled bigint),
		index   => q(SELECT bbm_sync_trigger('{t}', 'filled = id', 'late')),
		define  => q(bbm_update('{t}', '{t}', 'filled = id, n = n + 1', 'filled IS NULL', batching_strategy => 'BlockRangeBatchingStrategy', workers => {w}, max_attempts => 100, batch_size => 1 + {n} / 10)),
		done   => 'filled = id',
	},
	synced => {
		columns => q(, doubled bigint),
		index   => q(SELECT bbm_sync_trigger('{t}', 'doubled = v * 2')),
		define  => q(bbm_update('{t}', '{t}', 'doubled = v * 2, n = n + 1', 'doubled IS DISTINCT FROM v * 2', verify => true, workers => {w}, {s} max_attempts => 100, batch_size => {n}{r})),
		ranges => $INT,
		once   => 'true',
		done   => 'doubled = v * 2',
	},
	# every third row is to go
	deleted => {
		columns => q(, obsolete boolean GENERATED ALWAYS AS (id % 3 = 0 AND NOT late) STORED),
		define  => q(bbm_delete('{t}', '{t}', 'obsolete', verify => true, workers => {w}, {s} max_attempts => 100, batch_size => {n}{r})),
		ranges => $INT,
		once   => 'true',
		done   => 'NOT obsolete',
		stays  => 'i % 3 <> 0',
	},
	# one in 97 cannot be done
	poison => {
		columns => q(, q bigint),
		define  => q(bbm_update('{t}', '{t}', 'n = n + 1, q = 1 / (id % 97)', on_error => 'split', max_errors => 1000, max_attempts => 4, workers => {w}, batch_size => {n}{r})),
		ranges => $INT,
		once   => 'n = (id % 97 <> 0)::integer',
		also   => q(SELECT string_agg(format('%s: %s', coalesce(t.id, e.min_value), coalesce(e.error_sqlstate, 'not quarantined')), ', ')
			FROM (SELECT * FROM {t} WHERE id % 97 = 0 AND NOT late) t
			FULL JOIN (SELECT min_value, max_value, error_sqlstate FROM bbm_migration_errors WHERE migration = '{t}') e ON e.min_value = t.id
			WHERE (e.min_value IS NULL OR e.min_value <> e.max_value OR e.min_value % 97 <> 0 OR e.error_sqlstate <> '22012')),
	},
	follow => {
		define => q(bbm_create('{t}', '{t}', 'UPDATE {t} SET n = n + 1 WHERE id BETWEEN $1 AND $2', follow => true, workers => {w}, max_attempts => 100, batch_size => 5 + {n}{r})),
		ranges => $INT,
	},
	parted => {
		partitioned => 1,
		define => q(bbm_create('{t}', '{t}', 'UPDATE {t} SET n = n + 1 WHERE id BETWEEN $1 AND $2', workers => {w}, {s} max_attempts => 100, batch_size => {n}{r})),
		ranges => $INT,
	});

sub between { my ($low, $high) = @_; return $low + int rand($high - $low + 1) }

# The statements that create a subject again, with other sizes.
sub make_sql
{
	my ($state, $name) = @_;
	my $subject = $subjects{$name};
	my $rows    = between(1000, 4000);
	my %is      = (
		t => $name,
		n => between(1, 8),
		w => between(1, 4),
		s => rand() < 0.5 ? 'sub_batch_size => ' . between(1, 3) . ',' : '',
		# with sub-batches the worker then waits in the middle of its job most of the time
		r => rand() < 0.5 ? ", settings => '{bbm.max_row_rate=" . between(200, 2000) . "}'" : '');
	my $key = ($subject->{columns} || '') =~ /PRIMARY KEY/ ? 'UNIQUE' : 'PRIMARY KEY';
	my $sql = <<"EOS" . ($subject->{functions} || '');
SELECT bbm_drop('{t}', true);
DROP TABLE IF EXISTS {t};
DELETE FROM faults WHERE tab = '{t}';
CREATE TABLE {t} (id bigint NOT NULL DEFAULT nextval('late_ids') $key, n integer NOT NULL DEFAULT 0, late boolean NOT NULL DEFAULT false,
	touched integer NOT NULL DEFAULT 0, v bigint NOT NULL DEFAULT 1@{[$subject->{columns} || '']})@{[$subject->{partitioned} ? ' PARTITION BY RANGE (id)' : '']};
EOS
	if ($subject->{partitioned})
	{
		my @bounds = ('MINVALUE', (map { 1 + int($_ * $rows / 3) } 1, 2), 500_000_000, 600_000_000, 'MAXVALUE');
		for my $i (0 .. $#bounds - 1)
		{
			# the middle is for partitions that come and go
			next if $i == 3;
			$sql .= "CREATE TABLE {t}_$i PARTITION OF {t} FOR VALUES FROM ($bounds[$i]) TO ($bounds[$i + 1]);\n";
		}
	}
	# the number of rows is recorded in the same transaction
	$sql .= "INSERT INTO {t} (id) SELECT i FROM generate_series(1, $rows) i; COMMENT ON TABLE {t} IS '$rows';\n";
	$sql .= "$subject->{$_};\n" for grep { $subject->{$_} } 'index', 'fill';
	# who changes which row is part of the history; a row that goes has none
	my $int = $subject->{ranges} && $subject->{ranges}[0] eq 'id';
	$sql .= "SELECT $subject->{define};\n"
	  . history_subject_sql("{t} " . ++$state->{generation}, '{t}', ranges => $int, counts => $subject->{ranges} && !$subject->{once})
	  . "SELECT bbm_start('{t}');\n";
	$sql =~ s/\{(\w)\}/$is{$1}/g;
	return $sql;
}

# ---------------------------------------------------------------------------
# What has to hold
# ---------------------------------------------------------------------------

sub violation
{
	my ($state, $what, $saw) = @_;
	my $again = "test/torture --seed $state->{seed} --seconds $state->{seconds}";
	fail($what);
	diag("$what: $saw\nThe last acts: @{$state->{last}}\nTo repeat: $again");
	die "too many violations\n" if ++$state->{violations} > 20;
	return;
}

# As value(), but undef where the server is not in a state to answer.
sub try_value
{
	my ($state, $sql) = @_;
	my ($rc, $out) = eval { $state->{node}->psql('postgres', $sql) };
	return defined $rc && $rc == 0 ? $out : undef;
}

# Of a subject that has finished: each rule is a query whose answer has to be empty.
sub rules
{
	my ($state, $name) = @_;
	my $subject = $subjects{$name};
	my $once    = $subject->{once} || 'n = 1';
	my $done    = $subject->{done} || 'true';
	my $stays   = $subject->{stays} || 'true';
	my $jobs    = "(SELECT j.* FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name = '$name')";
	my %rules   = (
		'each row is done once, and none twice' =>
		  "SELECT string_agg(format('%s n=%s late=%s', id, n, late), ', ') FROM (SELECT * FROM $name WHERE (NOT late AND NOT ($once)) OR n NOT IN (0, 1) OR NOT coalesce($done, false) ORDER BY id LIMIT 20) t",
		'no row is lost' =>
		  "SELECT string_agg(i::text, ', ') FROM (SELECT i FROM generate_series(1, obj_description('$name'::regclass)::integer) i WHERE i % 50 <> 7 AND $stays AND NOT EXISTS (SELECT FROM $name WHERE id = i) LIMIT 20) t",
		'all jobs of a finished migration are finished' =>
		  "SELECT string_agg(format('%s status=%s claim_epoch=%s attempts=%s', id, status, claim_epoch, attempts), ', ') FROM $jobs j WHERE status <> 2");
	$rules{'what cannot be done is quarantined, and nothing else'} = $subject->{also} =~ s/\{t\}/$name/gr if $subject->{also};
	if (my $ranges = $subject->{ranges})
	{
		my ($key, $low, $high) = @$ranges;
		# the others do again what had been quarantined, or what verification has found
		my $work = "(SELECT id, relation, $low AS low, $high AS high FROM $jobs j WHERE phase = 'work' AND round = 1 AND kind = 'range')";
		$rules{'ranges do not overlap'} =
		  "SELECT string_agg(format('job %s from %s, before it up to %s', id, low, before), ', ') FROM (SELECT id, low, lag(high) OVER (PARTITION BY relation ORDER BY low) AS before FROM $work c) o WHERE before >= low";
		$rules{'ranges leave no gap'} =
		  "SELECT string_agg(t.id::text, ', ') FROM (SELECT id FROM $name t WHERE NOT late AND NOT EXISTS (SELECT FROM $work c WHERE t.$key BETWEEN low AND high) LIMIT 20) t";
		$rules{'ranges leave no gap'} =~ s/t\.a \|\| b/t.a || t.b/;
	}
	return %rules;
}

sub check_finished
{
	my ($state, $name) = @_;
	my %rules = rules($state, $name);
	for my $rule (sort keys %rules)
	{
		my $saw = try_value($state, $rules{$rule});
		return 0 unless defined $saw;
		violation($state, "$name: $rule", $saw) if $saw ne '';
		$state->{checks}++;
	}
	return 1;
}

# At any time, finished or not.
sub check_twice
{
	my ($state, $name) = @_;
	my $saw = try_value($state, "SELECT string_agg(format('%s n=%s late=%s', id, n, late), ', ') FROM (SELECT * FROM $name WHERE n NOT IN (0, 1) ORDER BY id LIMIT 20) t");
	violation($state, "$name: no row is done twice", $saw) if defined $saw && $saw ne '';
	$state->{checks}++;
	return;
}

# Checks the migrations that have finished and creates them again (a few at a time); corrects those that may fail.
sub check_all
{
	my ($state, $again) = @_;
	my $all = try_value($state, 'SELECT name, status, last_error FROM bbm_status_detail()') // return;
	my $renewed = 0;
	for (shuffle(split /\n/, $all))
	{
		my ($name, $status, $error) = split /\|/;
		if ($status eq 'finished')
		{
			next if $state->{complete}{$name} || ($again && $renewed >= 2);
			check_finished($state, $name) or next;
			$state->{finished}{$name}++;
			if ($again)
			{
				$renewed++;
				try_value($state, "SET lock_timeout = '2s'; BEGIN; " . make_sql($state, $name) . 'COMMIT');
			}
			else
			{
				$state->{complete}{$name} = 1;
			}
		}
		elsif ($status eq 'failed')
		{
			my $may = $subjects{$name}{fails};
			violation($state, "$name: fails only with what it may", $error)
			  unless $error =~ /the workers that ran a job are gone/ || ($may && $error =~ $may);
			check_twice($state, $name);
			try_value($state, "DELETE FROM faults WHERE tab = '$name'; SELECT bbm_retry('$name')");
			$state->{failed}{$name}++;
		}
	}
	return;
}

# After a pause has committed and no batch is in flight nothing moves until it is started.
sub check_pause
{
	my ($state) = @_;
	my $name = some_subject();
	my $moves =
	  "SELECT sum(row_count) || ' ' || sum(claim_epoch) || ' ' || (SELECT sum(n) FROM $name WHERE NOT late) FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name = '$name'";
	my $paused = try_value($state, "SET statement_timeout = '20s'; SELECT bbm_pause('$name', wait => true)");
	if (defined $paused && $paused eq '1')
	{
		# the application deletes rows, too: only a rise is a violation
		my $before = try_value($state, $moves);
		sleep 0.3;
		my $after = try_value($state, $moves);
		my $status = try_value($state, "SELECT status FROM bbm_status('$name')");
		if (defined $before && defined $after && defined $status && "$before$after" ne '')
		{
			my @b = split / /, $before;
			my @a = split / /, $after;
			violation($state, "$name: a pause is respected", "rows, claims, sum before $before, after $after, now $status")
			  if $a[0] != $b[0] || $a[1] != $b[1] || $a[2] > $b[2] || $status ne 'paused';
			$state->{checks}++;
		}
	}
	check_twice($state, $name);
	try_value($state, "SELECT bbm_start('$name')");
	return;
}

# ---------------------------------------------------------------------------
# Memory
# ---------------------------------------------------------------------------

sub weigh
{
	my ($state) = @_;
	my $file = $state->{node}->data_dir . '/postmaster.pid';
	open my $handle, '<', $file or return;
	chomp(my $postmaster = <$handle> // '');
	for my $status (glob '/proc/[0-9]*/status')
	{
		open my $process, '<', $status or next;
		my $text = do { local $/; <$process> } // next;
		my ($ppid) = $text =~ /^PPid:\s+(\d+)/m or next;
		next unless $ppid eq $postmaster;
		my ($kb) = $text =~ /^RssAnon:\s+(\d+)/m or next;
		my ($pid) = $status =~ /(\d+)/;
		open my $title, '<', "/proc/$pid/cmdline" or next;
		my ($kind) = (<$title> // '') =~ /(bbm (?:launcher|worker|discovery))/ or next;
		my $seen = $state->{memory}{"$postmaster $pid"} ||= { since => time };
		next if time - $seen->{since} < WARM;
		$seen->{first} //= $kb;
		$state->{peak}{$kind} = $kb if $kb > ($state->{peak}{$kind} || 0);
		violation($state, "a $kind does not grow", "process $pid, from $seen->{first} kB to $kb kB")
		  if $kb > $seen->{first} + GROWTH && !$seen->{reported}++;
	}
	return;
}

# ---------------------------------------------------------------------------
# The run
# ---------------------------------------------------------------------------

sub some_subject { return (sort keys %subjects)[ rand keys %subjects ] }

# pgbench at a low rate: it updates, inserts and deletes rows of all subjects.
sub application
{
	my ($state) = @_;
	my $dir = $state->{scripts} ||= PostgreSQL::Test::Utils::tempdir;
	for my $name (sort keys %subjects)
	{
		next if -e "$dir/$name.sql";
		append_to_file("$dir/$name.sql", <<"EOS");
\\set a random(1, 4000)
UPDATE $name SET touched = touched + 1, v = touched WHERE id = :a;
INSERT INTO $name (late) VALUES (true);
DELETE FROM $name WHERE id = :a AND id % 50 = 7;
DELETE FROM $name WHERE late AND id = (SELECT max(id) - 10 FROM $name);
EOS
	}
	my %p = (out => '', err => '');
	local %ENV = $state->{node}->_get_env();
	$p{run} = IPC::Run::start(
		[
			'pgbench', '-n', '-c', 3, '-R', 60, '-T', 3600, '--max-tries=10',
			(map { ('-f', "$dir/$_.sql") } sort keys %subjects),
			$state->{node}->connstr('postgres')
		],
		'<', \undef, '>', \$p{out}, '2>', \$p{err});
	return \%p;
}

# It ends with its connections; then it comes again.
sub keep_application
{
	my ($state) = @_;
	return if $state->{application} && $state->{application}{run}->pumpable;
	eval { $state->{application}{run}->finish } if $state->{application};
	my $err = $state->{application} ? $state->{application}{err} : '';
	violation($state, 'the application meets no error of ours', $err) if $err =~ /bbm|batched_background/i;
	$state->{application} = application($state);
	$state->{applications}++;
	return;
}

sub begin
{
	my ($state) = @_;
	my $node = $state->{node} = bbm_node('torture', streaming => 1, conf => torture_conf());
	value($node, 'CREATE TABLE faults (tab text, id bigint); CREATE SEQUENCE late_ids START 1000000000; CREATE ROLE crowd LOGIN');
	history_begin($node);
	value($node, make_sql($state, $_)) for sort keys %subjects;
	$node->backup('base');
	my $standby = $state->{standby} = PostgreSQL::Test::Cluster->new('torture_standby');
	$standby->init_from_backup($node, 'base', has_streaming => 1);
	$standby->append_conf('postgresql.conf', 'max_worker_processes = 20');
	$standby->start;
	return;
}

# The last act: the primary dies, and the standby goes on.
sub promote
{
	my ($state) = @_;
	# the last of it never comes to the standby
	cut_off($state, 1);
	sleep 1;
	$state->{node}->stop('immediate');
	eval { $state->{application}{run}->finish };
	delete $state->{application};
	# what the standby lacks was neither done nor recorded, there
	$state->{standby}->promote;
	push @{ $state->{nodes} }, $state->{node};
	$state->{node} = $state->{standby};
	return;
}

sub finish_all
{
	my ($state) = @_;
	my $node = $state->{node};
	try_value($state, "ROLLBACK PREPARED '$_'") for split /\n/, value($node, 'SELECT gid FROM pg_prepared_xacts');
	value($node, 'UPDATE batched_background_migrations SET batch_size = 500, sub_batch_size = 0');
	value($node, 'DELETE FROM faults; SELECT bbm_start()');
	# one sleep in fifty is longer than the limit so far: a job of 500 single rows would be requeued ten times, for longer each time
	value($node, q(ALTER SYSTEM SET bbm.max_batch_time = '1s'));
	value($node, 'SELECT pg_reload_conf()');
	my $until = time + 2 * $PostgreSQL::Test::Utils::timeout_default;
	while (time < $until && scalar(keys %{ $state->{complete} || {} }) < keys %subjects)
	{
		check_all($state, 0);
		sleep 0.2;
	}
	my @left = grep { !$state->{complete}{$_} } sort keys %subjects;
	check_twice($state, $_) for @left;
	violation($state, 'all migrations finish', join "\n", map { value($node, "SELECT * FROM bbm_status_detail('$_')") } @left) if @left;
	no_workers($node);
	is(value($node, q(SELECT count(*) FROM pg_locks WHERE locktype = 'userlock' OR (locktype = 'object' AND classid = 'batched_background_migrations'::regclass))),
		0, 'nor a lock');
	return;
}

# torture(seed, seconds)
sub torture
{
	my ($seed, $seconds) = @_;
	my $state = { seed => $seed, seconds => $seconds, last => [], checks => 0, violations => 0, nodes => [] };
	srand($seed);
	diag("test/torture --seed $seed --seconds $seconds");
	diag("without $_") for missing_tools();
	begin($state);
	my $deck  = deck($state, \&some_subject);
	my $until = time + $seconds;
	my $shown = time;
	while (time < $until)
	{
		for (1 .. 4)
		{
			my $act = $deck->[ rand @$deck ];
			push @{ $state->{last} }, $act->[1];
			shift @{ $state->{last} } if @{ $state->{last} } > 16;
			$state->{done}{ $act->[1] }++;
			$act->[2]->();
			sleep rand 0.2;
		}
		keep_application($state);
		check_all($state, 1);
		check_pause($state) if rand() < 0.3;
		weigh($state);
		next if time - $shown < 60;
		diag(sprintf '%d s left, %d acts, %d checks', $until - time, sum(values %{ $state->{done} }), $state->{checks});
		$shown = time;
	}
	calm($state);
	promote($state);
	finish_all($state);
	my $history = PostgreSQL::Test::Utils::tempdir . '/history';
	history_write($state->{node}, $history, map { $_->logfile } @{ $state->{nodes} }, $state->{node});
	history_holds($history, 'the history is one that may be')
	  or diag("The history: $history");
	for my $node (@{ $state->{nodes} }, $state->{node})
	{
		my @bad = unexpected_lines($node);
		violation($state, 'nothing unexpected in the log of ' . $node->name, join "\n", @bad[ 0 .. ($#bad > 30 ? 30 : $#bad) ]) if @bad;
	}
	note 'acts: ', counts($state->{done});
	note 'finished: ', counts($state->{finished}), '; failed and corrected: ', counts($state->{failed} || {});
	note "applications: $state->{applications}; peak of anonymous memory in kB: ", counts($state->{peak} || {});
	is($state->{violations}, 0, "$state->{checks} checks after " . sum(values %{ $state->{done} }) . ' acts hold');
	return $state;
}

sub counts { my ($of) = @_; return join ', ', map { "$_ $of->{$_}" } sort keys %$of }

1;
