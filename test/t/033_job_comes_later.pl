# A migration that is started before its job is there, as the container registry's are: it waits, says
# for what, and goes on when that comes; after bbm.missing_job_timeout it fails.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmTest;
use Test::More;

my $node = bbm_node('later');

value($node, q(CREATE ROLE app LOGIN; GRANT CREATE ON SCHEMA public TO app; GRANT SELECT, INSERT, UPDATE ON batched_background_migrations TO app));

my $TAKES = 'AS $$ BEGIN EXECUTE format(\'UPDATE %s SET n = n + 1 WHERE %I BETWEEN $1 AND $2\', table_name, column_name) USING min, max; END $$';
my $ARGS  = '(table_name text, column_name text, min bigint, max bigint, batch_size integer) RETURNS void LANGUAGE plpgsql';

sub table_of_app
{
	my ($name) = @_;
	counter_table($node, $name, 100);
	value($node, qq(ALTER TABLE $name OWNER TO app));
	return;
}

# As the registry's schema migrations write it.
sub insert
{
	my ($name, $job, %o) = @_;
	my %row = (
		name => "'$name'", max_value => 100, batch_size => 30, job_signature_name => "\$j\$$job\$j\$", table_name => "'public.$name'",
		column_name => q('id'), status => 1, %o);
	my @columns = sort keys %row;
	value($node, 'SET ROLE app; INSERT INTO batched_background_migrations (' . join(', ', @columns) . ') VALUES (' . join(', ', @row{@columns}) . ')');
	return;
}

sub waits
{
	my ($name, $for, $what) = @_;
	ok($node->poll_query_until('postgres', qq(SELECT waiting_on = \$w\$$for\$w\$ AND last_error = \$w\$$for\$w\$ FROM bbm_status_detail('$name'))), "$what: it waits, and says for what")
	  or diag(value($node, qq(SELECT status, waiting_on, last_error FROM bbm_status_detail('$name'))));
	is(value($node, qq(SELECT status, failure_error_code IS NULL FROM batched_background_migrations WHERE name = '$name')), '1|t', '... and has not failed');
	return;
}

# Waits for something, that comes.
sub comes
{
	my ($name, $job, $for, $what, @sql) = @_;
	table_of_app($name);
	insert($name, $job);
	waits($name, $for, $what);
	value($node, $_) for @sql;
	finished($node, $name, "$what: when it comes it goes on");
	once_each($node, $name, 100);
	return;
}

my $no_function = sub { qq(42883: not there yet: function "$_[0]" does not exist with the parameters of a job) };

comes('plain', 'fillPlain', $no_function->('fillPlain'), 'a function', qq(CREATE FUNCTION "fillPlain"$ARGS $TAKES; ALTER FUNCTION "fillPlain" OWNER TO app));
like(
	log_since($node),
	qr/migration "plain" cannot go on just now: 42883: not there yet: function "fillPlain" does not exist.*\n.*HINT:  Create the function/,
	'the log has it');
comes('other_args', 'fill_args', $no_function->('fill_args'), 'one with its parameters',
	'CREATE FUNCTION fill_args(min text, max text) RETURNS void LANGUAGE sql AS $$SELECT$$', qq(CREATE FUNCTION fill_args$ARGS $TAKES));
comes('schema', 'later.fill', $no_function->('later.fill'), 'a schema', 'CREATE SCHEMA later; GRANT USAGE ON SCHEMA later TO app', qq(CREATE FUNCTION later.fill$ARGS $TAKES));
value($node, qq(CREATE FUNCTION may_not$ARGS $TAKES; REVOKE EXECUTE ON FUNCTION may_not FROM PUBLIC));
comes('granted', 'may_not', '42501: not there yet: permission denied for function may_not', 'the right to execute it', 'GRANT EXECUTE ON FUNCTION may_not TO app');
comes('statement', 'UPDATE statement SET n = n + (SELECT one FROM ones) WHERE id BETWEEN $1 AND $2', '42P01: not there yet: relation "ones" does not exist',
	'a table that a statement names', 'CREATE TABLE ones AS SELECT 1 AS one; GRANT SELECT ON ones TO app');
comes('a_column', 'UPDATE a_column SET n = n + 1, later = id WHERE id BETWEEN $1 AND $2', '42703: not there yet: column "later" of relation "a_column" does not exist',
	'a column', 'ALTER TABLE a_column ADD later bigint');

# the index of the null strategy
table_of_app('nulls');
value($node, q(ALTER TABLE nulls ADD filled bigint));
insert('nulls', 'UPDATE nulls SET filled = id, n = n + 1 WHERE filled IS NULL', column_name => q('filled'), batching_strategy => q('NullKeySetBatchingStrategy'));
waits('nulls', '0A000: not there yet: no index finds the rows of table "nulls" in which column "filled" is null', 'an index');
value($node, 'CREATE INDEX ON nulls (filled)');
finished($node, 'nulls', 'an index: when it comes it goes on');
once_each($node, 'nulls', 100);

# it is not waited for for ever
table_of_app('ends');
insert('ends', 'fill_ends');
waits('ends', $no_function->('fill_ends'), 'one that does not come');
value($node, q(SELECT bbm_alter('ends', settings => '{bbm.missing_job_timeout=1s}')));
ok(status_is($node, 'ends', 'failed'), 'after a while it fails');
is(
	value($node, q(SELECT failure_error_code, error_sqlstate, error_message FROM batched_background_migrations WHERE name = 'ends')),
	'3|42883|function "fill_ends" does not exist with the parameters of a job',
	'... with code 3');
# started again it has as long again
value($node, q(SELECT bbm_alter('ends', settings => '{}'); SELECT bbm_start('ends')));
waits('ends', $no_function->('fill_ends'), 'started again');

# a restart does not forget since when: it is in the row
value($node, 'ALTER SYSTEM SET bbm.enabled = off');
$node->reload;
ok($node->poll_query_until('postgres', q(SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bbm worker') AND setting = 'off' FROM pg_settings WHERE name = 'bbm.enabled')), 'no worker');
table_of_app('long');
insert('long', 'fill_long', settings => q('{bbm.missing_job_timeout=1s}'));
$node->poll_query_until('postgres', q(SELECT clock_timestamp() > created_at + interval '1.1 s' FROM batched_background_migrations WHERE name = 'long'));
value($node, 'ALTER SYSTEM RESET bbm.enabled');
$node->restart;
ok(status_is($node, 'long', 'failed'), 'its time may be over before a worker checks');
unlike(log_since($node), qr/migration "long" cannot go on just now/, '... and then it is not waited for');
waits('ends', $no_function->('fill_ends'), 'after a restart');

# not at all
table_of_app('at_once');
insert('at_once', 'fill_at_once', settings => q('{bbm.missing_job_timeout=0}'));
ok(status_is($node, 'at_once', 'failed'), 'without a time it fails');
unlike(log_since($node), qr/migration "at_once" cannot go on just now/, '... at once');

# nor for what does not come: a text that is wrong, and the table and key, which are what it is about
value($node, q(CREATE FUNCTION two(a bigint, b numeric) RETURNS void LANGUAGE sql AS 'SELECT'; CREATE FUNCTION two(a numeric, b bigint) RETURNS void LANGUAGE sql AS 'SELECT'));
for (
	[ 'wrong_text',     'UPDATE wrong_text SET',                                    '3|42601' ],
	[ 'ambiguous',      'two',                                                      '3|42725' ],
	[ 'no_bounds',      'UPDATE no_bounds SET n = 1',                               '3|42P02' ],
	[ 'wrong_key',      'UPDATE wrong_key SET n = 1 WHERE id BETWEEN $1 AND $2',    '2|42703', column_name => q('nope') ],
	[ 'wrong_strategy', 'UPDATE wrong_strategy SET n = 1 WHERE id BETWEEN $1 AND $2', '5|22023', batching_strategy => q('Nope') ],
	[ 'no_table',       'UPDATE no_table SET n = 1 WHERE id BETWEEN $1 AND $2',     '1|42P01' ])
{
	my ($name, $job, $outcome, %o) = @$_;
	table_of_app($name) if $name ne 'no_table';
	insert($name, $job, %o);
	ok(status_is($node, $name, 'failed'), "$name fails");
	is(value($node, qq(SELECT failure_error_code, error_sqlstate FROM batched_background_migrations WHERE name = '$name')), $outcome, '... with its code');
	unlike(log_since($node), qr/migration "$name" cannot go on just now/, '... at once');
}

# a pause ends it, and so does a session, which gets the error at once
value($node, q(SELECT bbm_pause('ends')));
is(value($node, q(SELECT status, waiting_on IS NULL FROM bbm_status_detail('ends'))), 'paused|t', 'a pause ends the wait');
value($node, 'GRANT EXECUTE ON PROCEDURE bbm_run TO app');
my (undef, undef, $err) = $node->psql('postgres', q(CALL bbm_run('ends')), connstr => $node->connstr('postgres') . ' user=app');
like($err, qr/migration "ends" failed: function "fill_ends" does not exist/, 'a session that runs it gets the error at once');
is(value($node, q(SELECT status FROM bbm_status('ends'))), 'failed', '... and it has failed');
log_clean($node);

done_testing();
