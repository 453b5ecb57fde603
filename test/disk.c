/*
 * For LD_PRELOAD: a disk that fails now and then.  Of the reads and writes of files as many in a
 * thousand as BBM_TEST_READ_ERRORS and BBM_TEST_WRITE_ERRORS say fail, with the error number
 * BBM_TEST_ERRNO.  Reads of recovery do not: the server takes WAL that cannot be read for the end of the WAL,
 * and loses what was committed after that.  (The library of fiu-run cannot be loaded into a server: both have a function hash_create.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static long read_errors;
static long write_errors;
static int	error_number;

/* The server moves its environment, so it is read before that. */
__attribute__((constructor)) static void
begin(void)
{
	const char *reads = getenv("BBM_TEST_READ_ERRORS");
	const char *writes = getenv("BBM_TEST_WRITE_ERRORS");
	const char *number = getenv("BBM_TEST_ERRNO");

	read_errors = reads ? atol(reads) : 0;
	write_errors = writes ? atol(writes) : 0;
	error_number = number ? atoi(number) : EIO;
}

/* Is this the startup process?  It has set its title before it reads anything. */
static int
is_startup(void)
{
	char		title[128];
	FILE	   *file = fopen("/proc/self/cmdline", "r");
	size_t		n = file ? fread(title, 1, sizeof(title) - 1, file) : 0;

	if (file)
		fclose(file);
	title[n] = '\0';
	return strstr(title, "startup") != NULL;
}

/* Not with the process's random numbers, which are its own. */
static int
fails(const long *of_a_thousand)
{
	static uint64_t state;
	static pid_t mine;

	if (mine != getpid())
	{
		struct timespec now;

		mine = getpid();
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (is_startup())
			read_errors = 0;
		state = ((uint64_t) now.tv_nsec << 32 ^ (uint64_t) mine) | 1;
	}
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	if ((long) (state % 1000) >= *of_a_thousand)
		return 0;
	errno = error_number;
	return 1;
}

#define FAILING(name, type, errors) \
	ssize_t name(int fd, type data, size_t n, off_t offset) \
	{ \
		static ssize_t (*real) (int, type, size_t, off_t); \
		if (real == NULL) \
			real = (ssize_t (*) (int, type, size_t, off_t)) dlsym(RTLD_NEXT, #name); \
		return fails(&errors) ? -1 : real(fd, data, n, offset); \
	}
#define FAILING_VECTOR(name, errors) \
	ssize_t name(int fd, const struct iovec *data, int n, off_t offset) \
	{ \
		static ssize_t (*real) (int, const struct iovec *, int, off_t); \
		if (real == NULL) \
			real = (ssize_t (*) (int, const struct iovec *, int, off_t)) dlsym(RTLD_NEXT, #name); \
		return fails(&errors) ? -1 : real(fd, data, n, offset); \
	}

FAILING(pread, void *, read_errors)
FAILING(pread64, void *, read_errors)
FAILING(pwrite, const void *, write_errors)
FAILING(pwrite64, const void *, write_errors)
FAILING_VECTOR(preadv, read_errors)
FAILING_VECTOR(preadv64, read_errors)
FAILING_VECTOR(pwritev, write_errors)
FAILING_VECTOR(pwritev64, write_errors)
