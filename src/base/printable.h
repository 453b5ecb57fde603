/*-------------------------------------------------------------------------
 *
 * printable.h
 *		Text of users in lines of the server log.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_PRINTABLE_H
#define BBM_BASE_PRINTABLE_H

#include "base/bbm.h"

/* The longest message of a user that is kept, and that is logged, in bytes. */
#define BBM_LONGEST_KEPT 8192
#define BBM_LONGEST_LOGGED 2048

extern const char *bbm_printable(const char *text);
extern char *bbm_shortened(const char *text, int longest);

#endif							/* BBM_BASE_PRINTABLE_H */
