// Living with files and sockets of other processes.
#pragma once
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <execinfo.h>
#include <sys/auxv.h>

// poll() with a timeout in nanoseconds; Glibc's ppoll hides behind a macro that the importer does not set.
struct pollfd;
int ixy_poll(struct pollfd *fds, unsigned long count, long nanoseconds);

// Who maps another's file gets SIGBUS when that one truncates it. After this call such a page becomes memory of
// our own that reads as all ones, like a device that is gone. Each takes one or two of the mappings that the kernel
// gives a process: who does work for a peer looks at the number of the calling thread's before and after, and ends
// with one that has truncated anything.
void ixy_survive_truncation(void);
unsigned long ixy_truncated_pages(void);

// Adds 1 to an eventfd of another process. The end of an asynchronous read does that without ever waiting; a write
// waits while the eventfd is full, and who shares it can fill it, and take O_NONBLOCK away, between any two calls of
// ours. Where the kernel has no such reads (io_setup fails), it is a write all the same.
void ixy_signal(int file);
