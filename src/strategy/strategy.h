/*-------------------------------------------------------------------------
 *
 * strategy.h
 *		How a table is split into ranges: a table of functions, one file each.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_STRATEGY_STRATEGY_H
#define BBM_STRATEGY_STRATEGY_H

#include "base/bbm.h"

#include "access/xlogdefs.h"
#include "executor/spi.h"
#include "storage/block.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"

#include "target/target.h"

extern const BbmStrategy *bbm_strategy_find(const char *name);
extern void bbm_unknown_strategy(const char *name);

/* one file for each */
extern const BbmStrategy bbm_strategy_serial;
extern const BbmStrategy bbm_strategy_loose;
extern const BbmStrategy bbm_strategy_null;
extern const BbmStrategy bbm_strategy_block;

#endif							/* BBM_STRATEGY_STRATEGY_H */
