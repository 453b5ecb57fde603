# The checker of histories (test/history) accepts that of a run, and refuses what a faulty program would leave:
# the same history, falsified in one place.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use BbmHistory;
use BbmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bbm_node('history');
history_begin($node);
value($node, <<'EOS');
CREATE TABLE t (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
INSERT INTO t SELECT generate_series(1, 60);
CREATE SEQUENCE batches;
CREATE FUNCTION bump(lo bigint, hi bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	done bigint;
BEGIN
	UPDATE t SET n = n + 1 WHERE id BETWEEN lo AND hi;
	GET DIAGNOSTICS done = ROW_COUNT;
	IF nextval('public.batches') = 3 THEN
		RAISE 'planned';
	END IF;
	RETURN done;
END $$;
SELECT bbm_create('t', 't', 'bump', batch_size => 10, sub_batch_size => 5, workers => 2);
EOS
value($node, history_subject_sql('t', 't', ranges => 1, counts => 1));
value($node, q(SELECT bbm_start('t')));
finished($node, 't');
value($node, q(SELECT bbm_create('later', 't', 'bump')));

my $file = PostgreSQL::Test::Utils::tempdir . '/history';
history_write($node, $file, $node->logfile);
history_holds($file, 'the history of a run holds');
my @lines = split /\n/, slurp_file($file);
cmp_ok(scalar(grep { /^attempt/ } @lines), '>', 0, 'the server log has attempts');

# falsified(what, why, function that changes a copy of the lines)
sub falsified
{
	my ($what, $why, $change) = @_;
	my @copy = @lines;
	my $before = join "\n", @copy;
	$change->(\@copy);
	isnt(join("\n", @copy), $before, "$what: falsified");
	open my $handle, '>', "$file.false" or die "$file.false: $!";
	print $handle map { "$_\n" } @copy;
	close $handle;
	history_wrong("$file.false", $why, "$what is refused");
	return;
}

sub first_of { my ($lines, $like) = @_; my ($i) = grep { $lines->[$_] =~ $like } 0 .. $#$lines; die "no line is like $like" unless defined $i; return $i }
sub field { my ($line, $name) = @_; return $line =~ /\t$name=([^\t]*)/ ? $1 : undef }

my $finish = qr/^job\t.*op=UPDATE\tnew=2\t.*kind=range/;
falsified('a row that is done twice', qr/done again/, sub { my ($l) = @_; push @$l, $l->[ first_of($l, qr/^row/) ] });
falsified('a row that is done without a record', qr/no job of its migration is recorded with it/,
	sub { my ($l) = @_; my $row = field($l->[ first_of($l, qr/^row/) ], 'xid'); @$l = grep { !/^job\t.*\txid=$row\t/ } @$l });
falsified('a record without its rows', qr/its record says 10 rows, its transactions did 9/, sub { my ($l) = @_; splice @$l, first_of($l, qr/^row/), 1 });
falsified('a row outside of its range', qr/outside of the ranges/, sub { my ($l) = @_; $l->[ first_of($l, $finish) ] =~ s/min=\d+\tmax=\d+/min=1000\tmax=1001/ });
falsified('a job that another process records', qr/claimed by process \d+, done by 1$/m, sub { my ($l) = @_; $l->[ first_of($l, $finish) ] =~ s/pid=\d+/pid=1/ });
falsified('a record with a stale epoch', qr/epoch 0 after/, sub { my ($l) = @_; $l->[ first_of($l, $finish) ] =~ s/epoch=\d+/epoch=0/ });
falsified('a claim after a pause', qr/claimed while the migration's status was 0/,
	sub { my ($l) = @_; my $claim = $l->[ first_of($l, qr/^job\t.*op=INSERT\tnew=4/) ]; push @$l, join "\t", 'status', 'seq=' . (field($claim, 'seq') - 0.5), 'migration=' . field($claim, 'migration'), 'new=0' });
falsified('a finished migration with an open job', qr/finished with job \d+, whose status is [134]/,
	sub { my ($l) = @_; my $last = (sort { $b <=> $a } map { field($_, 'seq') } grep { /$finish/ } @$l)[0]; $l->[ first_of($l, qr/^status\t.*new=2/) ] =~ s/seq=\d+/'seq=' . ($last - 0.5)/e });
falsified('a job that is done again', qr/finished, and then 4/,
	sub { my ($l) = @_; push @$l, $l->[ first_of($l, $finish) ] =~ s/seq=\d+/seq=1000000/r =~ s/new=2/new=4/r =~ s/epoch=(\d+)/'epoch=' . ($1 + 1)/er });
falsified('a row that is not as it was left', qr/n is 2, by its history 1/, sub { my ($l) = @_; $l->[ first_of($l, qr/^end/) ] =~ s/n=1$/n=2/ });
falsified('a row of a transaction that was lost', qr/whose record is lost/,
	sub { my ($l) = @_; my $row = $l->[ first_of($l, qr/^row/) ]; my $xid = field($row, 'xid'); @$l = grep { !/^job\t.*\txid=$xid\t/ } @$l });
done_testing();
