#include <string.h>

#include "../tg_cmocka.h"
#include "base/mem.h"
#include "native/channel.h"
#include "native/protocol.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static struct tg_err err;
static union tg_native_msg m, back;

static void fill(enum tg_native_type type)
{
    tg_native_begin(&m, type);
    switch (type) {
    case TG_NATIVE_HELLO:
        m.hello.oldest = m.hello.newest = 1;
        break;
    case TG_NATIVE_RING:
        m.ring.slots = 4;
        m.ring.n = 2;
        m.ring.bytes[0] = m.ring.bytes[1] = 64;
        break;
    case TG_NATIVE_LIST:
        m.list.from = 3;
        break;
    case TG_NATIVE_TAKE:
        tg_native_text(m.take.path, sizeof(m.take.path), "a/b.tflite");
        break;
    case TG_NATIVE_WELCOME:
        tg_native_text(m.welcome.model, sizeof(m.welcome.model), "net");
        m.welcome.n_in = 2;
        m.welcome.n_out = 1;
        for (size_t i = 0; i < 3; i++) {
            tg_native_text(m.welcome.ports[i].name, TG_NATIVE_NAME_TEXT, "t");
            m.welcome.ports[i].n_dims = 1;
            m.welcome.ports[i].dims[0] = -1;
        }
        break;
    case TG_NATIVE_RING_MADE:
        m.made.map_size = 8192;
        break;
    case TG_NATIVE_FILES:
        m.files.total = m.files.n = 1;
        tg_native_text(m.files.files[0].path, TG_NATIVE_PATH_TEXT, "f");
        break;
    case TG_NATIVE_TAKEN:
        m.taken.size = 7;
        tg_native_text(m.taken.dtype, sizeof(m.taken.dtype), "BF16");
        break;
    case TG_NATIVE_REFUSED:
        m.refused.code = TG_E_DENIED;
        break;
    }
}

static enum tg_native_side side_of(enum tg_native_type type)
{
    return type <= TG_NATIVE_TAKE ? TG_NATIVE_CLIENT : TG_NATIVE_WORKER;
}

static void each_message_comes_back_and_only_from_its_side(void **state)
{
    (void)state;
    for (int t = TG_NATIVE_HELLO; t <= TG_NATIVE_REFUSED; t++) {
        enum tg_native_type type = (enum tg_native_type)t;
        enum tg_native_side side = side_of(type);
        struct tg_bytes b;

        fill(type);
        b = tg_native_seal(&m);
        assert_ok(tg_native_parse(b, side, &back, &err));
        assert_memory_equal(&m, &back, sizeof(m));
        assert_rc(tg_native_parse(b, side == TG_NATIVE_CLIENT ? TG_NATIVE_WORKER : TG_NATIVE_CLIENT,
                                  &back, &err),
                  TG_E_FORMAT);
    }
}

static void cut_or_longer_is_refused(void **state)
{
    (void)state;
    for (int t = TG_NATIVE_HELLO; t <= TG_NATIVE_REFUSED; t++) {
        enum tg_native_type type = (enum tg_native_type)t;
        struct tg_bytes b;
        uint8_t *copy;

        fill(type);
        b = tg_native_seal(&m);
        copy = tg_calloc(1, b.n + 8);
        assert_non_null(copy);
        memcpy(copy, b.p, b.n);
        for (size_t n = 0; n < b.n + 8; n++) {
            if (n == b.n)
                continue;
            /* as it is, and with a size that says so */
            memcpy(copy, b.p, 16);
            assert_rc(tg_native_parse(tg_bytes_make(copy, n), side_of(type), &back, &err),
                      TG_E_FORMAT);
            if (n >= 16) {
                memcpy(copy + 8, &(uint32_t){(uint32_t)n}, 4);
                assert_rc(tg_native_parse(tg_bytes_make(copy, n), side_of(type), &back, &err),
                          TG_E_FORMAT);
            }
        }
        tg_free(copy);
    }
}

/* Each wrong in one field. */
static void wrong_fields_are_refused(void **state)
{
    // clang-format off
    static const struct {
        enum tg_native_type type;
        size_t at;
        uint32_t value;
    } wrong[] = {
        {TG_NATIVE_HELLO,   0,                                                                0       },
        {TG_NATIVE_HELLO,   12,                                                               1       },
        {TG_NATIVE_HELLO,   4,                                                                0       },
        {TG_NATIVE_HELLO,   4,                                                                10      },
        {TG_NATIVE_HELLO,   offsetof(struct tg_native_hello,   oldest),                       2       },
        {TG_NATIVE_RING,    offsetof(struct tg_native_ring,    slots),                        0       },
        {TG_NATIVE_RING,    offsetof(struct tg_native_ring,    slots),                        3       },
        {TG_NATIVE_RING,    offsetof(struct tg_native_ring,    slots),                        32      },
        {TG_NATIVE_RING,    offsetof(struct tg_native_ring,    n),                            129     },
        {TG_NATIVE_RING,    offsetof(struct tg_native_ring,    bytes[2]),                     1       },
        {TG_NATIVE_LIST,    offsetof(struct tg_native_list,    zero),                         1       },
        {TG_NATIVE_TAKE,    offsetof(struct tg_native_take,    path),                         0       },
        {TG_NATIVE_TAKE,    offsetof(struct tg_native_take,    path[20]),                     'x'     },
        {TG_NATIVE_TAKE,    offsetof(struct tg_native_take,    path),                         0xc0c0c0},
        {TG_NATIVE_TAKE,    offsetof(struct tg_native_take,    tensor[256]),                  'x'     },
        {TG_NATIVE_WELCOME, offsetof(struct tg_native_welcome, flags),                        4       },
        {TG_NATIVE_WELCOME, offsetof(struct tg_native_welcome, model),                        0       },
        {TG_NATIVE_WELCOME, offsetof(struct tg_native_welcome, n_in),                         3       },
        {TG_NATIVE_WELCOME, offsetof(struct tg_native_welcome, n_in),                         0xffffff},
        {TG_NATIVE_WELCOME, offsetof(struct tg_native_welcome, ports[0].n_dims),              17      },
        {TG_NATIVE_WELCOME, offsetof(struct tg_native_welcome, ports[1].zero),                1       },
        {TG_NATIVE_WELCOME, offsetof(struct tg_native_welcome, ports[1].dims[1]),             1       },
        {TG_NATIVE_FILES,   offsetof(struct tg_native_files,   n),                            2       },
        {TG_NATIVE_FILES,   offsetof(struct tg_native_files,   total),                        0       },
        {TG_NATIVE_TAKEN,   offsetof(struct tg_native_taken,   n_dims),                       17      },
        {TG_NATIVE_REFUSED, offsetof(struct tg_native_refused, code),                         0       },
        {TG_NATIVE_REFUSED, offsetof(struct tg_native_refused, code),                         99      },
    };

    // clang-format on

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(wrong); i++) {
        struct tg_bytes b;

        fill(wrong[i].type);
        b = tg_native_seal(&m);
        memcpy((uint8_t *)&m + wrong[i].at, &wrong[i].value, sizeof(wrong[i].value));
        if (tg_native_parse(b, side_of(wrong[i].type), &back, &err) != TG_E_FORMAT)
            fail_msg("row %zu was accepted", i);
    }
}

static void text_is_cut_at_a_character(void **state)
{
    char out[6];

    (void)state;
    tg_native_text(out, sizeof(out), "abcd\xc3\xa4");
    assert_string_equal(out, "abcd");
    tg_native_text(out, sizeof(out), "\xff");
    assert_memory_equal(out, "\0\0\0\0\0", sizeof(out));
}

static void messages_cross_a_socket_with_a_descriptor(void **state)
{
    int pair[2], fd = -1, null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    size_t n = 0;
    char room[8];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_rc(tg_channel_recv(pair[1], room, sizeof(room), &n, &fd, &err), TG_E_AGAIN);
    assert_ok(tg_channel_send(pair[0], tg_bytes_str("abc"), null, &err));
    assert_ok(tg_channel_recv(pair[1], room, sizeof(room), &n, &fd, &err));
    assert_int_equal(n, 3);
    assert_true(fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    (void)close(fd);
    assert_ok(tg_channel_send(pair[0], tg_bytes_str("abc"), -1, &err));
    assert_ok(tg_channel_recv(pair[1], room, sizeof(room), &n, &fd, &err));
    assert_int_equal(fd, -1);
    /* one that nobody asked for is dropped by the kernel */
    assert_ok(tg_channel_send(pair[0], tg_bytes_str("abc"), null, &err));
    assert_ok(tg_channel_recv(pair[1], room, sizeof(room), &n, NULL, &err));
    assert_ok(tg_channel_send(pair[0], tg_bytes_str("123456789"), null, &err));
    assert_rc(tg_channel_recv(pair[1], room, sizeof(room), &n, &fd, &err), TG_E_FORMAT);
    (void)close(pair[0]);
    assert_rc(tg_channel_recv(pair[1], room, sizeof(room), &n, &fd, &err), TG_E_CLOSED);
    assert_rc(tg_channel_send(pair[1], tg_bytes_str("abc"), -1, &err), TG_E_CLOSED);
    (void)close(pair[1]);
    (void)close(null);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_message_comes_back_and_only_from_its_side),
        cmocka_unit_test(cut_or_longer_is_refused),
        cmocka_unit_test(wrong_fields_are_refused),
        cmocka_unit_test(text_is_cut_at_a_character),
        cmocka_unit_test(messages_cross_a_socket_with_a_descriptor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
