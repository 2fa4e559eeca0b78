/* One fault each: every bit, every border, every lie about a length. None opens, none crashes, and
 * the error is the one that says what is wrong. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "codec/text.h"
#include "tgsp/construct_internal.h"

/* The small package, and where its sections begin. */
static struct tg_buf small;
static uint64_t border[2 * TG_TGSP_SEC_COUNT + 2];
static size_t borders;
static struct tg_trust *trust;

static int setup(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    struct tg_tgsp *p = NULL;
    if (fx_setup(state) != 0)
        return -1;
    struct fx *f = *state;
    fx_mkdir(f, "s");
    fx_write(f, "s/a", "hello", 5);
    fx_write(f, "s/b", "world", 5);
    small = fx_build(f, "s", NULL);
    trust = fx_trust(f->author);
    struct tg_bytes view = tg_buf_view(&small);
    tg_src_mem(&src, &view, "t");
    assert_ok(tg_tgsp_open(&src, &p, &err));
    border[borders++] = TG_TGSP_MAGIC_LEN;
    for (int s = 0; s < TG_TGSP_SEC_COUNT; s++) {
        uint64_t off, len;
        tg_tgsp_section_at(p, (enum tg_tgsp_section)s, &off, &len);
        border[borders++] = off;
        border[borders++] = off + len;
    }
    tg_tgsp_free(p);
    return 0;
}

static int teardown(void **state)
{
    tg_buf_done(&small);
    tg_trust_free(trust);
    return fx_teardown(state);
}

/* The plaintext must never come out; the code must be one of those for bad bytes. */
static enum tg_rc refused(const struct fx *f, struct tg_bytes b, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf plain = TG_BUF_INIT(1 << 20);
    enum tg_rc rc = fx_open_all(b, trust, f->device, &plain, err);
    assert_int_equal(plain.n, 0);
    if (rc != TG_E_FORMAT && rc != TG_E_AUTH && rc != TG_E_UNSUPPORTED)
        fail_msg("%s: %s", tg_rc_name(rc), err->msg);
    assert_non_null(strstr(err->msg, "test.tgsp: "));
    return rc;
}

static void test_every_bit(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    fx_mkdir(f, "tiny");
    fx_write(f, "tiny/a", "hello", 5);
    TG_AUTO(tg_buf_done) struct tg_buf b = fx_build(f, "tiny", NULL);
    for (size_t i = 0; i < b.n; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            b.data[i] ^= (uint8_t)(1u << bit);
            (void)refused(f, tg_buf_view(&b), &err);
            b.data[i] ^= (uint8_t)(1u << bit);
        }
    assert_ok(fx_open_all(tg_buf_view(&b), trust, f->device, NULL, &err));
}

static void cut(const struct fx *f, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    /* an exact copy, so that a sanitizer sees a read past the end */
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, small.data, n);
    assert_int_equal(refused(f, tg_bytes_make(copy, n), &err), TG_E_FORMAT);
    free(copy);
}

static void test_cut_everywhere(void **state)
{
    for (size_t i = 0; i < borders; i++) {
        if (border[i] < small.n)
            cut(*state, (size_t)border[i]);
        cut(*state, (size_t)border[i] - 1);
        if (border[i] + 1 < small.n)
            cut(*state, (size_t)border[i] + 1);
    }
    for (size_t i = 0; i < 200; i++)
        cut(*state, i * small.n / 200);
}

static void test_trailing(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(1 << 20);
    assert_ok(tg_buf_bytes(&b, tg_buf_view(&small)));
    assert_ok(tg_buf_u8(&b, 0));
    assert_int_equal(refused(*state, tg_buf_view(&b), &err), TG_E_FORMAT);
    assert_contains(err.msg, "1 bytes follow");
    assert_ok(tg_buf_bytes(&b, tg_buf_view(&small)));
    assert_int_equal(refused(*state, tg_buf_view(&b), &err), TG_E_FORMAT);
}

/* Each length field in turn says each of these. */
static void test_lying_lengths(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    const uint64_t lies[] = {
        0, 1, 0x7fffffff, 0x80000000, 0xffffffff, UINT64_C(1) << 42, UINT64_C(1) << 63, UINT64_MAX};
    uint64_t pos = TG_TGSP_MAGIC_LEN;
    for (int s = 0; s < TG_TGSP_SEC_COUNT; s++) {
        unsigned k = s == TG_TGSP_SEC_PAYLOAD ? 8 : 4;
        uint8_t saved[8];
        memcpy(saved, small.data + pos, k);
        for (size_t i = 0; i < TG_ARRAY_LEN(lies); i++) {
            if (k == 8)
                tg_put_be64(small.data + pos, lies[i]);
            else
                tg_put_be32(small.data + pos, (uint32_t)lies[i]);
            (void)refused(*state, tg_buf_view(&small), &err);
            if (lies[i] >= 0x80000000 && (k == 8 || lies[i] <= 0xffffffff))
                assert_contains(err.msg, tg_tgsp_section_name((enum tg_tgsp_section)s));
        }
        memcpy(small.data + pos, saved, k);
        pos += k + (k == 8 ? tg_get_be64(saved) : tg_get_be32(saved));
    }
}

static void test_versions(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    small.data[4] = 2;
    assert_int_equal(refused(*state, tg_buf_view(&small), &err), TG_E_UNSUPPORTED);
    assert_contains(err.msg, "version 2.0");
    small.data[4] = 1;
    small.data[0] = 'X';
    assert_int_equal(refused(*state, tg_buf_view(&small), &err), TG_E_FORMAT);
    assert_contains(err.msg, "not a TGSP package");
    small.data[0] = 'T';
}

/* ---- faults that an author could sign: the package is put together again and signed afresh
 * ---------- */

/* Sections as text, to be changed and signed. */
struct parts {
    struct tg_buf sec[TG_TGSP_SEC_COUNT];
};

static struct parts parts_of(const struct tg_buf *pkg)
{
    struct parts x;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    struct tg_tgsp *p = NULL;
    struct tg_bytes view = tg_buf_view(pkg);
    tg_src_mem(&src, &view, "t");
    assert_ok(tg_tgsp_open(&src, &p, &err));
    for (int s = 0; s < TG_TGSP_SEC_COUNT; s++) {
        uint64_t off, len;
        tg_tgsp_section_at(p, (enum tg_tgsp_section)s, &off, &len);
        x.sec[s] = TG_BUF_INIT((size_t)64 << 20);
        assert_ok(tg_buf_append(&x.sec[s], pkg->data + off, (size_t)len));
    }
    tg_tgsp_free(p);
    return x;
}

static void parts_done(struct parts *x)
{
    for (int s = 0; s < TG_TGSP_SEC_COUNT; s++)
        tg_buf_done(&x->sec[s]);
}

static void replace(struct tg_buf *b, const char *from, const char *to)
{
    struct tg_err err = TG_ERR_INIT;
    const char *at = strstr((const char *)b->data, from);
    if (!at)
        fail_msg("'%s' is not in '%.300s'", from, (const char *)b->data);
    size_t before = (size_t)(at - (const char *)b->data);
    struct tg_buf out = TG_BUF_INIT((size_t)64 << 20);
    assert_ok(tg_buf_append(&out, b->data, before));
    assert_ok(tg_buf_str(&out, to));
    assert_ok(tg_buf_append(&out, at + strlen(from), b->n - before - strlen(from)));
    tg_buf_done(b);
    *b = out;
}

static void put_hash(struct parts *x, enum tg_tgsp_section s, const char *field)
{
    uint8_t md[32];
    char key[64];
    struct tg_err err = TG_ERR_INIT;
    (void)snprintf(key, sizeof key, "\"%s\":\"", field);
    char *at = strstr((char *)x->sec[TG_TGSP_SEC_HEADER].data, key);
    if (!at)
        return; /* the header is what was damaged */
    struct tg_buf text = TG_BUF_INIT(64);
    assert_int_equal(tg_sha256(tg_buf_view(&x->sec[s]), md), TG_OK);
    assert_ok(tg_b64url_encode(TG_BYTES_OF(md), &text));
    memcpy(at + strlen(key), text.data, text.n);
    tg_buf_done(&text);
}

/* Signed by sk, so that only the fault itself can be the reason. */
static struct tg_buf together(struct parts *x, const struct tg_sign_sk *sk)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_buf out = TG_BUF_INIT((size_t)64 << 20);
    uint8_t h[32];
    struct tg_tgsp_signature e;
    struct tg_sig sig;
    put_hash(x, TG_TGSP_SEC_MANIFEST, "manifest_sha256");
    put_hash(x, TG_TGSP_SEC_RECIPIENTS, "recipients_sha256");
    assert_ok(tg_tgsp_header_h(tg_buf_view(&x->sec[TG_TGSP_SEC_HEADER]), h));
    memcpy(e.key_id, tg_sign_pk_id(tg_sign_sk_pk(sk)), 16);
    struct tg_signed_message m = tg_signed_message_make(TG_LABEL_PACKAGE, e.key_id, h);
    assert_ok(tg_sign(sk, tg_bytes_make(m.bytes, m.n), false, &sig));
    memcpy(e.sig_classic, sig.classic, sizeof e.sig_classic);
    memcpy(e.sig_pqc, sig.pqc, sizeof e.sig_pqc);
    struct tg_tgsp_signatures sigs = {
        {&e, 1}
    };
    tg_buf_clear(&x->sec[TG_TGSP_SEC_SIGNATURES]);
    assert_ok(tg_tgsp_signatures_encode(&sigs, &x->sec[TG_TGSP_SEC_SIGNATURES], &err));
    assert_ok(tg_buf_append(&out, TG_TGSP_MAGIC, TG_TGSP_MAGIC_LEN));
    for (int s = 0; s < TG_TGSP_SEC_COUNT; s++) {
        if (s == TG_TGSP_SEC_PAYLOAD)
            assert_ok(tg_buf_be64(&out, x->sec[s].n));
        else
            assert_ok(tg_buf_be32(&out, (uint32_t)x->sec[s].n));
        assert_ok(tg_buf_bytes(&out, tg_buf_view(&x->sec[s])));
    }
    return out;
}

struct fault {
    enum tg_tgsp_section section;
    const char *from, *to;
    enum tg_rc rc;
    const char *text;
};

#define HDR TG_TGSP_SEC_HEADER
#define MAN TG_TGSP_SEC_MANIFEST

static const struct fault faults[] = {
    {HDR,                    "\"tgsp\":\"1.0\"",             "\"tgsp\":\"1.1\"",                                         TG_E_UNSUPPORTED, "header.tgsp"            },
    {HDR,                    "chacha20-poly1305",            "chacha20-poly1304",                                        TG_E_UNSUPPORTED, "header.aead"            },
    {HDR,                    "x25519-ml-kem-768",            "x25519",                                                   TG_E_UNSUPPORTED, "header.kem"             },
    {HDR,                    "ed25519-ml-dsa-65",            "ed25519",                                                  TG_E_UNSUPPORTED, "header.sig"             },
    {HDR,                    "sha-256",                      "sha-512",                                                  TG_E_UNSUPPORTED, "header.hash"            },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[\"header.new\"]",                                TG_E_FORMAT,      "does not exist"         },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[\"header.new\"],\"new\":1",                      TG_E_UNSUPPORTED, "header.new"             },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[\"manifest.new\"]",                              TG_E_FORMAT,      "manifest.new"           },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[\"header.aead\",\"header.aead\"]",               TG_E_FORMAT,      "twice"                  },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[\"payload.x\"]",                                 TG_E_UNSUPPORTED, "payload.x"              },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[\"header.\"]",                                   TG_E_FORMAT,      "dotted"                 },
    {HDR,                    "\"crit\":[]",                  "\"crit\":null",                                            TG_E_FORMAT,      "header.crit"            },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[],\"crit\":[]",                                  TG_E_FORMAT,      "header"                 },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[],\"cri\\u0074\":[]",                            TG_E_FORMAT,      "header"                 },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[],\"x\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]",      TG_E_FORMAT,
     "deep"                                                                                                                                                         },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[],\"x\":-1",                                     TG_E_FORMAT,      "header"                 },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[],\"x\":1.0",                                    TG_E_FORMAT,      "header"                 },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[],\"x\":1e3",                                    TG_E_FORMAT,      "header"                 },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[],\"x\":9007199254740992",                       TG_E_FORMAT,      "header"                 },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[],\"x\":\"\\u0000\"",                            TG_E_FORMAT,      "header"                 },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[],\"x\":\"\\ud800\"",                            TG_E_FORMAT,      "header"                 },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[]} ,{",                                          TG_E_FORMAT,      "header"                 },
    {HDR,                    "\"crit\":[]",                  "",                                                         TG_E_FORMAT,      "header"                 },
    {HDR,                    "{\"tgsp\"",                    "\xef\xbb\xbf{\"tgsp\"",                                    TG_E_FORMAT,      "header"                 },
    {HDR,                    "\"chunk_size\":1048576",       "\"chunk_size\":1048575",                                   TG_E_FORMAT,      "chunk_size"             },
    {HDR,                    "\"chunk_size\":1048576",       "\"chunk_size\":33554432",                                  TG_E_FORMAT,      "chunk_size"             },
    {HDR,                    "\"chunk_size\":1048576",       "\"chunk_size\":0",                                         TG_E_FORMAT,      "chunk_size"             },
    {HDR,                    "\"payload_plain_len\":4101",   "\"payload_plain_len\":4102",                               TG_E_FORMAT,      "payload"                },
    {HDR,                    "\"payload_plain_len\":4101",   "\"payload_plain_len\":9007199254740991",                   TG_E_FORMAT,
     "payload_plain_len"                                                                                                                                            },
    {HDR,                    "\"created_at\":\"2026",        "\"created_at\":\"2026-",                                   TG_E_FORMAT,      "created_at"             },
    {HDR,                    "\"created_at\":\"2026-02-02T", "\"created_at\":\"2026-02-30T",                             TG_E_FORMAT,
     "created_at"                                                                                                                                                   },
    {MAN,                    "\"name\":\"m\"",               "\"name\":\"\"",                                            TG_E_FORMAT,      "manifest.model.name"    },
    {MAN,                    "\"name\":\"m\"",               "\"name\":7",                                               TG_E_FORMAT,      "manifest.model.name"    },
    {MAN,                    "\"sequence\":7",               "\"sequence\":7,\"floor\":8",                               TG_E_FORMAT,      "floor"                  },
    {MAN,                    "\"format\":\"other\"",         "\"format\":\"exe\"",                                       TG_E_FORMAT,      "manifest.model.format"  },
    {MAN,                    "\"path\":\"a\"",               "\"path\":\"../a\"",                                        TG_E_FORMAT,      "'.' or '..'"            },
    {MAN,                    "\"path\":\"a\"",               "\"path\":\"/a\"",                                          TG_E_FORMAT,      "empty segment"          },
    {MAN,                    "\"path\":\"a\"",               "\"path\":\"a\\\\b\"",                                      TG_E_FORMAT,      "backslash"              },
    {MAN,                    "\"path\":\"a\"",               "\"path\":\"a\\n\"",                                        TG_E_FORMAT,      "control"                },
    {MAN,                    "\"path\":\"a\"",               "\"path\":\"c\"",                                           TG_E_FORMAT,      "byte order"             },
    {MAN,                    "\"path\":\"a\"",               "\"path\":\"b\"",                                           TG_E_FORMAT,      "byte order"             },
    {MAN,                    "\"path\":\"a\"",               "\"path\":\"B\"",                                           TG_E_FORMAT,      "collide"                },
    {MAN,                    "\"offset\":4096",              "\"offset\":4097",                                          TG_E_FORMAT,      "offset"                 },
    {MAN,                    "\"offset\":4096",              "\"offset\":0",                                             TG_E_FORMAT,      "offset"                 },
    {MAN,                    "\"size\":5,\"offset\":4096",   "\"size\":6,\"offset\":4096",                               TG_E_FORMAT,
     "manifest.files"                                                                                                                                               },
    {MAN,                    "\"size\":5,\"offset\":4096",   "\"size\":4,\"offset\":4096",                               TG_E_FORMAT,
     "manifest.files"                                                                                                                                               },
    {MAN,                    "\"size\":5",                   "\"size\":9007199254740991",                                TG_E_FORMAT,      "manifest.files"         },
    {MAN,                    "\"chunks\":1",                 "\"chunks\":2",                                             TG_E_FORMAT,      "manifest.payload.chunks"},
    {MAN,                    "\"chunk_digests\":\"",         "\"chunk_digests\":\"AAAA",                                 TG_E_FORMAT,      "chunk_digests"          },
    {MAN,                    "\"payload\":{",                "\"validity\":{\"until\":1},\"payload\":{",                 TG_E_FORMAT,      "until"                  },
    {MAN,                    "\"payload\":{",                "\"constraints\":{\"gpu\":1},\"payload\":{",                TG_E_FORMAT,      "gpu"                    },
    {MAN,                    "\"payload\":{",                "\"constraints\":{\"fleets\":[]},\"payload\":{",            TG_E_FORMAT,      "fleets"                 },
    {MAN,                    "\"payload\":{",                "\"constraints\":{\"min_agent\":\"01.0.0\"},\"payload\":{", TG_E_FORMAT,
     "min_agent"                                                                                                                                                    },
    {MAN,                    "\"payload\":{",                "\"provenance\":[],\"payload\":{",                          TG_E_FORMAT,      "provenance"             },
    {MAN,                    "{\"model\"",                   "[{\"model\"",                                              TG_E_FORMAT,      "manifest"               },
    {TG_TGSP_SEC_RECIPIENTS, "\"recipients\":[",             "\"recipients\":[],\"r\":[",                                TG_E_FORMAT,
     "recipients"                                                                                                                                                   },
 /* well signed, well formed, but not what the file key was committed to */
    {MAN,                    "\"size\":5,\"offset\":0",      "\"size\":6,\"offset\":0",                                  TG_E_AUTH,        "key_commitment"         },
    {MAN,                    "\"version\":\"1\"",            "\"version\":\"2\"",                                        TG_E_AUTH,        "key_commitment"         },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[],\"x\":1",                                      TG_OK,            ""                       },
    {HDR,                    "\"crit\":[]",                  "\"crit\":[\"header.aead\"]",                               TG_OK,            ""                       },
};

static void test_signed_faults(void **state)
{
    struct fx *f = *state;
    for (size_t i = 0; i < TG_ARRAY_LEN(faults); i++) {
        struct tg_err err = TG_ERR_INIT;
        struct parts x = parts_of(&small);
        replace(&x.sec[faults[i].section], faults[i].from, faults[i].to);
        struct tg_buf pkg = together(&x, f->author);
        enum tg_rc rc = fx_open_all(tg_buf_view(&pkg), trust, f->device, NULL, &err);
        if (rc != faults[i].rc || !strstr(err.msg, faults[i].text))
            fail_msg("'%s' -> '%s': %s, '%s'", faults[i].from, faults[i].to, tg_rc_name(rc),
                     err.msg);
        tg_buf_done(&pkg);
        parts_done(&x);
    }
}

/* ---- keys and signatures
 * ------------------------------------------------------------------------------ */

static struct tg_tgsp_signatures sigs_of(const struct parts *x, struct tg_arena *a)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_tgsp_signatures s;
    assert_ok(tg_tgsp_signatures_decode(tg_buf_view(&x->sec[TG_TGSP_SEC_SIGNATURES]), a, &s, &err));
    return s;
}

static struct tg_buf with_sigs(struct parts *x, const struct tg_tgsp_signatures *s)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_buf out = TG_BUF_INIT((size_t)1 << 20);
    tg_buf_clear(&x->sec[TG_TGSP_SEC_SIGNATURES]);
    assert_ok(tg_tgsp_signatures_encode(s, &x->sec[TG_TGSP_SEC_SIGNATURES], &err));
    assert_ok(tg_buf_append(&out, TG_TGSP_MAGIC, TG_TGSP_MAGIC_LEN));
    for (int k = 0; k < TG_TGSP_SEC_COUNT; k++) {
        if (k == TG_TGSP_SEC_PAYLOAD)
            assert_ok(tg_buf_be64(&out, x->sec[k].n));
        else
            assert_ok(tg_buf_be32(&out, (uint32_t)x->sec[k].n));
        assert_ok(tg_buf_bytes(&out, tg_buf_view(&x->sec[k])));
    }
    return out;
}

/* Halves from two packages by the same author; one half zeroed; one half missing. */
static void test_signature_halves(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_arena_freep) struct tg_arena *a = NULL;
    assert_ok(tg_arena_new(1 << 20, &a));
    struct tg_buf second = fx_build(f, "s", NULL);
    struct parts x = parts_of(&small), y = parts_of(&second);
    struct tg_tgsp_signatures sx = sigs_of(&x, a), sy = sigs_of(&y, a);
    struct tg_tgsp_signature *e = sx.signatures.items, saved = *e;
    const struct tg_tgsp_signature *o = sy.signatures.items;
    memcpy(e->sig_pqc, o->sig_pqc, sizeof e->sig_pqc);
    struct tg_buf b = with_sigs(&x, &sx);
    assert_int_equal(refused(f, tg_buf_view(&b), &err), TG_E_AUTH);
    assert_contains(err.msg, "not valid for these bytes");
    tg_buf_done(&b);
    *e = saved;
    memcpy(e->sig_classic, o->sig_classic, sizeof e->sig_classic);
    b = with_sigs(&x, &sx);
    assert_int_equal(refused(f, tg_buf_view(&b), &err), TG_E_AUTH);
    tg_buf_done(&b);
    *e = saved;
    memset(e->sig_pqc, 0, sizeof e->sig_pqc);
    b = with_sigs(&x, &sx);
    assert_int_equal(refused(f, tg_buf_view(&b), &err), TG_E_AUTH);
    tg_buf_done(&b);
    *e = saved;
    b = with_sigs(&x, &sx);
    tg_buf_done(&b);
    replace(&x.sec[TG_TGSP_SEC_SIGNATURES], "\"sig_classic\"", "\"sig_classik\"");
    b = TG_BUF_INIT((size_t)1 << 20);
    assert_ok(tg_buf_append(&b, small.data, small.n - 4 - y.sec[TG_TGSP_SEC_SIGNATURES].n));
    assert_ok(tg_buf_be32(&b, (uint32_t)x.sec[TG_TGSP_SEC_SIGNATURES].n));
    assert_ok(tg_buf_bytes(&b, tg_buf_view(&x.sec[TG_TGSP_SEC_SIGNATURES])));
    assert_int_equal(refused(f, tg_buf_view(&b), &err), TG_E_FORMAT);
    assert_contains(err.msg, "sig_classic: is missing");
    tg_buf_done(&b);
    tg_buf_done(&second);
    parts_done(&x);
    parts_done(&y);
}

/* S + L in place of S: RFC 8032 refuses what older code accepts. */
static void test_signature_malleability(void **state)
{
    /* clang-format off */
    static const uint8_t order[32] = {0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58,
                                      0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
                                      0,    0,    0,    0,    0,    0,    0,    0,
                                      0,    0,    0,    0,    0,    0,    0,    0x10};
    /* clang-format on */
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_arena_freep) struct tg_arena *a = NULL;
    assert_ok(tg_arena_new(1 << 20, &a));
    struct parts x = parts_of(&small);
    struct tg_tgsp_signatures s = sigs_of(&x, a);
    struct tg_tgsp_signature *e = s.signatures.items;
    unsigned carry = 0;
    for (size_t i = 0; i < 32; i++) {
        carry += (unsigned)e->sig_classic[32 + i] + order[i];
        e->sig_classic[32 + i] = (uint8_t)carry;
        carry >>= 8;
    }
    struct tg_buf b = with_sigs(&x, &s);
    assert_int_equal(refused(*state, tg_buf_view(&b), &err), TG_E_AUTH);
    tg_buf_done(&b);
    parts_done(&x);
}

/* A trusted key's id over a stranger's signature. */
static void test_wrong_key(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_arena_freep) struct tg_arena *a = NULL;
    assert_ok(tg_arena_new(1 << 20, &a));
    struct parts x = parts_of(&small);
    struct tg_buf b = together(&x, f->stranger);
    assert_int_equal(refused(f, tg_buf_view(&b), &err), TG_E_AUTH);
    assert_contains(err.msg, "none is by a trusted key");
    tg_buf_done(&b);
    struct tg_tgsp_signatures s = sigs_of(&x, a);
    struct tg_tgsp_signature *e = s.signatures.items;
    memcpy(e->key_id, tg_sign_pk_id(tg_sign_sk_pk(f->author)), 16);
    b = with_sigs(&x, &s);
    assert_int_equal(refused(f, tg_buf_view(&b), &err), TG_E_AUTH);
    assert_contains(err.msg, "not valid for these bytes");
    tg_buf_done(&b);
    parts_done(&x);
}

/* Blocks in the recipients section that an author signed, changed in one place each. */
enum { BLOCK_STRANGER, BLOCK_LOW_ORDER, BLOCK_CT, BLOCK_WRAPPED, BLOCK_TWICE, BLOCK_KINDS };

static void block_damage(struct fx *f, struct tg_tgsp_recipients *r, struct tg_tgsp_recipient v[2],
                         int kind)
{
    struct tg_tgsp_header h = {.aead = TG_AEAD_CHACHA20_POLY1305};
    struct tg_wrap w = tg_wrap_recipient(&h);
    uint8_t key[32] = {1};
    v[0] = *(struct tg_tgsp_recipient *)r->recipients.items;
    v[1] = v[0];
    r->recipients = (struct tg_jlist){v, kind == BLOCK_TWICE ? 2 : 1};
    if (kind == BLOCK_STRANGER) /* sealed for our device, but for another package and file key */
        assert_int_equal(tg_wrap_seal(&w, tg_kem_sk_pk(f->device), NULL, key, &v[0]), TG_OK);
    if (kind == BLOCK_LOW_ORDER)
        memset(v[0].x25519_epk, 0, 32);
    if (kind == BLOCK_CT)
        v[0].mlkem768_ct[500] ^= 1;
    if (kind == BLOCK_WRAPPED)
        v[0].wrapped_key[0] ^= 1;
}

static void test_recipient_blocks(void **state)
{
    struct fx *f = *state;
    for (int kind = 0; kind < BLOCK_KINDS; kind++) {
        struct tg_err err = TG_ERR_INIT;
        TG_AUTO(tg_arena_freep) struct tg_arena *a = NULL;
        struct tg_tgsp_recipients r;
        struct tg_tgsp_recipient v[2];
        struct parts x = parts_of(&small);
        assert_ok(tg_arena_new(1 << 20, &a));
        assert_ok(
            tg_tgsp_recipients_decode(tg_buf_view(&x.sec[TG_TGSP_SEC_RECIPIENTS]), a, &r, &err));
        block_damage(f, &r, v, kind);
        tg_buf_clear(&x.sec[TG_TGSP_SEC_RECIPIENTS]);
        assert_ok(tg_tgsp_recipients_encode(&r, &x.sec[TG_TGSP_SEC_RECIPIENTS], &err));
        struct tg_buf b = together(&x, f->author);
        assert_int_equal(refused(f, tg_buf_view(&b), &err),
                         kind == BLOCK_TWICE ? TG_E_FORMAT : TG_E_AUTH);
        assert_contains(err.msg, kind == BLOCK_TWICE ? "stands twice" : "does not open");
        tg_buf_done(&b);
        parts_done(&x);
    }
}

/* All low-order points, as a recipient's share. */
static void test_low_order_shares(void **state)
{
    /* clang-format off */
    static const uint8_t points[][32] = {
        {0    },
        {     1   },
        { 0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3,
         0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32,
         0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
        { 0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1,
         0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c,
         0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
    };
    /* clang-format on */
    struct fx *f = *state;
    for (size_t i = 0; i < TG_ARRAY_LEN(points); i++) {
        struct tg_kem_ct ct;
        uint8_t ss[32];
        assert_int_equal(tg_kem_encap(tg_kem_sk_pk(f->device), NULL, &ct, ss), TG_OK);
        memcpy(ct.epk, points[i], 32);
        assert_int_equal(tg_kem_decap(f->device, &ct, ss), TG_E_AUTH);
        for (size_t k = 0; k < 32; k++)
            assert_int_equal(ss[k], 0);
        uint8_t pk[TG_KEM_PK_LEN];
        memcpy(pk, tg_kem_pk_raw(tg_kem_sk_pk(f->device)).p, sizeof pk);
        memcpy(pk, points[i], 32);
        TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *low = NULL;
        assert_int_equal(tg_kem_pk_new(TG_BYTES_OF(pk), &low), TG_OK);
        assert_int_equal(tg_kem_encap(low, NULL, &ct, ss), TG_E_AUTH);
    }
}

static void put_b64(struct tg_buf *json, const char *key, const uint8_t md[32])
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_buf text = TG_BUF_INIT(64);
    char *at = strstr((char *)json->data, key);
    assert_non_null(at);
    assert_ok(tg_b64url_encode(tg_bytes_make(md, 32), &text));
    memcpy(at + strlen(key), text.data, text.n);
    tg_buf_done(&text);
}

/* The payload's only chunk with plaintext byte `at` set, sealed under the real key, its digest,
 * hashes and commitment made anew: all an author who hides bytes between files could do. */
static struct tg_buf with_plain_byte(struct fx *f, size_t at, uint8_t value)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_tgsp_header h;
    struct tg_tgsp_recipients r;
    struct tg_aead_ctx *aead = NULL;
    struct tg_chunk_hasher hasher;
    uint8_t file_key[32], key[32], nonce[12], md[32], plain[8192];
    TG_AUTO(tg_arena_freep) struct tg_arena *a = NULL;
    struct parts x = parts_of(&small);
    struct tg_buf *payload = &x.sec[TG_TGSP_SEC_PAYLOAD], *header = &x.sec[HDR];
    assert_ok(tg_arena_new(1 << 20, &a));
    assert_ok(tg_tgsp_header_decode(tg_buf_view(header), a, &h, &err));
    assert_ok(tg_tgsp_recipients_decode(tg_buf_view(&x.sec[TG_TGSP_SEC_RECIPIENTS]), a, &r, &err));
    struct tg_wrap w = tg_wrap_recipient(&h);
    assert_ok(tg_wrap_open(&w, f->device, r.recipients.items, file_key));
    assert_ok(tg_payload_key(&h, file_key, key));
    assert_ok(tg_aead_new(h.aead, key, &aead));
    tg_chunk_nonce(0, true, nonce);
    assert_ok(tg_aead_open(aead, nonce, TG_BYTES_NONE, tg_buf_view(payload), plain));
    plain[at] = value;
    assert_ok(tg_aead_seal(aead, nonce, TG_BYTES_NONE, tg_bytes_make(plain, payload->n - 16),
                           payload->data));
    assert_ok(tg_chunk_hasher_init(&hasher));
    assert_ok(tg_chunk_digest(&hasher, tg_buf_view(payload), md));
    put_b64(&x.sec[MAN], "\"chunk_digests\":\"", md);
    assert_ok(tg_sha256(tg_buf_view(&x.sec[MAN]), h.manifest_sha256));
    assert_ok(tg_key_commitment(&h, file_key, md));
    put_b64(header, "\"key_commitment\":\"", md);
    struct tg_buf out = together(&x, f->author);
    tg_chunk_hasher_done(&hasher);
    tg_aead_free(aead);
    parts_done(&x);
    return out;
}

static void test_gaps_must_be_zero(void **state)
{
    struct fx *f = *state;
    static const size_t gap[] = {5, 6, 2000, 4095};
    for (size_t i = 0; i < TG_ARRAY_LEN(gap); i++) {
        struct tg_err err = TG_ERR_INIT;
        struct tg_buf b = with_plain_byte(f, gap[i], 1);
        assert_int_equal(refused(f, tg_buf_view(&b), &err), TG_E_FORMAT);
        assert_contains(err.msg, "not zero before manifest.files[1]");
        tg_buf_done(&b);
    }
    /* inside the files any byte is fine: the test makes what it says */
    static const size_t inside[] = {0, 4, 4096, 4100};
    for (size_t i = 0; i < TG_ARRAY_LEN(inside); i++) {
        struct tg_err err = TG_ERR_INIT;
        struct tg_buf b = with_plain_byte(f, inside[i], 0xff);
        TG_AUTO(tg_buf_done) struct tg_buf plain = TG_BUF_INIT(8192);
        assert_ok(fx_open_all(tg_buf_view(&b), trust, f->device, &plain, &err));
        assert_int_equal(plain.data[inside[i]], 0xff);
        tg_buf_done(&b);
    }
}

/* Chunks swapped, doubled or cut out: the digest in the manifest sees it, and so does the nonce. */
static void test_chunks_out_of_place(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    uint8_t big[3 * 65536] = {0};
    fx_mkdir(f, "big");
    fx_write(f, "big/a", big, sizeof big);
    TG_AUTO(tg_tgsp_inputs_freep) struct tg_tgsp_inputs *in = NULL;
    assert_ok(tg_tgsp_inputs_scan(fx_path(f, "big"), &in, &err));
    struct tg_tgsp_build b = fx_build_spec(f, in);
    b.chunk_size = TG_TGSP_CHUNK_MIN;
    assert_ok(tg_tgsp_build(&b, fx_path(f, "big.tgsp"), true, NULL, &err));
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_read(fx_path(f, "big.tgsp"));
    struct parts x = parts_of(&pkg);
    uint8_t *p =
        pkg.data + (pkg.n - 4 - x.sec[TG_TGSP_SEC_SIGNATURES].n - x.sec[TG_TGSP_SEC_PAYLOAD].n);
    const size_t stored = 65536 + 16;
    uint8_t *keep = malloc(stored);
    assert_ok(fx_open_all(tg_buf_view(&pkg), trust, f->device, NULL, &err));
    memcpy(keep, p, stored); /* swap 0 and 1 */
    memcpy(p, p + stored, stored);
    memcpy(p + stored, keep, stored);
    assert_int_equal(refused(f, tg_buf_view(&pkg), &err), TG_E_AUTH);
    assert_contains(err.msg, "chunk 0: its digest");
    memcpy(p + stored, p, stored); /* 1 twice */
    assert_int_equal(refused(f, tg_buf_view(&pkg), &err), TG_E_AUTH);
    free(keep);
    parts_done(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_cut_everywhere),
        cmocka_unit_test(test_trailing),
        cmocka_unit_test(test_lying_lengths),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_signed_faults),
        cmocka_unit_test(test_signature_halves),
        cmocka_unit_test(test_signature_malleability),
        cmocka_unit_test(test_wrong_key),
        cmocka_unit_test(test_recipient_blocks),
        cmocka_unit_test(test_low_order_shares),
        cmocka_unit_test(test_gaps_must_be_zero),
        cmocka_unit_test(test_chunks_out_of_place),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
