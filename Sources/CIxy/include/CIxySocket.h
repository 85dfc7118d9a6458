// File descriptors over UNIX sockets (SCM_RIGHTS): the CMSG_ macros cannot be imported.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define IXY_MAX_FDS 16

// Sends `size` bytes and `count` descriptors in one message; returns what sendmsg returns.
static inline long ixy_send_fds(int s, const void *data, unsigned long size, const int *fds,
                                int count) {
  struct iovec part = {(void *)data, size};
  char control[CMSG_SPACE(sizeof(int) * IXY_MAX_FDS)] __attribute__((aligned(8))) = {0};
  struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
  if (count > IXY_MAX_FDS) { errno = EINVAL; return -1; }
  if (count > 0) {
    m.msg_control = control;
    m.msg_controllen = CMSG_SPACE(sizeof(int) * (unsigned)count);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * (unsigned)count);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * (unsigned)count);
  }
  return sendmsg(s, &m, MSG_NOSIGNAL);
}

// Receives up to `size` bytes. On entry `*count` is the room in `fds`, on return the number
// received; -2 when more descriptors arrived than there was room for (the kernel closed them).
static inline long ixy_receive_fds(int s, void *data, unsigned long size, int *fds, int *count,
                                   int flags) {
  struct iovec part = {data, size};
  char control[CMSG_SPACE(sizeof(int) * IXY_MAX_FDS)] __attribute__((aligned(8)));
  int room = *count < IXY_MAX_FDS ? *count : IXY_MAX_FDS;
  struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                     .msg_controllen = room > 0 ? CMSG_SPACE(sizeof(int) * (unsigned)room) : 0};
  *count = 0;
  long n = recvmsg(s, &m, flags | MSG_CMSG_CLOEXEC);
  if (n < 0) return n;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    int got = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    for (int i = 0; i < got; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + sizeof(int) * (unsigned)i, sizeof fd);
      if (*count < room) fds[(*count)++] = fd; else close(fd);
    }
  }
  if (m.msg_flags & MSG_CTRUNC) return -2;
  return n;
}

// ioctl is variadic, which Swift cannot call.
static inline int ixy_ioctl(int fd, unsigned long request, void *argument) {
  return ioctl(fd, request, argument);
}
static inline int ixy_ioctl_value(int fd, unsigned long request, unsigned long argument) {
  return ioctl(fd, request, argument);
}
