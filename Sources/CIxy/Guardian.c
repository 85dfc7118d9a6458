// A process that outlives its parent's hard death and stops the parent's card, which would go on writing
// into memory that the kernel has given to someone else. Only system calls that are safe after a fork of a
// process with threads; nothing is allocated.
#define _GNU_SOURCE
#include "CIxy.h"
#include "CIxySocket.h"
#include "CIxyGuardian.h"
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>

// What is held: mapped, so that its pages stay the card's until the card is stopped.
enum { MOST_HELD = 8192 };
static struct { uint64_t iova, size; void *at; } held[MOST_HELD];

static void hold(uint64_t iova, uint64_t size, int file) {
  for (int i = 0; i < MOST_HELD; i++) {
    if (held[i].at) continue;
    void *at = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (at == MAP_FAILED) return;  // The open file holds it as well.
    held[i].iova = iova, held[i].size = size, held[i].at = at;
    close(file);
    return;
  }
}

static void release(uint64_t iova) {
  for (int i = 0; i < MOST_HELD; i++) {
    if (!held[i].at || held[i].iova != iova) continue;
    munmap(held[i].at, held[i].size);
    held[i].at = NULL;
  }
}

// Bus mastering off first: that stops all DMA at once, whether or not the card can be reset alone.
static void stop_card(int config, const char *reset) {
  uint16_t command;
  if (pread(config, &command, 2, 4) == 2 && command != 0xFFFF) {
    command &= (uint16_t)~4;
    if (pwrite(config, &command, 2, 4) != 2) return;
  }
  int file = open(reset, O_WRONLY | O_CLOEXEC);
  if (file >= 0 && write(file, "1", 1) != 1) return;
}

static void guard(int socket, int config, const char *reset) {
  setsid();
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, NULL);
  prctl(PR_SET_NAME, "ixy-guardian");
  // No file but these two: others would stay open after the parent's death, sockets and locks among them.
  int low = socket < config ? socket : config, high = socket < config ? config : socket;
  syscall(SYS_close_range, 0, low - 1, 0);
  if (high - low > 1) syscall(SYS_close_range, low + 1, high - 1, 0);
  syscall(SYS_close_range, high + 1, ~0u, 0);
  for (;;) {
    struct ixy_guardian_message message;
    int file = -1, files = 1;
    long size = ixy_receive_fds(socket, &message, sizeof message, &file, &files, 0);
    if (size < 0 && errno == EINTR) continue;
    if (size != sizeof message) break;  // 0: the parent is dead.
    switch (message.kind) {
    case IXY_HOLD: hold(message.iova, message.size, file); break;
    case IXY_RELEASE: release(message.iova); break;
    default: _exit(0);
    }
    // Only now may the parent let the card use it.
    if (send(socket, "", 1, MSG_NOSIGNAL) != 1) break;
  }
  stop_card(config, reset);
  _exit(0);
}

int ixy_start_guardian(int config, const char *reset, int *process) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return -1;
  *process = fork();
  if (*process == 0) guard(ends[1], config, reset);
  int saved = errno;
  close(ends[1]);
  if (*process > 0) return ends[0];
  close(ends[0]);
  errno = saved;
  return -1;
}
