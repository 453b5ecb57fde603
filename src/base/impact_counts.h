/*-------------------------------------------------------------------------
 *
 * impact_counts.h
 *		What migrations cost the statements of others, in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_IMPACT_COUNTS_H
#define BBM_BASE_IMPACT_COUNTS_H

#include "base/bbm.h"

#include "base/impact.h"
#include "base/shmem.h"

/* A statement that counts, from its begin to its end. */
typedef struct BbmCountedStatement
{
	TimestampTz began;
	BbmWindowKind kind;
	int			group;
	uint32		entries;		/* a bit for each entry in which it counts */
	uint32		generation[BBM_MAX_IMPACTS];
} BbmCountedStatement;

extern bool bbm_own_statements;

/* The processes of bbm. */
extern PGDLLEXPORT void bbm_impact_pulse_begins(int64 migration_id, TimestampTz now);
extern PGDLLEXPORT void bbm_impact_pulse_ends(TimestampTz now, double elapsed_us);
extern PGDLLEXPORT void bbm_impact_works_until(TimestampTz until);
extern PGDLLEXPORT void bbm_impact_stops(void);
extern bool bbm_impact_is_silent(TimestampTz now, TimestampTz *until);

/* All sessions. */
extern bool bbm_impact_hears(TimestampTz began, BbmCountedStatement *statement);
extern void bbm_impact_count(const BbmCountedStatement *statement, TimestampTz ended);
extern void bbm_impact_leave_out(void);
extern void bbm_impact_leave_out_until(MemoryContext context);
extern uint32 bbm_impact_read(int64 migration_id, BbmHistogram histograms[BBM_WINDOW_KINDS]);

/* Does any migration run, so that statements have to be counted? */
static inline bool
bbm_impact_is_on(void)
{
	return bbm_shared != NULL && pg_atomic_read_u32(&bbm_shared->impact.on) != 0;
}

/* Is a statement that begins now in a window that is counted?  Few are. */
static inline bool
bbm_impact_may_count(TimestampTz began)
{
	int			shift = (int) pg_atomic_read_u32(&bbm_shared->impact.shift);

	return bbm_window_counts(began, shift) &&
		bbm_window_kind(bbm_shared->impact.seed, began, shift) != BBM_WINDOW_OTHER;
}

#endif							/* BBM_BASE_IMPACT_COUNTS_H */
