/*-------------------------------------------------------------------------
 *
 * breaker.h
 *		Pauses a migration when too many of its newest jobs fail.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_BREAKER_H
#define BBM_ENGINE_BREAKER_H

#include "base/bbm.h"

extern bool bbm_breaker_trips(const BbmMigration *migration, const ErrorData *last, ErrorData **error);

#endif							/* BBM_ENGINE_BREAKER_H */
