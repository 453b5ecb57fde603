/*-------------------------------------------------------------------------
 *
 * hierarchy.c
 *		The partitions, or child tables, that a table has.
 *
 *-------------------------------------------------------------------------
 */
#include "target/hierarchy.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_inherits.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/point.h"

/*
 * The server's lookup raises an internal error for a table that is not locked
 * and has been dropped.  Between our check, which caches the row of pg_class,
 * and the server's lookup nothing is read that could show it the drop.
 */
static List *
child_tables(Oid relid)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)) ? find_inheritance_children(relid, NoLock) : NIL;
}

bool
bbm_has_partitions(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE || child_tables(relid) != NIL;
}

/*
 * OIDs of the table and of everything below it.  Takes no locks: any of them,
 * the table too, may be gone already or be dropped at any moment.
 */
List *
bbm_partitions_all(Oid root)
{
	List	   *all = list_make1_oid(root);
	ListCell   *cell;

	foreach(cell, all)
	{
		List	   *below = child_tables(lfirst_oid(cell));

		/* only without declarative partitioning can a table be reached twice */
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_PARTITIONED_TABLE)
			all = list_concat(all, below);
		else
			all = list_concat_unique_oid(all, below);
	}
	return all;
}

/* The same, and the partitioned tables that the table is a partition of, at any level. */
List *
bbm_partitions_related(Oid relid)
{
	List	   *related = bbm_partitions_all(relid);

	return get_rel_relispartition(relid) ? list_concat(related, get_partition_ancestors(relid)) : related;
}

/* Can a trigger or a foreign key fire when rows of the table are written? */
bool
bbm_has_triggers(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		has = false;

	if (HeapTupleIsValid(tuple))
	{
		has = ((Form_pg_class) GETSTRUCT(tuple))->relhastriggers;
		ReleaseSysCache(tuple);
	}
	return has;
}

/*
 * OIDs of the tables with rows of their own, the root first.  Takes no locks,
 * which would wait for any session that has locked one of many tables: the
 * caller locks the table that it works on, and then checks again.
 */
List *
bbm_partitions_list(Oid root)
{
	List	   *partitions = NIL;
	ListCell   *cell;

	foreach(cell, bbm_partitions_all(root))
	{
		char		relkind = get_rel_relkind(lfirst_oid(cell));

		/* a child table may be a temporary one, whose rows are in the memory of its own session */
		if ((relkind == RELKIND_RELATION || relkind == RELKIND_FOREIGN_TABLE) &&
			get_rel_persistence(lfirst_oid(cell)) != RELPERSISTENCE_TEMP)
			partitions = lappend_oid(partitions, lfirst_oid(cell));
	}
	return partitions;
}

/*
 * Locks everything below the table until the end of the transaction.  A table
 * that another session adds meanwhile is locked by the code that comes across
 * it.
 */
void
bbm_partitions_lock(Oid root, LOCKMODE lock)
{
	(void) find_all_inheritors(root, lock, NULL);
}

/*
 * Takes a snapshot with which the table and everything below it are to be
 * read, and makes it the active one.  All of them are locked before, until the
 * transaction ends: if another session rewrote or truncated one meanwhile, this
 * snapshot would see none of its rows.  "lock" is the strongest that the
 * transaction will take of any table below.
 */
void
bbm_partitions_snapshot(Oid root, LOCKMODE lock)
{
	LockRelationOid(root, AccessShareLock);
	bbm_partitions_lock(root, lock);
	BBM_POINT("partitions_locked");
	/* whatever the isolation level */
	PushActiveSnapshot(GetLatestSnapshot());
}

/* Is the table the root, or still below it?  The caller has locked it. */
bool
bbm_partitions_include(Oid root, Oid relid)
{
	Relation	inherits;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		has = false;

	if (relid == root)
		return true;
	inherits = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(inherits, InheritsRelidSeqnoIndexId, true, NULL, 1, &key);
	while (!has && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_inherits form = (Form_pg_inherits) GETSTRUCT(tuple);

		has = !form->inhdetachpending && bbm_partitions_include(root, form->inhparent);
	}
	systable_endscan(scan);
	table_close(inherits, AccessShareLock);
	return has;
}
