#define _GNU_SOURCE
#include "StandIns.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *standin_memory(size_t bytes) {
  const size_t page = 2u << 20;
  bytes = (bytes + page - 1) & ~(page - 1);
  uint8_t *memory = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) abort();
  memory = (uint8_t *)(((uintptr_t)memory + page - 1) & ~(uintptr_t)(page - 1));
  madvise(memory, bytes, MADV_HUGEPAGE);
  memset(memory, 0, bytes);
  return memory;
}

__attribute__((noinline)) void standin_mark(void) { __asm__ volatile("" ::: "memory"); }
