/*-------------------------------------------------------------------------
 *
 * size.h
 *		How many keys the next batch is to have.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_SIZE_H
#define BBM_TARGET_SIZE_H

#include "base/bbm.h"

#include "base/rates.h"
#include "catalog/claims.h"
#include "target/target.h"

extern void bbm_size_limits(const BbmTarget *target, BbmSizeLimits *limits);
extern bool bbm_size_is_adaptive(const BbmMigration *migration);
extern int	bbm_size_now(BbmTarget *target, const BbmClaimState *state);
extern int	bbm_claim_size(const BbmTarget *target, const BbmClaimState *state, int size);
extern int	bbm_commit_size(const BbmTarget *target, const BbmJob *job);
extern BbmMarks *bbm_marks_prepare(const BbmTarget *target, int keys);
extern int	bbm_job_size(const BbmTarget *target, const BbmJob *job);

#endif							/* BBM_TARGET_SIZE_H */
