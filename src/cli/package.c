#include "cli/package.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "codec/text.h"
#include "crypto/keyfile.h"

enum tg_rc cli_package_open(const char *path, struct cli_package *p, struct tg_err *err)
{
    p->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (p->fd < 0)
        return TG_FAIL_ERRNO(err, errno == ENOENT ? TG_E_NOTFOUND : TG_E_IO, "%s", path);
    TG_TRY(tg_src_fd(&p->src, p->fd, path, err));
    return tg_tgsp_open(&p->src, &p->tgsp, err);
}

void cli_package_done(struct cli_package *p)
{
    tg_tgsp_free(p->tgsp);
    tg_fd_closep(&p->fd);
    *p = CLI_PACKAGE_INIT;
}

/* ---- trust ---- */

enum tg_rc cli_trust_load(const char *path, struct tg_trust **out, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TRUST_MAX);

    TG_TRY(tg_file_read(path, &text, err));
    return tg_trust_load(tg_buf_view(&text), path, out, err);
}

enum tg_rc cli_trust_add_pub(struct tg_trust *t, const char *path, unsigned roles,
                             struct tg_err *err)
{
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;

    TG_TRY(tg_sign_pk_load_file(path, &pk, err));
    struct tg_trust_key key = {.pk = pk, .roles = roles};
    enum tg_rc rc = tg_trust_add(t, &key, err);
    if (rc != TG_OK)
        tg_err_wrap(err, "%s", path);
    /* Given twice on one command line: a slip of whoever typed it, not of a file. */
    return rc == TG_E_EXISTS ? TG_E_USAGE : rc;
}

static enum tg_rc trust_of_keys(const struct cli_trust_opts *o, struct tg_trust **out,
                                struct tg_err *err)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
    uint64_t threshold = 1;

    if (o->threshold != NULL)
        TG_TRY(cli_number_parse("--threshold", o->threshold, TG_TGSP_SIGNERS_MAX, &threshold, err));
    if (threshold < 1 || threshold > o->trust.n)
        return TG_FAIL(err, TG_E_USAGE, "--threshold %" PRIu64 " can't be met by %zu --trust key%s",
                       threshold, o->trust.n, o->trust.n == 1 ? "" : "s");
    if (tg_trust_new(&t) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    for (size_t i = 0; i < o->trust.n; i++)
        TG_TRY(cli_trust_add_pub(t, o->trust.v[i], TG_ROLE_AUTHOR | TG_ROLE_GRANTER, err));
    TG_TRY(tg_trust_threshold_set(t, NULL, threshold, err));
    *out = tg_steal(&t);
    return TG_OK;
}

enum tg_rc cli_trust_from_opts(const struct cli_trust_opts *o, struct tg_trust **out,
                               struct tg_err *err)
{
    if (o->trust.n == 0 && o->store == NULL)
        return TG_FAIL(err, TG_E_USAGE,
                       "whose signature should count? Give --trust PUB (the author's signing.pub) "
                       "or --trust-store FILE; a package can't vouch for itself");
    if (o->store == NULL)
        return trust_of_keys(o, out, err);
    if (o->trust.n > 0 || o->threshold != NULL)
        return TG_FAIL(err, TG_E_USAGE,
                       "--trust-store says it all; --trust and --threshold can't be added to it");
    return cli_trust_load(o->store, out, err);
}

enum tg_rc cli_package_verify(struct cli_package *p, const struct tg_trust *trust,
                              struct tg_err *err)
{
    struct tg_tgsp_policy policy = {.check_time = true, .now = tg_clock_now(), .trust = trust};

    TG_TRY(tg_tgsp_verify(p->tgsp, trust, err));
    return tg_tgsp_admit(p->tgsp, &policy, err);
}

/* ---- showing ---- */

void cli_package_show(struct cli_out *o, const struct tg_tgsp *p)
{
    const struct tg_tgsp_header *h = tg_tgsp_header_get(p);
    const struct tg_tgsp_manifest *m = tg_tgsp_manifest_get(p);
    const struct tg_tgsp_recipients *r = tg_tgsp_recipients_get(p);
    const struct tg_tgsp_constraints *c = &m->constraints;

    cli_out_hex(o, "package", "package (H)", tg_bytes_make(tg_tgsp_h(p), TG_TGSP_H_LEN));
    cli_out_hex(o, "package_id", "package id", TG_BYTES_OF(h->package_id));
    cli_out_str(o, "model", "model", m->model.name);
    cli_out_str(o, "version", "version", m->model.version);
    cli_out_u64(o, "sequence", "sequence", m->model.sequence);
    cli_out_u64(o, "floor", "floor", m->model.floor);
    cli_out_str(o, "format", "format", tg_tgsp_model_formats[m->model.format]);
    cli_out_time(o, "created_at", "created", h->created_at);
    cli_out_time(o, "not_before", "not before", m->validity.not_before);
    cli_out_time(o, "not_after", "not after", m->validity.not_after);
    cli_out_strs(o, "fleets", "only for fleets", c->fleets.items, c->fleets.n);
    cli_out_str(o, "min_agent", "agent at least", c->min_agent);
    cli_out_str(o, "aead", "encrypted with", h->aead_name);
    cli_out_u64(o, "recipients", "recipients", r->recipients.n);
    cli_out_u64(o, "files", "files", m->files.n);
    cli_out_size(o, "payload_size", "payload", h->payload_plain_len);
    cli_out_size(o, "chunk_size", "chunk size", h->chunk_size);
}

enum tg_rc cli_package_select(const struct cli_package *p, const struct tg_opt_list *patterns,
                              struct tg_tgsp_select **out, struct tg_err *err)
{
    if (patterns->n == 0)
        return TG_OK;
    enum tg_rc rc = tg_tgsp_select_new(p->tgsp, patterns->v, patterns->n, out, err);
    if (rc == TG_E_NOTFOUND)
        tg_err_wrap(err, "--files (`tensorguard inspect` lists what is in it)");
    return rc;
}

void cli_package_show_select(struct cli_out *o, const struct tg_tgsp *p,
                             const struct tg_tgsp_select *s)
{
    const struct tg_jlist *files = &tg_tgsp_manifest_get(p)->files;

    if (s == NULL)
        return;
    cli_out_bool(o, "partial", "only these files", true);
    cli_out_table(o, "checked_files", NULL);
    for (size_t i = 0; i < files->n; i++) {
        const struct tg_tgsp_file *f = (const struct tg_tgsp_file *)files->items + i;
        if (!tg_tgsp_select_has(s, i))
            continue;
        cli_out_row(o);
        cli_out_str(o, "path", "File", f->path);
        cli_out_size(o, "size", "Size", f->size);
    }
    cli_out_table_end(o, "");
    cli_out_u64(o, "checked_chunks", "chunks read", tg_tgsp_select_chunks(s));
}

void cli_package_show_signers(struct cli_out *o, const struct tg_tgsp *p)
{
    const uint8_t *ids[TG_TGSP_SIGNERS_MAX];
    char hex[TG_TGSP_SIGNERS_MAX][2 * TG_SIGN_ID_LEN + 1];
    const char *text[TG_TGSP_SIGNERS_MAX];
    size_t n = tg_tgsp_signers(p, ids);

    for (size_t i = 0; i < n; i++) {
        tg_hex_encode(tg_bytes_make(ids[i], TG_SIGN_ID_LEN), hex[i]);
        text[i] = hex[i];
    }
    cli_out_strs(o, "signed_by", "signed by", text, n);
}

/* ---- values people write ---- */

enum tg_rc cli_number_parse(const char *what, const char *text, uint64_t max, uint64_t *out,
                            struct tg_err *err)
{
    if (tg_parse_u64(text, max, out) != TG_OK)
        return TG_FAIL(err, TG_E_USAGE, "%s: '%s' is not a whole number up to %" PRIu64, what, text,
                       max);
    return TG_OK;
}

static bool span(const char *text, int64_t *seconds)
{
    static const struct {
        char unit;
        int64_t s;
    } units[] = {
        {'s', 1    },
        {'m', 60   },
        {'h', 3600 },
        {'d', 86400}
    };

    size_t n = strlen(text);
    char digits[8] = {0};
    uint64_t v = 0;

    if (n < 2 || n > sizeof(digits))
        return false;
    memcpy(digits, text, n - 1);
    if (tg_parse_u64(digits, 9999999, &v) != TG_OK)
        return false;
    for (size_t i = 0; i < TG_ARRAY_LEN(units); i++)
        if (units[i].unit == text[n - 1]) {
            *seconds = (int64_t)v * units[i].s;
            return true;
        }
    return false;
}

enum tg_rc cli_time_parse(const char *what, const char *text, int64_t now, int64_t *out,
                          struct tg_err *err)
{
    int64_t add = 0;

    if (text[0] == '+' && span(text + 1, &add)) {
        *out = now + add;
        return TG_OK;
    }
    if (tg_time_parse(text, strlen(text), out) == TG_OK)
        return TG_OK;
    TG_AUTO(tg_freep) char *midnight = tg_asprintf("%sT00:00:00Z", text);
    if (midnight != NULL && strlen(text) == 10 &&
        tg_time_parse(midnight, strlen(midnight), out) == TG_OK)
        return TG_OK;
    return TG_FAIL(err, TG_E_USAGE,
                   "%s: '%s' is no time; write 2026-12-31T23:59:59Z, 2026-12-31, or +90d", what,
                   text);
}
