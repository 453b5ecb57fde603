# A member WITH INHERIT TRUE, SET FALSE has the rights of a role and may not become it.  It may do to the
# role's migrations what it may do to the role's tables: see, start, pause, take over and drop them.  It must not
# say what runs as the role.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use Test::More;

my $node = bbm_node('membership', conf => "bbm.naptime = 1s\nbbm.min_pace = 1\n");
plan skip_all => 'memberships have no such options before 16' if value($node, 'SHOW server_version_num') < 160000;

$node->safe_psql('postgres', <<'EOC');
CREATE ROLE owner LOGIN;
CREATE ROLE heir LOGIN;
CREATE ROLE deputy LOGIN;
GRANT owner TO heir WITH INHERIT TRUE, SET FALSE;
GRANT owner TO deputy WITH INHERIT FALSE, SET TRUE;
GRANT ALL ON SCHEMA public TO owner, heir, deputy;
GRANT SELECT, INSERT, UPDATE, DELETE ON batched_background_migrations TO owner, heir, deputy;
GRANT EXECUTE ON FUNCTION bbm_create, bbm_update, bbm_alter, bbm_start, bbm_pause, bbm_drop, bbm_verify TO owner, heir, deputy;
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 100);
ALTER TABLE t OWNER TO owner;
SET ROLE owner;
SELECT bbm_update('theirs', 'public.t', 'n = n + 1', row_check => 'n > 0');
EOC

# ROLE, STATEMENT: its SQLSTATE and message, or 'ok'; rolled back.
sub tried
{
	my ($role, $statement) = @_;
	my ($ret, $out, $err) = $node->psql(
		'postgres', "\\set VERBOSITY verbose\nBEGIN; $statement; ROLLBACK;",
		on_error_stop => 1,
		connstr       => $node->connstr('postgres') . " user=$role");
	return $ret == 0 ? 'ok' : $err =~ /ERROR:  (\w{5}): (.*)/ ? "$1: $2" : $err;
}

my $insert = q(INSERT INTO batched_background_migrations (name, max_value, batch_size, job_signature_name, table_name, column_name, owner)
	VALUES ('x', 100, 10, 'UPDATE t SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'public.t', 'id', 'owner'));
my $start = q(UPDATE batched_background_migrations SET status = 1 WHERE name = 'theirs');
my %refused = (
	'INSERT for the role'   => $insert,
	'bbm_alter(owner)'      => q(SELECT bbm_update('x', 'public.t', 'n = n + 1'); SELECT bbm_alter('x', owner => 'owner')),
	'UPDATE of the job'     => q(UPDATE batched_background_migrations SET job_signature_name = 'UPDATE t SET n = 7 WHERE id BETWEEN $1 AND $2' WHERE name = 'theirs'),
	'UPDATE of the table'   => q(UPDATE batched_background_migrations SET table_name = 'public.u' WHERE name = 'theirs'),
	'bbm_verify(row_check)' => q(SELECT bbm_verify('theirs', 'current_user IS NULL')),
	'bbm_alter(job)'        => q(SELECT bbm_alter('theirs', job => 'f')),
	'bbm_alter(batch_size)' => q(SELECT bbm_alter('theirs', batch_size => 7)));
for my $what (sort keys %refused)
{
	like(tried('heir', $refused{$what}), qr/^42501: /, "$what: not by who may not become the owner");
}
my %allowed = (
	'SELECT'      => q(DO $$ BEGIN ASSERT (SELECT count(*) = 1 FROM bbm_status('theirs')); END $$),
	'UPDATE to 1' => $start,
	'bbm_start'   => q(SELECT bbm_start('theirs')),
	'bbm_verify'  => q(SELECT bbm_verify('theirs')),
	'bbm_pause'   => q(SELECT bbm_pause('theirs')),
	# as ALTER TABLE … OWNER TO does: from then on it runs as heir
	'taking over' => q(UPDATE batched_background_migrations SET owner = 'heir' WHERE name = 'theirs';
		DO $$ BEGIN ASSERT (SELECT owner_oid = 'heir'::regrole FROM batched_background_migrations WHERE name = 'theirs'); END $$),
	'bbm_drop'    => q(SELECT bbm_drop('theirs')));
for my $what (sort keys %allowed)
{
	is(tried('heir', $allowed{$what}), 'ok', "$what: by who has the rights of the owner");
}

# The other way round: a role that may become the owner may have it run as the owner.
is(tried('deputy', 'SET ROLE owner; ' . $start), 'ok', 'a role that becomes the owner starts it');
is(tried('deputy', 'SET ROLE owner; ' . $insert), 'ok', '... and defines a migration for him');
like(tried('deputy', $insert), qr/^42501: /, '... but not while he is somebody else');

is(value($node, q(SELECT string_agg(name || ' ' || owner || ' ' || status, ',') FROM batched_background_migrations)), 'theirs owner 0', 'nothing of it stayed');
log_clean($node);
done_testing();
