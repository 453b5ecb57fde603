# The container registry's schema, migrations, runbook and client (test/registry) on bbm's tables, which
# its role owns: all of it as the registry has it, on real workers, and each row done once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use IPC::Run;
use Test::More;

# Hundreds of short batches: pacing is another test's.  One waits for a client's row for as long as 63 migrations
# take, and is not to be made smaller for that.
my $node = bbm_node('registry', conf => "bbm.min_pace = 1\nbbm.lock_timeout = '1 h'\n", initdb => [ '--encoding=UTF8', '--locale=C' ]);
my $from = "$FindBin::RealBin/../registry";

# As doc/registry.md has it: the extension is a superuser's, the tables the registry's.
value($node, $_) for (
	'CREATE ROLE registry LOGIN',
	'GRANT ALL ON DATABASE postgres TO registry; GRANT ALL ON SCHEMA public TO registry',
	'ALTER TABLE batched_background_migrations OWNER TO registry; ALTER TABLE batched_background_migration_jobs OWNER TO registry');

my $as_registry = $node->connstr('postgres') . ' user=registry';

sub registry
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, connstr => $as_registry, on_error_die => 1);
	chomp $out;
	return $out;
}

# The runbook's three statements, to the letter.
my %runbook = (
	pause => <<'EOS',
    UPDATE batched_background_migrations
    SET status = 0 -- 'paused'
    WHERE name = '<migration_name>';
EOS
	start => <<'EOS',
    UPDATE batched_background_migrations
    SET status = 1 -- 'active'
    WHERE name = '<migration_name>';
EOS
	view => <<'EOS');
    SELECT name, status, started_at, finished_at
    FROM batched_background_migrations
    WHERE name = '<migration_name>';
EOS

sub runbook
{
	my ($what, @names) = @_;
	return registry(join '', map { $runbook{$what} =~ s/<migration_name>/$_/r } @names);
}

sub all_finish
{
	my ($what, @names) = @_;
	my $list = join ', ', map { "'$_'" } @names;
	$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM batched_background_migrations WHERE status NOT IN (2, 3) AND name IN ($list)");
	is(value($node, "SELECT string_agg(DISTINCT format('%s %s', status, error_message), ', ') FROM batched_background_migrations WHERE name IN ($list)"),
		'2 ', "finished: $what");
	is(value($node, "SELECT count(*) FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE name IN ($list) AND j.attempts <> 1"),
		0, '... at the first attempt of each job');
	my @seen = split /\n/, runbook('view', @names);
	is(scalar(grep { /^\w+\|2\|20[^|]+\|20[^|]+$/ } @seen), scalar(@names), '... which is what the runbook views');
	return;
}

my @null   = map { "backfill_blobs_p_${_}_id_column" } 0 .. 63;
my @config = map { "copy_config_manifests_p_${_}_media_type_id_column_to_media_type_id_convert_to_bigint_column" } 0 .. 63;
my @blobs  = map { "copy_blobs_p_${_}_media_type_id_column_to_media_type_id_convert_to_bigint_column" } 0 .. 63;
my $manifests = 'copy_manifests_media_type_id_column_to_media_type_id_convert_to_bigint_column';

registry("\\i $from/schema.sql");
registry("\\i $from/migrations.sql");
is(registry('SELECT status, count(*) FROM batched_background_migrations GROUP BY status ORDER BY status'), "0|192\n1|1", 'its schema migrations define 193');

# Active before its function exists; deployed with the next binary.
ok($node->poll_query_until('postgres', "SELECT waiting_on ~ '42883: not there yet: function \"copyManifestMediaTypeIDToNewBigIntColumn\"' FROM bbm_status_detail('$manifests')"),
	'one that is active waits for its function');
registry("\\i $from/functions.sql");
all_finish('the one on the partitioned root', $manifests);
is(registry('SELECT count(*), min(media_done), max(media_done), count(*) FILTER (WHERE media_type_id_convert_to_bigint = media_type_id) FROM manifests'),
	'6400|1|1|6400', '... each row of 64 partitions once');
is(registry("SELECT count(*) FROM batched_background_migrations WHERE status = 0"), 192, '... and none that nobody has started runs');

# All of these at once.
runbook('start', @null, @config);
all_finish('the 64 of the null strategy', @null);
is(registry('SELECT count(*), count(DISTINCT id), min(id_done), max(id_done) FROM blobs'), '6400|6400|1|1', '... each row got one id');
is(registry("SELECT DISTINCT j.min_value, j.max_value FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name ~ '^backfill'"),
	'0|0', '... by jobs without a range');
all_finish('the 64 that copy configurations', @config);
is(registry('SELECT count(*), min(config_done), max(config_done), count(*) FILTER (WHERE configuration_media_type_id_convert_to_bigint IS NOT DISTINCT FROM configuration_media_type_id) FROM manifests'),
	'6400|1|1|6400', '... each row once');

# The keys may be null by the schema, though none is.  One stops where a client has a row, and is paused:
# the second job (40 rows) of it is between its second and its third sub-batch (10).
my $ids = 'SELECT id FROM partitions.blobs_p_5 ORDER BY id';
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN');
$holder->query_safe("SELECT FROM partitions.blobs_p_5 WHERE id = ($ids OFFSET 54 LIMIT 1) FOR UPDATE");
runbook('start', @blobs);
ok($node->poll_query_until('postgres', q(SELECT count(*) = 50 FROM partitions.blobs_p_5 WHERE media_done = 1)), 'one migration has come to a row that a client holds');
all_finish('the 63 others beside it', grep { !/_p_5_/ } @blobs);
is(runbook('pause', $blobs[5]), '', 'paused by the runbook');
like(runbook('view', $blobs[5]), qr/^$blobs[5]\|0\|20[^|]+\|$/, '... it is at once, though a batch is at work');
$holder->query_safe('COMMIT');
$holder->quit;
no_workers($node, '... and its worker ends');
is(registry(q(SELECT count(*) FROM batched_background_migration_jobs WHERE status = 4)), 0, '... with no job left at work');
my $done = registry('SELECT count(*) FROM partitions.blobs_p_5 WHERE media_done = 1');
ok($done == 50 || $done == 60, '... after the sub-batch at hand') or diag($done);

# Its client, while that one is half done.
my $python = (grep { system("$_ -c 'import psycopg' >/dev/null 2>&1") == 0 } 'python3', '/usr/bin/python3')[0];
SKIP:
{
	skip 'no python3 with psycopg 3 (python3-psycopg)', 1 unless $python;
	my ($out, $err) = ('', '');
	my $right = IPC::Run::run([ $python, "$from/client.py", $as_registry, $blobs[5], $manifests ], '<', \undef, '>', \$out, '2>', \$err);
	my @said = split /\n/, $out;
	ok(/^ok - /, 'client: ' . s/^(not )?ok - //r) for @said;
	ok($right && @said > 40, 'client: comes to its end') or diag($err);
}

# what is left is started by the runbook, unless the client has (by resume)
runbook('start', $blobs[5]);
all_finish('all that copy media types of blobs', @blobs);
is(registry('SELECT count(*), min(media_done), max(media_done), count(*) FILTER (WHERE media_type_id_convert_to_bigint = media_type_id) FROM blobs'),
	'6400|1|1|6400', '... each row once');
is(registry("SELECT string_agg(DISTINCT size::text, ' ') FROM copied_blobs"), '10', '... with the size of the commit at hand as last argument');
is(registry('SELECT count(*) FROM batched_background_migrations WHERE status <> 2'), 0, 'the registry has nothing left to migrate');
log_clean($node);

done_testing();
