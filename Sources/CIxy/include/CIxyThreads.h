// Which processors a thread runs on, and which NUMA node memory is on: calls that Glibc hides or lacks.
#pragma once
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

// The processors that the calling thread may use, one bit each; returns the number of bytes, or -1.
static inline long ixy_get_affinity(uint64_t *bits, unsigned long bytes) {
  return syscall(SYS_sched_getaffinity, 0, bytes, bits);
}

// Keeps the calling thread on these processors; 0, or -1.
static inline long ixy_set_affinity(const uint64_t *bits, unsigned long bytes) {
  return syscall(SYS_sched_setaffinity, 0, bytes, bits);
}

// The name that the kernel shows for the calling thread: the first 15 bytes of it.
static inline long ixy_set_thread_name(const char *name) { return syscall(SYS_prctl, 15, name); }

enum { IXY_MPOL_PREFERRED = 1, IXY_MPOL_BIND = 2 };

// Where the pages of a mapping come from that are not there yet: a policy, and one bit for each node. The kernel
// looks at one bit less than it is told.
static inline long ixy_mbind(void *base, unsigned long size, int mode, const uint64_t *nodes, unsigned long bits) {
  return syscall(SYS_mbind, base, size, mode, nodes, bits + 1, 0);
}

// MADV_POPULATE_WRITE, of Linux 5.14: makes all pages of a mapping now, and says when that fails.
static const int IXY_POPULATE_WRITE = 23;
