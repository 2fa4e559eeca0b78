#include "tensor/format.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"

/* A file seen through bounded reads. Reads past the end or over the budget give false, which the
 * recognisers take as "not mine"; a failing disk is kept in `failed`. */
struct view {
    int fd;
    uint64_t size;
    unsigned reads;
    int failed; /* errno of the first read that failed */
};

static bool peek(struct view *v, uint64_t off, void *p, size_t n)
{
    if (off > v->size || n > v->size - off || v->failed != 0 || v->reads >= TG_FORMAT_READS_MAX)
        return false;
    v->reads++;
    uint8_t *to = p;
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(v->fd, to + done, n - done, (off_t)(off + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            v->failed = errno;
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

static uint64_t le(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = n; i > 0; i--)
        v = v << 8 | p[i - 1];
    return v;
}

/* ---- TensorFlow Lite: a flatbuffer with the file identifier "TFL3" ---- */

static bool is_tflite(struct view *v)
{
    uint8_t head[8];
    uint8_t vtable[4];
    if (!peek(v, 0, head, sizeof(head)) || !tg_mem_eq(head + 4, "TFL3", 4))
        return false;
    uint64_t root = le(head, 4);
    return root >= 8 && peek(v, root, vtable, sizeof(vtable));
}

/* ---- safetensors: little-endian header length, then a JSON object ---- */

enum { SAFETENSORS_HEADER_MAX = 100 * 1000 * 1000 }; /* the format's own limit */

static bool is_safetensors(struct view *v)
{
    uint8_t head[64] = {0};
    uint8_t tail[64];
    if (!peek(v, 0, head, 10))
        return false;
    uint64_t n = le(head, 8);
    if (n < 2 || n > SAFETENSORS_HEADER_MAX || n > v->size - 8 || head[8] != '{')
        return false;
    if (head[9] != '"' && head[9] != '}' && head[9] != ' ' && head[9] != '\n')
        return false;
    /* The header may be padded with spaces; what stands before them closes the object. */
    size_t k = n < sizeof(tail) ? (size_t)n : sizeof(tail);
    if (!peek(v, 8 + n - k, tail, k))
        return false;
    while (k > 0 && tail[k - 1] == ' ')
        k--;
    if (k == 0 || tail[k - 1] != '}')
        return false;
    /* A tensor entry or the metadata shows within the first bytes of any real header. */
    char text[513] = {0};
    size_t look = n < sizeof(text) - 1 ? (size_t)n : sizeof(text) - 1;
    return n == 2 || (peek(v, 8, text, look) && (strstr(text, "\"__metadata__\"") != NULL ||
                                                 strstr(text, "\"dtype\"") != NULL));
}

/* ---- PyTorch: a ZIP whose entries are <name>/data.pkl and <name>/version ---- */

enum {
    ZIP_EOCD = 22,
    ZIP_COMMENT_MAX = 65535,
    ZIP_ENTRIES_MAX = 4096, /* data.pkl and version come among the first entries */
    ZIP_NAME_MAX = 512
};

struct zip_dir {
    uint64_t off, n;
};

/* Find the end-of-central-directory record: last, but for a comment. */
static bool zip_find_end(struct view *v, uint8_t end[ZIP_EOCD], uint64_t *at)
{
    uint8_t block[1024];
    if (v->size < ZIP_EOCD)
        return false;
    uint64_t lowest = v->size - ZIP_EOCD;
    lowest = lowest > ZIP_COMMENT_MAX ? lowest - ZIP_COMMENT_MAX : 0;
    for (uint64_t hi = v->size; hi >= lowest + ZIP_EOCD;) {
        uint64_t lo = hi - lowest > sizeof(block) ? hi - sizeof(block) : lowest;
        size_t n = (size_t)(hi - lo);
        if (!peek(v, lo, block, n))
            return false;
        for (size_t i = n - ZIP_EOCD + 1; i > 0; i--) {
            const uint8_t *p = block + i - 1;
            if (tg_mem_eq(p, "PK\5\6", 4) && lo + i - 1 + ZIP_EOCD + le(p + 20, 2) == v->size) {
                memcpy(end, p, ZIP_EOCD);
                *at = lo + i - 1;
                return true;
            }
        }
        if (lo == lowest)
            return false;
        hi = lo + ZIP_EOCD - 1; /* a record may straddle two blocks */
    }
    return false;
}

static bool zip_open(struct view *v, struct zip_dir *d)
{
    uint8_t end[ZIP_EOCD];
    uint64_t at = 0;
    if (!zip_find_end(v, end, &at))
        return false;
    d->n = le(end + 10, 2);
    d->off = le(end + 16, 4);
    uint8_t loc[20];
    uint8_t end64[56];
    if (at >= sizeof(loc) && peek(v, at - sizeof(loc), loc, sizeof(loc)) &&
        tg_mem_eq(loc, "PK\6\7", 4)) {
        if (!peek(v, le(loc + 8, 8), end64, sizeof(end64)) || !tg_mem_eq(end64, "PK\6\6", 4))
            return false;
        d->n = le(end64 + 32, 8);
        d->off = le(end64 + 48, 8);
    }
    return true;
}

static bool is_pytorch(struct view *v)
{
    uint8_t head[4];
    struct zip_dir d = {0};
    if (!peek(v, 0, head, 4) || !tg_mem_eq(head, "PK\3\4", 4) || !zip_open(v, &d))
        return false;
    char first[ZIP_NAME_MAX + 1] = {0}; /* the archive's top folder, with its slash */
    bool pickle = false;
    bool version = false;
    uint64_t off = d.off;
    for (uint64_t i = 0; i < d.n && i < ZIP_ENTRIES_MAX; i++) {
        uint8_t e[46];
        char name[ZIP_NAME_MAX + 1] = {0};
        if (!peek(v, off, e, sizeof(e)) || !tg_mem_eq(e, "PK\1\2", 4))
            return false;
        size_t n = (size_t)le(e + 28, 2);
        if (n <= ZIP_NAME_MAX && !peek(v, off + sizeof(e), name, n))
            return false;
        const char *slash = strchr(name, '/');
        if (slash != NULL && first[0] == 0)
            memcpy(first, name, (size_t)(slash - name) + 1);
        if (slash != NULL && strncmp(name, first, strlen(first)) == 0) {
            pickle = pickle || strcmp(slash, "/data.pkl") == 0;
            version =
                version || strcmp(slash, "/version") == 0 || strcmp(slash, "/.data/version") == 0;
        }
        if (pickle && version)
            return true;
        off += sizeof(e) + n + le(e + 30, 2) + le(e + 32, 2);
    }
    return false;
}

/* ---- protobuf: ONNX ModelProto and TensorFlow SavedModel carry no magic number ---- */

enum { PB_VARINT = 0, PB_I64 = 1, PB_LEN = 2, PB_I32 = 5 };

struct pb_field {
    uint64_t num;
    unsigned wire;
    uint64_t value; /* of a varint */
    uint64_t off;   /* of a length-delimited body */
    uint64_t len;
};

/* *used: bytes taken. Short, over-long and non-terminating varints are refused. */
static bool pb_varint(const uint8_t *p, size_t n, uint64_t *out, size_t *used)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n && i < 10; i++) {
        v |= (uint64_t)(p[i] & 0x7f) << (7 * i);
        if ((p[i] & 0x80) == 0) {
            *out = v;
            *used = i + 1;
            return true;
        }
    }
    return false;
}

/* The field at *off of a message that ends at `end`; *off moves behind it. */
static bool pb_next(struct view *v, uint64_t *off, uint64_t end, struct pb_field *f)
{
    uint8_t b[20];
    size_t n = end - *off < sizeof(b) ? (size_t)(end - *off) : sizeof(b);
    uint64_t tag = 0;
    size_t k = 0;
    size_t m = 0;
    if (!peek(v, *off, b, n) || !pb_varint(b, n, &tag, &k))
        return false;
    *f = (struct pb_field){.num = tag >> 3, .wire = (unsigned)(tag & 7)};
    uint64_t left = end - *off - k;
    switch (f->wire) {
    case PB_VARINT:
        if (!pb_varint(b + k, n - k, &f->value, &m))
            return false;
        break;
    case PB_LEN:
        if (!pb_varint(b + k, n - k, &f->len, &m) || f->len > left - m)
            return false;
        f->off = *off + k + m;
        break;
    case PB_I64:
        m = 8;
        break;
    case PB_I32:
        m = 4;
        break;
    default:
        return false;
    }
    if (m > left)
        return false;
    *off += k + m + f->len;
    return f->num != 0;
}

/* One row per field that the message may have. */
struct pb_allowed {
    uint64_t num;
    unsigned wire;
};

static bool pb_known(const struct pb_allowed *rows, size_t n, const struct pb_field *f)
{
    for (size_t i = 0; i < n; i++)
        if (rows[i].num == f->num && rows[i].wire == f->wire)
            return true;
    return false;
}

static bool pb_inner(struct view *v, const struct pb_field *msg, const struct pb_allowed *rows,
                     size_t n)
{
    uint64_t off = msg->off;
    struct pb_field f;
    for (unsigned i = 0; i < 64 && off < msg->off + msg->len; i++)
        if (!pb_next(v, &off, msg->off + msg->len, &f) || !pb_known(rows, n, &f))
            return false;
    return true;
}

static bool is_onnx(struct view *v)
{
    /* onnx.proto: ModelProto, GraphProto */
    static const struct pb_allowed model[] = {
        {1,  PB_VARINT},
        {2,  PB_LEN   },
        {3,  PB_LEN   },
        {4,  PB_LEN   },
        {5,  PB_VARINT},
        {6,  PB_LEN   },
        {7,  PB_LEN   },
        {8,  PB_LEN   },
        {14, PB_LEN   },
        {20, PB_LEN   },
        {25, PB_LEN   },
        {26, PB_LEN   }
    };
    static const struct pb_allowed graph[] = {
        {1,  PB_LEN},
        {2,  PB_LEN},
        {5,  PB_LEN},
        {10, PB_LEN},
        {11, PB_LEN},
        {12, PB_LEN},
        {13, PB_LEN},
        {14, PB_LEN},
        {15, PB_LEN},
        {16, PB_LEN}
    };
    bool has_ir = false;
    bool has_graph = false;
    bool has_opset = false;
    struct pb_field f;
    for (uint64_t off = 0; off < v->size;) {
        if (!pb_next(v, &off, v->size, &f) || !pb_known(model, TG_ARRAY_LEN(model), &f))
            return false;
        if (f.num == 1)
            has_ir = f.value >= 1 && f.value < 1000;
        if (f.num == 8)
            has_opset = true;
        if (f.num == 7) {
            if (f.len == 0 || !pb_inner(v, &f, graph, TG_ARRAY_LEN(graph)))
                return false;
            has_graph = true;
        }
    }
    return has_ir && has_graph && has_opset;
}

static bool is_savedmodel(struct view *v)
{
    /* saved_model.proto, meta_graph.proto */
    static const struct pb_allowed saved[] = {
        {1, PB_VARINT},
        {2, PB_LEN   }
    };
    static const struct pb_allowed meta[] = {
        {1, PB_LEN},
        {2, PB_LEN},
        {3, PB_LEN},
        {4, PB_LEN},
        {5, PB_LEN},
        {6, PB_LEN},
        {7, PB_LEN}
    };
    bool has_version = false;
    bool has_graph = false;
    struct pb_field f;
    for (uint64_t off = 0; off < v->size;) {
        if (!pb_next(v, &off, v->size, &f) || !pb_known(saved, TG_ARRAY_LEN(saved), &f))
            return false;
        if (f.num == 1)
            has_version = f.value == 1;
        if (f.num == 2) {
            if (f.len == 0 || !pb_inner(v, &f, meta, TG_ARRAY_LEN(meta)))
                return false;
            has_graph = true;
        }
    }
    return has_version && has_graph;
}

/* ---- the table ---- */

static const struct {
    const char *name;
    bool (*is)(struct view *v);
} FORMATS[] = {
    [TG_FORMAT_ONNX] = {"onnx",        is_onnx       },
    [TG_FORMAT_SAFETENSORS] = {"safetensors", is_safetensors},
    [TG_FORMAT_PYTORCH] = {"pytorch",     is_pytorch    },
    [TG_FORMAT_SAVEDMODEL] = {"savedmodel",  is_savedmodel },
    [TG_FORMAT_TFLITE] = {"tflite",      is_tflite     },
    [TG_FORMAT_OTHER] = {"other",       NULL          },
};

const char *tg_format_name(enum tg_format f)
{
    return FORMATS[f].name;
}

TG_RC tg_format_probe(int fd, const char *name, enum tg_format *out, struct tg_err *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", name);
    enum tg_format found = TG_FORMAT_OTHER;
    for (size_t i = 0; i < TG_FORMAT_OTHER && found == TG_FORMAT_OTHER; i++) {
        struct view v = {.fd = fd, .size = (uint64_t)st.st_size};
        if (FORMATS[i].is(&v))
            found = (enum tg_format)i;
        errno = v.failed;
        if (v.failed != 0)
            return TG_FAIL_ERRNO(err, TG_E_IO, "%s: could not be read", name);
    }
    *out = found;
    return TG_OK;
}

enum tg_format tg_format_prefer(enum tg_format a, enum tg_format b)
{
    if (a == TG_FORMAT_SAVEDMODEL || b == TG_FORMAT_SAVEDMODEL)
        return TG_FORMAT_SAVEDMODEL;
    return a < b ? a : b;
}
