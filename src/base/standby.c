/*-------------------------------------------------------------------------
 *
 * standby.c
 *		What our functions say where nothing can be written: on a standby, and in
 *		a read-only transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "base/standby.h"

#include "access/xact.h"
#include "access/xlog.h"

/*
 * Called first by what writes: what the server would say of its statements
 * does not tell a user where he is.  Raises an error on a standby.
 */
void
bbm_not_on_standby(const char *what)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s during recovery", what),
				 errdetail("This server is a standby: it only replays what the primary does, and no migration runs here."),
				 errhint("Do that on the primary. After a promotion migrations go on here by themselves.")));
}

/* The same for what writes within the caller's transaction: raises an error as well if that is read-only. */
void
bbm_must_be_writable(const char *what)
{
	bbm_not_on_standby(what);
	if (XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s in a read-only transaction", what),
				 errdetail("The call changes tables, which a read-only transaction must not."),
				 errhint("Use BEGIN READ WRITE, or SET default_transaction_read_only = off.")));
}

/* Called by what only reads or waits, which answers on a standby, too. */
void
bbm_notice_standby(void)
{
	if (RecoveryInProgress())
		ereport(NOTICE,
				(errmsg("this server is a standby"),
				 errdetail("It shows what it has replayed of its primary, where migrations run.")));
}
