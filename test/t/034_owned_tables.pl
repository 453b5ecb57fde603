# The tables belong to the application's role, which has added a column: a dump is restored as doc/registry.md has it,
# and what a superuser must not meet in it waits.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('owned', conf => "bbm.naptime = 1s\nbbm.min_pace = 1\n");
my $dir  = PostgreSQL::Test::Utils::tempdir;

$node->safe_psql('postgres', <<'EOC');
CREATE ROLE registry LOGIN;
GRANT ALL ON SCHEMA public TO registry;
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 100);
ALTER TABLE t OWNER TO registry;
ALTER TABLE batched_background_migrations OWNER TO registry;
ALTER TABLE batched_background_migration_jobs OWNER TO registry;
SET ROLE registry;
ALTER TABLE batched_background_migrations ADD COLUMN IF NOT EXISTS sub_batch_size integer NOT NULL DEFAULT 0, ADD COLUMN our_rank integer;
ALTER TABLE batched_background_migration_jobs ADD COLUMN note text DEFAULT 'none';
INSERT INTO batched_background_migrations (name, max_value, batch_size, status, job_signature_name, table_name, column_name, our_rank)
VALUES ('done', 50, 10, 1, 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'public.t', 'id', 7);
EOC
finished($node, 'done');
$node->safe_psql('postgres', <<'EOC');
SET ROLE registry;
INSERT INTO batched_background_migrations (name, min_value, max_value, batch_size, job_signature_name, table_name, column_name, our_rank)
VALUES ('rest', 51, 100, 10, 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'public.t', 'id', 8);
EOC

command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr('postgres'), '-f', "$dir/dump" ], 'a dump');

# in one step there is no room for what was added
$node->safe_psql('postgres', 'CREATE DATABASE one_step');
command_fails_like([ 'pg_restore', '-d', $node->connstr('one_step'), "$dir/dump" ],
	qr/column "our_rank" of relation "batched_background_migrations" does not exist/, 'in one step, a column is missing');

# in two
$node->safe_psql('postgres', 'CREATE DATABASE copy');
my $copy = $node->connstr('copy');
command_ok([ 'pg_restore', '--exit-on-error', '--section=pre-data', '-d', $copy, "$dir/dump" ], 'before the data');
$node->safe_psql('copy', <<'EOC');
ALTER TABLE batched_background_migrations ADD COLUMN our_rank integer;
ALTER TABLE batched_background_migration_jobs ADD COLUMN note text DEFAULT 'none';
ALTER TABLE batched_background_migrations OWNER TO registry;
ALTER TABLE batched_background_migration_jobs OWNER TO registry;
EOC
command_ok([ 'pg_restore', '--exit-on-error', '--section=data', '--section=post-data', '-d', $copy, "$dir/dump" ], 'the data, and after it');
is( value($node, q(SELECT string_agg(concat_ws(' ', name, status, our_rank, owner), ', ' ORDER BY id) FROM batched_background_migrations), 'copy'),
	'done 2 7 registry, rest 0 8 registry', 'the migrations, with what was added');
is(value($node, q(SELECT count(*) || ' ' || min(note) FROM batched_background_migration_jobs), 'copy'), '5 none', 'and the jobs');
$node->safe_psql('copy', q(SET ROLE registry; UPDATE batched_background_migrations SET status = 1 WHERE name = 'rest'));
finished($node, 'rest', 'started there, it finishes', 'copy');
is(value($node, 'SELECT min(n), max(n), count(*) FROM t', 'copy'), '1|1|100', 'each row once');

log_clean($node);
$node->stop;
done_testing();
