/*-------------------------------------------------------------------------
 *
 * bbm.c
 *		Wiring.
 *
 *-------------------------------------------------------------------------
 */
#include "bbm.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "guc.h"
#include "hooks.h"
#include "launcher.h"
#include "lockset.h"
#include "outside.h"
#include "planguard.h"
#include "shmem.h"
#include "truncate.h"
#include "txn.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	bbm_guc_define();
	bbm_txn_install();
	bbm_hooks_install();
	bbm_plan_guard_install();
	bbm_lockset_install();
	bbm_outside_install();
	bbm_truncate_install();
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
	{
		bbm_shmem_install();
		bbm_launcher_register();
	}
}
