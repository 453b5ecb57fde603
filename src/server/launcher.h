/*-------------------------------------------------------------------------
 *
 * launcher.h
 *		The one static background worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SERVER_LAUNCHER_H
#define BBM_SERVER_LAUNCHER_H

#include "base/bbm.h"

extern PGDLLEXPORT void bbm_launcher_main(Datum arg);
extern void bbm_launcher_register(void);

#endif							/* BBM_SERVER_LAUNCHER_H */
