#include "cli/pins.h"

#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/mem.h"
#include "codec/text.h"

enum { HEX = 2 * TG_KEM_ID_LEN };

/* One line without its end. *any: it holds a pin. */
static bool parse_line(const char *p, size_t n, struct cli_pin *pin, bool *any)
{
    uint8_t device[TG_KEM_ID_LEN];

    while (n > 0 && (*p == ' ' || *p == '\t')) {
        p++;
        n--;
    }
    while (n > 0 && (p[n - 1] == '\r' || p[n - 1] == ' ' || p[n - 1] == '\t'))
        n--;
    *any = n > 0 && *p != '#';
    if (!*any)
        return true;
    size_t gap = HEX;
    while (gap < n && (p[gap] == ' ' || p[gap] == '\t'))
        gap++;
    if (gap == HEX || n - gap < HEX)
        return false;
    if (n - gap > HEX && p[gap + HEX] != ' ' && p[gap + HEX] != '\t')
        return false;
    if (tg_hex_decode(tg_bytes_make(p, HEX), device, sizeof(device)) != TG_OK ||
        tg_hex_decode(tg_bytes_make(p + gap, HEX), pin->kem_key_id, TG_KEM_ID_LEN) != TG_OK)
        return false;
    memcpy(pin->device, p, HEX);
    pin->device[HEX] = 0;
    return true;
}

static enum tg_rc parse(const char *path, const char *text, struct cli_pins *out,
                        struct tg_err *err)
{
    unsigned line = 1;

    for (const char *p = text; *p != 0; line++) {
        size_t n = strcspn(p, "\n");
        struct cli_pin pin;
        bool any = false;
        if (!parse_line(p, n, &pin, &any))
            return TG_FAIL(err, TG_E_FORMAT,
                           "%s: line %u: is not `device-id kem-key-id` (32 hex characters each)",
                           path, line);
        if (any && cli_pins_find(out, pin.device) != NULL)
            return TG_FAIL(err, TG_E_FORMAT, "%s: line %u: device %s stands there twice", path,
                           line, pin.device);
        if (any) {
            struct cli_pin *v = tg_realloc(out->v, (out->n + 1) * sizeof(*v));
            if (v == NULL)
                return TG_FAIL(err, TG_E_NOMEM, "out of memory");
            out->v = v;
            out->v[out->n++] = pin;
        }
        p += n + (p[n] == '\n');
    }
    return TG_OK;
}

enum tg_rc cli_pins_parse(struct tg_bytes bytes, const char *name, struct cli_pins *out,
                          struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(CLI_PINS_FILE_MAX);
    TG_AUTO(cli_pins_done) struct cli_pins pins = {0};
    enum tg_rc rc = tg_buf_bytes(&text, bytes);

    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s: %s", name, tg_rc_text(rc));
    if (strlen(tg_buf_cstr(&text)) != bytes.n)
        return TG_FAIL(err, TG_E_FORMAT, "%s: is no text file", name);
    TG_TRY(parse(name, tg_buf_cstr(&text), &pins, err));
    *out = pins;
    pins = (struct cli_pins){0};
    return TG_OK;
}

enum tg_rc cli_pins_load(const char *path, struct cli_pins *out, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(CLI_PINS_FILE_MAX);

    TG_TRY(tg_file_read(path, &text, err));
    return cli_pins_parse(tg_buf_view(&text), path, out, err);
}

void cli_pins_done(struct cli_pins *p)
{
    tg_free(p->v);
    *p = (struct cli_pins){0};
}

const struct cli_pin *cli_pins_find(const struct cli_pins *p, const char *device)
{
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->v[i].device, device) == 0)
            return &p->v[i];
    return NULL;
}

enum tg_rc cli_pins_add(const char *path, const struct cli_pin *more, size_t n, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(CLI_PINS_FILE_MAX);
    enum tg_rc rc = tg_file_read(path, &text, err);

    if (rc != TG_OK && rc != TG_E_NOTFOUND)
        return rc;
    rc = text.n > 0 && text.data[text.n - 1] != '\n' ? tg_buf_str(&text, "\n") : TG_OK;
    for (size_t i = 0; i < n && rc == TG_OK; i++) {
        char hex[HEX + 1];
        tg_hex_encode(TG_BYTES_OF(more[i].kem_key_id), hex);
        rc = tg_buf_printf(&text, "%s %s\n", more[i].device, hex);
    }
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s: %s", path, tg_rc_text(rc));
    return tg_file_write(path, tg_buf_view(&text), 0644, true, err);
}
