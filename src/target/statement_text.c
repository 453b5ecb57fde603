/*-------------------------------------------------------------------------
 *
 * statement_text.c
 *		Reading a text that becomes a part of a statement: a set or a condition.
 *
 *-------------------------------------------------------------------------
 */
#include "target/statement_text.h"

#include "parser/parser.h"
#include "parser/scanner.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "target/relation.h"
#include "target/user_text.h"

#define SYNTAX_HINT_SET \
	"It is what stands after SET in an UPDATE: column = expression, ..."
#define SYNTAX_HINT_CONDITION "It is one expression, as after WHERE in an UPDATE."

static void
text_error(void *arg)
{
	BbmStatementText *text = arg;
	int			code = geterrcode();

	bbm_user_text_error(&text->user);
	if (code == ERRCODE_UNDEFINED_PARAMETER)
	{
		errdetail("The text becomes a part of a statement whose parameters are not its own.");
		errhint("Write a value instead; the bounds of a batch are added without your doing.");
	}
	if (code == ERRCODE_GENERATED_ALWAYS)
		errhint("The server fills that column itself: leave it out of \"%s\".", text->what);
	if (text->table == NULL)
		return;
	if (code == ERRCODE_UNDEFINED_COLUMN || code == ERRCODE_UNDEFINED_TABLE)
	{
		if (text->condition)
			errdetail("A \"%s\" sees the columns of table \"%s\", and of no other.", text->what, text->table);
		else
			errdetail("A \"%s\" sees the columns of table \"%s\", as an UPDATE of it does.", text->what, text->table);
		if (text->condition)
			errhint("Reach other tables with a sub-select; names are looked up with search_path \"%s\".",
					namespace_search_path);
		else
			errhint("Names are looked up with search_path \"%s\".", namespace_search_path);
	}
	if (code == ERRCODE_AMBIGUOUS_COLUMN)
		errhint("Qualify it with the name of its table, as in %s.column.", quote_identifier(text->table));
	if (code == ERRCODE_DATATYPE_MISMATCH && text->condition)
		errhint("It is a condition: true for the rows that are meant.");
}

BbmStatementText
bbm_statement_text(const char *text, const char *what, bool condition, Oid relid)
{
	BbmUserText user = {
		.text = text,
		.what = psprintf("parameter \"%s\"", what),
		.syntax_hint = condition ? SYNTAX_HINT_CONDITION : SYNTAX_HINT_SET
	};
	BbmStatementText result = {
		.user = user,
		.what = what,
		.relid = relid,
		.table = OidIsValid(relid) ? bbm_table_alias(relid) : NULL,
		.condition = condition
	};

	return result;
}

/* Errors raised by server code between these two calls are reported as errors of the text. */
void
bbm_statement_text_begin(BbmStatementText *text, const char *prefix, ErrorContextCallback *callback)
{
	text->user.prefix = strlen(prefix);
	callback->callback = text_error;
	callback->arg = text;
	callback->previous = error_context_stack;
	error_context_stack = callback;
}

void
bbm_statement_text_end(ErrorContextCallback *callback)
{
	error_context_stack = callback->previous;
}

/*
 * The lexical tokens outside parentheses and brackets; the last one is 0, at
 * the end of the text.  A semicolon anywhere is an error: it would end the
 * statement.
 */
BbmTopToken *
bbm_scan_top(BbmStatementText *text)
{
	ErrorContextCallback callback;
	core_yy_extra_type extra;
	core_yyscan_t scanner;
	core_YYSTYPE value;
	int			capacity = 16;
	int			n = 0;
	int			depth = 0;
	BbmTopToken   *tokens = palloc(capacity * sizeof(BbmTopToken));

	bbm_statement_text_begin(text, "", &callback);
	scanner = scanner_init(text->user.text, &extra, &ScanKeywords, ScanKeywordTokens);
	for (;;)
	{
		YYLTYPE		at;
		int			token = core_yylex(&value, &at, scanner);

		if (token == ';')
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("\"%s\" must not contain a semicolon", text->what),
					 errdetail("It becomes a part of one statement."),
					 errhint("Leave out the semicolon, and what follows it."),
					 scanner_errposition(at, scanner)));
		if (token == ')' || token == ']')
			depth--;
		if (depth <= 0 || token == 0)
		{
			if (n == capacity)
				tokens = repalloc(tokens, (capacity *= 2) * sizeof(BbmTopToken));
			tokens[n].token = token;
			tokens[n++].at = token == 0 ? strlen(text->user.text) : at;
		}
		if (token == 0)
			break;
		if (token == '(' || token == '[')
			depth++;
	}
	scanner_finish(scanner);
	bbm_statement_text_end(&callback);
	return tokens;
}

RawStmt *
bbm_parse_text(BbmStatementText *text, const char *prefix, const char *suffix)
{
	ErrorContextCallback callback;
	List	   *parsed;

	bbm_statement_text_begin(text, prefix, &callback);
	parsed = raw_parser(psprintf("%s%s%s", prefix, text->user.text, suffix), RAW_PARSE_DEFAULT);
	bbm_statement_text_end(&callback);
	/* the text contains no semicolon */
	return linitial_node(RawStmt, parsed);
}

/* Raises an error unless the text, parsed alone, is one expression. */
RawStmt *
bbm_parse_condition(BbmStatementText *text)
{
	RawStmt    *raw;
	SelectStmt *stmt;

	(void) bbm_scan_top(text);
	raw = bbm_parse_text(text, BBM_SELECT_PREFIX, "");
	stmt = (SelectStmt *) raw->stmt;
	if (stmt->op != SETOP_NONE || stmt->groupClause || stmt->havingClause || stmt->windowClause ||
		stmt->sortClause || stmt->limitOffset || stmt->limitCount || stmt->lockingClause)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("\"%s\" must be one expression", text->what),
				 errdetail("The text goes on after it with another clause."),
				 errhint("Leave out what would follow a WHERE.")));
	/* a clause that leaves no trace in the parse tree (FOR READ ONLY) is a syntax error in parentheses */
	(void) bbm_parse_text(text, BBM_SELECT_PREFIX "(", "\n)");
	return raw;
}

/* Finds a keyword at the top level, from a token on, or the end of the text; in x.where it is a column. */
static BbmTopToken *
find_keyword(BbmTopToken *from, const char *keyword)
{
	int			wanted = ScanKeywordTokens[ScanKeywordLookup(keyword, &ScanKeywords)];
	int			distinct = ScanKeywordTokens[ScanKeywordLookup("distinct", &ScanKeywords)];
	BbmTopToken   *token = from;

	/* a FROM may also belong to IS DISTINCT FROM */
	while (token->token != 0 &&
		   (token->token != wanted || (token > from && (token[-1].token == '.' || token[-1].token == distinct))))
		token++;
	return token;
}

/* Splits a set at its WHERE: *join is the condition of its joins, or NULL. */
char *
bbm_split_set(BbmStatementText *text, char **join)
{
	const char *set = text->user.text;
	int			where = find_keyword(bbm_scan_top(text), "where")->at;

	*join = set[where] ? pstrdup(set + where + strlen("where")) : NULL;
	return pnstrdup(set, where);
}

/* The text after FROM in a set, or NULL. */
char *
bbm_set_from(BbmStatementText *text)
{
	BbmTopToken   *tokens = bbm_scan_top(text);
	BbmTopToken   *where = find_keyword(tokens, "where");
	BbmTopToken   *from = find_keyword(tokens, "from");
	int			begin = from->at + strlen("from");

	return from->token == 0 || from->at > where->at ? NULL : pnstrdup(text->user.text + begin, where->at - begin);
}

/* Raises an error unless the text, parsed alone, may follow SET. */
RawStmt *
bbm_parse_set(BbmStatementText *text)
{
	char	   *join;
	BbmStatementText head;
	RawStmt    *raw;
	UpdateStmt *stmt;
	UpdateStmt *first;

	(void) bbm_scan_top(text);
	raw = bbm_parse_text(text, BBM_UPDATE_PREFIX, "");
	stmt = (UpdateStmt *) raw->stmt;
	if (bbm_has_returning(stmt))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("\"%s\" must not contain RETURNING", text->what),
				 errdetail("Nobody reads what a batch returns."),
				 errhint("Leave it out.")));
	if (stmt->whereClause && IsA(stmt->whereClause, CurrentOfExpr))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("\"%s\" must not contain WHERE CURRENT OF", text->what),
				 errdetail("A batch has no cursor."),
				 errhint("Leave it out.")));
	/* the two halves must be valid alone as well, as they are put into different positions */
	head = bbm_statement_text(bbm_split_set(text, &join), text->what, false, text->relid);
	first = (UpdateStmt *) bbm_parse_text(&head, BBM_UPDATE_PREFIX, "")->stmt;
	if (first->whereClause || (first->fromClause == NIL) != (bbm_set_from(text) == NULL))
		elog(ERROR, "could not find FROM and WHERE in \"%s\"", text->user.text);
	if (join)
	{
		BbmStatementText condition = bbm_statement_text(join, text->what, true, text->relid);

		(void) bbm_parse_condition(&condition);
	}
	return raw;
}

/* The text with another name in place of the one, qualified or not, that begins there; the text was parsed before. */
char *
bbm_text_replace_name(const char *text, int at, const char *name)
{
	core_yy_extra_type extra;
	core_yyscan_t scanner = scanner_init(text + at, &extra, &ScanKeywords, ScanKeywordTokens);
	core_YYSTYPE value;
	YYLTYPE		next;
	int			token;

	(void) core_yylex(&value, &next, scanner);
	while ((token = core_yylex(&value, &next, scanner)) == '.')
		(void) core_yylex(&value, &next, scanner);
	scanner_finish(scanner);
	return psprintf("%.*s%s %s", at, text, name, token == 0 ? "" : text + at + next);
}
