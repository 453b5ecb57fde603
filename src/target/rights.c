/*-------------------------------------------------------------------------
 *
 * rights.c
 *		Whether a table's rows are what its indexes and partitions show.
 *
 * NOTES
 *	  An index contains the keys of all rows, whatever rows policies hide from
 *	  the owner of a migration.  A partition has policies, grants, rules and
 *	  statement-level triggers of its own, but a statement on the partitioned
 *	  table applies only those of that table.  What runs for the owner must do
 *	  what a plain statement of the owner on the table would do: so where these
 *	  make a difference, keys are read with a query, and the statement is one
 *	  on the table as a whole (target->as_owner).
 *
 *	  They may be changed at any moment.  Each change modifies a catalog row,
 *	  for which the server sends an invalidation message to all sessions when
 *	  the change has committed; each batch and each claim begins with a
 *	  transaction that processes these messages.  A batch that has started
 *	  before counts as done before the change.
 *
 *	  The check takes no locks on tables, which would wait for any session that
 *	  has locked one of many tables: it reads what is committed.
 *
 *-------------------------------------------------------------------------
 */
#include "target/rights.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "target/hierarchy.h"
#include "target/target.h"

/* The tables that a target is about; its last check is void when one of them has changed. */
struct BbmRights
{
	dlist_node	node;
	bool		stale;
	bool		may_read;		/* the owner may read all that allocating ranges reads */
	int			n;
	Oid		   *relids;			/* in the order of their OIDs */
};

static dlist_head watched = DLIST_STATIC_INIT(watched);

static bool
is_watched(const BbmRights *rights, Oid relid)
{
	return bsearch(&relid, rights->relids, rights->n, sizeof(Oid), oid_cmp) != NULL;
}

/* A relcache callback; InvalidOid means all relations. */
static void
table_changed(Datum arg, Oid relid)
{
	dlist_iter	iter;

	dlist_foreach(iter, &watched)
	{
		BbmRights  *rights = dlist_container(BbmRights, node, iter.cur);

		if (!OidIsValid(relid) || is_watched(rights, relid))
			rights->stale = true;
	}
}

/* A syscache callback, for changes of roles and their memberships. */
static void
roles_changed(Datum arg, int cache, uint32 hash)
{
	table_changed((Datum) 0, InvalidOid);
}

static void
register_callbacks(void)
{
	static bool registered = false;

	if (registered)
		return;
	registered = true;
	CacheRegisterRelcacheCallback(table_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, roles_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, roles_changed, (Datum) 0);
}

/* Does the table have a statement-level trigger? */
static bool
has_statement_trigger(Oid relid)
{
	Relation	triggers = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		has = false;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(triggers, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (!has && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);

		has = !TRIGGER_FOR_ROW(form->tgtype) && form->tgenabled != TRIGGER_DISABLED &&
			(TRIGGER_FOR_UPDATE(form->tgtype) || TRIGGER_FOR_DELETE(form->tgtype) || TRIGGER_FOR_INSERT(form->tgtype));
	}
	systable_endscan(scan);
	table_close(triggers, AccessShareLock);
	return has;
}

/*
 * Does the table have something that a statement on another table of the
 * hierarchy would not apply, or lack something?
 */
static bool
differs(const BbmTarget *target, Oid relid)
{
	const BbmMigration *migration = target->migration;
	AclMode		needed = 0;
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		has_rules;
	bool		has_triggers;

	if (!HeapTupleIsValid(tuple))
		return false;
	has_rules = ((Form_pg_class) GETSTRUCT(tuple))->relhasrules;
	has_triggers = ((Form_pg_class) GETSTRUCT(tuple))->relhastriggers;
	ReleaseSysCache(tuple);
	if (target->form == BBM_JOB_COMPOSED)
		needed = strcmp(migration->operation, "delete") == 0 ? ACL_DELETE : ACL_UPDATE;
	if (check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED ||
		pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK ||
		(needed != 0 && pg_class_aclcheck(relid, GetUserId(), needed) != ACLCHECK_OK))
		return true;
	return target->form != BBM_JOB_NONE && (has_rules || (has_triggers && has_statement_trigger(relid)));
}

/* May the owner read the key of the table?  By a grant on the table, or on each column. */
static bool
may_read(const BbmTarget *target, Oid relid)
{
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK)
		return true;
	for (int i = 0; i < target->key.n; i++)
	{
		AttrNumber	attnum = get_attnum(relid, target->key.columns[i].name);

		if (attnum <= 0 || pg_attribute_aclcheck(relid, attnum, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
			return false;
	}
	return true;
}

static void
watch(BbmTarget *target, List *relids)
{
	BbmRights  *rights = target->rights;
	ListCell   *cell;

	if (rights == NULL)
	{
		rights = target->rights = MemoryContextAllocZero(target->context, sizeof(BbmRights));
		dlist_push_tail(&watched, &rights->node);
	}
	rights->n = 0;
	if (rights->relids)
		pfree(rights->relids);
	rights->relids = MemoryContextAlloc(target->context, list_length(relids) * sizeof(Oid));
	foreach(cell, relids)
		rights->relids[rights->n++] = lfirst_oid(cell);
	qsort(rights->relids, rights->n, sizeof(Oid), oid_cmp);
	rights->stale = false;
}

/*
 * Checks whether the target's rows must be read as the owner.
 * bbm_rights_are_current detects what changes from here on.  The current user
 * is the owner; table, key and form are resolved.
 */
void
bbm_rights_find(BbmTarget *target)
{
	List	   *relids = list_make1_oid(target->relid);
	ListCell   *cell;

	register_callbacks();
	if (target->has_partitions)
		relids = list_concat_unique_oid(relids, bbm_partitions_list(target->relid));
	/* first: a change during the check makes the check void */
	watch(target, relids);
	target->rights->may_read = true;
	target->as_owner = false;
	foreach(cell, relids)
	{
		if (!target->has_partitions)
			target->as_owner = check_enable_rls(lfirst_oid(cell), InvalidOid, true) == RLS_ENABLED;
		else if (!target->as_owner)
			target->as_owner = differs(target, lfirst_oid(cell));
	}
	target->rights->may_read = may_read(target, target->relid);
}

/* The same for a partition that was attached since. */
void
bbm_rights_check_partition(BbmTarget *target, Oid partition)
{
	if (target->rights && !is_watched(target->rights, partition))
		bbm_rights_find(target);
}

/* Has the table, or one below it, changed since this was last checked? */
bool
bbm_rights_are_stale(const BbmTarget *target)
{
	return target->rights == NULL || target->rights->stale;
}

/* Is the result still valid?  Needs a transaction; the current user is the owner. */
bool
bbm_rights_are_current(BbmTarget *target)
{
	bool		as_owner = target->as_owner;
	bool		readable;
	bool		current;

	if (target->rights == NULL || !target->rights->stale)
		return true;
	/* the table is gone: other checks report that */
	if (get_rel_relkind(target->relid) == '\0')
		return true;
	readable = target->rights->may_read;
	bbm_rights_find(target);
	current = target->as_owner == as_owner && target->rights->may_read == readable;
	/* its plans were made for these, until it is resolved again; the next check must find the difference, too */
	target->as_owner = as_owner;
	target->rights->may_read = readable;
	target->rights->stale |= !current;
	return current;
}

/* The target is about to be closed. */
void
bbm_rights_forget(BbmTarget *target)
{
	if (target->rights)
		dlist_delete(&target->rights->node);
	target->rights = NULL;
}
