# The pages of the manual, as programs: their blocks of SQL are run, in the order in which
# they stand there, in one session of psql for each page, and what a page shows is
# compared with what the server says.
#
#   ```sql                     is run
#   ```output                  right after it: all that psql prints for it, errors and notices too.
#                              A block without it must not raise an error
#   ```ruby, ```python, …      the SQL in <<~SQL … SQL and """ … """ is run, in one transaction, as the tool
#                              does; without one if the block says disable_ddl_transaction!, atomic = False,
#                              or autocommit_block
#
# Comments of the page, which no reader sees, mark what differs:
#
#   <!-- test: run             statements up to the end of the comment: a set-up, or what the
#     …                        application does between two blocks.  Must not raise an error
#   -->
#   <!-- test: skip WHY -->    the next block cannot be run here
#   <!-- test: vary -->        numbers, times and the widths of columns of the next output vary
#   <!-- test: error -->       the next block raises an error, which is not shown
#
# A \watch is what a reader stops: its query is run once.

package BbmPages;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(page_parts page_script page_judge page_fill page_anchors page_links);

# The parts of a page, each with kind (run, sql, tool), text, line, and what is said of it.
sub page_parts
{
	my ($text) = @_;
	my (@parts, @wrong, %next);
	my $line = 1;

	while ($text =~ /\G(?:
		(?<fence>^```(?<lang>\w*)[^\n]*\n(?<body>.*?)^```[ ]*$) |
		(?<comment>^<!--\ test:\s*(?<word>\w+)[ ]?(?<rest>.*?)-->[ ]*$) |
		(?<other>.)
	)/gsmx)
	{
		my %m    = %+;
		my $at   = $line;
		my $body = $-[0] + index($&, "\n") + 1;
		$line += () = $& =~ /\n/g;
		if (defined $m{comment})
		{
			my $rest = $m{rest};
			if    ($m{word} eq 'run')  { push @parts, { kind => 'run', text => $rest, line => $at } }
			elsif ($m{word} eq 'skip') { $rest =~ /\w/ ? ($next{skip} = $rest) : push @wrong, "line $at: skips without a reason" }
			elsif ($m{word} =~ /^(vary|error)$/) { $next{ $m{word} } = 1 }
			else { push @wrong, "line $at: unknown mark \"$m{word}\"" }
			next;
		}
		next unless defined $m{fence};
		if ($m{lang} eq 'output')
		{
			my $last = $parts[-1];
			if (!$last || $last->{kind} ne 'sql' || defined $last->{output})
			{
				push @wrong, "line $at: output of no block of SQL";
				next;
			}
			$last->{output} = $m{body};
			$last->{place}  = $body;
			$last->{vary} ||= delete $next{vary};
			next;
		}
		if ($m{lang} eq 'sql')
		{
			my $sql = $m{body};
			$sql =~ s/^\\watch.*\n//gm;
			push @parts, { kind => 'sql', text => $sql, line => $at, %next };
		}
		elsif ($m{lang} =~ /^(ruby|python)$/)
		{
			my @sql   = grep { defined } $m{body} =~ /<<~SQL[^\n]*\n(.*?)\n\s*SQL\b|"""(.*?)"""/gs;
			my $alone = $m{body} =~ /disable_ddl_transaction!|atomic = False|autocommit_block/;
			push @wrong, "line $at: no SQL in a block of $m{lang}" unless @sql || $next{skip};
			push @parts, { kind => 'sql', line => $at, %next,
				text => join("\n", $alone ? () : 'BEGIN;', (map { s/;?\s*$/;/r } @sql), $alone ? () : 'COMMIT;') . "\n" };
		}
		else
		{
			push @wrong, "line $at: a mark of a block that is not run" if %next;
		}
		%next = ();
	}
	push @wrong, 'a mark at the end of the page' if %next;
	return (\@parts, \@wrong);
}

# What psql is to run, with a line before each part's output.
sub page_script
{
	my ($parts) = @_;
	my $script = "\\set VERBOSITY default\n\\set QUIET on\n\\pset pager off\n";
	for my $i (0 .. $#$parts)
	{
		next if $parts->[$i]{skip};
		$script .= "\\echo @@@@ part $i\n$parts->[$i]{text}\n";
	}
	return $script . "\\echo @@@@ end\n";
}

# Blanks at the ends of lines, and empty lines at the end, are not shown in a page.
sub tidy
{
	my ($text, $vary) = @_;
	$text =~ s/^psql:[^:\n]*:\d+: //gm;
	$text =~ s/[ \t]+$//gm;
	$text =~ s/\A\n+//;
	$text =~ s/\n+\z/\n/;
	if ($vary)
	{
		$text =~ s/\d[\d.,:]*/N/g;
		$text =~ s/N\+N|N-N/N/g;
		$text =~ s/(?:N )?\bN (?:kB|bytes|MB|GB)\b/N/g;
		$text =~ s/[ ]+/ /g;
		$text =~ s/-+/-/g;
		$text =~ s/^ //gm;
	}
	return $text;
}

# What psql has printed for each part.
sub outputs
{
	my ($printed) = @_;
	return { $printed =~ /^@@@@ part (\d+)\n(.*?)(?=^@@@@ (?:part \d+|end)$)/gsm };
}

# The page with the outputs that it should show.
sub page_fill
{
	my ($text, $parts, $printed) = @_;
	my $output = outputs($printed);
	for my $i (reverse 0 .. $#$parts)
	{
		my $part = $parts->[$i];
		next unless defined $part->{output} && defined $output->{$i};
		substr($text, $part->{place}, length $part->{output}, tidy($output->{$i}))
		  if tidy($part->{output}, $part->{vary}) ne tidy($output->{$i}, $part->{vary});
	}
	return $text;
}

# The anchors of a page's headings, as GitHub makes them.
sub page_anchors
{
	my ($text) = @_;
	$text =~ s/^```.*?^```//gsm;
	return map { s/\[([^\]]*)\]\([^)]*\)/$1/gr =~ s/[^\w\- ]//gr =~ s/ /-/gr } map { lc } $text =~ /^#+ (.*?)\s*$/gm;
}

# The links of a page to files of ours: path (empty: the page itself) and anchor (or empty).
sub page_links
{
	my ($text) = @_;
	$text =~ s/^```.*?^```//gsm;
	return grep { $_->[0] !~ /^\w+:/ } map { [ /^([^#]*)#?(.*)$/ ] } $text =~ /\]\(([^)\s]+)\)/g;
}

# Compares what psql has printed with what the page shows; returns complaints.
sub page_judge
{
	my ($parts, $printed) = @_;
	my $output = outputs($printed);
	my @wrong;
	for my $i (0 .. $#$parts)
	{
		my $part = $parts->[$i];
		next if $part->{skip};
		my $got = $output->{$i};
		if (!defined $got)
		{
			push @wrong, "line $part->{line}: was not run";
			next;
		}
		my $error = $got =~ /^(?:psql:[^:\n]*:\d+: )?(?:ERROR|FATAL):/m || $got =~ /^psql:.*error:/m;
		if (defined $part->{output})
		{
			push @wrong, "line $part->{line}: the page shows\n$part->{output}and the server says\n$got"
			  if tidy($part->{output}, $part->{vary}) ne tidy($got, $part->{vary});
		}
		elsif ($error && !$part->{error})
		{
			push @wrong, "line $part->{line}: an error that the page does not show\n$got";
		}
		elsif (!$error && $part->{error})
		{
			push @wrong, "line $part->{line}: no error, though the page says so\n$got";
		}
	}
	return @wrong;
}

1;
