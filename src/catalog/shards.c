/*-------------------------------------------------------------------------
 *
 * shards.c
 *		Citus, as a node sees it: its shards of a distributed table, and the
 *		record of what is done in each.
 *
 * NOTES
 *	  The rows of a distributed table are in shards, ordinary tables that move
 *	  from node to node.  What is done in a shard is recorded in a shard of
 *	  another distributed table, the record, which is colocated with the first
 *	  one: Citus moves and splits both together.  A batch and its record are
 *	  one local transaction of the node that has both.
 *
 *	  Whoever moves or splits a shard takes ExclusiveLock on its metadata, on
 *	  all nodes, before the last changes are copied, and holds it until the new
 *	  place is committed everywhere.  A batch takes ShareLock there first, as
 *	  Citus's own writers do, and then checks that the shard is still here.  The
 *	  metadata lock of colocated shards is one lock (and where it is not, all of
 *	  them are locked), so we lock that of the record, which belongs to the
 *	  migration's owner as Citus demands.
 *
 *	  Citus is only looked up in the catalogs and called by the names of its
 *	  functions: there is nothing to build against.  The statements run as the
 *	  migration's owner and not as the extension's, since the record is his.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/shards.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "parser/parser.h"
#include "tcop/dest.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "base/guc.h"
#include "base/spi.h"
#include "base/user.h"

/*
 * This transaction is entering a shard; still set after an error that it has
 * met there.
 */
static bool entering = false;

/* The state of a placement that has the shard's rows. */
#define PLACEMENT_IS_ACTIVE "p.shardstate = 1"

/* Is Citus in this database, and not just a table of that name? */
bool
bbm_citus_is_here(void)
{
	return OidIsValid(get_extension_oid("citus", true));
}

typedef struct As
{
	int			level;
	Oid			user;
	int			context;
} As;

/* What follows runs as this user, until end_as with what this returns. */
static As
begin_as(Oid user)
{
	As			before = {.level = NewGUCNestLevel()};

	GetUserIdAndSecContext(&before.user, &before.context);
	bbm_guc_set("search_path", BBM_SEARCH_PATH, true);
	if (user != before.user)
		SetUserIdAndSecContext(user, before.context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	return before;
}

static void
end_as(const As *before)
{
	SetUserIdAndSecContext(before->user, before->context);
	AtEOXact_GUC(false, before->level);
}

/*
 * Runs a statement of ours over tables of Citus and of the user's as this
 * user, with the search_path of our own statements.  Returns the number of
 * rows, which are in SPI_tuptable.  An error restores user and settings with
 * the (sub)transaction.
 */
uint64
bbm_cluster_query(Oid user, const char *sql)
{
	As			before = begin_as(user);

	(void) bbm_spi_execute(sql, false, 0);
	end_as(&before);
	return SPI_processed;
}

/*
 * The same for a utility command, as if the user had sent it: what Citus does
 * with a table that is created in a distributed schema, it does for such
 * commands alone.
 */
void
bbm_cluster_command(Oid user, const char *sql)
{
	As			before = begin_as(user);
	PlannedStmt *command = makeNode(PlannedStmt);
	QueryCompletion completion;

	command->commandType = CMD_UTILITY;
	command->canSetTag = true;
	command->utilityStmt = linitial_node(RawStmt, raw_parser(sql, RAW_PARSE_DEFAULT))->stmt;
	InitializeQueryCompletion(&completion);
	ProcessUtility(command, sql, false, PROCESS_UTILITY_TOPLEVEL, NULL, NULL, None_Receiver, &completion);
	CommandCounterIncrement();
	end_as(&before);
}

/* NULL when NULL. */
char *
bbm_cluster_text(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

/* false when NULL. */
bool
bbm_cluster_bool(uint64 row, int column)
{
	char	   *text = bbm_cluster_text(row, column);

	return text && strcmp(text, "t") == 0;
}

/* 0 when NULL. */
int64
bbm_cluster_int64(uint64 row, int column)
{
	char	   *text = bbm_cluster_text(row, column);

	return text ? DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(text))) : 0;
}

/* A text[], in the current memory context; none when NULL. */
Datum
bbm_cluster_array(uint64 row, int column)
{
	char	   *text = bbm_cluster_text(row, column);

	return text ? OidInputFunctionCall(F_ARRAY_IN, text, TEXTOID, -1) : (Datum) 0;
}

/* The number of this node's group; 0 is the coordinator's. */
int
bbm_citus_local_group(void)
{
	return bbm_cluster_query(GetUserId(), "SELECT groupid FROM pg_catalog.pg_dist_local_group") > 0 ?
		(int) bbm_cluster_int64(0, 1) : -1;
}

/* The coordinator as host:port, if this is another node of its cluster and knows it; else NULL.  Needs SPI. */
char *
bbm_citus_coordinator(void)
{
	if (!bbm_citus_is_here() ||
		bbm_cluster_query(GetUserId(),
						  "SELECT n.nodename || ':' || n.nodeport FROM pg_catalog.pg_dist_node n "
						  "CROSS JOIN pg_catalog.pg_dist_local_group g "
						  "WHERE n.groupid = 0 AND n.noderole = 'primary' AND g.groupid <> 0") != 1)
		return NULL;
	return bbm_cluster_text(0, 1);
}

/* The name of a shard of a table, quoted and qualified, in SQL; Citus may leave out a schema. */
#define SHARD_NAME(rel, shard) \
	"(SELECT CASE WHEN starts_with(n.shard, n.schema || '.') THEN n.shard ELSE n.schema || '.' || n.shard END " \
	"FROM (SELECT shard_name(" rel ", " shard ") AS shard, quote_ident(schemas.nspname) AS schema " \
	"FROM pg_class tables JOIN pg_namespace schemas ON schemas.oid = tables.relnamespace WHERE tables.oid = " rel ") n)"

/* The shards of two colocated tables with the same hash values. */
#define SAME_HASHES \
	"r.shardminvalue IS NOT DISTINCT FROM t.shardminvalue AND r.shardmaxvalue IS NOT DISTINCT FROM t.shardmaxvalue"

/*
 * The distributed table that this table, whose name ends with this number, is a
 * shard of; InvalidOid if it is none.  Citus hides shards from those who read
 * pg_class.
 */
Oid
bbm_table_of_shard(Oid relid, const char *number)
{
	if (!bbm_citus_is_here() ||
		bbm_cluster_query(GetUserId(),
						  psprintf("SELECT s.logicalrelid::oid FROM pg_catalog.pg_dist_shard s WHERE s.shardid = %s "
								   "AND to_regclass(" SHARD_NAME("s.logicalrelid", "s.shardid") ") = %u::oid",
								   number, relid)) == 0)
		return InvalidOid;
	return (Oid) bbm_cluster_int64(0, 1);
}

static SPIPlanPtr
prepare(const char *sql, int nargs, Oid *types)
{
	SPIPlanPtr	plan = bbm_spi_prepare(sql, nargs, types, CURSOR_OPT_GENERIC_PLAN);

	bbm_spi_keep(plan);
	return plan;
}

/*
 * Finds where this node records what is done in the migration's shard, in the
 * current memory context; NULL when that is not here any more.  bbm writes no
 * migration of a shard without a record, but the owner of the tables may.
 */
BbmShard *
bbm_shard_open(const BbmMigration *migration, bool integer)
{
	BbmShard   *shard;

	if (migration->shard_record == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("migration \"%s\" is about a shard, and has no record of it", migration->name),
				 errdetail("Its shard_id is " INT64_FORMAT ", and its shard_record is NULL.", migration->shard_id),
				 errhint("bbm_drop it: the coordinator has the migration of the whole table.")));
	(void) bbm_cluster_query(GetUserId(),
							 psprintf("SELECT r.shardid, coalesce(t.shardminvalue, ''), coalesce(t.shardmaxvalue, ''), %s "
									  "FROM pg_catalog.pg_dist_shard t JOIN pg_catalog.pg_dist_shard r ON %s "
									  "WHERE t.shardid = " INT64_FORMAT " AND r.logicalrelid = to_regclass(%s)",
									  SHARD_NAME("r.logicalrelid", "r.shardid"), SAME_HASHES, migration->shard_id,
									  quote_literal_cstr(migration->shard_record)));
	if (SPI_processed != 1)
		return NULL;
	shard = palloc0(sizeof(BbmShard));
	shard->id = migration->shard_id;
	shard->epoch = migration->shard_epoch;
	shard->integer = integer;
	shard->record_id = bbm_cluster_int64(0, 1);
	shard->low = bbm_cluster_text(0, 2);
	shard->high = bbm_cluster_text(0, 3);
	shard->record = bbm_cluster_text(0, 4);
	return shard;
}

void
bbm_shard_close(BbmShard *shard)
{
	if (shard == NULL)
		return;
	if (shard->lock)
		SPI_freeplan(shard->lock);
	if (shard->read)
		SPI_freeplan(shard->read);
	if (shard->note)
		SPI_freeplan(shard->note);
	if (shard->beside)
		SPI_freeplan(shard->beside);
	shard->lock = shard->read = shard->note = shard->beside = NULL;
}

/*
 * The lock is taken by the function, if the shard exists; the record's shard
 * is looked up by its name again, as the migration may have been dropped.
 */
static bool
lock_shard(BbmShard *shard)
{
	Datum		values[] = {Int64GetDatum(shard->record_id), CStringGetTextDatum(shard->record)};

	if (shard->lock == NULL)
		shard->lock = prepare("SELECT lock_shard_metadata(5, ARRAY[s.shardid]) FROM pg_catalog.pg_dist_shard s "
							  "WHERE s.shardid = $1 AND to_regclass($2) IS NOT NULL", 2, (Oid[]) {INT8OID, TEXTOID});
	return bbm_spi_execute_plan(shard->lock, values, NULL, false, 0) == SPI_OK_SELECT && SPI_processed == 1;
}

/*
 * Keeps the shard where it is, until the transaction ends, if it is here, and
 * locks its record.  This comes before anything else that the transaction does
 * in the shard.  The second statement has a snapshot of its own, from after
 * the lock: it sees where the shard is now, and whether somebody has paused the
 * migration.  A pause does not lock the record, so it does not wait for a
 * batch, nor does a batch for the pause.  Nobody else takes the shard over
 * until we end; whoever did so before has raised the epoch.
 */
BbmShardState
bbm_shard_enter(BbmShard *shard)
{
	Datum		values[] = {
		Int64GetDatum(shard->id), Int64GetDatum(shard->epoch), CStringGetTextDatum(shard->low),
		CStringGetTextDatum(shard->high)
	};
	Datum		number;
	bool		isnull;

	entering = true;
	if (!lock_shard(shard))
	{
		entering = false;
		return BBM_SHARD_GONE;
	}
	if (shard->read == NULL)
		shard->read = prepare(psprintf("SELECT c.active, r.cursor_value, r.cursor_key, r.repairs FROM pg_catalog.pg_dist_placement p "
									   "JOIN pg_catalog.pg_dist_local_group g ON g.groupid = p.groupid "
									   "JOIN pg_catalog.pg_dist_shard s ON s.shardid = p.shardid "
									   "CROSS JOIN %s r JOIN %s c ON c.low = r.low AND c.high = r.high AND c.kind = 'control' "
									   "WHERE p.shardid = $1 AND " PLACEMENT_IS_ACTIVE " AND r.kind = 'shard' "
									   "AND r.low = $3 AND r.high = $4 AND coalesce(s.shardminvalue, '') = $3 "
									   "AND coalesce(s.shardmaxvalue, '') = $4 AND r.epoch = $2 AND r.state <> 'finished' "
									   "FOR UPDATE OF r", shard->record, shard->record),
							  4, (Oid[]) {INT8OID, INT8OID, TEXTOID, TEXTOID});
	(void) bbm_spi_execute_plan(shard->read, values, NULL, false, 0);
	entering = false;
	if (SPI_processed != 1)
		return BBM_SHARD_GONE;
	number = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	shard->has_cursor = !isnull;
	shard->cursor.number = isnull ? 0 : DatumGetInt64(number);
	shard->cursor.key = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &isnull);
	if (isnull)
		shard->cursor.key = (Datum) 0;
	shard->repairs = bbm_cluster_bool(0, 4);
	return bbm_cluster_bool(0, 1) ? BBM_SHARD_OURS : BBM_SHARD_PAUSED;
}

/*
 * Has the last transaction ended because it could not enter a shard?  Somebody
 * is moving it, has just split it, or has dropped the migration: Citus raises
 * errors of its own then, which are not the migration's fault.
 */
bool
bbm_shard_not_entered(void)
{
	bool		before = entering;

	entering = false;
	return before;
}

/*
 * A shard here, s, that a statement on the shard whose number and hash values
 * these are may read in place of its table: the copy of a reference table, or
 * the shard of a colocated table that has the same hash values.
 */
#define SHARDS_BESIDE(id, low, high) \
	"pg_catalog.pg_dist_shard s JOIN pg_catalog.pg_dist_partition t ON t.logicalrelid = s.logicalrelid " \
	"JOIN pg_catalog.pg_dist_placement p ON p.shardid = s.shardid AND " PLACEMENT_IS_ACTIVE \
	" JOIN pg_catalog.pg_dist_local_group g ON g.groupid = p.groupid WHERE ((t.partmethod = 'n' AND t.repmodel = 't') OR " \
	"(coalesce(s.shardminvalue, '') = " low " AND coalesce(s.shardmaxvalue, '') = " high " AND t.colocationid = " \
	"(SELECT o.colocationid FROM pg_catalog.pg_dist_partition o JOIN pg_catalog.pg_dist_shard m ON m.logicalrelid = o.logicalrelid " \
	"WHERE m.shardid = " id " AND o.colocationid > 0)))"

/*
 * The shard that is to be read in place of this table, quoted and qualified;
 * NULL if it is not here, or the table is of another kind.
 */
char *
bbm_shard_read(BbmShard *shard, Oid relid)
{
	char	   *name;

	if (bbm_cluster_query(GetUserId(),
						  psprintf("SELECT s.shardid, %s FROM " SHARDS_BESIDE("%s", "%s", "%s") " AND s.logicalrelid = %u",
								   SHARD_NAME("s.logicalrelid", "s.shardid"), quote_literal_cstr(shard->low),
								   quote_literal_cstr(shard->high), psprintf(INT64_FORMAT, shard->id), relid)) != 1)
		return NULL;
	name = bbm_cluster_text(0, 2);
	shard->reads = lappend(shard->reads, bbm_cluster_text(0, 1));
	return name;
}

/*
 * Are the shards that its statement reads still those?  They move and are split
 * with the shard, which the caller has entered; but somebody may make their
 * table one that is not colocated any more, and move it then.  So a batch asks
 * before it reads, and once more after that.  The place that a shard has left
 * may keep what was in it for a while.
 */
bool
bbm_shard_reads_are_here(BbmShard *shard)
{
	Datum		values[3];
	StringInfoData ids;
	ListCell   *cell;

	if (shard->reads == NIL)
		return true;
	initStringInfo(&ids);
	foreach(cell, shard->reads)
		appendStringInfo(&ids, "%s%s", ids.len > 0 ? ", " : "", (char *) lfirst(cell));
	if (shard->beside == NULL)
		shard->beside = prepare(psprintf("SELECT 1 FROM " SHARDS_BESIDE("$1", "$2", "$3") " AND s.shardid IN (%s)", ids.data),
								3, (Oid[]) {INT8OID, TEXTOID, TEXTOID});
	values[0] = Int64GetDatum(shard->id);
	values[1] = CStringGetTextDatum(shard->low);
	values[2] = CStringGetTextDatum(shard->high);
	return bbm_spi_execute_plan(shard->beside, values, NULL, false, 0) == SPI_OK_SELECT &&
		SPI_processed == (uint64) list_length(shard->reads);
}

/* Raises the error for a record that this node has locked and cannot write. */
void
bbm_shard_record_is_lost(const BbmShard *shard)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("the record of shard " INT64_FORMAT " is not what it was", shard->id),
			 errdetail("Somebody has changed %s, which is written by bbm alone.", shard->record),
			 errhint("Find out who writes it. The batch is undone, and tried again.")));
}

/* Raises the error for a record of which somebody has deleted what bbm has written there. */
void
bbm_shard_record_lacks(const BbmShardRecord *shard, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("the record of shard " INT64_FORMAT " does not have \"%s\"", shard->id, what),
			 errdetail("Somebody has changed %s, which is written by bbm alone.", shard->record),
			 errhint("bbm_alter, with the migration's batch_size as it is, writes it again for all shards.")));
}

/*
 * Everything up to this key is done.  Caller has entered the shard in this
 * transaction, so the record is locked.
 */
void
bbm_shard_note(BbmShard *shard, const BbmBound *cursor, int64 rows, int64 keys)
{
	Datum		values[] = {
		Int64GetDatum(shard->epoch), CStringGetTextDatum(shard->low), CStringGetTextDatum(shard->high),
		Int64GetDatum(cursor->number), cursor->key, Int64GetDatum(rows), Int64GetDatum(keys),
		BoolGetDatum(shard->integer)
	};
	char		nulls[] = "        ";

	if (DatumGetPointer(cursor->key) == NULL)
		nulls[4] = 'n';
	if (shard->note == NULL)
		shard->note = prepare(psprintf("UPDATE %s SET state = 'running', cursor_value = $4, cursor_key = $5, "
									   "row_count = row_count + $6, key_count = key_count + $7, updated_at = clock_timestamp() "
									   "WHERE kind = 'shard' AND low = $2 AND high = $3 AND epoch = $1 "
									   "AND (NOT $8 OR cursor_value IS NULL OR cursor_value < $4)", shard->record),
							  8, (Oid[]) {INT8OID, TEXTOID, TEXTOID, INT8OID, TEXTARRAYOID, INT8OID, INT8OID, BOOLOID});
	(void) bbm_spi_execute_plan(shard->note, values, nulls, false, 0);
	if (SPI_processed != 1)
		bbm_shard_record_is_lost(shard);
}

/*
 * Rows that verification has found are being done, so many just now; or they
 * have been.  A node that takes the shard over in between does what its own
 * verification finds.  As above.
 */
void
bbm_shard_repairs(BbmShard *shard, bool begun, int64 rows)
{
	if (bbm_cluster_query(GetUserId(),
						  psprintf("UPDATE %s SET repairs = %s, row_count = row_count + " INT64_FORMAT ", updated_at = clock_timestamp() "
								   "WHERE kind = 'shard' AND low = %s AND high = %s AND epoch = " INT64_FORMAT, shard->record,
								   begun ? "true" : "false", rows, quote_literal_cstr(shard->low),
								   quote_literal_cstr(shard->high), shard->epoch)) != 1)
		bbm_shard_record_is_lost(shard);
	shard->repairs = begun;
}

/* All keys are done, and what was to be tried again.  As above. */
void
bbm_shard_finish(BbmShard *shard)
{
	if (bbm_cluster_query(GetUserId(),
						  psprintf("UPDATE %s SET state = 'finished', repairs = false, updated_at = clock_timestamp() WHERE kind = 'shard' "
								   "AND low = %s AND high = %s AND epoch = " INT64_FORMAT " AND retries IS NULL", shard->record,
								   quote_literal_cstr(shard->low), quote_literal_cstr(shard->high), shard->epoch)) != 1)
		bbm_shard_record_is_lost(shard);
}

/* Reads the record of a shard, and what it says of the migration as a whole. */
static void
read_record(BbmShardRecord *shard)
{
	char	   *sql = psprintf("SELECT c.active, r.epoch, r.state = 'finished', r.cursor_value, r.cursor_key, r.row_count, "
							   "r.key_count, c.definition, r.bounds, c.epoch > 0, coalesce(jsonb_array_length(r.errors), 0), r.retries, "
							   "c.definition ->> 'min_found' = 'false', c.definition ->> 'max_found' = 'false' "
							   "FROM %s r JOIN %s c ON c.low = r.low AND c.high = r.high "
							   "AND c.kind = 'control' WHERE r.kind = 'shard' AND r.low = %s AND r.high = %s",
							   shard->record, shard->record, quote_literal_cstr(shard->low),
							   quote_literal_cstr(shard->high));

	shard->found = bbm_cluster_query(GetUserId(), sql) == 1;
	if (!shard->found)
		return;
	shard->active = bbm_cluster_bool(0, 1);
	shard->epoch = bbm_cluster_int64(0, 2);
	shard->finished = bbm_cluster_bool(0, 3);
	shard->has_cursor = bbm_cluster_text(0, 4) != NULL;
	shard->cursor.number = bbm_cluster_int64(0, 4);
	shard->cursor.key = bbm_cluster_array(0, 5);
	shard->rows = bbm_cluster_int64(0, 6);
	shard->keys = bbm_cluster_int64(0, 7);
	shard->definition = bbm_cluster_text(0, 8);
	shard->bounds = bbm_cluster_text(0, 9);
	shard->altered = bbm_cluster_bool(0, 10);
	shard->errors = bbm_cluster_int64(0, 11);
	shard->retries = bbm_cluster_text(0, 12);
	shard->min_given = bbm_cluster_bool(0, 13);
	shard->max_given = bbm_cluster_bool(0, 14);
}

/* Returns a list of BbmShardRecord: the shards of the table that are here now, in the current memory context. */
List *
bbm_shards_here(const char *record, const char *table)
{
	List	   *shards = NIL;
	ListCell   *cell;

	(void) bbm_cluster_query(GetUserId(),
							 psprintf("SELECT t.shardid, coalesce(t.shardminvalue, ''), coalesce(t.shardmaxvalue, ''), %s, %s, "
									  "r.shardid FROM pg_catalog.pg_dist_shard t JOIN pg_catalog.pg_dist_shard r ON %s "
									  "JOIN pg_catalog.pg_dist_placement p ON p.shardid = t.shardid AND " PLACEMENT_IS_ACTIVE
									  " JOIN pg_catalog.pg_dist_placement q ON q.shardid = r.shardid AND q.groupid = p.groupid "
									  "JOIN pg_catalog.pg_dist_local_group g ON g.groupid = p.groupid "
									  "WHERE t.logicalrelid = to_regclass(%s) AND r.logicalrelid = to_regclass(%s) "
									  "ORDER BY t.shardid",
									  SHARD_NAME("t.logicalrelid", "t.shardid"), SHARD_NAME("r.logicalrelid", "r.shardid"),
									  SAME_HASHES, quote_literal_cstr(table), quote_literal_cstr(record)));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		BbmShardRecord *shard = palloc0(sizeof(BbmShardRecord));

		shard->id = bbm_cluster_int64(i, 1);
		shard->low = bbm_cluster_text(i, 2);
		shard->high = bbm_cluster_text(i, 3);
		shard->table = bbm_cluster_text(i, 4);
		shard->record = bbm_cluster_text(i, 5);
		shard->record_id = bbm_cluster_int64(i, 6);
		shards = lappend(shards, shard);
	}
	foreach(cell, shards)
		read_record(lfirst(cell));
	return shards;
}

/*
 * This node takes a shard over, from another node or from the migration that
 * had it here: raises the epoch, so that no other batch is recorded, and reads
 * the record anew.  Needs the metadata's lock, so that the shard stays here
 * until we commit.
 */
BbmShardState
bbm_shard_take_over(BbmShardRecord *shard)
{
	BbmShard	here = {.record_id = shard->record_id, .record = shard->record};
	bool		locked = lock_shard(&here);

	bbm_shard_close(&here);
	if (!locked ||
		bbm_cluster_query(GetUserId(),
						  psprintf("UPDATE %s r SET epoch = epoch + 1 FROM pg_catalog.pg_dist_placement p, "
								   "pg_catalog.pg_dist_local_group g, pg_catalog.pg_dist_shard s "
								   "WHERE p.shardid = " INT64_FORMAT " AND p.groupid = g.groupid AND " PLACEMENT_IS_ACTIVE
								   " AND s.shardid = p.shardid AND r.low = coalesce(s.shardminvalue, '') "
								   "AND r.high = coalesce(s.shardmaxvalue, '') AND r.kind = 'shard' AND r.state <> 'finished'",
								   shard->record, shard->id)) != 1)
		return BBM_SHARD_GONE;
	read_record(shard);
	return shard->active ? BBM_SHARD_OURS : BBM_SHARD_PAUSED;
}
