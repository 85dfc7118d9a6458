// What Swift cannot import: ordered volatile access, and system calls that are variadic or hidden.
#pragma once
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

// Volatile: never hoisted, merged or dropped. Acquire and release: plain accesses do not move across;
// a plain mov on x86-64, ldar and stlr on arm64.
#define IXY_ACCESS(bits)                                                                    \
  static inline uint##bits##_t ixy_load##bits(const void *p) {                              \
    return __atomic_load_n((const volatile uint##bits##_t *)p, __ATOMIC_ACQUIRE);           \
  }                                                                                         \
  static inline void ixy_store##bits(void *p, uint##bits##_t v) {                           \
    __atomic_store_n((volatile uint##bits##_t *)p, v, __ATOMIC_RELEASE);                    \
  }
IXY_ACCESS(8)
IXY_ACCESS(16)
IXY_ACCESS(32)
IXY_ACCESS(64)

// Glibc's own declaration hides behind a macro that the importer does not set.
static inline int ixy_memfd(const char *name, unsigned flags) {
  return (int)syscall(SYS_memfd_create, name, flags);
}
static const unsigned IXY_MEMFD_CLOEXEC = 1, IXY_MEMFD_HUGE_2MB = 4 | 21 << 26;
