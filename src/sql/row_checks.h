/*-------------------------------------------------------------------------
 *
 * row_checks.h
 *		Checks of what a migration's row itself shows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_ROW_CHECKS_H
#define BBM_SQL_ROW_CHECKS_H

#include "sql/row.h"

extern void bbm_check_name(BbmRow row);
extern void bbm_check_row(BbmRow row);
extern void bbm_show_composed(const BbmRow *old, BbmRow *new);
extern void bbm_check_settings(BbmRow row);
extern void bbm_check_new_settings(BbmRow old, BbmRow new);
extern void bbm_notice_units(const BbmRow *old, BbmRow new);

#endif							/* BBM_SQL_ROW_CHECKS_H */
