// Only what needs state or a signal handler is here; everything else is in the headers.
#define _GNU_SOURCE
#include "CIxy.h"
#include "CIxyForeign.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

int ixy_poll(struct pollfd *fds, unsigned long count, long nanoseconds) {
  struct timespec limit = {nanoseconds / 1000000000, nanoseconds % 1000000000};
  return ppoll(fds, count, &limit, NULL);
}

static struct sigaction before;
static _Thread_local volatile unsigned long truncated_pages;

static void on_bus_error(int signal, siginfo_t *info, void *context) {
  int saved = errno;
  // BUS_ADRERR: a mapping without a file behind it. A part of a huge page cannot be replaced: EINVAL.
  for (unsigned long size = 4096; info->si_code == BUS_ADRERR && size <= 2ul << 20; size <<= 9) {
    void *page = (void *)((uintptr_t)info->si_addr & ~(size - 1));
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    if (mmap(page, size, PROT_READ | PROT_WRITE, flags, -1, 0) != MAP_FAILED) {
      // Of a huge page only the part that is wanted, or each would take 2 MiB of ours; the rest reads as 0.
      madvise(page, size, MADV_NOHUGEPAGE);
      memset((void *)((uintptr_t)info->si_addr & ~4095ul), 0xFF, 4096);
      truncated_pages++;
      errno = saved;
      return;
    }
    if (errno != EINVAL) break;
  }
  // Not that: the access is repeated, without this handler.
  errno = saved;
  sigaction(SIGBUS, &before, NULL);
}

void ixy_survive_truncation(void) {
  // Where it is blocked, it ends the process whatever the handler.
  sigset_t bus_error;
  sigemptyset(&bus_error);
  sigaddset(&bus_error, SIGBUS);
  pthread_sigmask(SIG_UNBLOCK, &bus_error, NULL);
  static char done;
  if (__atomic_exchange_n(&done, 1, __ATOMIC_ACQ_REL)) return;
  struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
  sigaction(SIGBUS, &action, &before);
}

unsigned long ixy_truncated_pages(void) {
  return truncated_pages;
}

enum { MOST_COMPLETIONS = 64 };
static aio_context_t completions;

static void prepare_signals(void) {
  if (syscall(SYS_io_setup, MOST_COMPLETIONS, &completions) != 0) completions = 0;
}

void ixy_signal(int file) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, prepare_signals);
  // An eventfd has nothing shorter than 8 bytes to read: that is an error, and an end.
  struct iocb read_nothing = {.aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)file,
                              .aio_flags = IOCB_FLAG_RESFD, .aio_resfd = (uint32_t)file};
  struct iocb *all = &read_nothing;
  struct io_event done[MOST_COMPLETIONS];
  struct timespec no_time = {0, 0};
  // Other threads may take the place that was made, again and again: not for ever.
  for (int i = 0; completions && i < 100; i++) {
    if (syscall(SYS_io_submit, completions, 1, &all) == 1) return;
    // The list of what is done is full, unless another thread has just emptied it.
    if (errno != EAGAIN) break;
    if (syscall(SYS_io_getevents, completions, 0, MOST_COMPLETIONS, done, &no_time) < 0) break;
  }
  uint64_t one = 1;
  fcntl(file, F_SETFL, O_NONBLOCK);
  if (write(file, &one, sizeof one) < 0) return;  // It is full: it has been signalled long ago.
}
