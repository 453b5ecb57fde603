/*-------------------------------------------------------------------------
 *
 * locks.c
 *		Heavyweight locks of ours that SQL cannot reach.
 *
 * NOTES
 *	  They are of the type "userlock", which no SQL function takes, or (a
 *	  table's) object locks whose lock class is the OID of our own table, which
 *	  no system catalog has.  So neither a user's advisory lock nor DDL can
 *	  conflict with them, by accident or on purpose.  All 64 bits of an id are
 *	  in the tag: two migrations never share a lock, whatever their ids are.
 *
 *	  migration	held for the moment of a claim, and by whoever changes the
 *				migration's status until that has committed.  Since it is
 *				released only after the commit is visible, a claim that has
 *				it sees every pause that has committed.  It never waits for a
 *				batch.
 *	  table		held for the moment of a claim, after the migration's: two
 *				migrations decide one after the other which one has the time
 *				slice.
 *	  nodes		of a distributed table's migration.  Held shared by the process
 *				that starts it on the nodes, while it asks them; held by a
 *				session that pauses it and awaits their batches, until that has
 *				committed: no process starts it again on a node that has paused
 *				it.  Whoever also needs the migration's row lock takes that
 *				after it.
 *	  worker id	held by a process for as long as it may run jobs.  A job that
 *				is marked running with a worker id nobody holds is an orphan.
 *	  database	held by whoever needs a database without our workers, any number
 *				of sessions at once: the launcher starts none there meanwhile.
 *
 *	  ours		shared by all processes of bbm, and by sessions for as long as
 *				they are in a function of bbm that takes a while, in whatever
 *				database: a migration need not wait for what they keep from
 *				being vacuumed, nor until they are idle.
 *
 *	  Whoever also needs a migration's row lock takes that first.
 *
 *-------------------------------------------------------------------------
 */
#include "base/locks.h"

#include "access/transam.h"
#include "catalog/pg_database.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/inval.h"

#include "base/compat.h"

enum
{
	LOCK_MIGRATION = 1,
	LOCK_TABLE = 2,
	LOCK_WORKER_ID = 3,
	LOCK_WAITER = 4,
	LOCK_DATABASE = 5,
	LOCK_LAUNCHED = 6,
	LOCK_OURS = 7,
	LOCK_NODES = 8,
	LOCK_FIRST_SLOT = 256
};

/*
 * The tag of a numbered lock.  Database and number take 96 of the 112 bits, so
 * the lock class is combined with the upper half of the number: within one
 * lock class, two numbers never have the same tag, and a database has one lock
 * class at a time.
 */
static LOCKTAG
tag_of(Oid lock_class, int64 number, uint16 kind, uint8 method)
{
	LOCKTAG		tag;

	tag.locktag_field1 = MyDatabaseId;
	tag.locktag_field2 = lock_class ^ (uint32) ((uint64) number >> 32);
	tag.locktag_field3 = (uint32) ((uint64) number & 0xFFFFFFFF);
	tag.locktag_field4 = kind;
	tag.locktag_type = LOCKTAG_USERLOCK;
	tag.locktag_lockmethodid = method;
	return tag;
}

/* A lock that ends with the transaction. */
static LOCKTAG
xact_tag(Oid lock_class, int64 number, uint16 kind)
{
	return tag_of(lock_class, number, kind, DEFAULT_LOCKMETHOD);
}

/* A lock of the same method as advisory locks: only those outlive the abort of a transaction. */
static LOCKTAG
session_tag(Oid lock_class, int64 number, uint16 kind)
{
	return tag_of(lock_class, number, kind, USER_LOCKMETHOD);
}

/* The lock of a table's claims, as LockDatabaseObject has it. */
static LOCKTAG
table_tag(Oid lock_class, Oid table)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, lock_class, table, LOCK_TABLE);
	return tag;
}

/* Does another process hold a lock that conflicts?  "session": the caller needs no transaction. */
static bool
is_held(LOCKTAG tag, LOCKMODE mode, bool session)
{
	if (LockAcquire(&tag, mode, session, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, mode, session);
	return false;
}

/* Releases a session's lock, if it still has it: SQL releases such locks with pg_advisory_unlock_all. */
static void
release_if_held(LOCKTAG tag, LOCKMODE mode)
{
	if (LockHeldByMe(&tag, mode, false))
		LockRelease(&tag, mode, true);
}

/* Takes a session's lock if it has it not, unless that would wait; returns whether it has it then. */
static bool
keep(LOCKTAG tag, LOCKMODE mode)
{
	return LockHeldByMe(&tag, mode, false) || LockAcquire(&tag, mode, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

/* Until the end of the transaction.  "at_once": false if another process has it; else it waits at most lock_timeout. */
static bool
acquire(LOCKTAG tag, bool at_once)
{
	if (LockAcquire(&tag, ExclusiveLock, false, at_once) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	/* as the server's own locks do: the lock holder may have changed what we have cached */
	AcceptInvalidationMessages();
	return true;
}

/* Until the end of the transaction.  Waits at most lock_timeout. */
void
bbm_lock_migration(Oid lock_class, int64 migration_id)
{
	(void) acquire(xact_tag(lock_class, migration_id, LOCK_MIGRATION), false);
}

/* The same, but only if the lock is free now. */
bool
bbm_lock_migration_at_once(Oid lock_class, int64 migration_id)
{
	return acquire(xact_tag(lock_class, migration_id, LOCK_MIGRATION), true);
}

/* No process has the nodes go on, until the end of the transaction.  Waits at most lock_timeout. */
void
bbm_lock_nodes(Oid lock_class, int64 migration_id)
{
	LOCKTAG		tag = xact_tag(lock_class, migration_id, LOCK_NODES);

	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* May this process have them go on, until the end of its transaction? */
bool
bbm_lock_nodes_at_once(Oid lock_class, int64 migration_id)
{
	LOCKTAG		tag = xact_tag(lock_class, migration_id, LOCK_NODES);

	return LockAcquire(&tag, ShareLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

/* Takes the locks of a claim if they are free now; until the end of the transaction. */
bool
bbm_lock_for_claim_at_once(Oid lock_class, int64 migration_id, Oid table)
{
	/* not ConditionalLockDatabaseObject, which older minor releases lack */
	return bbm_lock_migration_at_once(lock_class, migration_id) && acquire(table_tag(lock_class, table), true);
}

/* For a caller that has only read, and continues without the lock. */
void
bbm_unlock_migration(Oid lock_class, int64 migration_id)
{
	LOCKTAG		tag = xact_tag(lock_class, migration_id, LOCK_MIGRATION);

	(void) LockRelease(&tag, ExclusiveLock, false);
}

/* Until the end of the transaction.  Waits at most lock_timeout. */
void
bbm_lock_table(Oid lock_class, Oid table)
{
	(void) acquire(table_tag(lock_class, table), false);
}

/*
 * Takes one of the migration's permits for this session, or returns -1 when
 * all are taken. bbm_permit_release releases it; so does the end of the
 * process.
 */
int
bbm_permit_acquire(Oid lock_class, int64 migration_id, int limit)
{
	for (int i = 0; i < limit; i++)
	{
		LOCKTAG		tag = session_tag(lock_class, migration_id, LOCK_FIRST_SLOT + i);

		if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_OK)
			return i;
	}
	return -1;
}

/*
 * A job may have released it with pg_advisory_unlock_all: take it again,
 * unless another process has it now.
 */
bool
bbm_permit_keep(Oid lock_class, int64 migration_id, int slot)
{
	return keep(session_tag(lock_class, migration_id, LOCK_FIRST_SLOT + slot), ExclusiveLock);
}

void
bbm_permit_release(Oid lock_class, int64 migration_id, int slot)
{
	release_if_held(session_tag(lock_class, migration_id, LOCK_FIRST_SLOT + slot), ExclusiveLock);
}

/* Has another process a permit of the migration?  Needs a transaction. */
bool
bbm_permits_held(Oid lock_class, int64 migration_id, int limit)
{
	for (int i = 0; i < limit; i++)
	{
		if (is_held(session_tag(lock_class, migration_id, LOCK_FIRST_SLOT + i), ShareLock, false))
			return true;
	}
	return false;
}

/*
 * Takes a permit for a launched worker of the database, for the life of this
 * process.  Used without shared memory.
 */
bool
bbm_launched_permit_acquire(Oid lock_class, int limit)
{
	for (int i = 0; i < limit; i++)
	{
		LOCKTAG		tag = session_tag(lock_class, i, LOCK_LAUNCHED);

		if (LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL)
			return true;
	}
	return false;
}

/* How many of these permits are free?  Needs a transaction. */
int
bbm_launched_permits(Oid lock_class, int limit)
{
	int			n = 0;

	for (int i = 0; i < limit; i++)
		n += !is_held(session_tag(lock_class, i, LOCK_LAUNCHED), ShareLock, false);
	return n;
}

/* Does this process wait for the migration's time slice on its table? */
bool
bbm_is_waiting_for_table(Oid lock_class, int64 migration_id)
{
	LOCKTAG		tag = session_tag(lock_class, migration_id, LOCK_WAITER);

	return LockHeldByMe(&tag, ShareLock, false);
}

/* This process starts, or stops, waiting for it. */
void
bbm_set_waiting_for_table(Oid lock_class, int64 migration_id, bool begin)
{
	if (begin)
		(void) keep(session_tag(lock_class, migration_id, LOCK_WAITER), ShareLock);
	else
		release_if_held(session_tag(lock_class, migration_id, LOCK_WAITER), ShareLock);
}

/* Does another process wait for the migration's time slice?  Needs a transaction. */
bool
bbm_has_waiters(Oid lock_class, int64 migration_id)
{
	return is_held(session_tag(lock_class, migration_id, LOCK_WAITER), ExclusiveLock, false);
}

/* In no extension's lock class, as it is checked outside of transactions; and in no database. */
static LOCKTAG
ours_tag(void)
{
	LOCKTAG		tag = session_tag(InvalidOid, 0, LOCK_OURS);

	tag.locktag_field1 = InvalidOid;
	return tag;
}

/* This session is in a function of bbm until bbm_ours_end; an error ends it with the (sub)transaction. */
void
bbm_ours_begin(void)
{
	LOCKTAG		tag = ours_tag();

	(void) LockAcquire(&tag, ShareLock, false, true);
}

void
bbm_ours_end(void)
{
	LOCKTAG		tag = ours_tag();

	LockRelease(&tag, ShareLock, false);
}

/* The transactions of other processes of bbm, in all databases, as an array that the caller frees. */
VirtualTransactionId *
bbm_ours(int *n)
{
	LOCKTAG		tag = ours_tag();

	return GetLockConflicts(&tag, ExclusiveLock, n);
}

/*
 * Picks a worker id that nobody holds and holds it for the session: across
 * transactions, until bbm_worker_id_release or the end of the process.  The
 * lock conflicts only with bbm_worker_is_alive.
 */
int32
bbm_worker_id_acquire(Oid lock_class)
{
	for (;;)
	{
		int32		worker_id = (int32) (pg_prng_uint32(&pg_global_prng_state) & PG_INT32_MAX);
		LOCKTAG		tag = session_tag(lock_class, worker_id, LOCK_WORKER_ID);

		if (worker_id != 0 && LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_OK)
		{
			(void) keep(ours_tag(), ShareLock);
			return worker_id;
		}
	}
}

/*
 * A job may have released it with pg_advisory_unlock_all: take it again.  What
 * refuses it is another process's look whether we are alive, for a moment; that
 * one may take over a job of ours, which claim_epoch then tells us.  The end of
 * the next batch takes it.
 */
void
bbm_worker_id_keep(Oid lock_class, int32 worker_id)
{
	(void) keep(session_tag(lock_class, worker_id, LOCK_WORKER_ID), ExclusiveLock);
	(void) keep(ours_tag(), ShareLock);
}

void
bbm_worker_id_release(Oid lock_class, int32 worker_id)
{
	release_if_held(session_tag(lock_class, worker_id, LOCK_WORKER_ID), ExclusiveLock);
	release_if_held(ours_tag(), ShareLock);
}

/* Whoever holds a lock with this tag is a process of bbm. */
bool
bbm_lock_is_worker_id(const LOCKTAG *tag)
{
	return tag->locktag_type == LOCKTAG_USERLOCK && tag->locktag_lockmethodid == USER_LOCKMETHOD &&
		tag->locktag_field4 == LOCK_WORKER_ID;
}

/* Is it a migration's lock?  The waiter knows which migration's. */
bool
bbm_lock_is_of_migration(const LOCKTAG *tag)
{
	return tag->locktag_type == LOCKTAG_USERLOCK && tag->locktag_field4 == LOCK_MIGRATION;
}

/* Is it the lock that serializes the claims of a table's migrations, and of which table? */
bool
bbm_lock_is_for_claims(const LOCKTAG *tag, Oid *table)
{
	/* no system catalog has our lock class */
	if (tag->locktag_type != LOCKTAG_OBJECT || tag->locktag_field2 < FirstNormalObjectId ||
		tag->locktag_field4 != LOCK_TABLE)
		return false;
	*table = tag->locktag_field3;
	return true;
}

bool
bbm_worker_id_is_mine(Oid lock_class, int32 worker_id)
{
	LOCKTAG		tag = session_tag(lock_class, worker_id, LOCK_WORKER_ID);

	return LockHeldByMe(&tag, ExclusiveLock, false);
}

/* Is another process, with this worker id, still alive?  Needs a transaction. */
bool
bbm_worker_is_alive(Oid lock_class, int32 worker_id)
{
	return is_held(session_tag(lock_class, worker_id, LOCK_WORKER_ID), ShareLock, false);
}

static LOCKTAG
database_tag(Oid database)
{
	LOCKTAG		tag = session_tag(InvalidOid, 0, LOCK_DATABASE);

	tag.locktag_field1 = database;
	return tag;
}

/* No worker is started in the database until bbm_unlock_database_for_us, or the end of the process. */
void
bbm_lock_database_for_us(Oid database)
{
	LOCKTAG		tag = database_tag(database);

	(void) LockAcquire(&tag, ShareLock, true, false);
}

void
bbm_unlock_database_for_us(Oid database)
{
	release_if_held(database_tag(database), ShareLock);
}

/*
 * Does somebody need the database without our workers?  Checks our own lock,
 * which is taken first, and the server's, which a process that connects would
 * wait for: while the database is renamed, dropped or copied, perhaps by a
 * prepared transaction.  Needs no transaction.
 */
bool
bbm_database_is_locked(Oid database)
{
	LOCKTAG		servers;

	SET_LOCKTAG_OBJECT(servers, InvalidOid, DatabaseRelationId, database, 0);
	return is_held(database_tag(database), ExclusiveLock, true) || is_held(servers, RowExclusiveLock, true);
}

/*
 * Has a prepared transaction, or another one that has not ended, written to the
 * table, in this database?  A prepared transaction keeps its locks, through a
 * restart as well, and is only known by them here.
 */
bool
bbm_table_is_written(Oid table)
{
	LOCKTAG		tag;
	int			n;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, table);
	pfree(GetLockConflicts(&tag, ShareLock, &n));
	return n > 0;
}
