/*-------------------------------------------------------------------------
 *
 * arguments.h
 *		The arguments of a call, by the names of the function's parameters.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_ARGUMENTS_H
#define BBM_SQL_ARGUMENTS_H

#include "base/bbm.h"

#include "fmgr.h"

#include "catalog/options.h"

typedef struct BbmArguments
{
	FunctionCallInfo fcinfo;
	int			n;
	int			required;		/* the first so many have no default */
	char	  **names;
	Oid		   *types;
} BbmArguments;

extern BbmArguments bbm_arguments(FunctionCallInfo fcinfo);
extern bool bbm_argument_is_true(const BbmArguments *arguments, const char *name);
extern char *bbm_argument_text(const BbmArguments *arguments, const char *name);
extern void bbm_arguments_read(const BbmArguments *arguments, bool all, BbmDefinition *d);
extern Datum bbm_result_row(FunctionCallInfo fcinfo, int n, Datum *values, bool *nulls);
extern void bbm_argument_require(bool given, const char *name, bool has_default);

#endif							/* BBM_SQL_ARGUMENTS_H */
