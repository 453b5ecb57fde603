/*-------------------------------------------------------------------------
 *
 * screen.c
 *		What fits a screen: how wide a text is shown, and how it is shortened.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(bbm_width);
PG_FUNCTION_INFO_V1(bbm_fit);

#define BBM_CUT "..."
#define BBM_CUT_WIDTH 3

static int
length_of(const char *c)
{
	return pg_encoding_mblen(GetDatabaseEncoding(), c);
}

static bool
is_shown(const char *c)
{
	return pg_encoding_dsplen(GetDatabaseEncoding(), c) >= 0;
}

/* The columns that a character takes, as psql counts them; one that cannot be shown counts as a blank. */
static int
width_of(const char *c)
{
	return is_shown(c) ? pg_encoding_dsplen(GetDatabaseEncoding(), c) : 1;
}

static int
width_of_all(const char *text)
{
	int			width = 0;

	for (; *text; text += length_of(text))
		width += width_of(text);
	return width;
}

/* (text) → the columns that it takes in a terminal */
Datum
bbm_width(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(width_of_all(text_to_cstring(PG_GETARG_TEXT_PP(0))));
}

/* Appends the characters of a text between two columns: one without a width goes with the one before it. */
static void
append_columns(StringInfo to, const char *text, int from, int before)
{
	int			column = 0;
	bool		begun = false;

	for (; *text; text += length_of(text))
	{
		int			width = width_of(text);

		if (column >= from && column + width <= before && (width > 0 || begun))
		{
			begun = true;
			if (is_shown(text))
				appendBinaryStringInfo(to, text, length_of(text));
			else
				appendStringInfoChar(to, ' ');
		}
		column += width;
	}
}

/*
 * (text, columns int, keep_end boolean) → the text, shortened to so many
 * columns: its end is left out, or its middle, as names that begin in the same
 * way often differ in their ends.
 */
Datum
bbm_fit(PG_FUNCTION_ARGS)
{
	char	   *string = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int			columns = Max(PG_GETARG_INT32(1), 2 * BBM_CUT_WIDTH);
	int			width = width_of_all(string);
	int			end = PG_GETARG_BOOL(2) ? (columns - BBM_CUT_WIDTH) / 2 : 0;
	StringInfoData fit;

	if (width <= columns)
		PG_RETURN_TEXT_P(cstring_to_text(string));
	initStringInfo(&fit);
	append_columns(&fit, string, 0, columns - BBM_CUT_WIDTH - end);
	appendStringInfoString(&fit, BBM_CUT);
	append_columns(&fit, string, width - end, width);
	PG_RETURN_TEXT_P(cstring_to_text(fit.data));
}
