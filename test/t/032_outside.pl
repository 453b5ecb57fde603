# Batches commit asynchronously, but those that reach outside of the server: what they did
# there is not lost in a crash, and must not be done again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $far = PostgreSQL::Test::Cluster->new('far');
$far->init;
$far->start;
$far->safe_psql('postgres', 'CREATE TABLE done (kind text NOT NULL, id bigint NOT NULL)');

# Nothing but commits may flush: not the WAL writer, which is stopped below as well, nor
# whoever writes a page.  Nor does anybody pause for its pace, as a job that is released
# meanwhile is claimed again by a commit that flushes.
my $node = bbm_node('near', conf => <<'EOC');
bbm.naptime = 0
bbm.min_pace = 1
wal_writer_delay = 10s
bgwriter_lru_maxpages = 0
shared_buffers = 64MB
checkpoint_timeout = 1h
autovacuum = off
EOC
my $libdir = $node->config_data('--pkglibdir');
my $folder = PostgreSQL::Test::Utils::tempdir;
chmod 0777, $folder;
my $there = sprintf "host=%s port=%s dbname=postgres", $far->host, $far->port;
value($node, sprintf <<'EOS', $far->host, $far->port);
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION dblink;
CREATE EXTENSION tablefunc;
CREATE EXTENSION bloom;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER far;
CREATE FOREIGN TABLE done (kind text NOT NULL, id bigint NOT NULL) SERVER far;
CREATE VIEW done_view AS SELECT kind, id FROM done;
-- rows that are to go elsewhere, by a value of theirs
CREATE TABLE spread (kind text NOT NULL, id bigint NOT NULL, elsewhere boolean NOT NULL) PARTITION BY LIST (elsewhere);
CREATE TABLE spread_here PARTITION OF spread FOR VALUES IN (false);
CREATE FOREIGN TABLE spread_far PARTITION OF spread FOR VALUES IN (true) SERVER far OPTIONS (table_name 'spread');
-- a job n goes on once this is n
CREATE TABLE gate (step bigint NOT NULL);
INSERT INTO gate VALUES (0);
CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	WHILE (SELECT step FROM public.gate) < NEW.id LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN NEW;
END $$;
EOS
$far->safe_psql('postgres', 'CREATE TABLE spread (kind text NOT NULL, id bigint NOT NULL, elsewhere boolean NOT NULL CHECK (elsewhere))');

my $walwriter;

# ... nor do claims any more, as they do for some seconds after a start
sub stop_walwriter
{
	$node->poll_query_until('postgres', "SELECT clock_timestamp() > pg_postmaster_start_time() + interval '6 s'")
	  || die 'the clock stands still';
	$walwriter = value($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
	kill STOP => $walwriter;
	return;
}

# By a commit that does not flush.
sub open_gate
{
	my ($step) = @_;
	value($node, "SET synchronous_commit = off; UPDATE gate SET step = $step");
	return;
}

# Waits until so many jobs are finished, and the next one is at the gate.
sub at_gate
{
	my ($name, $jobs) = @_;
	return $node->poll_query_until('postgres', <<"EOS") || die "no batch of $name is at the gate";
SELECT (SELECT count(*) FROM bbm_jobs('$name') WHERE status = 'finished') = $jobs AND
	count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'
EOS
}

# A table of three rows, a batch each, which waits at the gate before it does anything else.  A
# job is what a PL/pgSQL function is to do besides, for the row "lo".
sub begin_kind
{
	my ($name, $body, %o) = @_;
	value($node, <<"EOS");
CREATE TABLE t_$name (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO t_$name SELECT generate_series(1, 3);
CREATE TRIGGER gate BEFORE UPDATE ON t_$name FOR EACH ROW EXECUTE FUNCTION wait_at_gate();
CREATE FUNCTION job_$name(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS \$job\$
BEGIN
	UPDATE public.t_$name SET n = n + 1 WHERE id BETWEEN lo AND hi;
	$body
END \$job\$;
EOS
	open_gate(0);
	define($node, $name, "t_$name", job => $o{job} || "job_$name", batch_size => 1);
	return;
}

sub flushed
{
	return value($node, 'SELECT pg_current_wal_flush_lsn()');
}

# Is WAL flushed between one batch and the next?
sub flushes
{
	my ($name, $what, $body, %o) = @_;
	my $session;

	begin_kind($name, $body, %o);
	if ($o{foreground})
	{
		$session = background($node, 'postgres', "CALL bbm_run('$name')");
	}
	else
	{
		value($node, "SELECT bbm_start('$name')");
	}
	at_gate($name, 0);
	open_gate(1);
	at_gate($name, 1);
	my $before = flushed();
	open_gate(2);
	at_gate($name, 2);
	my $after = flushed();
	if ($o{not})
	{
		is($after, $before, "$what: nothing is flushed");
	}
	else
	{
		is(value($node, "SELECT '$after'::pg_lsn > '$before'"), 't', "$what: the batch is flushed");
		# the claim of the second job is not in the commit of the first, as it may be otherwise
		is(value($node, <<"EOS"), 't', 'and the next range is not claimed in the same transaction');
SELECT count(DISTINCT xmin::text) = 2 FROM batched_background_migration_jobs WHERE min_value IN (2, 3) AND
	batched_background_migration_id = (SELECT id FROM batched_background_migrations WHERE name = '$name')
EOS
	}
	open_gate(99);
	finished($node, $name, 'it finishes');
	finish_background($session) if $session;
	return;
}

stop_walwriter();

# What stays here, though it may seem otherwise: functions in C of known libraries, or that
# are declared to have no effects, temporary tables, cursors, commands, indexes.
value($node, <<"EOS");
CREATE TABLE here (id bigint, sound text, word text DEFAULT '');
CREATE INDEX ON here USING bloom (word);
CREATE FUNCTION sound_of(text) RETURNS text AS '$libdir/fuzzystrmatch', 'soundex' LANGUAGE c IMMUTABLE STRICT;
CREATE FUNCTION log_here() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS \$\$
BEGIN
	INSERT INTO here SELECT NEW.id, normal_rand(1, 0, 1)::text, lower('A' || NEW.id);
	RETURN NULL;
END \$\$;
CREATE TRIGGER log AFTER INSERT ON spread_here FOR EACH ROW EXECUTE FUNCTION log_here();
EOS
flushes('stays', 'what stays on the server', <<'EOS', not => 1);
	INSERT INTO public.here SELECT lo, public.sound_of('x');
	INSERT INTO public.spread VALUES ('stays', lo, false);
	CREATE TEMPORARY TABLE scratch AS SELECT lo AS id;
	LOCK TABLE public.here IN ROW EXCLUSIVE MODE;
	SET LOCAL work_mem = '1MB';
	DO 'BEGIN PERFORM 1; END';
	BEGIN
		PERFORM 1 / 0;
	EXCEPTION WHEN division_by_zero THEN
		NULL;
	END;
	PERFORM to_tsvector('english', 'words');
EOS
value($node, 'CREATE TABLE kept AS SELECT * FROM here');
flushes('statement', 'a plain statement', '', not => 1, job => 'UPDATE t_statement SET n = n + 1 WHERE id BETWEEN $1 AND $2');
flushes('foreground_stays', 'in a session', '', not => 1, foreground => 1);

# What does not
flushes('written', 'an INSERT into a foreign table', q{INSERT INTO public.done VALUES ('written', lo);});
flushes('direct', 'an UPDATE that the other server does as a whole', q{UPDATE public.done SET id = id WHERE kind = 'direct';});
flushes('read', 'a SELECT, which may call anything there', q{PERFORM FROM public.done WHERE id = lo LIMIT 1;});
flushes('by_view', 'a view', q{INSERT INTO public.done_view VALUES ('by_view', lo);});
flushes('merged', 'MERGE', q{
	MERGE INTO public.kept k USING public.done d ON k.id = d.id AND d.id < 0 WHEN MATCHED THEN DELETE;});
flushes('routed', 'a row that is routed to a partition', q{INSERT INTO public.spread VALUES ('routed', lo, true);});
flushes('moved', 'a row that moves to one', q{
	INSERT INTO public.spread_here VALUES ('moved', lo, false);
	UPDATE public.spread SET elsewhere = true WHERE kind = 'moved' AND NOT elsewhere;});
flushes('by_with', 'one in a WITH', q{
	EXECUTE format('WITH w AS (INSERT INTO public.spread VALUES (''by_with'', %s, true)) SELECT 1', lo);});
flushes('caught', 'one that is undone', q{
	BEGIN
		INSERT INTO public.spread SELECT 'caught', lo, true FROM generate_series(1, 2) x WHERE 1 / (2 - x) >= 0;
	EXCEPTION WHEN division_by_zero THEN
		NULL;
	END;});
append_to_file("$folder/rows", "copied\t1\n");
chmod 0644, "$folder/rows";
flushes('copied', 'COPY', "EXECUTE 'COPY public.done FROM ''$folder/rows''';");
flushes('analyzed', 'a command that is not known', q{ANALYZE public.done;});
flushes('linked', 'a function in C', qq{PERFORM public.dblink_exec('$there', format('INSERT INTO done VALUES (''linked'', %s)', lo));});
value($node, <<"EOS");
CREATE FUNCTION guarded_exec(text, text) RETURNS text AS '\$libdir/dblink', 'dblink_exec' LANGUAGE c STRICT SECURITY DEFINER SET search_path = public;
CREATE LANGUAGE unsafe HANDLER plpgsql_call_handler;
CREATE FUNCTION unsafe() RETURNS integer LANGUAGE unsafe AS 'BEGIN RETURN 1; END';
CREATE FUNCTION unsafe_trigger() RETURNS trigger LANGUAGE unsafe AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION unknown_handler(internal) RETURNS index_am_handler AS '$libdir/bloom', 'blhandler' LANGUAGE c;
CREATE ACCESS METHOD unknown TYPE INDEX HANDLER unknown_handler;
CREATE OPERATOR CLASS int8_unknown DEFAULT FOR TYPE bigint USING unknown AS OPERATOR 1 = (bigint, bigint), FUNCTION 1 hashint8(bigint);
CREATE TABLE indexed (id bigint);
CREATE INDEX ON indexed USING unknown (id);
CREATE TABLE triggered (id bigint);
CREATE CONSTRAINT TRIGGER unsafe AFTER INSERT ON triggered DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION unsafe_trigger();
EOS
flushes('guarded', 'one with rights and settings of its own',
	qq{PERFORM public.guarded_exec('$there', format('INSERT INTO done VALUES (''guarded'', %s)', lo));});
flushes('unsafe', 'one in an untrusted language', q{PERFORM public.unsafe();});
flushes('deferred', 'one that is called by a deferred trigger', q{INSERT INTO public.triggered VALUES (lo);});
flushes('indexed', 'an access method that is not known', q{INSERT INTO public.indexed VALUES (lo);});
flushes('notified', 'NOTIFY', q{NOTIFY somebody;});
flushes('notifies', 'pg_notify', q{PERFORM pg_notify('somebody', lo::text);});
flushes('exported', 'lo_export', qq{
	PERFORM lo_from_bytea((100000 + lo)::oid, 'x');
	PERFORM lo_export((100000 + lo)::oid, '$folder/object');});

# Also where the session itself would not flush
value($node, 'ALTER ROLE CURRENT_USER SET synchronous_commit = off');
my $link = sub {
	my ($name) = @_;
	return qq{PERFORM public.dblink_exec('$there', format('INSERT INTO done VALUES (''$name'', %s)', lo));};
};
flushes('off', 'with synchronous_commit = off', $link->('off'));
flushes('foreground', 'in a session with it', $link->('foreground'), foreground => 1);
value($node, 'ALTER ROLE CURRENT_USER RESET synchronous_commit');
is($far->safe_psql('postgres', <<'EOS'), '27|0', 'each row is once on the other side');
SELECT sum(n) FILTER (WHERE n = 1), count(*) FILTER (WHERE n > 1)
FROM (SELECT count(*) AS n FROM (SELECT kind, id FROM done WHERE kind <> 'copied' UNION ALL SELECT kind, id FROM spread) r GROUP BY kind, id) c
EOS

# The server crashes when the first job of three is seen to be finished, and the next one
# has not started.
sub crash
{
	my ($name, $what, $body, $kept) = @_;

	begin_kind($name, $body);
	value($node, "SELECT bbm_start('$name')");
	at_gate($name, 0);
	open_gate(1);
	at_gate($name, 1);
	# after the crash nothing goes on before the checks
	$node->append_conf('postgresql.conf', 'bbm.enabled = off');
	$node->kill9;
	kill KILL => $walwriter;
	start_anyway($node);
	is( value($node, "SELECT sum(n), (SELECT count(*) FROM bbm_jobs('$name') WHERE status = 'finished') FROM t_$name"),
		"$kept|$kept",
		$kept ? "$what: what was seen to be finished is there after a crash" : "$what: a crash may lose it, with its record");
	value($node, 'UPDATE gate SET step = 99');
	$node->append_conf('postgresql.conf', 'bbm.enabled = on');
	$node->reload;
	finished($node, $name, 'it goes on and finishes');
	once_each($node, "t_$name", 3, 'each row is done once here');
	is($far->safe_psql('postgres', "SELECT count(*), count(DISTINCT id) FROM done WHERE kind = '$name'"),
		$kept ? '3|3' : '0|0', 'and there');
	stop_walwriter();
	return;
}

crash('crash_here', 'a batch that stays here', '', 0);
crash('crash_foreign', 'a batch that writes to a foreign table', q{INSERT INTO public.done VALUES ('crash_foreign', lo);}, 1);
crash('crash_link', 'a batch that has another server commit at once', $link->('crash_link'), 1);

# A dry run reports it
my ($ret, $out, $err);
begin_kind('dry', $link->('dry'));
open_gate(99);
($ret, $out, $err) = $node->psql('postgres', q{SELECT jobs, rows FROM bbm_dry_run('dry', 2)});
is($out, '2|2', 'a dry run runs batches');
like($err, qr/NOTICE:  batches of migration "dry" may reach outside of this server: function public\.dblink_exec\(text,text\)/, 'and says how they reach out');
begin_kind('dry_here', '');
open_gate(99);
($ret, $out, $err) = $node->psql('postgres', q{SELECT jobs, rows FROM bbm_dry_run('dry_here', 2)});
is($err, '', 'or that they do not');

kill CONT => $walwriter;
$node->stop;
done_testing();

END
{
	kill CONT => $walwriter if $walwriter;
}
