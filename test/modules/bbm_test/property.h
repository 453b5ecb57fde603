/*
 * Properties that are tried with many random cases, and made as small as they
 * can be when they fail.
 *
 * A case is six numbers, which a property reads as it likes; smaller ones are
 * simpler.  Included by this module, for what needs a server, and by the program
 * in test/properties for what does not.
 */
#ifndef BBM_TEST_PROPERTY_H
#define BBM_TEST_PROPERTY_H

#include "postgres.h"

#define NUMBERS 6

typedef struct Property
{
	const char *name;
	bool		(*holds) (const uint32 *n);
} Property;

/* A pseudorandom number, with the next state: for a case's own series, or for the cases. */
static inline uint32
property_draw(uint64 *state)
{
	*state = *state * UINT64CONST(6364136223846793005) + UINT64CONST(1442695040888963407);
	return (uint32) (*state >> 33);
}

/* Makes each number 0, half of it, or one less, as long as the case still fails. */
static inline void
property_shrink(const Property *property, uint32 *n)
{
	bool		smaller = true;

	while (smaller)
	{
		smaller = false;
		for (int i = 0; i < NUMBERS; i++)
		{
			uint32		kept = n[i];
			uint32		tries[] = {0, kept / 2, kept - 1};

			for (int t = 0; kept > 0 && t < 3; t++)
			{
				n[i] = tries[t];
				if (!property->holds(n))
				{
					smaller = true;
					break;
				}
				n[i] = kept;
			}
		}
	}
}

/* Tries so many cases; returns which one fails first, with its numbers as small as they can be, or -1. */
static inline int
property_try(const Property *property, int cases, uint64 seed, uint32 *n)
{
	uint64		state = seed;

	for (int i = 0; i < cases; i++)
	{
		/* small numbers as often as large ones */
		for (int j = 0; j < NUMBERS; j++)
		{
			uint32		number = property_draw(&state);

			n[j] = number >> (property_draw(&state) % 31);
		}
		if (!property->holds(n))
		{
			property_shrink(property, n);
			return i;
		}
	}
	return -1;
}

#endif							/* BBM_TEST_PROPERTY_H */
