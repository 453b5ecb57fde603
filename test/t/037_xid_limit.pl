# The server has run out of transaction ids: migrations wait, users see for what, the log has a line a minute
# about it, and when the server has ids again they go on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

# A slot keeps the oldest transaction id of the catalogs, so that no vacuum makes room.
my $node = bbm_node('xids', conf => <<'EOC');
wal_level = logical
max_replication_slots = 2
max_wal_senders = 2
autovacuum_naptime = 1s
bbm.naptime = 1s
bbm.enabled = off
EOC
counter_table($node, 't', 100);
define($node, 'm', 't', batch_size => 10, start => 'true');
value($node, q(SELECT pg_create_logical_replication_slot('keeps', 'pgoutput')));
my $oldest = value($node, 'SELECT min(datfrozenxid::text::bigint) FROM pg_database');
$node->stop;

# 3,000,000 ids before the oldest one comes round again, the server stops to assign any.
my $next = $oldest + 2**31 - 1 - 3_000_000 + 1000;
command_ok([ 'pg_resetwal', '-x', $next, '-D', $node->data_dir ], 'the next transaction id is one too many');
my $segment = $node->data_dir . sprintf('/pg_xact/%04X', int($next / 2**20));
open(my $file, '>', $segment) or die "$segment: $!";
print $file "\0" x 262144;
close($file);
$node->append_conf('postgresql.conf', 'bbm.enabled = on');
my $offset = log_size($node);
my $start = time;
$node->start;

ok( $node->poll_query_until('postgres', q(SELECT waiting_on ~ '^54000: database is not accepting commands' AND last_error = waiting_on FROM bbm_status_detail('m'))),
	'a migration waits, and says for what');
my $tries = q(SELECT xact_rollback FROM pg_stat_database WHERE datname = 'postgres');
my $before = value($node, $tries);
ok($node->poll_query_until('postgres', "SELECT ($tries) >= $before + 6"), 'it tries again and again');
is(value($node, q(SELECT status, jobs_finished, workers FROM bbm_status_detail('m'))) =~ s/\|\d+$//r, 'active|0', '... and does not fail');
my @lines = log_since($node, $offset) =~ /^.*\[bbm (?:worker|discovery)\].*(?:LOG|WARNING|ERROR):.*$/mg;
cmp_ok(scalar(@lines), '<=', 2 + (time - $start) / 60, '... at a line a minute') or diag(join "\n", @lines);

# Vacuum makes room, of every database, since the server asks for it.
value($node, q(SELECT pg_drop_replication_slot('keeps')));
finished($node, 'm', 'when there are ids again, it goes on');
once_each($node, 't', 100);
like(log_since($node, $offset), qr/migration "m" goes on after \d+ errors/, '... and that is in the log');
log_clean($node);
$node->stop;
done_testing();
