/*-------------------------------------------------------------------------
 *
 * cpu_waits.c
 *		How long this process has waited for a CPU.
 *
 *-------------------------------------------------------------------------
 */
#include "base/cpu_waits.h"

#include <fcntl.h>
#include <unistd.h>

#include "storage/fd.h"

/*
 * For how long this process, since it began, has been ready to run and had to
 * wait for a CPU, in nanoseconds, and how often it got one.  Returns false
 * where the operating system does not report it.
 */
bool
bbm_cpu_waits(int64 *ns, int64 *times)
{
	static int	fd = -2;		/* not opened yet; stays open to the end of the process */
	char		text[96];
	ssize_t		length = -1;
	unsigned long long ran;
	unsigned long long waited;
	unsigned long long slices;

	if (fd == -2)
	{
		fd = open("/proc/self/schedstat", O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			ReserveExternalFD();
	}
	if (fd >= 0)
		length = pread(fd, text, sizeof(text) - 1, 0);
	text[Max(length, 0)] = '\0';
	if (length <= 0 || sscanf(text, "%llu %llu %llu", &ran, &waited, &slices) != 3)
		return false;
	*ns = (int64) waited;
	*times = (int64) slices;
	return true;
}
