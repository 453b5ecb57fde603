/*-------------------------------------------------------------------------
 *
 * rights.h
 *		Whether a table's rows are what its indexes and partitions show.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_RIGHTS_H
#define BBM_TARGET_RIGHTS_H

#include "base/bbm.h"

#include "target/target.h"

extern void bbm_rights_find(BbmTarget *target);
extern void bbm_rights_check_partition(BbmTarget *target, Oid partition);
extern bool bbm_rights_are_stale(const BbmTarget *target);
extern bool bbm_rights_are_current(BbmTarget *target);
extern void bbm_rights_forget(BbmTarget *target);

#endif							/* BBM_TARGET_RIGHTS_H */
