/*-------------------------------------------------------------------------
 *
 * statement_text.h
 *		Reading a text that becomes a part of a statement.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_STATEMENT_TEXT_H
#define BBM_TARGET_STATEMENT_TEXT_H

#include "base/bbm.h"

#include "nodes/parsenodes.h"

#include "target/user_text.h"

/* The table's name replaces the x after parsing. */
#define BBM_UPDATE_PREFIX "UPDATE x SET "
#define BBM_SELECT_PREFIX "SELECT 1 FROM x WHERE "

typedef struct BbmStatementText
{
	BbmUserText user;
	const char *what;			/* "set", "filter", ... */
	Oid			relid;
	const char *table;			/* the table's name; NULL while only the syntax is checked */
	bool		condition;
} BbmStatementText;

/* A lexical token outside all parentheses and brackets. */
typedef struct BbmTopToken
{
	int			token;
	int			at;				/* byte offset */
} BbmTopToken;

extern RawStmt *bbm_parse_text(BbmStatementText *text, const char *prefix, const char *suffix);
extern BbmStatementText bbm_statement_text(const char *text, const char *what, bool condition, Oid relid);
extern void bbm_statement_text_begin(BbmStatementText *text, const char *prefix, ErrorContextCallback *callback);
extern void bbm_statement_text_end(ErrorContextCallback *callback);
extern BbmTopToken *bbm_scan_top(BbmStatementText *text);
extern RawStmt *bbm_parse_condition(BbmStatementText *text);
extern char *bbm_split_set(BbmStatementText *text, char **join);
extern char *bbm_set_from(BbmStatementText *text);
extern RawStmt *bbm_parse_set(BbmStatementText *text);
extern char *bbm_text_replace_name(const char *text, int at, const char *name);

#endif							/* BBM_TARGET_STATEMENT_TEXT_H */
