/*-------------------------------------------------------------------------
 *
 * strategy.c
 *		The strategies there are.
 *
 *-------------------------------------------------------------------------
 */
#include "strategy.h"

static const BbmStrategy *const strategies[] = {
	&bbm_strategy_serial,
	&bbm_strategy_null
};

/* The strategy a migration's batching_strategy names, or NULL. */
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

/* Do its jobs have ranges that lie beside each other? */
bool
bbm_strategy_is_keyed(const BbmStrategy *strategy)
{
	return !strategy->one_at_a_time;
}
