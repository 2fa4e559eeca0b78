#include "agent/enroll.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/device.h"
#include "agent/enroll_trust.h"
#include "agent/identity.h"
#include "agent/listen.h"
#include "agent/records.h"
#include "agent/spawn.h"
#include "agent/state.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "codec/text.h"
#include "crypto/hash.h"
#include "crypto/keyfile.h"
#include "crypto/x509.h"

struct enrolling {
    const struct tg_enroll_opts *o;
    struct tg_state state;
    struct tg_settings set;
    struct tg_user user;
    struct tg_kem_pk *kem;
};

static void point(const struct enrolling *e, const char *name)
{
    if (e->o->kill_at && strcmp(e->o->kill_at, name) == 0)
        (void)raise(SIGKILL);
}

/* ---- what the options say ---- */

/* A file of one line, e.g. a token. Wiped by the caller. */
static TG_RC read_line(const char *path, size_t max, struct tg_buf *out, struct tg_err *err)
{
    *out = TG_BUF_SECRET(max + 2);
    TG_TRY(tg_file_read(path, out, err));
    while (out->n > 0 && (out->data[out->n - 1] == '\n' || out->data[out->n - 1] == '\r'))
        out->data[--out->n] = 0;
    for (size_t i = 0; i < out->n; i++)
        if (out->data[i] <= ' ' || out->data[i] > '~')
            return TG_FAIL(err, TG_E_USAGE, "%s: expected one word on one line", path);
    if (out->n == 0 || out->n > max)
        return TG_FAIL(err, TG_E_USAGE, "%s: expected 1 to %zu characters, found %zu", path, max,
                       out->n);
    return TG_OK;
}

static TG_RC set_tcp_token(struct enrolling *e, struct tg_err *err)
{
    if (!e->o->tcp) {
        if (e->o->tcp_token_file)
            return TG_FAIL(err, TG_E_USAGE, "--tcp-token-file needs --predict-tcp");
        return TG_OK;
    }
    if (!e->o->tcp_token_file)
        return TG_FAIL(err, TG_E_USAGE,
                       "--predict-tcp needs --tcp-token-file: clients on loopback "
                       "TCP must show a token");
    struct tg_buf token;
    enum tg_rc rc = read_line(e->o->tcp_token_file, 512, &token, err);
    if (rc == TG_OK)
        rc = tg_sha256(tg_buf_view(&token), e->set.tcp_token_sha256);
    tg_buf_done(&token);
    return rc;
}

/* The worker beside this program, unless it is named. Absolute either way. */
static TG_RC set_worker(struct enrolling *e, struct tg_err *err)
{
    char path[PATH_MAX], real[PATH_MAX];
    if (e->o->worker) {
        (void)snprintf(path, sizeof path, "%s", e->o->worker);
    } else {
        ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);
        if (n < 0)
            return TG_FAIL_ERRNO(err, TG_E_IO, "/proc/self/exe");
        path[n] = 0;
        char *slash = strrchr(path, '/');
        (void)snprintf(slash ? slash + 1 : path, 32, "tensorguard-moai");
    }
    if (!realpath(path, real) || access(real, X_OK) != 0)
        return TG_FAIL_ERRNO(err, TG_E_NOTFOUND, "%s: the worker program (--worker PATH)", path);
    if (strlen(real) >= sizeof e->set.worker)
        return TG_FAIL(err, TG_E_LIMIT, "%s: the path is too long", real);
    TG_TEXT_SET(e->set.worker, real);
    return TG_OK;
}

static TG_RC set_socket(struct enrolling *e, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    if (e->o->predict_socket) {
        if (e->o->predict_socket[0] != '/')
            return TG_FAIL(err, TG_E_USAGE, "--predict-socket: '%s' is no absolute path",
                           e->o->predict_socket);
        (void)snprintf(path, sizeof path, "%s", e->o->predict_socket);
    } else {
        TG_TRY(tg_state_path(&e->state, path, err, "run/predict.sock"));
    }
    if (strlen(path) >= sizeof e->set.predict_socket)
        return TG_FAIL(
            err, TG_E_LIMIT,
            "%s: a socket's path has at most %zu bytes; choose one with --predict-socket", path,
            sizeof e->set.predict_socket - 1);
    TG_TEXT_SET(e->set.predict_socket, path);
    return TG_OK;
}

/* Now, not at the first start: a token would have been spent by then. */
static TG_RC set_group(struct enrolling *e, struct tg_err *err)
{
    const char *group = e->o->socket_group ? e->o->socket_group : "";
    gid_t gid = 0;
    if (strlen(group) >= sizeof e->set.socket_group)
        return TG_FAIL(err, TG_E_LIMIT, "--socket-group: a group's name has at most %zu bytes",
                       sizeof e->set.socket_group - 1);
    enum tg_rc rc = *group ? tg_group_find(group, &gid, err) : TG_OK;
    if (rc != TG_OK)
        tg_err_wrap(err, "--socket-group");
    else
        TG_TEXT_SET(e->set.socket_group, group);
    return rc;
}

static TG_RC set_native(struct enrolling *e, struct tg_err *err)
{
    const char *path = e->o->native_socket;
    if (path && strcmp(path, "off") != 0 && path[0] != '/')
        return TG_FAIL(err, TG_E_USAGE, "--native-socket: '%s' is no absolute path, nor \"off\"",
                       path);
    if (path && strlen(path) >= sizeof e->set.native_socket)
        return TG_FAIL(err, TG_E_LIMIT, "--native-socket: a socket's path has at most %zu bytes",
                       sizeof e->set.native_socket - 1);
    if (e->o->native_spin_us > TG_NATIVE_SPIN_US_MAX)
        return TG_FAIL(err, TG_E_USAGE, "--native-spin: at most %d microseconds",
                       TG_NATIVE_SPIN_US_MAX);
    TG_TEXT_SET(e->set.native_socket, path ? path : "");
    e->set.native_spin_us = e->o->native_spin_us;
    return TG_OK;
}

/* Numbers are kept: what a name means later is no longer the operator's word. */
static TG_RC set_handover(struct enrolling *e, struct tg_err *err)
{
    size_t at = 0;
    for (size_t i = 0; i < e->o->n_handover; i++) {
        uint64_t uid = 0;
        if (tg_parse_u64(e->o->handover[i], UINT32_MAX - 1, &uid) != TG_OK) {
            struct passwd pw, *found = NULL;
            char buf[16384];
            (void)getpwnam_r(e->o->handover[i], &pw, buf, sizeof buf, &found);
            if (!found)
                return TG_FAIL(err, TG_E_NOTFOUND, "--handover-user %s: no such user",
                               e->o->handover[i]);
            uid = pw.pw_uid;
        }
        int n = snprintf(e->set.handover_uids + at, sizeof e->set.handover_uids - at, "%s%" PRIu64,
                         i ? "," : "", uid);
        if (n < 0 || (size_t)n >= sizeof e->set.handover_uids - at || i >= TG_HANDOVER_MAX)
            return TG_FAIL(err, TG_E_LIMIT, "--handover-user: at most %d", TG_HANDOVER_MAX);
        at += (size_t)n;
    }
    return TG_OK;
}

static TG_RC fill_settings(struct enrolling *e, struct tg_err *err)
{
    const struct tg_enroll_opts *o = e->o;
    if (strlen(o->server) >= sizeof e->set.server || strlen(o->fleet) > TG_WIRE_NAME_MAX)
        return TG_FAIL(err, TG_E_USAGE, "--server or --fleet is too long");
    TG_TEXT_SET(e->set.server, o->server);
    TG_TEXT_SET(e->set.fleet, o->fleet);
    e->set.tcp = o->tcp;
    e->set.tcp_port = o->tcp_port;
    e->set.check_in_s = o->check_in_s;
    if (o->memory_max_mib > TG_MEMORY_MAX_MIB)
        return TG_FAIL(err, TG_E_USAGE, "--memory-max: at most %" PRIu64 " MiB", TG_MEMORY_MAX_MIB);
    e->set.memory_max_mib = o->memory_max_mib;
    e->set.load_timeout_s = o->load_timeout_s ? o->load_timeout_s : 300;
    e->set.drain_timeout_s = o->drain_timeout_s ? o->drain_timeout_s : 30;
    e->set.worker_timeout_s = o->worker_timeout_s ? o->worker_timeout_s : TG_WORKER_TIMEOUT_S;
    if (o->worker_user) {
        TG_TRY(tg_user_find(o->worker_user, &e->user, err));
        if (geteuid() != 0 && e->user.uid != geteuid())
            return TG_FAIL(err, TG_E_DENIED,
                           "--worker-user %s: only root can start the worker as another user",
                           o->worker_user);
        TG_TEXT_SET(e->set.worker_user, o->worker_user);
        e->user.set = geteuid() == 0;
    }
    TG_TEXT_SET(e->set.protection, o->protection ? o->protection : TG_PROTECTION_DEFAULT);
    if (!tg_protection_ok(e->set.protection))
        return TG_FAIL(err, TG_E_USAGE, "--protection: secret, locked or any");
    TG_TRY(set_tcp_token(e, err));
    TG_TRY(set_worker(e, err));
    TG_TRY(set_native(e, err));
    TG_TRY(set_handover(e, err));
    TG_TRY(set_group(e, err));
    return set_socket(e, err);
}

/* ---- keys ---- */

static TG_RC own_kem_dir(const struct enrolling *e, int dir, struct tg_err *err)
{
    if (!e->user.set)
        return TG_OK;
    if (fchown(dir, e->user.uid, e->user.gid) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "kem: cannot give it to user %s", e->user.name);
    struct stat st;
    if (fstatat(dir, "kem.priv", &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_uid != e->user.uid &&
        fchownat(dir, "kem.priv", e->user.uid, e->user.gid, AT_SYMLINK_NOFOLLOW) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "kem.priv: cannot give it to user %s", e->user.name);
    return TG_OK;
}

static TG_RC read_pipe(int fd, struct tg_buf *out, struct tg_err *err)
{
    char piece[4096];
    for (;;) {
        ssize_t n = read(fd, piece, sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return TG_FAIL_ERRNO(err, TG_E_IO, "worker's answer");
        if (n == 0)
            return TG_OK;
        TG_TRY(tg_buf_append(out, piece, (size_t)n));
    }
}

/* Run `tensorguard-moai --make-key` in kem/ and collect the public half it prints. */
static TG_RC run_make_key(const struct enrolling *e, int dir, struct tg_buf *pem,
                          struct tg_err *err)
{
    int fds[2], status = 0;
    if (pipe2(fds, O_CLOEXEC) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "pipe");
    TG_AUTO(tg_fd_closep) int from = fds[0];
    TG_AUTO(tg_fd_closep) int to = fds[1];
    const char *const argv[] = {"tensorguard-moai", "--make-key", NULL};
    struct tg_spawn s = TG_SPAWN_INIT;
    s.path = e->set.worker;
    s.argv = argv;
    s.work_dir = dir;
    s.out = to;
    s.user = e->user;
    pid_t pid = 0;
    TG_TRY(tg_spawn(&s, &pid, err));
    tg_fd_close(to);
    to = -1;
    enum tg_rc rc = read_pipe(from, pem, err);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    TG_TRY(rc);
    if (status == 0)
        return TG_OK;
    char how[64];
    tg_wait_text(status, how, sizeof how);
    return TG_FAIL(err, TG_E_IO, "%s --make-key failed (%s); its words are above", e->set.worker,
                   how);
}

static TG_RC make_kem_key(struct enrolling *e, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    TG_TRY(tg_state_path(&e->state, path, err, "kem"));
    TG_AUTO(tg_fd_closep) int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (dir < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
    TG_TRY(own_kem_dir(e, dir, err));
    TG_TRY(tg_state_path(&e->state, path, err, "kem.pub"));
    struct tg_buf pem = TG_BUF_INIT(TG_KEYFILE_MAX);
    enum tg_rc rc = run_make_key(e, dir, &pem, err);
    if (rc == TG_OK)
        rc = tg_kem_pk_from_pem(tg_buf_view(&pem), "worker's public key", &e->kem, err);
    if (rc == TG_OK)
        rc = tg_file_write(path, tg_buf_view(&pem), 0644, true, err);
    tg_buf_done(&pem);
    return rc;
}

/* ---- the exchange ---- */

static TG_RC copy_ca(const struct enrolling *e, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    struct tg_x509_facts facts;
    TG_TRY(tg_state_path(&e->state, path, err, "ca.pem"));
    struct tg_buf pem = TG_BUF_INIT(TG_X509_PEM_MAX);
    enum tg_rc rc = tg_file_read(e->o->ca, &pem, err);
    if (rc == TG_OK && (rc = tg_x509_facts_pem(tg_buf_view(&pem), &facts, err)) != TG_OK)
        tg_err_wrap(err, "%s", e->o->ca);
    if (rc == TG_OK)
        rc = tg_file_write(path, tg_buf_view(&pem), 0644, true, err);
    tg_buf_done(&pem);
    return rc;
}

static TG_RC check_answer(const struct enrolling *e, const struct tg_wire_enrolled *a,
                          struct tg_err *err)
{
    uint8_t platform[TG_SIGN_ID_LEN];
    if (strcmp(a->fleet, e->set.fleet) != 0)
        return TG_FAIL(err, TG_E_AUTH,
                       "the platform enrolled this device into fleet '%s', not '%s'", a->fleet,
                       e->set.fleet);
    TG_TRY(tg_enroll_platform_id(e->o->platform_key, platform, err));
    if (!tg_mem_eq(a->platform_key_id, platform, sizeof platform))
        tg_log(
            TG_LOG_WARN, "agent.enroll",
            "platform_key=\"the platform says it signs with another key than --platform-key: its "
            "deployments will be refused\"");
    return TG_OK;
}

static TG_RC send_request(struct enrolling *e, struct tg_wire_enrol *in, struct tg_err *err)
{
    struct tg_wire_enrolled out = {0};
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    TG_AUTO(tg_device_done) struct tg_device device = TG_DEVICE_INIT;
    TG_TRY(tg_arena_new(256 * 1024, &arena));
    TG_TRY(tg_device_open(&e->state, e->set.server, false, &device, err));
    enum tg_rc rc = tg_device_enrol(&device, in, arena, &out, err);
    if (strstr(err->msg, "enrolment token") != NULL && rc != TG_OK)
        tg_err_wrap(err,
                    "the platform does not take this token (each works once, for its fleet, for a "
                    "limited time): ask the operator for a new one (tensorguard "
                    "enrolment-token create) and run the same command with it");
    TG_TRY(rc);
    point(e, "sent");
    TG_TRY(check_answer(e, &out, err));
    TG_TEXT_SET(e->set.device_id, out.device_id);
    return tg_identity_store(&e->state, tg_bytes_str(out.certificate), err);
}

static TG_RC exchange(struct enrolling *e, struct tg_err *err)
{
    char host[TG_WIRE_NAME_MAX + 1] = "device";
    (void)gethostname(host, sizeof host - 1);
    const char *name = e->o->name ? e->o->name : tg_wire_name_ok(host) ? host : "device";
    struct tg_buf token = TG_BUF_SECRET(1), csr = TG_BUF_INIT(TG_WIRE_PEM_MAX);
    enum tg_rc rc = read_line(e->o->token_file, TG_WIRE_TOKEN_MAX, &token, err);
    if (rc == TG_OK)
        rc = tg_identity_csr(&e->state, name, &csr, err);
    if (rc == TG_OK) {
        struct tg_wire_enrol in = {.token = tg_buf_cstr(&token),
                                   .fleet = e->set.fleet,
                                   .name = name,
                                   .csr = tg_buf_cstr(&csr),
                                   .agent_version = TG_VERSION,
                                   .separation = e->user.set};
        memcpy(in.kem_public_key, tg_kem_pk_raw(e->kem).p, sizeof in.kem_public_key);
        rc = send_request(e, &in, err);
    }
    tg_buf_done(&token);
    tg_buf_done(&csr);
    return rc;
}

/* ---- all of it ---- */

static TG_RC enroll_steps(struct enrolling *e, struct tg_err *err)
{
    TG_TRY(fill_settings(e, err));
    TG_TRY(copy_ca(e, err));
    TG_TRY(tg_enroll_trust(&e->state, e->o, err));
    TG_TRY(tg_identity_key(&e->state, err));
    point(e, "key");
    TG_TRY(make_kem_key(e, err));
    point(e, "kem");
    TG_TRY(exchange(e, err));
    point(e, "stored");
    return tg_settings_save(&e->state, &e->set, err);
}

static TG_RC id_of_kem_pub(const struct tg_state *s, char out[33], struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *pk = NULL;
    TG_TRY(tg_state_path(s, path, err, "kem.pub"));
    TG_TRY(tg_kem_pk_load_file(path, &pk, err));
    tg_hex_encode(tg_bytes_make(tg_kem_pk_id(pk), TG_KEM_ID_LEN), out);
    return TG_OK;
}

static TG_RC enroll_locked(struct enrolling *e, struct tg_enrolled *out, struct tg_err *err)
{
    struct tg_settings before;
    enum tg_rc rc = tg_settings_load(&e->state, &before, err);
    if (rc != TG_OK && rc != TG_E_NOTFOUND)
        return rc;
    if (rc == TG_OK && !e->o->again) {
        if (strcmp(before.fleet, e->o->fleet) != 0 || strcmp(before.server, e->o->server) != 0)
            return TG_FAIL(err, TG_E_STATE,
                           "%s: enrolled already, in fleet %s at %s; use another state folder",
                           e->state.dir, before.fleet, before.server);
        out->already = true;
        out->separate = before.worker_user[0] != 0;
        TG_TEXT_SET(out->device_id, before.device_id);
        return id_of_kem_pub(&e->state, out->kem_key_id, err);
    }
    TG_TRY(enroll_steps(e, err));
    out->separate = e->user.set;
    TG_TEXT_SET(out->device_id, e->set.device_id);
    return id_of_kem_pub(&e->state, out->kem_key_id, err);
}

TG_RC tg_enroll(const struct tg_enroll_opts *o, struct tg_enrolled *out, struct tg_err *err)
{
    struct enrolling e = {.o = o, .state = TG_STATE_INIT};
    struct tg_enrolled done = {0};
    (void)signal(SIGPIPE, SIG_IGN);
    enum tg_rc rc = tg_state_open(&e.state, o->state_dir, true, err);
    if (rc == TG_OK)
        rc = tg_state_lock(&e.state, err);
    if (rc == TG_OK)
        rc = tg_state_tidy(&e.state, err);
    if (rc == TG_OK)
        rc = enroll_locked(&e, &done, err);
    tg_kem_pk_free(e.kem);
    tg_state_done(&e.state);
    if (rc == TG_OK)
        *out = done;
    return rc;
}
