/*-------------------------------------------------------------------------
 *
 * signal.h
 *		The readers of the signals; for the readers alone.
 *
 * A reader reads one thing that the server shows, for a migration that has set
 * a limit for it.  It runs outside of a transaction, or in the transaction of
 * a batch that is done; it must not raise errors, and holds no lock when it
 * returns.  What it cannot read, throttles.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_THROTTLE_SIGNAL_H
#define BBM_THROTTLE_SIGNAL_H

#include "base/bbm.h"

#include "base/shared.h"

/* How long a condition that was true stays valid. */
#define BBM_CONDITION_MS 1000

/* The hours that were parsed last. */
typedef struct BbmKnownHours
{
	char	   *text;			/* NULL: not yet */
	List	   *hours;
} BbmKnownHours;

/* What is known about a target between two polls; in its memory context. */
typedef struct BbmThrottle
{
	MemoryContext relation_context; /* of the four below */
	int			nrelations;
	Oid		   *relations;		/* with storage: the table, its partitions or child tables, their TOAST tables */
	char	  **names;			/* of each */
	bool	   *is_toast;		/* of the relation before it */
	TimestampTz relations_until;	/* they are read again after that; 0: not read yet */
	ErrorData  *relations_error;	/* why they could not be read, or NULL */
	TimestampTz dead_until;		/* the last count of dead tuples is valid until then */
	double		dead;
	double		live;
	bool		dead_are_kept;	/* by a session of bbm's alone, so that no vacuum removes them */
	BbmKnownHours hours;		/* bbm.active_hours */
	BbmKnownHours server_hours; /* ... and the server's, where both count */
	TimestampTz condition_until;	/* the condition was true, and that is valid until then */
} BbmThrottle;

/*
 * What a reader has measured, and the limit of that; or in words, where it is
 * no number.  All zero: nothing.
 */
typedef struct BbmMeasure
{
	const char *unit;			/* "bytes", for people; "s", with a decimal; or what is counted */
	double		value;
	double		limit;
	const char *words;
	const char *limit_words;
} BbmMeasure;

typedef struct BbmReading
{
	const BbmMigration *migration;	/* in */
	BbmThrottle *state;
	TimestampTz now;
	bool		afresh;			/* for display: nothing that was read some time ago will do */
	TimestampTz throttled_since;	/* 0 when it does not throttle so far */
	bool		throttles;		/* out */
	bool		paces;			/* the signal is a limit of the migration's own rate */
	TimestampTz due;			/* when to poll again, if the reader knows; else 0 */
	int			first_poll_ms;	/* else the first poll is that soon, and later ones less and less often */
	char		reason[BBM_WAITING_LENGTH];
	BbmMeasure	measure;
	ErrorData  *cancelled;		/* a cancel ended the check */
	int			signal;			/* the number of the signal that throttles, for metrics */
} BbmReading;

typedef void (*BbmReader) (BbmReading *reading);

/* throttle/signal.c */
extern void bbm_reading_throttles(BbmReading *reading, const char *format, ...) pg_attribute_printf(2, 3);
extern void bbm_reading_measures(BbmReading *reading, const char *unit, double value, double limit);
extern void bbm_reading_describes(BbmReading *reading, const char *words, const char *limit_words);
extern char *bbm_quantity_to_string(const char *unit, double value);
extern const char *bbm_bytes(uint64 bytes);

/* throttle/wal.c */
extern void bbm_read_replication_lag(BbmReading *reading);
extern void bbm_read_replication_delay(BbmReading *reading);
extern void bbm_read_last_replay(BbmReading *reading);
extern void bbm_read_slots(BbmReading *reading);
extern void bbm_read_unarchived(BbmReading *reading);

/* throttle/table.c */
extern void bbm_read_autovacuum(BbmReading *reading);
extern void bbm_read_horizon(BbmReading *reading);
extern void bbm_read_dead_tuples(BbmReading *reading);
extern void bbm_read_dead_ratio(BbmReading *reading);
extern void bbm_find_relations(BbmThrottle *state, MemoryContext context, Oid relid);

/* throttle/vacuum.c */
extern bool bbm_vacuum_instead(BbmReading *reading);

/* throttle/load.c */
extern void bbm_read_hours(BbmReading *reading);
extern void bbm_read_wal_rate(BbmReading *reading);
extern void bbm_read_row_rate(BbmReading *reading);
extern void bbm_read_sessions(BbmReading *reading);
extern void bbm_read_condition(BbmReading *reading);

#endif							/* BBM_THROTTLE_SIGNAL_H */
