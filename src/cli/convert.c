/* PyTorch archives become safetensors files on their way into the package. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/cli.h"
#include "cli/contents_internal.h"
#include "cli/keys.h"
#include "cli/package.h"
#include "tensor/format.h"

#define WRITE_STEP ((size_t)4 << 20) /* between two words on progress */

struct sink {
    int fd;
    const char *name;
    struct tg_progress *progress;
};

static enum tg_rc sink_write(void *arg, const void *p, size_t n, struct tg_err *err)
{
    const struct sink *s = arg;
    struct tg_bytes all = tg_bytes_make(p, n);

    for (size_t at = 0; at < n; at += WRITE_STEP) {
        struct tg_bytes step = tg_bytes_sub(all, at, WRITE_STEP);

        TG_TRY(tg_fd_write(s->fd, s->name, step.p, step.n, err));
        tg_progress_add(s->progress, step.n);
    }
    return TG_OK;
}

/* A file without a name, in the folder that the package will be in: it goes with its descriptor. */
static enum tg_rc nameless(const char *out, int *fd, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *dir = cli_dir_of(out);
    TG_AUTO(tg_freep) char *path = dir == NULL ? NULL : tg_asprintf("%s/.tensorguard-XXXXXX", dir);

    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    *fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (*fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
        *fd = mkostemp(path, O_CLOEXEC);
        if (*fd >= 0)
            (void)unlink(path);
    }
    return *fd >= 0 ? TG_OK : TG_FAIL_ERRNO(err, TG_E_IO, "%s: a file for what is converted", dir);
}

static char *new_name(const char *path)
{
    size_t n = strlen(path);

    if (cli_name_ends(path, ".pt"))
        n -= strlen(".pt");
    else if (cli_name_ends(path, ".pth"))
        n -= strlen(".pth");
    return tg_asprintf("%.*s.safetensors", (int)n, path);
}

static enum tg_rc rewrite(const struct tg_tgsp_inputs *in, size_t i, int fd,
                          struct tg_progress *progress, struct tg_err *err)
{
    const char *path = tg_tgsp_inputs_at(in, i)->path;
    TG_AUTO(cli_map_done) struct cli_map map = CLI_MAP_INIT;
    TG_AUTO(tg_weights_done) struct tg_weights w = TG_WEIGHTS_INIT;
    struct sink to = {fd, path, progress};
    const struct tg_weights_sink sink = {sink_write, &to};

    TG_TRY(cli_map_open(in, i, &map, err));
    TG_TRY(tg_weights_parse(cli_map_view(&map), path, &w, err));
    return tg_safetensors_write(&w, &sink, err);
}

static enum tg_rc rename_metadata(struct tg_jlist *metadata, const char *old, const char *path,
                                  char **renamed, struct tg_err *err)
{
    struct tg_jpair *named = cli_metadata_find(metadata, "weights_file");

    if (named == NULL || *renamed != NULL || strcmp(named->value, old) != 0)
        return TG_OK;
    *renamed = tg_strdup(path);
    if (*renamed == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    named->value = *renamed;
    return TG_OK;
}

static enum tg_rc is_archive(const struct tg_tgsp_inputs *in, size_t i, bool *yes,
                             struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int fd = -1;
    enum tg_format f = TG_FORMAT_OTHER;

    TG_TRY(tg_tgsp_inputs_open(in, i, &fd, err));
    TG_TRY(tg_format_probe(fd, tg_tgsp_inputs_at(in, i)->path, &f, err));
    *yes = f == TG_FORMAT_PYTORCH;
    return TG_OK;
}

/* What one conversion needs besides its file. */
struct job {
    const char *out;
    struct tg_jlist *metadata;
    char **renamed;
    struct tg_progress *progress;
};

static enum tg_rc convert(struct tg_tgsp_inputs *in, size_t i, const struct job *j,
                          struct tg_err *err)
{
    TG_AUTO(tg_freep) char *path = new_name(tg_tgsp_inputs_at(in, i)->path);
    TG_AUTO(tg_fd_closep) int fd = -1;

    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(nameless(j->out, &fd, err));
    TG_TRY(rewrite(in, i, fd, j->progress, err));
    TG_TRY(rename_metadata(j->metadata, tg_tgsp_inputs_at(in, i)->path, path, j->renamed, err));
    return tg_tgsp_inputs_replace(in, i, path, &fd, err);
}

static enum tg_rc archive_bytes(const struct tg_tgsp_inputs *in, uint64_t *out, struct tg_err *err)
{
    *out = 0;
    for (size_t i = 0; i < tg_tgsp_inputs_count(in); i++) {
        bool yes = false;

        TG_TRY(is_archive(in, i, &yes, err));
        *out += yes ? tg_tgsp_inputs_at(in, i)->size : 0;
    }
    return TG_OK;
}

enum tg_rc cli_contents_convert(struct tg_tgsp_inputs *in, const char *out,
                                struct tg_jlist *metadata, char **renamed, size_t *n,
                                struct tg_err *err)
{
    uint64_t bytes = 0;

    *n = 0;
    TG_TRY(archive_bytes(in, &bytes, err));
    TG_AUTO(cli_progress_freep) struct tg_progress *bar = tg_progress_new("converting", bytes);
    const struct job job = {out, metadata, renamed, bar};
    /* The new name comes after the old one in the list ("s" after "p"), so what takes place i was
     * not looked at yet. */
    for (size_t i = 0; i < tg_tgsp_inputs_count(in); i++) {
        bool yes = false;

        TG_TRY(is_archive(in, i, &yes, err));
        if (!yes)
            continue;
        TG_TRY(convert(in, i, &job, err));
        (*n)++;
        i--; /* may wrap: the loop steps forward */
    }
    return TG_OK;
}
