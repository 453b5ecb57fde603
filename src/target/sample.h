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
	double		to_come;		/* of these, those for which no range was allocated yet */
	int64		seen;			/* how many of those in the range were read; as many as there are if "complete" */
	int64		seen_to_come;	/* the same of those to come, ... */
	int64		read;			/* ... and of all rows */
	bool		by_pages;		/* no relation is one whose pages are not to be read */
	bool		complete;		/* all pages were read */
} BbmSampleOfRows;

/* How far ranges were allocated in one of the relations. */
typedef struct BbmSampled
{
	Oid			relation;
	bool		allocated;		/* all of it */
	const BbmBound *after;		/* else up to here; NULL: nothing */
} BbmSampled;

extern void bbm_sample_rows(BbmTarget *target, List *sampled, BbmSampleOfRows *sample);

#endif							/* BBM_TARGET_SAMPLE_H */
