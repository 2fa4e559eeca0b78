#include "platform/route.h"

#include <string.h>

#include "base/bytes.h"
#include "wire/common.h"

static bool is_hex(const char *s, size_t n)
{
    return strlen(s) == n && strspn(s, "0123456789abcdef") == n;
}

static bool is_h(const char *s)
{
    return is_hex(s, 64);
}

static bool is_part(const char *s)
{
    uint64_t v;

    return tg_parse_u64(s, TG_WIRE_PARTS_MAX - 1, &v) == TG_OK;
}

static const struct {
    const char *name;
    bool (*ok)(const char *value);
} params_table[] = {
    {"token",           tg_wire_id_ok  },
    {"fleet",           tg_wire_name_ok},
    {"enrolment_token", tg_wire_id_ok  },
    {"device",          tg_wire_id_ok  },
    {"publisher",       tg_wire_id_ok  }, /* a key id: 16 bytes as well */
    {"kem_key",         tg_wire_id_ok  },
    {"upload",          tg_wire_id_ok  },
    {"deployment",      tg_wire_id_ok  },
    {"package",         is_h           },
    {"blob",            is_h           },
    {"part",            is_part        },
};

bool tg_route_param_ok(const char *name, size_t name_n, const char *value)
{
    for (size_t i = 0; i < TG_ARRAY_LEN(params_table); i++)
        if (strlen(params_table[i].name) == name_n &&
            strncmp(params_table[i].name, name, name_n) == 0)
            return params_table[i].ok(value);
    return false;
}

/* Split at slashes in place. */
static size_t split(char *path, char *segments[], size_t max)
{
    size_t n = 0;
    char *save = NULL;

    for (char *s = strtok_r(path, "/", &save); s != NULL; s = strtok_r(NULL, "/", &save)) {
        if (n == max)
            return max + 1;
        segments[n++] = s;
    }
    return n;
}

#define SEGMENTS_MAX 8

static bool matches(const char *pattern, char *const segments[], size_t n,
                    const char *params[TG_ROUTE_PARAMS_MAX])
{
    size_t i = 0, p = 0;

    for (const char *s = pattern; *s == '/'; i++) {
        size_t len = strcspn(++s, "/");
        if (i == n)
            return false;
        if (*s == '{') {
            if (p == TG_ROUTE_PARAMS_MAX || !tg_route_param_ok(s + 1, len - 2, segments[i]))
                return false;
            params[p++] = segments[i];
        } else if (strlen(segments[i]) != len || strncmp(s, segments[i], len) != 0) {
            return false;
        }
        s += len;
    }
    return i == n;
}

TG_RC tg_route_match(const struct tg_route_query *q, char *into, struct tg_route_found *out)
{
    enum tg_http_method method = q->method == TG_HTTP_HEAD ? TG_HTTP_GET : q->method;
    char *segments[SEGMENTS_MAX];
    size_t len = strlen(q->path);

    *out = (struct tg_route_found){.route = NULL};
    memcpy(into, q->path, len + 1);
    if (q->path[0] != '/' || (len > 1 && q->path[len - 1] == '/'))
        return TG_E_NOTFOUND;
    size_t n = split(into, segments, SEGMENTS_MAX);
    if (n > SEGMENTS_MAX)
        return TG_E_NOTFOUND;
    for (size_t i = 0; i < tg_routes_n; i++) {
        const struct tg_route *r = &tg_routes[i];
        const char *found[TG_ROUTE_PARAMS_MAX] = {NULL, NULL};
        if ((r->listeners & q->listener) == 0 || !matches(r->pattern, segments, n, found))
            continue;
        if (r->method != method) {
            out->allow |= 1U << r->method;
            continue;
        }
        memcpy(out->params, found, sizeof(found));
        out->route = r;
        return TG_OK;
    }
    return out->allow != 0 ? TG_E_UNSUPPORTED : TG_E_NOTFOUND;
}
