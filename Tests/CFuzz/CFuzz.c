#define _GNU_SOURCE
#include "CFuzz.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// Our own usleep and clock_gettime take the place of the C library's, for the Swift runtime, too.

static volatile int is_simulated;
static uint64_t now;

void fuzz_clock_start(void) {
  now = 1000000000;
  is_simulated = 1;
}

void fuzz_clock_stop(void) { is_simulated = 0; }

int clock_gettime(clockid_t clock, struct timespec *time) {
  // The date stays the machine's: libFuzzer measures by it how long a run takes.
  if (!is_simulated || clock == CLOCK_REALTIME) return (int)syscall(SYS_clock_gettime, clock, time);
  now += 1000;
  time->tv_sec = (time_t)(now / 1000000000);
  time->tv_nsec = (long)(now % 1000000000);
  return 0;
}

int usleep(useconds_t microseconds) {
  if (is_simulated) {
    now += 1000ull * microseconds;
    return 0;
  }
  struct timespec left = {microseconds / 1000000, microseconds % 1000000 * 1000l};
  return (int)syscall(SYS_nanosleep, &left, NULL);
}

static char run[256];

static void report(int number) {
  char text[320];
  int size = snprintf(text, sizeof text, "\n%s in the run of: %s\n",
                      number == SIGALRM ? "TOO SLOW" : "CRASH", run);
  if (write(2, text, (size_t)size) < 0) _exit(1);
  signal(number == SIGALRM ? SIGABRT : number, SIG_DFL);
  raise(number == SIGALRM ? SIGABRT : number);
}

// SIGBUS stays the library's: a peer may truncate memory.
void fuzz_run_begin(const char *target, uint64_t seed) {
  snprintf(run, sizeof run, "Fuzz %s --seed %llu --runs 1", target, (unsigned long long)seed);
  static const int numbers[] = {SIGILL, SIGTRAP, SIGSEGV, SIGABRT, SIGALRM};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) signal(numbers[i], report);
  alarm(60);
}

void fuzz_run_end(void) { alarm(0); }
