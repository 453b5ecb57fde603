/*-------------------------------------------------------------------------
 *
 * user_text.c
 *		What the server says of a text that a user wrote.
 *
 *-------------------------------------------------------------------------
 */
#include "target/user_text.h"

/*
 * An error context callback for errors that the server raises in a user's
 * text: it makes them refer to that text, not to the query that contains it.
 * Its argument is a BbmUserText.
 */
void
bbm_user_text_error(void *arg)
{
	const BbmUserText *user = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		if (position > user->prefix)
		{
			internalerrposition(position - user->prefix);
			internalerrquery(user->text);
		}
	}
	errcontext("%s", user->what);
	if (geterrcode() == ERRCODE_SYNTAX_ERROR)
		errhint("%s", user->syntax_hint);
}
