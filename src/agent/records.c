#include "agent/records.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "codec/json.h"

#define RECORD_MAX 65536

static const char *const step_names[] = {"accepted",  "fetched",     "trying",
                                         "healthy",   "running",     "failed",
                                         "withdrawn", "rolled_back", NULL};

/* The files' shapes: as the value structs, with text borrowed. */
struct held_doc {
    uint8_t header_sha256[32];
    uint8_t blob_sha256[32];
    uint64_t size;
    const char *deployment_id, *model, *version;
    uint64_t sequence, floor;
};

static const struct tg_jfield held_fields[] = {
    TG_J_HEX(struct held_doc, header_sha256, TG_J_REQ),
    TG_J_HEX(struct held_doc, blob_sha256, TG_J_REQ),
    TG_J_U64(struct held_doc, size, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_STR(struct held_doc, deployment_id, 1, TG_ID_TEXT - 1, TG_J_REQ),
    TG_J_STR(struct held_doc, model, 0, TG_NAME_TEXT - 1, TG_J_REQ),
    TG_J_STR(struct held_doc, version, 0, TG_ID_TEXT - 1, TG_J_REQ),
    TG_J_U64(struct held_doc, sequence, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_U64(struct held_doc, floor, 0, TG_JSON_INT_MAX, TG_J_REQ),
};
static const struct tg_jschema held_schema =
    TG_J_SCHEMA(struct held_doc, held_fields, TG_J_REFUSE_UNKNOWN);

struct serving_doc {
    struct tg_jlist packages; /* the one that serves, then the one before */
};
static const struct tg_jfield serving_fields[] = {
    TG_J_OBJS(struct serving_doc, packages, &held_schema, 0, 2, TG_J_REQ),
};
static const struct tg_jschema serving_schema =
    TG_J_SCHEMA(struct serving_doc, serving_fields, TG_J_REFUSE_UNKNOWN);

struct journal_doc {
    int step;
    struct held_doc package;
    uint64_t tries, early;
    const char *code, *reason;
};
static const struct tg_jfield journal_fields[] = {
    TG_J_ENUM(struct journal_doc, step, step_names, TG_J_REQ),
    TG_J_OBJ(struct journal_doc, package, &held_schema, TG_J_REQ),
    TG_J_U64(struct journal_doc, tries, 0, 1000, TG_J_REQ),
    TG_J_U64(struct journal_doc, early, 0, 1000, TG_J_OPT),
    TG_J_STR(struct journal_doc, code, 0, TG_CODE_TEXT - 1, TG_J_REQ),
    TG_J_STR(struct journal_doc, reason, 0, TG_REASON_TEXT - 1, TG_J_REQ),
};
static const struct tg_jschema journal_schema =
    TG_J_SCHEMA(struct journal_doc, journal_fields, TG_J_REFUSE_UNKNOWN);

struct settings_doc {
    const char *server, *fleet, *device_id, *worker, *worker_user, *protection, *predict_socket,
        *native_socket, *handover_uids, *socket_group;
    uint64_t native_spin_us, memory_max_mib;
    bool tcp;
    uint64_t tcp_port;
    uint8_t tcp_token_sha256[32];
    uint64_t check_in_s, load_timeout_s, drain_timeout_s, worker_timeout_s;
};
static const struct tg_jfield settings_fields[] = {
    TG_J_STR(struct settings_doc, server, 1, 512, TG_J_REQ),
    TG_J_STR(struct settings_doc, fleet, 1, TG_NAME_TEXT - 1, TG_J_REQ),
    TG_J_STR(struct settings_doc, device_id, 1, TG_ID_TEXT - 1, TG_J_REQ),
    TG_J_STR(struct settings_doc, worker, 1, TG_STATE_DIR_MAX - 1, TG_J_REQ),
    TG_J_STR(struct settings_doc, worker_user, 0, 63, TG_J_REQ),
    TG_J_STR(struct settings_doc, protection, 1, TG_LEVEL_TEXT - 1,
             TG_J_OPT), /* none: the default */
    TG_J_STR(struct settings_doc, predict_socket, 1, 107, TG_J_REQ),
    TG_J_STR(struct settings_doc, native_socket, 1, 107, TG_J_SKIP0),
    TG_J_U64(struct settings_doc, native_spin_us, 0, TG_NATIVE_SPIN_US_MAX, TG_J_SKIP0),
    TG_J_STR(struct settings_doc, handover_uids, 1, 255, TG_J_SKIP0),
    TG_J_U64(struct settings_doc, memory_max_mib, 0, TG_MEMORY_MAX_MIB, TG_J_SKIP0),
    TG_J_STR(struct settings_doc, socket_group, 0, 63, TG_J_REQ),
    TG_J_BOOL(struct settings_doc, tcp, TG_J_REQ),
    TG_J_U64(struct settings_doc, tcp_port, 0, 65535, TG_J_REQ),
    TG_J_HEX(struct settings_doc, tcp_token_sha256, TG_J_REQ),
    TG_J_U64(struct settings_doc, check_in_s, 0, 86400, TG_J_REQ),
    TG_J_U64(struct settings_doc, load_timeout_s, 1, 86400, TG_J_REQ),
    TG_J_U64(struct settings_doc, drain_timeout_s, 1, 86400, TG_J_REQ),
    TG_J_U64(struct settings_doc, worker_timeout_s, 0, 86400, TG_J_OPT), /* 0: the default */
};
static const struct tg_jschema settings_schema =
    TG_J_SCHEMA(struct settings_doc, settings_fields, TG_J_REFUSE_UNKNOWN);

const char *tg_step_name(enum tg_step s)
{
    return s < TG_STEPS ? step_names[s] : "?";
}

void tg_text_set(char *out, size_t cap, const char *s)
{
    size_t n = s ? strlen(s) : 0;
    if (n >= cap) {
        n = cap - 1;
        while (n > 0 && ((unsigned char)s[n] & 0xC0) == 0x80)
            n--; /* not inside a UTF-8 character */
    }
    if (n)
        memmove(out, s, n);
    out[n] = 0;
}

/* ---- reading and writing any of them ---- */

static TG_RC load(const struct tg_state *s, const char *name, const struct tg_jschema *schema,
                  struct tg_arena *arena, void *doc, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    TG_TRY(tg_state_path(s, path, err, "%s", name));
    struct tg_buf buf = TG_BUF_INIT(RECORD_MAX);
    enum tg_rc rc = tg_file_read(path, &buf, err);
    if (rc == TG_OK)
        rc = tg_json_decode(schema, tg_buf_view(&buf), path, arena, doc, err);
    tg_buf_done(&buf);
    return rc;
}

static TG_RC save(const struct tg_state *s, const char *name, const struct tg_jschema *schema,
                  const void *doc, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    TG_TRY(tg_state_path(s, path, err, "%s", name));
    struct tg_buf text = TG_BUF_INIT(RECORD_MAX);
    struct tg_buf pretty = TG_BUF_INIT(RECORD_MAX);
    enum tg_rc rc = tg_json_encode(schema, doc, &text, err);
    if (rc == TG_OK)
        rc = tg_json_pretty(tg_buf_view(&text), &pretty, err);
    if (rc == TG_OK)
        rc = tg_file_write(path, tg_buf_view(&pretty), 0600, true, err);
    tg_buf_done(&text);
    tg_buf_done(&pretty);
    return rc;
}

static void held_from(const struct held_doc *d, struct tg_held *out)
{
    *out =
        (struct tg_held){.set = true, .size = d->size, .sequence = d->sequence, .floor = d->floor};
    memcpy(out->h, d->header_sha256, 32);
    memcpy(out->blob, d->blob_sha256, 32);
    TG_TEXT_SET(out->deployment_id, d->deployment_id);
    TG_TEXT_SET(out->model, d->model);
    TG_TEXT_SET(out->version, d->version);
}

static struct held_doc held_to(const struct tg_held *in)
{
    struct held_doc d = {.size = in->size,
                         .deployment_id = in->deployment_id,
                         .model = in->model,
                         .version = in->version,
                         .sequence = in->sequence,
                         .floor = in->floor};
    memcpy(d.header_sha256, in->h, 32);
    memcpy(d.blob_sha256, in->blob, 32);
    return d;
}

/* ---- settings ---- */

bool tg_protection_ok(const char *level)
{
    return strcmp(level, "secret") == 0 || strcmp(level, "locked") == 0 ||
           strcmp(level, "any") == 0;
}

TG_RC tg_settings_load(const struct tg_state *s, struct tg_settings *out, struct tg_err *err)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    TG_TRY(tg_arena_new(RECORD_MAX, &arena));
    struct settings_doc d;
    enum tg_rc rc = load(s, "agent.json", &settings_schema, arena, &d, err);
    if (rc == TG_E_NOTFOUND)
        return TG_FAIL(err, rc,
                       "%s: this device is not enrolled; enrol it first (tensorguard-agent enroll "
                       "--help)",
                       s->dir);
    TG_TRY(rc);
    *out = (struct tg_settings){.tcp = d.tcp,
                                .native_spin_us = d.native_spin_us,
                                .memory_max_mib = d.memory_max_mib,
                                .tcp_port = d.tcp_port,
                                .check_in_s = d.check_in_s,
                                .load_timeout_s = d.load_timeout_s,
                                .drain_timeout_s = d.drain_timeout_s,
                                .worker_timeout_s =
                                    d.worker_timeout_s ? d.worker_timeout_s : TG_WORKER_TIMEOUT_S};
    memcpy(out->tcp_token_sha256, d.tcp_token_sha256, 32);
    TG_TEXT_SET(out->server, d.server);
    TG_TEXT_SET(out->fleet, d.fleet);
    TG_TEXT_SET(out->device_id, d.device_id);
    TG_TEXT_SET(out->worker, d.worker);
    TG_TEXT_SET(out->worker_user, d.worker_user);
    TG_TEXT_SET(out->protection, d.protection ? d.protection : TG_PROTECTION_DEFAULT);
    if (!tg_protection_ok(out->protection))
        return TG_FAIL(err, TG_E_FORMAT, "%s/agent.json: protection is secret, locked or any",
                       s->dir);
    TG_TEXT_SET(out->predict_socket, d.predict_socket);
    TG_TEXT_SET(out->native_socket, d.native_socket ? d.native_socket : "");
    TG_TEXT_SET(out->handover_uids, d.handover_uids ? d.handover_uids : "");
    TG_TEXT_SET(out->socket_group, d.socket_group);
    return TG_OK;
}

TG_RC tg_settings_save(const struct tg_state *s, const struct tg_settings *in, struct tg_err *err)
{
    struct settings_doc d = {.server = in->server,
                             .fleet = in->fleet,
                             .device_id = in->device_id,
                             .worker = in->worker,
                             .worker_user = in->worker_user,
                             .protection = in->protection,
                             .predict_socket = in->predict_socket,
                             .native_socket = in->native_socket,
                             .native_spin_us = in->native_spin_us,
                             .memory_max_mib = in->memory_max_mib,
                             .handover_uids = in->handover_uids,
                             .socket_group = in->socket_group,
                             .tcp = in->tcp,
                             .tcp_port = in->tcp_port,
                             .check_in_s = in->check_in_s,
                             .load_timeout_s = in->load_timeout_s,
                             .drain_timeout_s = in->drain_timeout_s,
                             .worker_timeout_s = in->worker_timeout_s};
    memcpy(d.tcp_token_sha256, in->tcp_token_sha256, 32);
    return save(s, "agent.json", &settings_schema, &d, err);
}

/* ---- what serves ---- */

TG_RC tg_serving_load(const struct tg_state *s, struct tg_serving *out, struct tg_err *err)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    TG_TRY(tg_arena_new(RECORD_MAX, &arena));
    struct serving_doc d;
    enum tg_rc rc = load(s, "serving.json", &serving_schema, arena, &d, err);
    if (rc != TG_OK && rc != TG_E_NOTFOUND)
        return rc;
    *out = (struct tg_serving){0};
    const struct held_doc *held = rc == TG_OK ? d.packages.items : NULL;
    if (held && d.packages.n > 0)
        held_from(&held[0], &out->current);
    if (held && d.packages.n > 1)
        held_from(&held[1], &out->previous);
    return TG_OK;
}

TG_RC tg_serving_save(const struct tg_state *s, const struct tg_serving *in, struct tg_err *err)
{
    struct held_doc held[2] = {held_to(&in->current), held_to(&in->previous)};
    size_t n = !in->current.set ? 0 : in->previous.set ? 2 : 1;
    struct serving_doc d = {
        .packages = {.items = held, .n = n}
    };
    return save(s, "serving.json", &serving_schema, &d, err);
}

/* ---- the journal ---- */

TG_RC tg_journal_load(const struct tg_state *s, struct tg_journal *out, struct tg_err *err)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    TG_TRY(tg_arena_new(RECORD_MAX, &arena));
    struct journal_doc d;
    enum tg_rc rc = load(s, "journal.json", &journal_schema, arena, &d, err);
    if (rc == TG_E_NOTFOUND) {
        *out = (struct tg_journal){0};
        return TG_OK;
    }
    TG_TRY(rc);
    *out = (struct tg_journal){
        .set = true, .step = (enum tg_step)d.step, .tries = d.tries, .early = d.early};
    held_from(&d.package, &out->pkg);
    TG_TEXT_SET(out->code, d.code);
    TG_TEXT_SET(out->reason, d.reason);
    return TG_OK;
}

TG_RC tg_journal_save(const struct tg_state *s, const struct tg_journal *in, struct tg_err *err)
{
    struct journal_doc d = {.step = (int)in->step,
                            .package = held_to(&in->pkg),
                            .tries = in->tries,
                            .early = in->early,
                            .code = in->code,
                            .reason = in->reason};
    return save(s, "journal.json", &journal_schema, &d, err);
}
