# The check for sessions that wait for a batch runs in a signal handler, and the signal may come
# at any moment: where interrupts are held off it reads no locks, and interrupts stay held off.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

# no pauses: the batch is to be in flight
my $node = bbm_node('lock_watch', conf => <<'EOC');
bbm.max_blocking_time = 10ms
bbm.min_pace = 1
EOC

value($node, <<"EOS");
CREATE FUNCTION hold_alarm() RETURNS void LANGUAGE c AS '$ENV{BBM_TEST_MODULE}', 'bbm_test_hold_alarm';
CREATE FUNCTION lock_watch() RETURNS void LANGUAGE c AS '$ENV{BBM_TEST_MODULE}', 'bbm_test_lock_watch';
CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO t VALUES (1);
CREATE SEQUENCE calls;
-- is called in the first batch: no check is made before another session has waited for a while
CREATE FUNCTION step() RETURNS integer LANGUAGE plpgsql AS \$\$
BEGIN
	IF NOT (SELECT is_called FROM calls) THEN
		PERFORM hold_alarm();
		PERFORM nextval('calls');
		WHILE NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 't'::regclass
				AND waitstart < clock_timestamp() - interval '20 ms') LOOP
			PERFORM pg_sleep(0.01);
		END LOOP;
		PERFORM lock_watch();
	END IF;
	RETURN 1;
END \$\$;
EOS
value($node, q(SELECT bbm_update('t', 't', 'n = n + step()', start => true)));
$node->poll_query_until('postgres', 'SELECT is_called FROM calls');
my $waiter = background($node, 'postgres', 'BEGIN; LOCK TABLE t; COMMIT');
$node->wait_for_log(qr/a check was made/);
my ($checks) = log_since($node) =~ /a check was made: (.*)/;
is( $checks,
	'plain 1, interrupts held off 0, critical section 0, exclusive locks 0, shared locks 1, spinlock 1',
	'a check is made only where it may read locks');
finish_background($waiter);
finished($node, 't');
is(value($node, 'SELECT n FROM t'), 1, 'the row is done once');
log_clean($node);
done_testing();
