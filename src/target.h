/*-------------------------------------------------------------------------
 *
 * target.h
 *		Resolving a migration: its strategy, table, key and job.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_H
#define BBM_TARGET_H

#include "strategy.h"

extern BbmTarget *bbm_target_open(const BbmMigration *migration);
extern void bbm_target_close(BbmTarget *target);
extern Oid	bbm_table_by_name(const char *name);
extern char *bbm_table_sql_name(Oid relid);
extern Oid	bbm_target_table(const char *name);
extern char *bbm_target_primary_key(Oid relid);
extern int64 bbm_target_estimate(BbmTarget *target);

/* The settings a job's text is read and run with, until bbm_user_settings_end. */
extern int	bbm_job_settings(const BbmMigration *migration);

/* A text that a user wrote and the server is to read, for bbm_user_text_error. */
typedef struct BbmUserText
{
	const char *text;
	const char *what;			/* what messages call it */
	int			prefix;			/* how many characters of ours the server reads before it */
	const char *syntax_hint;
} BbmUserText;

/* job.c */
extern void bbm_user_text_error(void *arg);
extern void bbm_job_check_text(const char *job);
extern void bbm_job_prepare(BbmTarget *target);

#endif							/* BBM_TARGET_H */
