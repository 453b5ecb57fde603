/*
 * For LD_PRELOAD: a clock that a test sets back.  The time that the server reads
 * is off by as many seconds as the file BBM_TEST_CLOCK says.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

int
gettimeofday(struct timeval *tv, void *tz)
{
	static int	(*real) (struct timeval *, void *);
	static char path[1024];
	char		text[32] = "";
	int			file;
	int			result;

	if (real == NULL)
	{
		const char *name = getenv("BBM_TEST_CLOCK");

		/* the server moves its environment, so it is read once, before that */
		for (int i = 0; name && name[i] && i < (int) sizeof(path) - 1; i++)
			path[i] = name[i];
		real = (int (*) (struct timeval *, void *)) dlsym(RTLD_NEXT, "gettimeofday");
	}
	result = real(tv, tz);
	file = open(path, O_RDONLY);
	if (file >= 0)
	{
		if (read(file, text, sizeof(text) - 1) > 0)
			tv->tv_sec += atol(text);
		close(file);
	}
	return result;
}
