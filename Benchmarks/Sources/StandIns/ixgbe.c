// The rings of the 82599: a tail register each, DD in the descriptor, or the transmit head in memory.
#include "StandIns.h"

enum { RDT = 0x1018, TDT = 0x6018, DD = 1, EOP = 2, RS = 1 << 27, frame_bytes = 60 };

static uint32_t tail(struct standin *card, int offset) {
  return *(volatile uint32_t *)(card->bar + offset) & card->mask;
}

static void send(struct standin *card) {
  uint32_t head = card->tx_head, end = tail(card, TDT), mask = card->mask;
  card->sent += (end - head) & mask;
  if (card->tx_head_report) {
    // As it does for descriptors with RS, the last of each 32.
    *(volatile uint32_t *)card->tx_head_report = end & ~31u;
  } else {
    for (; head != end; head = (head + 1) & mask) {
      volatile uint64_t *descriptor = (volatile uint64_t *)(card->tx + 16 * (size_t)head);
      if (descriptor[1] & RS) descriptor[1] = (uint64_t)DD << 32;
    }
  }
  card->tx_head = end;
}

// How many frames find a descriptor.
static uint32_t room(struct standin *card, uint32_t frames) {
  uint32_t free = (tail(card, RDT) - card->rx_head) & card->mask;
  return frames < free ? frames : free;
}

void standin_ixgbe_step(struct standin *card, uint32_t frames) {
  uint32_t head = card->rx_head, mask = card->mask;
  frames = room(card, frames);
  for (uint32_t i = 0; i < frames; i++, head = (head + 1) & mask) {
    volatile uint64_t *descriptor = (volatile uint64_t *)(card->rx + 16 * (size_t)head);
    descriptor[0] = 0;
    descriptor[1] = DD | EOP | (uint64_t)frame_bytes << 32;
  }
  card->rx_head = head;
  card->received += frames;
  send(card);
}

void standin_ixgbe_legacy_step(struct standin *card, uint32_t frames) {
  uint32_t head = card->rx_head, mask = card->mask;
  frames = room(card, frames);
  for (uint32_t i = 0; i < frames; i++, head = (head + 1) & mask) {
    volatile uint64_t *descriptor = (volatile uint64_t *)(card->rx + 16 * (size_t)head);
    descriptor[1] = frame_bytes | (uint64_t)(DD | EOP) << 32;
  }
  card->rx_head = head;
  card->received += frames;
  send(card);
}
