#include <stdlib.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "tensor/npy.h"

static struct tg_err err;

/* A file with this header text, version major.0, and n bytes of data (0, 1, 2, ...). */
static void make(struct tg_buf *b, unsigned major, const char *header, size_t n)
{
    size_t len = strlen(header);

    tg_buf_clear(b);
    assert_ok(tg_buf_append(b, "\x93NUMPY", 6));
    assert_ok(tg_buf_u8(b, (uint8_t)major));
    assert_ok(tg_buf_u8(b, 0));
    for (unsigned i = 0; i < (major == 1 ? 2u : 4u); i++)
        assert_ok(tg_buf_u8(b, (uint8_t)(len >> (8 * i))));
    assert_ok(tg_buf_str(b, header));
    for (size_t i = 0; i < n; i++)
        assert_ok(tg_buf_u8(b, (uint8_t)i));
}

static void numpys_own_headers_are_read(void **state)
{
    static const struct {
        unsigned major;
        const char *header;
        enum tg_dtype dtype;
        size_t dims, n;
    } rows[] = {
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n",   TG_DT_FP32,  2, 24},
        {2, "{'descr': '|u1', 'fortran_order': False, 'shape': (5,), }\n",        TG_DT_UINT8, 1, 5 },
        {3, "{'descr': '<i8', 'fortran_order': False, 'shape': (), }\n",          TG_DT_INT64, 0, 8 },
        {1, "{'shape': (0, 7), 'descr': '<f2', 'fortran_order': False}",          TG_DT_FP16,  2, 0 },
        {1, "{\"descr\": \"<f8\", \"fortran_order\": False, \"shape\": (1,1,1)}", TG_DT_FP64,  3, 8 },
    };
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(4096);
    struct tg_npy npy;

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        make(&b, rows[i].major, rows[i].header, rows[i].n);
        assert_ok(tg_npy_parse(tg_buf_view(&b), "a.npy", &npy, &err));
        assert_int_equal(npy.dtype, rows[i].dtype);
        assert_int_equal(npy.shape.n, rows[i].dims);
        assert_int_equal(npy.data.n, rows[i].n);
    }
}

static void everything_else_is_refused_with_a_reason(void **state)
{
    static const struct {
        const char *header;
        size_t n;
        enum tg_rc rc;
        const char *why;
    } rows[] = {
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}",                     4, TG_E_UNSUPPORTED, "'>f4'"        },
        {"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",                      4, TG_E_UNSUPPORTED, "'|O'"         },
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",            4, TG_E_UNSUPPORTED,
         "one plain type"                                                                                                   },
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (1,)}",                      4, TG_E_UNSUPPORTED, "Fortran"      },
        {"{'descr': '<f4', 'fortran_order': None, 'shape': (1,)}",                      4, TG_E_FORMAT,      "neither"      },
        {"{'descr': '<f4', 'fortran_order': False}",                                    4, TG_E_FORMAT,      "exactly"      },
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",     4, TG_E_FORMAT,
         "repeated"                                                                                                         },
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}",             4, TG_E_FORMAT,
         "unknown"                                                                                                          },
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",                     4, TG_E_FORMAT,
         "4 bytes of data, but FP32 [2] takes 8"                                                                            },
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",                     5, TG_E_FORMAT,      "5 bytes"      },
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",                    4, TG_E_FORMAT,      "sizes"        },
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",  4,
         TG_E_FORMAT,                                                                                        "sizes"        },
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 4)}", 4,
         TG_E_LIMIT,                                                                                         "not possible" },
        {"{'descr': '<f4', 'fortran_order': False, 'shape': "
         "(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)}",                               4, TG_E_LIMIT,       "16 dimensions"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x",                   4, TG_E_FORMAT,      "exactly"      },
        {"__import__('os')",                                                            4, TG_E_FORMAT,      "dictionary"   },
        {"{'descr': '|b1', 'fortran_order': False, 'shape': (3,)}",                     3, TG_E_FORMAT,      "element 2"    },
    };
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(4096);
    struct tg_npy npy;

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        make(&b, 1, rows[i].header, rows[i].n);
        assert_rc(tg_npy_parse(tg_buf_view(&b), "a.npy", &npy, &err), rows[i].rc);
        assert_contains(err.msg, rows[i].why);
        assert_contains(err.msg, "a.npy");
    }
}

static void cut_anywhere_is_an_error(void **state)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(4096);
    struct tg_npy npy;

    (void)state;
    make(&b, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n", 24);
    for (size_t n = 0; n < b.n; n++) {
        uint8_t *cut = malloc(n + 1); /* exact size: a sanitizer sees any read beyond */

        memcpy(cut, b.data, n);
        assert_true(tg_npy_parse(tg_bytes_make(cut, n), "a.npy", &npy, &err) != TG_OK);
        free(cut);
    }
}

static void huge_header_length_is_refused(void **state)
{
    static const uint8_t file[] = "\x93NUMPY\x02\x00\xff\xff\xff\xff";
    struct tg_npy npy;

    (void)state;
    assert_rc(tg_npy_parse(tg_bytes_make(file, 12), "a.npy", &npy, &err), TG_E_LIMIT);
}

static void what_is_written_is_read_back(void **state)
{
    static const uint8_t data[48] = {1, 0, 1};

    (void)state;
    for (size_t t = 0; t < TG_DT_BYTES; t++) {
        TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(4096);
        struct tg_npy in =
                          {
                              .dtype = (enum tg_dtype)t, .shape = {{2, 3}, 2}
        },
                      out;

        in.data = tg_bytes_make(data, 6 * tg_dtype_size(in.dtype));
        assert_ok(tg_npy_write(&in, &b, &err));
        assert_int_equal((b.n - in.data.n) % 64, 0);
        assert_ok(tg_npy_parse(tg_buf_view(&b), "b.npy", &out, &err));
        assert_int_equal(out.dtype, t);
        assert_true(tg_shape_eq(&in.shape, &out.shape));
        assert_true(tg_bytes_eq(in.data, out.data));
    }
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(4096);
    struct tg_npy in = {.dtype = TG_DT_BYTES, .shape = {.n = 0}};

    assert_rc(tg_npy_write(&in, &b, &err), TG_E_UNSUPPORTED);
    assert_int_equal(b.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numpys_own_headers_are_read),
        cmocka_unit_test(everything_else_is_refused_with_a_reason),
        cmocka_unit_test(cut_anywhere_is_an_error),
        cmocka_unit_test(huge_header_length_is_refused),
        cmocka_unit_test(what_is_written_is_read_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
