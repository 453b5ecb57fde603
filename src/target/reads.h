/*-------------------------------------------------------------------------
 *
 * reads.h
 *		The tables that a statement on a distributed table reads beside it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_READS_H
#define BBM_TARGET_READS_H

#include "base/bbm.h"

#include "target/statement.h"
#include "target/target.h"

extern void bbm_cluster_refuse(Oid relid, const char *detail, const char *hint);
extern void bbm_reads_check_none(Oid relid, const char *condition, const char *what);
extern void bbm_reads_check(Oid relid, const BbmStatementParts *parts);
extern void bbm_reads_resolve(BbmTarget *target);
extern void bbm_reads_parts(const BbmTarget *target, BbmStatementParts *parts);
extern void bbm_reads_check_plan(const BbmTarget *target);

#endif							/* BBM_TARGET_READS_H */
