/*
 * The properties of each file of the sources; the last entry has no name.
 */
#include "property.h"

extern const Property rates_properties[];
extern const Property size_properties[];
extern const Property pace_properties[];
extern const Property progress_properties[];
