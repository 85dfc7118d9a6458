// The forwarder of the library in C, for comparison: the same rings, pools, checks and counters, each design written
// as its Swift counterpart is. Nothing checks whether a packet has two owners, or an index is in its frame.
#include "../Sources/StandIns/include/StandIns.h"
#include <stdbool.h>
#include <stdlib.h>

enum { entries = 512, mask = entries - 1, buffers = 4096, stride = 2112, buffer_size = 2048, period = 32 };
enum { RDT = 0x1018, TDT = 0x6018 };
#define DONE UINT64_C(1)
#define END_OF_PACKET UINT64_C(2)
#define ERROR (UINT64_C(1) << 29)
#define REPORT (UINT64_C(1) << 27)
#define COMMAND UINT64_C(0x23300000)

struct pool { uint8_t **stack; size_t top, buffer_size; uint64_t iova_offset; };
struct packet { uint8_t *buffer; struct pool *pool; uint32_t length, hash; };
struct descriptor { uint64_t low, high; };

struct receiver {
  struct descriptor *descriptors;
  uint8_t **buffers;
  struct pool *pool;
  volatile uint32_t *doorbell;
  uint64_t *counters;
  size_t next;
};

struct transmitter {
  struct descriptor *descriptors;
  uint8_t **buffers;
  struct pool **pools;
  volatile uint32_t *doorbell;
  uint64_t *counters;
  size_t next, clean;
  struct pool *home;
};

struct forwarder { struct receiver rx; struct transmitter tx; struct packet batch[entries]; };

static inline uint64_t load(const void *p) { return __atomic_load_n((const volatile uint64_t *)p, __ATOMIC_ACQUIRE); }
static inline void ring(volatile uint32_t *p, size_t v) { __atomic_store_n(p, (uint32_t)v, __ATOMIC_RELEASE); }
static inline void count(uint64_t *p, size_t more) { __atomic_store_n((volatile uint64_t *)p, *p + more, __ATOMIC_RELEASE); }
static inline uint64_t iova(struct pool *pool, uint8_t *buffer) { return (uintptr_t)buffer + pool->iova_offset; }
static inline void give(struct pool *pool, uint8_t *buffer) { pool->stack[pool->top++] = buffer; }

static inline bool is_whole(uint64_t word, uint32_t longest) {
  return (word & (DONE | END_OF_PACKET | ERROR)) == (DONE | END_OF_PACKET) &&
         ((uint32_t)(word >> 32) & 0xFFFF) - 14 <= longest;
}

// Out of the way, as in Swift: nothing bad comes from the stand-in.
__attribute__((noinline)) static bool discard(struct receiver *rx) {
  uint64_t word = load(&rx->descriptors[rx->next].high);
  if (!(word & DONE) || is_whole(word, buffer_size - 14)) return false;
  rx->descriptors[rx->next] = (struct descriptor){iova(rx->pool, rx->buffers[rx->next]), 0};
  count(rx->counters + 2, 1);
  rx->next = (rx->next + 1) & mask;
  return true;
}

static inline void finish(struct receiver *rx, size_t end, size_t bytes) {
  if (end == rx->next) return;
  count(rx->counters, end - rx->next);
  count(rx->counters + 1, bytes);
  rx->next = end & mask;
  ring(rx->doorbell, (end - 1) & mask);
}

static inline size_t min(size_t a, size_t b) { return a < b ? a : b; }

static inline size_t room(struct transmitter *tx) { return (tx->clean - tx->next - 1) & mask; }

__attribute__((noinline)) static struct pool *meet(struct transmitter *tx, struct pool *pool, size_t i, struct pool *home) {
  if (i == tx->clean) return pool;
  if (home) for (size_t k = 0; k < entries; k++) tx->pools[k] = home;
  tx->pools[i] = pool;
  return NULL;
}

static inline void clean_up(struct transmitter *tx) {
  while (((tx->next - tx->clean) & mask) >= period) {
    if (!(load(&tx->descriptors[tx->clean + period - 1].high) & DONE << 32)) break;
    if (tx->home) {
      __builtin_memmove(tx->home->stack + tx->home->top, tx->buffers + tx->clean, period * sizeof(uint8_t *));
      tx->home->top += period;
    } else {
      for (size_t i = tx->clean; i < tx->clean + period; i++) give(tx->pools[i], tx->buffers[i]);
    }
    tx->clean = (tx->clean + period) & mask;
  }
}

static inline void put(struct transmitter *tx, size_t i, struct packet packet, struct pool **home, size_t *bytes) {
  if (packet.pool != *home) *home = meet(tx, packet.pool, i, *home);
  tx->buffers[i] = packet.buffer;
  tx->descriptors[i] = (struct descriptor){
      iova(packet.pool, packet.buffer), (uint64_t)packet.length << 46 | packet.length | COMMAND};
  *bytes += packet.length;
}

static inline void commit(struct transmitter *tx, size_t end, struct pool *home, size_t bytes) {
  if (end == tx->next) return;
  for (size_t last = tx->next | (period - 1); last < end; last += period) tx->descriptors[last].high |= REPORT;
  count(tx->counters, end - tx->next);
  count(tx->counters + 1, bytes);
  tx->home = home;
  tx->next = end & mask;
  ring(tx->doorbell, tx->next);
}

// Receives up to `limit` packets, which does not go beyond the end of the ring.
#define RECEIVE(rx, limit, take)                                                              \
  struct receiver *r = (rx);                                                                  \
  struct pool *pool = r->pool;                                                                \
  struct descriptor *descriptors = r->descriptors;                                            \
  uint8_t **slots = r->buffers, **stack = pool->stack;                                        \
  uint32_t longest = (uint32_t)pool->buffer_size - 14;                                        \
  size_t i = r->next, end = i + (limit), received_bytes = 0;                                  \
  while (i != end && pool->top > 0) {                                                         \
    uint64_t word = load(&descriptors[i].high);                                               \
    if (!is_whole(word, longest)) break;                                                      \
    uint32_t length = (uint32_t)(word >> 32) & 0xFFFF;                                        \
    struct packet packet = {slots[i], pool, length, (uint32_t)(descriptors[i].low >> 32)};    \
    uint8_t *fresh = stack[--pool->top];                                                      \
    slots[i] = fresh;                                                                         \
    descriptors[i] = (struct descriptor){iova(pool, fresh), 0};                               \
    received_bytes += length;                                                                 \
    i++;                                                                                      \
    take;                                                                                     \
  }                                                                                           \
  size_t received = i - r->next;                                                              \
  finish(r, i, received_bytes)

static inline size_t receive(struct forwarder *f, struct packet *batch, size_t max) {
  size_t total = 0;
  while (total < max) {
    size_t run = min(max - total, entries - f->rx.next);
    struct packet *out = batch + total;
    RECEIVE(&f->rx, run, *out++ = packet);
    total += received;
    if (received < run && !discard(&f->rx)) break;
  }
  return total;
}

void ixgbe_batch(struct forwarder *f, uint32_t max) {
  struct packet *batch = f->batch;
  size_t total = receive(f, batch, max);
  for (size_t k = 0; k < total; k++) batch[k].buffer[1]++;
  struct transmitter *tx = &f->tx;
  clean_up(tx);
  size_t sent = 0;
  while (sent < total) {
    size_t run = min(total - sent, min(room(tx), entries - tx->next));
    if (run == 0) break;
    struct pool *home = tx->home;
    size_t at = tx->next, bytes = 0;
    for (size_t stop = at + run; at != stop; at++) put(tx, at, batch[sent++], &home, &bytes);
    commit(tx, at, home, bytes);
  }
  for (; sent < total; sent++) give(batch[sent].pool, batch[sent].buffer);
}

void ixgbe_single(struct forwarder *f, uint32_t max) {
  struct packet *batch = f->batch;
  size_t total = receive(f, batch, max);
  struct transmitter *tx = &f->tx;
  for (size_t k = 0; k < total; k++) {
    batch[k].buffer[1]++;
    clean_up(tx);
    if (room(tx) == 0) {
      give(batch[k].pool, batch[k].buffer);
      continue;
    }
    struct pool *home = tx->home;
    size_t bytes = 0;
    put(tx, tx->next, batch[k], &home, &bytes);
    commit(tx, tx->next + 1, home, bytes);
  }
}

void ixgbe_fused(struct forwarder *f, uint32_t max) {
  struct transmitter *tx = &f->tx;
  clean_up(tx);
  size_t total = 0;
  while (total < max) {
    size_t run = min(max - total, min(entries - f->rx.next, min(room(tx), entries - tx->next)));
    if (run == 0) break;
    struct pool *home = tx->home;
    size_t at = tx->next, bytes = 0;
    RECEIVE(&f->rx, run, {
      packet.buffer[1]++;
      put(tx, at, packet, &home, &bytes);
      at++;
    });
    commit(tx, at, home, bytes);
    total += received;
    if (received < run && !discard(&f->rx)) break;
  }
}

struct forwarder *ixgbe_open(struct standin *card) {
  struct forwarder *f = calloc(1, sizeof *f);
  struct pool *pool = calloc(1, sizeof *pool);
  uint8_t *memory = standin_memory((size_t)buffers * stride), *rings = standin_memory(2 * entries * 16);
  *pool = (struct pool){calloc(buffers, sizeof(uint8_t *)), 0, buffer_size, 0};
  for (size_t i = 0; i < buffers; i++) give(pool, memory + i * stride + 64);
  *card = (struct standin){.bar = standin_memory(128 << 10), .rx = rings, .tx = rings + entries * 16, .mask = mask};
  f->rx = (struct receiver){(struct descriptor *)card->rx, calloc(entries, 8), pool,
                            (volatile uint32_t *)(card->bar + RDT), calloc(3, 8), 0};
  f->tx = (struct transmitter){(struct descriptor *)card->tx, calloc(entries, 8), calloc(entries, 8),
                               (volatile uint32_t *)(card->bar + TDT), calloc(3, 8), 0, 0, NULL};
  for (size_t i = 0; i < entries; i++) {
    f->rx.buffers[i] = pool->stack[--pool->top];
    f->rx.descriptors[i] = (struct descriptor){iova(pool, f->rx.buffers[i]), 0};
  }
  ring(f->rx.doorbell, mask);
  return f;
}

// In place: both rings are one, a frame stays in its descriptor, the card reports its transmit head.

// Twice the entries: what is not sent yet takes up room that is to be received into.
enum { both_entries = 1024, whole = both_entries - 1 };
#define LEGACY_DONE (UINT64_C(1) << 32)
#define LEGACY_END_OF_PACKET (UINT64_C(1) << 33)
#define LEGACY_ERRORS (UINT64_C(0x3F) << 40)
#define LEGACY_COMMAND UINT64_C(0x03000000)

struct in_place {
  struct descriptor *descriptors;
  uint8_t **buffers;
  uint64_t iova_offset;
  size_t buffer_size;
  uint32_t *head;
  volatile uint32_t *rx_doorbell, *tx_doorbell;
  uint64_t *received, *sent;
  size_t next, clean;
};

void ixgbe_in_place_forward(struct in_place *f, uint32_t max) {
  size_t head = __atomic_load_n((volatile uint32_t *)f->head, __ATOMIC_ACQUIRE);
  if (head != f->clean && head <= whole && ((head - f->clean) & whole) <= ((f->next - f->clean) & whole)) {
    f->clean = head;
    ring(f->rx_doorbell, (head - 1) & whole);
  }
  size_t total = 0;
  while (total < max) {
    size_t run = min(max - total, min(both_entries - f->next, (f->clean - f->next - 1) & whole));
    if (run == 0) break;
    struct descriptor *descriptors = f->descriptors;
    uint8_t **slots = f->buffers;
    uint64_t offset = f->iova_offset, longest = f->buffer_size;
    size_t i = f->next, end = i + run, received = 0, bytes = 0, sent = 0, sent_bytes = 0;
    for (; i != end; i++) {
      uint64_t word = load(&descriptors[i].high);
      if ((word & (LEGACY_DONE | LEGACY_END_OF_PACKET | LEGACY_ERRORS)) != (LEGACY_DONE | LEGACY_END_OF_PACKET)) break;
      uint64_t length = word & 0xFFFF;
      if (length < 14 || length > longest) break;
      uint8_t *buffer = slots[i];
      buffer[1]++;
      descriptors[i] = (struct descriptor){(uintptr_t)buffer + offset, length | LEGACY_COMMAND};
      bytes += length;
      sent_bytes += length;
      sent++;
    }
    received = i - f->next;
    if (received > 0) {
      count(f->received, received);
      count(f->received + 1, bytes);
      count(f->sent, sent);
      count(f->sent + 1, sent_bytes);
      for (size_t last = f->next | (period - 1); last < i; last += period) descriptors[last].high |= REPORT;
      f->next = i & whole;
      ring(f->tx_doorbell, f->next);
    }
    total += received;
    if (received < run) break;
  }
}

struct in_place *ixgbe_in_place_open(struct standin *card) {
  struct in_place *f = calloc(1, sizeof *f);
  uint8_t *memory = standin_memory((size_t)both_entries * stride), *rings = standin_memory(2 * both_entries * 16);
  *card = (struct standin){.bar = standin_memory(128 << 10), .rx = rings, .tx = rings, .mask = whole,
                           .tx_head_report = (uint32_t *)(rings + both_entries * 16)};
  *f = (struct in_place){(struct descriptor *)rings, calloc(both_entries, 8), 0, buffer_size, card->tx_head_report,
                         (volatile uint32_t *)(card->bar + RDT), (volatile uint32_t *)(card->bar + TDT),
                         calloc(3, 8), calloc(3, 8), 0, 0};
  for (size_t i = 0; i < both_entries; i++) {
    f->buffers[i] = memory + i * stride + 64;
    f->descriptors[i] = (struct descriptor){(uintptr_t)f->buffers[i], 0};
  }
  ring(f->rx_doorbell, whole);
  return f;
}
