/*-------------------------------------------------------------------------
 *
 * truncate.h
 *		A TRUNCATE of a migration's table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SERVER_TRUNCATE_H
#define BBM_SERVER_TRUNCATE_H

#include "postgres.h"

extern void bbm_truncate_install(void);

#endif							/* BBM_SERVER_TRUNCATE_H */
