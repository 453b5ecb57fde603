/*-------------------------------------------------------------------------
 *
 * shard_records.h
 *		The record of a migration of a distributed table, as the coordinator
 *		sees it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_SHARD_RECORDS_H
#define BBM_CATALOG_SHARD_RECORDS_H

#include "base/bbm.h"

#include "catalog/distribution.h"

/* What the nodes have reported. */
typedef struct BbmClusterReport
{
	char	   *shards;			/* a jsonb array, as text */
	int			nodes;
	int			silent;			/* nodes that have not answered, or not with such an array ... */
	int			lacking;		/* ... of these: that have no record of the migration */
	char	   *silent_nodes;	/* ... which; or NULL */
	char	   *trouble;		/* ... and why; or NULL */
} BbmClusterReport;

/* What they come to. */
typedef struct BbmClusterState
{
	int			shards;			/* that the table has */
	int			finished;
	int			failed;
	int			not_right;		/* ... of these, by verification */
	int64		found;			/* ... which has found so many rows in them */
	int			held;			/* that are paused in their record */
	int			missing;		/* of which there is no report */
	int			unrecorded;		/* ... of which there is no record, after a split */
	int64		errors;			/* quarantined rows, as far as they are reported */
	int64		keys;			/* done, of all shards */
	int64		total;			/* ... of so many; 0: not known yet */
	char	   *failure;		/* of the first that has failed */
	char	   *detail;			/* ... of that, or NULL */
	char	   *sqlstate;
	char	   *failed_shard;
	char	   *waiting;		/* what one of the others waits for, or NULL */
	bool		same_table;		/* the table and its record are still colocated */
} BbmClusterState;

extern char *bbm_shard_record_create(int64 migration_id, Oid relid, const BbmDistribution *distribution, Oid owner,
									 bool active);
extern void bbm_shard_record_drop(Oid owner, const char *record);
extern bool bbm_shard_record_is_here(Oid user, const char *record);
extern bool bbm_shard_record_is_foreign(const char *record);
extern void bbm_shard_record_activate(Oid owner, const char *record, bool active);
extern void bbm_shard_record_define(Oid owner, const char *record, int64 migration_id);
extern int	bbm_shard_records_complete(Oid owner, const char *record, Oid relid, int reported);
extern char *bbm_cluster_nodes_ready(const char *command, const char *version);
extern char *bbm_shards_record_command(const char *record);
extern char *bbm_shards_sync_command(const char *record, const char *table, const char *action);
extern void bbm_cluster_ask(Oid user, const char *record, const char *command, BbmClusterReport *report);
extern void bbm_cluster_state(const char *record, Oid relid, const char *shards, BbmClusterState *state);
extern void bbm_cluster_show(int64 migration_id, const char *shards, bool complete);
extern void bbm_cluster_show_unfinished(int64 migration_id);

#endif							/* BBM_CATALOG_SHARD_RECORDS_H */
