/*-------------------------------------------------------------------------
 *
 * resolve.h
 *		Resolving a migration: its strategy, table, key and job.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_STRATEGY_RESOLVE_H
#define BBM_STRATEGY_RESOLVE_H

#include "base/bbm.h"

#include "catalog/claims.h"
#include "target/target.h"

extern PGDLLEXPORT BbmTarget *bbm_target_open(const BbmMigration *migration);
extern BbmTarget *bbm_target_open_to_read(const BbmMigration *migration);
extern PGDLLEXPORT void bbm_target_close(BbmTarget *target);
extern bool bbm_target_is_current(BbmTarget *target);
extern void bbm_target_check_partitions(BbmTarget *target);
extern void bbm_target_check_verification(BbmTarget *target);
extern int64 bbm_target_estimate(BbmTarget *target);
extern double bbm_target_to_come(BbmTarget *target, const BbmClaimState *state, double allocated);
extern bool bbm_target_is_analyzed(const BbmTarget *target);
extern bool bbm_target_bounds(BbmTarget *target, BbmBound *min, BbmBound *max);
extern void bbm_check_follow(const char *strategy);

#endif							/* BBM_STRATEGY_RESOLVE_H */
