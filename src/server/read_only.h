/*-------------------------------------------------------------------------
 *
 * read_only.h
 *		Statements on a standby that would change our tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SERVER_READ_ONLY_H
#define BBM_SERVER_READ_ONLY_H

#include "postgres.h"

extern void bbm_read_only_install(void);

#endif							/* BBM_SERVER_READ_ONLY_H */
