/*-------------------------------------------------------------------------
 *
 * bounds.h
 *		The range of a migration: what its definition gives of it, and the rest.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_BOUNDS_H
#define BBM_SQL_BOUNDS_H

#include "base/bbm.h"

#include "catalog/options.h"
#include "target/target.h"

/* Both ends of a range; NULL when not given. */
typedef struct BbmBounds
{
	BbmBound   *min;
	BbmBound   *max;
} BbmBounds;

extern BbmBounds bbm_bounds_given(const BbmDefinition *d);
extern void bbm_bounds_check(const BbmTarget *target, const BbmDefinition *d, const BbmBounds *bounds);
extern void bbm_bounds_complete(BbmBounds *bounds, const BbmKey *key, const BbmBound *first, const BbmBound *last);
extern void bbm_bounds_fix(BbmTarget *target, BbmBounds *bounds);

#endif							/* BBM_SQL_BOUNDS_H */
