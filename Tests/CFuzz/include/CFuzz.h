#ifndef CFUZZ_H
#define CFUZZ_H

#include <stddef.h>
#include <stdint.h>

/// From here on time passes only when somebody sleeps or looks at the clock: a wait for a second is over at once,
/// and a run is the same each time.
void fuzz_clock_start(void);
/// The machine's own time again.
void fuzz_clock_stop(void);

/// Names the run that is under way, for the message when it crashes or takes too long (a minute).
void fuzz_run_begin(const char *target, uint64_t seed);
/// The run is over.
void fuzz_run_end(void);

/// libFuzzer's own loop; only in builds with -sanitize=fuzzer.
int LLVMFuzzerRunDriver(int *count, char ***arguments, int (*body)(const uint8_t *, size_t));

#endif
