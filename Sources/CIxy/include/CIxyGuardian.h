// A process that stops a card when its parent dies: what it is told.
#pragma once
#include <stdint.h>

enum { IXY_HOLD = 1, IXY_RELEASE, IXY_END };

// Memory that the card may write, with its file beside the message; or the end. One byte comes back, but for the end.
struct ixy_guardian_message {
  uint64_t kind, iova, size;
};

// Starts one for the card whose config space is open as `config`, and which writing 1 to the file `reset` resets.
// Returns the socket to tell it by; when that is closed without an end, it stops the card. -1 and errno on failure.
int ixy_start_guardian(int config, const char *reset, int *process);
