#include "moai/metrics.h"

#include <inttypes.h>
#include <stddef.h>

enum kind { COUNTER, COUNTER_US };

static const struct {
    const char *name, *help;
    enum kind kind;
    size_t off;
} counters[] = {
    {"tensorguard_inference_request_success",            "Requests answered with a prediction.",            COUNTER,
     offsetof(struct tg_metrics, success)       },
    {"tensorguard_inference_request_failure",            "Inference requests answered with an error.",      COUNTER,
     offsetof(struct tg_metrics, failure)       },
    {"tensorguard_request_refused",                      "Requests without the right token.",               COUNTER,
     offsetof(struct tg_metrics, refused)       },
    {"tensorguard_inference_count",                      "Inferences performed.",                           COUNTER,
     offsetof(struct tg_metrics, count)         },
    {"tensorguard_inference_exec_count",                 "Model executions.",                               COUNTER,
     offsetof(struct tg_metrics, count)         },
    {"tensorguard_inference_request_duration_us",        "Time in successful requests.",                    COUNTER_US,
     offsetof(struct tg_metrics, request_ns)    },
    {"tensorguard_inference_compute_input_duration_us",  "Time preparing inputs.",                          COUNTER_US,
     offsetof(struct tg_metrics, input_ns)      },
    {"tensorguard_inference_compute_infer_duration_us",  "Time executing the model.",                       COUNTER_US,
     offsetof(struct tg_metrics, infer_ns)      },
    {"tensorguard_inference_compute_output_duration_us", "Time copying outputs.",                           COUNTER_US,
     offsetof(struct tg_metrics, output_ns)     },
    {"tensorguard_native_call_success",                  "Calls through shared memory that were answered.", COUNTER,
     offsetof(struct tg_metrics, native_success)},
    {"tensorguard_native_call_failure",                  "Calls through shared memory that failed.",        COUNTER,
     offsetof(struct tg_metrics, native_failure)},
    {"tensorguard_handover_count",                       "Files and tensors handed over.",                  COUNTER,
     offsetof(struct tg_metrics, handed)        },
    {"tensorguard_handover_bytes",                       "Their bytes.",                                    COUNTER,
     offsetof(struct tg_metrics, handed_bytes)  },
};

/* A label's value: backslash, quote and newline are escaped, other control characters dropped. */
static enum tg_rc label(struct tg_buf *out, const char *value)
{
    for (; *value != '\0'; value++) {
        uint8_t c = (uint8_t)*value;

        if (c == '\\' || c == '"')
            TG_TRY(tg_buf_u8(out, '\\'));
        if (c == '\n')
            TG_TRY(tg_buf_str(out, "\\n"));
        else if (c >= 0x20 && c != 0x7f)
            TG_TRY(tg_buf_u8(out, c));
    }
    return TG_OK;
}

struct metric {
    const char *name, *help, *type;
    uint64_t value;
};

static enum tg_rc line(struct tg_buf *out, const struct tg_metrics_facts *f, struct metric m)
{
    TG_TRY(tg_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s{model=\"", m.name, m.help, m.name,
                         m.type, m.name));
    TG_TRY(label(out, f->model));
    TG_TRY(tg_buf_str(out, "\",version=\""));
    TG_TRY(label(out, f->version));
    return tg_buf_printf(out, "\"} %" PRIu64 "\n", m.value);
}

enum tg_rc tg_metrics_write(const struct tg_metrics *m, const struct tg_metrics_facts *f,
                            struct tg_buf *out)
{
    const struct metric gauges[] = {
        {"tensorguard_model_ready",            "1 while requests are taken, 0 while draining.",          "gauge",
         f->ready ? 1 : 0                                                                                                          },
        {"tensorguard_memory_protection",
         "Level in force: 0 none, 1 locked, 2 secret (out of the kernel's map too).",                    "gauge",
         (uint64_t)f->region.level                                                                                                 },
        {"tensorguard_locked_bytes",           "Protected memory that is in use, in whole segments.",    "gauge",
         f->region.level >= TG_LEVEL_LOCKED ? f->region.committed - f->region.idle : 0                                             },
        {"tensorguard_memory_used_bytes",      "Memory handed out to the heap, keys, model and stacks.",
         "gauge",                                                                                                 f->region.used   },
        {"tensorguard_all_memory_locked",
         "1 when no page of the worker can be swapped, libraries' data included.",                       "gauge",
         f->all_locked ? 1 : 0                                                                                                     },
        {"tensorguard_model_load_duration_us",
         "From the first byte read to the last golden output checked.",                                  "gauge", f->load_ns / 1000},
        {"tensorguard_connections",            "Open connections.",                                      "gauge", f->connections   },
        {"tensorguard_native_clients",         "Programs connected to the native socket.",               "gauge",
         f->native_clients                                                                                                         },
        {"tensorguard_handover_held_bytes",
         "Copies outside the protected region of what was handed over.",                                 "gauge", f->held_bytes    },
    };

    for (size_t i = 0; i < TG_ARRAY_LEN(counters); i++) {
        uint64_t v = *(const uint64_t *)(const void *)((const char *)m + counters[i].off);

        if (counters[i].kind == COUNTER_US)
            v /= 1000;
        TG_TRY(line(out, f, (struct metric){counters[i].name, counters[i].help, "counter", v}));
    }
    for (size_t i = 0; i < TG_ARRAY_LEN(gauges); i++)
        TG_TRY(line(out, f, gauges[i]));
    return TG_OK;
}
