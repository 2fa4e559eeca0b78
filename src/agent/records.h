/* What the agent remembers, each in one JSON file that is replaced as a whole (tmp, fsync, rename),
 * so that a kill at any moment leaves the old or the new, never a mixture.
 *
 *   agent.json     settings; written last by enrolment: where it is, the device is enrolled
 *   serving.json   the package that serves and the one that served before
 *   journal.json   how far the newest deployment has come
 *
 * All are value structs: copying one is enough to change it and write it back. */
#ifndef TG_AGENT_RECORDS_H
#define TG_AGENT_RECORDS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/state.h"
#include "base/err.h"

#define TG_NAME_TEXT 257   /* model and fleet names */
#define TG_ID_TEXT 129     /* versions, device and deployment ids */
#define TG_REASON_TEXT 513 /* why something failed; cut to fit */
#define TG_CODE_TEXT 17    /* "NOTFORKEY" */
#define TG_LEVEL_TEXT 17   /* "secret", "locked", "any", "none" */

#define TG_NATIVE_SPIN_US_MAX 1000000
#define TG_HANDOVER_MAX 16
#define TG_MEMORY_MAX_MIB (UINT64_C(1) << 23)
#define TG_WORKER_TIMEOUT_S 120 /* unless set otherwise: above the longest prediction */

#define TG_PROTECTION_DEFAULT "locked"
/* Is this a level that --protection takes: secret, locked or any? */
bool tg_protection_ok(const char *level);

struct tg_settings {
    char server[513]; /* https://host:port */
    char fleet[TG_NAME_TEXT];
    char device_id[TG_ID_TEXT];
    char worker[TG_STATE_DIR_MAX];  /* the tensorguard-moai program */
    char worker_user[64];           /* "": as the agent */
    char protection[TG_LEVEL_TEXT]; /* what the worker's memory must be at least */
    char predict_socket[108];       /* as sun_path */
    char native_socket[108];        /* "": predict_socket with ".native"; "off": none */
    uint64_t native_spin_us;        /* how long a worker looks for the next call; 0: it sleeps */
    char handover_uids[256];        /* users who may be handed files, "1000,1001"; "": nobody */
    char socket_group[64];          /* "": the agent's own */
    bool tcp;
    uint64_t tcp_port; /* 0: chosen by the system at each start (status shows it) */
    uint8_t tcp_token_sha256[32];
    uint64_t check_in_s;     /* 0: as the platform says */
    uint64_t memory_max_mib; /* of a worker; 0: by the size of its package */
    uint64_t load_timeout_s;
    uint64_t drain_timeout_s;
    uint64_t worker_timeout_s; /* a serving worker that answers nothing for so long hangs */
};

/* One package on this device, and the deployment that brought it. */
struct tg_held {
    bool set;
    uint8_t h[32];    /* H: its name */
    uint8_t blob[32]; /* SHA-256 of the file */
    uint64_t size;
    char deployment_id[TG_ID_TEXT];
    char model[TG_NAME_TEXT]; /* "" until its header was verified */
    char version[TG_ID_TEXT];
    uint64_t sequence;
    uint64_t floor;
};

struct tg_serving {
    struct tg_held current, previous;
};

/* Steps of an update. The order is the order of things. */
enum tg_step {
    TG_STEP_ACCEPTED,    /* deployment verified and stored; the download may have begun */
    TG_STEP_FETCHED,     /* package and grant on disk, cheap checks passed */
    TG_STEP_TRYING,      /* a worker was started on it `tries` times */
    TG_STEP_HEALTHY,     /* its worker was healthy; the records are being written */
    TG_STEP_RUNNING,     /* done */
    TG_STEP_FAILED,      /* given up; not tried again under this deployment */
    TG_STEP_WITHDRAWN,   /* the platform wanted something else before it was done */
    TG_STEP_ROLLED_BACK, /* it ran, then failed; the package before serves again */
    TG_STEPS
};

struct tg_journal {
    bool set;
    enum tg_step step;
    struct tg_held pkg;
    uint64_t tries;
    uint64_t early;          /* workers started on it before it was complete */
    char code[TG_CODE_TEXT]; /* of the last failure, "" if none */
    char reason[TG_REASON_TEXT];
};

const char *tg_step_name(enum tg_step s);

/* A missing file: TG_E_NOTFOUND for settings (the text says to enrol), *out zeroed for the others.
 * A file that cannot be read as what it should be is TG_E_FORMAT and names it. */
TG_RC tg_settings_load(const struct tg_state *s, struct tg_settings *out, struct tg_err *err);
TG_RC tg_settings_save(const struct tg_state *s, const struct tg_settings *in, struct tg_err *err);
TG_RC tg_serving_load(const struct tg_state *s, struct tg_serving *out, struct tg_err *err);
TG_RC tg_serving_save(const struct tg_state *s, const struct tg_serving *in, struct tg_err *err);
TG_RC tg_journal_load(const struct tg_state *s, struct tg_journal *out, struct tg_err *err);
TG_RC tg_journal_save(const struct tg_state *s, const struct tg_journal *in, struct tg_err *err);

/* Copy text into a fixed array, cut to fit at a character border. */
void tg_text_set(char *out, size_t cap, const char *s);
#define TG_TEXT_SET(arr, s) tg_text_set((arr), sizeof(arr), (s))

#endif
