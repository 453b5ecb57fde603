/*-------------------------------------------------------------------------
 *
 * migrations.h
 *		Migrations: reading, defining and changing them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_MIGRATIONS_H
#define BBM_CATALOG_MIGRATIONS_H

#include "base/bbm.h"

#include "nodes/pg_list.h"
#include "utils/snapshot.h"

#include "catalog/options.h"

/* catalog/migrations.c */
typedef struct BbmRunnable
{
	int64		id;
	BbmStatus	status;
	int			workers;
	int			rank;			/* its priority, which grows while it waits */
	int			others;			/* other processes on it; set by the engine */
	int			position;		/* set by the engine */
} BbmRunnable;

/* The progress of a migration, for messages. */
typedef struct BbmProgress
{
	char	   *percent;
	int64		rows;
	int64		jobs;
	char	   *sqlstate;		/* of the error that made it fail, or NULL */
	char	   *error;
	char	   *detail;
	char	   *hint;
	char	   *last_error;		/* also one after which it tries again, or NULL */
} BbmProgress;

extern bool bbm_migration_is_copy(const char *origin, bool restored);
extern BbmMigration *bbm_migration_by_name(const char *name);
extern bool bbm_migration_is_of(int64 id, Oid owner, Snapshot snapshot);
extern PGDLLEXPORT BbmMigration *bbm_migration_by_id(int64 id, MemoryContext context);
extern bool bbm_migration_definition(int64 id, BbmDefinition *definition);
extern char *bbm_migration_nearest(const char *name, bool (*may_see) (Oid owner));
extern List *bbm_migrations_runnable(Oid owner, MemoryContext context);
extern List *bbm_migrations_with_status(List *statuses);
extern List *bbm_migrations_started(void);
extern void bbm_migrations_refresh_owners(void);
extern List *bbm_runnable_owners(MemoryContext context);
extern PGDLLEXPORT bool bbm_migration_lock(int64 id, BbmStatus *status);
extern bool bbm_migration_is_as_read(const BbmMigration *as_read);
extern bool bbm_migration_lock_as_read(const BbmMigration *as_read, BbmStatus *status);
extern PGDLLEXPORT void bbm_migration_set_started(int64 id, int64 total, Oid table, const BbmBound *min,
												  const BbmBound *max, const char *key_order,
												  BbmPartitionOrder partition_order);
extern void bbm_migration_defined(int64 id, Oid table, bool min_found, bool max_found);
extern void bbm_migration_restart(int64 id, Oid table, const char *job, const BbmBound *min, const BbmBound *max,
								  const char *key_order);
extern void bbm_migration_set_phase(int64 id, BbmPhase phase, const BbmBound *verify_max);
extern void bbm_migration_extend(int64 id, const BbmBound *max, bool follow);
extern void bbm_migration_finish(int64 id);
extern void bbm_migration_fail(int64 id, int code, const ErrorData *error);
extern void bbm_migration_pause(int64 id, const ErrorData *reason);
extern void bbm_migration_reopen(int64 id);
extern PGDLLEXPORT bool bbm_migration_set_status(int64 id, BbmStatus status);
extern int64 bbm_migration_insert(const BbmDefinition *definition);
extern void bbm_migration_recount(const BbmMigration *as_read, int64 total);
extern void bbm_migration_write(int64 id, const BbmDefinition *definition, bool engine);
extern void bbm_migration_delete(int64 id);
extern void bbm_migration_progress(int64 id, MemoryContext context, BbmProgress *progress);

#endif							/* BBM_CATALOG_MIGRATIONS_H */
