/*-------------------------------------------------------------------------
 *
 * hours.c
 *		Hours of the day in a time zone: bbm.active_hours.
 *
 * The value is a list of windows, each "[days] HH:MM-HH:MM [zone]":
 * '22:00-06:00 Europe/Berlin, Sat-Sun 00:00-24:00'.  The days are those on
 * which a window begins.  The clock is an argument.  Windows are in the local
 * time of their zone, so they follow daylight saving time.
 *
 *-------------------------------------------------------------------------
 */
#include "base/hours.h"

#include <math.h>

#include "utils/datetime.h"
#include "utils/timestamp.h"

#define MINUTES_A_DAY (24 * 60)
#define ALL_DAYS 0x7f

static const char *const day_names[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};

static void
skip_blanks(const char **p)
{
	while (**p == ' ' || **p == '\t')
		(*p)++;
}

/* Parses "Mon"; -1 when it is no day. */
static int
parse_day(const char **p)
{
	for (int i = 0; i < lengthof(day_names); i++)
	{
		if (pg_strncasecmp(*p, day_names[i], 3) == 0)
		{
			*p += 3;
			return i;
		}
	}
	return -1;
}

/* Parses "Mon" or "Fri-Mon", a range of days; all days when the text begins with a digit. */
static bool
parse_days(const char **p, int *days)
{
	int			from;
	int			to;

	*days = ALL_DAYS;
	if (**p >= '0' && **p <= '9')
		return true;
	from = to = parse_day(p);
	if (from >= 0 && **p == '-')
	{
		(*p)++;
		to = parse_day(p);
	}
	if (from < 0 || to < 0)
		return false;
	*days = 1 << to;
	for (int day = from; day != to; day = (day + 1) % 7)
		*days |= 1 << day;
	return **p == ' ' || **p == '\t';
}

/* Parses "7:05" or "24:00", as minutes. */
static bool
parse_time(const char **p, int *minutes)
{
	int			part[2] = {0, 0};

	for (int i = 0; i < 2; i++)
	{
		int			digits = 0;

		for (; **p >= '0' && **p <= '9' && digits < 2; digits++)
			part[i] = part[i] * 10 + *(*p)++ - '0';
		if (digits == 0 || (i == 1 && digits != 2) || (i == 0 && *(*p)++ != ':'))
			return false;
	}
	*minutes = part[0] * 60 + part[1];
	return part[1] < 60 && *minutes <= MINUTES_A_DAY;
}

static bool
parse_window(const char *text, BbmHours *window, const char **why)
{
	const char *p = text;

	skip_blanks(&p);
	if (!parse_days(&p, &window->days))
	{
		*why = "The days are written as Mon or Mon-Fri, before the hours.";
		return false;
	}
	skip_blanks(&p);
	if (!parse_time(&p, &window->from) || *p++ != '-' || !parse_time(&p, &window->to))
	{
		*why = "The hours are written as HH:MM-HH:MM, from 00:00 to 24:00.";
		return false;
	}
	if (window->from == window->to || window->from == MINUTES_A_DAY)
	{
		*why = "The hours begin and end at the same time; 00:00-24:00 is the whole day.";
		return false;
	}
	if (*p != '\0' && *p != ' ' && *p != '\t')
	{
		*why = "Between the hours and the time zone there must be a blank.";
		return false;
	}
	skip_blanks(&p);
	window->zone = NULL;
	if (*p != '\0')
	{
		window->zone = pg_tzset(p);
		if (window->zone == NULL || !pg_tz_acceptable(window->zone))
		{
			*why = psprintf("There is no time zone \"%s\".", p);
			return false;
		}
	}
	return true;
}

/*
 * Parses a list of windows into *windows, unless that is NULL; an empty text
 * is an empty list.  False when the text is invalid: *why is the reason.
 */
bool
bbm_hours_parse(const char *text, List **windows, const char **why)
{
	char	   *copy = pstrdup(text);
	char	   *next = copy;

	if (windows)
		*windows = NIL;
	if (strspn(text, " \t") == strlen(text))
		return true;
	while (next)
	{
		char	   *part = next;
		char	   *end;
		BbmHours   *window = palloc0(sizeof(BbmHours));

		next = strchr(part, ',');
		if (next)
			*next++ = '\0';
		end = part + strlen(part);
		while (end > part && (end[-1] == ' ' || end[-1] == '\t'))
			*--end = '\0';
		if (!parse_window(part, window, why))
			return false;
		if (windows)
			*windows = lappend(*windows, window);
	}
	return true;
}

static bool
window_is_open(const BbmHours *window, const struct pg_tm *local)
{
	int			minute = local->tm_hour * 60 + local->tm_min;
	int			today = 1 << local->tm_wday;
	int			yesterday = 1 << ((local->tm_wday + 6) % 7);

	if (window->to > window->from)
		return (window->days & today) && minute >= window->from && minute < window->to;
	return ((window->days & today) && minute >= window->from) || ((window->days & yesterday) && minute < window->to);
}

/*
 * The first moment after "now" at which the window is open, of those that the
 * local day so many days after "today" brings; DT_NOEND if there is none.  It
 * opens when the clock shows its beginning, which may be twice, before and after
 * the clock is set; or at the moment at which the clock is set, when that skips
 * its beginning, or goes back into its hours.
 */
static TimestampTz
opening(const BbmHours *window, const struct pg_tm *today, int days, pg_tz *zone, TimestampTz now)
{
	int			date = date2j(today->tm_year + 1900, today->tm_mon + 1, today->tm_mday) + days;
	pg_time_t	shown = (pg_time_t) (date - UNIX_EPOCH_JDATE) * SECS_PER_DAY + window->from * SECS_PER_MINUTE;
	pg_time_t	day_before = shown - SECS_PER_DAY;
	pg_time_t	moments[3];
	pg_time_t	boundary;
	long		before;
	long		after;
	int			is_dst;
	int			found;
	int			n = 0;
	TimestampTz first = DT_NOEND;

	if (!(window->days & (1 << j2day(date))))
		return DT_NOEND;
	/* no zone is as far as a day from UTC */
	found = pg_next_dst_boundary(&day_before, &before, &is_dst, &boundary, &after, &is_dst, zone);
	if (found == 1)
	{
		moments[n++] = boundary;
		moments[n++] = shown - after;
	}
	if (found >= 0)
		moments[n++] = shown - before;
	for (int i = 0; i < n; i++)
	{
		TimestampTz moment = time_t_to_timestamptz(moments[i]);

		if (moment > now && moment < first && window_is_open(window, pg_localtime(&moments[i], zone)))
			first = moment;
	}
	return first;
}

/*
 * Is one of the windows open?  If not, *opens is the time when the next one
 * opens.
 */
bool
bbm_hours_open(const List *windows, TimestampTz now, TimestampTz *opens)
{
	pg_time_t	seconds = timestamptz_to_time_t(now);
	ListCell   *cell;

	*opens = DT_NOEND;
	foreach(cell, windows)
	{
		const BbmHours *window = lfirst(cell);
		pg_tz	   *zone = window->zone ? window->zone : log_timezone;
		struct pg_tm local = *pg_localtime(&seconds, zone);

		if (window_is_open(window, &local))
			return true;
		/*
		 * The next seven days, and the same weekday again, as its window may
		 * be over, or a date be skipped; and yesterday, as a clock that is set
		 * back may show the end of its window once more.
		 */
		for (int days = -1; days <= 14; days++)
			*opens = Min(*opens, opening(window, &local, days, zone, now));
	}
	return false;
}

/* Is one of the windows open at that second, in these lists both?  An empty list is always open. */
static bool
lists_are_open(const List *const lists[2], pg_time_t second)
{
	for (int i = 0; i < 2; i++)
	{
		bool		open = lists[i] == NIL;
		ListCell   *cell;

		foreach(cell, lists[i])
		{
			const BbmHours *window = lfirst(cell);

			open |= window_is_open(window, pg_localtime(&second, window->zone ? window->zone : log_timezone));
		}
		if (!open)
			return false;
	}
	return true;
}

/* The seconds until a window may open or close next; no zone is off by a part of a minute. */
static int
seconds_to_change(const List *const lists[2], pg_time_t second)
{
	int			least = MINUTES_A_DAY;

	for (int i = 0; i < 2; i++)
	{
		ListCell   *cell;

		foreach(cell, lists[i])
		{
			const BbmHours *window = lfirst(cell);
			const struct pg_tm *local = pg_localtime(&second, window->zone ? window->zone : log_timezone);
			int			minute = local->tm_hour * 60 + local->tm_min;
			/* a window of the whole day ends at its end */
			int			at[] = {window->from, window->to, MINUTES_A_DAY};

			for (int k = 0; k < lengthof(at); k++)
				least = Min(least, at[k] > minute ? at[k] - minute : at[k] - minute + MINUTES_A_DAY);
		}
	}
	return least * SECS_PER_MINUTE - (int) (second % SECS_PER_MINUTE);
}

/*
 * How many seconds it takes until both lists of windows have been open for so
 * many from now on; negative if they never are.  An estimate: an hour by which
 * a clock is set in between may be missing.
 */
double
bbm_hours_last(const List *own, const List *servers, TimestampTz now, double seconds)
{
	const List *const lists[2] = {own, servers};
	pg_time_t	begin = timestamptz_to_time_t(now);
	pg_time_t	second = begin;
	double		weeks = 0;
	double		open = 0;

	if (own == NIL && servers == NIL)
		return seconds;
	while (seconds > 0)
	{
		int			step = seconds_to_change(lists, second);

		if (weeks == 0)
			step = (int) Min(step, begin + 7 * SECS_PER_DAY - second);
		if (lists_are_open(lists, second))
		{
			step = (int) Min(step, ceil(seconds));
			seconds -= step;
			open += step;
		}
		second += step;
		if (weeks > 0 || second - begin < 7 * SECS_PER_DAY)
			continue;
		/* the weeks that are like this one */
		if (open <= 0)
			return -1;
		weeks = 1 + floor(Max(seconds, 0) / open);
		seconds -= (weeks - 1) * open;
	}
	return (double) (second - begin) + (weeks > 1 ? (weeks - 1) * 7 * SECS_PER_DAY : 0);
}
