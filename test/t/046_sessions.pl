
# Sessions that run a migration, or wait for one: what else they take part in.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('sessions', conf => <<'EOC');
bbm.naptime = 0
bbm.min_pace = 1
EOC

sub server_setting
{
	value($node, "ALTER SYSTEM $_") for @_;
	$node->reload;
	return;
}

# A reload reaches a session in bbm_run, too: it does not wait for hours that have changed.
counter_table($node, 't_reload', 1000);
define($node, 'reload', 't_reload', batch_size => 10);
my $then = ((gmtime)[2] + 12) % 24;
server_setting('SET bbm.enabled = off', sprintf q(SET bbm.active_hours = '%02d:00-%02d:30 UTC'), $then, $then);
$node->poll_query_until('postgres', q(SELECT current_setting('bbm.active_hours') <> ''));
my $run = background($node, 'postgres', q(SET statement_timeout = '180s'), q(CALL bbm_run('reload')));
ok($node->poll_query_until('postgres', q(SELECT waiting_on LIKE 'active hours: %' FROM bbm_status_detail('reload'))),
	'a session in bbm_run waits for the active hours');
server_setting('RESET bbm.active_hours');
my ($out, $err) = finish_background($run);
like($err, qr/migration "reload" is finished: 1000 rows/, '... and goes on when a reload has turned them off');
once_each($node, 't_reload', 1000);
server_setting('RESET bbm.enabled');

# Who waits for a migration is not what it waits for; nor is who waits for one in another database.
value($node, 'CREATE DATABASE other');
value($node, 'CREATE EXTENSION bbm', 'other');
my %db = (here => 'postgres', there => 'other');
for my $name (sort keys %db)
{
	counter_table($node, "t_$name", 500, $db{$name});
	define($node, $name, "t_$name", db => $db{$name}, batch_size => 100, settings => q('{bbm.max_active_sessions=0, bbm.max_row_rate=500}'));
}
my @waits = map { background($node, $db{$_}, "SELECT bbm_wait('$_', '180s')") } qw(here there);
$node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM pg_stat_activity WHERE query LIKE 'SELECT bbm_wait%' AND state = 'active'));
value($node, "SELECT bbm_start('$_')", $db{$_}) for qw(here there);
for my $wait (@waits)
{
	($out) = finish_background($wait);
	is($out, 'finished', 'max_active_sessions: a migration does not wait for the session that waits for it');
}

# A session that truncates nothing and runs no batch has no hook for it.
value($node, <<"EOS");
CREATE FUNCTION has_access_hook() RETURNS boolean LANGUAGE c AS '$ENV{BBM_TEST_MODULE}', 'bbm_test_has_access_hook';
CREATE TABLE seen (what text, has_hook boolean);
CREATE TABLE hooked (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO hooked VALUES (1);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	INSERT INTO public.seen VALUES (TG_OP, public.has_access_hook());
	RETURN NULL;
END \$\$;
CREATE TRIGGER see AFTER UPDATE OR TRUNCATE ON hooked FOR EACH STATEMENT EXECUTE FUNCTION see();
CREATE TABLE other (id bigint);
EOS
define($node, 'hooked', 'hooked');
is(value($node, <<'EOS'), "UPDATE|t\nTRUNCATE|t\nafter|f", 'the hook of a batch, and of a TRUNCATE, ends with it');
SET client_min_messages = warning;
CALL bbm_run('hooked');
TRUNCATE hooked;
DO $$BEGIN TRUNCATE other, hooked; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END$$;
INSERT INTO seen VALUES ('after', has_access_hook());
SELECT * FROM seen;
EOS

done_testing();
