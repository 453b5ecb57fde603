/*-------------------------------------------------------------------------
 *
 * user.c
 *		As which user, and with which settings, a statement runs: ours, or the
 *		owner's.
 *
 *-------------------------------------------------------------------------
 */
#include "base/user.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "optimizer/cost.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/guc.h"

static const char *original_seqscan = "on";
static const char *original_jit = "on";
static const char *original_replication_role = "origin";
static bool pinned = false;		/* are the settings those of our own statements? */

/*
 * Statements of the owner that have not ended, innermost first, in
 * TopTransactionContext.  When an abort restores settings, "pinned" must be
 * restored as well: a job may fail in a subtransaction, and we continue.
 */
typedef struct UserBlock
{
	SubTransactionId subtransaction;
	bool		pinned_before;
	struct UserBlock *outer;
} UserBlock;

static UserBlock *innermost = NULL;

/* User switches that have not ended, innermost last; an abort undoes those made in it. */
#define MAX_SWITCHES 16

typedef struct Switched
{
	SubTransactionId subtransaction;
	bool		engine_before;
	Oid			acting_before;
	Oid			to_before;
} Switched;

static Switched switched[MAX_SWITCHES];
static int	user_switches = 0;
static bool engine_writes = false;
static Oid	acting_user = InvalidOid;
static Oid	switched_to = InvalidOid;

/* Saves what bbm_settings_pin changes; statements of the owner get it back. */
void
bbm_settings_remember(void)
{
	original_seqscan = enable_seqscan ? "on" : "off";
	original_jit = jit_enabled ? "on" : "off";
	/* one of the words of the setting, which last */
	original_replication_role = GetConfigOption("session_replication_role", false, false);
}

/*
 * The settings for our own statements: no schema before pg_catalog, and plans
 * that stay good when a table that was empty has grown.  A scan of a whole
 * table then has such a high cost that it would be JIT-compiled, which takes
 * longer than any of them.  The triggers of our tables fire, whatever the role
 * has that wants its own triggers not to fire.
 */
void
bbm_settings_pin(void)
{
	bbm_guc_set("search_path", BBM_SEARCH_PATH, true);
	bbm_guc_set("enable_seqscan", "off", true);
	bbm_guc_set("jit", "off", true);
	/* a change of it makes the server plan everything anew */
	if (SessionReplicationRole != SESSION_REPLICATION_ROLE_ORIGIN)
		bbm_guc_set("session_replication_role", "origin", true);
}

/* Are the settings those of our own statements from here on?  Returns whether they were. */
bool
bbm_settings_are_ours(bool ours)
{
	bool		before = pinned;

	pinned = ours;
	return before;
}

/*
 * Opens a GUC nest level for a statement of the owner, with this search_path
 * and otherwise the session's settings from before we pinned them.  SETs in
 * the statement, and statements of ours that it reaches by calling our
 * functions, start from there.
 */
static int
user_settings_begin(const char *search_path)
{
	UserBlock  *block = MemoryContextAlloc(TopTransactionContext, sizeof(UserBlock));
	int			level = NewGUCNestLevel();

	bbm_guc_set("search_path", search_path, true);
	if (pinned)
	{
		bbm_guc_set("enable_seqscan", original_seqscan, true);
		bbm_guc_set("jit", original_jit, true);
		if (strcmp(original_replication_role, "origin") != 0)
			bbm_guc_set("session_replication_role", original_replication_role, true);
	}
	block->subtransaction = GetCurrentSubTransactionId();
	block->pinned_before = pinned;
	block->outer = innermost;
	innermost = block;
	pinned = false;
	return level;
}

static void
end_user_block(void)
{
	UserBlock  *left = innermost;

	pinned = left->pinned_before;
	innermost = left->outer;
	pfree(left);
}

/* An error does the same with the (sub)transaction. */
void
bbm_user_settings_end(int level)
{
	AtEOXact_GUC(false, level);
	end_user_block();
}

/*
 * An error skips bbm_restore_user, and the end of a statement of the owner.
 * The (sub)transaction's abort restores the user id and the settings, so our
 * state about them must be reset too, or the guards of our tables would stay
 * open for the rest of the session.
 */
static void
forget_blocks_at_xact_end(XactEvent event, void *arg)
{
	user_switches = 0;
	engine_writes = false;
	innermost = NULL;
	pinned = false;
}

static void
restore_outer_user(void)
{
	engine_writes = switched[--user_switches].engine_before;
	acting_user = switched[user_switches].acting_before;
	switched_to = switched[user_switches].to_before;
}

static void
forget_blocks_at_subxact_abort(SubXactEvent event, SubTransactionId mySubid,
							   SubTransactionId parentSubid, void *arg)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (innermost && innermost->subtransaction >= mySubid)
		end_user_block();
	while (user_switches > 0 && switched[user_switches - 1].subtransaction >= mySubid)
		restore_outer_user();
}

/* Registers the callbacks; called once per process, from _PG_init. */
void
bbm_user_install(void)
{
	RegisterXactCallback(forget_blocks_at_xact_end, NULL);
	RegisterSubXactCallback(forget_blocks_at_subxact_abort, NULL);
}

/*
 * From here to bbm_restore_user we run as the extension's owner, only for
 * statements whose text is ours: restricted as a maintenance command is, with
 * pg_catalog first.  With "engine" the guards of our tables let everything
 * through; without it, they apply the rules for users to the statement.  An
 * error ends the block with the (sub)transaction.
 */
void
bbm_switch_to_extension_owner(BbmUserSwitch *user_switch, Oid to, bool engine)
{
	GetUserIdAndSecContext(&user_switch->user, &user_switch->context);
	if (user_switches >= MAX_SWITCHES)
		elog(ERROR, "too many nested statements of extension \"bbm\"");
	user_switch->nest_level = 0;
	/* the flag saves time; the settings themselves decide */
	if (!pinned || strcmp(namespace_search_path, BBM_SEARCH_PATH) != 0 || enable_seqscan || jit_enabled ||
		SessionReplicationRole != SESSION_REPLICATION_ROLE_ORIGIN)
	{
		user_switch->nest_level = NewGUCNestLevel();
		bbm_settings_pin();
	}
	SetUserIdAndSecContext(to, user_switch->context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	switched[user_switches].subtransaction = GetCurrentSubTransactionId();
	switched[user_switches].engine_before = engine_writes;
	switched[user_switches].acting_before = acting_user;
	switched[user_switches].to_before = switched_to;
	/* a guard's statement within one of ours acts for the same user */
	if (user_switches == 0 || user_switch->user != switched_to)
		acting_user = user_switch->user;
	switched_to = to;
	user_switches++;
	engine_writes = engine;
}

void
bbm_restore_user(BbmUserSwitch *user_switch)
{
	restore_outer_user();
	SetUserIdAndSecContext(user_switch->user, user_switch->context);
	if (user_switch->nest_level > 0)
		AtEOXact_GUC(false, user_switch->nest_level);
}

/*
 * Is the current statement one of our own text?  Not one that it has caused as
 * another role, for example in that role's triggers on tables that refer to
 * ours.
 */
bool
bbm_our_statement(void)
{
	return user_switches > 0 && GetUserId() == switched_to;
}

/* Is the engine itself writing our tables?  For the guards of our tables. */
bool
bbm_engine_writes(void)
{
	return engine_writes && bbm_our_statement();
}

/* The user for whom the current statement runs. */
Oid
bbm_acting_user(void)
{
	return bbm_our_statement() ? acting_user : GetUserId();
}

/* May a worker log in as this role, which exists? */
bool
bbm_may_log_in(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		may = !BBM_OWNER_NEEDS_LOGIN ||
		(HeapTupleIsValid(tuple) && ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin);

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return may;
}

/*
 * What search_path is to names, these are to values: what a constant in a
 * user's text means, and what an expression makes of a date or of a number,
 * depends on them.  A migration keeps those of the session that defines it: in
 * a worker, which has those of its owner's role, it does what was previewed.
 */
static const char *const text_settings[] = {
	"DateStyle", "IntervalStyle", "TimeZone", "bytea_output", "default_text_search_config", "extra_float_digits",
	"lc_monetary", "lc_numeric", "lc_time", "standard_conforming_strings"
};

/* The column job_settings as this session would define it: text[], each as name=value. */
Datum
bbm_session_settings_now(void)
{
	Datum		entries[lengthof(text_settings)];

	for (int i = 0; i < lengthof(text_settings); i++)
		entries[i] = CStringGetTextDatum(psprintf("%s=%s", text_settings[i],
												  GetConfigOption(text_settings[i], false, false)));
	return PointerGetDatum(construct_array(entries, lengthof(text_settings), TEXTOID, -1, false, TYPALIGN_INT));
}

/* The name of the setting of an entry, and its value; NULL for one that is none of these. */
static const char *
entry_name(const char *entry, const char **value)
{
	const char *equals = strchr(entry, '=');

	for (int i = 0; equals && i < lengthof(text_settings); i++)
	{
		if (pg_strcasecmp(pnstrdup(entry, equals - entry), text_settings[i]) != 0)
			continue;
		*value = equals + 1;
		return text_settings[i];
	}
	return NULL;
}

/* Makes the setting what the entry says, until the GUC nest level ends, or (!set) only checks it. */
static void
entry_apply(const char *entry, bool set)
{
	const char *value = NULL;
	const char *name = entry_name(entry, &value);

	if (name && strcmp(GetConfigOption(name, false, false), value) == 0)
		return;
	/* the server's own error has no hint */
	if (name && set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, set, DEBUG5, false) != 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid job_settings: \"%s\"", entry),
			 name ? errdetail("This server has no such value of %s.", name) :
			 errdetail("It is no name=value of a setting that the meaning of a job's text depends on."),
			 errhint("SELECT bbm_internal.bbm_session_settings() shows those of this session; an UPDATE of job_settings to DEFAULT takes them.")));
}

static void
entries_apply(Datum entries, bool set)
{
	Datum	   *values;
	bool	   *nulls;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(entries), TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	for (int i = 0; i < n; i++)
		entry_apply(nulls[i] ? "null" : TextDatumGetCString(values[i]), set);
}

/* Raises an error unless each entry is one of these settings, with a value that it may have here. */
void
bbm_job_settings_check(Datum entries)
{
	entries_apply(entries, false);
}

/*
 * Opens a GUC nest level with the migration's search_path and job_settings;
 * pg_temp comes last, so that no temporary object hides another.
 */
int
bbm_job_settings(const BbmMigration *migration)
{
	char	   *path = migration->search_path[0] == '\0' ? pstrdup("pg_temp") :
		psprintf("%s, pg_temp", migration->search_path);
	int			level = user_settings_begin(path);

	if (DatumGetPointer(migration->job_settings))
		entries_apply(migration->job_settings, true);
	return level;
}

/* The name of a role for a message: the role may be gone.  Needs a transaction. */
const char *
bbm_role_name(Oid role)
{
	const char *name = GetUserNameFromId(role, true);

	return name ? name : "?";
}
