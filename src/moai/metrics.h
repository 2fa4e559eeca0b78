/* What /metrics tells (Prometheus text format 0.0.4). Counters only grow; nothing here is about
 * what was asked or answered. */
#ifndef TG_MOAI_METRICS_H
#define TG_MOAI_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/region.h"

struct tg_metrics {
    uint64_t success, failure; /* answered requests */
    uint64_t refused;          /* without the right token */
    uint64_t count;            /* executions of the model, one a request */
    uint64_t request_ns;       /* of successful requests: from complete body to complete answer */
    uint64_t input_ns, infer_ns, output_ns;
    uint64_t native_success, native_failure; /* calls through shared memory */
    uint64_t handed, handed_bytes;           /* files and tensors handed over */
};

/* Gauges, and the labels of every line. */
struct tg_metrics_facts {
    const char *model, *version;
    bool ready, all_locked;
    uint64_t load_ns, connections;
    uint64_t native_clients, held_bytes; /* held: copies of what was handed over, locked */
    struct tg_region_facts region;
};

TG_RC tg_metrics_write(const struct tg_metrics *m, const struct tg_metrics_facts *f,
                       struct tg_buf *out);

#endif
