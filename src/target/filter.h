/*-------------------------------------------------------------------------
 *
 * filter.h
 *		Does a statement end its own filter?
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_FILTER_H
#define BBM_TARGET_FILTER_H

#include "base/bbm.h"

#include "target/statement.h"

extern bool bbm_statement_ends_filter(Oid relid, const BbmStatementParts *parts);

#endif							/* BBM_TARGET_FILTER_H */
