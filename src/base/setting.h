/*-------------------------------------------------------------------------
 *
 * setting.h
 *		The table of the settings that a migration may override; for guc.c and
 *		overrides.c only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_SETTING_H
#define BBM_BASE_SETTING_H

#include "base/bbm.h"

typedef enum BbmSettingKind
{
	KIND_BOOL,
	KIND_INT,
	KIND_REAL,
	KIND_STRING
} BbmSettingKind;

/*
 * How the server's value limits that of a migration whose owner is no
 * superuser.  The server limits what a migration does to others; the owner
 * decides what it does to itself.  The value that turns a setting off means
 * "no limit", so it counts as the most extreme one.
 */
typedef enum BbmSettingLimit
{
	LIMIT_NONE,					/* the setting concerns the migration alone */
	LIMIT_MOST,					/* the server's value is the maximum */
	LIMIT_LEAST,				/* the server's value is the minimum */
	LIMIT_SILENCE,				/* the server's value is the minimum; -1 (none) is allowed */
	LIMIT_ON,					/* what is on cannot be turned off */
	LIMIT_BOTH					/* the server's value applies as well: see bbm_setting_server_string */
} BbmSettingLimit;

/* A setting that a migration may override. */
typedef struct BbmSettingDef
{
	const char *name;
	BbmSettingKind kind;
	void	   *variable;		/* the server's value; NULL when only migrations have one */
	double		boot;
	double		min;
	double		max;
	int			flags;
	const char *short_desc;
	const char *long_desc;
	bool		(*check) (const char *value, const char **why); /* for strings */
	BbmSettingLimit limit;		/* how the server's value limits a migration's */
} BbmSettingDef;

/* by BbmSetting */
extern const BbmSettingDef bbm_settings[];

#endif							/* BBM_BASE_SETTING_H */
