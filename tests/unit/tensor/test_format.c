/* Formats told by content: a small real example of each, and what must not be taken for one. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../tg_cmocka.h"
#include "base/bytes.h"
#include "tensor/format.h"

static enum tg_format probe(const void *p, size_t n)
{
    int fd = memfd_create("model", MFD_CLOEXEC);
    struct tg_err err = TG_ERR_INIT;
    enum tg_format f = TG_FORMAT_OTHER;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, n), (ssize_t)n);
    assert_int_equal(tg_format_probe(fd, "model", &f, &err), TG_OK);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), (off_t)n);
    (void)close(fd);
    return f;
}

/* ModelProto: ir_version 8, producer "t", opset_import { version 17 }, graph { name "g" }. */
static const uint8_t ONNX[] = {0x08, 8, 0x12, 1, 't', 0x42, 2, 0x10, 17, 0x3a, 3, 0x12, 1, 'g'};
/* SavedModel: schema version 1, one meta graph with an empty meta_info_def. */
static const uint8_t SAVED[] = {0x08, 1, 0x12, 2, 0x0a, 0};
static const uint8_t TFLITE[] = {0x1c, 0, 0, 0, 'T', 'F', 'L', '3', 0, 0, 0, 0, 0, 0, 0, 0,
                                 0,    0, 0, 0, 0,   0,   0,   0,   0, 0, 0, 0, 4, 0, 4, 0};

static size_t safetensors(char *out, const char *header, size_t data)
{
    size_t n = strlen(header);
    memset(out, 0, 8 + n + data);
    out[0] = (char)n;
    memcpy(out + 8, header, n);
    return 8 + n + data;
}

static void put16(uint8_t **p, unsigned v)
{
    *(*p)++ = (uint8_t)v;
    *(*p)++ = (uint8_t)(v >> 8);
}

static void put32(uint8_t **p, unsigned v)
{
    put16(p, v & 0xffff);
    put16(p, v >> 16);
}

/* A ZIP of empty stored files with these names. */
static size_t zip(uint8_t *out, const char *const *names, size_t n, const char *comment)
{
    uint8_t *p = out;
    unsigned at[8];

    for (size_t i = 0; i < n; i++) {
        at[i] = (unsigned)(p - out);
        memcpy(p, "PK\3\4", 4);
        memset(p + 4, 0, 26);
        p[26] = (uint8_t)strlen(names[i]);
        memcpy(p + 30, names[i], strlen(names[i]));
        p += 30 + strlen(names[i]);
    }
    unsigned dir = (unsigned)(p - out);
    for (size_t i = 0; i < n; i++) {
        memcpy(p, "PK\1\2", 4);
        memset(p + 4, 0, 42);
        p[28] = (uint8_t)strlen(names[i]);
        uint8_t *off = p + 42;
        put32(&off, at[i]);
        memcpy(p + 46, names[i], strlen(names[i]));
        p += 46 + strlen(names[i]);
    }
    unsigned dir_len = (unsigned)(p - out) - dir;
    memcpy(p, "PK\5\6", 4);
    p += 4;
    put32(&p, 0);
    put16(&p, (unsigned)n);
    put16(&p, (unsigned)n);
    put32(&p, dir_len);
    put32(&p, dir);
    put16(&p, (unsigned)strlen(comment));
    memcpy(p, comment, strlen(comment));
    return (size_t)(p - out) + strlen(comment);
}

static void each_format_is_recognised(void **state)
{
    static const char *const names[] = {"archive/data.pkl", "archive/data/0", "archive/version"};
    uint8_t buf[4096];
    (void)state;

    assert_int_equal(probe(ONNX, sizeof(ONNX)), TG_FORMAT_ONNX);
    assert_int_equal(probe(SAVED, sizeof(SAVED)), TG_FORMAT_SAVEDMODEL);
    assert_int_equal(probe(TFLITE, sizeof(TFLITE)), TG_FORMAT_TFLITE);
    size_t n = safetensors((char *)buf,
                           "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}  ", 4);
    assert_int_equal(probe(buf, n), TG_FORMAT_SAFETENSORS);
    n = safetensors((char *)buf, "{}", 0);
    assert_int_equal(probe(buf, n), TG_FORMAT_SAFETENSORS);
    n = zip(buf, names, 3, "");
    assert_int_equal(probe(buf, n), TG_FORMAT_PYTORCH);
    n = zip(buf, names, 3, "a comment");
    assert_int_equal(probe(buf, n), TG_FORMAT_PYTORCH);
}

static void others_are_not(void **state)
{
    static const char *const plain[] = {"notes.txt", "version"};
    static const char *const two_tops[] = {"a/data.pkl", "b/version"};
    static const char text[] = "{\"dtype\": \"F32\"} is what a text about tensors may say\n";
    static const uint8_t pickle[] = {0x80, 2, 0x8a, 10, 'l', 0xfc, 0x9c, 'F', 0xf9, ' ', 'j', 0xa8};
    uint8_t buf[4096] = {0};
    (void)state;

    assert_int_equal(probe("", 0), TG_FORMAT_OTHER);
    assert_int_equal(probe(text, sizeof(text)), TG_FORMAT_OTHER);
    assert_int_equal(probe(pickle, sizeof(pickle)), TG_FORMAT_OTHER);
    assert_int_equal(probe(buf, sizeof(buf)), TG_FORMAT_OTHER);
    size_t n = zip(buf, plain, 2, "");
    assert_int_equal(probe(buf, n), TG_FORMAT_OTHER);
    n = zip(buf, two_tops, 2, "");
    assert_int_equal(probe(buf, n), TG_FORMAT_OTHER);
    n = safetensors((char *)buf, "{\"key\":\"just JSON with a length before it\"}", 0);
    assert_int_equal(probe(buf, n), TG_FORMAT_OTHER);
    /* A header that says it is longer than the file. */
    n = safetensors((char *)buf, "{\"w\":{\"dtype\":\"F32\"}}", 0);
    buf[0]++;
    assert_int_equal(probe(buf, n), TG_FORMAT_OTHER);
}

static void cut_files_are_other(void **state)
{
    static const char *const names[] = {"m/data.pkl", "m/version"};
    uint8_t buf[1024];
    (void)state;

    size_t n = zip(buf, names, 2, "");
    for (size_t i = 0; i < n; i++)
        assert_int_equal(probe(buf, i), TG_FORMAT_OTHER);
    for (size_t i = 0; i < sizeof(ONNX); i++)
        assert_int_equal(probe(ONNX, i), TG_FORMAT_OTHER);
    for (size_t i = 0; i < sizeof(SAVED); i++)
        assert_int_equal(probe(SAVED, i), TG_FORMAT_OTHER);
}

/* Whatever the bytes are, an answer comes, and soon. Seeded; the seed is the test's. */
static void noise_never_harms(void **state)
{
    static const char *const names[] = {"m/data.pkl", "m/version"};
    uint8_t base[3][1024];
    uint8_t buf[1024];
    size_t len[3];
    unsigned seed = 20260131;
    (void)state;

    len[0] = zip(base[0], names, 2, "x");
    memcpy(base[1], ONNX, len[1] = sizeof(ONNX));
    len[2] = safetensors((char *)base[2], "{\"w\":{\"dtype\":\"F32\"}}", 4);
    for (int round = 0; round < 3000; round++) {
        size_t which = (size_t)round % 3;
        memcpy(buf, base[which], len[which]);
        for (int k = 0; k < 1 + round % 4; k++)
            buf[(size_t)rand_r(&seed) % len[which]] = (uint8_t)rand_r(&seed);
        (void)probe(buf, len[which]);
    }
}

static void a_savedmodel_names_its_folder(void **state)
{
    (void)state;
    assert_int_equal(tg_format_prefer(TG_FORMAT_ONNX, TG_FORMAT_SAVEDMODEL), TG_FORMAT_SAVEDMODEL);
    assert_int_equal(tg_format_prefer(TG_FORMAT_TFLITE, TG_FORMAT_ONNX), TG_FORMAT_ONNX);
    assert_int_equal(tg_format_prefer(TG_FORMAT_OTHER, TG_FORMAT_TFLITE), TG_FORMAT_TFLITE);
    assert_string_equal(tg_format_name(TG_FORMAT_PYTORCH), "pytorch");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_format_is_recognised),     cmocka_unit_test(others_are_not),
        cmocka_unit_test(cut_files_are_other),           cmocka_unit_test(noise_never_harms),
        cmocka_unit_test(a_savedmodel_names_its_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
