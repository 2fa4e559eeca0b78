#include "native/protocol.h"

#include <string.h>

/* ---- sizes ---- */

static size_t size_welcome(const union tg_native_msg *m)
{
    return offsetof(struct tg_native_welcome, ports) +
           ((size_t)m->welcome.n_in + m->welcome.n_out) * sizeof(struct tg_native_port);
}

static size_t size_files(const union tg_native_msg *m)
{
    return offsetof(struct tg_native_files, files) +
           (size_t)m->files.n * sizeof(struct tg_native_file);
}

/* ---- what each message must be, beyond its size ---- */

static bool text_ok(const char *text, size_t cap, bool may_be_empty)
{
    const char *end = memchr(text, 0, cap);
    size_t n = end == NULL ? cap : (size_t)(end - text);

    if (n == cap || (n == 0 && !may_be_empty) || !tg_utf8_ok(tg_bytes_make(text, n)))
        return false;
    for (size_t i = n; i < cap; i++)
        if (text[i] != 0)
            return false;
    return true;
}

#define TEXT_OK(arr, may_be_empty) text_ok((arr), sizeof(arr), (may_be_empty))

static bool dims_ok(const int64_t *d, uint32_t n)
{
    if (n > TG_NATIVE_DIMS_MAX)
        return false;
    for (uint32_t i = n; i < TG_NATIVE_DIMS_MAX; i++)
        if (d[i] != 0)
            return false;
    return true;
}

static bool check_hello(const union tg_native_msg *m)
{
    return m->hello.oldest <= m->hello.newest;
}

static bool check_ring(const union tg_native_msg *m)
{
    const struct tg_native_ring *r = &m->ring;

    if (r->slots == 0 || r->slots > TG_NATIVE_SLOTS_MAX || (r->slots & (r->slots - 1)) != 0 ||
        r->n > TG_ARRAY_LEN(r->bytes))
        return false;
    for (size_t i = r->n; i < TG_ARRAY_LEN(r->bytes); i++)
        if (r->bytes[i] != 0)
            return false;
    return true;
}

static bool check_list(const union tg_native_msg *m)
{
    return m->list.zero == 0;
}

static bool check_take(const union tg_native_msg *m)
{
    return TEXT_OK(m->take.path, false) && TEXT_OK(m->take.tensor, true);
}

static bool check_welcome(const union tg_native_msg *m)
{
    const struct tg_native_welcome *w = &m->welcome;

    if ((w->flags & ~(uint32_t)(TG_NATIVE_CAN_RUN | TG_NATIVE_CAN_TAKE)) != 0 ||
        !TEXT_OK(w->model, false) || !TEXT_OK(w->model_version, true))
        return false;
    for (size_t i = 0; i < (size_t)w->n_in + w->n_out; i++) {
        const struct tg_native_port *p = &w->ports[i];

        if (p->zero != 0 || !TEXT_OK(p->name, true) || !dims_ok(p->dims, p->n_dims))
            return false;
    }
    return true;
}

static bool check_files(const union tg_native_msg *m)
{
    for (size_t i = 0; i < m->files.n; i++)
        if (!TEXT_OK(m->files.files[i].path, false))
            return false;
    return m->files.n <= m->files.total;
}

static bool check_taken(const union tg_native_msg *m)
{
    return TEXT_OK(m->taken.dtype, true) && m->taken.zero == 0 &&
           dims_ok(m->taken.dims, m->taken.n_dims);
}

static bool check_refused(const union tg_native_msg *m)
{
    return m->refused.code != TG_OK && m->refused.code < TG_RC_COUNT &&
           TEXT_OK(m->refused.reason, true);
}

static bool check_nothing(const union tg_native_msg *m)
{
    (void)m;
    return true;
}

/* ---- the table ---- */

#define CLIENT TG_NATIVE_CLIENT
#define WORKER TG_NATIVE_WORKER

static const struct {
    const char *name;
    enum tg_native_side from;
    size_t size;                                    /* fixed, or as far as the counts */
    size_t (*size_of)(const union tg_native_msg *); /* NULL: fixed */
    bool (*check)(const union tg_native_msg *);
} kinds[] = {
    [TG_NATIVE_HELLO] = {"hello",      CLIENT, sizeof(struct tg_native_hello),    NULL,               check_hello                             },
    [TG_NATIVE_RING] = {"ring",       CLIENT, sizeof(struct tg_native_ring),     NULL,               check_ring                              },
    [TG_NATIVE_LIST] = {"list",       CLIENT, sizeof(struct tg_native_list),     NULL,               check_list                              },
    [TG_NATIVE_TAKE] = {"take",       CLIENT, sizeof(struct tg_native_take),     NULL,               check_take                              },
    [TG_NATIVE_WELCOME] = {"welcome",    WORKER, offsetof(struct tg_native_welcome, ports),
                         size_welcome,                                                                                                          check_welcome},
    [TG_NATIVE_RING_MADE] = {"ring made",            WORKER,        sizeof(struct tg_native_ring_made),                        NULL,
                         check_nothing             },
    [TG_NATIVE_FILES] = {"files",            WORKER,            offsetof(struct tg_native_files,                            files),    size_files,
                         check_files},
    [TG_NATIVE_TAKEN] = {"taken",  WORKER,        sizeof(struct tg_native_taken),                                   NULL,                                              check_taken                                                },
    [TG_NATIVE_REFUSED] = {"refused", WORKER,       sizeof(struct tg_native_refused),                                NULL,
                         check_refused},
};

static size_t size_now(const union tg_native_msg *m)
{
    uint32_t type = m->head.type;

    return kinds[type].size_of == NULL ? kinds[type].size : kinds[type].size_of(m);
}

void tg_native_begin(union tg_native_msg *m, enum tg_native_type type)
{
    memset(m, 0, sizeof(*m));
    m->head.magic = TG_NATIVE_MAGIC;
    m->head.type = type;
}

struct tg_bytes tg_native_seal(union tg_native_msg *m)
{
    size_t n = size_now(m);

    m->head.size = (uint32_t)n;
    return tg_bytes_make(m, n);
}

struct tg_bytes tg_native_refuse(union tg_native_msg *m, const struct tg_err *err)
{
    tg_native_begin(m, TG_NATIVE_REFUSED);
    m->refused.code = err->rc == TG_OK ? TG_E_INTERNAL : (uint32_t)err->rc;
    tg_native_text(m->refused.reason, sizeof(m->refused.reason), err->msg);
    return tg_native_seal(m);
}

/* Both variable messages bound their counts before those are multiplied. */
static bool counts_ok(const union tg_native_msg *m)
{
    if (m->head.type == TG_NATIVE_WELCOME)
        return m->welcome.n_in <= TG_NATIVE_PORTS_MAX && m->welcome.n_out <= TG_NATIVE_PORTS_MAX;
    if (m->head.type == TG_NATIVE_FILES)
        return m->files.n <= TG_NATIVE_FILES_MAX;
    return true;
}

static enum tg_rc check_head(struct tg_bytes bytes, enum tg_native_side from,
                             struct tg_native_head *head, struct tg_err *err)
{
    if (bytes.n < sizeof(*head) || bytes.n > TG_NATIVE_MSG_MAX)
        return TG_FAIL(err, TG_E_FORMAT, "native message: %zu bytes", bytes.n);
    memcpy(head, bytes.p, sizeof(*head));
    if (head->magic != TG_NATIVE_MAGIC || head->zero != 0 || head->size != bytes.n)
        return TG_FAIL(err, TG_E_FORMAT, "native message: not one (magic or size)");
    if (head->type >= TG_ARRAY_LEN(kinds) || kinds[head->type].name == NULL ||
        kinds[head->type].from != from)
        return TG_FAIL(err, TG_E_FORMAT, "native message: type %u is not known here", head->type);
    if (bytes.n < kinds[head->type].size)
        return TG_FAIL(err, TG_E_FORMAT, "native message '%s': cut", kinds[head->type].name);
    return TG_OK;
}

enum tg_rc tg_native_parse(struct tg_bytes bytes, enum tg_native_side from,
                           union tg_native_msg *out, struct tg_err *err)
{
    struct tg_native_head head;

    TG_TRY(check_head(bytes, from, &head, err));
    memset(out, 0, sizeof(*out));
    memcpy(out, bytes.p, bytes.n);
    if (!counts_ok(out) || size_now(out) != bytes.n || !kinds[head.type].check(out))
        return TG_FAIL(err, TG_E_FORMAT, "native message '%s': malformed", kinds[head.type].name);
    return TG_OK;
}

bool tg_native_port_eq(const struct tg_native_port *a, const struct tg_native_port *b)
{
    return tg_mem_eq(a, b, sizeof(*a));
}

void tg_native_text(char *out, size_t cap, const char *text)
{
    size_t n = strlen(text);

    memset(out, 0, cap);
    if (n >= cap) {
        n = cap - 1;
        while (n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80)
            n--;
    }
    if (n > 0 && tg_utf8_ok(tg_bytes_make(text, n)))
        memcpy(out, text, n);
}
