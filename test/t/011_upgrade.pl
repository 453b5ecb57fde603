# pg_upgrade in the middle of a migration: the cluster comes up, what ran waits as in any
# cloned database, and when it is started there it finishes what the old cluster started.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $old = bbm_node('old');
counter_table($old, 't', 500);
define($old, 'm', 't', batch_size => 100, max_value => 200);
define($old, 'n', 't', job => 'gated', batch_size => 100, min_value => 201, workers => 2);
define($old, 'paused', 't');
value($old, q(SELECT bbm_start('m')));
finished($old, 'm');
value($old, q(SELECT bbm_start('n')));
reach_gate($old, 2);
# what is on our tables, internal ones too, whose names have OIDs
my $triggers = q(SELECT tgrelid::regclass, CASE WHEN tgisinternal THEN tgfoid::regproc::text ELSE tgname END, tgenabled
	FROM pg_trigger WHERE tgrelid IN (SELECT objid FROM pg_depend WHERE refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bbm')
	AND deptype = 'e' AND classid = 'pg_class'::regclass) ORDER BY 1, 2);
my $before = value($old, $triggers);
$old->stop('fast');

my $new = bbm_node('new', start => 0);
chdir $new->basedir or die $!;
command_ok(
	[
		'pg_upgrade', '--no-sync',
		'-d', $old->data_dir, '-D', $new->data_dir,
		'-b', $old->config_data('--bindir'), '-B', $new->config_data('--bindir'),
		'-s', $new->host, '-p', $old->port, '-P', $new->port
	],
	'pg_upgrade with the library preloaded and a migration at work');
$new->start;

is(value($new, $triggers), $before, 'the triggers of our tables fire as they did');
is( value($new, q(SELECT string_agg(name || ' ' || status, ', ') FROM bbm_status())),
	'm finished, n running, paused paused',
	'the migrations are as they were');
like(value($new, q(SELECT waiting_on FROM bbm_status_detail('n'))), qr/start here/, 'what ran waits, and says for what');
workers_gone($new);
is(value($new, 'SELECT count(*) FILTER (WHERE n = 1), count(*) FROM t'), '200|500', 'and nothing was done');
gate($new, 'open');
value($new, q(UPDATE batched_background_migrations SET status = 1 WHERE name = 'n'));
finished($new, 'n', 'started there, it finishes');
once_each($new, 't', 500);
value($new, q(SELECT bbm_start('paused')));
finished($new, 'paused', 'so does one that had not started');
is(value($new, 'SELECT count(*), min(n), max(n) FROM t'), '500|2|2', 'each row once more');
no_workers($new);
log_clean($new);
log_clean($old);
done_testing();
