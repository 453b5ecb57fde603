/*-------------------------------------------------------------------------
 *
 * outside.h
 *		Does a batch reach outside of this server?
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_OUTSIDE_H
#define BBM_ENGINE_OUTSIDE_H

#include "postgres.h"

extern void bbm_outside_install(void);

/* Called around the work of a batch; bbm_outside_end returns whether it has. */
extern void bbm_outside_begin(void);
extern bool bbm_outside_end(void);

/* Describes how, in the current memory context.  Valid until the next batch; needs a transaction. */
extern char *bbm_outside_to_string(void);

#endif							/* BBM_ENGINE_OUTSIDE_H */
