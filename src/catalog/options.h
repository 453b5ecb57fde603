/*-------------------------------------------------------------------------
 *
 * options.h
 *		The columns of a migration: what each is, who sets it, what it may be.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_OPTIONS_H
#define BBM_CATALOG_OPTIONS_H

#include "base/bbm.h"

/*
 * Flags of a column of batched_background_migrations.  Who sets it, and until
 * when; without any of these, bbm alone:
 */
#define BBM_CONTROL		0x01	/* which migration, whose, whether it runs: by rules of their own, in the guards */
#define BBM_WHAT		0x02	/* what it does: a role that may be its owner, until it is finished */
#define BBM_HOW			0x04	/* how it does that: the same roles */
#define BBM_USERS		(BBM_CONTROL | BBM_WHAT | BBM_HOW)
/* and what else is to be known: */
#define BBM_NOT_NULL	0x10
#define BBM_REQUIRED	0x30	/* the same for the parameter of a function */
#define BBM_FIXED		0x40	/* cannot be changed once the migration has been started */
#define BBM_DERIVED		0x80	/* bbm derives it from the table when it is not given */

typedef struct BbmOption
{
	const char *column;
	Oid			type;
	int			flags;
	/* reads it into the field at this offset of BbmMigration; NULL: C does not need it */
	void		(*read) (const struct BbmOption *option, void *field, Datum value, bool isnull);
	size_t		field;
	/* what it may be, if detail and hint are there for what it may not be */
	int64		min;
	int64		max;
	const char *const *words;	/* up to a NULL; a field is the position among them */
	const char *detail;
	const char *hint;
	const char *parameter;		/* of the functions; NULL: the column's name */
} BbmOption;

/* All columns; the last has no name.  The names of our columns need no quotes. */
extern const BbmOption bbm_options[];

#define bbm_each_option(option) \
	for (const BbmOption *option = bbm_options; option->column; option++)

#define BBM_MAX_OPTIONS 80

/* A row, or what is known of one: the values by the position in bbm_options. */
typedef struct BbmDefinition
{
	Datum		values[BBM_MAX_OPTIONS];
	bool		given[BBM_MAX_OPTIONS];
	bool		nulls[BBM_MAX_OPTIONS];
} BbmDefinition;

extern const BbmOption *bbm_option_of_column(const char *column);
extern const BbmOption *bbm_option_of_parameter(const char *parameter);
extern const char *bbm_option_parameter(const BbmOption *option);
extern char *bbm_option_names(void);
extern const char *bbm_partition_order_word(BbmPartitionOrder order);
extern void bbm_option_check(const BbmOption *option, Datum value, Oid type);
extern char *bbm_option_value(const BbmOption *option, Datum value);

extern void bbm_definition_set(BbmDefinition *d, const char *column, Datum value);
extern void bbm_definition_set_text(BbmDefinition *d, const char *column, const char *value);
extern void bbm_definition_set_null(BbmDefinition *d, const char *column);
extern void bbm_definition_set_bound(BbmDefinition *d, const char *number, const char *key, const BbmBound *bound);
extern void bbm_definition_unset(BbmDefinition *d, const char *column);
extern bool bbm_definition_has(const BbmDefinition *d, const char *column);
extern Datum bbm_definition_get(const BbmDefinition *d, const char *column);
extern BbmMigration *bbm_definition_migration(const BbmDefinition *d, MemoryContext context);
extern BbmMigration *bbm_migration_copy(const BbmMigration *migration);

#endif							/* BBM_CATALOG_OPTIONS_H */
