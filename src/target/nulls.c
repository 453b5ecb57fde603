/*-------------------------------------------------------------------------
 *
 * nulls.c
 *		Columns that may be null, and the rows in which they are.
 *
 * NOTES
 *	  The first column of a batching key may be null by the table's schema.  A row
 *	  in which it is null is in no range: comparisons with the bounds of one are
 *	  not true for it.  So when all ranges are done it is looked whether there is
 *	  such a row that is to be done, and if so the migration fails.
 *
 *	  Only the first column: a comparison of rows is decided by the first columns
 *	  that differ, so that a null further on would let a row be in a range or in
 *	  none, as the ranges happen to be cut.
 *
 *	  To do these rows as a last batch would not be exact.  They have no order, so
 *	  that they can only be done all at once, however many they are, and nothing
 *	  tells one that has been done from one that has come since.
 *
 *	  The look is taken under the migration's lock, with a snapshot of its own.  A
 *	  row that another session commits before is seen; one that commits after it has
 *	  come later, as any row that is inserted where all is done.
 *
 *-------------------------------------------------------------------------
 */
#include "target/nulls.h"

#include "catalog/pg_am_d.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"

#include "base/compat.h"

/* ----------------------------------------------------------------
 * Columns
 * ----------------------------------------------------------------
 */

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

/* What the table's CHECK constraints say of each of its rows: those that hold for all that are there. */
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

/* May the column be null, for all that the table itself says?  It is open and locked. */
bool
bbm_column_may_be_null(Relation rel, AttrNumber attnum)
{
	if (bbm_column_not_null(RelationGetDescr(rel), attnum))
		return false;
	/* a check is not violated by what makes it null: in that sense it is implied */
	return !predicate_implied_by(null_test(rel, attnum, IS_NOT_NULL), valid_checks(rel), true);
}

/* Does the index lead to the rows in which the column is null, and "known" is true, without those in which it is not? */
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
 * Is there an index that answers whether the column is null in any row that meets
 * the conditions (a list, implicitly AND'ed, of Vars of table 1)?  The table is
 * open and locked.
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

/* ----------------------------------------------------------------
 * Rows
 * ----------------------------------------------------------------
 */
