/*
 * Properties of throttle/pace.c, the controller of the share of the time in
 * which a process works.
 */
#include "properties.h"

#include <math.h>

#include "throttle/pace.h"

/* What the sources say of themselves; here they are promises. */
#define LONGEST_PAUSE_US 10e6

/* A pulse of up to 100 ms, of which it has waited for a part; "known": the system reports the wait. */
static BbmPulse
draw_pulse(uint64 *state, bool known, bool may_wait)
{
	BbmPulse	pulse = {.elapsed_us = property_draw(state) % 100000, .wait_us = -1};

	pulse.units = property_draw(state) % 50;
	pulse.turns = 1 + property_draw(state) % 20;
	if (known)
		pulse.wait_us = may_wait ? property_draw(state) % 110000 : property_draw(state) % 1000;
	pulse.blocks = may_wait && property_draw(state) % 8 == 0;
	pulse.fills_wal = may_wait && property_draw(state) % 8 == 0;
	return pulse;
}

static BbmPaceLimits
draw_limits(const uint32 *n)
{
	return (BbmPaceLimits) {.min = (1 + n[1] % 100) / 100.0, .max = (1 + n[2] % 100) / 100.0};
}

/* the share is within its limits, of which the upper one wins, and a pause is none or one that is worth it */
static bool
share_is_within_limits(const uint32 *n)
{
	BbmPace		pace = {0};
	BbmPaceLimits limits = draw_limits(n);
	uint64		state = n[3];

	for (int i = 0; i < (int) (n[0] % 200); i++)
	{
		BbmPulse	pulse = draw_pulse(&state, n[4] % 2, true);
		double		pause = bbm_pace_after(&pace, &limits, &pulse);

		if (pace.share > limits.max || pace.share < Min(limits.min, limits.max) ||
			bbm_pace_share(&pace, &limits) != pace.share)
			return false;
		if (!(pause == 0 || (pause >= BBM_PACE_SHORTEST_PAUSE_US && pause <= LONGEST_PAUSE_US)))
			return false;
		bbm_pace_paused(&pace, property_draw(&state) % 4 == 0 ? property_draw(&state) % 1000000 : pause);
	}
	return true;
}

/* whoever pauses for as long as it is asked to works for no more than its share of the time, but for the shortest pause */
static bool
share_is_worked(const uint32 *n)
{
	BbmPace		pace = {0};
	double		share = (2 + n[1] % 99) / 100.0;
	BbmPaceLimits limits = {.min = share, .max = share};
	uint64		state = n[3];
	double		worked = 0;
	double		paused = 0;

	for (int i = 0; i < (int) (n[0] % 200); i++)
	{
		/* at most so long that no pause is cut short */
		BbmPulse	pulse = draw_pulse(&state, true, false);
		double		pause = bbm_pace_after(&pace, &limits, &pulse);
		double		waited = Min(pulse.wait_us, pulse.elapsed_us);

		worked += pulse.elapsed_us - waited;
		paused += pause + waited;
		bbm_pace_paused(&pace, pause);
		if (worked * (1 / share - 1) - paused > BBM_PACE_SHORTEST_PAUSE_US + 1)
			return false;
	}
	return true;
}

/* the same without waits: it does not pause for longer than it has to, either */
static bool
pause_is_not_longer(const uint32 *n)
{
	BbmPace		pace = {0};
	double		share = (2 + n[1] % 99) / 100.0;
	BbmPaceLimits limits = {.min = share, .max = share};
	uint64		state = n[3];
	double		worked = 0;
	double		paused = 0;

	for (int i = 0; i < (int) (n[0] % 200); i++)
	{
		BbmPulse	pulse = draw_pulse(&state, true, false);
		double		pause;

		pulse.wait_us = 0;
		pause = bbm_pace_after(&pace, &limits, &pulse);
		worked += pulse.elapsed_us;
		paused += pause;
		bbm_pace_paused(&pace, pause);
		if (fabs(worked * (1 / share - 1) - paused) > BBM_PACE_SHORTEST_PAUSE_US + 1)
			return false;
	}
	return true;
}

/* a share does not shrink while no pulse is late, nor grow at a pulse that is */
static bool
share_moves_rightly(const uint32 *n)
{
	BbmPace		pace = {0};
	BbmPaceLimits limits = {.min = 0.01, .max = 1};
	uint64		state = n[3];

	for (int i = 0; i < (int) (n[0] % 300); i++)
	{
		double		before = bbm_pace_share(&pace, &limits);
		bool		quiet = property_draw(&state) % 4 != 0;
		BbmPulse	pulse = draw_pulse(&state, true, !quiet);
		bool		late = pulse.blocks || pulse.fills_wal ||
			Min(pulse.wait_us, pulse.elapsed_us) / pulse.turns > BBM_PACE_WAIT_US;

		(void) bbm_pace_after(&pace, &limits, &pulse);
		if (!late && pace.share < before)
			return false;
		/* one in 64 is nobody's loss: then it may grow at that one, too */
		if (late && pace.share > before && __builtin_popcountll(pace.late) > 1)
			return false;
	}
	return true;
}

/* two late pulses in a row lower it, unless it is at its lower limit */
static bool
two_late_lower(const uint32 *n)
{
	BbmPace		pace = {0};
	BbmPaceLimits limits = {.min = 0.01, .max = 1};
	BbmPulse	late = {.elapsed_us = 100000, .wait_us = 50000 + n[4] % 50000, .turns = 1, .units = 1};
	uint64		state = n[3];
	double		before;

	for (int i = 0; i < (int) (n[0] % 200); i++)
	{
		BbmPulse	pulse = draw_pulse(&state, true, n[2] % 2);

		(void) bbm_pace_after(&pace, &limits, &pulse);
	}
	before = bbm_pace_share(&pace, &limits);
	late.blocks = n[5] % 2;
	if (late.blocks)
		late.wait_us = 0;
	(void) bbm_pace_after(&pace, &limits, &late);
	(void) bbm_pace_after(&pace, &limits, &late);
	return pace.share < before || before <= limits.min;
}

/* a cap for the sake of statements goes when there are too few of them to measure, whatever it was */
static bool
cap_goes_with_statements(const uint32 *n)
{
	BbmPace		pace = {0};
	BbmPaceLimits limits = draw_limits(n);
	BbmImpact	harm = {.mean = 1 + n[0] % 10, .mean_error = 0.01, .has_mean = true, .has_error = true};
	BbmImpact	unknown = {.statements = n[3] % 1000, .has_mean = n[4] % 2};
	double		since = 0;

	for (int i = 0; i <= (int) (n[5] % 10); i++)
		(void) bbm_pace_keep_impact(&pace, &limits, 0.1, &harm, 20e6);
	if (!(pace.cap > 0))
		return false;
	for (double second = 1; second <= 3600; second++)
	{
		if (bbm_pace_keep_impact(&pace, &limits, 0.1, &unknown, (second - since) * 1e6))
			since = second;
	}
	return pace.cap == 0;
}

const Property pace_properties[] = {
	{"share_is_within_limits", share_is_within_limits},
	{"share_is_worked", share_is_worked},
	{"pause_is_not_longer", pause_is_not_longer},
	{"share_moves_rightly", share_moves_rightly},
	{"two_late_lower", two_late_lower},
	{"cap_goes_with_statements", cap_goes_with_statements},
	{0}
};
