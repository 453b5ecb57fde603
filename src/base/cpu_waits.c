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
 * What /proc/PID/schedstat says of a process.  Returns false where it says
 * nothing: where the kernel does not keep these counts, all are 0, and a process
 * that has run has got a CPU at least once.
 */
bool
bbm_cpu_parse_times(const char *text, BbmCpuTimes *times)
{
	unsigned long long ran;
	unsigned long long waited;
	unsigned long long turns;

	if (sscanf(text, "%llu %llu %llu", &ran, &waited, &turns) != 3 || turns == 0)
		return false;
	times->ran_ns = (int64) ran;
	times->waited_ns = (int64) waited;
	times->turns = (int64) turns;
	return true;
}

/* The same of this process.  Returns false where the operating system does not report it. */
bool
bbm_cpu_waits(BbmCpuTimes *times)
{
	static int	fd = -2;		/* not opened yet; stays open to the end of the process */
	char		text[96];
	ssize_t		length = -1;

	if (fd == -2)
	{
		fd = open("/proc/self/schedstat", O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			ReserveExternalFD();
	}
	if (fd >= 0)
		length = pread(fd, text, sizeof(text) - 1, 0);
	text[Max(length, 0)] = '\0';
	return length > 0 && bbm_cpu_parse_times(text, times);
}
