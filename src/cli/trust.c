/* tensorguard trust: the operator's trust stores (docs/spec/tgsp-1.0.md §6). */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/keys.h"
#include "cli/package.h"
#include "cli/signals.h"
#include "codec/text.h"

struct trust {
    bool json;
    bool force;
    struct tg_opt_list author, granter, platform; /* PUB files by role */
    struct tg_opt_list model;                     /* names that the authors given may sign */
    struct tg_opt_list threshold;                 /* N or NAME=N */
    struct tg_opt_list reset;                     /* model names */
    struct tg_opt_list signing_key;
    const char *label, *change_threshold, *out, *passphrase_file;
};

#define TLIST_(field_, name_, arg_, help_)                                                         \
    {                                                                                              \
        name_, TG_OPT_LIST, offsetof(struct trust, field_), false, arg_, help_                     \
    }
#define TSTR_(field_, name_, arg_, help_)                                                          \
    {                                                                                              \
        name_, TG_OPT_STR, offsetof(struct trust, field_), false, arg_, help_                      \
    }

/* clang-format off */
#define KEYS_                                                                                      \
    TLIST_(author, "author", "PUB", "a signing.pub whose packages, and whose changes of this store, count"), \
    TLIST_(granter, "granter", "PUB", "a signing.pub whose grants count (usually the author's, too)"), \
    TLIST_(platform, "platform", "PUB", "a platform.pub whose deployments count"),                 \
    TLIST_(model, "model", "NAME", "the authors given now may sign these models only; they can't change the store"), \
    TSTR_(label, "label", "TEXT", "for people: whose keys these are")
#define LIMITS_                                                                                    \
    TLIST_(threshold, "threshold", "N|NAME=N", "distinct authors needed per package, or for one model"), \
    TSTR_(change_threshold, "change-threshold", "N", "distinct authors needed to change this store (default 1)")
#define CHANGE_                                                                                    \
    TLIST_(signing_key, "signing-key", "KEY", "an author of the store as it is now, who signs the change"), \
    CLI_OPT_PASSPHRASE(struct trust),                                                              \
    TSTR_(out, "out", "FILE", "write there instead of replacing the file")

static const struct tg_opt INIT_OPTS[] = {
    CLI_OPT_JSON, KEYS_, LIMITS_,
    {"force", TG_OPT_FLAG, offsetof(struct trust, force), false, NULL, "replace an existing file"},
    CLI_OPT_END};
static const struct tg_opt ADD_OPTS[] = {CLI_OPT_JSON, KEYS_, LIMITS_, CHANGE_, TLIST_(reset, "reset", "NAME", "devices that take this store forget this model's rollback record"), CLI_OPT_END};
static const struct tg_opt REMOVE_OPTS[] = {CLI_OPT_JSON, CHANGE_, CLI_OPT_END};
static const struct tg_opt SIGN_OPTS[] = {CLI_OPT_JSON, CHANGE_, CLI_OPT_END};
static const struct tg_opt SHOW_OPTS[] = {CLI_OPT_JSON, CLI_OPT_END};

/* clang-format on */

/* ---- changing a store in memory ---- */

struct new_key {
    struct tg_sign_pk *pk;
    unsigned roles;
};

static void new_keys_free(struct new_key *keys, size_t n)
{
    for (size_t i = 0; i < n; i++)
        tg_sign_pk_free(keys[i].pk);
    tg_free(keys);
}

/* The same key under several roles is one entry. */
static enum tg_rc collect(const struct tg_opt_list *files, unsigned role, struct new_key *keys,
                          size_t *n, struct tg_err *err)
{
    for (size_t i = 0; i < files->n; i++) {
        TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;
        size_t at = 0;
        TG_TRY(tg_sign_pk_load_file(files->v[i], &pk, err));
        while (at < *n && !tg_mem_eq(tg_sign_pk_id(keys[at].pk), tg_sign_pk_id(pk), TG_SIGN_ID_LEN))
            at++;
        if (at == *n)
            keys[(*n)++].pk = tg_steal(&pk);
        keys[at].roles |= role;
    }
    return TG_OK;
}

static enum tg_rc add_collected(struct tg_trust *t, const struct trust *o,
                                const struct new_key *keys, size_t n, struct tg_err *err)
{
    for (size_t i = 0; i < n; i++) {
        bool author = (keys[i].roles & TG_ROLE_AUTHOR) != 0;
        struct tg_trust_key key = {.pk = keys[i].pk,
                                   .label = o->label,
                                   .roles = keys[i].roles,
                                   .models = author ? (const char *const *)o->model.v : NULL,
                                   .n_models = author ? o->model.n : 0};
        TG_TRY(tg_trust_add(t, &key, err));
    }
    return TG_OK;
}

static enum tg_rc add_keys(struct tg_trust *t, const struct trust *o, struct tg_err *err)
{
    size_t n = 0;
    struct new_key *keys = tg_calloc(o->author.n + o->granter.n + o->platform.n + 1, sizeof(*keys));

    if (keys == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    enum tg_rc rc = collect(&o->author, TG_ROLE_AUTHOR, keys, &n, err);
    if (rc == TG_OK)
        rc = collect(&o->granter, TG_ROLE_GRANTER, keys, &n, err);
    if (rc == TG_OK)
        rc = collect(&o->platform, TG_ROLE_PLATFORM, keys, &n, err);
    if (rc == TG_OK)
        rc = add_collected(t, o, keys, n, err);
    new_keys_free(keys, n);
    return rc;
}

static enum tg_rc set_limits(struct tg_trust *t, const struct trust *o, struct tg_err *err)
{
    uint64_t n = 0;

    for (size_t i = 0; i < o->threshold.n; i++) {
        const char *eq = strrchr(o->threshold.v[i], '=');
        TG_AUTO(tg_freep) char *name = eq == NULL ? NULL : tg_strdup(o->threshold.v[i]);
        if (eq != NULL && name == NULL)
            return TG_FAIL(err, TG_E_NOMEM, "out of memory");
        if (eq != NULL)
            name[eq - o->threshold.v[i]] = 0;
        TG_TRY(cli_number_parse("--threshold", eq != NULL ? eq + 1 : o->threshold.v[i],
                                TG_TGSP_SIGNERS_MAX, &n, err));
        TG_TRY(tg_trust_threshold_set(t, name, n, err));
    }
    if (o->change_threshold != NULL) {
        TG_TRY(cli_number_parse("--change-threshold", o->change_threshold, TG_TGSP_SIGNERS_MAX, &n,
                                err));
        TG_TRY(tg_trust_change_threshold_set(t, n, err));
    }
    for (size_t i = 0; i < o->reset.n; i++)
        TG_TRY(tg_trust_reset_model(t, o->reset.v[i], err));
    return TG_OK;
}

/* ---- files ---- */

struct signers {
    struct tg_sign_sk *v[TG_TGSP_SIGNERS_MAX];
    size_t n;
};

static void signers_done(struct signers *s)
{
    for (size_t i = 0; i < s->n; i++)
        tg_sign_sk_free(s->v[i]);
}

static enum tg_rc load_signers(const struct trust *o, struct signers *s, struct tg_err *err)
{
    if (o->signing_key.n == 0)
        return TG_FAIL(err, TG_E_USAGE,
                       "--signing-key is required: devices take a changed store only if authors of "
                       "the one before signed it");
    if (o->signing_key.n > TG_TGSP_SIGNERS_MAX)
        return TG_FAIL(err, TG_E_USAGE, "--signing-key: at most %d", TG_TGSP_SIGNERS_MAX);
    for (; s->n < o->signing_key.n; s->n++)
        TG_TRY(
            cli_sign_sk_load(o->signing_key.v[s->n], o->passphrase_file, &s->v[s->n], NULL, err));
    return TG_OK;
}

static enum tg_rc load_text(const char *path, struct tg_buf *text, struct tg_trust **t,
                            struct tg_err *err)
{
    TG_TRY(tg_file_read(path, text, err));
    return tg_trust_load(tg_buf_view(text), path, t, err);
}

/* A store can be made in steps, so this is no error. */
static void warn_unmet(const struct tg_trust *t)
{
    uint64_t authors = 0, unlimited = 0;

    for (size_t i = 0; i < tg_trust_count(t); i++) {
        struct tg_trust_key k = tg_trust_at(t, i);
        if ((k.roles & TG_ROLE_AUTHOR) == 0)
            continue;
        authors++;
        unlimited += k.n_models == 0;
    }
    if (tg_trust_threshold(t, NULL) > authors)
        (void)fprintf(stderr,
                      "tensorguard trust: packages need %" PRIu64 " authors' signatures, and the "
                      "store knows %" PRIu64 " authors: none will run until more are added\n",
                      tg_trust_threshold(t, NULL), authors);
    if (tg_trust_change_threshold(t) > unlimited)
        (void)fprintf(stderr,
                      "tensorguard trust: to change this store takes %" PRIu64 " authors who are "
                      "not limited to models, and it knows %" PRIu64 ": nobody can change it\n",
                      tg_trust_change_threshold(t), unlimited);
}

/* Save t as the store after `cur`, signed; says on stderr when devices will want more signatures.
 */
static enum tg_rc text_after(const struct trust *o, const char *out, const struct tg_trust *t,
                             const struct tg_trust *cur, struct tg_buf *text, struct tg_err *err)
{
    TG_AUTO(signers_done) struct signers s = {.n = 0};
    TG_AUTO(tg_trust_freep) struct tg_trust *next = NULL;

    TG_TRY(load_signers(o, &s, err));
    cli_signals_catch();
    TG_TRY(tg_trust_save(t, tg_trust_version(cur) + 1, tg_clock_now(),
                         (const struct tg_sign_sk *const *)s.v, s.n, text, err));
    TG_TRY(tg_trust_load(tg_buf_view(text), out, &next, err));
    enum tg_rc rc = tg_trust_succeeds(cur, next, err);
    if (rc == TG_E_DENIED && tg_trust_change_threshold(cur) > s.n)
        (void)fprintf(stderr,
                      "tensorguard trust: devices won't take it yet: %s; see `tensorguard "
                      "trust sign`\n",
                      err->msg);
    else if (rc != TG_OK)
        return rc;
    warn_unmet(t);
    return TG_OK;
}

/* ---- showing ---- */

static void show_roles(struct cli_out *o, unsigned roles)
{
    const char *v[3];
    size_t n = 0;

    if (roles & TG_ROLE_AUTHOR)
        v[n++] = "author";
    if (roles & TG_ROLE_GRANTER)
        v[n++] = "granter";
    if (roles & TG_ROLE_PLATFORM)
        v[n++] = "platform";
    cli_out_strs(o, "roles", "ROLES", v, n);
}

static void show_limits(struct cli_out *o, const struct tg_trust *t)
{
    cli_out_table(o, "limits", "By model");
    for (size_t i = 0; i < tg_trust_limit_count(t); i++) {
        struct tg_trust_limit l = tg_trust_limit_at(t, i);
        cli_out_row(o);
        cli_out_str(o, "model", "MODEL", l.model);
        cli_out_u64(o, "threshold", "SIGNATURES NEEDED", tg_trust_threshold(t, l.model));
        cli_out_u64(o, "resets", "RESETS", l.resets);
    }
    cli_out_table_end(o, "");
}

static void show(struct cli_out *o, const char *path, const struct tg_trust *t)
{
    cli_out_str(o, "file", "trust store", path);
    cli_out_u64(o, "version", "version", tg_trust_version(t));
    cli_out_time(o, "issued_at", "issued", tg_trust_issued_at(t));
    cli_out_u64(o, "threshold", "signatures needed", tg_trust_threshold(t, NULL));
    cli_out_u64(o, "change_threshold", "to change it", tg_trust_change_threshold(t));
    cli_out_table(o, "keys", "");
    for (size_t i = 0; i < tg_trust_count(t); i++) {
        struct tg_trust_key k = tg_trust_at(t, i);
        cli_out_row(o);
        cli_out_hex(o, "key_id", "KEY ID", tg_bytes_make(tg_sign_pk_id(k.pk), TG_SIGN_ID_LEN));
        show_roles(o, k.roles);
        cli_out_strs(o, "models", "MODELS", k.models, k.n_models);
        cli_out_str(o, "label", "LABEL", k.label);
    }
    cli_out_table_end(o, "(no keys)");
    if (o->json || tg_trust_limit_count(t) > 0)
        show_limits(o, t);
}

/* The answer is put together first: once the store is complete nothing may fail any more. */
static enum tg_rc write_and_show(struct cli *c, const char *path, struct tg_bytes text,
                                 bool replace, struct tg_err *err)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;

    TG_TRY(tg_trust_load(text, path, &t, err));
    show(&c->out, path, t);
    return tg_file_write(path, text, 0644, replace, err);
}

/* ---- verbs ---- */

static enum tg_rc run_show(struct cli *c, void *opts, const struct tg_opt_list *args,
                           struct tg_err *err)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;

    (void)opts;
    TG_TRY(cli_trust_load(args->v[0], &t, err));
    show(&c->out, args->v[0], t);
    return TG_OK;
}

static enum tg_rc run_init(struct cli *c, void *opts, const struct tg_opt_list *args,
                           struct tg_err *err)
{
    const struct trust *o = opts;
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TRUST_MAX);

    if (o->author.n == 0)
        return TG_FAIL(err, TG_E_USAGE,
                       "--author PUB is required: a store that believes no author "
                       "lets no package run");
    if (tg_trust_new(&t) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(add_keys(t, o, err));
    TG_TRY(set_limits(t, o, err));
    warn_unmet(t);
    cli_signals_catch();
    TG_TRY(tg_trust_save(t, 1, tg_clock_now(), NULL, 0, &text, err));
    return write_and_show(c, args->v[0], tg_buf_view(&text), o->force, err);
}

static enum tg_rc run_add(struct cli *c, void *opts, const struct tg_opt_list *args,
                          struct tg_err *err)
{
    const struct trust *o = opts;
    const char *out = o->out != NULL ? o->out : args->v[0];
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TRUST_MAX);
    TG_AUTO(tg_buf_done) struct tg_buf next = TG_BUF_INIT(TG_TRUST_MAX);
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
    TG_AUTO(tg_trust_freep) struct tg_trust *cur = NULL;

    if (o->author.n + o->granter.n + o->platform.n + o->threshold.n + o->reset.n == 0 &&
        o->change_threshold == NULL)
        return TG_FAIL(err, TG_E_USAGE, "nothing to add (see --help)");
    TG_TRY(load_text(args->v[0], &text, &cur, err));
    TG_TRY(tg_trust_load(tg_buf_view(&text), args->v[0], &t, err));
    TG_TRY(add_keys(t, o, err));
    TG_TRY(set_limits(t, o, err));
    TG_TRY(text_after(o, out, t, cur, &next, err));
    return write_and_show(c, out, tg_buf_view(&next), true, err);
}

/* A key to remove: its id in hex, or its .pub file. */
static enum tg_rc key_id_of(const char *what, uint8_t id[TG_SIGN_ID_LEN], struct tg_err *err)
{
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;

    if (strlen(what) == 2 * TG_SIGN_ID_LEN &&
        tg_hex_decode(tg_bytes_str(what), id, TG_SIGN_ID_LEN) == TG_OK)
        return TG_OK;
    TG_TRY(tg_sign_pk_load_file(what, &pk, err));
    memcpy(id, tg_sign_pk_id(pk), TG_SIGN_ID_LEN);
    return TG_OK;
}

static enum tg_rc run_remove(struct cli *c, void *opts, const struct tg_opt_list *args,
                             struct tg_err *err)
{
    const struct trust *o = opts;
    const char *out = o->out != NULL ? o->out : args->v[0];
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TRUST_MAX);
    TG_AUTO(tg_buf_done) struct tg_buf next = TG_BUF_INIT(TG_TRUST_MAX);
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
    TG_AUTO(tg_trust_freep) struct tg_trust *cur = NULL;
    uint8_t id[TG_SIGN_ID_LEN];

    TG_TRY(load_text(args->v[0], &text, &cur, err));
    TG_TRY(tg_trust_load(tg_buf_view(&text), args->v[0], &t, err));
    for (size_t i = 1; i < args->n; i++) {
        TG_TRY(key_id_of(args->v[i], id, err));
        TG_TRY(tg_trust_remove(t, id, err));
    }
    TG_TRY(text_after(o, out, t, cur, &next, err));
    return write_and_show(c, out, tg_buf_view(&next), true, err);
}

static enum tg_rc run_sign(struct cli *c, void *opts, const struct tg_opt_list *args,
                           struct tg_err *err)
{
    const struct trust *o = opts;
    TG_AUTO(signers_done) struct signers s = {.n = 0};
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TRUST_MAX);
    const char *out = o->out != NULL ? o->out : args->v[0];

    TG_TRY(tg_file_read(args->v[0], &text, err));
    TG_TRY(load_signers(o, &s, err));
    cli_signals_catch();
    for (size_t i = 0; i < s.n; i++) {
        TG_AUTO(tg_buf_done) struct tg_buf signed_text = TG_BUF_INIT(TG_TRUST_MAX);
        TG_TRY(tg_trust_cosign(tg_buf_view(&text), args->v[0], s.v[i], &signed_text, err));
        tg_buf_clear(&text);
        if (tg_buf_bytes(&text, tg_buf_view(&signed_text)) != TG_OK)
            return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    }
    return write_and_show(c, out, tg_buf_view(&text), true, err);
}

const struct cli_verb cli_trust_init = {
    .cmd =
        {.name = "trust init",
              .args = "F.tgtrust",
              .summary = "make a trust store: whose signatures a device believes, for what",
              .details =
             "The first store carries no signature: you put it on the device yourself\n"
             "(`tensorguard-agent enroll --trust-store`). Later ones must be signed by authors of\n"
             "the one before.\n\n"
             "  tensorguard trust init fleet.tgtrust --author a.pub --author b.pub --granter "
             "a.pub\n"
             "      --threshold 2\n", .opts = INIT_OPTS,
              .args_min = 1,
              .args_max = 1},
    .opts_size = sizeof(struct trust),
    .run = run_init,
};

const struct cli_verb cli_trust_add = {
    .cmd = {.name = "trust add",
            .args = "F.tgtrust",
            .summary = "add keys to a trust store, or change its thresholds, as its next version",
            .details = "  tensorguard trust add fleet.tgtrust --author c.pub --label \"team C\"\n"
                       "      --signing-key a/signing.priv\n", .opts = ADD_OPTS,
            .args_min = 1,
            .args_max = 1},
    .opts_size = sizeof(struct trust),
    .run = run_add,
};

const struct cli_verb cli_trust_remove = {
    .cmd = {.name = "trust remove",
            .args = "F.tgtrust KEY-ID|PUB...",
            .summary = "remove keys from a trust store, as its next version",
            .details =
                "Packages of a removed author stop loading on devices that take the store.\n", .opts = REMOVE_OPTS,
            .args_min = 2,
            .args_max = 64},
    .opts_size = sizeof(struct trust),
    .run = run_remove,
};

const struct cli_verb cli_trust_sign = {
    .cmd = {.name = "trust sign",
            .args = "F.tgtrust",
            .summary = "add your signature to a changed trust store",
            .details = "For stores whose changes need more than one author (--change-threshold).\n",
            .opts = SIGN_OPTS,
            .args_min = 1,
            .args_max = 1},
    .opts_size = sizeof(struct trust),
    .run = run_sign,
};

const struct cli_verb cli_trust_show = {
    .cmd = {.name = "trust show",
            .args = "F.tgtrust",
            .summary = "show the keys and thresholds of a trust store",
            .opts = SHOW_OPTS,
            .args_min = 1,
            .args_max = 1},
    .opts_size = sizeof(struct trust),
    .run = run_show,
};
