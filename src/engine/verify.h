/*-------------------------------------------------------------------------
 *
 * verify.h
 *		Counting the rows that are not as they should be.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_VERIFY_H
#define BBM_ENGINE_VERIFY_H

#include "base/bbm.h"

#include "target/target.h"

extern bool bbm_verifies_beyond(const BbmTarget *target);
/* How a migration fails that has not done what it should: with the number of rows. */
#define BBM_VERIFICATION_FOUND "verification found " INT64_FORMAT " rows that are not as they should be"
#define BBM_VERIFICATION_HINT "Start the migration again: they are done, and it is verified anew."

extern bool bbm_has_condition(const BbmTarget *target);
extern bool bbm_verifies_by_check(const BbmTarget *target, int round);
extern int64 bbm_verify_range(BbmTarget *target, BbmPartition *partition, const BbmRange *range, bool by_check);
extern int64 bbm_verify_blocks(BbmTarget *target, BbmPartition *partition, bool by_check);
extern bool bbm_verifies_whole(const BbmTarget *target, const BbmJob *job);
extern int64 bbm_check_all(BbmTarget *target, int round);

#endif							/* BBM_ENGINE_VERIFY_H */
