#include "cli/resolve.h"

#include <string.h>
#include <unistd.h>

#include "cli/package.h"
#include "cli/show.h"
#include "codec/text.h"
#include "wire/package.h"

enum { PREFIX_MIN = 8 };

static enum tg_rc from_file(const char *path, struct cli_h *out, struct tg_err *err)
{
    TG_AUTO(cli_package_done) struct cli_package p = CLI_PACKAGE_INIT;

    TG_TRY(cli_package_open(path, &p, err));
    tg_hex_encode(tg_bytes_make(tg_tgsp_h(p.tgsp), TG_TGSP_H_LEN), out->hex);
    return TG_OK;
}

static enum tg_rc from_prefix(struct cli_api *api, const char *prefix, struct cli_h *out,
                              struct tg_err *err)
{
    struct tg_jlist list = {0};
    size_t found = 0;

    TG_TRY(cli_api_list(api, TG_API_PREFIX "/packages", &tg_wire_packages,
                        sizeof(struct tg_wire_package), &list, err));
    const struct tg_wire_package *v = list.items;
    for (size_t i = 0; i < list.n; i++) {
        char hex[2 * TG_WIRE_HASH_LEN + 1];
        tg_hex_encode(TG_BYTES_OF(v[i].header_sha256), hex);
        if (strncmp(hex, prefix, strlen(prefix)) != 0)
            continue;
        memcpy(out->hex, hex, sizeof(hex));
        found++;
    }
    if (found > 1)
        return TG_FAIL(err, TG_E_USAGE, "%s: %zu packages begin so; give more of it", prefix,
                       found);
    if (found == 0)
        return TG_FAIL(err, TG_E_NOTFOUND, "%s: the platform has no such package", prefix);
    return TG_OK;
}

enum tg_rc cli_resolve_package(struct cli_api *api, const char *name, struct cli_h *out,
                               struct tg_err *err)
{
    size_t n = strlen(name);
    bool hex = strspn(name, "0123456789abcdef") == n;

    if (hex && n == 2 * TG_TGSP_H_LEN) {
        memcpy(out->hex, name, n + 1);
        return TG_OK;
    }
    if (access(name, F_OK) == 0)
        return from_file(name, out, err);
    if (hex && n >= PREFIX_MIN && n < 2 * TG_TGSP_H_LEN)
        return from_prefix(api, name, out, err);
    return TG_FAIL(
        err, TG_E_NOTFOUND,
        "%s: neither a package file nor (the first %d or more characters of) a package's H", name,
        PREFIX_MIN);
}
