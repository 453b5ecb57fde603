/*
 * The properties of each file of the sources; the last entry has no name.
 */
#include "../modules/bbm_test/property.h"

extern const Property rates_properties[];
extern const Property size_properties[];
extern const Property pace_properties[];
extern const Property progress_properties[];
extern const Property impact_properties[];
