// The rings of virtio: split ones list what is available and what was used, packed ones say it in each descriptor.
#include "StandIns.h"

// A frame of 60 bytes, behind its header.
enum { frame_bytes = 12 + 60 };

// The two lists of a split ring, where the driver puts them: behind the descriptors, and on the next page.
static uint8_t *available(uint8_t *ring, uint32_t mask) { return ring + 16 * ((size_t)mask + 1); }

static uint8_t *used(uint8_t *ring, uint32_t mask) {
  uintptr_t end = (uintptr_t)available(ring, mask) + 6 + 2 * ((uintptr_t)mask + 1);
  return (uint8_t *)((end + 4095) & ~(uintptr_t)4095);
}

// Writes the header of a received frame as mergeable buffers have it: no work to do, 1 buffer.
static void fill(struct standin *card, uint64_t address) {
  volatile uint16_t *header = (volatile uint16_t *)(card->memory + address);
  for (int i = 0; i < 5; i++) header[i] = 0;
  header[5] = 1;
}

// Uses at most `most` entries in order, a received frame in each; returns how many.
static uint32_t use_split(struct standin *card, uint8_t *ring, uint32_t *head, uint32_t most, int receives) {
  uint32_t mask = card->mask, i = *head;
  volatile uint16_t *from = (volatile uint16_t *)available(ring, mask);
  uint8_t *to = used(ring, mask);
  uint32_t count = (uint16_t)(from[1] - i);
  if (count > most) count = most;
  for (uint32_t end = i + count; i != end; i++) {
    volatile uint32_t *entry = (volatile uint32_t *)(to + 4 + 8 * (size_t)(i & mask));
    uint16_t id = from[2 + (i & mask)];
    if (receives) fill(card, *(volatile uint64_t *)(ring + 16 * (size_t)id));
    entry[0] = id;
    entry[1] = receives ? frame_bytes : 0;
  }
  *head = i;
  ((volatile uint16_t *)to)[1] = (uint16_t)i;
  return count;
}

// The same for a packed ring; AVAIL is bit 55 of a descriptor's second half, USED is bit 63.
static uint32_t use_packed(struct standin *card, uint8_t *ring, uint32_t *head, uint32_t most, int receives) {
  const uint64_t avail = 1ull << 55, done = 1ull << 63;
  uint32_t mask = card->mask, i = *head, count = 0;
  for (; count < most; count++, i++) {
    volatile uint64_t *descriptor = (volatile uint64_t *)(ring + 16 * (size_t)(i & mask));
    uint64_t word = descriptor[1], turn = i & (mask + 1) ? done : avail;
    if ((word & (avail | done)) != turn) break;
    if (receives) fill(card, descriptor[0]);
    descriptor[1] = (word & 0xFFFF00000000ull) | (receives ? frame_bytes : 0) | (turn == avail ? avail | done : 0);
  }
  *head = i;
  return count;
}

void standin_virtio_split_step(struct standin *card, uint32_t frames) {
  card->received += use_split(card, card->rx, &card->rx_head, frames, 1);
  card->sent += use_split(card, card->tx, &card->tx_head, UINT32_MAX, 0);
}

void standin_virtio_packed_step(struct standin *card, uint32_t frames) {
  card->received += use_packed(card, card->rx, &card->rx_head, frames, 1);
  card->sent += use_packed(card, card->tx, &card->tx_head, UINT32_MAX, 0);
}
