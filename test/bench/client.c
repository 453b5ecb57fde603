/*-------------------------------------------------------------------------
 *
 * client.c
 *		The other side of the benchmark: a batched migration driven from
 *		outside the server, one cycle a job.
 *
 * It sends what the container registry's worker sends, in the same order: the
 * bookkeeping in one transaction, under an advisory lock, on one connection,
 * and the batch itself on a second connection.  It does not sleep between the
 * cycles and does not check for unarchived WAL, so it flatters the flow that it
 * stands for.  As that worker does by default, it prepares no statements.
 *
 * Usage: client CONNINFO [ROWS_A_SECOND SECONDS]
 *
 * It runs the lowest active migration to its end, or for so many seconds, and
 * prints the seconds that took and the number of jobs.  With a rate (0: none) it
 * pauses after each job.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define MAX_PARAMS		5
#define LOCK_KEY		"7216491"
#define MAX_ATTEMPTS	"5"

/* The migration at work, as FIND_NEXT returns it. */
typedef struct Migration
{
	char		id[24];
	char		max_value[24];
	char		batch_size[16];
	char		status[8];
	char		table[128];
	char		column[64];
	char		min_value[24];
} Migration;

static PGconn *
open_connection(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
	{
		fprintf(stderr, "client: %s", PQerrorMessage(conn));
		exit(1);
	}
	return conn;
}

/* Send one statement with n text parameters, which follow; one round trip. */
static PGresult *
query(PGconn *conn, const char *sql, int n, ...)
{
	const char *values[MAX_PARAMS];
	PGresult   *result;
	va_list		args;

	va_start(args, n);
	for (int i = 0; i < n; i++)
		values[i] = va_arg(args, const char *);
	va_end(args);

	result = PQexecParams(conn, sql, n, NULL, values, NULL, NULL, 0);
	if (PQresultStatus(result) != PGRES_COMMAND_OK &&
		PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		fprintf(stderr, "client: %sin: %s\n", PQerrorMessage(conn), sql);
		exit(1);
	}
	return result;
}

/* Send one statement and keep nothing of its result but whether it had rows. */
#define run(...) has_row(query(__VA_ARGS__))

static int
has_row(PGresult *result)
{
	int			n = PQntuples(result);

	PQclear(result);
	return n > 0;
}

/* Send one statement and copy its first value, if there is one. */
#define fetch(to, ...) first_value(to, sizeof(to), query(__VA_ARGS__))

static int
first_value(char *to, size_t size, PGresult *result)
{
	int			found = PQntuples(result) > 0 && !PQgetisnull(result, 0, 0);

	if (found)
		snprintf(to, size, "%s", PQgetvalue(result, 0, 0));
	PQclear(result);
	return found;
}

static long
affected(PGresult *result)
{
	long		n = atol(PQcmdTuples(result));

	PQclear(result);
	return n;
}

static int
find_next_migration(PGconn *conn, Migration *m)
{
	PGresult   *r = query(conn,
						 "SELECT id, max_value, batch_size, status, table_name, column_name,"
						 " min_value, name, created_at, updated_at, started_at, finished_at,"
						 " job_signature_name, failure_error_code, batching_strategy, total_tuple_count"
						 " FROM batched_background_migrations WHERE status IN (1, 4)"
						 " ORDER BY status DESC, id LIMIT 1", 0);
	int			found = PQntuples(r) > 0;

	if (found)
	{
		snprintf(m->id, sizeof(m->id), "%s", PQgetvalue(r, 0, 0));
		snprintf(m->max_value, sizeof(m->max_value), "%s", PQgetvalue(r, 0, 1));
		snprintf(m->batch_size, sizeof(m->batch_size), "%s", PQgetvalue(r, 0, 2));
		snprintf(m->status, sizeof(m->status), "%s", PQgetvalue(r, 0, 3));
		snprintf(m->table, sizeof(m->table), "%s", PQgetvalue(r, 0, 4));
		snprintf(m->column, sizeof(m->column), "%s", PQgetvalue(r, 0, 5));
		snprintf(m->min_value, sizeof(m->min_value), "%s", PQgetvalue(r, 0, 6));
	}
	PQclear(r);
	return found;
}

/*
 * The table and its column must be there.  This is done twice in each cycle, when
 * the migration is taken and again before the end of its next batch is read.
 */
static void
check_migration(PGconn *conn, const Migration *m)
{
	char		schema[128];
	char	   *table;
	char		answer[8];

	snprintf(schema, sizeof(schema), "%s", m->table);
	table = strchr(schema, '.');
	if (table == NULL)
	{
		fprintf(stderr, "client: table name without schema: %s\n", m->table);
		exit(1);
	}
	*table++ = '\0';

	if (!fetch(answer, conn,
			   "SELECT EXISTS (SELECT 1 FROM pg_tables"
			   " WHERE schemaname = $1 AND tablename = $2)", 2, schema, table) ||
		answer[0] != 't' ||
		!fetch(answer, conn,
			   "SELECT EXISTS (SELECT 1 FROM information_schema.columns"
			   " WHERE table_schema = $1 AND table_name = $2 AND column_name = $3)",
			   3, schema, table, m->column) ||
		answer[0] != 't')
	{
		fprintf(stderr, "client: no such table or column: %s %s\n", m->table, m->column);
		exit(1);
	}
}

/* The last key of the batch that starts at start. */
static void
find_batch_end(PGconn *conn, const Migration *m, const char *start, char *end, size_t size)
{
	char		sql[512];

	check_migration(conn, m);
	if (atoll(start) + atoll(m->batch_size) >= atoll(m->max_value))
	{
		snprintf(end, size, "%s", m->max_value);
		return;
	}
	snprintf(sql, sizeof(sql),
			 "SELECT %s FROM %s WHERE %s >= $1 AND %s <= $2 ORDER BY %s"
			 " OFFSET $3::bigint - 1 LIMIT 1",
			 m->column, m->table, m->column, m->column, m->column);
	if (!first_value(end, size, query(conn, sql, 3, start, m->max_value, m->batch_size)))
		snprintf(end, size, "%s", m->max_value);
}

/*
 * Find the next job of the migration, a new one if its end has not been
 * reached, else one to retry.  Returns 0 if there is none.
 */
static int
find_job(PGconn *conn, const Migration *m, char *job, char *start, char *end, size_t size)
{
	PGresult   *r;
	int			found;

	if (!run(conn,
			 "SELECT id, created_at, updated_at, started_at, finished_at,"
			 " batched_background_migration_id, min_value, max_value, status, failure_error_code, attempts"
			 " FROM batched_background_migration_jobs"
			 " WHERE batched_background_migration_id = $1 AND max_value = $2",
			 2, m->id, m->max_value))
	{
		r = query(conn,
				 "SELECT max_value + 1, id, created_at, updated_at, started_at, finished_at,"
				 " batched_background_migration_id, min_value, status, failure_error_code, attempts"
				 " FROM batched_background_migration_jobs"
				 " WHERE batched_background_migration_id = $1 ORDER BY id DESC LIMIT 1", 1, m->id);
		if (!first_value(start, size, r))
			snprintf(start, size, "%s", m->min_value);
		find_batch_end(conn, m, start, end, size);
		r = query(conn,
				 "INSERT INTO batched_background_migration_jobs"
				 " (batched_background_migration_id, min_value, max_value)"
				 " VALUES ($1, $2, $3) RETURNING id", 3, m->id, start, end);
		return first_value(job, size, r);
	}

	r = query(conn,
			 "SELECT id, min_value, max_value FROM batched_background_migration_jobs"
			 " WHERE batched_background_migration_id = $1 AND status = 3"
			 " AND attempts < " MAX_ATTEMPTS " ORDER BY id LIMIT 1", 1, m->id);
	found = PQntuples(r) > 0;
	if (found)
	{
		snprintf(job, size, "%s", PQgetvalue(r, 0, 0));
		snprintf(start, size, "%s", PQgetvalue(r, 0, 1));
		snprintf(end, size, "%s", PQgetvalue(r, 0, 2));
	}
	PQclear(r);
	return found;
}

/* One cycle: one job, or the end of the migration.  Returns 1 if a job was run. */
static int
cycle(PGconn *book, PGconn *work, int *done, long *rows)
{
	Migration	m;
	char		answer[8];
	char		job[24];
	char		start[24];
	char		end[24];
	char		sql[512];
	int			found;

	run(book, "BEGIN", 0);
	if (!fetch(answer, book, "SELECT pg_try_advisory_xact_lock(" LOCK_KEY ")", 0) ||
		answer[0] != 't' || !find_next_migration(book, &m))
	{
		run(book, "COMMIT", 0);
		*done = 1;
		return 0;
	}
	check_migration(book, &m);
	if (strcmp(m.status, "1") == 0)
		run(book,
			"UPDATE batched_background_migrations SET status = 4, started_at = now(),"
			" updated_at = now() WHERE id = $1", 1, m.id);

	found = find_job(book, &m, job, start, end, sizeof(job));
	if (found)
	{
		run(book,
			"UPDATE batched_background_migration_jobs SET attempts = attempts + 1,"
			" started_at = now(), updated_at = now() WHERE id = $1 RETURNING attempts", 1, job);

		/* The function of the job, on the other connection. */
		snprintf(sql, sizeof(sql), "UPDATE %s SET n = n + 1 WHERE %s BETWEEN $1 AND $2",
				 m.table, m.column);
		*rows += affected(query(work, sql, 2, start, end));

		run(book,
			"UPDATE batched_background_migration_jobs SET status = 2, finished_at = now(),"
			" updated_at = now() WHERE id = $1 RETURNING finished_at", 1, job);
	}
	else
		run(book,
			"UPDATE batched_background_migrations SET status = 2, finished_at = now(),"
			" updated_at = now() WHERE id = $1", 1, m.id);
	run(book, "COMMIT", 0);
	return found;
}

static double
seconds_since(const struct timespec *before)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - before->tv_sec) + (now.tv_nsec - before->tv_nsec) / 1e9;
}

/* After so many rows: sleep until they have taken as long as the rate says. */
static void
pause_for(double rate, long rows, double elapsed)
{
	if (rate > 0 && rows / rate > elapsed)
		usleep((useconds_t) ((rows / rate - elapsed) * 1e6));
}

int
main(int argc, char **argv)
{
	PGconn	   *book;
	PGconn	   *work;
	struct timespec before;
	double		elapsed;
	double		rate;
	double		limit;
	long		rows = 0;
	long		jobs = 0;
	int			done = 0;

	if (argc != 2 && argc != 4)
	{
		fprintf(stderr, "usage: client CONNINFO [ROWS_A_SECOND SECONDS]\n");
		return 2;
	}
	rate = argc == 4 ? atof(argv[2]) : 0;
	limit = argc == 4 ? atof(argv[3]) : 0;
	book = open_connection(argv[1]);
	work = open_connection(argv[1]);

	clock_gettime(CLOCK_MONOTONIC, &before);
	while (!done)
	{
		jobs += cycle(book, work, &done, &rows);
		elapsed = seconds_since(&before);
		if (limit > 0 && elapsed > limit)
			done = 1;
		if (!done)
			pause_for(rate, rows, elapsed);
	}
	elapsed = seconds_since(&before);

	PQfinish(work);
	PQfinish(book);
	printf("%.6f %ld\n", elapsed, jobs);
	return 0;
}
