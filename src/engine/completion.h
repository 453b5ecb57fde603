/*-------------------------------------------------------------------------
 *
 * completion.h
 *		What follows when a phase has ended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_COMPLETION_H
#define BBM_ENGINE_COMPLETION_H

#include "base/bbm.h"

#include "target/target.h"

extern bool bbm_phase_ended(BbmTarget *target);

#endif							/* BBM_ENGINE_COMPLETION_H */
