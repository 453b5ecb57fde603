# The manual: each block of SQL in README.md and doc/ is run, and what the page shows of its
# output is compared with what the server says; and each link leads somewhere.  test/perl/BbmPages.pm says how a page marks a
# block that needs a set-up or cannot be run.
#
#   BBM_TEST_PAGES=doc/faq.md,README.md   only these
#   BBM_TEST_PAGES_PRINT=1                shows what the server says
#   BBM_TEST_PAGES_FILL=/tmp/pages        writes the pages there, with the outputs that they should show

use strict;
use warnings;

use File::Basename qw(basename dirname);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use BbmPages;
use BbmTest;

my $top = dirname(__FILE__) . '/../..';

# the checker itself: that it sees what is wrong
sub complaints
{
	my ($page, $printed) = @_;
	my ($parts, $wrong) = page_parts($page);
	return (@$wrong, page_judge($parts, $printed));
}
my $page = "```sql\nSELECT 1;\n```\n\n```output\n ?column? \n----------\n        1\n(1 row)\n```\n";
is(complaints($page, "@@@@ part 0\n ?column? \n----------\n        1\n(1 row)\n\n@@@@ end\n"), 0, 'an output that agrees');
like(join('', complaints($page, "@@@@ part 0\n ?column? \n----------\n        2\n(1 row)\n\n@@@@ end\n")), qr/line 1: the page shows/, 'one that does not');
like(join('', complaints($page, "@@@@ end\n")), qr/was not run/, 'one that was not run');
is(complaints("<!-- test: vary -->\n$page", "@@@@ part 0\n ?column? \n----------\n    27\n(1 row)\n\n@@@@ end\n"), 0, 'a number that varies');
like(join('', complaints("```sql\nSELECT;\n```\n", "@@@@ part 0\npsql:x:1: ERROR:  no\n@@@@ end\n")), qr/an error that the page does not show/, 'an error');
like(join('', complaints("<!-- test: error -->\n```sql\nSELECT;\n```\n", "@@@@ part 0\n@@@@ end\n")), qr/no error, though/, 'an error that is none');
like(join('', complaints("<!-- test: skip -->\n```sql\nSELECT;\n```\n", "@@@@ part 0\n@@@@ end\n")), qr/without a reason/, 'a reason that is none');
my ($shown) = page_parts($page);
like(page_fill($page, $shown, "@@@@ part 0\n ?column? \n----------\n        3\n(1 row)\n\n@@@@ end\n"), qr/^        3\n\(1 row\)\n```$/m, 'an output is filled in');
like(join('', complaints("<!-- test: jump -->\n", "@@@@ end\n")), qr/unknown mark/, 'a mark that is none');
like(join('', complaints("```output\n```\n", "@@@@ end\n")), qr/output of no block/, 'an output of nothing');
my ($ruby) = page_parts("```ruby\nexecute <<~SQL\n  SELECT 1\nSQL\n```\n");
like(page_script($ruby), qr/BEGIN;\n  SELECT 1;\nCOMMIT;/, 'the SQL of another language, in a transaction');

# the links of a page that lead to no file, or to no heading of a page
sub broken_links
{
	my ($page) = @_;
	my @broken;
	for my $link (page_links(slurp_file("$top/$page")))
	{
		my ($path, $anchor) = @$link;
		my $file = $path eq '' ? "$top/$page" : dirname("$top/$page") . "/$path";
		push @broken, "$path#$anchor"
		  if !-e $file || ($anchor ne '' && $file =~ /\.md$/ && !grep { $_ eq $anchor } page_anchors(slurp_file($file)));
	}
	return @broken;
}
is_deeply([ page_anchors("# A `b` c: [d](e)\n```\n# no\n```\n") ], ['a-b-c-d'], 'the anchor of a heading');
is_deeply([ page_links("[a](b.md#c) [d](#e) [f](https://g)") ], [ [ 'b.md', 'c' ], [ '', 'e' ] ], 'links');

# The texts that a reader sees, in the first column of a page's tables: each piece of two words or more is in the sources, or in an
# expected output, where it is the server's.
my $texts = join(' ', map { slurp_file($_) } glob("$top/src/*/*.[ch]"), "$top/sql/bbm--1.0.sql", glob("$top/expected/*.out"));
$texts =~ s/"\s*\n\s*"//g;
$texts =~ s/\\"/"/g;
$texts =~ s/\s+/ /g;
sub unknown_texts
{
	my ($text) = @_;
	my @unknown;
	for my $line (grep { /^\|/ } split /\n/, $text)
	{
		my ($first) = $line =~ /^\|([^|]*)/;
		for my $quoted ($first =~ /`([^`]+)`/g)
		{
			next if $quoted =~ /^(SELECT|UPDATE|CALL) |^bbm[_.]\w+ *=|=>/;
			push @unknown, $quoted if grep { / / && index($texts, $_) < 0 } map { s/^\W+|\W+$//gr } split /…|\d+/, $quoted;
		}
	}
	return @unknown;
}
is_deeply([ unknown_texts("| `no such message of ours` | |\n| `waiting_on`: `a worker: the library is not preloaded …` | |\n") ],
	['no such message of ours'], 'a text that nobody says');

my $node = bbm_node('pages', extension => 0, conf => "timezone = 'UTC'\nbbm.min_pace = 1\n");

my @pages = $ENV{BBM_TEST_PAGES} ? split(/,/, $ENV{BBM_TEST_PAGES}) :
  map { s{^\Q$top\E/}{}r } ("$top/README.md", glob("$top/doc/*.md"));
my $n = 0;
for my $page (@pages)
{
	my ($parts, $wrong) = page_parts(slurp_file("$top/$page"));
	my $blocks = grep { $_->{kind} eq 'sql' } @$parts;
	is("@$wrong", '', "$page: its marks are right");
	is(join(', ', broken_links($page)), '', "$page: its links lead somewhere");
	is(join(', ', unknown_texts(slurp_file("$top/$page"))), '', "$page: what its tables quote is what is said") if $page =~ /troubleshooting|operations/;
	next unless $blocks;

	my $db = 'page' . ++$n;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	my $file = "${PostgreSQL::Test::Utils::tmp_check}/$db.sql";
	append_to_file($file, page_script($parts));
	my $printed = '';
	# stdout and stderr as a reader sees them, in one stream
	my $command = "psql -X -q -f $file -d '" . $node->connstr($db) . "' 2>&1";
	IPC::Run::run([ 'sh', '-c', $command ], '<', \undef, '>', \$printed, IPC::Run::timeout(500));
	note($printed) if $ENV{BBM_TEST_PAGES_PRINT};
	my @complaints = page_judge($parts, $printed);
	if ($ENV{BBM_TEST_PAGES_FILL} && @complaints)
	{
		open my $filled, '>', "$ENV{BBM_TEST_PAGES_FILL}/" . basename($page) or die $!;
		print $filled page_fill(slurp_file("$top/$page"), $parts, $printed);
		close $filled;
	}
	is(join("\n", @complaints), '', "$page: $blocks blocks are as the page shows them");

	# nothing of a page is left for the next one
	$node->safe_psql('postgres', "ALTER SYSTEM RESET ALL; SELECT pg_reload_conf(); DROP DATABASE $db WITH (FORCE)");
	my @roles = split /\n/, $node->safe_psql('postgres',
		"SELECT quote_ident(rolname) FROM pg_roles WHERE oid >= 16384");
	$node->safe_psql('postgres', "DROP OWNED BY $_; DROP ROLE $_") for @roles;
}

$node->stop;
done_testing();
