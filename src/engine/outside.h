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

/* Around the work of a batch; the end says whether it has. */
extern void bbm_outside_begin(void);
extern bool bbm_outside_end(void);

/* How, in words, in the current memory context.  Until the next batch; in a transaction. */
extern char *bbm_outside_words(void);

#endif							/* BBM_ENGINE_OUTSIDE_H */
