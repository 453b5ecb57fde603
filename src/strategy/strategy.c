/*-------------------------------------------------------------------------
 *
 * strategy.c
 *		The strategies there are.
 *
 *-------------------------------------------------------------------------
 */
#include "strategy/strategy.h"

#include "lib/stringinfo.h"

#include "target/target.h"

static const BbmStrategy *const strategies[] = {
	&bbm_strategy_serial,
	&bbm_strategy_null,
	&bbm_strategy_loose,
	&bbm_strategy_block
};

/* Finds the strategy that a migration's batching_strategy names; NULL if there is none. */
const BbmStrategy *
bbm_strategy_find(const char *name)
{
	if (name == NULL)
		return &bbm_strategy_serial;
	for (int i = 0; i < lengthof(strategies); i++)
	{
		if (strcmp(strategies[i]->name, name) == 0)
			return strategies[i];
	}
	return NULL;
}

void
bbm_unknown_strategy(const char *name)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < lengthof(strategies); i++)
		appendStringInfo(&names, "%s%s", i == 0 ? "" : i == lengthof(strategies) - 1 ? " and " : ", ",
						 strategies[i]->name);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("batching strategy \"%s\" does not exist", name),
			 errdetail("The strategies are %s.", names.data),
			 errhint("Leave it NULL for SerialKeySetBatchingStrategy.")));
}
