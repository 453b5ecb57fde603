/*-------------------------------------------------------------------------
 *
 * errors.h
 *		The quarantined rows and ranges.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_ERRORS_H
#define BBM_CATALOG_ERRORS_H

#include "base/bbm.h"

/* A hint where quarantined rows are reported. */
#define BBM_QUARANTINE_HINT "bbm_errors shows what is quarantined, and bbm_retry tries it again."

/* Rows that are quarantined; "relation" is InvalidOid where the table is processed as one. */
typedef struct BbmQuarantined
{
	int64		id;
	Oid			relation;
	BbmBound	min;
	BbmBound	max;
} BbmQuarantined;

extern void bbm_error_values(const ErrorData *error, Datum *values);
extern void bbm_error_add(const BbmJob *job, const BbmBound *min, const BbmBound *max, const ErrorData *error);
extern int64 bbm_errors_count(int64 migration_id);
extern ErrorData *bbm_errors_too_many(const BbmMigration *migration, const ErrorData *last);
extern const char *bbm_quarantined_to_string(int64 migration_id);
extern List *bbm_errors(int64 migration_id);
extern void bbm_error_delete(int64 id);
extern int64 bbm_errors_retry(int64 migration_id);
extern void bbm_errors_forget(int64 migration_id);
extern void bbm_errors_accept(int64 migration_id);

#endif							/* BBM_CATALOG_ERRORS_H */
