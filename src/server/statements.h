/*-------------------------------------------------------------------------
 *
 * statements.h
 *		The statements of others while a migration runs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SERVER_STATEMENTS_H
#define BBM_SERVER_STATEMENTS_H

#include "base/bbm.h"

extern void bbm_statements_install(void);

#endif							/* BBM_SERVER_STATEMENTS_H */
