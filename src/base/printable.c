/*-------------------------------------------------------------------------
 *
 * printable.c
 *		Text of users in lines of the server log.
 *
 * A migration's name, or the message of an error that its job raised, is of
 * its owner's choosing.  What we log of it must not look like a line of its
 * own, nor do anything to the terminal of who reads it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/printable.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

/* Bytes of the control character that begins here, or 0. */
static int
control_length(const unsigned char *c)
{
	if (*c < 0x20 || *c == 0x7f)
		return 1;
	/* C1, as UTF-8 has it, and what says nothing of its encoding may */
	if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f &&
		(GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII))
		return 2;
	return 0;
}

/*
 * As much of the text as there is room for, in whole characters and with a mark
 * where it ends, in the current memory context.
 */
char *
bbm_shortened(const char *text, int longest)
{
	size_t		length = strlen(text);

	if (length <= (size_t) longest)
		return pstrdup(text);
	/* of a text that is longer than an int can tell, the first part does */
	length = pg_mbcliplen(text, (int) Min(length, 2 * (size_t) longest), longest);
	return psprintf("%.*s …", (int) length, text);
}

/*
 * The text with control characters as \xHH and of a length that fits a line, in
 * the current memory context; the text itself when it has none of the former and
 * is not too long.
 */
const char *
bbm_printable(const char *text)
{
	const unsigned char *c;
	StringInfoData buf;

	if (strlen(text) > BBM_LONGEST_LOGGED)
		text = bbm_shortened(text, BBM_LONGEST_LOGGED);
	c = (const unsigned char *) text;
	while (*c && control_length(c) == 0)
		c++;
	if (*c == '\0')
		return text;

	initStringInfo(&buf);
	for (c = (const unsigned char *) text; *c;)
	{
		int			length = control_length(c);

		if (length == 0)
			appendStringInfoChar(&buf, (char) *c++);
		for (; length > 0; length--)
			appendStringInfo(&buf, "\\x%02x", *c++);
	}
	return buf.data;
}
