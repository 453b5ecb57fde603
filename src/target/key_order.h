/*-------------------------------------------------------------------------
 *
 * key_order.h
 *		The order of a batching key, as it is kept with the bounds of ranges.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_KEY_ORDER_H
#define BBM_TARGET_KEY_ORDER_H

#include "base/bbm.h"

#include "target/key.h"

extern char *bbm_key_order_to_string(const BbmKey *key);
extern void bbm_key_keep_order(BbmKey *key, const char *string);
extern char *bbm_key_order_without_oids(const char *string);

#endif							/* BBM_TARGET_KEY_ORDER_H */
