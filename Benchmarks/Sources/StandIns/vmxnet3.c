// The rings of a vmxnet3: a bit of each descriptor and completion says in which lap it was written.
#include "StandIns.h"

enum { TXPROD = 0x600, frame_bytes = 60 };

// The bit of the lap that use number `use` of a ring with 2^`shift` entries is in.
static uint64_t lap(uint64_t use, int shift) { return ~(use >> shift) & 1; }

static volatile uint64_t *entry(uint8_t *ring, uint64_t index) {
  return (volatile uint64_t *)(ring + 16 * index);
}

void standin_vmxnet3_step(struct standin *card, uint32_t frames) {
  uint64_t mask = card->mask;
  int shift = __builtin_popcount(card->mask);
  for (; frames > 0; frames--, card->received++) {
    uint64_t use = card->received, i = use & mask;
    if ((entry(card->rx, i)[1] >> 31 & 1) != lap(use, shift)) break;
    volatile uint64_t *completion = entry(card->rx_done, use & (2 * mask + 1));
    completion[0] = i | 0xC000;
    completion[1] = frame_bytes | lap(use, shift + 1) << 63;
  }
  uint64_t end = *(volatile uint32_t *)(card->bar + TXPROD) & mask;
  for (; (card->sent & mask) != end; card->sent++) {
    // A completion only where one is asked for.
    if (!(entry(card->tx, card->sent & mask)[1] >> 45 & 1)) continue;
    volatile uint64_t *completion = entry(card->tx_done, card->tx_head & mask);
    completion[0] = card->sent & mask;
    completion[1] = lap(card->tx_head, shift) << 63;
    card->tx_head++;
  }
}
