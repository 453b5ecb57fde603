/*
 * Tries all properties, or one of them.  usage: properties CASES SEED [NAME]
 */
#include "properties.h"

#include <stdio.h>
#include <stdlib.h>

/* the C library's, not the server's */
#undef printf

static const Property *const all[] = {rates_properties, size_properties, pace_properties, progress_properties,
	impact_properties};

/* Returns whether it holds. */
static bool
try(const Property *property, int cases, uint64 seed)
{
	uint32		n[NUMBERS];
	int			i = property_try(property, cases, seed, n);

	if (i < 0)
		printf("ok %s: %d cases\n", property->name, cases);
	else
		printf("FAILED %s, case %d of seed %llu: {%u, %u, %u, %u, %u, %u}\n", property->name, i,
			   (unsigned long long) seed, n[0], n[1], n[2], n[3], n[4], n[5]);
	return i < 0;
}

int
main(int argc, char **argv)
{
	int			cases = argc > 1 ? atoi(argv[1]) : 100000;
	uint64		seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	const char *name = argc > 3 ? argv[3] : NULL;
	int			tried = 0;
	int			failed = 0;

	for (int f = 0; f < (int) lengthof(all); f++)
	{
		for (const Property *property = all[f]; property->name; property++)
		{
			if (name && strcmp(property->name, name) != 0)
				continue;
			tried++;
			failed += !try(property, cases, seed);
		}
	}
	return tried == 0 || failed > 0;
}
