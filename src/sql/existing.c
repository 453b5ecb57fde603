/*-------------------------------------------------------------------------
 *
 * existing.c
 *		Is a migration defined as somebody wants to define it again?
 *
 * NOTES
 *	  if_not_exists => true is for deploys that are run again.  What a user
 *	  defines is compared, option by option: not what bbm has recorded since,
 *	  nor the status.  Bounds that were not given are those that the table had,
 *	  and compare as such.
 *
 *	  Of a finished migration only what the caller has given is compared, as
 *	  text: later deploys may have dropped its columns, or the table.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/existing.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#include "base/printable.h"
#include "catalog/migrations.h"
#include "engine/event.h"
#include "strategy/strategy.h"

/* How many bytes of a value the error's DETAIL shows. */
#define LONGEST_SHOWN 200

/* Without the table: has it the same name, and the same schema if one is given? */
static bool
is_table_of(Datum given, Datum stored)
{
	List	   *a = textToQualifiedNameList(DatumGetTextPP(given));
	List	   *b = textToQualifiedNameList(DatumGetTextPP(stored));

	return strcmp(strVal(llast(a)), strVal(llast(b))) == 0 &&
		(list_length(a) == 1 || list_length(b) == 1 || strcmp(strVal(linitial(a)), strVal(linitial(b))) == 0);
}

/* Was this bound read from the table, both times? */
static bool
is_found(const BbmMigration *existing, const BbmDefinition *d, const char *column)
{
	if (strcmp(column, "min_value") == 0 || strcmp(column, "min_key") == 0)
		return existing->min_found && DatumGetBool(bbm_definition_get(d, "min_found"));
	if (strcmp(column, "max_value") == 0 || strcmp(column, "max_key") == 0)
		return existing->max_found && DatumGetBool(bbm_definition_get(d, "max_found"));
	return false;
}

/* Is there nothing to compare in this column? */
static bool
is_passed_over(const BbmMigration *existing, const BbmDefinition *d, const BbmOption *option, bool resolved)
{
	bool		given = bbm_definition_has(d, option->column);

	if (!(option->flags & (BBM_WHAT | BBM_HOW)) || is_found(existing, d, option->column))
		return true;
	/* its parts are compared */
	if (existing->operation && strcmp(option->column, "job_signature_name") == 0)
		return true;
	/* keys as text have many forms; and what bbm derives from the table is not there yet */
	if (!resolved && (option->flags & BBM_DERIVED) && (!given || option->type == TEXTARRAYOID))
		return true;
	return !given && (option->flags & BBM_NOT_NULL);
}

static char *
shown(const BbmDefinition *d, const BbmOption *option)
{
	return bbm_definition_has(d, option->column) ?
		bbm_shortened(bbm_option_value(option, bbm_definition_get(d, option->column)), LONGEST_SHOWN) : "NULL";
}

/* The default has a name, too.  NULL when there is none of that name. */
static const BbmStrategy *
strategy_of(const BbmDefinition *d)
{
	return bbm_strategy_find(bbm_definition_has(d, "batching_strategy") ?
							 TextDatumGetCString(bbm_definition_get(d, "batching_strategy")) : NULL);
}

static bool
is_same(const BbmDefinition *stored, const BbmDefinition *d, const BbmOption *option, bool resolved)
{
	Datum		a = bbm_definition_get(stored, option->column);
	Datum		b = bbm_definition_get(d, option->column);

	if (strcmp(option->column, "batching_strategy") == 0)
		return strategy_of(stored) == strategy_of(d);
	if (!bbm_definition_has(stored, option->column) || !bbm_definition_has(d, option->column))
		return bbm_definition_has(stored, option->column) == bbm_definition_has(d, option->column);
	if (!resolved && strcmp(option->column, "table_name") == 0)
		return is_table_of(b, a);
	return strcmp(bbm_option_value(option, a), bbm_option_value(option, b)) == 0;
}

/*
 * Raises an error that shows each difference, or reports that the definition
 * is the same.  "resolved": it is complete, as it would be written now.  Needs
 * SPI.
 */
void
bbm_existing_compare(const BbmMigration *existing, const BbmDefinition *d, bool resolved)
{
	BbmDefinition stored;
	StringInfoData differences;

	initStringInfo(&differences);
	/* it may have been dropped since it was found */
	if (!bbm_migration_definition(existing->id, &stored))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("migration \"%s\" does not exist any more", existing->name),
				 errdetail("It was dropped while it was compared with this definition."),
				 errhint("Repeat it: then it is defined anew.")));
	/* it has caught up, and follows no more */
	if (existing->followed)
		bbm_definition_set(&stored, "follow", BoolGetDatum(true));
	bbm_each_option(option)
	{
		if (!is_passed_over(existing, d, option, resolved) && !is_same(&stored, d, option, resolved))
			appendStringInfo(&differences, "%sIts %s is %s, not %s.", differences.len > 0 ? "\n" : "",
							 bbm_option_parameter(option), shown(&stored, option), shown(d, option));
	}
	if (existing->owner != GetUserId())
		appendStringInfo(&differences, "%sIts owner is %s, not %s.", differences.len > 0 ? "\n" : "",
						 shown(&stored, bbm_option_of_column("owner")), GetUserNameFromId(GetUserId(), false));
	if (differences.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("migration \"%s\" already exists with another definition", existing->name),
				 errdetail("%s", differences.data),
				 errhint("Choose another name, change that one with bbm_alter, or bbm_drop it.")));
	ereport(NOTICE,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("migration \"%s\" already exists, skipping", existing->name),
			 errdetail("It has this definition, and is %s.", bbm_status_word(existing->status))));
}
