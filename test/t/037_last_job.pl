# A process that must wait checks whether nothing is left anyway.  Meanwhile another one
# may requeue the last job: it is neither running nor waiting to be claimed, if the check
# reads one of the two before and the other afterwards.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('last_job', conf => "bbm.enabled = off\n");

value($node, <<"EOS");
CREATE FUNCTION hold_after(part text, lock bigint) RETURNS void LANGUAGE c AS '$ENV{BBM_TEST_MODULE}', 'bbm_test_hold_after';
CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 10);
CREATE FUNCTION bump(lo integer, hi integer) RETURNS void LANGUAGE plpgsql SET lock_timeout = 0 AS \$\$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(1);
	UPDATE t SET n = n + 1 WHERE id BETWEEN lo AND hi;
END \$\$;
EOS
value($node, q(SELECT bbm_create('m', 't', 'bump', batch_size => 10, workers => 2, start => true)));

my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(1), pg_advisory_lock(2)');

# the only job is in flight ...
my $first = background($node, 'postgres', q(CALL bbm_run('m')));
$node->poll_query_until('postgres',
	q(SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND NOT granted)));

# ... when another process must wait, and has read the running jobs, or those that wait to be claimed
$node->append_conf('postgresql.conf',
	"bbm.active_hours = '" . value($node, q(SELECT to_char(now() + interval '6 h', 'HH24:00-') || to_char(now() + interval '7 h', 'HH24:00'))) . "'");
$node->reload;
$node->poll_query_until('postgres', q(SELECT current_setting('bbm.active_hours') <> ''));
my $second = background($node, 'postgres', q(SELECT hold_after('status ' || '<> 2', 2)), q(CALL bbm_run('m')));
$node->wait_for_log(qr/held after "status <> 2"/);

# it is requeued just then
value($node, q(SELECT pg_cancel_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND NOT granted));
$node->poll_query_until('postgres', q(SELECT EXISTS (SELECT FROM batched_background_migration_jobs WHERE status = 1)));
finish_background($first);
$holder->query_safe('SELECT pg_advisory_unlock_all()');
$node->wait_for_log(qr/migration "m" (?:waits|is finished)/);
isnt(value($node, 'SELECT status FROM batched_background_migrations'), 2, 'it is not finished with an open job');

value($node, q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()));
finish_background($second);
$node->append_conf('postgresql.conf', "bbm.active_hours = ''");
$node->reload;
$node->poll_query_until('postgres', q(SELECT current_setting('bbm.active_hours') = ''));
value($node, q(CALL bbm_run('m')));
is(value($node, 'SELECT status FROM batched_background_migrations'), 2, 'it is finished');
is(value($node, 'SELECT min(n), max(n) FROM t'), '1|1', 'every row is done once');
$holder->quit;
done_testing();
