/*-------------------------------------------------------------------------
 *
 * backends.c
 *		What the server shows of its processes.
 *
 *-------------------------------------------------------------------------
 */
#include "base/backends.h"

#include "base/compat.h"

/*
 * The status of the process with this id, or NULL; in the copy of all that this
 * process has made, or makes now.
 */
PgBackendStatus *
bbm_status_of_process(int pid)
{
	int			n = pgstat_fetch_stat_numbackends();

	for (int i = 1; i <= n; i++)
	{
		PgBackendStatus *status = bbm_backend_status(i);

		if (status && status->st_procpid == pid)
			return status;
	}
	return NULL;
}
