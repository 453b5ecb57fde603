/*-------------------------------------------------------------------------
 *
 * cluster_job.c
 *		What a migration of a distributed table may do with its rows: a
 *		composed statement, or a function that gets the name of the table.
 *
 * NOTES
 *	  The job runs on the node of each shard, on the shard.  A statement of the
 *	  user's own names the distributed table, and would go to all shards, by
 *	  two-phase commit; a composed one, and a function with the parameter
 *	  table_name, get the shard's name.  Here it is checked against the table as
 *	  the coordinator knows it, which has the same columns.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/cluster_job.h"

#include "access/sysattr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/txn.h"
#include "catalog/extension.h"
#include "catalog/shard_records.h"
#include "strategy/strategy.h"
#include "target/job.h"
#include "target/key.h"
#include "target/reads.h"
#include "target/relation.h"
#include "target/statement.h"
#include "target/target.h"

static void
check_statement(const BbmMigration *m, Oid relid, const BbmKey *key, const BbmDistribution *d)
{
	BbmStatementParts parts;
	AttrNumber	columns[BBM_MAX_KEY_COLUMNS];

	for (int i = 0; i < key->n; i++)
		columns[i] = key->columns[i].attnum;
	bbm_job_parts(m, &parts);
	bbm_statement_check(relid, &parts, columns, key->n, false);
	bbm_reads_check(relid, &parts);
	if (parts.verb == BBM_UPDATE && d->column &&
		bms_is_member(get_attnum(relid, d->column) - FirstLowInvalidHeapAttributeNumber,
					  bbm_statement_assigned(bbm_statement_analyse(relid, &parts))))
		bbm_cluster_refuse(relid, psprintf("The statement changes \"%s\", by which it is distributed.", d->column),
						   "Such rows belong to another shard: insert them anew.");
}

/*
 * Raises an error unless the job is a function that gets the name of the table.
 * Returns a call of it that does nothing, but raises an error where it does not
 * exist or may not be executed.
 */
static char *
check_function(BbmMigration *m, Oid relid, const BbmKey *key)
{
	BbmTarget	target = {.migration = m, .relid = relid, .strategy = &bbm_strategy_serial, .key = *key};
	char	   *type = key->n == 1 ? format_type_be_qualified(key->columns[0].type) : NULL;

	bbm_job_check_text(m->job);
	bbm_job_resolve(&target);
	if (target.form == BBM_JOB_STATEMENT)
		bbm_cluster_refuse(relid, "A statement of yours names the table, whose rows are in shards.",
						   "Use bbm_update or bbm_delete, which compose the statement for each shard, or a function with the parameter table_name.");
	if (target.form != BBM_JOB_REGISTRY_FUNCTION)
		bbm_cluster_refuse(relid, "The function does not get the name of the table, whose rows are in shards.",
						   "Use a function (table_name, column_name, min, max, batch_size), which gets the name of each shard.");
	return psprintf("%.*s(NULL::text, NULL::text, NULL::%s, NULL::%s, NULL::integer) WHERE false",
					(int) strcspn(target.call, "("), target.call, type, type);
}

/* Does each node have this version of bbm, at work, and the function? */
static void
check_nodes(Oid relid, const char *call)
{
	const char *command = "SELECT bbm_internal.bbm_shards_ready()";
	char	   *ready;

	if (call)
		command = psprintf("%s WHERE NOT EXISTS (%s)", command, call);
	ready = bbm_cluster_nodes_ready(command, bbm_catalog()->version);
	if (ready == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("not each node of the cluster can run batches over \"%s\"", bbm_table_sql_name(relid)),
			 errdetail_internal("%s", ready),
			 call ?
			 errhint("Each node needs the extension in the same version, \"bbm\" in shared_preload_libraries, synced metadata (start_metadata_sync_to_node), and the job's function.") :
			 errhint("Each node needs the extension in the same version, \"bbm\" in shared_preload_libraries, and synced metadata (start_metadata_sync_to_node).")));
}

/*
 * Raises an error unless a node can tell, of the rows of a shard alone, whether
 * they are as they should be.
 */
static void
check_conditions(const BbmMigration *m, Oid relid)
{
	if (m->row_check)
		bbm_statement_check_condition(relid, m->row_check, "row_check");
	if (m->verify)
		bbm_reads_check_none(relid, m->row_check ? m->row_check : m->filter, m->row_check ? "row_check" : "filter");
}

/*
 * Checks what is to be done with the rows, and that each node can do it; raises
 * an error otherwise.  Needs SPI, a lock on the table, and the search_path of
 * the job; the migration has a column_name.
 */
void
bbm_cluster_check_job(BbmMigration *m, Oid relid, const BbmDistribution *distribution)
{
	BbmKey		key = {0};
	char	   *call = NULL;

	bbm_failing_code = BBM_CODE_COLUMN;
	bbm_key_resolve(&key, relid, m->column_name);
	bbm_failing_code = BBM_CODE_SIGNATURE;
	if (m->operation)
		check_statement(m, relid, &key, distribution);
	else
		call = check_function(m, relid, &key);
	check_conditions(m, relid);
	check_nodes(relid, call);
}
