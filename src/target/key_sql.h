/*-------------------------------------------------------------------------
 *
 * key_sql.h
 *		A key in SQL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_KEY_SQL_H
#define BBM_TARGET_KEY_SQL_H

#include "base/bbm.h"

#include "target/key.h"

extern PGDLLEXPORT char *bbm_key_range_sql(const BbmKey *key, const char *alias);
extern PGDLLEXPORT char *bbm_key_compare_sql(const BbmKey *key, const char *alias, const char *op, int first_parameter);
extern char *bbm_key_list_sql(const BbmKey *key, const char *alias, bool order, bool reverse);

#endif							/* BBM_TARGET_KEY_SQL_H */
