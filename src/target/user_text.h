/*-------------------------------------------------------------------------
 *
 * user_text.h
 *		What the server says of a text that a user wrote.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_USER_TEXT_H
#define BBM_TARGET_USER_TEXT_H

#include "base/bbm.h"

/* A text that a user wrote and the server parses, for bbm_user_text_error. */
typedef struct BbmUserText
{
	const char *text;
	const char *what;			/* its name in messages */
	int			prefix;			/* number of characters that we put before it for the parser */
	const char *syntax_hint;
} BbmUserText;

extern void bbm_user_text_error(void *arg);

#endif							/* BBM_TARGET_USER_TEXT_H */
