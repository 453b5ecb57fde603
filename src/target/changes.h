/*-------------------------------------------------------------------------
 *
 * changes.h
 *		What a batch has changed in the rows of its range.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_CHANGES_H
#define BBM_TARGET_CHANGES_H

#include "base/bbm.h"

#include "executor/spi.h"
#include "utils/snapshot.h"

#include "target/target.h"

/* A version of a row. */
typedef struct BbmRowVersion
{
	Oid			relation;
	ItemPointerData tid;
} BbmRowVersion;

/* The rows of a range before a batch; see bbm_changes_begin. */
typedef struct BbmChanges
{
	BbmTarget  *target;
	BbmPartition *partition;
	const BbmRange *range;
	Snapshot	before;
	int			n;				/* rows of the range */
	BbmRowVersion *rows;
	SPIPlanPtr	image;			/* reads a version of a row as jsonb */
	SPIPlanPtr	difference;		/* reduces two of them to what differs */
} BbmChanges;

typedef struct BbmChange
{
	const char *operation;		/* "update", "delete" or "insert" */
	BbmRowVersion row;			/* the version before, or the new one if it was inserted */
	Datum		key;			/* jsonb */
	Datum		before;			/* jsonb, or 0: of an update, the columns that have changed */
	Datum		after;
} BbmChange;

typedef bool (*BbmChangeFn) (const BbmChange *change, void *arg);

extern bool bbm_changes_possible(const BbmTarget *target, const BbmPartition *partition);
extern void bbm_changes_begin(BbmChanges *changes);
extern void bbm_changes_end(BbmChanges *changes, bool (*wanted) (const BbmRowVersion *row, void *arg), BbmChangeFn fn,
							void *arg);

#endif							/* BBM_TARGET_CHANGES_H */
