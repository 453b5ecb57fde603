/*-------------------------------------------------------------------------
 *
 * key_index.c
 *		The indexes of a table that can be walked in a key's order.
 *
 *-------------------------------------------------------------------------
 */
#include "target/key_index.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_am_d.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

/*
 * Does the index begin with the key's columns, each in its type's default
 * order?  If so, *found describes it.
 */
static bool
index_fits(const BbmKey *key, Relation heap, Relation index, BbmKeyIndex *found)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisvalid || !form->indisready || index->rd_rel->relam != BTREE_AM_OID ||
		form->indnkeyatts < key->n || RelationGetIndexPredicate(index) != NIL)
		return false;
	for (int i = 0; i < key->n; i++)
	{
		const BbmKeyColumn *column = &key->columns[i];
		Form_pg_attribute attribute;
		TypeCacheEntry *type;
		int16		kept;

		if (form->indkey.values[i] <= 0)
			return false;
		attribute = TupleDescAttr(RelationGetDescr(heap), form->indkey.values[i] - 1);
		type = lookup_type_cache(column->type, TYPECACHE_BTREE_OPFAMILY);
		kept = TupleDescAttr(RelationGetDescr(index), i)->attlen;
		/* an index may store another type than the column's: "name" as cstring */
		if (strcmp(NameStr(attribute->attname), column->name) != 0 || index->rd_opfamily[i] != type->btree_opf ||
			index->rd_indcollation[i] != column->collation ||
			(kept != column->typlen && !(kept == -2 && column->type == NAMEOID)))
			return false;
	}
	found->oid = RelationGetRelid(index);
	found->is_unique = form->indisunique && form->indnkeyatts == key->n;
	found->backwards = (index->rd_indoption[0] & INDOPTION_DESC) != 0;
	for (int i = 0; i < key->n; i++)
	{
		found->descending[i] = ((index->rd_indoption[i] & INDOPTION_DESC) != 0) != found->backwards;
		found->nulls_first[i] = ((index->rd_indoption[i] & INDOPTION_NULLS_FIRST) != 0) != found->backwards;
	}
	return true;
}

static bool
same_order(const BbmKey *key, const BbmKeyIndex *index)
{
	for (int i = 0; i < key->n; i++)
	{
		if (key->columns[i].descending != index->descending[i])
			return false;
	}
	return true;
}

/*
 * Finds the index to walk: the named one, or the best index that has the key's
 * columns and (unless any_order) its order; a unique index over exactly these
 * columns is preferred.  False when there is none.  Needs a lock on the table.
 */
bool
bbm_key_find_index(const BbmKey *key, Relation heap, const char *index_name, bool any_order, BbmKeyIndex *found)
{
	List	   *indexes = RelationGetIndexList(heap);
	int			best = 0;
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);
		BbmKeyIndex candidate;

		if ((index_name == NULL || strcmp(RelationGetRelationName(index), index_name) == 0) &&
			index_fits(key, heap, index, &candidate) && (any_order || same_order(key, &candidate)))
		{
			int			rank = candidate.is_unique ? 3 : index->rd_index->indnkeyatts == key->n ? 2 : 1;

			if (rank > best)
			{
				best = rank;
				*found = candidate;
			}
		}
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return best > 0;
}

/* Gives the key the order of this index. */
void
bbm_key_use_order(BbmKey *key, const BbmKeyIndex *index)
{
	key->is_mixed = false;
	for (int i = 0; i < key->n; i++)
	{
		key->columns[i].descending = index->descending[i];
		key->columns[i].nulls_first = index->nulls_first[i];
		key->is_mixed |= index->descending[i];
	}
}

/*
 * The columns of the named index, or of the primary key, in the form of
 * column_name; NULL when there is no such index.  Needs a lock on the table.
 */
char *
bbm_key_default_columns(Oid relid, const char *index_name)
{
	Relation	rel = table_open(relid, NoLock);
	List	   *indexes = RelationGetIndexList(rel);
	StringInfoData string;
	ListCell   *cell;

	initStringInfo(&string);
	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);
		Form_pg_index form = index->rd_index;
		bool		meant = index_name ? strcmp(RelationGetRelationName(index), index_name) == 0 : form->indisprimary;

		for (int i = 0; meant && i < form->indnkeyatts; i++)
		{
			char	   *name = form->indkey.values[i] > 0 ? get_attname(relid, form->indkey.values[i], false) : NULL;

			/* an expression is not a column */
			if (name == NULL)
			{
				resetStringInfo(&string);
				break;
			}
			appendStringInfo(&string, "%s%s", i > 0 ? ", " : "",
							 form->indnkeyatts == 1 ? name : quote_identifier(name));
		}
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	table_close(rel, NoLock);
	return string.len > 0 ? string.data : NULL;
}
