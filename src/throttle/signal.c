/*-------------------------------------------------------------------------
 *
 * signal.c
 *		What the readers of the signals share.
 *
 *-------------------------------------------------------------------------
 */
#include "throttle/signal.h"

#include "base/shared.h"
#include "base/wait_state.h"

/* A reader reports that its signal throttles, and describes its state. */
void
bbm_reading_throttles(BbmReading *reading, const char *format, ...)
{
	va_list		args;
	char		text[2 * BBM_WAITING_LENGTH];

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	reading->throttles = true;
	bbm_clip(reading->reason, text, sizeof(reading->reason));
}

/* Formats a size for people, in one of two static buffers. */
const char *
bbm_bytes(uint64 bytes)
{
	static char buffers[2][32];
	static int	which = 0;
	static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
	int			unit = 0;

	while (bytes >= 10 * 1024 && unit < lengthof(units) - 1)
	{
		bytes /= 1024;
		unit++;
	}
	which = !which;
	snprintf(buffers[which], sizeof(buffers[which]), UINT64_FORMAT " %s", bytes, units[unit]);
	return buffers[which];
}
