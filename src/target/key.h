/*-------------------------------------------------------------------------
 *
 * key.h
 *		The batching key: its columns, their order, values and texts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_KEY_H
#define BBM_TARGET_KEY_H

#include "base/bbm.h"

#include "access/stratnum.h"
#include "fmgr.h"
#include "utils/relcache.h"

#include "base/compat.h"

#define BBM_MAX_KEY_COLUMNS INDEX_MAX_KEYS

typedef struct BbmKeyColumn
{
	char	   *name;			/* not quoted */
	AttrNumber	attnum;			/* in the migration's table; it may differ in a partition */
	Oid			declared;		/* the column's type in the table, ... */
	int32		typmod;			/* ... and its modifier */
	Oid			type;			/* the base type of a domain; oid for regclass and the like */
	int16		typlen;
	bool		typbyval;
	Oid			collation;
	bool		descending;		/* in the key's order, in which the first column ascends */
	bool		nulls_first;	/* whether the index has nulls first in that order; a query that uses it says so */
	char	   *cast;			/* "::type" if the operators do not accept the column's type, else "" */
	Oid			ordered;		/* the type whose order its values have: varchar uses that of text */
	bool		has_money;		/* its text depends on lc_monetary */
	char	   *names;			/* of its type and operators, which may be renamed; NULL if they are built in */
	char	   *op[BTMaxStrategyNumber + 1];	/* "OPERATOR(schema.<)" ... */
	FmgrInfo	compare;
	FmgrInfo	out;
	FmgrInfo	in;
	Oid			ioparam;
} BbmKeyColumn;

typedef struct BbmKey
{
	int			n;				/* 0: the strategy has no key columns */
	bool		is_integer;		/* one column, of an integer type */
	bool		is_mixed;		/* at least one column descends */
	BbmKeyColumn *columns;
} BbmKey;

extern PGDLLEXPORT void bbm_key_resolve(BbmKey *key, Oid relid, const char *column_name);
extern const char *bbm_key_to_string(const BbmKey *key);
extern void bbm_key_check_nulls(const BbmKey *key, Relation rel);
pg_noreturn extern void bbm_key_has_null(const BbmKeyColumn *column);
extern bool bbm_key_is_current(const BbmKey *key, Oid relid);
extern char *bbm_key_order_list(const BbmKey *key);

/* Values and bounds; results are allocated in the current memory context. */
extern PGDLLEXPORT void bbm_key_bound(const BbmKey *key, const Datum *values, BbmBound *bound);
extern void bbm_key_check_bound(const BbmKey *key, const BbmBound *bound);
extern PGDLLEXPORT void bbm_key_values(const BbmKey *key, const BbmBound *bound, Datum *values);
extern bool bbm_key_has_between(const BbmKey *key, const BbmBound *min, const BbmBound *max);
extern void bbm_key_range_values(const BbmKey *key, const BbmBound *min, const BbmBound *max, Datum *min_values,
								 Datum *max_values);
extern PGDLLEXPORT int bbm_key_compare(const BbmKey *key, const Datum *a, const Datum *b);

#endif							/* BBM_TARGET_KEY_H */
