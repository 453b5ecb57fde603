/*-------------------------------------------------------------------------
 *
 * type_parts.h
 *		What the values of a type consist of.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_TYPE_PARTS_H
#define BBM_TARGET_TYPE_PARTS_H

#include "base/bbm.h"

extern bool bbm_type_contains(Oid type, bool (*is_such) (Oid type));

#endif							/* BBM_TARGET_TYPE_PARTS_H */
