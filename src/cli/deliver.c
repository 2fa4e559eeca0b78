/* tensorguard package grant: an author's own grant, handed to the platform for the device that it
 * is for. */
#include <stddef.h>
#include <string.h>

#include "base/file.h"
#include "cli/api.h"
#include "cli/cli.h"
#include "cli/resolve.h"
#include "cli/show.h"
#include "codec/text.h"
#include "tgsp/grant.h"
#include "wire/fleet.h"
#include "wire/package.h"

struct deliver {
    bool json;
    const char *config, *device;
};

/* clang-format off */
static const struct tg_opt OPTS[] = {
    CLI_OPT_JSON,
    CLI_OPT_CONFIG(struct deliver),
    {"device", TG_OPT_STR, offsetof(struct deliver, device), false, "ID", "the device it is for (default: the one that has the grant's key)"},
    CLI_OPT_END,
};

/* clang-format on */

/* What is delivered, and where. */
struct delivery {
    const char *path;
    const struct tg_grant_fields *f;
    char kem_key_id[2 * TG_KEM_ID_LEN + 1];
    struct tg_wire_device device; /* strings live in the api's arena */
};

static enum tg_rc check_package(const struct delivery *d, const struct cli_h *h, struct tg_err *err)
{
    char hex[2 * TG_TGSP_H_LEN + 1];

    tg_hex_encode(TG_BYTES_OF(d->f->header_sha256), hex);
    if (strcmp(hex, h->hex) == 0)
        return TG_OK;
    return TG_FAIL(err, TG_E_NOTFORKEY,
                   "%s: the grant is for package %s, not for %s; make one for this package with "
                   "tensorguard grant",
                   d->path, hex, h->hex);
}

static bool has_key(const struct delivery *d, const struct tg_wire_device *device)
{
    return tg_mem_eq(device->kem_key_id, d->f->recipient.id, TG_KEM_ID_LEN);
}

/* The operator says which device. */
static enum tg_rc named_device(struct cli_api *api, const char *id, struct delivery *d,
                               struct tg_err *err)
{
    TG_AUTO(tg_freep) char *target = NULL;

    TG_TRY(cli_api_path(TG_API_PREFIX "/devices", id, "", &target, err));
    struct cli_call call = {
        .target = target, .answer_schema = &tg_wire_device, .answer = &d->device};
    TG_TRY(cli_api_call(api, &call, err));
    if (!has_key(d, &d->device))
        return TG_FAIL(err, TG_E_NOTFORKEY,
                       "%s: the grant is for KEM key %s, and device %s has another; make one with "
                       "--recipient that device's kem.pub",
                       d->path, d->kem_key_id, id);
    if (d->device.state != TG_DEVICE_ACTIVE)
        return TG_FAIL(err, TG_E_STATE, "device %s is revoked: it is given nothing", id);
    return TG_OK;
}

/* The platform's devices are asked whose key it is. */
static enum tg_rc find_device(struct cli_api *api, struct delivery *d, struct tg_err *err)
{
    struct tg_jlist list = {0};
    size_t found = 0;

    TG_TRY(cli_api_list(api, TG_API_PREFIX "/devices", &tg_wire_devices,
                        sizeof(struct tg_wire_device), &list, err));
    const struct tg_wire_device *v = list.items;
    for (size_t i = 0; i < list.n; i++)
        if (v[i].state == TG_DEVICE_ACTIVE && has_key(d, &v[i])) {
            d->device = v[i];
            found++;
        }
    if (found == 0)
        return TG_FAIL(err, TG_E_NOTFOUND,
                       "%s: the grant is for KEM key %s, which no active device of this platform "
                       "has; was --recipient that device's own kem.pub? (tensorguard fleet keys "
                       "FLEET lists the ids)",
                       d->path, d->kem_key_id);
    if (found > 1)
        return TG_FAIL(err, TG_E_USAGE,
                       "%s: %zu active devices have KEM key %s, which the grant is for: name the "
                       "one that is meant with --device, and revoke what was enrolled before",
                       d->path, found, d->kem_key_id);
    return TG_OK;
}

static enum tg_rc put(struct cli_api *api, const struct delivery *d, const struct cli_h *h,
                      struct tg_bytes text, struct tg_wire_grant *got, struct tg_err *err)
{
    TG_AUTO(tg_freep)
    char *target = tg_asprintf(TG_API_PREFIX "/packages/%s/grants/%s", h->hex, d->kem_key_id);

    if (target == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    struct cli_call call = {.method = TG_HTTP_PUT,
                            .target = target,
                            .raw = text,
                            .raw_type = TG_WIRE_TYPE_JSON,
                            .answer_schema = &tg_wire_grant,
                            .answer = got};
    return cli_api_call(api, &call, err);
}

static enum tg_rc run(struct cli *c, void *opts, const struct tg_opt_list *args, struct tg_err *err)
{
    const struct deliver *o = opts;
    TG_AUTO(cli_api_done) struct cli_api api = CLI_API_INIT;
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TGSP_DOC_MAX);
    TG_AUTO(tg_grant_freep) struct tg_grant *g = NULL;
    struct delivery d = {.path = args->v[1]};
    struct cli_h h = {{0}};
    struct tg_wire_grant got = {.vault = false};

    TG_TRY(tg_file_read(d.path, &text, err));
    TG_TRY(tg_grant_decode(tg_buf_view(&text), d.path, &g, err));
    d.f = tg_grant_fields_get(g);
    tg_hex_encode(TG_BYTES_OF(d.f->recipient.id), d.kem_key_id);
    TG_TRY(cli_api_open(o->config, &api, err));
    TG_TRY(cli_resolve_package(&api, args->v[0], &h, err));
    TG_TRY(check_package(&d, &h, err));
    TG_TRY(o->device != NULL ? named_device(&api, o->device, &d, err) : find_device(&api, &d, err));
    TG_TRY(put(&api, &d, &h, tg_buf_view(&text), &got, err));
    cli_out_str(&c->out, "package", "package (H)", h.hex);
    cli_out_str(&c->out, "device", "device", d.device.id);
    cli_out_str(&c->out, "name", "name", d.device.name);
    cli_out_str(&c->out, "fleet", "fleet", d.device.fleet);
    cli_out_str(&c->out, "kem_key_id", "KEM key id", d.kem_key_id);
    cli_out_hex(&c->out, "granter", "granted by", TG_BYTES_OF(got.granter));
    cli_out_time(&c->out, "not_after", "valid until", got.not_after);
    return TG_OK;
}

const struct cli_verb cli_package_grant = {
    .cmd =
        {.name = "package grant",
              .args = "H|F.tgsp G.tgrant",
              .summary = "give a device the grant that you made for it",
              .details =
             "Puts a file of `tensorguard grant` beside the package on the platform, from where\n"
             "the device that it is for fetches it. The device is the one with the grant's KEM\n"
             "key. The grant must be for this package, and be signed by a registered publisher.\n\n"
             "  tensorguard grant m.tgsp --key keys/encryption.priv \\\n"
             "      --signing-key keys/signing.priv --recipient robot-7.pub --out robot-7.tgrant\n"
             "  tensorguard package grant m.tgsp robot-7.tgrant\n", .opts = OPTS,
              .args_min = 2,
              .args_max = 2},
    .opts_size = sizeof(struct deliver),
    .run = run,
};
