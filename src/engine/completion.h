/*-------------------------------------------------------------------------
 *
 * completion.h
 *		What follows when a pass over the table has ended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_COMPLETION_H
#define BBM_ENGINE_COMPLETION_H

#include "base/bbm.h"

#include "target/target.h"

extern bool bbm_pass_ended(BbmTarget *target);

#endif							/* BBM_ENGINE_COMPLETION_H */
