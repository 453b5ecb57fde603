/*-------------------------------------------------------------------------
 *
 * key_scan.h
 *		The keys of a partition in their order.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_KEY_SCAN_H
#define BBM_TARGET_KEY_SCAN_H

#include "base/bbm.h"

#include "target/key_query.h"
#include "target/target.h"

extern void bbm_key_walk(BbmKeyWalk *walk);
extern bool bbm_key_end(BbmTarget *target, BbmPartition *partition, bool highest, BbmBound *bound);

#endif							/* BBM_TARGET_KEY_SCAN_H */
