#include "moai/protect.h"

#include <string.h>

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

/* The value of the last --protection, however it is written. What is wrong with the command line is
 * said later, by main. */
static enum tg_level asked(int argc, char *const *argv)
{
    static const char option[] = "--" TG_PROTECT_OPTION;
    enum tg_level level = TG_LEVEL_LOCKED;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], option, sizeof(option) - 1) != 0)
            continue;
        if (argv[i][sizeof(option) - 1] == '=')
            (void)tg_protect_parse(argv[i] + sizeof(option), &level);
        else if (argv[i][sizeof(option) - 1] == '\0' && i + 1 < argc)
            (void)tg_protect_parse(argv[i + 1], &level);
    }
    return level;
}

void tg_protect_begin(int argc, char *const *argv)
{
    struct tg_region_opts opts = {.level = asked(argc, argv), .settle = true};

    if (opts.level == TG_LEVEL_NONE)
        opts.level = TG_LEVEL_LOCKED;
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
