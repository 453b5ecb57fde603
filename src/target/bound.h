/*-------------------------------------------------------------------------
 *
 * bound.h
 *		The bounds of ranges: comparing and keeping them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_BOUND_H
#define BBM_TARGET_BOUND_H

#include "base/bbm.h"

#include "target/target.h"

extern int bbm_key_compare_bounds(const BbmKey *key, const BbmBound *a, const BbmBound *b);
extern PGDLLEXPORT BbmBound bbm_key_later(const BbmKey *key, const BbmBound *a, const BbmBound *b);
extern BbmBound bbm_bound_copy(const BbmBound *bound);
extern void bbm_bound_replace(BbmBound *kept, BbmBound bound);

#endif							/* BBM_TARGET_BOUND_H */
