# What the tests that force a race one by one share: small migrations, a second
# process of the engine, and what is seen of both.

package BbmRaces;

use strict;
use warnings;

use Exporter 'import';
use BbmTest;
use Test::More;

our @EXPORT = qw(jobs_of start_migration subject second waits_for_lock events);

# The jobs of a migration, as a subquery.
sub jobs_of
{
	my ($name) = @_;
	return "(SELECT j.* FROM batched_background_migration_jobs j JOIN batched_background_migrations m ON m.id = j.batched_background_migration_id WHERE m.name = '$name')";
}

sub start_migration
{
	my ($node, $name) = @_;
	value($node, "SELECT bbm_start('$name')");
	return;
}

# A table of so many rows, and a migration that is not started yet; its id.  What is not
# "rows" or "job" is an option of it, as an SQL value.
sub subject
{
	my ($node, $name, %o) = @_;
	my $rows = delete $o{rows} || 20;
	my $job  = delete $o{job} || "UPDATE $name SET n = n + 1 WHERE id BETWEEN \$1 AND \$2";
	$o{batch_size} ||= 5;
	my $options = join '', map { ", $_ => $o{$_}" } sort keys %o;
	return value($node, <<"EOS");
CREATE TABLE $name (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO $name SELECT i FROM generate_series(1, $rows) i;
SELECT bbm_create('$name', '$name', '$job'$options);
EOS
}

# A second process of the engine: a session that is found by its name.
sub second
{
	my ($node, $name) = @_;
	return background($node, 'postgres', q(SET application_name = 'second'), "CALL bbm_run('$name')");
}

# Waits until a statement of a session of this name waits for a lock.
sub waits_for_lock
{
	my ($node, $session, $what) = @_;
	return ok($node->poll_query_until('postgres',
		"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = '$session' AND wait_event_type = 'Lock')"), $what);
}

# How many events of this name the migration has.
sub events
{
	my ($node, $name, $event) = @_;
	return value($node, "SELECT count(*) FROM bbm_events WHERE name = '$name' AND event = '$event'");
}

1;
