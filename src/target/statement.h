/*-------------------------------------------------------------------------
 *
 * statement.h
 *		Statements that are composed of a user's texts: "set" and "filter".
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_STATEMENT_H
#define BBM_TARGET_STATEMENT_H

#include "postgres.h"

#include "base/bbm.h"

#include "access/attnum.h"
#include "nodes/bitmapset.h"
#include "nodes/parsenodes.h"

typedef enum BbmVerb
{
	BBM_UPDATE,
	BBM_DELETE
} BbmVerb;

typedef struct BbmStatementParts
{
	BbmVerb		verb;
	const char *set;			/* the text after SET; NULL for BBM_DELETE */
	const char *condition;		/* the filter, or NULL */
	const char *with;			/* what stands after a WITH before the statement, or NULL */
} BbmStatementParts;

/* One "column = expression" of a set. */
typedef struct BbmAssignment
{
	char	   *column;
	char	   *expression;
} BbmAssignment;

extern PGDLLEXPORT void bbm_statement_check(Oid relid, const BbmStatementParts *parts, const AttrNumber *key, int nkey,
											bool allow_key_change);
extern PGDLLEXPORT void bbm_statement_check_condition(Oid relid, const char *condition, const char *what);
extern PGDLLEXPORT char *bbm_statement_compose(const BbmStatementParts *parts, const char *relation, const char *alias,
											   bool only, const char *range, const char *returning);
extern PGDLLEXPORT char *bbm_statement_count(const BbmStatementParts *parts, const char *relation, const char *alias,
											 const char *range);
extern Node *bbm_statement_condition(Oid relid, const char *condition);

/* For triggers, whose set is only a list; column sets are offset by FirstLowInvalidHeapAttributeNumber. */
extern List *bbm_statement_assignments(const char *set);
extern Query *bbm_statement_analyse(Oid relid, const BbmStatementParts *parts);
extern Bitmapset *bbm_statement_assigned(const Query *update);
extern Bitmapset *bbm_statement_changed(Oid relid, const Query *update);
extern Bitmapset *bbm_statement_referenced(Query *query);
extern const char *bbm_statement_partition_column(Oid relid, const Bitmapset *columns);

extern void bbm_job_parts(const BbmMigration *migration, BbmStatementParts *parts);

#endif							/* BBM_TARGET_STATEMENT_H */
