/*-------------------------------------------------------------------------
 *
 * point.h
 *		Places where a test can stop a process: nothing in a normal build.
 *
 * NOTES
 *	  A point is named GROUP-PLACE.  The group says what the transaction is
 *	  for; the points that every transaction has (base/txn.c) take the group of
 *	  the last point that was passed in it.  A point in code that transactions
 *	  of several groups share has a name without a group, and leaves it.
 *
 *	  While a process stands at a point it reacts to interrupts as the code
 *	  there could: BBM_POINT() is for places where an error may be raised, and
 *	  BBM_POINT_BETWEEN() for those where a cancel cannot take effect, that is
 *	  after a commit and between transactions; there, only the end of the
 *	  process can.  In a critical section a point does nothing.
 *
 *	  BBM_POINT_DUE() is a place where nobody stands, but where a test decides
 *	  instead of the clock or of chance: armed, it is not due for those that
 *	  are to pass, then due for those that are to stop, and then not any more.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_POINT_H
#define BBM_BASE_POINT_H

#ifdef BBM_POINTS

#define BBM_MAX_POINTS 16
#define BBM_MAX_STANDING 8
#define BBM_POINT_LENGTH 64

#define BBM_POINT(name) bbm_point(name, false)
#define BBM_POINT_BETWEEN(name) bbm_point(name, true)
/* Is it due?  (due), where no test decides. */
#define BBM_POINT_DUE(name, due) bbm_point_due(name, due)
/* In base/txn.c: a transaction begins; and its places. */
#define BBM_POINT_BEGIN() bbm_point_begin()
#define BBM_POINT_OF_TXN(place) bbm_point_of_txn(place, false)
#define BBM_POINT_AFTER_TXN(place) bbm_point_of_txn(place, true)
/* From here on the process works on that migration, or (0) on none. */
#define BBM_POINT_WORKS_ON(id) bbm_point_works_on(id)
/* In base/shmem.c */
#define BBM_POINTS_REQUEST() bbm_points_request()
#define BBM_POINTS_STARTUP() bbm_points_startup()

extern void bbm_points_request(void);
extern void bbm_points_startup(void);
extern void bbm_point(const char *name, bool between);
extern bool bbm_point_due(const char *name, bool due);
extern void bbm_point_begin(void);
extern void bbm_point_of_txn(const char *place, bool between);
extern void bbm_point_works_on(int64 migration_id);

extern PGDLLEXPORT bool bbm_point_arm(const char *name, int64 migration_id, int passes, int stops);
extern PGDLLEXPORT void bbm_point_release(const char *name);
extern PGDLLEXPORT int bbm_point_standing(const char *name, int *pids);

#else

#define BBM_POINT(name) ((void) 0)
#define BBM_POINT_BETWEEN(name) ((void) 0)
#define BBM_POINT_DUE(name, due) (due)
#define BBM_POINT_BEGIN() ((void) 0)
#define BBM_POINT_OF_TXN(place) ((void) 0)
#define BBM_POINT_AFTER_TXN(place) ((void) 0)
#define BBM_POINT_WORKS_ON(id) ((void) 0)
#define BBM_POINTS_REQUEST() ((void) 0)
#define BBM_POINTS_STARTUP() ((void) 0)

#endif							/* BBM_POINTS */

#endif							/* BBM_BASE_POINT_H */
