/* Hand-over: files of the running package as sealed memory. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "client/client_internal.h"

#define PAUSE_MS 20
/* For a file that is decrypted first, after those that others wait for. A worker that hangs is
 * ended by the agent, and its end is heard at once. */
#define MAKE_NS UINT64_C(600000000000)
#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* Each request has a connection of its own: rare as they are, none can meet a worker that has left,
 * and calls under way are not held up. *request is the message to send, *m what came. */
static enum tg_rc ask_once(struct tg_model *m, const union tg_native_msg *request,
                           enum tg_native_type want, int *fd, struct tg_err *err)
{
    TG_AUTO(tg_link_dropp) struct tg_link *l = NULL;

    TG_TRY(tg_link_open(m->path, &l, err));
    tg_native_begin(&m->msg, TG_NATIVE_HELLO);
    m->msg.hello.oldest = m->msg.hello.newest = TG_NATIVE_VERSION;
    TG_TRY(tg_link_send(l, &m->msg, err));
    TG_TRY(tg_link_receive(l, TG_NATIVE_WELCOME, m->o.reconnect_ns, &m->msg, NULL, err));
    m->msg = *request;
    TG_TRY(tg_link_send(l, &m->msg, err));
    return tg_link_receive(l, want, want == TG_NATIVE_TAKEN ? MAKE_NS : m->o.reconnect_ns, &m->msg,
                           fd, err);
}

/* A worker may leave between the two: then the next one is asked. One that hands over much at a
 * time asks for patience. */
static enum tg_rc ask(struct tg_model *m, const union tg_native_msg *request,
                      enum tg_native_type want, int *fd, struct tg_err *err)
{
    uint64_t until = tg_clock_mono_ns() + m->o.reconnect_ns;
    enum tg_rc rc;

    while ((rc = ask_once(m, request, want, fd, err)) == TG_E_CLOSED || rc == TG_E_AGAIN) {
        if (tg_clock_mono_ns() >= until)
            break;
        tg_clock_sleep_ms(PAUSE_MS);
    }
    return rc;
}

/* Only what nobody can change any more is given to the caller; with an offset of its own. */
static enum tg_rc check_sealed(int fd, uint64_t size, int *out, struct tg_err *err)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    char path[32];

    if (fstat(fd, &st) != 0 || (uint64_t)st.st_size != size || (seals & SEALS) != SEALS)
        return TG_FAIL(err, TG_E_FORMAT, "what was handed over is not sealed as it should be");
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    *out = open(path, O_RDONLY | O_CLOEXEC);
    return *out >= 0 ? TG_OK : TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
}

static enum tg_rc take(struct tg_model *m, const char *path, const char *tensor, int *out,
                       struct tg_err *err)
{
    union tg_native_msg *request = &m->request;
    TG_AUTO(tg_fd_closep) int fd = -1;

    if (path == NULL || path[0] == '\0' || strlen(path) >= TG_NATIVE_PATH_TEXT ||
        strlen(tensor) >= TG_NATIVE_NAME_TEXT)
        return TG_FAIL(err, TG_E_USAGE, "a path has 1 to %d bytes, a tensor's name at most %d",
                       TG_NATIVE_PATH_TEXT - 1, TG_NATIVE_NAME_TEXT - 1);
    tg_native_begin(request, TG_NATIVE_TAKE);
    tg_native_text(request->take.path, TG_NATIVE_PATH_TEXT, path);
    tg_native_text(request->take.tensor, TG_NATIVE_NAME_TEXT, tensor);
    TG_TRY(ask(m, request, TG_NATIVE_TAKEN, &fd, err));
    return check_sealed(fd, m->msg.taken.size, out, err);
}

enum tg_status tg_model_open_file(struct tg_model *m, const char *path, int *fd,
                                  struct tg_error *error)
{
    struct tg_err err = TG_ERR_INIT;

    return take(m, path, "", fd, &err) == TG_OK ? TG_STATUS_OK : tg_error_out(&err, error);
}

enum tg_status tg_model_fopen(struct tg_model *m, const char *path, FILE **out,
                              struct tg_error *error)
{
    struct tg_err err = TG_ERR_INIT;
    int fd = -1;
    FILE *f;

    if (take(m, path, "", &fd, &err) != TG_OK)
        return tg_error_out(&err, error);
    f = fdopen(fd, "rb");
    if (f == NULL) {
        tg_fd_close(fd);
        return tg_error_say(error, TG_STATUS_NOMEM, "can't make a stream");
    }
    *out = f;
    return TG_STATUS_OK;
}

enum tg_status tg_model_open_tensor(struct tg_model *m, const char *path, const char *name, int *fd,
                                    struct tg_weight_info *info, struct tg_error *error)
{
    struct tg_err err = TG_ERR_INIT;
    const struct tg_native_taken *t = &m->msg.taken;

    if (name == NULL || name[0] == '\0')
        return tg_error_say(error, TG_STATUS_USAGE, "a tensor has a name");
    if (take(m, path, name, fd, &err) != TG_OK)
        return tg_error_out(&err, error);
    if (info != NULL) {
        *info = (struct tg_weight_info){.n_dims = t->n_dims, .bytes = t->size};
        memcpy(info->type, t->dtype, sizeof(t->dtype));
        memcpy(info->dims, t->dims, sizeof(t->dims));
    }
    return TG_STATUS_OK;
}

enum tg_status tg_model_file(struct tg_model *m, size_t i, char *path, size_t cap, uint64_t *size,
                             struct tg_error *error)
{
    union tg_native_msg *request = &m->request;
    const struct tg_native_files *f = &m->msg.files;
    struct tg_err err = TG_ERR_INIT;

    if (i >= UINT32_MAX)
        return tg_error_say(error, TG_STATUS_NOTFOUND, "there is no such file");
    tg_native_begin(request, TG_NATIVE_LIST);
    request->list.from = (uint32_t)i;
    if (ask(m, request, TG_NATIVE_FILES, NULL, &err) != TG_OK)
        return tg_error_out(&err, error);
    if (f->n == 0)
        return tg_error_say(error, TG_STATUS_NOTFOUND, "there is no such file");
    if (path != NULL && strlen(f->files[0].path) >= cap)
        return tg_error_say(error, TG_STATUS_USAGE, "the path does not fit");
    if (path != NULL)
        memcpy(path, f->files[0].path, strlen(f->files[0].path) + 1);
    if (size != NULL)
        *size = f->files[0].size;
    return TG_STATUS_OK;
}
