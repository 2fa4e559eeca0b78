/* Checks that several sections and documents share. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "codec/text.h"
#include "tgsp/format_internal.h"

#define ID_LEN 16

static bool starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* Does this reader know the field at the dotted path? Only members of objects have paths. */
static bool schema_knows(const struct tg_jschema *schema, const char *path)
{
    while (schema) {
        size_t n = strcspn(path, ".");
        const struct tg_jfield *found = NULL;
        for (size_t i = 0; i < schema->n && !found; i++)
            if (strlen(schema->fields[i].name) == n && tg_mem_eq(schema->fields[i].name, path, n))
                found = &schema->fields[i];
        if (!found)
            return false;
        if (path[n] == '\0')
            return true;
        path += n + 1;
        schema = found->type == TG_JT_OBJ ? found->sub.schema : NULL;
    }
    return false;
}

enum tg_rc tg_crit_check(const struct tg_jlist *crit, const char *root,
                         const struct tg_jschema *schema, struct tg_bytes json, struct tg_err *err)
{
    const char *const *v = crit->items;
    for (size_t i = 0; i < crit->n; i++) {
        bool there = false;
        if (!starts(v[i], root))
            continue;
        const char *path = v[i] + strlen(root);
        TG_TRY(tg_json_has_path(json, path, &there, err));
        if (!there)
            return TG_FAIL(err, TG_E_FORMAT, "crit: '%.128s' does not exist", v[i]);
        if (!schema_knows(schema, path))
            return TG_FAIL(err, TG_E_UNSUPPORTED,
                           "crit: '%.128s' must be understood, and this reader does not; a newer "
                           "TensorGuard is needed",
                           v[i]);
    }
    return TG_OK;
}

enum tg_rc tg_crit_roots(const struct tg_jlist *crit, const char *const *roots, const char *what,
                         struct tg_err *err)
{
    const char *const *v = crit->items;
    for (size_t i = 0; i < crit->n; i++) {
        bool known = false;
        for (size_t r = 0; roots[r]; r++)
            known = known || starts(v[i], roots[r]);
        if (!known)
            return TG_FAIL(err, TG_E_UNSUPPORTED, "%s: '%.128s' is in no section it can name", what,
                           v[i]);
        size_t n = strlen(v[i]);
        if (v[i][n - 1] == '.' || strstr(v[i], ".."))
            return TG_FAIL(err, TG_E_FORMAT, "%s: '%.128s' is not a dotted path", what, v[i]);
        for (size_t k = 0; k < i; k++)
            if (strcmp(v[i], v[k]) == 0)
                return TG_FAIL(err, TG_E_FORMAT, "%s: '%.128s' stands twice", what, v[i]);
    }
    return TG_OK;
}

void tg_id_hex(const uint8_t id[16], char out[33])
{
    tg_hex_encode(tg_bytes_make(id, ID_LEN), out);
}

static int by_id(const void *pa, const void *pb)
{
    const uint8_t *a = pa, *b = pb;
    for (size_t i = 0; i < ID_LEN; i++)
        if (a[i] != b[i])
            return a[i] < b[i] ? -1 : 1;
    return 0;
}

enum tg_rc tg_ids_distinct(const uint8_t *first, size_t n, size_t stride, const char *what,
                           struct tg_err *err)
{
    char hex[33];
    if (n < 2)
        return TG_OK;
    TG_AUTO(tg_freep) uint8_t *ids = tg_calloc(n, ID_LEN);
    if (!ids)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", what);
    for (size_t i = 0; i < n; i++)
        memcpy(ids + i * ID_LEN, first + i * stride, ID_LEN);
    qsort(ids, n, ID_LEN, by_id);
    for (size_t i = 1; i < n; i++)
        if (tg_mem_eq(ids + (i - 1) * ID_LEN, ids + i * ID_LEN, ID_LEN)) {
            tg_id_hex(ids + i * ID_LEN, hex);
            return TG_FAIL(err, TG_E_FORMAT, "%s: id %s stands twice", what, hex);
        }
    return TG_OK;
}

enum tg_rc tg_version_parse(const char *s, uint64_t v[3])
{
    char part[16];
    uint64_t got[3];
    for (size_t i = 0; i < 3; i++) {
        size_t n = strcspn(s, ".");
        if (n == 0 || n >= sizeof part || s[n] != (i < 2 ? '.' : '\0'))
            return TG_E_FORMAT;
        memcpy(part, s, n);
        part[n] = '\0';
        TG_TRY(tg_parse_u64(part, INT32_MAX, &got[i]));
        s += n + (i < 2);
    }
    memcpy(v, got, sizeof got);
    return TG_OK;
}
