/*-------------------------------------------------------------------------
 *
 * overrides.c
 *		The settings that a migration has of its own: the column "settings".
 *
 *-------------------------------------------------------------------------
 */
#include "base/guc.h"

#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "base/setting.h"

/* Whoever writes a smaller number without a unit hardly means milliseconds or kilobytes. */
#define SMALL_NUMBER 100

/* The value of one setting. */
typedef union SettingValue
{
	bool		b;
	int			i;
	double		r;
	char	   *s;
} SettingValue;

struct BbmOverrides
{
	bool		is_set[BBM_SETTINGS];
	SettingValue value[BBM_SETTINGS];
};

const char *
bbm_setting_name(BbmSetting setting)
{
	return bbm_settings[setting].name;
}

static const SettingValue *
overriding(const BbmMigration *migration, BbmSetting setting)
{
	if (migration->overrides && migration->overrides->is_set[setting])
		return &migration->overrides->value[setting];
	return NULL;
}

/* The server's value; empty for a setting that only migrations have. */
static SettingValue
server_value(const BbmSettingDef *def)
{
	SettingValue value = {0};

	if (def->variable == NULL)
		return value;
	switch (def->kind)
	{
		case KIND_BOOL:
			value.b = *(bool *) def->variable;
			break;
		case KIND_INT:
			value.i = *(int *) def->variable;
			break;
		case KIND_REAL:
			value.r = *(double *) def->variable;
			break;
		case KIND_STRING:
			value.s = *(char **) def->variable;
			break;
	}
	return value;
}

/*
 * Is the setting off?  The lowest value turns it off, unless that is a regular
 * one (lock_timeout); and where that is -1 so does any fraction below zero.
 */
static bool
is_off(const BbmSettingDef *def, double value)
{
	return def->min < 0 ? value < 0 : def->min == 0 && value == 0;
}

/* Does the value exceed what the server allows a migration whose owner is no superuser? */
static bool
is_beyond(const BbmSettingDef *def, const SettingValue *value)
{
	SettingValue server = server_value(def);
	double		mine = def->kind == KIND_INT ? value->i : def->kind == KIND_REAL ? value->r : 0;
	double		limit = def->kind == KIND_INT ? server.i : def->kind == KIND_REAL ? server.r : 0;

	switch (def->limit)
	{
		case LIMIT_MOST:
			return !is_off(def, limit) && (is_off(def, mine) || mine > limit);
		case LIMIT_LEAST:
			return mine < limit;
		case LIMIT_SILENCE:
			return mine >= 0 && (limit < 0 || mine < limit);
		case LIMIT_ON:
			return server.b && !value->b;
		case LIMIT_NONE:
		case LIMIT_BOTH:
			break;
	}
	return false;
}

/*
 * The value that applies to the migration: its own, if it has one that does
 * not exceed the server's limit, which may have been lowered since it was set.
 */
static SettingValue
effective(const BbmMigration *migration, BbmSetting setting)
{
	const SettingValue *own = overriding(migration, setting);

	return own && (migration->unlimited || !is_beyond(&bbm_settings[setting], own)) ? *own :
		server_value(&bbm_settings[setting]);
}

bool
bbm_setting_bool(const BbmMigration *migration, BbmSetting setting)
{
	return effective(migration, setting).b;
}

int
bbm_setting_int(const BbmMigration *migration, BbmSetting setting)
{
	return effective(migration, setting).i;
}

double
bbm_setting_real(const BbmMigration *migration, BbmSetting setting)
{
	return effective(migration, setting).r;
}

/* NULL when only migrations have the setting, and this one has not. */
const char *
bbm_setting_string(const BbmMigration *migration, BbmSetting setting)
{
	return effective(migration, setting).s;
}

/*
 * The server's value where the migration has one of its own and both apply;
 * NULL where only its own applies.
 */
const char *
bbm_setting_server_string(const BbmMigration *migration, BbmSetting setting)
{
	const BbmSettingDef *def = &bbm_settings[setting];

	return def->limit == LIMIT_BOTH && !migration->unlimited && overriding(migration, setting) ?
		server_value(def).s : NULL;
}

/* Is it on?  Off is false, an empty string, or for numbers what is_off says. */
bool
bbm_setting_is_on(const BbmMigration *migration, BbmSetting setting)
{
	const BbmSettingDef *def = &bbm_settings[setting];
	const char *text;

	switch (def->kind)
	{
		case KIND_BOOL:
			return bbm_setting_bool(migration, setting);
		case KIND_INT:
			return !is_off(def, bbm_setting_int(migration, setting));
		case KIND_REAL:
			return !is_off(def, bbm_setting_real(migration, setting));
		case KIND_STRING:
			text = bbm_setting_string(migration, setting);
			if (text && text[0] != '\0')
				return true;
			text = bbm_setting_server_string(migration, setting);
			return text && text[0] != '\0';
	}
	return false;
}

static const BbmSettingDef *
find_setting(const char *name)
{
	for (int i = 0; i < BBM_SETTINGS; i++)
	{
		if (pg_strcasecmp(bbm_settings[i].name, name) == 0)
			return &bbm_settings[i];
	}
	return NULL;
}

/*
 * Parses a value as in postgresql.conf; false with a reason when it is invalid.
 * "check": also whether a string makes sense, which may depend on more than the
 * string, as a time zone's name does.
 */
static bool
parse_value(const BbmSettingDef *def, const char *text, bool check, SettingValue *value, const char **why)
{
	const char *hint = NULL;
	bool		ok = true;

	switch (def->kind)
	{
		case KIND_BOOL:
			if (!parse_bool(text, &value->b))
				*why = "It is on or off.";
			return *why == NULL;
		case KIND_STRING:
			value->s = pstrdup(text);
			return !check || def->check(text, why);
		case KIND_INT:
			ok = parse_int(text, &value->i, def->flags, &hint);
			if (ok && (value->i < def->min || value->i > def->max))
				*why = psprintf("%d is not in the range from %.0f to %.0f.", value->i, def->min, def->max);
			break;
		case KIND_REAL:
			ok = parse_real(text, &value->r, def->flags, &hint);
			/* written this way because of NaN */
			if (ok && !(value->r >= def->min && value->r <= def->max))
				*why = psprintf("%g is not in the range from %g to %g.", value->r, def->min, def->max);
			break;
	}
	if (!ok)
		*why = hint ? hint : "It is not a number.";
	return *why == NULL;
}

/* The setting that an entry names, whatever its value; NULL when there is none. */
static const BbmSettingDef *
named_setting(const char *entry)
{
	return find_setting(pnstrdup(entry, strcspn(entry, "=")));
}

/* Parses one "name=value"; NULL with a reason when it is invalid.  For "check" see parse_value. */
static const BbmSettingDef *
parse_entry(const char *entry, bool check, SettingValue *value, const char **why)
{
	const char *equals = strchr(entry, '=');
	const BbmSettingDef *def;

	*why = NULL;
	if (equals == NULL)
	{
		*why = "It has the form name=value.";
		return NULL;
	}
	def = named_setting(entry);
	if (def == NULL)
		*why = "A migration has no setting of that name.";
	else if (!parse_value(def, equals + 1, check, value, why))
		def = NULL;
	return def;
}

static int
elements(const ArrayType *entries, Datum **values, bool **nulls)
{
	int			n;

	deconstruct_array((ArrayType *) entries, TEXTOID, -1, false, TYPALIGN_INT, values, nulls, &n);
	return n;
}

/* The setting whose name is nearest to one that no setting has; NULL when none is near. */
static const BbmSettingDef *
nearest_setting(const char *name)
{
	const BbmSettingDef *nearest = NULL;
	int			most = Min((int) strlen(name) / 3, 8);

	for (int i = 0; i < BBM_SETTINGS && most > 0; i++)
	{
		const char *other = bbm_settings[i].name;
		int			distance = varstr_levenshtein_less_equal(name, strlen(name), other, strlen(other), 1, 1, 1, most,
															 true);

		if (distance > most)
			continue;
		nearest = &bbm_settings[i];
		/* another one has to be nearer */
		most = distance - 1;
	}
	return nearest;
}

/* What an entry that is invalid should have been. */
static const char *
entry_hint(const char *entry)
{
	const BbmSettingDef *def = named_setting(entry);
	StringInfoData names;

	if (def)
		return def->variable ? psprintf("%s %c%s SHOW %s has the server's value.", def->name,
										pg_ascii_tolower((unsigned char) def->short_desc[0]),
										def->short_desc + 1, def->name) :
			psprintf("Write it as %s=condition.", def->name);
	def = nearest_setting(pnstrdup(entry, strcspn(entry, "=")));
	initStringInfo(&names);
	if (def)
		appendStringInfo(&names, "Perhaps you meant \"%s\". ", def->name);
	appendStringInfoString(&names, "A migration can have its own ");
	for (int i = 0; i < BBM_SETTINGS; i++)
		appendStringInfo(&names, "%s%s", i == 0 ? "" : i == BBM_SETTINGS - 1 ? " and " : ", ", bbm_settings[i].name);
	appendStringInfoChar(&names, '.');
	return names.data;
}

/* Raises an error unless each entry is a setting that a migration may have, with a valid value. */
void
bbm_overrides_check(const ArrayType *entries)
{
	Datum	   *values;
	bool	   *nulls;
	int			n = elements(entries, &values, &nulls);
	bool		seen[BBM_SETTINGS] = {false};

	for (int i = 0; i < n; i++)
	{
		char	   *entry = nulls[i] ? "null" : TextDatumGetCString(values[i]);
		const char *why = "It has the form name=value.";
		const BbmSettingDef *def = NULL;
		SettingValue value;

		if (!nulls[i])
			def = parse_entry(entry, true, &value, &why);
		if (def && seen[def - bbm_settings])
		{
			why = "It is given twice.";
			def = NULL;
		}
		if (def == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid setting of a migration: %s", entry),
					 errdetail("%s", why),
					 errhint("%s", entry_hint(entry))));
		seen[def - bbm_settings] = true;
	}
}

/* The unit of a number without one, and one that may have been meant; false when the setting has none of these. */
static bool
small_unit(const BbmSettingDef *def, const char **unit, const char **larger)
{
	*unit = (def->flags & GUC_UNIT) == GUC_UNIT_MS ? "ms" : (def->flags & GUC_UNIT) == GUC_UNIT_KB ? "kB" : NULL;
	*larger = *unit && strcmp(*unit, "ms") == 0 ? "s" : "MB";
	return *unit != NULL;
}

/*
 * Reports values that are surely not meant: a small number without a unit, of
 * a setting whose unit is a small one.  The entries are valid.
 */
void
bbm_overrides_notice(const ArrayType *entries, const char *migration)
{
	Datum	   *values;
	bool	   *nulls;
	int			n = elements(entries, &values, &nulls);

	for (int i = 0; i < n; i++)
	{
		char	   *entry = TextDatumGetCString(values[i]);
		const BbmSettingDef *def = named_setting(entry);
		const char *number = strchr(entry, '=') + 1;
		const char *unit;
		const char *larger;

		number += strspn(number, " ");
		if (number[strspn(number, "0123456789 ")] != '\0' || atoi(number) <= 0 || atoi(number) >= SMALL_NUMBER ||
			!small_unit(def, &unit, &larger))
			continue;
		ereport(NOTICE,
				(errmsg("%s of migration \"%s\" is %d %s", def->name, migration, atoi(number), unit),
				 errhint("A number without a unit is in %s here. Perhaps you meant %s=%d%s.", unit, def->name, atoi(number),
						 larger)));
	}
}

static const char *
limit_hint(const BbmSettingDef *def, const char *limit)
{
	switch (def->limit)
	{
		case LIMIT_MOST:
			return psprintf("Use a value of at most %s.", limit);
		case LIMIT_LEAST:
			return psprintf("Use a value of at least %s.", limit);
		case LIMIT_SILENCE:
			return "A migration can have less logged than the server, not more.";
		default:
			return "It cannot be turned off for one migration.";
	}
}

/*
 * Raises an error when an entry exceeds what the server allows a migration of
 * this owner.  The entries are valid.
 */
void
bbm_overrides_check_limits(const ArrayType *entries, Oid owner)
{
	Datum	   *values;
	bool	   *nulls;
	int			n = elements(entries, &values, &nulls);

	if (superuser_arg(owner))
		return;
	for (int i = 0; i < n; i++)
	{
		SettingValue value;
		const char *why;
		char	   *entry = nulls[i] ? NULL : TextDatumGetCString(values[i]);
		const BbmSettingDef *def = entry ? parse_entry(entry, false, &value, &why) : NULL;
		const char *limit;

		if (def == NULL || !is_beyond(def, &value))
			continue;
		limit = GetConfigOptionByName(def->name, NULL, false);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to give a migration the setting %s", entry),
				 errdetail("The server's is %s, which limits migrations whose owner is no superuser.", limit),
				 errhint("%s", limit_hint(def, limit))));
	}
}

/*
 * Reads the entries of a row.  They were checked when they were set, but by
 * another version perhaps, or when there was a time zone that is gone.  What
 * this version does not know is ignored; a string is taken as it is, and who
 * uses it says what is wrong with it: the row can be read, and corrected, and
 * the migration waits.  In the current memory context.
 */
const BbmOverrides *
bbm_overrides_read(const ArrayType *entries)
{
	BbmOverrides *overrides = palloc0(sizeof(BbmOverrides));
	Datum	   *values;
	bool	   *nulls;
	int			n = elements(entries, &values, &nulls);

	for (int i = 0; i < n; i++)
	{
		SettingValue value;
		const char *why;
		const BbmSettingDef *def = nulls[i] ? NULL : parse_entry(TextDatumGetCString(values[i]), false, &value, &why);

		if (def == NULL)
			continue;
		overrides->is_set[def - bbm_settings] = true;
		overrides->value[def - bbm_settings] = value;
	}
	return overrides;
}

/* Copies into the current memory context. */
const BbmOverrides *
bbm_overrides_copy(const BbmOverrides *overrides)
{
	BbmOverrides *copy;

	if (overrides == NULL)
		return NULL;
	copy = palloc(sizeof(BbmOverrides));
	*copy = *overrides;
	for (int i = 0; i < BBM_SETTINGS; i++)
	{
		if (copy->is_set[i] && bbm_settings[i].kind == KIND_STRING)
			copy->value[i].s = pstrdup(copy->value[i].s);
	}
	return copy;
}
