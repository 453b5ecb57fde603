# A row whose key is null, and a crash between the last range and the check for such rows: the
# migration does not become finished, no range is done twice, and when the row is corrected it ends.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use Test::More;

my $node = bbm_node('null_keys');

counter_table($node, 't', 500);
value($node, 'ALTER TABLE t DROP CONSTRAINT t_pkey, ALTER id DROP NOT NULL; CREATE INDEX ON t (id NULLS FIRST)');
define($node, 'm', 't', job => 'gated', column_name => q('id'), batch_size => 100);
value($node, q(SELECT bbm_start('m')));
reach_gate($node);
value($node, 'INSERT INTO t VALUES (NULL)');

# a lock on the migration's row delays its end, and not its ranges
my $holder = background($node, 'postgres', 'BEGIN', 'SELECT 1 FROM batched_background_migrations FOR NO KEY UPDATE', q(SELECT pg_sleep(3600) AS holder));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep.* AS holder')), 'its row is held');
gate($node, 'open');
ok($node->poll_query_until('postgres', q(SELECT sum(key_count) = 500 AND bool_and(status = 2) FROM batched_background_migration_jobs)), 'all ranges are done');
is(value($node, q(SELECT status FROM bbm_status('m'))), 'running', '... and the migration has not ended');
$node->stop('immediate');
finish_background($holder);
start_anyway($node);

ok(status_is($node, 'm', 'failed'), 'after the crash the row is found');
is(
	value($node, q(SELECT failure_error_code, error_sqlstate, error_message FROM batched_background_migrations)),
	'2|55000|1 row has a null key and is in no range',
	'... with the code and the number');
my ($code, undef, $err) = $node->psql('postgres', q(SELECT bbm_ensure_finished('m')));
is($code, 3, 'bbm_ensure_finished reports that');
like($err, qr/"m" has failed/, '... why');
is(value($node, 'SELECT n FROM t WHERE id IS NULL'), 0, 'the row is not done');
once_each($node, '(SELECT n FROM t WHERE id IS NOT NULL) ranges', 500, 'each other one is, once');

value($node, q(UPDATE t SET id = 501, n = 1 WHERE id IS NULL; SELECT bbm_start('m')));
finished($node, 'm', 'seen to, it finishes');
once_each($node, 't', 501);
log_clean($node);

done_testing();
