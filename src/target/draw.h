/*-------------------------------------------------------------------------
 *
 * draw.h
 *		Places in a table, drawn at random, at which batches may begin.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_DRAW_H
#define BBM_TARGET_DRAW_H

#include "base/bbm.h"

#include "nodes/pg_list.h"

#include "catalog/claims.h"
#include "target/target.h"

typedef struct BbmDraw
{
	Oid			relation;		/* the table or partition that has the row */
	BbmBound	first;			/* its key, or its block */
} BbmDraw;

extern List *bbm_draw(BbmTarget *target, const BbmClaimState *state, int n, const char *condition);

#endif							/* BBM_TARGET_DRAW_H */
