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

/*
 * What a reader measures, whether that throttles or not, for display.  Of
 * several things with the same limit, such as standbys, the highest counts.
 */
void
bbm_reading_measures(BbmReading *reading, const char *unit, double value, double limit)
{
	BbmMeasure *measure = &reading->measure;

	if (measure->unit && value <= measure->value)
		return;
	measure->unit = unit;
	measure->value = value;
	measure->limit = limit;
}

/* The same where it is no number; the strings are the caller's, and stay. */
void
bbm_reading_describes(BbmReading *reading, const char *words, const char *limit_words)
{
	reading->measure.words = words;
	reading->measure.limit_words = limit_words;
}

/* A quantity for people. */
char *
bbm_quantity_to_string(const char *unit, double value)
{
	if (strcmp(unit, "bytes") == 0)
		return pstrdup(bbm_bytes((uint64) Max(value, 0)));
	return psprintf("%.*f %s", strcmp(unit, "s") == 0 || strcmp(unit, "percent") == 0 ? 1 : 0, value, unit);
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
