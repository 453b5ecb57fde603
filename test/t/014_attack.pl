# An owner who wants more than his own: what his jobs try in a worker, and in CALL bbm_run,
# what they leave behind, what they do to other workers, and what he calls his migrations.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('attack', conf => <<'EOC');
bbm.naptime = 0
bbm.lock_timeout = 100ms
log_min_messages = warning
EOC
my $launcher = launcher_pid($node);
my $started  = value($node, 'SELECT pg_postmaster_start_time()');

value($node, <<'EOS');
CREATE ROLE evil LOGIN;
CREATE ROLE good LOGIN;
CREATE SCHEMA evil AUTHORIZATION evil;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO evil, good;
GRANT EXECUTE ON PROCEDURE bbm_run TO evil;
GRANT SELECT, INSERT, UPDATE, DELETE ON batched_background_migrations, batched_background_migration_jobs TO evil;
CREATE TABLE treasure (id int PRIMARY KEY, n int);
INSERT INTO treasure VALUES (1, 0);
EOS
counter_table($node, 't', 100);
counter_table($node, 'u', 100);
value($node, 'ALTER TABLE t OWNER TO evil; ALTER TABLE u OWNER TO good; GRANT ALL ON gate TO PUBLIC');

# As evil himself, logged in.
sub evil
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', 'evil', '-v', 'ON_ERROR_STOP=1' ]);
	return wantarray ? ($rc, $out, $err) : $out;
}

my $n = 0;

# A job of evil's with this PL/pgSQL body, before it does its rows: a paused migration's name.
sub attack
{
	my ($body, %o) = @_;
	my $name = 'attack ' . ++$n;
	my $declare = delete $o{declare} || '';
	$o{max_attempts} = 1 unless $o{max_attempts};
	my $options = join '', map { ", $_ => $o{$_}" } sort keys %o;

	value($node, 'UPDATE t SET n = 0');
	my ($rc, $out, $err) = evil(<<"EOS");
CREATE FUNCTION evil.job_$n(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS \$job\$
DECLARE x int; $declare
BEGIN
	$body
	UPDATE public.t SET n = n + 1 WHERE id BETWEEN lo AND hi;
END \$job\$;
SELECT bbm_create('$name', 't', 'evil.job_$n', batch_size => 10$options);
EOS
	diag($err) if $rc;
	return $name;
}

# How it ends when a worker runs it: its status, and the error.
sub by_worker
{
	my ($name) = @_;
	value($node, "SELECT bbm_start('$name')");
	$node->poll_query_until('postgres', "SELECT status IN ('finished', 'failed') FROM bbm_status('$name')");
	return value($node, "SELECT status || ' ' || coalesce(last_error, '') FROM bbm_status_detail('$name')");
}

# ... and in a session of evil's.
sub by_call
{
	my ($name) = @_;
	my ($rc, $out, $err) = evil("CALL bbm_run('$name')");
	return $rc == 0 ? 'finished ' : "failed $err";
}

sub refused
{
	my ($what, $body, $error, %o) = @_;
	my $name = attack($body, %o);
	like(by_worker($name), qr/^failed .*$error/, "$what: refused in a worker");
	is(value($node, 'SELECT max(n) FROM t'), 0, '... and nothing done');
	$name = attack($body, %o);
	like(by_call($name), qr/^failed .*$error/s, "$what: refused in CALL bbm_run");
	is(value($node, 'SELECT max(n) FROM t'), 0, '... and nothing done');
	return;
}

sub harmless
{
	my ($what, $body, %o) = @_;
	my $here = exists $o{call} ? delete $o{call} : 1;
	my $name = attack($body, %o);
	is(by_worker($name), 'finished ', "$what: does no harm in a worker");
	once_each($node, 't', 100);
	is(value($node, "SELECT max(attempts) FROM bbm_jobs('$name')"), 1, '... at the first attempt');
	return unless $here;
	$name = attack($body, %o);
	is(by_call($name), 'finished ', "$what: nor in CALL bbm_run");
	once_each($node, 't', 100);
	return;
}

# More rights.
for my $sql ('SET ROLE postgres', 'SET SESSION AUTHORIZATION postgres', 'SET LOCAL ROLE good',
	"PERFORM set_config('session_authorization', 'postgres', false)")
{
	refused($sql, "$sql;", 'permission denied');
}
for my $sql ('RESET ROLE', 'RESET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION DEFAULT', 'SET ROLE NONE', 'RESET ALL')
{
	refused($sql, "$sql; UPDATE public.treasure SET n = 666;", 'permission denied for table treasure');
}
refused('the owner of the tables by SET ROLE in a deferred trigger', <<'EOB', 'permission denied for table treasure');
	CREATE TABLE evil.queue (x int);
	CREATE FUNCTION evil.late() RETURNS trigger LANGUAGE plpgsql AS $f$
	BEGIN
		RESET SESSION AUTHORIZATION;
		UPDATE public.treasure SET n = 666;
		RETURN NULL;
	END $f$;
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON evil.queue DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION evil.late();
	SET CONSTRAINTS ALL DEFERRED;
	INSERT INTO evil.queue VALUES (1);
EOB
# as the text of a job
for my $sql ('RESET ROLE', 'SET SESSION AUTHORIZATION postgres', 'COMMIT', 'LISTEN x', 'DISCARD ALL', 'CALL bbm_run()',
	'UPDATE t SET n = 1 WHERE id BETWEEN $1 AND $2; RESET ROLE', 'COPY t TO PROGRAM $$id$$', 'CREATE ROLE x SUPERUSER')
{
	my $name = 'text ' . ++$n;
	evil("INSERT INTO batched_background_migrations (name, status, max_value, batch_size, job_signature_name, table_name, column_name, settings)
		VALUES ('$name', 1, 100, 10, '$sql', 'public.t', 'id', '{bbm.missing_job_timeout=0}')");
	$node->poll_query_until('postgres', "SELECT status = 'failed' FROM bbm_status('$name')");
	is(value($node, "SELECT failure_error_code FROM batched_background_migrations WHERE name = '$name'"), 3, "$sql is no job");
}
is(value($node, 'SELECT n FROM treasure'), 0, 'the treasure is untouched');

# What ends the transaction, or the session's life.
refused('COMMIT', 'COMMIT;', 'invalid transaction termination');
refused('ROLLBACK', 'ROLLBACK;', 'invalid transaction termination');
refused('DISCARD ALL', 'DISCARD ALL;', 'DISCARD ALL cannot be executed from a function|cannot run inside a transaction block');
refused('to be bbm_run', 'CALL bbm_run();', 'bbm_run cannot be called');
like(by_worker(attack('LISTEN bbm;')), qr/^failed .*LISTEN/, 'LISTEN is nothing for a worker');

# What a job leaves: the next one, in the same session, must not see it.
harmless('settings', <<'EOB', declare => 'found text;');
	found := concat_ws(' ', current_setting('work_mem'), current_setting('statement_timeout'), current_setting('evil.x', true),
		current_setting('session_replication_role'), current_setting('role'), current_setting('search_path'));
	IF found !~ '^4MB 0  ?origin none' OR found ~ 'nowhere' THEN
		RAISE 'left over: %', found;
	END IF;
	SET work_mem = '64kB';
	SET LOCAL statement_timeout = '1h';
	PERFORM set_config('evil.x', 'set', false), set_config('search_path', 'nowhere', false);
	ALTER ROLE evil SET enable_indexscan = off;
	SET lock_timeout = '1h';
	SET synchronous_commit = remote_apply;
	SET client_min_messages = debug5;
	SET default_transaction_read_only = on;
	SET default_transaction_isolation = serializable;
	SET idle_in_transaction_session_timeout = 1;
EOB
value($node, 'ALTER ROLE evil RESET ALL');
harmless('a temporary table', 'CREATE TEMP TABLE left_over AS SELECT 1;', call => 0);
harmless('a prepared statement', q(EXECUTE 'PREPARE left_over AS SELECT 1';), call => 0);
harmless('a cursor WITH HOLD', q(EXECUTE 'DECLARE left_over CURSOR WITH HOLD FOR SELECT generate_series(1, 1000)';), call => 0);
harmless('what a cursor WITH HOLD would do at the commit', <<'EOB', call => 0);
	EXECUTE 'CREATE OR REPLACE FUNCTION evil.at_commit() RETURNS int LANGUAGE plpgsql AS $f$
	BEGIN
		RAISE ''run at the commit'';
	END $f$';
	EXECUTE 'DECLARE left_over CURSOR WITH HOLD FOR SELECT evil.at_commit()';
EOB
harmless('closing all that is open', q(EXECUTE 'CLOSE ALL'; DEALLOCATE ALL; UNLISTEN *; DISCARD PLANS; DISCARD SEQUENCES; DISCARD TEMP;));
harmless('letting go of all locks', 'PERFORM pg_advisory_unlock_all(); PERFORM pg_sleep(0.005);', workers => 2);
is( value(
		$node, "SELECT max((SELECT count(*) FROM batched_background_migration_jobs k
			WHERE k.batched_background_migration_id = j.batched_background_migration_id
			  AND k.started_at <= j.started_at AND k.finished_at > j.started_at)) <= 2
		FROM batched_background_migration_jobs j WHERE batched_background_migration_id =
			(SELECT max(id) - 1 FROM batched_background_migrations)"),
	't', '... not even more workers than asked for');
harmless('a lock on the whole session', 'PERFORM pg_advisory_lock(42);', call => 0);
workers_gone($node);
is(value($node, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), 0, '... and it ends with the worker');
harmless('our own name for a notification', q(NOTIFY bbm, 'no json';));

# Sleeping for ever; also one that will not be woken.
my $name = attack('PERFORM pg_sleep(1000000);');
value($node, "SELECT bbm_start('$name')");
reach_gate($node);
is(evil("SELECT bbm_cancel('$name')"), 1, 'a job that sleeps for ever can be cancelled by its owner');
is(value($node, "SELECT status, jobs_running FROM bbm_status_detail('$name')"), 'paused|0', '... and is');
$name = attack('LOOP BEGIN PERFORM pg_sleep(1000000); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;', max_attempts => 2);
value($node, "SELECT bbm_start('$name')");
reach_gate($node);
value($node, "SELECT bbm_pause('$name', cancel => true)");
workers_gone($node);
is(value($node, "SELECT status, jobs_running FROM bbm_status_detail('$name')"), 'paused|0', 'so is one that swallows the cancel');

# Exhausting things.
like(by_worker(attack("PERFORM length(repeat('x', 1000000000) || repeat('x', 1000000000));")),
	qr/^failed (54000|53200|XX000)/, 'a string beyond all bounds fails the job');
evil('CREATE FUNCTION evil.deep(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN evil.deep(i + 1); END $$');
like(by_worker(attack('PERFORM evil.deep(1);')), qr/^failed 54001/, 'so does a recursion without an end');

# Ending the process it runs in.
$name = attack('PERFORM pg_terminate_backend(pg_backend_pid());', max_attempts => 2);
like(by_worker($name), qr/^failed .*workers that ran a job are gone/, 'a job that ends its worker runs out of attempts');
is(value($node, "SELECT failure_error_code FROM batched_background_migrations WHERE name = '$name'"), 4, '... with that code');
$name = attack('PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(1000);');
value($node, "SELECT bbm_start('$name')");
# in one snapshot: it is claimed again soon
ok($node->poll_query_until('postgres', "SELECT count(*) > 0 FROM bbm_jobs('$name') WHERE status = 'new' AND attempts = 0"),
	'one that cancels itself is requeued');
value($node, "SELECT bbm_cancel('$name')");

# Ending those of others.
gate($node, 'shut');
define($node, 'good', 'u', job => 'gated', batch_size => 50);
value($node, q(SELECT bbm_alter('good', owner => 'good'), bbm_start('good')));
reach_gate($node);
my $good = worker_pid($node);
for my $pid ($good, $launcher)
{
	for my $how ('pg_terminate_backend', 'pg_cancel_backend')
	{
		like(by_worker(attack("PERFORM $how($pid);")), qr/^failed 42501/, "$how of another's process is refused");
	}
}
for my $sql ('SELECT bbm_cancel($$good$$)', 'SELECT bbm_pause($$good$$, cancel => true)', 'SELECT bbm_drop($$good$$)')
{
	my ($rc, $out, $err) = evil($sql);
	like($err, qr/permission denied for migration/, "$sql is refused");
}
is(worker_pid($node), $good, 'the worker of another owner is where it was');
is(launcher_pid($node), $launcher, 'and so is the launcher');
gate($node, 'open');
finished($node, 'good', 'and its migration finishes');
once_each($node, 'u', 100);

# Names: in the log, in notifications, in the events.
my $offset = log_size($node);
my @names  = (
	q(quo'te"s $$ \\ /* --),
	qq(new\nline\r\n2026-01-01 00:00:00.000 UTC [1] [bbm worker] LOG:  migration "forged" is finished),
	q(per%cent %s %n %d %%),
	"Gr\xc3\xb6\xc3\x9fe \xe2\x82\xac \xc2\x85 next line",
	"bell\x07 escape\x1b[31m back\x08 delete\x7f tab\t",
	'{"id": 1, "name": "json"}',
	'x' x 512);
for my $i (0 .. $#names)
{
	my $quoted = "\$name\$$names[$i]\$name\$";
	my ($rc, $out, $err) = evil(<<"EOS");
LISTEN bbm;
SELECT bbm_create($quoted, 't', 'UPDATE t SET n = n + 1 WHERE id BETWEEN \$1 AND \$2');
SELECT bbm_start($quoted);
SELECT bbm_wait($quoted, '3 minutes');
SELECT 1;
EOS
	my @got = map { eval { decode_json($_)->{name} } // "no JSON: $_" }
	  $out =~ /^Asynchronous notification "bbm" with payload "(.*)" received from/mg;
	(my $name = $names[$i]) =~ s/([\x80-\xff]+)/my $s = $1; utf8::decode($s); $s/ge;
	cmp_ok(scalar @got, '>=', 2, "name $i is reported");
	is_deeply([ grep { $_ ne $name } @got ], [], '... in JSON, as it is');
	is(value($node, "SELECT count(*) FROM bbm_events WHERE event = 'finished' AND name = $quoted"), 1, '... and it is in the events');
	value($node, "SELECT bbm_drop($quoted)");
}
# and an error that its job words itself
like(by_worker(attack(q(RAISE E'boom\n2026-01-01 00:00:00.000 UTC [1] [bbm worker] LOG:  forged\x1b[31m' USING DETAIL = E'a\nb', HINT = E'c\nd';))),
	qr/^failed .*boom/, 'an error with line breaks');
# of a worker, or of the session that has created it, whose line has the name, too
my $log = log_since($node, $offset);
my @ours = grep { /\[bbm worker\]/ } split /\n/, $log;
cmp_ok(scalar(grep { /is finished$/ } @ours), '>=', scalar @names, 'the log has them');
is_deeply([ grep { !/^\d{4}-\d\d-\d\d \S+ \S+ \[\d+\] \[(?:bbm worker|client backend)\] / } @ours ], [], 'each on a line that begins as it should');
is_deeply([ grep { /^\S+ \S+ \S+ \[1\] / } split /\n/, $log ], [], 'none is forged');
is_deeply([ grep { /[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]/ } @ours ], [], 'and no control character is in one');
unlike($log, qr/\[bbm worker\][^\n]*\n\t/, 'nor a line that goes on');

# Roles that change in the middle of a batch.
gate($node, 'shut');
value($node, 'UPDATE t SET n = 0');
define($node, 'renamed', 't', job => 'gated', batch_size => 50);
value($node, q(SELECT bbm_alter('renamed', owner => 'evil'), bbm_start('renamed')));
reach_gate($node);
value($node, 'ALTER ROLE evil RENAME TO worse');
gate($node, 'open');
finished($node, 'renamed', 'a role that is renamed in the middle of a batch');
once_each($node, 't', 100);
is(value($node, q(SELECT owner FROM batched_background_migrations WHERE name = 'renamed')), 'worse', '... is known by its new name');

gate($node, 'shut');
value($node, 'UPDATE t SET n = 0');
define($node, 'locked out', 't', job => 'gated', batch_size => 50, max_attempts => 10);
value($node, q(SELECT bbm_alter('locked out', owner => 'worse'), bbm_start('locked out')));
reach_gate($node);
value($node, 'ALTER ROLE worse NOLOGIN');
value($node, 'SELECT pg_terminate_backend(' . worker_pid($node) . ')');
if (value($node, 'SHOW server_version_num') < 170000)
{
	ok(status_is($node, 'locked out', 'failed'), 'a role that loses LOGIN in the middle of a batch fails its migration with the next worker');
	like(value($node, q(SELECT last_error FROM bbm_status_detail('locked out'))), qr/not permitted to log in/, '... saying why');
	value($node, q(ALTER ROLE worse LOGIN; SELECT bbm_start('locked out')));
}
ok($node->poll_query_until('postgres', in_flight(), 1), 'and with it, it goes on');
gate($node, 'open');
finished($node, 'locked out');
once_each($node, 't', 100);

is(value($node, 'SELECT pg_postmaster_start_time()'), $started, 'the server has not crashed in all this');
is(launcher_pid($node), $launcher, 'nor has the launcher');
is(value($node, q(SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolsuper)), 'postgres', 'and nobody is a superuser who was none');
no_workers($node);
log_clean($node, undef, qr/\[bbm worker\].* FATAL:  role ".*" is not permitted to log in/);
done_testing();
