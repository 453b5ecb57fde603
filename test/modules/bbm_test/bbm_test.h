/*-------------------------------------------------------------------------
 *
 * bbm_test.h
 *		What the files of this module share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TEST_H
#define BBM_TEST_H

#include "postgres.h"

#include "fmgr.h"

extern double *bbm_test_numbers(FunctionCallInfo fcinfo, int arg, int *n);

#endif							/* BBM_TEST_H */
