/*-------------------------------------------------------------------------
 *
 * key_sql.c
 *		A key in SQL: lists of its columns, and conditions for ranges.
 *
 *-------------------------------------------------------------------------
 */
#include "target/key_sql.h"

#include "utils/builtins.h"

#include "target/key.h"

static void
append_column(StringInfo sql, const BbmKeyColumn *column, const char *alias)
{
	appendStringInfo(sql, "%s.%s%s", alias, quote_identifier(column->name), column->cast);
}

/* The operator of the column's type for this comparison, strict or not. */
static const char *
operator_of(const BbmKeyColumn *column, bool greater, bool strict)
{
	if (greater)
		return column->op[strict ? BTGreaterStrategyNumber : BTGreaterEqualStrategyNumber];
	return column->op[strict ? BTLessStrategyNumber : BTLessEqualStrategyNumber];
}

/* Compares column i and those after it with parameters; for keys whose columns differ in direction. */
static void
append_mixed(StringInfo sql, const BbmKey *key, const char *alias, const char *op, int first, int i)
{
	const BbmKeyColumn *column = &key->columns[i];
	bool		greater = (op[0] == '>') != column->descending;
	bool		last = i == key->n - 1;

	append_column(sql, column, alias);
	appendStringInfo(sql, " %s $%d", operator_of(column, greater, last && op[1] == '\0'), first + i);
	if (last)
		return;
	appendStringInfoString(sql, " AND (");
	append_column(sql, column, alias);
	appendStringInfo(sql, " %s $%d OR ", operator_of(column, greater, true), first + i);
	append_mixed(sql, key, alias, op, first, i + 1);
	appendStringInfoChar(sql, ')');
}

/* Can one operator compare all columns, as in a row comparison? */
static bool
one_operator(const BbmKey *key)
{
	for (int i = 1; i < key->n; i++)
	{
		for (StrategyNumber strategy = BTLessStrategyNumber; strategy <= BTMaxStrategyNumber; strategy++)
		{
			if (strcmp(key->columns[i].op[strategy], key->columns[0].op[strategy]) != 0)
				return false;
		}
	}
	return true;
}

/* A predicate that compares the key of a row by "op" (<, <=, >, >=) with the parameters from $first on. */
char *
bbm_key_compare_sql(const BbmKey *key, const char *alias, const char *op, int first_parameter)
{
	StringInfoData sql;

	initStringInfo(&sql);
	if (key->n == 1 || key->is_mixed || !one_operator(key))
	{
		append_mixed(&sql, key, alias, op, first_parameter, 0);
		return sql.data;
	}
	appendStringInfoString(&sql, "ROW(");
	for (int i = 0; i < key->n; i++)
	{
		if (i > 0)
			appendStringInfoString(&sql, ", ");
		append_column(&sql, &key->columns[i], alias);
	}
	appendStringInfo(&sql, ") %s ROW(", operator_of(&key->columns[0], op[0] == '>', op[1] == '\0'));
	for (int i = 0; i < key->n; i++)
		appendStringInfo(&sql, "%s$%d", i > 0 ? ", " : "", first_parameter + i);
	appendStringInfoChar(&sql, ')');
	return sql.data;
}

/* A predicate: the key of a row lies in the range $1...$n to $n+1...$2n, both inclusive. */
char *
bbm_key_range_sql(const BbmKey *key, const char *alias)
{
	return psprintf("%s AND %s", bbm_key_compare_sql(key, alias, ">=", 1),
					bbm_key_compare_sql(key, alias, "<=", key->n + 1));
}

/* The columns as a list for SELECT or ORDER BY. */
char *
bbm_key_list_sql(const BbmKey *key, const char *alias, bool order, bool reverse)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < key->n; i++)
	{
		if (i > 0)
			appendStringInfoString(&sql, ", ");
		append_column(&sql, &key->columns[i], alias);
		if (order)
		{
			bool		descending = key->columns[i].descending != reverse;
			bool		nulls_first = key->columns[i].nulls_first != reverse;

			/* by default, nulls come last, or first with DESC */
			appendStringInfo(&sql, "%s%s", descending ? " DESC" : "",
							 nulls_first == descending ? "" : nulls_first ? " NULLS FIRST" : " NULLS LAST");
		}
	}
	return sql.data;
}
