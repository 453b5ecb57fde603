/*-------------------------------------------------------------------------
 *
 * split.h
 *		Halving a range until the rows that cannot be done stand alone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SPLIT_H
#define BBM_SPLIT_H

#include "strategy.h"

extern int64 bbm_split(BbmTarget *target, BbmLeaf *leaf, const BbmJob *job);

#endif							/* BBM_SPLIT_H */
