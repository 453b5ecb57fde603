# The metrics, from the server to the end: PostgreSQL, prometheus-postgres-exporter with the query file, and
# Prometheus with the alert rules, which answers every expression of the dashboard and of the rules.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use HTTP::Tiny;
use IPC::Run;
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $folder = "$FindBin::RealBin/../../monitoring";
for my $program ('prometheus', 'promtool', 'prometheus-postgres-exporter')
{
	plan skip_all => "$program is not installed; test/setup --metrics installs it"
	  unless grep { -x "$_/$program" } split /:/, $ENV{PATH};
}

# the rules, by their own tests
IPC::Run::run(['promtool', 'test', 'rules', "$folder/alerts_test.yaml"], '>&', \my $tested);
is($?, 0, 'promtool finds that the alert rules do what their tests say') or diag($tested);

# what waits is to wait for what this test does, and not for busy CPUs
my $node = bbm_node('metrics', conf => <<'EOC');
bbm.min_pace = 1
bbm.lock_timeout = 50ms
bbm.max_workers = 8
max_worker_processes = 16
EOC
counter_table($node, $_, 1000) for 'whole', 'halted', 'held', 'broken', 'locked', 'stalled', 'marred';
value($node, q(CREATE ROLE monitor LOGIN IN ROLE pg_monitor));
value($node, q(CREATE FUNCTION fails(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'no luck'; END $$));
value($node, q(CREATE FUNCTION fails_late(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS
	$$ BEGIN IF lo > 500 THEN RAISE 'no luck'; END IF; RETURN 0; END $$));
value($node, q(CREATE FUNCTION gated_late(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS
	$$ BEGIN RETURN CASE WHEN lo > 500 THEN public.gated_halted(lo, hi) ELSE 100 END; END $$));
define($node, 'whole',  'whole',  batch_size => 50, sub_batch_size => 25);
define($node, 'halted', 'halted', batch_size => 100, job => 'gated_late');
define($node, 'held',   'held',   settings => q(ARRAY['bbm.condition=false']));
define($node, 'broken', 'broken', job => 'fails', max_attempts => 2);
define($node, 'locked', 'locked', batch_size => 100);
define($node, 'stalled', 'stalled', batch_size => 100, job => 'fails_late', settings => q(ARRAY['bbm.retry_delay=1h','bbm.retry_max_delay=1h']));
value($node, q(SELECT bbm_update('marred', 'marred', 'n = n / (id % 400)', batch_size => 100, max_attempts => 1, on_error => 'split')));

# Processes that end with the test.
my @running;
sub run_beside
{
	my ($log, @command) = @_;
	push @running, IPC::Run::start([@command], '>&', "$PostgreSQL::Test::Utils::log_path/$log");
	return;
}
END { local $?; $_->kill_kill(grace => 5) for @running }

my $exporter   = 'localhost:' . PostgreSQL::Test::Cluster::get_free_port();
my $prometheus = 'localhost:' . PostgreSQL::Test::Cluster::get_free_port();
my $data       = PostgreSQL::Test::Utils::tempdir();
{
	local $ENV{DATA_SOURCE_NAME} = 'user=monitor dbname=postgres sslmode=disable host=' . $node->host . ' port=' . $node->port;
	local $ENV{PG_EXPORTER_EXTEND_QUERY_PATH} = "$folder/queries.yaml";
	run_beside('exporter.log', 'prometheus-postgres-exporter', "--web.listen-address=$exporter", '--disable-default-metrics',
		'--disable-settings-metrics', '--no-collector.database', '--no-collector.bgwriter');
}
PostgreSQL::Test::Utils::append_to_file("$data/prometheus.yml", <<"EOC");
global:
  scrape_interval: 2s
  scrape_timeout: 2s
  evaluation_interval: 1s
rule_files:
  - $folder/alerts.yaml
scrape_configs:
  - job_name: bbm
    static_configs:
      - targets: ['$exporter']
EOC
run_beside('prometheus.log', 'prometheus', "--config.file=$data/prometheus.yml", "--storage.tsdb.path=$data/tsdb",
	"--web.listen-address=$prometheus");

my $http = HTTP::Tiny->new(timeout => 180);

# What Prometheus answers to an expression: a hash of values, by the labels named, or by the migration.
sub ask
{
	my ($expression, @labels) = @_;
	@labels = ('migration') unless @labels;
	my $answer = $http->get("http://$prometheus/api/v1/query?" . $http->www_form_urlencode({ query => $expression }));
	return {} if $answer->{status} == 599 || $answer->{status} == 503;    # it is about to start
	die "$expression: $answer->{status} $answer->{content}" unless $answer->{success};
	my %values;
	for my $series (@{ decode_json($answer->{content})->{data}{result} })
	{
		$values{ join '/', map { $series->{metric}{$_} // '-' } @labels } = $series->{value}[1];
	}
	return \%values;
}

# Waits until the answer is as it should be.
sub becomes
{
	my ($what, $expression, $labels, $right) = @_;
	my $until = time + 180;
	my $values;
	do
	{
		$values = ask($expression, @$labels);
		if ($right->($values))
		{
			pass($what);
			return;
		}
		sleep 0.2;
	} while (time < $until);
	fail($what);
	diag("$expression\nreturns ", join ', ', map { "$_: $values->{$_}" } sort keys %$values);
	return;
}

# Are these the names that are answered?
sub names
{
	my ($values, @names) = @_;
	return join(' ', sort keys %$values) eq join(' ', sort @names);
}

my @all = qw(broken halted held locked marred stalled whole);
becomes('every migration is scraped before it begins', 'bbm_migration_rows_total == 0', [], sub { names($_[0], @all) });

# A pause, a throttle, a failure; and what else the metrics show.
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; UPDATE locked SET n = 0 WHERE id = 350');
value($node, 'SELECT bbm_start()');
status_is($node, 'broken', 'failed');
status_is($node, $_, 'finished') for 'whole', 'marred';
reach_gate($node);
value($node, q(SELECT bbm_pause('halted')));
gate($node, 'open');
$node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM bbm_jobs('halted') WHERE status = 'running'));
becomes('batches are requeued before the eyes of Prometheus', 'increase(bbm_requeue_batches_total[15m]) > 5', [],
	sub { names($_[0], 'locked') });
$locker->query_safe('COMMIT');
$locker->quit;
status_is($node, 'locked', 'finished');
$node->poll_query_until('postgres', q(SELECT jobs_failed > 0 FROM bbm_status_detail('stalled')));
# two hours ago, for that alert
value($node, q(ALTER TABLE batched_background_migration_jobs DISABLE TRIGGER bbm_guard));
value($node, q(UPDATE batched_background_migration_jobs j SET finished_at = now() - interval '2 hours'
	FROM batched_background_migrations m WHERE m.id = j.batched_background_migration_id AND m.name = 'stalled' AND j.status = 2));
value($node, q(ALTER TABLE batched_background_migration_jobs ENABLE TRIGGER bbm_guard));

# What each panel is to show.
my %panels = (
	'Progress' => [ [], sub { my ($v) = @_; $v->{whole} == 1 && $v->{locked} == 1 && $v->{halted} > 0.1 && $v->{halted} < 1 && $v->{broken} == 0 } ],
	'Status' => [ [], sub { my ($v) = @_; names($v, @all) && $v->{whole} == 2 && $v->{broken} == 3 && $v->{halted} == 0
		  && $v->{held} == 4 && $v->{stalled} == 4 } ],
	'Rows changed a second' => [ [], sub { my ($v) = @_; names($v, @all) && $v->{whole} > 0 && $v->{marred} > 0 && $v->{broken} == 0 && $v->{held} == 0 } ],
	'Time left' => [ [], sub { my ($v) = @_; defined $v->{halted} && $v->{halted} > 0 && !defined $v->{held} && !defined $v->{broken} } ],
	'Batches a second' => [ [], sub { my ($v) = @_; names($v, @all) && $v->{whole} > $v->{locked} && $v->{locked} > 0 && $v->{held} == 0 } ],
	'Time of a batch' => [ [], sub { my ($v) = @_; defined $v->{whole} && $v->{whole} > 0 && $v->{whole} < 60 } ],
	'WAL a second' => [ [], sub { my ($v) = @_; names($v, @all) && $v->{whole} > 0 && $v->{locked} > 0 } ],
	'Share of time throttled, by signal' => [ [ 'migration', 'reason' ], sub { my ($v) = @_; ($v->{'held/condition'} // 0) > 0.01 } ],
	'Batches requeued a second, by reason' => [ [ 'migration', 'reason' ],
		sub { my ($v) = @_; ($v->{'locked/lock timeout'} // 0) > 0 && ($v->{'held/lock timeout'} // 1) == 0 && !grep { /^(whole|broken)/ && $v->{$_} > 0 } keys %$v } ],
	'Failed attempts' => [ [], sub { my ($v) = @_; names($v, @all) && $v->{broken} > 1.5 && $v->{stalled} > 0.5 && $v->{whole} == 0 } ],
	'Time since the last progress' => [ [], sub { my ($v) = @_; defined $v->{stalled} && $v->{stalled} > 7200 && !defined $v->{whole} && !defined $v->{halted} } ],
	'Jobs running, jobs failed' => [ [], sub { my ($v) = @_; names($v, @all) && $v->{whole} == 0 } ],
	'Quarantined rows' => [ [], sub { my ($v) = @_; names($v, 'marred') && $v->{marred} == 2 } ],
	'Throttled now'    => [ [ 'migration', 'reason' ], sub { names($_[0], 'held/condition') } ],
	'Processes'        => [ ['kind'], sub { my ($v) = @_; defined $v->{launcher} && $v->{launcher} == 1 } ],
);
my $dashboard = decode_json(PostgreSQL::Test::Utils::slurp_file("$folder/dashboard.json"));
for my $panel (@{ $dashboard->{panels} })
{
	my $check = delete $panels{ $panel->{title} };
	ok($check, "the panel \"$panel->{title}\" is known here") or next;
	for my $target (@{ $panel->{targets} })
	{
		# as Grafana replaces its variables
		my $expression = $target->{expr};
		$expression =~ s/\$__rate_interval/15m/g;
		$expression =~ s/\$(instance|migration)\b/.*/g;
		unlike($expression, qr/\$/, 'no other variable');
		becomes("panel \"$panel->{title}\", $target->{refId}", $expression, @$check);
	}
}
is(join(', ', keys %panels), '', 'there is a panel for each check');

# What each alert finds; those that come last cover or wait for longer than this test takes.
my %alerts = (
	BbmMigrationFailed      => sub { names($_[0], 'broken') },
	BbmMigrationStalled     => sub { names($_[0], 'stalled') },
	BbmMigrationNotBegun    => sub { names($_[0], 'held') },
	BbmJobsFail             => sub { names($_[0], 'broken', 'stalled', 'marred') },
	BbmRowsQuarantined      => sub { names($_[0], 'marred') },
	BbmMigrationThrottled   => sub { names($_[0], 'held') },
	BbmMigrationYieldsOften => sub { names($_[0], 'locked') },
	BbmMigrationPaused      => sub { names($_[0], 'halted') },
	BbmLauncherMissing      => sub { names($_[0]) },
);
my $rules = PostgreSQL::Test::Utils::slurp_file("$folder/alerts.yaml");
while ($rules =~ /- alert: (\w+)\n(?:\s*#.*\n)*\s*expr: (.*)\n/g)
{
	my ($name, $expression) = ($1, $2);
	my $right = delete $alerts{$name};
	ok($right, "the alert $name is known here") or next;
	# Prometheus computes a rate over what it has seen of the window
	$expression =~ s/\[15m\]/[20s]/g if $name eq 'BbmMigrationThrottled';
	becomes("alert $name", $expression, [], $right);
}
is(join(', ', keys %alerts), '', 'there is an alert for each check');
# with its rules loaded as they are, Prometheus raises those that wait for nothing
becomes('Prometheus raises alerts', 'ALERTS{alertstate="firing"}', [ 'alertname', 'migration' ],
	sub { exists $_[0]{'BbmMigrationFailed/broken'} && exists $_[0]{'BbmRowsQuarantined/marred'} });

# exact numbers
becomes('rows are counted', 'bbm_migration_rows_total', [], sub { ($_[0]{whole} // 0) == 1000 });
becomes('... and batches, of which each job has two', 'bbm_migration_batch_seconds_count', [], sub { ($_[0]{whole} // 0) == 40 });
becomes('... and failed attempts', 'bbm_migration_failures_total', [], sub { ($_[0]{broken} // 0) == 2 });
becomes('... and are in the histogram', 'sum by (migration) (bbm_migration_batch_seconds_bucket{le="+Inf"})', [], sub { ($_[0]{whole} // 0) == 40 });

# What a scrape costs that shows a thousand migrations, a hundred of them with a hundred jobs.
value($node, q(INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name)
	SELECT 'm ' || i, 1000, 10, 'UPDATE whole SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'public.whole', 'id' FROM generate_series(1, 993) i));
value($node, q(SET session_replication_role = replica;
	INSERT INTO batched_background_migration_jobs (batched_background_migration_id, min_value, max_value, key_count, row_count,
	wal_bytes, run_ms, status, finished_at)
	SELECT m.id, k, k, 10, 10, 100, 10 * random(), 2, now() FROM batched_background_migrations m, generate_series(1, 100) k
	WHERE m.name ~ '^m .*0$'));
value($node, 'VACUUM ANALYZE batched_background_migrations, batched_background_migration_jobs');
becomes('a thousand migrations are scraped', 'count by (job) (bbm_migration_status)', ['job'], sub { ($_[0]{bbm} // 0) == 1000 });
my $best;
for (1 .. 10)
{
	my $started = time;
	my $answer = $http->get("http://$exporter/metrics");
	my $ms = (time - $started) * 1000;
	die $answer->{content} unless $answer->{success};
	$best = $ms if !defined $best || $ms < $best;
}
my %cost;
for my $view (qw(bbm_migration_metrics bbm_requeue_metrics bbm_wait_metrics))
{
	my $plans = value($node, join '; ', ("EXPLAIN (ANALYZE, TIMING off) SELECT * FROM $view") x 10);
	($cost{$view}) = sort { $a <=> $b } $plans =~ /Execution Time: ([\d.]+) ms/g;
}
# for who reads it: a busy machine may take any time
note(sprintf('a scrape of 1,000 migrations and 10,000 jobs, best of ten: %.1f ms to the exporter, of the server %s', $best,
	join ', ', map { "$_ $cost{$_} ms" } sort keys %cost));

# A server that does not preload the library, and has something to run.
$node->append_conf('postgresql.conf', q(shared_preload_libraries = ''));
$node->restart;
my ($missing) = $rules =~ /- alert: BbmLauncherMissing\n(?:\s*#.*\n)*\s*expr: (.*)\n/;
becomes('without the library, alert BbmLauncherMissing', $missing, ['instance'], sub { names($_[0], $exporter) });

# ... which also says so itself
is(value($node, 'SELECT problem FROM bbm_doctor() WHERE migration IS NULL'), 'the library is not preloaded', 'bbm_doctor says what is wrong');
my ($status, $out, $err) = $node->psql('postgres', q(SELECT bbm_start('halted')));
like($err, qr/WARNING:  no worker runs migrations on this server: the library is not preloaded/, '... and so does bbm_start');
($status, $out, $err) = $node->psql('postgres', q(CREATE DATABASE other));
($status, $out, $err) = $node->psql('other', q(CREATE EXTENSION bbm));
is($status, 0, 'the extension can be created');
like($err, qr/WARNING:  no worker runs migrations on this server: the library is not preloaded/, '... which says it, too');

done_testing();
