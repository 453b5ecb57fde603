/*-------------------------------------------------------------------------
 *
 * sample.h
 *		How many rows a table has, by some of its pages.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_SAMPLE_H
#define BBM_TARGET_SAMPLE_H

#include "base/bbm.h"

#include "target/target.h"

typedef struct BbmSampleOfRows
{
	double		rows;			/* in the table, estimated */
	double		in_range;		/* of these, the rows that the migration is about, by its key or column */
	int64		seen;			/* how many of the latter were read; as many as there are if "complete" */
	bool		complete;		/* all pages were read */
} BbmSampleOfRows;

extern void bbm_sample_rows(BbmTarget *target, List *relations, BbmSampleOfRows *sample);

#endif							/* BBM_TARGET_SAMPLE_H */
