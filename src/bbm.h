/*-------------------------------------------------------------------------
 *
 * bbm.h
 *		Names, codes and row structs that every file of bbm shares.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_H
#define BBM_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/itemptr.h"
#include "utils/elog.h"

/* Of the library; pg_extension.extversion must say the same. */
#define BBM_VERSION "1.0"

/* A name is shown in logs, notifications and error messages: keep it readable. */
#define BBM_MAX_NAME_LENGTH 512
#define BBM_MAX_WORKERS_PER_MIGRATION 256
#define BBM_MAX_ATTEMPTS 100

/* batched_background_migrations.status, and that of a job (1 is "new" there) */
typedef enum BbmStatus
{
	BBM_PAUSED = 0,
	BBM_ACTIVE = 1,
	BBM_FINISHED = 2,
	BBM_FAILED = 3,
	BBM_RUNNING = 4
} BbmStatus;

#define BBM_JOB_NEW BBM_ACTIVE

/* failure_error_code, in both tables */
typedef enum BbmFailureCode
{
	BBM_CODE_UNKNOWN = 0,
	BBM_CODE_TABLE = 1,
	BBM_CODE_COLUMN = 2,
	BBM_CODE_SIGNATURE = 3,
	BBM_CODE_ATTEMPTS = 4,
	BBM_CODE_STRATEGY = 5
} BbmFailureCode;

/* The settings that a migration has of its own; see guc.c. */
typedef struct BbmOverrides BbmOverrides;

/* A row of batched_background_migrations, as far as C needs it. */
typedef struct BbmMigration
{
	int64		id;
	char	   *name;
	BbmStatus	status;
	TimestampTz updated_at;		/* 0 when NULL; tells a changed row from a known one */
	int64		min_value;
	int64		max_value;
	int			batch_size;
	int			sub_batch_size; /* 0 when NULL: one commit a job */
	char	   *job;
	char	   *table_name;
	char	   *column_name;
	char	   *strategy;		/* NULL for the default */
	int			workers;
	int			max_attempts;
	bool		share_table;
	bool		synchronous;
	char	   *search_path;
	Oid			owner;
	char	   *home;			/* NULL when never started */
	Oid			table_oid;		/* as last resolved by a worker */
	bool		counted;		/* total_tuple_count is set */
	const BbmOverrides *overrides;	/* NULL: the server's settings are its */
} BbmMigration;

/* A row of batched_background_migration_jobs that this process has claimed. */
typedef struct BbmJob
{
	int64		id;
	int64		migration_id;
	int64		min_value;
	int64		max_value;
	bool		has_cursor;		/* part of it is done and committed ... */
	int64		cursor;			/* ... up to and including this key */
	int			attempts;
	int			claim_no;		/* fencing token: somebody else's claim raises it */
	int64		key_count;
	ItemPointerData tid;		/* of its row, while we have that locked */
} BbmJob;

#endif							/* BBM_H */
