/*-------------------------------------------------------------------------
 *
 * shards.h
 *		Citus, as a node sees it: its shards of a distributed table, and the
 *		record of what is done in each.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_SHARDS_H
#define BBM_CATALOG_SHARDS_H

#include "base/bbm.h"

#include "executor/spi.h"
#include "nodes/pg_list.h"

/* A shard of a migration with shard_id, and where this node records what is done in it. */
typedef struct BbmShard
{
	int64		id;				/* of the table's shard */
	int64		record_id;		/* of the record's shard, colocated with it */
	char	   *low;			/* the hash values that are in it; empty: all */
	char	   *high;
	char	   *record;			/* the record's shard, quoted and qualified */
	int64		epoch;
	bool		integer;		/* the key is one integer */
	bool		has_cursor;		/* as of bbm_shard_enter: everything up to this key is done */
	BbmBound	cursor;
	bool		repairs;		/* the same: what verification has found in it is being done */
	List	   *reads;			/* bigint, as text: other tables' shards that its statement reads */
	SPIPlanPtr	lock;
	SPIPlanPtr	read;
	SPIPlanPtr	note;
	SPIPlanPtr	beside;			/* counts those of "reads" that still belong to it */
} BbmShard;

typedef enum BbmShardState
{
	BBM_SHARD_OURS,				/* locked until the transaction ends: it stays here */
	BBM_SHARD_PAUSED,			/* the same, but somebody has paused the whole migration */
	BBM_SHARD_GONE				/* it is another node's, or another shard's, or the migration was dropped */
} BbmShardState;

/* A shard that this node has, as its record says. */
typedef struct BbmShardRecord
{
	int64		id;
	int64		record_id;		/* of the record's shard */
	char	   *table;			/* the shard, quoted and qualified */
	char	   *low;
	char	   *high;
	char	   *record;
	bool		found;			/* there is a record for exactly these hash values */
	bool		active;			/* the migration as a whole is not paused */
	bool		finished;
	int64		epoch;
	bool		has_cursor;		/* all keys up to this are done */
	BbmBound	cursor;
	int64		rows;
	int64		keys;
	int64		errors;			/* quarantined rows */
	char	   *retries;		/* jsonb, as text: those that are to be tried again; or NULL */
	char	   *definition;		/* jsonb, as text */
	bool		altered;		/* ... since the record was created */
	bool		min_given;		/* ... which has a bound of the range, for all shards */
	bool		max_given;
	char	   *bounds;			/* the same; NULL until the first node has begun with it */
} BbmShardRecord;

extern bool bbm_citus_is_here(void);
extern int	bbm_citus_local_group(void);
extern char *bbm_citus_coordinator(void);
extern Oid	bbm_table_of_shard(Oid relid, const char *number);
extern uint64 bbm_cluster_query(Oid user, const char *sql);
extern void bbm_cluster_command(Oid user, const char *sql);
extern char *bbm_cluster_text(uint64 row, int column);
extern bool bbm_cluster_bool(uint64 row, int column);
extern int64 bbm_cluster_int64(uint64 row, int column);
extern Datum bbm_cluster_array(uint64 row, int column);
extern BbmShard *bbm_shard_open(const BbmMigration *migration, bool integer);
extern void bbm_shard_close(BbmShard *shard);
extern BbmShardState bbm_shard_enter(BbmShard *shard);
extern bool bbm_shard_not_entered(void);
extern char *bbm_shard_read(BbmShard *shard, Oid relid);
extern bool bbm_shard_reads_are_here(BbmShard *shard);
extern void bbm_shard_note(BbmShard *shard, const BbmBound *cursor, int64 rows, int64 keys);
extern void bbm_shard_repairs(BbmShard *shard, bool begun, int64 rows);
extern void bbm_shard_finish(BbmShard *shard);
extern void bbm_shard_record_is_lost(const BbmShard *shard);
extern void bbm_shard_record_lacks(const BbmShardRecord *shard, const char *what);
extern List *bbm_shards_here(const char *record, const char *table);
extern BbmShardState bbm_shard_take_over(BbmShardRecord *shard);

#endif							/* BBM_CATALOG_SHARDS_H */
