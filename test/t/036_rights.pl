# Rights that change between two batches of a worker: the batch in flight counts as done before the change, the next one obeys it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('rights');

# The jobs of "app" that are functions have the rights of their author: then the owner needs to read the key, and
# nothing else.  The batch with row 5 waits for a lock that the test has.
value($node, <<'EOS');
CREATE ROLE app LOGIN;
CREATE ROLE readers;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO app;
CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = 0 AS $$
BEGIN
	IF new.id = 5 THEN
		PERFORM pg_advisory_xact_lock_shared(1);
	END IF;
	RETURN new;
END $$;
CREATE FUNCTION done(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
	done bigint;
BEGIN
	UPDATE public.t SET n = n + 1 WHERE id BETWEEN lo AND hi;
	GET DIAGNOSTICS done = ROW_COUNT;
	RETURN done;
END $$;
EOS

# Returns the status, and how many rows are done, not done, and done more than once.
sub change_in_mid_run
{
	my ($table, $before, $call, $change) = @_;

	value($node, "DROP TABLE IF EXISTS t; $table; INSERT INTO t SELECT generate_series(1, 100);
		CREATE TRIGGER wait_at_gate BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION wait_at_gate(); $before");
	my $holder = $node->background_psql('postgres');
	$holder->query_safe('SELECT pg_advisory_lock(1)');
	my (undef, undef, $err) = $node->psql('postgres', "SET client_min_messages = warning; SELECT $call", extra_params => [ '-U', 'app' ]);
	is($err, '', 'it is defined');
	$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND NOT granted");
	value($node, $change);
	$holder->query_safe('SELECT pg_advisory_unlock(1)');
	$holder->quit;
	$node->poll_query_until('postgres', q(SELECT status IN ('finished', 'failed') FROM bbm_status('m')));
	my $state = value($node, q(SELECT status FROM bbm_status('m'))) . ': '
	  . value($node, 'SELECT count(*) FILTER (WHERE n = 1) > 0, count(*) FILTER (WHERE n = 0) > 0, count(*) FILTER (WHERE n > 1) > 0 FROM t');
	my $error = value($node, q(SELECT last_error FROM bbm_status_detail('m')));
	value($node, q(SELECT bbm_drop('m')));
	return wantarray ? ($state, $error) : $state;
}

my $plain = 'CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)';
my $parts = "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
	CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (50); CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (50) TO (200)";
my $by_function = q(bbm_create('m', 't', 'done', batch_size => 10, start => true));
my $composed = q(bbm_update('m', 't', 'n = n + 1', batch_size => 10, start => true));

# The key is read by walking its index, where no statement asks for the right.
for (
	[ 'of the table', 'GRANT SELECT ON t TO app', 'REVOKE SELECT ON t FROM app' ],
	[ 'of the column', 'GRANT SELECT (id) ON t TO app', 'REVOKE SELECT (id) ON t FROM app' ],
	[ 'of a group that has it', 'GRANT SELECT ON t TO readers; GRANT readers TO app', 'REVOKE readers FROM app' ])
{
	my ($of, $grant, $revoke) = @$_;
	my ($state, $error) = change_in_mid_run($plain, $grant, $by_function, $revoke);
	is($state, 'failed: t|t|f', "a right $of to read the key is revoked: the next batch is not done");
	like($error, qr/^42501: permission denied for table t\b/, '... and says why');
}
is(scalar change_in_mid_run($plain, 'GRANT SELECT (id, n) ON t TO app', $by_function, 'REVOKE SELECT (n) ON t FROM app'),
	'finished: t|f|f', 'another right is not asked for');

# The server checks the rights that the statement needs, with each batch.
my $all = 'GRANT SELECT, UPDATE ON t TO app';
my ($state, $error) = change_in_mid_run($plain, $all, $composed, 'REVOKE UPDATE ON t FROM app');
is($state, 'failed: t|t|f', 'the right to write is revoked');
like($error, qr/^42501: permission denied for table t\b/, '... and says why');
value($node, 'REVOKE EXECUTE ON FUNCTION done FROM PUBLIC; GRANT EXECUTE ON FUNCTION done TO app');
($state, $error) = change_in_mid_run($plain, $all, $by_function, 'REVOKE EXECUTE ON FUNCTION done FROM app');
is($state, 'failed: t|t|f', 'the right to the job is revoked');
like($error, qr/^42501: permission denied for function done\b/, '... and says why');

# Batches of a partition become batches of the table as a whole, and the other way about.
is(scalar change_in_mid_run($parts, "$all; GRANT SELECT, UPDATE ON t_1, t_2 TO app", $composed, 'REVOKE ALL ON t_1, t_2 FROM app'),
	'finished: t|f|f', 'rights on partitions are not needed');
is(scalar change_in_mid_run($parts, $all, $composed, 'GRANT SELECT, UPDATE ON t_1, t_2 TO app'),
	'finished: t|f|f', 'and more of them make no difference');
is(scalar change_in_mid_run($parts, "$all; GRANT SELECT, UPDATE ON t_1, t_2 TO app", $composed, 'REVOKE ALL ON t FROM app'),
	'failed: t|t|f', 'rights on partitions are not enough');

log_clean($node, undef, qr/permission denied/);
$node->stop;
done_testing();
