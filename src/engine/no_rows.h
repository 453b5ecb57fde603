/*-------------------------------------------------------------------------
 *
 * no_rows.h
 *		Reports a migration whose first batches change no row.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_NO_ROWS_H
#define BBM_ENGINE_NO_ROWS_H

#include "base/bbm.h"

#include "target/target.h"

extern void bbm_no_rows_note(BbmTarget *target, int64 rows);
extern ErrorData *bbm_no_rows_check(BbmTarget *target);

#endif							/* BBM_ENGINE_NO_ROWS_H */
