#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/grant.h"
#include "cli/keys.h"
#include "cli/package.h"
#include "cli/pins.h"
#include "cli/show.h"
#include "cli/signals.h"
#include "cli/upload.h"
#include "codec/text.h"
#include "wire/fleet.h"

struct publish {
    bool json;
    bool pin_new, pinned_only;
    const char *config, *part_size, *retry_for;
    const char *grant_fleet, *pins, *key, *signing_key, *not_after;
    const char *passphrase_file, *key_passphrase_file;
};

#define STR_(field_, name_, arg_, help_)                                                           \
    {                                                                                              \
        name_, TG_OPT_STR, offsetof(struct publish, field_), false, arg_, help_                    \
    }
#define FLAG_(field_, name_, help_)                                                                \
    {                                                                                              \
        name_, TG_OPT_FLAG, offsetof(struct publish, field_), false, NULL, help_                   \
    }

/* clang-format off */
static const struct tg_opt OPTS[] = {
    CLI_OPT_JSON,
    CLI_OPT_CONFIG(struct publish),
    STR_(part_size, "part-size", "N", "bytes per part, 65536 to 8388608 (default: by the file's size)"),
    STR_(retry_for, "retry-for", "SPAN", "when the platform goes away in the middle, try so long without progress (default 2m; 0s: give up at once)"),
    STR_(grant_fleet, "grant-fleet", "FLEET", "also give every active device of this fleet access, by grants made here"),
    STR_(pins, "pins", "FILE", "your own list of devices' KEM keys (`device-id kem-key-id` per line); with --grant-fleet"),
    FLAG_(pinned_only, "pinned-only", "leave out devices that are not pinned"),
    FLAG_(pin_new, "pin-new", "add devices that are not pinned to --pins, on the platform's word"),
    STR_(signing_key, "signing-key", "KEY", "your signing.priv: who grants"),
    STR_(key, "key", "KEY", "your encryption.priv (default: the one beside --signing-key)"),
    STR_(not_after, "grants-not-after", "TIME", "the grants are valid until then (default: +365d)"),
    CLI_OPT_PASSPHRASE(struct publish),
    STR_(key_passphrase_file, "key-passphrase-file", "FILE", "passphrase of --key, if it is not that of --signing-key"),
    CLI_OPT_END,
};

/* clang-format on */

/* One device to be given access. */
struct target {
    const struct tg_wire_kem_key *key;
    struct tg_kem_pk *pk;
    bool pinned;
};

struct plan {
    const struct publish *o;
    struct tg_sign_sk *signer;
    struct tg_kem_sk *key;
    int64_t not_after;
    struct cli_pins pins;
    struct target *targets;
    size_t n;
    size_t left_out; /* not pinned, with --pinned-only */
};

static void plan_done(struct plan *p)
{
    for (size_t i = 0; i < p->n; i++)
        tg_kem_pk_free(p->targets[i].pk);
    tg_free(p->targets);
    cli_pins_done(&p->pins);
    tg_sign_sk_free(p->signer);
    tg_kem_sk_free(p->key);
}

/* ---- before anything is sent ---- */

static enum tg_rc load_pins(struct plan *p, struct tg_err *err)
{
    const struct publish *o = p->o;

    if (o->pins == NULL)
        return TG_FAIL(err, TG_E_USAGE,
                       "--grant-fleet needs --pins FILE: without your own list every key would be "
                       "taken on the platform's word (--pin-new starts one)");
    if (o->pin_new && o->pinned_only)
        return TG_FAIL(err, TG_E_USAGE, "--pin-new and --pinned-only exclude each other");
    if (o->pin_new && access(o->pins, F_OK) != 0)
        return TG_OK;
    return cli_pins_load(o->pins, &p->pins, err);
}

static enum tg_rc prepare(struct plan *p, struct tg_err *err)
{
    const struct publish *o = p->o;
    int64_t now = tg_clock_now();

    if (o->grant_fleet == NULL)
        return TG_OK;
    if (o->signing_key == NULL)
        return TG_FAIL(err, TG_E_USAGE, "--grant-fleet needs --signing-key: who grants?");
    p->not_after = now + (int64_t)CLI_GRANT_DAYS * 86400;
    if (o->not_after != NULL)
        TG_TRY(cli_time_parse("--grants-not-after", o->not_after, now, &p->not_after, err));
    TG_TRY(load_pins(p, err));
    TG_TRY(cli_sign_sk_load(o->signing_key, o->passphrase_file, &p->signer, NULL, err));
    TG_AUTO(tg_freep) char *dir = cli_dir_of(o->signing_key);
    TG_AUTO(tg_freep) char *own = dir == NULL ? NULL : tg_asprintf("%s/encryption.priv", dir);
    if (own == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    return cli_kem_sk_load(
        o->key != NULL ? o->key : own,
        o->key_passphrase_file != NULL ? o->key_passphrase_file : o->passphrase_file, &p->key, err);
}

/* ---- whose keys ---- */

/* The platform's word against the author's. */
static enum tg_rc check_device(struct plan *p, const struct tg_wire_kem_key *k, struct tg_err *err)
{
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *pk = NULL;
    const struct cli_pin *pin = cli_pins_find(&p->pins, k->device);

    if (tg_kem_pk_new(TG_BYTES_OF(k->kem_public_key), &pk) != TG_OK)
        return TG_FAIL(err, TG_E_FORMAT, "device %s: the platform serves no valid KEM key for it",
                       k->device);
    if (!tg_mem_eq(tg_kem_pk_id(pk), k->kem_key_id, TG_KEM_ID_LEN))
        return TG_FAIL(err, TG_E_AUTH,
                       "device %s: the platform serves a KEM key that is not the one of its id",
                       k->device);
    if (pin != NULL && !tg_mem_eq(pin->kem_key_id, tg_kem_pk_id(pk), TG_KEM_ID_LEN))
        return TG_FAIL(
            err, TG_E_AUTH,
            "device %s: the platform serves another KEM key than the one pinned in %s; no "
            "grant was made for any device. Was the device enrolled anew? Then ask its "
            "owner for the key's id and change the line",
            k->device, p->o->pins);
    if (pin == NULL && p->o->pinned_only) {
        p->left_out++;
        return TG_OK;
    }
    p->targets[p->n++] = (struct target){.key = k, .pk = tg_steal(&pk), .pinned = pin != NULL};
    return TG_OK;
}

static enum tg_rc find_devices(struct cli_api *api, struct plan *p, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *target = NULL;
    struct tg_jlist list = {0};

    TG_TRY(cli_api_path(TG_API_PREFIX "/fleets", p->o->grant_fleet, "/kem-keys", &target, err));
    TG_TRY(
        cli_api_list(api, target, &tg_wire_kem_keys, sizeof(struct tg_wire_kem_key), &list, err));
    p->targets = tg_calloc(list.n + 1, sizeof(*p->targets));
    if (p->targets == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    const struct tg_wire_kem_key *v = list.items;
    for (size_t i = 0; i < list.n; i++)
        TG_TRY(check_device(p, &v[i], err));
    return TG_OK;
}

static enum tg_rc remember_new(struct plan *p, struct tg_err *err)
{
    TG_AUTO(tg_freep) struct cli_pin *more = tg_calloc(p->n + 1, sizeof(*more));
    size_t n = 0;

    if (more == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    for (size_t i = 0; i < p->n; i++) {
        if (p->targets[i].pinned)
            continue;
        (void)snprintf(more[n].device, sizeof(more[n].device), "%s", p->targets[i].key->device);
        memcpy(more[n++].kem_key_id, tg_kem_pk_id(p->targets[i].pk), TG_KEM_ID_LEN);
    }
    return n > 0 ? cli_pins_add(p->o->pins, more, n, err) : TG_OK;
}

/* ---- grants ---- */

static enum tg_rc send_grant(struct cli_api *api, const struct plan *p, struct tg_tgsp *tgsp,
                             const struct target *t, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TGSP_DOC_MAX);
    TG_AUTO(tg_freep) char *target = NULL;
    int64_t now = tg_clock_now();
    struct tg_grant_spec spec = {.recipient = t->pk,
                                 .signer = p->signer,
                                 .issued_at = now,
                                 .not_before = now - CLI_GRANT_EARLY_S,
                                 .not_after = p->not_after};
    char h[2 * TG_TGSP_H_LEN + 1];
    char id[2 * TG_KEM_ID_LEN + 1];

    TG_TRY(tg_grant_make(tgsp, &spec, &text, err));
    tg_hex_encode(tg_bytes_make(tg_tgsp_h(tgsp), TG_TGSP_H_LEN), h);
    tg_hex_encode(tg_bytes_make(tg_kem_pk_id(t->pk), TG_KEM_ID_LEN), id);
    target = tg_asprintf(TG_API_PREFIX "/packages/%s/grants/%s", h, id);
    if (target == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    struct cli_call call = {.method = TG_HTTP_PUT,
                            .target = target,
                            .raw = tg_buf_view(&text),
                            .raw_type = TG_WIRE_TYPE_JSON};
    enum tg_rc rc = cli_api_call(api, &call, err);
    if (rc != TG_OK)
        tg_err_wrap(err, "grant for device %s", t->key->device);
    return rc;
}

static enum tg_rc grant_all(struct cli_api *api, struct plan *p, struct cli_package *package,
                            struct tg_err *err)
{
    TG_AUTO(cli_progress_freep)
    struct tg_progress *bar = tg_progress_new_count("granting", p->n);

    for (size_t i = 0; i < p->n; i++) {
        TG_TRY(send_grant(api, p, package->tgsp, &p->targets[i], err));
        tg_progress_add(bar, 1);
    }
    return p->o->pin_new ? remember_new(p, err) : TG_OK;
}

/* ---- the answer ---- */

static void show_grants(struct cli_out *o, const struct plan *p)
{
    size_t on_word = 0;

    cli_out_table(o, "grants", "Grants");
    for (size_t i = 0; i < p->n; i++) {
        const struct target *t = &p->targets[i];
        on_word += !t->pinned;
        cli_out_row(o);
        cli_out_str(o, "device", "DEVICE", t->key->device);
        cli_out_str(o, "name", "NAME", t->key->name);
        cli_out_hex(o, "kem_key_id", "KEM KEY ID",
                    tg_bytes_make(tg_kem_pk_id(t->pk), TG_KEM_ID_LEN));
        cli_out_str(o, "key_known_by", "KEY KNOWN BY",
                    t->pinned ? "your pin" : "the platform's word alone");
    }
    cli_out_table_end(o, "The fleet has no device to grant to.");
    cli_out_u64(o, "on_platform_word", "on its word alone", on_word);
    cli_out_u64(o, "left_out", "left out (no pin)", p->left_out);
    if (on_word > 0)
        (void)fprintf(
            stderr,
            "tensorguard publish: %zu of %zu keys were taken on the platform's word alone: "
            "these grants are end to end only if the platform told the truth\n",
            on_word, p->n);
}

static void show_package(struct cli_out *o, const struct cli_uploaded *u)
{
    const struct tg_wire_package *p = &u->package;

    cli_out_hex(o, "package", "package (H)", TG_BYTES_OF(p->header_sha256));
    cli_out_hex(o, "blob_sha256", "file's SHA-256", TG_BYTES_OF(p->blob_sha256));
    cli_out_str(o, "model", "model", p->model.name);
    cli_out_str(o, "version", "version", p->model.version);
    cli_out_u64(o, "sequence", "sequence", p->model.sequence);
    cli_out_size(o, "size", "size", p->blob_size);
    cli_out_strs(o, "signed_by", "accepted from", p->signers.items, p->signers.n);
    cli_out_bool(o, "vault", "vault may grant", p->vault);
    cli_out_u64(o, "parts", "parts", u->parts);
    cli_out_u64(o, "parts_sent", "sent now", u->sent);
    cli_out_bool(o, "resumed", "resumed", u->resumed);
}

static enum tg_rc retry_span(const struct publish *o, uint64_t *out, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *plus = tg_asprintf("+%s", o->retry_for != NULL ? o->retry_for : "2m");
    int64_t s = 0;

    if (plus == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    if (cli_time_parse("--retry-for", plus, 0, &s, NULL) != TG_OK || s < 0 || s > 86400)
        return TG_FAIL(err, TG_E_USAGE,
                       "--retry-for: '%s' is no span of at most a day; write 90s or 10m",
                       o->retry_for);
    *out = (uint64_t)s * 1000;
    return TG_OK;
}

static enum tg_rc run(struct cli *c, void *opts, const struct tg_opt_list *args, struct tg_err *err)
{
    const struct publish *o = opts;
    TG_AUTO(cli_api_done) struct cli_api api = CLI_API_INIT;
    TG_AUTO(cli_package_done) struct cli_package package = CLI_PACKAGE_INIT;
    TG_AUTO(plan_done) struct plan p = {.o = o};
    struct tg_opt_list none = {0};
    struct cli_upload up = {.path = args->v[0], .keep_going = true};
    struct cli_uploaded done;

    if (o->part_size != NULL)
        TG_TRY(cli_number_parse("--part-size", o->part_size, TG_WIRE_PART_MAX, &up.part_size, err));
    if (o->part_size != NULL && up.part_size < TG_WIRE_PART_MIN)
        return TG_FAIL(err, TG_E_USAGE, "--part-size: at least %" PRIu64, TG_WIRE_PART_MIN);
    TG_TRY(retry_span(o, &up.retry_ms, err));
    TG_TRY(prepare(&p, err));
    cli_signals_catch();
    TG_TRY(cli_package_open(args->v[0], &package, err)); /* what is no package is not sent */
    if (o->grant_fleet != NULL)
        TG_TRY(cli_grant_prepare(&package, p.signer, p.key, &none, err));
    TG_TRY(cli_api_open(o->config, &api, err));
    if (o->grant_fleet != NULL)
        TG_TRY(find_devices(&api, &p, err));
    TG_TRY(cli_upload_file(&api, &up, &done, err));
    if (!tg_mem_eq(done.package.header_sha256, tg_tgsp_h(package.tgsp), TG_TGSP_H_LEN))
        return TG_FAIL(err, TG_E_FORMAT, "the platform answers about another package");
    show_package(&c->out, &done);
    if (o->grant_fleet == NULL)
        return TG_OK;
    TG_TRY(grant_all(&api, &p, &package, err));
    show_grants(&c->out, &p);
    return TG_OK;
}

const struct cli_verb cli_publish = {
    .cmd =
        {.name = "publish",
              .args = "F.tgsp",
              .summary = "upload a package to the platform, and grant it to a fleet's devices",
              .details =
             "Goes up in parts over a few connections. When the platform goes away in the middle\n"
             "it is tried again for a while (--retry-for), and said so; after a break of any kind\n"
             "the same command sends only what is missing. With --grant-fleet this machine makes a "
             "grant for each\n"
             "device: the devices' public keys come from the platform and are compared with your\n"
             "--pins; what is not pinned is taken on the platform's word and said so.\n\n"
             "  tensorguard publish m.tgsp\n"
             "  tensorguard publish m.tgsp --grant-fleet robots --pins robots.pins \\\n"
             "                      --signing-key keys/signing.priv\n", .opts = OPTS,
              .args_min = 1,
              .args_max = 1},
    .opts_size = sizeof(struct publish),
    .run = run,
};
