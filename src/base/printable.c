/*-------------------------------------------------------------------------
 *
 * printable.c
 *		Text of users in lines of the server log.
 *
 * The owner chooses a migration's name, and the message of an error that its
 * job raises.  What we log of it must not look like a separate log line, nor
 * affect the terminal of whoever reads it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/printable.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

/* Length in bytes of the control character that begins here, or 0. */
static int
control_length(const unsigned char *c)
{
	if (*c < 0x20 || *c == 0x7f)
		return 1;
	/* C1 controls, in UTF-8 and in SQL_ASCII, whose encoding is not known */
	if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f &&
		(GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII))
		return 2;
	return 0;
}

/*
 * Returns the text cut off at this length, in whole characters and with a mark
 * at its end, in the current memory context.
 */
char *
bbm_shortened(const char *text, int longest)
{
	size_t		length = strlen(text);

	if (length <= (size_t) longest)
		return pstrdup(text);
	/* longer than an int: clipping its beginning is enough */
	length = pg_mbcliplen(text, (int) Min(length, 2 * (size_t) longest), longest);
	return psprintf("%.*s ...", (int) length, text);
}

/*
 * Returns the text with control characters as \xHH and shortened to the length
 * of a log line, in the current memory context; the text itself when nothing
 * has to be changed.
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
