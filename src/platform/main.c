/* tensorguard-platform: the control plane. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/opt.h"
#include "codec/complain.h"
#include "codec/text.h"
#include "crypto/kem.h"
#include "crypto/sign.h"
#include "platform/blobs.h"
#include "platform/call.h"
#include "platform/server.h"
#include "platform/vault.h"
#include "store/access.h"

/* Nobody but this machine reaches a platform that was not told otherwise. */
#define LISTEN "127.0.0.1:8443"
#define DEVICE_LISTEN "127.0.0.1:8444"

#define ADMIN_TOKEN_LIFE (INT64_C(7) * 86400)

#define OPT(kind, name, member, required, arg, help)                                               \
    {                                                                                              \
        name, kind, offsetof(struct tg_platform_config, member), required, arg, help               \
    }

// clang-format off
static const struct tg_opt options[] = {
    OPT(TG_OPT_STR, "data-dir", data_dir, true, "DIR",
        "database, keys and packages; made at the first start"),
    OPT(TG_OPT_STR, "listen", listen, false, "ADDR:PORT",
        "for people and CI (" LISTEN "); port 0: the kernel's choice"),
    OPT(TG_OPT_STR, "device-listen", device_listen, false, "ADDR:PORT",
        "for devices (" DEVICE_LISTEN ")"),
    OPT(TG_OPT_LIST, "name", names, false, "NAME",
        "host name or address for the server certificate, besides localhost; repeatable"),
    OPT(TG_OPT_STR, "key-file", key_file, false, "FILE",
        "seal the platform's keys under this file (default: DIR/vault.key, made at first start)"),
    OPT(TG_OPT_STR, "passphrase-file", passphrase_file, false, "FILE",
        "seal them under the passphrase in this file"),
    OPT(TG_OPT_U64, "poll", poll_s, false, "SECONDS",
        "how often devices check in (60), give or take 20 %"),
    OPT(TG_OPT_U64, "grant-life", grant_life_s, false, "SECONDS",
        "how long the vault's grants hold (ten years); devices get new ones from half of it on"),
    OPT(TG_OPT_U64, "rate-limit", rate_limit, false, "N",
        "requests per second and token (200); 0: no rate limits"),
    OPT(TG_OPT_U64, "threads", threads, false, "N", "per listener (3)"),
    OPT(TG_OPT_FLAG, "new-admin-token", new_admin_token, false, NULL,
        "make another one-time administrator token, then serve"),
    OPT(TG_OPT_STR, "log-level", log_level, false, "LEVEL", "error, warn, info, debug (info)"),
    OPT(TG_OPT_FLAG, "json", json, false, NULL, "print what was made as JSON"),
    {NULL, TG_OPT_END, 0, false, NULL, NULL},
};
// clang-format on

static const struct tg_cmd command = {
    .name = "",
    .args = "",
    .summary = "the control plane: packages, fleets, devices, deployments, the audit log",
    .details = "The first start makes the database, the keys and a one-time administrator token "
               "(DIR/admin.token, also printed when standard output is a terminal).\n"
               "SIGTERM finishes what is in flight and exits 0. DIR/run/endpoints.json says where "
               "it listens. See docs/platform.md.",
    .opts = options,
};

static void bufp(struct tg_buf *b)
{
    tg_buf_done(b);
}

/* ---- parts of the start ---- */

/* One process per data folder. The descriptor stays open for the life of the process. */
static enum tg_rc lock_dir(const char *dir, int *fd, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *path = tg_path_join(dir, "lock");

    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: can't open", path);
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0)
        return TG_FAIL(err, TG_E_STATE, "%s: another tensorguard-platform uses this data folder",
                       dir);
    return TG_OK;
}

static enum tg_rc make_dirs(struct tg_platform *p, struct tg_err *err)
{
    const char *dir = p->config->data_dir;

    p->blobs_dir = tg_path_join(dir, "blobs");
    p->uploads_dir = tg_path_join(dir, "uploads");
    if (p->blobs_dir == NULL || p->uploads_dir == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tg_dir_make(p->blobs_dir, 0700, err));
    return tg_dir_make(p->uploads_dir, 0700, err);
}

static enum tg_rc make_lock(pthread_mutex_t *lock, struct tg_err *err)
{
    int e = pthread_mutex_init(lock, NULL);

    return e == 0 ? TG_OK
                  : TG_FAIL(err, TG_E_INTERNAL,
                            "the uploads' locks can't be made: %s: " TG_NO_LOCK_HINT, strerror(e));
}

static enum tg_rc make_locks(struct tg_platform *p, struct tg_err *err)
{
    for (size_t i = 0; i < TG_UPLOAD_LOCKS; i++)
        TG_TRY(make_lock(&p->part_locks[i], err));
    return make_lock(&p->complete_lock, err);
}

static enum tg_rc save_token(const char *path, const char *token, struct tg_err *err)
{
    TG_AUTO(bufp) struct tg_buf text = TG_BUF_SECRET(TG_WIRE_TOKEN_MAX + 2);

    TG_TRY(tg_buf_printf(&text, "%s\n", token));
    return tg_file_write(path, tg_buf_view(&text), 0600, true, err);
}

/* The token is in its file before its hash is in the database: a kill in between only makes
 * another. */
static enum tg_rc make_admin_token(struct tg_call *c, const char *action, const char *path,
                                   const char **token, struct tg_err *err)
{
    struct tg_token_row row = {.name = "administrator",
                               .role = TG_ACCESS_ADMIN,
                               .one_time = true,
                               .created_at = c->now,
                               .expires_at = c->now + ADMIN_TOKEN_LIFE};

    TG_TRY(tg_call_id(c, &row.id, err));
    TG_TRY(tg_call_token(c, "tga_", token, row.hash, err));
    TG_TRY(save_token(path, *token, err));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(tg_token_end_one_time(c->db, c->now, err));
    TG_TRY(tg_token_add(c->db, &row, err));
    TG_TRY(tg_call_text(c, &c->target, err, "token:%s", row.id));
    const struct tg_audit_entry entry = {
        .action = action, .target = c->target, .detail = "one-time administrator token"};
    TG_TRY(tg_audit(c, &entry, err));
    return tg_db_commit(c->db, err);
}

struct first_start {
    const char *admin_token_file, *ca, *vault_key, *platform_key;
    uint8_t vault_key_id[TG_KEM_ID_LEN], platform_key_id[TG_SIGN_ID_LEN];
    bool own_key_file;
};

#define T struct first_start
static const struct tg_jfield first_start_fields[] = {
    TG_J_STR(T, admin_token_file, 1, 4096, TG_J_REQ),
    TG_J_STR(T, ca, 1, 4096, TG_J_REQ),
    TG_J_STR(T, vault_key, 1, 4096, TG_J_REQ),
    TG_J_STR(T, platform_key, 1, 4096, TG_J_REQ),
    TG_J_HEX(T, vault_key_id, TG_J_REQ),
    TG_J_HEX(T, platform_key_id, TG_J_REQ),
    TG_J_BOOL(T, own_key_file, TG_J_REQ),
};
static const struct tg_jschema first_start_schema =
    TG_J_SCHEMA(T, first_start_fields, TG_J_IGNORE_UNKNOWN);
#undef T

static enum tg_rc print_json(const struct tg_platform *p, const char *path, struct tg_err *err)
{
    const char *dir = p->config->data_dir;
    TG_AUTO(tg_freep) char *ca = tg_path_join(dir, "ca.pem");
    TG_AUTO(tg_freep) char *vault = tg_path_join(dir, "vault.pub");
    TG_AUTO(tg_freep) char *platform = tg_path_join(dir, "platform.pub");
    TG_AUTO(bufp) struct tg_buf out = TG_BUF_INIT(65536);

    if (ca == NULL || vault == NULL || platform == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    struct first_start s = {path, ca, vault, platform, {0}, {0}, p->keys->own_key_file};
    memcpy(s.vault_key_id, tg_kem_pk_id(tg_kem_sk_pk(p->keys->vault)), TG_KEM_ID_LEN);
    memcpy(s.platform_key_id, tg_sign_pk_id(tg_sign_sk_pk(p->keys->platform)), TG_SIGN_ID_LEN);
    TG_TRY(tg_json_encode(&first_start_schema, &s, &out, err));
    puts(tg_buf_cstr(&out));
    return TG_OK;
}

static void print_text(const struct tg_platform *p, const char *path, const char *token)
{
    const char *dir = p->config->data_dir;
    char vault[2 * TG_KEM_ID_LEN + 1], platform[2 * TG_SIGN_ID_LEN + 1];

    printf("One-time administrator token: %s\n", isatty(STDOUT_FILENO) == 1 ? token : path);
    printf("  exchange it:  tensorguard login --server URL --ca %s/ca.pem --token-file %s\n", dir,
           path);
    tg_hex_encode(tg_bytes_make(tg_kem_pk_id(tg_kem_sk_pk(p->keys->vault)), TG_KEM_ID_LEN), vault);
    tg_hex_encode(tg_bytes_make(tg_sign_pk_id(tg_sign_sk_pk(p->keys->platform)), TG_SIGN_ID_LEN),
                  platform);
    printf("Key ids, to compare with what login shows: vault %s, platform %s\n", vault, platform);
    if (p->keys->own_key_file)
        printf("Keys are sealed under %s/vault.key. That protects them in copies of the folder "
               "without this file;\nit does not protect them from who can read the whole "
               "folder. Use --passphrase-file or --key-file for that.\n",
               dir);
}

static enum tg_rc admin_token(struct tg_platform *p, struct tg_db *db, struct tg_err *err)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    TG_AUTO(tg_freep) char *path = tg_path_join(p->config->data_dir, "admin.token");
    const char *token = NULL;
    int64_t tokens = 0;

    TG_TRY(tg_token_count(db, &tokens, err));
    if (tokens != 0 && !p->config->new_admin_token)
        return TG_OK;
    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tg_arena_new(1 << 20, &arena));
    struct tg_call c = {
        .p = p,
        .db = db,
        .arena = arena,
        .now = tg_clock_now(),
        .who = {.kind = TG_WHO_PLATFORM, .name = "platform"}
    };
    enum tg_rc rc =
        make_admin_token(&c, tokens == 0 ? "platform.init" : "token.create", path, &token, err);
    tg_db_rollback(db);
    TG_TRY(rc);
    if (p->config->json)
        rc = print_json(p, path, err);
    else
        print_text(p, path, token);
    (void)fflush(stdout);
    return rc;
}

static enum tg_rc open_platform(struct tg_platform *p, struct tg_err *err)
{
    const struct tg_platform_config *cfg = p->config;
    const struct tg_keys_opts keys = {cfg->data_dir, cfg->key_file, cfg->passphrase_file,
                                      tg_clock_now()};
    TG_AUTO(tg_freep) char *db_path = tg_path_join(cfg->data_dir, "platform.db");
    TG_AUTO(tg_db_closep) struct tg_db *db = NULL;

    if (db_path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(make_locks(p, err));
    TG_TRY(make_dirs(p, err));
    TG_TRY(tg_keys_open(&keys, &p->keys, err));
    TG_TRY(tg_store_open(db_path, &p->store, err));
    TG_TRY(tg_store_connect(p->store, &db, err));
    TG_TRY(tg_rate_new(&p->rate));
    TG_TRY(tg_beats_new(&p->beats));
    p->openapi = TG_BUF_INIT(1 << 20);
    TG_TRY(tg_openapi_make(&p->openapi, err));
    TG_TRY(tg_blobs_sweep(p, db, err));
    return admin_token(p, db, err);
}

static void close_platform(struct tg_platform *p)
{
    tg_beats_free(p->beats);
    tg_rate_free(p->rate);
    tg_store_close(p->store);
    tg_keys_close(p->keys);
    tg_buf_done(&p->openapi);
    tg_free(p->blobs_dir);
    tg_free(p->uploads_dir);
    tg_free(p->api_url);
    tg_free(p->device_url);
    tg_free(p);
}

static enum tg_rc run(const struct tg_platform_config *cfg, struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int lock = -1;
    enum tg_log_level level = TG_LOG_INFO;

    if (cfg->key_file != NULL && cfg->passphrase_file != NULL)
        return TG_FAIL(err, TG_E_USAGE, "give --key-file or --passphrase-file, not both");
    if (cfg->threads == 0 || cfg->threads > 16 || cfg->poll_s == 0 || cfg->poll_s > 86400 ||
        cfg->rate_limit > 1000000 || cfg->grant_life_s == 0 || cfg->grant_life_s > TG_GRANT_LIFE)
        return TG_FAIL(err, TG_E_USAGE,
                       "--threads is 1 to 16, --poll 1 to 86400, --rate-limit at most 1000000, "
                       "--grant-life 1 to %" PRId64,
                       TG_GRANT_LIFE);
    if (cfg->log_level != NULL && tg_log_level_parse(cfg->log_level, &level) != TG_OK)
        return TG_FAIL(err, TG_E_USAGE, "--log-level %s: error, warn, info or debug",
                       cfg->log_level);
    tg_log_level_set(level);
    (void)umask(0077);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is an error code, not a death */
    TG_TRY(tg_dir_make(cfg->data_dir, 0700, err));
    TG_TRY(lock_dir(cfg->data_dir, &lock, err));
    struct tg_platform *p = tg_calloc(1, sizeof(*p));
    if (p == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    p->config = cfg;
    enum tg_rc rc = open_platform(p, err);
    if (rc == TG_OK)
        rc = tg_platform_serve(p, err);
    close_platform(p);
    return rc;
}

int main(int argc, char **argv)
{
    struct tg_platform_config cfg = {0};
    struct tg_opt_list args = {NULL, 0};
    struct tg_err err = TG_ERR_INIT;
    bool help = false;

    cfg.listen = LISTEN;
    cfg.device_listen = DEVICE_LISTEN;
    cfg.poll_s = 60;
    cfg.grant_life_s = TG_GRANT_LIFE;
    cfg.rate_limit = 200;
    cfg.threads = 3;
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        puts("tensorguard-platform " TG_VERSION);
        return 0;
    }
    enum tg_rc rc = tg_opt_parse(&command, argc - 1, argv + 1, &cfg, &args, &help, &err);
    if (rc == TG_OK && help)
        tg_opt_help("tensorguard-platform", &command);
    else if (rc == TG_OK)
        rc = run(&cfg, &err);
    tg_opt_done(&command, &cfg, &args);
    if (rc != TG_OK) {
        err.rc = rc;
        tg_complain("tensorguard-platform", "", cfg.json || tg_opt_given(argc, argv, "json"), &err);
    }
    return tg_rc_exit(rc);
}
