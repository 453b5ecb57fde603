# A history of what is done to migrations, written by triggers of the test's own, for test/history to check.
#
# What the triggers write commits with what it is about, or is lost with it; the server log has
# the attempts, too.  A sequence gives the order.

package BbmHistory;

use strict;
use warnings;

use Exporter 'import';
use BbmTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(history_begin history_subject_sql history_write history_holds history_wrong);

# From here on, in this database.
sub history_begin
{
	my ($node) = @_;
	value($node, <<'EOS');
CREATE SCHEMA history;
CREATE SEQUENCE history.seq;
CREATE TABLE history.lines (kind text, line text);
CREATE TABLE history.subjects (subject text PRIMARY KEY, tab text, migration bigint, ranges boolean, counts boolean);
GRANT USAGE ON SCHEMA history TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA history TO PUBLIC;
GRANT ALL ON ALL SEQUENCES IN SCHEMA history TO PUBLIC;

-- one line each in the log
CREATE FUNCTION history.job() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET log_error_verbosity = terse SET log_min_error_statement = panic AS $$
DECLARE
	-- of a deleted row there is no NEW
	j public.batched_background_migration_jobs := coalesce(NEW, OLD);
BEGIN
	INSERT INTO history.lines VALUES ('job', concat_ws(E'\t', 'job', 'seq=' || nextval('history.seq'), 'xid=' || pg_current_xact_id(), 'pid=' || pg_backend_pid(),
		'migration=' || j.batched_background_migration_id, 'job=' || j.id, 'op=' || TG_OP, 'new=' || j.status, 'epoch=' || j.claim_epoch,
		'min=' || j.min_value, 'max=' || j.max_value, 'kind=' || j.kind, 'phase=' || j.phase, 'round=' || j.round,
		'cursor=' || coalesce(j.cursor_key::text, j.cursor_value::text), 'rows=' || j.row_count));
	RAISE LOG 'history: xid=% pid=% job=%', pg_current_xact_id(), pg_backend_pid(), j.id;
	RETURN NULL;
END $$;
CREATE TRIGGER history AFTER INSERT OR UPDATE OR DELETE ON public.batched_background_migration_jobs
	FOR EACH ROW EXECUTE FUNCTION history.job();
-- the thief's session has no other triggers
ALTER TABLE public.batched_background_migration_jobs ENABLE ALWAYS TRIGGER history;

CREATE FUNCTION history.status() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	m public.batched_background_migrations := coalesce(NEW, OLD);
BEGIN
	INSERT INTO history.lines VALUES ('status', concat_ws(E'\t', 'status', 'seq=' || nextval('history.seq'), 'xid=' || pg_current_xact_id(), 'pid=' || pg_backend_pid(),
		'migration=' || m.id, 'new=' || CASE WHEN TG_OP <> 'DELETE' THEN m.status END));
	RETURN NULL;
END $$;
CREATE TRIGGER history AFTER INSERT OR UPDATE OF status OR DELETE ON public.batched_background_migrations
	FOR EACH ROW EXECUTE FUNCTION history.status();
ALTER TABLE public.batched_background_migrations ENABLE ALWAYS TRIGGER history;

CREATE FUNCTION history.row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO history.lines VALUES ('row', concat_ws(E'\t', 'row', 'xid=' || pg_current_xact_id(), 'pid=' || pg_backend_pid(),
		'subject=' || TG_ARGV[0], 'id=' || NEW.id, 'n=' || NEW.n));
	RETURN NULL;
END $$;
EOS
	return;
}

# A table, which has columns id and n, is from now on the one of a migration that exists; the
# subject has a name of its own, as another table may come by that name.  ranges: min_value and max_value
# are of id; counts: what a job reports is how many of its rows have got another n.
sub history_subject_sql
{
	my ($subject, $table, %o) = @_;
	my ($ranges, $counts) = map { $o{$_} ? 'true' : 'false' } 'ranges', 'counts';
	return "INSERT INTO history.subjects SELECT '$subject', '$table', id, $ranges, $counts FROM public.batched_background_migrations WHERE name = '$table';\n"
	  . "CREATE TRIGGER history AFTER UPDATE ON $table FOR EACH ROW WHEN (OLD.n IS DISTINCT FROM NEW.n) EXECUTE FUNCTION history.row('$subject');\n";
}

# Writes the history to a file, with the rows of the tables that are still there, and the attempts from these servers' logs.
sub history_write
{
	my ($node, $path, @logs) = @_;
	my $text = value($node, 'SELECT line FROM history.lines');
	$text .= "\n" . value($node, q(SELECT concat_ws(E'\t', 'subject', 'subject=' || subject, 'migration=' || migration, 'ranges=' || ranges::integer, 'counts=' || counts::integer) FROM history.subjects));
	for (split /\n/, value($node, q(SELECT DISTINCT ON (tab) subject, tab FROM history.subjects WHERE to_regclass(tab) IS NOT NULL ORDER BY tab, migration DESC)))
	{
		my ($subject, $table) = split /\|/;
		$text .= "\n" . value($node, "SELECT concat_ws(E'\\t', 'end', 'subject=$subject', 'id=' || id, 'n=' || n) FROM $table");
	}
	for my $log (@logs)
	{
		my $lines = slurp_file($log);
		$text .= "\nattempt\txid=$1\tpid=$2\tjob=$3" while $lines =~ /history: xid=(\d+) pid=(\d+) job=(\d+)/g;
	}
	open my $file, '>', $path or die "$path: $!";
	print $file "$text\n";
	close $file;
	return;
}

sub check
{
	my ($path) = @_;
	my $out = '';
	my $ok = IPC::Run::run([ $^X, "$ENV{TESTDIR}/test/history", $path ], '>', \$out, '2>&1');
	return ($ok, $out);
}

# The history in the file is one that may be.
sub history_holds
{
	my ($path, $what) = @_;
	my ($ok, $out) = check($path);
	ok($ok, $what || 'the history holds') or diag($out);
	note $out if $ok;
	return $ok;
}

# ... and this one is not, for that reason.
sub history_wrong
{
	my ($path, $why, $what) = @_;
	my ($ok, $out) = check($path);
	ok(!$ok && $out =~ $why, $what) or diag("it said: $out");
	return;
}

1;
