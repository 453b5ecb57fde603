/*-------------------------------------------------------------------------
 *
 * module.c
 *		Wiring.
 *
 *-------------------------------------------------------------------------
 */
#include "base/bbm.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "base/guc.h"
#include "base/shmem.h"
#include "base/user.h"
#include "engine/outside.h"
#include "server/hooks.h"
#include "server/launcher.h"
#include "server/read_only.h"
#include "server/statements.h"
#include "server/truncate.h"
#include "target/lockset.h"
#include "target/plan_guard.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	bbm_guc_define();
	bbm_user_install();
	bbm_hooks_install();
	bbm_plan_guard_install();
	bbm_lockset_install();
	bbm_outside_install();
	bbm_truncate_install();
	bbm_statements_install();
	bbm_read_only_install();
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
	{
		bbm_shmem_install();
		bbm_launcher_register();
	}
}
