/*-------------------------------------------------------------------------
 *
 * relation.c
 *		Which table a name means, and whether its rows are in it.
 *
 * NOTES
 *	  A migration refers to its table by name, and so do the statements of its
 *	  batches; its ranges are allocated by the table's OID.  Both must mean the
 *	  same table, from the first batch to the last.  A rename of a schema locks
 *	  no table, so a batch checks the name before it begins and again before it
 *	  is recorded.
 *
 *	  Some extensions store the rows of a table elsewhere: what is left here is
 *	  an empty table, on which every batch would be done at once.
 *
 *-------------------------------------------------------------------------
 */
#include "target/relation.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/varlena.h"

#include "base/compat.h"
#include "base/printable.h"
#include "base/txn.h"
#include "base/user.h"
#include "catalog/extension.h"
#include "catalog/shards.h"
#include "target/target.h"

/* Citus: the catalog table with a row for each table whose rows are in shards. */
#define CITUS_TABLE "pg_dist_partition"
#define CITUS_INDEX "pg_dist_partition_logical_relid_index"
#define CITUS_COLUMN "logicalrelid"
#define CITUS_METHOD "partmethod"
#define CITUS_REPLICATION "repmodel"

/* The table for "schema.table" taken literally, as the GitLab container registry writes it, or InvalidOid. */
static Oid
literal_table(const char *name)
{
	const char *dot = strchr(name, '.');
	Oid			schema;

	if (dot == NULL || dot == name || dot[1] == '\0')
		return InvalidOid;
	schema = get_namespace_oid(pnstrdup(name, dot - name), true);
	return OidIsValid(schema) ? get_relname_relid(dot + 1, schema) : InvalidOid;
}

/* The one or two parts of an SQL name; NIL when it is not one. */
static List *
sql_names(const char *name)
{
	List	   *names = NIL;

	/* an empty name, or one with a database, would cause an error without a hint */
	if (SplitIdentifierString(pstrdup(name), '.', &names) &&
		(list_length(names) == 1 || list_length(names) == 2))
		return names;
	return NIL;
}

/* The table of an SQL name, qualified or not, or InvalidOid. */
static Oid
named_table(List *names)
{
	if (names == NIL)
		return InvalidOid;
	return RangeVarGetRelid(makeRangeVar(list_length(names) == 2 ? linitial(names) : NULL, llast(names), -1),
							NoLock, true);
}

/* A table's quoted name with its schema; NULL when the table is gone. */
char *
bbm_table_sql_name(Oid relid)
{
	char	   *name = get_rel_name(relid);

	return name ? quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name) : NULL;
}

/* Which table the name means just now, literally or as an SQL name; InvalidOid: none. */
Oid
bbm_table_find(const char *name)
{
	Oid			relid = literal_table(name);

	return OidIsValid(relid) ? relid : named_table(sql_names(name));
}

/* Raises the error for a name that no relation has. */
static void
no_such_table(const char *name)
{
	List	   *names = sql_names(name);
	const char *schema = list_length(names) == 2 ? linitial(names) : NULL;

	if (schema)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s\" does not exist", name),
				 OidIsValid(get_namespace_oid(schema, true)) ? errdetail("Schema \"%s\" has no table \"%s\".", schema, (char *) llast(names)) :
				 errdetail("There is no schema \"%s\".", schema),
				 errhint("Names are folded to lower case, unless they are in double quotes.")));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("table \"%s\" does not exist", name),
			 names ? errdetail("It was searched for with search_path \"%s\".", namespace_search_path) :
			 errdetail("It is no name of one or two parts."),
			 errhint("Write it as schema.table.")));
}

/*
 * The relation of that name: literally, or else as an SQL name.  Raises an
 * error when there is none.  Locks it in the strongest mode that the caller
 * will need in this transaction, since a weak lock must not be followed by a
 * strong one (see target/lockset.c); "check", if given, raises an error for a
 * user who may not take that lock.
 *
 * Until the lock is granted, another session may rename or drop the table, or
 * create another one of that name; then the name is looked up again.
 */
Oid
bbm_table_by_name(const char *name, LOCKMODE lock, void (*check) (Oid relid, const char *name))
{
	Oid			relid = bbm_table_find(name);

	for (;;)
	{
		Oid			now;

		if (!OidIsValid(relid))
			no_such_table(name);
		if (check)
			check(relid, name);
		LockRelationOid(relid, lock);
		now = bbm_table_find(name);
		if (now == relid)
			return relid;
		UnlockRelationOid(relid, lock);
		relid = now;
	}
}

/* Raises the error for a table that existed when the migration was started. */
void
bbm_table_is_gone(const char *name)
{
	bbm_failing_code = BBM_CODE_TABLE;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("table \"%s\" does not exist any more", name),
			 errdetail("It was there when the migration was defined or started."),
			 errhint("bbm_drop the migration; or, if there is to be another table of that name, bbm_alter(..., restart => true) once there is.")));
}

/* Raises the error for a table that is none of those that have rows of their own to work on. */
static void
refuse(const char *name, int sqlstate, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("cannot run batches over \"%s\"", name),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
}

/* Raises an error for a table of Citus' columnar access method, whose rows can be neither updated nor deleted. */
static void
check_access_method(Relation rel)
{
	char	   *name = rel->rd_rel->relam == HEAP_TABLE_AM_OID || !OidIsValid(rel->rd_rel->relam) ? NULL :
		get_am_name(rel->rd_rel->relam);

	if (name && strcmp(name, "columnar") == 0)
		refuse(bbm_table_sql_name(RelationGetRelid(rel)), ERRCODE_FEATURE_NOT_SUPPORTED,
			   "It is a columnar table, whose rows can be neither updated nor deleted.",
			   "Make it a heap, with alter_table_set_access_method.");
}

/*
 * The table of that name, locked; also raises an error when it has no rows of
 * its own to work on, unless (distributed) those may be in shards.
 */
Oid
bbm_target_table(const char *name, LOCKMODE lock, bool distributed)
{
	Oid			relid = bbm_table_by_name(name, lock, NULL);
	Relation	rel = relation_open(relid, NoLock);
	const char *what = NULL;

	switch (rel->rd_rel->relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
		case RELKIND_FOREIGN_TABLE:
			if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
				what = "a temporary table, which no other session can see";
			break;
		case RELKIND_VIEW:
			what = "a view";
			break;
		case RELKIND_MATVIEW:
			what = "a materialized view";
			break;
		default:
			what = "not a table";
			break;
	}
	if (what)
		refuse(name, rel->rd_rel->relkind == RELKIND_RELATION || rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ?
			   ERRCODE_FEATURE_NOT_SUPPORTED : ERRCODE_WRONG_OBJECT_TYPE,
			   psprintf("It is %s.", what), "Name a table, partitioned or not.");
	if (IsCatalogRelationOid(relid))
		refuse(name, ERRCODE_WRONG_OBJECT_TYPE, "It is a system catalog.", "Name a table of your own.");
	if (getExtensionOfObject(RelationRelationId, relid) == bbm_catalog()->extension)
		refuse(name, ERRCODE_WRONG_OBJECT_TYPE, "It is a table of the extension itself.", "Name a table of your own.");
	if (!distributed)
		bbm_check_rows_are_here(relid);
	/* of a distributed one, the partitions are checked as well, when it is defined */
	if (!bbm_is_distributed(relid))
		check_access_method(rel);
	relation_close(rel, NoLock);
	return relid;
}

/* ----------------------------------------------------------------
 * The table that a migration was started on
 * ----------------------------------------------------------------
 */

/* Describes what became of the migration's table, for a message. */
static char *
whereabouts(Oid relid)
{
	char	   *name = bbm_table_sql_name(relid);

	return name ? psprintf(_("is now %s"), name) : _("does not exist any more");
}

/* Raises the error for a migration whose table has another name now, or is gone, and no other one has its name. */
static void
table_has_left(const BbmMigration *migration)
{
	char	   *name = bbm_table_sql_name(migration->table_oid);

	if (name == NULL)
		bbm_table_is_gone(migration->table_name);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("table \"%s\" does not exist any more", migration->table_name),
			 errdetail("The migration was defined for, or started on, the table that is now %s.", name),
			 errhint("Rename it back; or bbm_drop the migration, and define it anew with that name.")));
}

/*
 * The table of a migration, by its name, locked.  Also raises an error when it
 * is not the table that the migration was started on: what was done in that
 * table says nothing about this one.
 */
Oid
bbm_migration_table(const BbmMigration *migration, LOCKMODE lock)
{
	Oid			relid;

	if (OidIsValid(migration->table_oid) && !OidIsValid(bbm_table_find(migration->table_name)))
		table_has_left(migration);
	relid = bbm_target_table(migration->table_name, lock, false);
	if (OidIsValid(migration->table_oid) && relid != migration->table_oid)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s\" is not the one that migration \"%s\" is about", migration->table_name,
						bbm_printable(migration->name)),
				 errdetail("Its OID is %u. The migration was defined for, or started on, the one with OID %u, which %s.",
						   relid, migration->table_oid, whereabouts(migration->table_oid)),
				 errhint("Rename them back, or begin again with the table that has the name now: bbm_alter(..., restart => true).")));
	return relid;
}

/*
 * Does the migration's table name currently mean the table whose ranges are
 * allocated?  Resolved as in the owner's session, which may need a search_path
 * for it.  Needs a transaction.
 */
bool
bbm_target_is_named(const BbmTarget *target)
{
	const BbmMigration *migration = target->migration;
	Oid			relid;
	List	   *names;
	int			level;

	/* a schema can be renamed without a lock that conflicts with ours */
	AcceptInvalidationMessages();
	relid = literal_table(migration->table_name);
	if (OidIsValid(relid))
		return relid == target->relid;
	names = sql_names(migration->table_name);
	if (list_length(names) == 2)
		return named_table(names) == target->relid;
	level = bbm_job_settings(migration);
	relid = named_table(names);
	bbm_user_settings_end(level);
	return relid == target->relid;
}

/* Does the partition still have the name that its statements use? */
bool
bbm_partition_is_named(const BbmPartition *partition)
{
	char	   *name = bbm_table_sql_name(partition->relid);

	return name && strcmp(name, partition->name) == 0;
}

/* ----------------------------------------------------------------
 * Where the rows are
 * ----------------------------------------------------------------
 */

/* The index of the Citus catalog table, if it has the expected form. */
static Oid
citus_index(Relation citus, AttrNumber attnum)
{
	Oid			index = get_relname_relid(CITUS_INDEX, PG_CATALOG_NAMESPACE);
	Relation	rel;
	bool		fits;

	if (!OidIsValid(index) || !list_member_oid(RelationGetIndexList(citus), index))
		return InvalidOid;
	rel = index_open(index, AccessShareLock);
	fits = rel->rd_index->indisvalid && rel->rd_index->indkey.values[0] == attnum;
	index_close(rel, AccessShareLock);
	return fits ? index : InvalidOid;
}

/* Has the column of the Citus catalog table this value? */
static bool
citus_says(Relation citus, HeapTuple tuple, const char *column, char value)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(citus), column);
	bool		isnull = true;
	Datum		datum = 0;

	if (attnum != InvalidAttrNumber && TupleDescAttr(RelationGetDescr(citus), attnum - 1)->atttypid == CHAROID)
		datum = heap_getattr(tuple, attnum, RelationGetDescr(citus), &isnull);
	return !isnull && DatumGetChar(datum) == value;
}

/*
 * Where are the table's rows?  Citus records that in a table of its own in
 * pg_catalog, where only superusers can create one.  Without such a table, this
 * costs one lookup in the server's caches.
 */
BbmRowsAre
bbm_where_rows_are(Oid relid)
{
	Oid			citus = get_relname_relid(CITUS_TABLE, PG_CATALOG_NAMESPACE);
	AttrNumber	attnum = OidIsValid(citus) ? get_attnum(citus, CITUS_COLUMN) : InvalidAttrNumber;
	Relation	rel = attnum != InvalidAttrNumber ? try_table_open(citus, AccessShareLock) : NULL;
	ScanKeyData key;
	SysScanDesc scan;
	Oid			index;
	HeapTuple	tuple;
	BbmRowsAre	where = BBM_ROWS_HERE;

	if (rel == NULL)
		return where;
	index = citus_index(rel, attnum);
	ScanKeyInit(&key, attnum, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, index, OidIsValid(index), NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		where = citus_says(rel, tuple, CITUS_METHOD, 'n') && citus_says(rel, tuple, CITUS_REPLICATION, 't') ?
			BBM_ROWS_ON_ALL_NODES : BBM_ROWS_IN_SHARDS;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return where;
}

/* Are the table's rows in shards of Citus, which commit apart from each other? */
bool
bbm_is_distributed(Oid relid)
{
	return bbm_where_rows_are(relid) == BBM_ROWS_IN_SHARDS;
}

/* Raises an error when the table's rows are stored elsewhere. */
void
bbm_check_rows_are_here(Oid relid)
{
	if (!bbm_is_distributed(relid))
		return;
	bbm_failing_code = BBM_CODE_TABLE;
	refuse(bbm_table_sql_name(relid), ERRCODE_FEATURE_NOT_SUPPORTED,
		   "It is a distributed table: its rows are in shards, and not in it.",
		   bbm_citus_is_here() ? "Define the migration with bbm_update, bbm_delete or bbm_create, on the coordinator." :
		   "Distributed tables are not supported.");
}

/*
 * The number of a shard that the table, by its name, may be; NULL if it is
 * none.  Citus appends the number of a shard to the name of its table.
 */
static const char *
shard_number(Oid relid)
{
	char	   *name = get_rel_name(relid);
	char	   *number = name ? strrchr(name, '_') : NULL;

	/* without Citus there is none */
	if (!OidIsValid(get_relname_relid(CITUS_TABLE, PG_CATALOG_NAMESPACE)) || number == NULL ||
		strspn(number + 1, "0123456789") != strlen(number + 1) || number[1] == '\0' || strlen(number) > 19)
		return NULL;
	return number + 1;
}

/* The distributed table that the table is a shard of; InvalidOid if it is none.  Needs SPI. */
Oid
bbm_shard_table(Oid relid)
{
	const char *number = shard_number(relid);

	return number ? bbm_table_of_shard(relid, number) : InvalidOid;
}

/* The name by which a user's text means the table: for a shard, that of its distributed table.  Needs SPI. */
char *
bbm_table_alias(Oid relid)
{
	Oid			table = bbm_shard_table(relid);

	return get_rel_name(OidIsValid(table) ? table : relid);
}

/* Raises an error when the table is itself a shard: its migration would not go where Citus moves it.  Needs SPI. */
void
bbm_check_is_no_shard(Oid relid)
{
	Oid			table = bbm_shard_table(relid);

	if (!OidIsValid(table))
		return;
	bbm_failing_code = BBM_CODE_TABLE;
	refuse(bbm_table_sql_name(relid), ERRCODE_FEATURE_NOT_SUPPORTED,
		   psprintf("It is a shard of distributed table %s, and may move to another node.", bbm_table_sql_name(table)),
		   "Name the table.");
}

static void
check_writes_no_distributed(Oid relid)
{
	if (!OidIsValid(relid) || !bbm_is_distributed(relid))
		return;
	bbm_failing_code = BBM_CODE_SIGNATURE;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the job writes distributed table \"%s\"", bbm_table_sql_name(relid)),
			 errdetail("Its rows are in shards, which commit apart from the record of the batch."),
			 errhint("Distributed tables are not supported.")));
}

/*
 * Raises an error when the table is a shard, which only a batch of its own
 * migration may write.  "executed": that of a reference table may be written by
 * Citus, for a statement that names the table.  Needs SPI.
 */
static void
check_writes_no_shard(Oid relid, bool executed)
{
	Oid			table = OidIsValid(relid) ? bbm_shard_table(relid) : InvalidOid;

	if (!OidIsValid(table) || (executed && !bbm_is_distributed(table)))
		return;
	bbm_failing_code = BBM_CODE_SIGNATURE;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the job writes \"%s\", a shard of distributed table %s", bbm_table_sql_name(relid),
					bbm_table_sql_name(table)),
			 errdetail("It may move to another node meanwhile, and the batch does not keep it here."),
			 errhint("Define a migration of the table, with bbm_update, bbm_delete, or a function with the parameter table_name.")));
}

/* A walker: raises an error for a query that writes a shard (*shards), or else a distributed table. */
static bool
check_written(Node *node, void *shards)
{
	Query	   *query = (Query *) node;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, check_written, shards);
	if (query->resultRelation > 0)
	{
		Oid			relid = rt_fetch(query->resultRelation, query->rtable)->relid;

		if (*(bool *) shards)
			check_writes_no_shard(relid, false);
		else
			check_writes_no_distributed(relid);
	}
	return query_tree_walker(query, check_written, shards, 0);
}

/* Raises an error when statements, as below, write a shard of a distributed table.  Needs SPI. */
void
bbm_check_queries_write_no_shard(List *queries)
{
	(void) expression_tree_walker((Node *) queries, check_written, &(bool) {true});
}

/*
 * Raises an error when statements, after views and rules have been expanded,
 * write a distributed table.
 */
void
bbm_check_queries_write_here(List *queries)
{
	(void) expression_tree_walker((Node *) queries, check_written, &(bool) {false});
}

/*
 * The same for a plan that is about to be executed, for example one inside a
 * function or a trigger; and unless the batch is itself one of a shard, which
 * it keeps here, a shard is no table to write, either.
 */
void
bbm_check_plan_writes_here(PlannedStmt *stmt, bool of_shard)
{
	ListCell   *cell;

	/* without Citus there is nothing to check */
	if (!OidIsValid(get_relname_relid(CITUS_TABLE, PG_CATALOG_NAMESPACE)))
		return;
	foreach(cell, bbm_written_tables(stmt))
	{
		check_writes_no_distributed(lfirst_oid(cell));
		/* most tables have another name than a shard */
		if (of_shard || shard_number(lfirst_oid(cell)) == NULL)
			continue;
		/* the statement's own level of SPI is in use */
		SPI_connect();
		check_writes_no_shard(lfirst_oid(cell), true);
		SPI_finish();
	}
}

/* The name that the partition's index must have, if any: a partition's index has another name than its root's. */
const char *
bbm_index_name(const BbmTarget *target, const BbmPartition *partition)
{
	return partition->relid == target->relid ? target->migration->index_name : NULL;
}
