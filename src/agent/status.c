#include "agent/status.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "agent/daemon_internal.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "codec/json.h"

#define STATUS_MAX 65536

struct held_doc {
    const char *state, *model, *version, *deployment_id;
    uint64_t sequence;
    uint8_t header_sha256[32];
    uint64_t pid, ready_ms, load_ms, locked_bytes, restarts;
    const char *protection;
    const char *code, *reason;
};
static const struct tg_jfield held_fields[] = {
    TG_J_STR(struct held_doc, state, 1, 32, TG_J_REQ),
    TG_J_STR(struct held_doc, model, 0, TG_NAME_TEXT - 1, TG_J_SKIP0),
    TG_J_STR(struct held_doc, version, 0, TG_ID_TEXT - 1, TG_J_SKIP0),
    TG_J_STR(struct held_doc, deployment_id, 0, TG_ID_TEXT - 1, TG_J_SKIP0),
    TG_J_U64(struct held_doc, sequence, 0, TG_JSON_INT_MAX, TG_J_SKIP0),
    TG_J_HEX(struct held_doc, header_sha256, TG_J_SKIP0),
    TG_J_U64(struct held_doc, pid, 0, TG_JSON_INT_MAX, TG_J_SKIP0),
    TG_J_U64(struct held_doc, ready_ms, 0, TG_JSON_INT_MAX, TG_J_SKIP0),
    TG_J_U64(struct held_doc, load_ms, 0, TG_JSON_INT_MAX, TG_J_SKIP0),
    TG_J_U64(struct held_doc, locked_bytes, 0, TG_JSON_INT_MAX, TG_J_SKIP0),
    TG_J_STR(struct held_doc, protection, 0, TG_LEVEL_TEXT - 1, TG_J_SKIP0),
    TG_J_U64(struct held_doc, restarts, 0, TG_JSON_INT_MAX, TG_J_SKIP0),
    TG_J_STR(struct held_doc, code, 0, TG_CODE_TEXT - 1, TG_J_SKIP0),
    TG_J_STR(struct held_doc, reason, 0, TG_REASON_TEXT - 1, TG_J_SKIP0),
};
static const struct tg_jschema held_schema =
    TG_J_SCHEMA(struct held_doc, held_fields, TG_J_IGNORE_UNKNOWN);

struct update_doc {
    const char *state, *step, *deployment_id, *model, *version;
    uint8_t header_sha256[32];
    uint64_t fetched, size, tries;
    const char *code, *reason;
};
static const struct tg_jfield update_fields[] = {
    TG_J_STR(struct update_doc, state, 1, 32, TG_J_REQ),
    TG_J_STR(struct update_doc, step, 1, 32, TG_J_REQ),
    TG_J_STR(struct update_doc, deployment_id, 1, TG_ID_TEXT - 1, TG_J_REQ),
    TG_J_STR(struct update_doc, model, 0, TG_NAME_TEXT - 1, TG_J_SKIP0),
    TG_J_STR(struct update_doc, version, 0, TG_ID_TEXT - 1, TG_J_SKIP0),
    TG_J_HEX(struct update_doc, header_sha256, TG_J_REQ),
    TG_J_U64(struct update_doc, fetched, 0, TG_JSON_INT_MAX, TG_J_SKIP0),
    TG_J_U64(struct update_doc, size, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_U64(struct update_doc, tries, 0, TG_JSON_INT_MAX, TG_J_SKIP0),
    TG_J_STR(struct update_doc, code, 0, TG_CODE_TEXT - 1, TG_J_SKIP0),
    TG_J_STR(struct update_doc, reason, 0, TG_REASON_TEXT - 1, TG_J_SKIP0),
};
static const struct tg_jschema update_schema =
    TG_J_SCHEMA(struct update_doc, update_fields, TG_J_IGNORE_UNKNOWN);

struct status_doc {
    const char *agent; /* in answers only: "running", "stopped" */
    int64_t updated_at;
    uint64_t pid;
    const char *agent_version, *device_id, *fleet, *server;
    bool separation;
    const char *worker_user;
    bool online;
    int64_t last_check_in, certificate_not_after;
    const char *platform_code, *platform_reason;
    struct held_doc serving;
    struct held_doc previous;
    bool has_previous, has_update;
    struct update_doc update;
    uint64_t reports_queued, last_report, draining;
    const char *predict_socket;
    uint64_t predict_tcp;
};

#define T struct status_doc
static const struct tg_jfield status_fields[] = {
    TG_J_STR(T, agent, 1, 16, TG_J_SKIP0),
    TG_J_TIME(T, updated_at, TG_J_REQ),
    TG_J_U64(T, pid, 1, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_STR(T, agent_version, 1, 32, TG_J_REQ),
    TG_J_STR(T, device_id, 1, TG_ID_TEXT - 1, TG_J_REQ),
    TG_J_STR(T, fleet, 1, TG_NAME_TEXT - 1, TG_J_REQ),
    TG_J_STR(T, server, 1, 512, TG_J_REQ),
    TG_J_BOOL(T, separation, TG_J_REQ),
    TG_J_STR(T, worker_user, 0, 64, TG_J_SKIP0),
    TG_J_BOOL(T, online, TG_J_REQ),
    TG_J_TIME(T, last_check_in, TG_J_SKIP0),
    TG_J_TIME(T, certificate_not_after, TG_J_SKIP0),
    TG_J_STR(T, platform_code, 0, TG_CODE_TEXT - 1, TG_J_SKIP0),
    TG_J_STR(T, platform_reason, 0, TG_REASON_TEXT - 1, TG_J_SKIP0),
    TG_J_OBJ(T, serving, &held_schema, TG_J_REQ),
    {.name = "previous",
                                          .type = TG_JT_OBJ,
                                          .flags = TG_J_OPT,
                                          .off = offsetof(T, previous),
                                          .has_off = offsetof(T, has_previous),
                                          .sub = {.schema = &held_schema}  },
    {.name = "update",
                                          .type = TG_JT_OBJ,
                                          .flags = TG_J_OPT,
                                          .off = offsetof(T, update),
                                          .has_off = offsetof(T, has_update),
                                          .sub = {.schema = &update_schema}},
    TG_J_U64(T, reports_queued, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_U64(T, last_report, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_U64(T, draining, 0, TG_JSON_INT_MAX, TG_J_SKIP0),
    TG_J_STR(T, predict_socket, 1, 256, TG_J_REQ),
    TG_J_U64(T, predict_tcp, 0, 65535, TG_J_SKIP0),
};
#undef T
static const struct tg_jschema status_schema =
    TG_J_SCHEMA(struct status_doc, status_fields, TG_J_IGNORE_UNKNOWN);

/* ---- writing ---- */

static const char *text_or_null(const char *s)
{
    return s[0] ? s : NULL;
}

static void held_doc_set(struct held_doc *out, const struct tg_held *in)
{
    out->model = text_or_null(in->model);
    out->version = text_or_null(in->version);
    out->deployment_id = text_or_null(in->deployment_id);
    out->sequence = in->sequence;
    memcpy(out->header_sha256, in->h, 32);
}

static void serving_doc_set(struct tg_daemon *d, struct held_doc *out)
{
    const struct tg_slot *slot = tg_daemon_slot(d, TG_ROLE_SERVING);
    out->state = tg_serving_state_name(d->serve.state);
    out->restarts = d->serve.restarts;
    if (d->serving.current.set)
        held_doc_set(out, &d->serving.current);
    if (slot) {
        out->pid = (uint64_t)slot->w.pid;
        out->ready_ms = slot->w.ready_ms;
        out->load_ms = slot->w.load_ms;
        out->locked_bytes = slot->w.locked_bytes;
        out->protection = text_or_null(slot->w.protection);
    }
    if (d->serve.why.text[0]) {
        out->code = tg_rc_name(d->serve.why.code);
        out->reason = d->serve.why.text;
    }
}

static void update_doc_set(const struct tg_daemon *d, struct update_doc *out)
{
    const struct tg_journal *j = &d->journal;
    *out = (struct update_doc){.state = tg_install_state_name(d->install.state),
                               .step = tg_step_name(j->step),
                               .deployment_id = j->pkg.deployment_id,
                               .model = text_or_null(j->pkg.model),
                               .version = text_or_null(j->pkg.version),
                               .fetched = d->install.have,
                               .size = j->pkg.size,
                               .tries = j->tries,
                               .code = text_or_null(j->code),
                               .reason = text_or_null(j->reason)};
    memcpy(out->header_sha256, j->pkg.h, 32);
    if (!out->reason && d->install.state != TG_IN_IDLE && d->install.why.text[0]) {
        out->code = tg_rc_name(d->install.why.code);
        out->reason = d->install.why.text;
    }
}

static void status_doc_set(struct tg_daemon *d, struct status_doc *out)
{
    *out = (struct status_doc){.updated_at = tg_clock_now(),
                               .pid = (uint64_t)getpid(),
                               .agent_version = TG_VERSION,
                               .device_id = d->set.device_id,
                               .fleet = d->set.fleet,
                               .server = d->set.server,
                               .separation = d->separate,
                               .worker_user = text_or_null(d->set.worker_user),
                               .online = d->link.online,
                               .last_check_in = d->link.last_ok,
                               .certificate_not_after = d->link.not_after,
                               .reports_queued = d->outbox.n,
                               .last_report = d->outbox.last_seq,
                               .predict_socket = d->set.predict_socket,
                               .predict_tcp = d->tcp_port};
    if (d->link.why.text[0]) {
        out->platform_code = tg_rc_name(d->link.why.code);
        out->platform_reason = d->link.why.text;
    }
    serving_doc_set(d, &out->serving);
    out->has_previous = d->serving.previous.set;
    if (out->has_previous) {
        out->previous.state = "kept";
        held_doc_set(&out->previous, &d->serving.previous);
    }
    out->has_update = d->journal.set;
    if (out->has_update)
        update_doc_set(d, &out->update);
    for (size_t i = 0; i < TG_SLOTS; i++)
        out->draining += d->slots[i].role == TG_ROLE_DRAINING;
}

void tg_status_write(struct tg_daemon *d)
{
    struct tg_err err = TG_ERR_INIT;
    struct status_doc doc;
    char path[TG_STATE_PATH_MAX];
    struct tg_buf text = TG_BUF_INIT(STATUS_MAX);
    status_doc_set(d, &doc);
    enum tg_rc rc = tg_state_path(&d->state, path, &err, "status.json");
    if (rc == TG_OK)
        rc = tg_json_encode(&status_schema, &doc, &text, &err);
    if (rc == TG_OK)
        rc = tg_file_write_fleeting(path, tg_buf_view(&text), 0600, &err);
    if (rc != TG_OK)
        tg_log_err("agent.status", &err);
    tg_buf_done(&text);
}

/* ---- showing ---- */

static bool is_running(const struct tg_state *s)
{
    char path[TG_STATE_PATH_MAX];
    if (tg_state_path(s, path, NULL, "lock") != TG_OK)
        return false;
    TG_AUTO(tg_fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) != 0;
}

static void show_time(const char *label, int64_t t)
{
    char text[TG_TIME_TEXT];
    if (t > 0 && tg_time_format(t, text) == TG_OK)
        printf("%-13s %s\n", label, text);
}

static void show_reason(const char *code, const char *reason)
{
    if (reason)
        printf("%-13s %s: %s\n", "", code ? code : "", reason);
}

static void show_package(const char *label, const struct held_doc *h)
{
    printf("%-13s %s", label, h->state);
    if (h->model)
        printf(", %s %s (sequence %" PRIu64 ")", h->model, h->version ? h->version : "",
               h->sequence);
    printf("\n");
}

static void show_text(const struct status_doc *d)
{
    printf("%-13s %s (%s)\n", "agent", d->agent, d->agent_version);
    printf("%-13s %s, fleet %s\n", "device", d->device_id, d->fleet);
    printf("%-13s %s, %s\n", "platform", d->server, d->online ? "online" : "offline");
    show_reason(d->platform_code, d->platform_reason);
    show_time("checked in", d->last_check_in);
    show_time("certificate", d->certificate_not_after);
    if (d->separation)
        printf("%-13s the worker runs as user %s\n", "separation", d->worker_user);
    else
        printf("%-13s absent: agent and worker run as one user, which can read the KEM key\n",
               "separation");
    show_package("serving", &d->serving);
    show_reason(d->serving.code, d->serving.reason);
    if (d->serving.protection)
        printf("%-13s %s\n", "memory",
               strcmp(d->serving.protection, "none") == 0
                   ? "none: the model can be swapped out and read by root (--protection)"
                   : d->serving.protection);
    if (d->has_previous)
        show_package("previous", &d->previous);
    if (d->has_update) {
        printf("%-13s %s: %s, %s\n", "update", d->update.deployment_id, d->update.step,
               d->update.state);
        show_reason(d->update.code, d->update.reason);
    }
    printf("%-13s %" PRIu64 " queued\n", "reports", d->reports_queued);
    printf("%-13s %s\n", "socket", d->predict_socket);
    if (d->predict_tcp)
        printf("%-13s 127.0.0.1:%" PRIu64 "\n", "tcp", d->predict_tcp);
}

static TG_RC show_json(const struct status_doc *d, struct tg_err *err)
{
    struct tg_buf text = TG_BUF_INIT(STATUS_MAX), pretty = TG_BUF_INIT(2 * STATUS_MAX);
    enum tg_rc rc = tg_json_encode(&status_schema, d, &text, err);
    if (rc == TG_OK)
        rc = tg_json_pretty(tg_buf_view(&text), &pretty, err);
    if (rc == TG_OK)
        printf("%s\n", tg_buf_cstr(&pretty));
    tg_buf_done(&text);
    tg_buf_done(&pretty);
    return rc;
}

TG_RC tg_status_show(const char *state_dir, bool json, struct tg_err *err)
{
    struct tg_state s = TG_STATE_INIT;
    struct tg_settings set;
    char path[TG_STATE_PATH_MAX];
    TG_TRY(tg_state_open(&s, state_dir, false, err));
    TG_TRY(tg_settings_load(&s, &set, err));
    TG_TRY(tg_state_path(&s, path, err, "status.json"));
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    TG_TRY(tg_arena_new(2 * STATUS_MAX, &arena));
    struct tg_buf text = TG_BUF_INIT(STATUS_MAX);
    struct status_doc doc;
    enum tg_rc rc = tg_file_read(path, &text, err);
    if (rc == TG_E_NOTFOUND || (rc == TG_OK && text.n == 0)) /* empty: power was cut */
        rc = TG_FAIL(err, TG_E_NOTFOUND,
                     "%s: enrolled as %s, but the agent has not run yet (tensorguard-agent run "
                     "--state-dir %s)",
                     s.dir, set.device_id, s.dir);
    else if (rc == TG_OK)
        rc = tg_json_decode(&status_schema, tg_buf_view(&text), path, arena, &doc, err);
    tg_buf_done(&text);
    TG_TRY(rc);
    doc.agent = is_running(&s) ? "running" : "stopped";
    if (json)
        return show_json(&doc, err);
    show_text(&doc);
    return TG_OK;
}
