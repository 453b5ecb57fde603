/*-------------------------------------------------------------------------
 *
 * import.h
 *		Rows of the GitLab container registry's own tables, and their import.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_IMPORT_H
#define BBM_CATALOG_IMPORT_H

#include "base/bbm.h"

/* A row of the GitLab container registry's jobs.  Times are 0 when NULL, a code is -1. */
typedef struct BbmForeignJob
{
	int64		id;
	int64		migration_id;
	TimestampTz created_at;
	TimestampTz started_at;
	TimestampTz finished_at;
	int64		min;
	int64		max;
	int			status;
	int			code;
	int			attempts;
	int64		keys;			/* upper limit */
} BbmForeignJob;

/* A row of the GitLab container registry's migrations; the same for NULLs. */
typedef struct BbmForeignMigration
{
	int64		id;
	char	   *name;
	TimestampTz created_at;
	TimestampTz started_at;
	TimestampTz finished_at;
	int64		min;
	int64		max;
	int			batch_size;
	int			sub_batch_size;
	int			status;
	char	   *job;
	char	   *table_name;
	char	   *column_name;
	int			code;
	char	   *strategy;		/* or NULL */
	int64		total;			/* -1: not known */
	BbmForeignJob *jobs;		/* in the order of their ids */
	int			n_jobs;
	int			n_finished;
	bool		has_last;		/* a job has finished ... */
	int64		last;			/* ... and the newest finished one ends here */
} BbmForeignMigration;

extern int64 bbm_import_migration(const BbmForeignMigration *m, BbmStatus status, const char *search_path,
								  const char *owner);
extern void bbm_import_jobs(int64 id, const BbmForeignMigration *m, const BbmForeignJob *jobs, int n);
extern char *bbm_import_last_event(int64 id);

#endif							/* BBM_CATALOG_IMPORT_H */
