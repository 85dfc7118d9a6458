// Stand-ins for network cards: they mark descriptors done in the thread of the driver, and do nothing else,
// so that what is measured is the driver.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct standin {
  uint8_t *bar;              // the registers, at the offsets of the card
  uint8_t *rx, *tx;          // the rings, as the processor sees them
  uint8_t *rx_done, *tx_done; // rings of completions, where the card has them
  uint32_t mask;             // entries of each ring, less one
  uint32_t rx_head, tx_head; // where the card is
  uint64_t received, sent;
  uint8_t *memory;           // where address 0 of the card would be; only for cards that write to buffers
  uint32_t *tx_head_report;  // where the card writes its transmit head; NULL: it sets DD instead
};

// At most `frames` of 60 bytes arrive; all that the driver has queued is sent.
void standin_ixgbe_step(struct standin *card, uint32_t frames);
// The same with legacy receive descriptors, whose addresses stay.
void standin_ixgbe_legacy_step(struct standin *card, uint32_t frames);
// The same for virtio's two kinds of ring; `rx` and `tx` are at their descriptors.
void standin_virtio_split_step(struct standin *card, uint32_t frames);
void standin_virtio_packed_step(struct standin *card, uint32_t frames);

// The same of cards whose tail registers are at `rdt` and `tdt`.
void standin_gigabit_step(struct standin *card, uint32_t rdt, uint32_t tdt, uint32_t frames);
// The same of a vmxnet3; `tx_head` counts its completions.
void standin_vmxnet3_step(struct standin *card, uint32_t frames);

// Called between two measurements; callgrind writes its counts when it sees that (--dump-before).
void standin_mark(void);

// Zeroed memory on a boundary of 2 MiB, on huge pages where there are any; never given back.
void *standin_memory(size_t bytes);
