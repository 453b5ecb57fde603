/*-------------------------------------------------------------------------
 *
 * error_class.h
 *		What an error means, by its SQLSTATE.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_ERROR_CLASS_H
#define BBM_ENGINE_ERROR_CLASS_H

#include "base/bbm.h"

/* What an error means for a job. */
typedef enum BbmErrorClass
{
	BBM_ERROR_TRANSIENT,		/* requeued, not an attempt */
	BBM_ERROR_DATA,				/* a failed attempt */
	BBM_ERROR_SIZE,				/* a failed attempt, and the next batch is smaller */
	BBM_ERROR_HOPELESS			/* fails the migration now */
} BbmErrorClass;

extern BbmErrorClass bbm_error_class(const ErrorData *error);
extern bool bbm_error_is_lock(int sqlstate);
extern int	bbm_error_code(int sqlstate, int step_code);
extern ErrorData *bbm_error_if_early(const BbmMigration *migration, const ErrorData *error, int step_code);

#endif							/* BBM_ENGINE_ERROR_CLASS_H */
