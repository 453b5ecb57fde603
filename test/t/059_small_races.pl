# Races as in 054 that comments call harmless: of locks that are lost, or whose holder ends; of cancels that come as their
# target ends; of tables, ids and rows that others add or lock just then.  doc/proof.md has the list.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmPoints;
use BbmRaces;
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

# one worker: the second process is a session, which a test begins when it wants
my $node = points_node('small_races', conf => POINTS_CONF . "bbm.max_workers = 1\nautovacuum = off\n");

# base/txn.c, name_blockers: the session that had the lock ends between the error and its detail.
{
	my $id = subject($node, 'blocked');
	my $holder = $node->background_psql('postgres');
	my $pid = $holder->query_safe('SELECT pg_backend_pid()');
	$holder->query_safe('BEGIN; SELECT FROM blocked WHERE id = 3 FOR UPDATE');
	arm($node, 'blockers_known', migration => $id);
	start_migration($node, 'blocked');
	stands($node, 'blockers_known');
	$holder->quit;
	$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
	arm($node, 'requeue-committed', migration => $id);
	release($node, 'blockers_known');
	stands($node, 'requeue-committed');
	is(value($node, "SELECT error_sqlstate || ': ' || error_detail FROM @{[jobs_of('blocked')]} j WHERE error_sqlstate IS NOT NULL"),
		"55P03: a lock on a row of public.blocked: process $pid", 'a session that ends before it is named is named without its state');
	release($node);
	finished($node, 'blocked');
	once_each($node, 'blocked', 20);
}

# base/locks.c, bbm_permit_keep: a job has released the permit of its process, and another process takes it.
{
	value($node, <<'EOS');
CREATE FUNCTION lets_permit_go(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_unlock_all();
	UPDATE public.permit_lost SET n = n + 1 WHERE id BETWEEN lo AND hi;
END $$;
EOS
	my $id = subject($node, 'permit_lost', job => 'lets_permit_go');
	claims_along($node, $id);
	arm($node, 'batch-done', migration => $id);
	start_migration($node, 'permit_lost');
	stands($node, 'batch-done');
	arm($node, 'batch-statement', migration => $id);
	my $second = second($node, 'permit_lost');
	stands($node, 'batch-statement');
	release($node, 'batch-done');
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM @{[jobs_of('permit_lost')]} j WHERE status = 2"),
		'a process whose job has released its permit, which another one has by now, ends that job');
	is(value($node, "SELECT count(*) FROM @{[jobs_of('permit_lost')]} j WHERE status = 4"), 1, '... and claims no other along with it');
	release($node);
	finish_background($second);
	finished($node, 'permit_lost');
	once_each($node, 'permit_lost', 20);
}

# base/lock_watch.c, bbm_lock_watch_end: a user's cancel comes when the batch, which its own process has stopped too late, is done.
{
	value($node, <<'EOS');
CREATE FUNCTION ends_late(lo bigint, hi bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE public.stopped_late SET n = n + 1 WHERE id BETWEEN lo AND hi;
	BEGIN
		PERFORM pg_sleep(1000000);
	EXCEPTION WHEN query_canceled THEN
		NULL;
	END;
END $$;
EOS
	my $id = subject($node, 'stopped_late', job => 'ends_late', settings => q('{bbm.max_batch_time=100ms}'));
	arm($node, 'batch-ran', migration => $id);
	start_migration($node, 'stopped_late');
	stands($node, 'batch-ran');
	my $pause = background($node, 'postgres', q(SET application_name = 'pause'), q(SELECT bbm_pause('stopped_late', cancel => true, wait => true)));
	$node->poll_query_until('postgres',
		q(SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pause' AND wait_event_type = 'Extension')));
	release($node);
	my ($out, $err) = finish_background($pause);
	is("$out$err", 1, 'a cancel of a batch that is done: who waits for it sees its end');
	is(value($node, q(SELECT count(*) FILTER (WHERE n = 1), count(*) FILTER (WHERE n > 1) FROM stopped_late)), '5|0', '... and the batch is not undone');
	is(value($node, "SELECT string_agg(status || ' ' || failures, ', ') FROM @{[jobs_of('stopped_late')]} j"), '2 0', '... which is recorded');
	value($node, q(SELECT bbm_drop('stopped_late')));
}

# throttle/load.c, no_more_timeout: a cancel of the session comes when its condition has ended, after its own time limit.  It is
# lost with that; the next one is not.
{
	value($node, <<'EOS');
CREATE FUNCTION answers_late() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(1000000);
	RETURN false;
EXCEPTION WHEN query_canceled THEN
	RETURN true;
END $$;
EOS
	my $id = subject($node, 'asked_late', settings => q('{bbm.condition=SELECT answers_late()}'));
	arm($node, 'condition_ended', migration => $id);
	my $second = second($node, 'asked_late');
	stands($node, 'condition_ended');
	value($node, q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'second'));
	release($node);
	ok($node->poll_query_until('postgres', q(SELECT waiting_on LIKE 'condition: cannot be read: it takes more than%' FROM bbm_status_detail('asked_late'))),
		'a cancel that comes with the end of a condition that takes too long: it has taken too long');
	# a cancel may come with that again
	ok($node->poll_query_until('postgres', q(SELECT there = 0 FROM (SELECT count(pg_cancel_backend(pid)),
		(SELECT count(*) FROM pg_stat_activity WHERE application_name = 'second')
		FROM pg_stat_activity WHERE application_name = 'second' AND wait_event = 'PgSleep') AS c (cancelled, there))),
		'... and another cancel ends the session');
	like((finish_background($second))[1], qr/ERROR:  canceling statement due to user request/, '... which says so');
	is(value($node, 'SELECT max(n) FROM asked_late'), 0, '... with nothing done');
	value($node, q(SELECT bbm_drop('asked_late')));
}

# target/hierarchy.c, bbm_partitions_lock, and target/null_keys.c: after all child tables were locked for a check, another one
# comes, with a row that the check is about, and (1) goes before it is read.
for my $goes (0, 1)
{
	my $name = $goes ? 'child_goes' : 'child_comes';
	my $id = value($node, <<"EOS");
CREATE TABLE $name (id bigint, n integer NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX ON $name (id);
CREATE TABLE ${name}_0 () INHERITS ($name);
CREATE UNIQUE INDEX ON ${name}_0 (id);
INSERT INTO $name SELECT generate_series(1, 20);
SELECT bbm_create('$name', '$name', 'UPDATE $name SET n = n + 1 WHERE id BETWEEN \$1 AND \$2', column_name => 'id', batch_size => 5);
EOS
	arm($node, 'end-begin', migration => $id);
	start_migration($node, $name);
	stands($node, 'end-begin');
	arm($node, 'partitions_locked', migration => $id);
	release($node, 'end-begin');
	stands($node, 'partitions_locked');
	value($node, "SET lock_timeout = '10s'; CREATE TABLE ${name}_1 () INHERITS ($name); CREATE UNIQUE INDEX ON ${name}_1 (id); INSERT INTO ${name}_1 VALUES (NULL)");
	arm($node, 'null_keys_listed', migration => $id) if $goes;
	release($node, 'partitions_locked');
	if ($goes)
	{
		stands($node, 'null_keys_listed');
		value($node, "SET lock_timeout = '10s'; DROP TABLE ${name}_1");
		release($node);
		finished($node, $name, 'a child table that comes and goes while rows without a key are counted harms nothing');
	}
	else
	{
		ok(status_is($node, $name, 'failed'), 'a child table that comes after all were locked is counted, too');
		is(value($node, "SELECT error_message FROM batched_background_migrations WHERE name = '$name'"), '1 row has a null key and is in no range', '... with its row');
	}
	once_each($node, "(SELECT n FROM $name WHERE id IS NOT NULL) ranges", 20);
	value($node, "SELECT bbm_drop('$name')");
}

# sql/columns.c, bbm_new_id: another session defines a migration while one has skipped an id that is taken.
{
	my $last = value($node, q(SELECT bbm_create('counted', 'blocked', 'UPDATE blocked SET n = n WHERE id BETWEEN $1 AND $2')));
	# as a restore brings it along
	value($node, 'INSERT INTO batched_background_migrations (id, name, max_value, batch_size, job_signature_name, table_name, column_name, origin) '
		  . "VALUES ($last + 1, 'restored', 20, 10, 'UPDATE blocked SET n = n WHERE id BETWEEN \$1 AND \$2', 'public.blocked', 'id', 'elsewhere')");
	arm($node, 'id-checked');
	my $define = sub { return background($node, 'postgres', "SELECT bbm_create('$_[0]', 'blocked', 'UPDATE blocked SET n = n WHERE id BETWEEN \$1 AND \$2')") };
	my $first = $define->('defined first');
	stands($node, 'id-checked');
	my ($out, $err) = finish_background($define->('defined meanwhile'));
	is("$out$err", $last + 3, 'an id that is given while another session has found one');
	release($node);
	($out, $err) = finish_background($first);
	is("$out$err", $last + 2, '... is not that one, nor the one that it has skipped');
	value($node, "SELECT bbm_drop('$_')") for 'counted', 'restored', 'defined first', 'defined meanwhile';
}

# catalog/migrations.c, bbm_migration_recount: somebody has the row locked when the number of keys is to be written.
{
	my $id = subject($node, 'row_taken', rows => 600, batch_size => 1, max_value => 10);
	arm($node, 'batch-done', migration => $id);
	start_migration($node, 'row_taken');
	stands($node, 'batch-done');
	value($node, q(UPDATE batched_background_migrations SET max_value = 600, batch_size = 100 WHERE name = 'row_taken'));
	arm($node, 'recount-sampled', migration => $id);
	release($node, 'batch-done');
	stands($node, 'recount-sampled');
	my $holder = $node->background_psql('postgres');
	$holder->query_safe(q(BEGIN; SELECT FROM batched_background_migrations WHERE name = 'row_taken' FOR NO KEY UPDATE));
	arm($node, 'batch-begin', migration => $id);
	release($node, 'recount-sampled');
	# it waits, or is about to do the next batch
	my $then = '';
	$then = value($node, q(SELECT CASE WHEN EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event_type = 'Lock') THEN 'waits'
		WHEN cardinality(point.standing('batch-begin')) = 1 THEN 'goes on' ELSE '' END)) while $then eq '';
	is($then, 'goes on', 'a row that somebody has locked is not waited for, to write how much there is to do');
	is(value($node, q(SELECT total_tuple_count FROM batched_background_migrations WHERE name = 'row_taken')), '', '... and is left');
	$holder->query_safe('COMMIT');
	$holder->quit;
	release($node);
	finished($node, 'row_taken');
	once_each($node, 'row_taken', 600);
}

# engine/outcome.c, fail_migration: a user corrects the definition after the row was locked, and before the failure commits.
{
	value($node, q(CREATE TABLE fails_first (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0)));
	value($node, q(SELECT bbm_create('fails_first', 'fails_first', 'UPDATE fails_first SET n = n + 1 WHERE id BETWEEN $1 AND $2')));
	value($node, 'ALTER TABLE fails_first RENAME COLUMN id TO key');
	arm($node, 'fail-locked');
	start_migration($node, 'fails_first');
	stands($node, 'fail-locked');
	my $alter = background($node, 'postgres', q(SET application_name = 'alter'), q(SELECT bbm_alter('fails_first', batch_size => 7)));
	waits_for_lock($node, 'alter', 'a change of a migration that is about to fail waits');
	release($node);
	my (undef, $err) = finish_background($alter);
	is(value($node, q(SELECT status, batch_size FROM batched_background_migrations WHERE name = 'fails_first')), '3|7', '... and comes after the failure') or diag($err);
	value($node, q(SELECT bbm_drop('fails_first')));
}

# engine/outside.c, stays_here: a function is replaced while the batch judges it.  The look-up of its language shows that, and the
# handler of the language then runs what the function is by now.
{
	value($node, <<'EOS');
CREATE TRUSTED LANGUAGE inside HANDLER plpgsql_call_handler;
CREATE LANGUAGE outside HANDLER plpgsql_call_handler;
CREATE FUNCTION judged(n integer) RETURNS integer LANGUAGE inside AS $$BEGIN RETURN n + 2; END$$;
EOS
	my $id = subject($node, 'judged', batch_size => 100, job => 'UPDATE judged SET n = judged(n) WHERE id BETWEEN $1 AND $2');
	value($node, $_) for 'ALTER SYSTEM SET log_min_messages = debug1', 'SELECT pg_reload_conf()';
	my $logged = log_size($node);
	arm($node, 'batch-begin', migration => $id);
	start_migration($node, 'judged');
	stands($node, 'batch-begin');
	# it has looked up the language before
	value($node, 'ALTER LANGUAGE inside RENAME TO inside_again');
	arm($node, 'function_found', migration => $id);
	release($node, 'batch-begin');
	stands($node, 'function_found');
	value($node, 'CREATE OR REPLACE FUNCTION judged(n integer) RETURNS integer LANGUAGE outside AS $$BEGIN RETURN n + 1; END$$');
	release($node);
	finished($node, 'judged');
	once_each($node, 'judged', 20, 'a function that is replaced while it is judged is run as it is now');
	like(log_since($node, $logged), qr/the batch may have reached outside of this server by function public\.judged\(integer\)/,
		'... and the batch counts as one that has reached outside');
	value($node, $_) for 'ALTER SYSTEM RESET log_min_messages', 'SELECT pg_reload_conf()';
}

# throttle/throttle.c, recall_rates: the migration's entry is lost while a batch runs, and the batch is added to the new one after
# another process has read the rates from the jobs.  (1) By then the batch's own process has read them, too.
{
	value($node, q(SET log_min_messages = error; SELECT count(bbm_create('crowd ' || i, 'blocked', 'UPDATE blocked SET n = n WHERE id BETWEEN $1 AND $2')) FROM generate_series(1, 1024) i));
	for my $recalls (0, 1)
	{
		my $name = $recalls ? 'rate_recalled' : 'rate_missed';
		my $id = subject($node, $name, rows => 3000, batch_size => 1000, workers => 2, settings => q('{bbm.max_row_rate=1}'));
		arm($node, 'batch-done', migration => $id);
		start_migration($node, $name);
		stands($node, 'batch-done');
		# as many as there are entries
		value($node, q(SELECT count(*) FROM generate_series(1, 1024) i, bbm_throttle('crowd ' || i)));
		arm($node, 'rates_read', migration => $id);
		arm($node, 'rates_charged', migration => $id) unless $recalls;
		my $second = second($node, $name);
		stands($node, 'rates_read');
		release($node, 'batch-done');
		$recalls ? $node->poll_query_until('postgres', "SELECT waiting_on LIKE 'row rate: limit 1 rows a second%' FROM bbm_status_detail('$name')") :
			stands($node, 'rates_charged');
		arm($node, 'claim-begin', migration => $id);
		release($node, 'rates_read');
		my $then = '';
		$then = value($node, q(SELECT CASE WHEN cardinality(point.standing('claim-begin')) = 1 THEN 'goes on'
			WHEN EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'second' AND wait_event_type = 'Extension') THEN 'waits' ELSE '' END)) while $then eq '';
		is($then, $recalls ? 'waits' : 'goes on', $recalls ? 'what another process has recalled of a rate is kept' : 'a rate that is recalled misses the batch that has just been added to it');
		release($node, 'claim-begin');
		ok($node->poll_query_until('postgres', "SELECT throttles FROM bbm_throttle('$name') WHERE signal = 'row rate'"), '... and the next one is charged') unless $recalls;
		is(value($node, "SELECT sum(n) FROM $name"), $recalls ? 1000 : 2000, $recalls ? '... so there is one batch' : '... after one more batch');
		release($node);
		value($node, "SELECT bbm_alter('$name', settings => '{}')");
		finish_background($second);
		finished($node, $name);
		once_each($node, $name, 3000);
	}
	value($node, q(SET log_min_messages = error; SELECT count(bbm_drop('crowd ' || i)) FROM generate_series(1, 1024) i));
}

# A partitioned table, and beside it a level of partitions, NAME_2, that is to be attached; ten rows in each.
sub with_level
{
	my ($table) = @_;
	value($node, <<"EOS");
CREATE TABLE $table (id bigint NOT NULL, region integer NOT NULL, n integer NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
CREATE INDEX ON $table (id);
CREATE TABLE ${table}_1 PARTITION OF $table FOR VALUES FROM (0) TO (100);
CREATE TABLE ${table}_2 (LIKE $table INCLUDING DEFAULTS) PARTITION BY LIST (region);
CREATE TABLE ${table}_2_1 PARTITION OF ${table}_2 FOR VALUES IN (1);
CREATE TABLE ${table}_2_2 PARTITION OF ${table}_2 FOR VALUES IN (2);
INSERT INTO $table SELECT i, 1 FROM generate_series(1, 10) i;
INSERT INTO ${table}_2 SELECT i, 1 FROM generate_series(101, 110) i;
EOS
	return;
}

# target/statement.c, bbm_statement_partition_column: a level of partitions whose key the statement changes is attached after the check.
{
	with_level('levels');
	arm($node, 'levels_checked');
	my $defines = background($node, 'postgres', q(SELECT bbm_update('levels', 'levels', 'region = 2, n = n + 1', column_name => 'id', min_value => 1, max_value => 200)));
	stands($node, 'levels_checked');
	value($node, q(SET lock_timeout = '10s'; ALTER TABLE levels ATTACH PARTITION levels_2 FOR VALUES FROM (100) TO (200)));
	release($node);
	my ($out, $err) = finish_background($defines);
	like($out, qr/^\d+$/, 'a level of partitions that comes after the check of a statement is not seen') or diag($err);
	start_migration($node, 'levels');
	ok(status_is($node, 'levels', 'failed'), '... but when the migration begins');
	is(value($node, q(SELECT error_message FROM batched_background_migrations WHERE name = 'levels')), '"set" changes column "region" of the partition key', '... which says why');
	is(value($node, 'SELECT sum(n) FROM levels'), 0, '... with nothing done');
	value($node, q(SELECT bbm_drop('levels')));
}

# target/order.c, all_partition_columns: a level of partitions between which rows move is attached after the order was decided, and
# before the first claim.
{
	with_level('ordered');
	my $id = value($node, q(SELECT bbm_update('ordered', 'ordered', 'n = n + 1', column_name => 'id', min_value => 1, max_value => 200, batch_size => 5)));
	arm($node, 'levels_read', migration => $id);
	start_migration($node, 'ordered');
	stands($node, 'levels_read');
	value($node, q(SET lock_timeout = '10s'; ALTER TABLE ordered ATTACH PARTITION ordered_2 FOR VALUES FROM (100) TO (200)));
	release($node, 'levels_read');
	ok(status_is($node, 'ordered', 'failed'), 'a level of partitions that comes after the order was decided is found by the first claim');
	is(value($node, q(SELECT error_message FROM batched_background_migrations WHERE name = 'ordered')),
		'the partitions of "public.ordered" cannot be processed one by one', '... which says why');
	is(value($node, 'SELECT sum(n) FROM ordered'), 0, '... with nothing done');
	value($node, q(SELECT bbm_alter('ordered', restart => true)));
	arm($node, 'batch-begin', migration => $id, passes => 3);
	start_migration($node, 'ordered');
	stands($node, 'batch-begin');
	value($node, 'UPDATE ordered SET region = 2 WHERE id IN (102, 109)');
	release($node);
	finished($node, 'ordered');
	once_each($node, 'ordered', 20, '... and after a restart a row may move');
	is(value($node, q(SELECT partition_order FROM batched_background_migrations WHERE name = 'ordered')), 'as_one_table', '... as the partitions are processed as one table');
}

# target/cascade.c, bbm_statement_cascades: a foreign key is added after those to the table were read.
{
	value($node, <<'EOS');
CREATE TABLE described (id bigint PRIMARY KEY);
CREATE TABLE described_1 (id bigint PRIMARY KEY REFERENCES described ON DELETE CASCADE);
CREATE TABLE described_2 (id bigint PRIMARY KEY);
EOS
	arm($node, 'cascades_read', passes => 1);
	my $defines = background($node, 'postgres', q(SELECT bbm_delete('described', 'described', 'id < 0')));
	stands($node, 'cascades_read');
	value($node, q(SET lock_timeout = '10s'; ALTER TABLE described_2 ADD FOREIGN KEY (id) REFERENCES described_1 ON DELETE CASCADE));
	release($node);
	my (undef, $err) = finish_background($defines);
	like($err, qr/NOTICE:.*table public\.described_1: ON DELETE CASCADE/s, 'a foreign key that comes when those to its table were read: the others are described');
	unlike($err, qr/ERROR|described_2/, '... and that one is not');
	(undef, $err) = finish_background(background($node, 'postgres', q(SELECT bbm_delete('described again', 'described', 'id < 0'))));
	like($err, qr/described_1: ON DELETE CASCADE.*described_2: ON DELETE CASCADE/s, '... but the next time');
	value($node, "SELECT bbm_drop('$_')") for 'described', 'described again';
}

# ... bbm_cascaded_columns: a foreign key by which the statement changes the batching key is added after the check.
{
	value($node, <<'EOS');
CREATE TABLE ring_3 (id bigint PRIMARY KEY);
CREATE TABLE ring (id bigint PRIMARY KEY REFERENCES ring_3 ON UPDATE CASCADE, other bigint UNIQUE);
CREATE TABLE ring_2 (id bigint PRIMARY KEY REFERENCES ring (other) ON UPDATE CASCADE);
INSERT INTO ring_3 SELECT generate_series(1, 5);
INSERT INTO ring SELECT i, i FROM generate_series(1, 5) i;
INSERT INTO ring_2 SELECT generate_series(1, 5);
EOS
	arm($node, 'changes_followed');
	my $defines = background($node, 'postgres', q(SELECT bbm_update('ring', 'ring', 'other = other + 100')));
	stands($node, 'changes_followed');
	value($node, q(SET lock_timeout = '10s'; ALTER TABLE ring_3 ADD FOREIGN KEY (id) REFERENCES ring_2 ON UPDATE CASCADE));
	release($node);
	my ($out, $err) = finish_background($defines);
	like($out, qr/^\d+$/, 'a foreign key that comes after the check of a statement is not seen') or diag($err);
	start_migration($node, 'ring');
	ok(status_is($node, 'ring', 'failed'), '... but when the migration begins');
	is(value($node, q(SELECT error_message FROM batched_background_migrations WHERE name = 'ring')), '"set" changes column "id" of the batching key', '... which says why');
	is(value($node, 'SELECT max(id), max(other) FROM ring'), '5|5', '... with nothing done');
	value($node, q(SELECT bbm_drop('ring')));
}

# throttle/throttle.c: what throttles comes between the check and the batch: the next check sees it.
{
	my $id = subject($node, 'snapshots', settings => q('{bbm.max_horizon_age=1ms}'));
	arm($node, 'claim-begin', migration => $id);
	start_migration($node, 'snapshots');
	stands($node, 'claim-begin');
	my $holder = $node->background_psql('postgres');
	my $pid = $holder->query_safe('BEGIN; SELECT pg_backend_pid() FROM txid_current()');
	release($node, 'claim-begin');
	ok($node->poll_query_until('postgres', "SELECT waiting_on LIKE 'old snapshot: process $pid has kept dead tuples%' FROM bbm_status_detail('snapshots')"),
		'what comes between a check and its batch throttles the next one');
	is(value($node, 'SELECT sum(n) FROM snapshots'), 5, '... which is one batch');
	$holder->quit;
	finished($node, 'snapshots');
	once_each($node, 'snapshots', 20);
}

# throttle/table.c, began: the session that keeps dead tuples ends while the check reads when each began.
{
	my $id = subject($node, 'keeper_ends', settings => q('{bbm.max_horizon_age=10min}'));
	my $holder = $node->background_psql('postgres');
	my $pid = $holder->query_safe('BEGIN; SELECT pg_backend_pid() FROM txid_current()');
	arm($node, 'sessions_listed', migration => $id);
	start_migration($node, 'keeper_ends');
	stands($node, 'sessions_listed');
	$holder->quit;
	$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
	release($node);
	finished($node, 'keeper_ends', 'a session that ends while it is read when it began harms nothing');
	once_each($node, 'keeper_ends', 20);
}

# throttle/table.c, ours_alone_keep: the session for whose sake dead tuples were to be passed over ends before that is decided.
{
	my $id = subject($node, 'kept', rows => 300, batch_size => 100, settings => q('{bbm.max_dead_tuples=299}'));
	my $patient = background($node, 'postgres', q(SET application_name = 'patient'), q(SELECT bbm_wait('kept', '10 minutes')));
	$node->poll_query_until('postgres', q(SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'patient' AND wait_event_type = 'Extension')));
	value($node, 'UPDATE kept SET n = 0');
	value($node, 'VACUUM kept');
	$node->poll_query_until('postgres', q(SELECT n_dead_tup = 300 AND last_vacuum IS NOT NULL FROM pg_stat_user_tables WHERE relname = 'kept'));
	arm($node, 'keeper_found', migration => $id);
	start_migration($node, 'kept');
	stands($node, 'keeper_found');
	value($node, q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'patient'));
	finish_background($patient);
	arm($node, 'claim-begin', migration => $id);
	release($node, 'keeper_found');
	my $then = '';
	$then = value($node, q(SELECT CASE WHEN cardinality(point.standing('claim-begin')) = 1 THEN 'goes on' ELSE waiting_on END FROM bbm_status_detail('kept'))) while $then eq '';
	is($then, 'dead tuples: the table has 300 dead tuples (limit 299)', 'dead tuples that a session has kept which has just ended are waited for');
	release($node);
	value($node, 'VACUUM kept');
	finished($node, 'kept', '... until they are vacuumed');
	once_each($node, 'kept', 300);
}

# throttle/table.c, vacuumed_by: an autovacuum ends between the list of those that hold its lock and the look at each.
{
	my $id = subject($node, 'vacuumed', rows => 20000, batch_size => 5000, settings => q('{bbm.wait_for_autovacuum=on}'));
	value($node, 'ALTER TABLE vacuumed SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1,
		autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0)');
	value($node, 'UPDATE vacuumed SET n = 0');
	value($node, $_) for 'ALTER SYSTEM SET autovacuum_naptime = 1', 'ALTER SYSTEM SET autovacuum = on', 'SELECT pg_reload_conf()';
	$node->poll_query_until('postgres', q(SELECT EXISTS (SELECT FROM pg_stat_progress_vacuum WHERE relid = 'vacuumed'::regclass)));
	arm($node, 'vacuums_listed', migration => $id);
	start_migration($node, 'vacuumed');
	stands($node, 'vacuums_listed');
	value($node, $_) for 'ALTER SYSTEM RESET autovacuum_naptime', 'ALTER SYSTEM RESET autovacuum', 'SELECT pg_reload_conf()';
	$node->poll_query_until('postgres', q(SELECT count(pg_terminate_backend(pid)) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'autovacuum %'));
	release($node);
	finished($node, 'vacuumed', 'an autovacuum that ends while it is found harms nothing');
	once_each($node, 'vacuumed', 20000);
}

# target/sample.c: between the two passes over the tables to sample, one is dropped, one filled and one truncated.
{
	my $id = value($node, <<'EOS');
CREATE TABLE sampled (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
CREATE TABLE sampled_1 (PRIMARY KEY (id)) INHERITS (sampled);
CREATE TABLE sampled_2 (PRIMARY KEY (id)) INHERITS (sampled);
CREATE TABLE sampled_3 (PRIMARY KEY (id)) INHERITS (sampled);
INSERT INTO sampled SELECT generate_series(1, 20);
INSERT INTO sampled_1 SELECT generate_series(101, 200);
INSERT INTO sampled_3 SELECT generate_series(301, 400);
SELECT bbm_update('sampled', 'sampled', 'n = n + 1', min_value => 1, max_value => 1000, rows_stay => true);
EOS
	arm($node, 'pages_counted', migration => $id);
	start_migration($node, 'sampled');
	stands($node, 'pages_counted');
	value($node, q(SET lock_timeout = '10s'; DROP TABLE sampled_1; INSERT INTO sampled_2 SELECT generate_series(201, 240); TRUNCATE ONLY sampled_3));
	release($node);
	finished($node, 'sampled', 'tables that change while they are sampled harm nothing');
	is(value($node, q(SELECT total_tuple_count FROM batched_background_migrations WHERE name = 'sampled')), 60, '... and are counted as they are then');
	once_each($node, 'sampled', 60);
}

# catalog/migrations.c, bbm_migrations_refresh_owners: somebody has a migration's row locked when the new name of its owner is to be written.
{
	value($node, 'CREATE ROLE named_before LOGIN');
	for my $name ('renamed', 'renamed_and_locked')
	{
		subject($node, $name);
		value($node, "ALTER TABLE $name OWNER TO named_before; UPDATE batched_background_migrations SET owner = 'named_before' WHERE name = '$name'");
	}
	my $holder = $node->background_psql('postgres');
	$holder->query_safe(q(BEGIN; SELECT FROM batched_background_migrations WHERE name = 'renamed_and_locked' FOR NO KEY UPDATE));
	value($node, 'ALTER ROLE named_before RENAME TO named_after');
	value($node, $_) for 'ALTER SYSTEM SET bbm.naptime = 1', 'SELECT pg_reload_conf()';
	my $owner = sub { return "SELECT owner FROM batched_background_migrations WHERE name = '$_[0]'" };
	ok($node->poll_query_until('postgres', $owner->('renamed'), 'named_after'), 'the new name of an owner is written');
	is(value($node, $owner->('renamed_and_locked')), 'named_before', '... but not to a row that somebody has locked, which is not waited for');
	$holder->query_safe('COMMIT');
	$holder->quit;
	ok($node->poll_query_until('postgres', $owner->('renamed_and_locked'), 'named_after'), '... until that is over');
	value($node, $_) for 'ALTER SYSTEM RESET bbm.naptime', 'SELECT pg_reload_conf()';
	value($node, "SELECT bbm_drop('$_')") for 'renamed', 'renamed_and_locked';
}

# strategy/null.c, predicate: the application fills a row that a batch has selected, and waits for.
{
	my $id = value($node, <<'EOS');
CREATE TABLE filled (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0, by_whom text);
INSERT INTO filled SELECT generate_series(1, 20);
SELECT bbm_update('filled', 'filled', 'by_whom = ''bbm'', n = n + 1', column_name => 'by_whom', batching_strategy => 'NullKeySetBatchingStrategy',
	batch_size => 5, allow_full_scan => true, settings => '{bbm.lock_timeout=10min}');
EOS
	my $holder = $node->background_psql('postgres');
	$holder->query_safe(q(BEGIN; UPDATE filled SET by_whom = 'application', n = n + 1 WHERE id = 3));
	start_migration($node, 'filled');
	ok($node->poll_query_until('postgres',
		q(SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bbm worker' AND wait_event_type = 'Lock'))), 'a batch waits for a row that the application fills');
	$holder->query_safe('COMMIT');
	$holder->quit;
	finished($node, 'filled');
	once_each($node, 'filled', 20);
	is(value($node, q(SELECT by_whom FROM filled WHERE id = 3)), 'application', '... and leaves that as it is');
}

log_clean($node);
done_testing();
