/*-------------------------------------------------------------------------
 *
 * shard_errors.h
 *		The quarantined rows of a distributed table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_SHARD_ERRORS_H
#define BBM_CATALOG_SHARD_ERRORS_H

#include "base/bbm.h"

#include "catalog/shards.h"

extern void bbm_shard_error_add(const BbmShard *shard, const BbmBound *min, const BbmBound *max,
								const ErrorData *error);
extern void bbm_shard_retry_note(const BbmShard *shard, const BbmBound *min, const BbmBound *max,
								 const BbmBound *cursor, int64 rows);
extern int64 bbm_shard_errors_retry(Oid owner, const char *record, int64 migration_id);
extern int64 bbm_shard_errors_count(const BbmShard *shard);
extern List *bbm_shard_errors(const BbmShard *shard);
extern void bbm_shard_error_end(const BbmShard *shard, const BbmBound *min, const BbmBound *max);
extern char *bbm_shard_errors_read(const char *record, Oid relid);
extern void bbm_shard_errors_show(int64 migration_id, const char *errors);

#endif							/* BBM_CATALOG_SHARD_ERRORS_H */
