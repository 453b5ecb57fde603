/*-------------------------------------------------------------------------
 *
 * null_keys.h
 *		Rows of a migration's table whose batching key is null.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_NULL_KEYS_H
#define BBM_TARGET_NULL_KEYS_H

#include "base/bbm.h"

#include "target/target.h"

extern int64 bbm_null_keys(BbmTarget *target, const char *condition, int64 most, char **table);
extern void bbm_null_keys_check(BbmTarget *target);
extern void bbm_null_keys_warn(BbmTarget *target);

#endif							/* BBM_TARGET_NULL_KEYS_H */
