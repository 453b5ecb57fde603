/*-------------------------------------------------------------------------
 *
 * printable.h
 *		Text of users in lines of the server log.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_PRINTABLE_H
#define BBM_PRINTABLE_H

extern const char *bbm_printable(const char *text);

#endif							/* BBM_PRINTABLE_H */
