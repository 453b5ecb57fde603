/*-------------------------------------------------------------------------
 *
 * books.h
 *		Keeping the sums over a migration's jobs, and merging old jobs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_BOOKS_H
#define BBM_ENGINE_BOOKS_H

#include "base/bbm.h"

#include "target/target.h"

extern void bbm_books_resume(BbmTarget *target);
extern ErrorData *bbm_books_keep(BbmTarget *target);

#endif							/* BBM_ENGINE_BOOKS_H */
