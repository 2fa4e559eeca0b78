/* A file, or one tensor, of the package that runs, as sealed read-only memory: libtensorguard.
 *
 *     cc -D_GNU_SOURCE hand_over.c $(pkg-config --cflags --libs tensorguard) -o hand_over
 *     ./hand_over /run/tensorguard/predict.sock.native                    lists the files
 *     ./hand_over /run/tensorguard/predict.sock.native FILE [TENSOR]      takes one */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <tensorguard/tensorguard.h>
#include <unistd.h>

static int failed(const struct tg_error *e)
{
    (void)fprintf(stderr, "hand_over: %s: %s\n", tg_status_name(e->status), e->text);
    return 1;
}

static int list(struct tg_model *m, struct tg_error *e)
{
    char path[1025];
    uint64_t size;

    for (size_t i = 0; tg_model_file(m, i, path, sizeof(path), &size, e) == TG_STATUS_OK; i++)
        (void)printf("%12" PRIu64 " %s\n", size, path);
    return e->status == TG_STATUS_NOTFOUND ? 0 : failed(e); /* beyond the last */
}

/* What a framework does with it. Mapped and locked, it stays when the worker ends. */
static int use(int fd)
{
    size_t n = (size_t)lseek(fd, 0, SEEK_END);
    void *p = n == 0 ? NULL : mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);

    (void)printf("%zu bytes, seals 0x%x, /proc/self/fd/%d\n", n, (unsigned)fcntl(fd, F_GET_SEALS),
                 fd);
    if (p == MAP_FAILED || (n > 0 && mlock(p, n) != 0)) {
        perror("hand_over: map and lock (ulimit -l)");
        return 1;
    }
    /* here: copy the n bytes at p to an accelerator or wrap them as a tensor (torch.frombuffer), or
     * give the path above, in this process, to a library that opens files by name */
    return n > 0 ? munmap(p, n) : 0;
}

int main(int argc, char **argv)
{
    struct tg_weight_info w;
    struct tg_model *m;
    struct tg_error e;
    int fd = -1, rc;

    if (argc < 2 || argc > 4) {
        (void)fprintf(stderr, "usage: hand_over SOCKET [FILE [TENSOR]]\n");
        return 2;
    }
    if (tg_model_connect(argv[1], NULL, &m, &e) != TG_STATUS_OK)
        return failed(&e);
    if (argc == 2)
        rc = list(m, &e);
    else if (argc == 3)
        rc = tg_model_open_file(m, argv[2], &fd, &e) == TG_STATUS_OK ? use(fd) : failed(&e);
    else if (tg_model_open_tensor(m, argv[2], argv[3], &fd, &w, &e) == TG_STATUS_OK)
        rc = printf("%s, %zu dimensions: ", w.type, w.n_dims) < 0 || use(fd);
    else
        rc = failed(&e);
    if (fd >= 0)
        (void)close(fd);
    tg_model_close(m);
    return rc;
}
