/* Rings: the shared memory of clients, each served by a thread of its own that was made before the
 * sandbox (docs/spec/native-1.0.md §4). One client's calls are answered in their order; clients do
 * not wait for one another. */
#ifndef TG_MOAI_RING_H
#define TG_MOAI_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "moai/native_run.h"

#define TG_RINGS_MAX 4

struct tg_rings;

/* notify: an eventfd (borrowed) that is written to when a ring has ended by itself.
 * spin_ns: how long a thread looks for the next call before it sleeps. */
TG_RC tg_rings_new(uint64_t spin_ns, int notify, struct tg_rings **out, struct tg_err *err);
/* Ends every ring (calls under way are cancelled) and every thread. NULL is fine. */
void tg_rings_free(struct tg_rings *p);
TG_DEFINE_AUTO(struct tg_rings, tg_rings_freep, tg_rings_free);

/* Calls answered well and badly, over all rings. */
void tg_rings_counts(const struct tg_rings *p, uint64_t *good, uint64_t *bad);

struct tg_ring;

struct tg_ring_opts {
    struct tg_session *session; /* both borrowed for its life */
    const struct tg_native_ports *ports;
    const struct tg_native_layout *layout; /* copied */
};

/* Make shared memory and begin to serve it. *memfd: for the client, the caller's to close; its size
 * is sealed.
 * @retval TG_E_LIMIT every thread is busy   @retval TG_E_NOMEM  @retval TG_E_IO */
TG_RC tg_ring_start(struct tg_rings *p, const struct tg_ring_opts *o, struct tg_ring **out,
                    int *memfd, struct tg_err *err);
/* Ask the client to go elsewhere; it is served until it does. */
void tg_ring_leave(struct tg_ring *r);
/* Did it break the rules? Then its thread has stopped. */
bool tg_ring_broken(const struct tg_ring *r);
/* Stop serving it: a call under way is cancelled, its thread becomes free. r is gone afterwards. */
void tg_ring_stop(struct tg_ring *r);

#endif
