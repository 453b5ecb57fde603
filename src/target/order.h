/*-------------------------------------------------------------------------
 *
 * order.h
 *		Whether a migration processes the partitions of a table one by one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_ORDER_H
#define BBM_TARGET_ORDER_H

#include "base/bbm.h"

#include "target/target.h"

extern BbmPartitionOrder bbm_partition_order(const BbmTarget *target);
extern bool bbm_order_key_leads(const BbmTarget *target);
extern bool bbm_order_is_default(Oid root, Oid relid);
extern char *bbm_order_default_key(Oid relid, const char *columns);

#endif							/* BBM_TARGET_ORDER_H */
