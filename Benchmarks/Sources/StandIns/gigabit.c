// The rings of the 82574 and the 82576, whose descriptors are as the 82599's here: only their tail registers are
// elsewhere.
#include "StandIns.h"

enum { DD = 1, EOP = 2, RS = 1 << 27, frame_bytes = 60 };

static uint32_t tail(struct standin *card, uint32_t offset) {
  return *(volatile uint32_t *)(card->bar + offset) & card->mask;
}

void standin_gigabit_step(struct standin *card, uint32_t rdt, uint32_t tdt, uint32_t frames) {
  uint32_t mask = card->mask, free = (tail(card, rdt) - card->rx_head) & mask;
  if (frames > free) frames = free;
  for (uint32_t i = 0; i < frames; i++, card->rx_head = (card->rx_head + 1) & mask) {
    volatile uint64_t *descriptor = (volatile uint64_t *)(card->rx + 16 * (size_t)card->rx_head);
    descriptor[0] = 0;
    descriptor[1] = DD | EOP | (uint64_t)frame_bytes << 32;
  }
  card->received += frames;
  uint32_t end = tail(card, tdt);
  for (; card->tx_head != end; card->tx_head = (card->tx_head + 1) & mask, card->sent++) {
    volatile uint64_t *descriptor = (volatile uint64_t *)(card->tx + 16 * (size_t)card->tx_head);
    if (descriptor[1] & RS) descriptor[1] = (uint64_t)DD << 32;
  }
}
