// SwiftPM wants one source file for a C target; everything is in the headers.
#include "CIxy.h"
