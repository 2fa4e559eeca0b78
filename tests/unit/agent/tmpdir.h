/* A state folder for one test, under TMPDIR or /tmp, removed afterwards. */
#ifndef TG_TESTS_AGENT_TMPDIR_H
#define TG_TESTS_AGENT_TMPDIR_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/state.h"
#include "base/file.h"

static inline void tmp_state(struct tg_state *s)
{
    const char *base = getenv("TMPDIR");
    char dir[512];
    struct tg_err err = TG_ERR_INIT;
    (void)snprintf(dir, sizeof dir, "%s/tg-agent-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
    *s = TG_STATE_INIT;
    assert_ok(tg_state_open(s, dir, true, &err));
}

static inline void tmp_state_done(struct tg_state *s)
{
    struct tg_err err = TG_ERR_INIT;
    tg_state_done(s);
    assert_ok(tg_dir_remove(s->dir, &err));
}

static inline void tmp_write(const struct tg_state *s, const char *name, const char *text)
{
    struct tg_err err = TG_ERR_INIT;
    char path[TG_STATE_PATH_MAX];
    assert_ok(tg_state_path(s, path, &err, "%s", name));
    assert_ok(tg_file_write(path, tg_bytes_str(text), 0600, true, &err));
}

#endif
