/*-------------------------------------------------------------------------
 *
 * nulls.c
 *		Columns that may be null, and the rows in which they are.
 *
 * NOTES
 *	  The first column of a batching key may be nullable by the table's schema.
 *	  A row in which it is null is in no range: comparisons with the bounds of
 *	  a range are not true for it.  So when all ranges are done, it is checked
 *	  whether such a row is still to be done; if so, the migration fails.
 *
 *	  Only the first column may be nullable: the first columns that differ
 *	  decide a comparison of rows, so a row with a null in a later column would
 *	  be in a range or in none, depending on where the ranges happen to end.
 *
 *	  To do these rows as a last batch would not be exact.  They have no order,
 *	  so they can only be done all at once, however many there are, and nothing
 *	  distinguishes a row that has been done from one that was inserted since.
 *
 *	  The check is made under the migration's lock, with a snapshot of its own.
 *	  It sees a row that another session has committed before; a row that is
 *	  committed after it counts as inserted later, like any row that is
 *	  inserted when all is done.
 *
 *-------------------------------------------------------------------------
 */
#include "target/nulls.h"

#include "catalog/pg_am_d.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"

#include "base/compat.h"

static List *
null_test(Relation rel, AttrNumber attnum, NullTestType type)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	NullTest   *test = makeNode(NullTest);

	test->arg = (Expr *) makeVar(1, attnum, attribute->atttypid, attribute->atttypmod, attribute->attcollation, 0);
	test->nulltesttype = type;
	test->argisrow = false;
	test->location = -1;
	return list_make1(test);
}

/* What the table's valid CHECK constraints say of each of its rows. */
static List *
valid_checks(Relation rel)
{
	TupleConstr *constraints = RelationGetDescr(rel)->constr;
	List	   *checks = NIL;

	for (int i = 0; constraints && i < constraints->num_check; i++)
	{
		Node	   *check;

		if (!bbm_check_is_valid(&constraints->check[i]))
			continue;
		check = eval_const_expressions(NULL, stringToNode(constraints->check[i].ccbin));
		checks = list_concat(checks, make_ands_implicit((Expr *) canonicalize_qual((Expr *) check, true)));
	}
	return checks;
}

/* May the column be null, by the table's own constraints?  The table is open and locked. */
bool
bbm_column_may_be_null(Relation rel, AttrNumber attnum)
{
	if (bbm_column_not_null(RelationGetDescr(rel), attnum))
		return false;
	/* a null result does not violate a CHECK constraint: hence weak implication */
	return !predicate_implied_by(null_test(rel, attnum, IS_NOT_NULL), valid_checks(rel), true);
}

/* Does the index lead to the rows in which the column is null, and "known" is true, without reading all others? */
static bool
leads_to_nulls(Relation index, AttrNumber attnum, List *known, List *is_null)
{
	Form_pg_index form = index->rd_index;
	List	   *predicate = RelationGetIndexPredicate(index);

	if (!form->indisvalid || !form->indisready || index->rd_rel->relam != BTREE_AM_OID ||
		!predicate_implied_by(predicate, known, false))
		return false;
	return form->indkey.values[0] == attnum || predicate_implied_by(is_null, predicate, false);
}

/*
 * Is there an index that shows whether the column is null in any row that
 * meets the conditions (an implicitly ANDed list, whose Vars refer to table
 * 1)?  The table is open and locked.
 */
bool
bbm_nulls_have_index(Relation rel, AttrNumber attnum, List *conditions)
{
	List	   *is_null = null_test(rel, attnum, IS_NULL);
	List	   *known = list_concat_copy(is_null, conditions);
	List	   *indexes = RelationGetIndexList(rel);
	bool		found = false;
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		found |= leads_to_nulls(index, attnum, known, is_null);
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return found;
}
