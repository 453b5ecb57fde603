/*-------------------------------------------------------------------------
 *
 * backends.c
 *		What the server shows of its processes.
 *
 *-------------------------------------------------------------------------
 */
#include "base/backends.h"

#include "storage/proc.h"
#include "utils/memutils.h"

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

/* What a process waits for; 0: it runs, or waits for nothing that the server knows of. */
typedef struct ProcessWait
{
	int			pid;
	uint32		event;
} ProcessWait;

/* All processes as of bbm_waits_read, by their ids. */
static ProcessWait *waits = NULL;
static int	nwaits = 0;

static int
compare_pids(const void *a, const void *b)
{
	int			x = ((const ProcessWait *) a)->pid;
	int			y = ((const ProcessWait *) b)->pid;

	return (x > y) - (x < y);
}

/*
 * Reads what all processes wait for, for bbm_wait_of_process: to find one by its
 * id, the server goes through all of them, with a lock that its sessions need.
 * Takes no lock, since information that is a moment old is good enough.
 */
void
bbm_waits_read(void)
{
	if (waits == NULL)
		waits = MemoryContextAlloc(TopMemoryContext, ProcGlobal->allProcCount * sizeof(ProcessWait));
	nwaits = 0;
	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
	{
		const volatile PGPROC *process = &ProcGlobal->allProcs[i];
		int			pid = process->pid;

		if (pid != 0)
			waits[nwaits++] = (ProcessWait) {pid, process->wait_event_info};
	}
	qsort(waits, nwaits, sizeof(ProcessWait), compare_pids);
}

/* What the process with this id waited for then; false if there was none. */
bool
bbm_wait_of_process(int pid, uint32 *event)
{
	ProcessWait wanted = {pid, 0};
	const ProcessWait *found = bsearch(&wanted, waits, nwaits, sizeof(ProcessWait), compare_pids);

	if (found)
		*event = found->event;
	return found != NULL;
}
