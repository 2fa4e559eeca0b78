#include "moai/protect.h"

#include <string.h>

#include "codec/text.h"
#include "moai/sandbox.h"

static const struct {
    const char *text;
    enum tg_level level;
} names[] = {
    {"any",    TG_LEVEL_NONE  },
    {"locked", TG_LEVEL_LOCKED},
    {"secret", TG_LEVEL_SECRET},
};

bool tg_protect_parse(const char *text, enum tg_level *out)
{
    for (size_t i = 0; i < TG_ARRAY_LEN(names); i++)
        if (strcmp(text, names[i].text) == 0) {
            *out = names[i].level;
            return true;
        }
    return false;
}

/* The value of the last `option` ("--x"), however it is written; NULL: it is not there. What is
 * wrong with the command line is said later, by main. */
static const char *asked(int argc, char *const *argv, const char *option)
{
    size_t n = strlen(option);
    const char *value = NULL;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], option, n) != 0)
            continue;
        if (argv[i][n] == '=')
            value = argv[i] + n + 1;
        else if (argv[i][n] == '\0' && i + 1 < argc)
            value = argv[i + 1];
    }
    return value;
}

void tg_protect_begin(int argc, char *const *argv)
{
    const char *level = asked(argc, argv, "--" TG_PROTECT_OPTION);
    const char *memory = asked(argc, argv, "--" TG_PROTECT_MEMORY);
    struct tg_region_opts opts = {.level = TG_LEVEL_LOCKED, .settle = true};
    uint64_t mib = 0;

    if (level != NULL)
        (void)tg_protect_parse(level, &opts.level);
    if (opts.level == TG_LEVEL_NONE)
        opts.level = TG_LEVEL_LOCKED;
    if (memory != NULL && tg_parse_u64(memory, TG_PROTECT_MEMORY_MAX, &mib) == TG_OK && mib > 0)
        opts.max = (size_t)(mib + TG_PROTECT_OWN_MIB) << 20;
    /* A failure shows in tg_protect_require. */
    if (tg_sandbox_raise_memlock(NULL) != TG_OK || tg_region_open(&opts, NULL) != TG_OK)
        return;
}

enum tg_rc tg_protect_require(enum tg_level least, struct tg_err *err)
{
    return tg_region_hold(least, err);
}

bool tg_protect_heap(void)
{
#ifdef TG_SANITIZED
    return false;
#else
    return tg_region_is_open();
#endif
}
