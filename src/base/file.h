/* Files. Nothing is ever half written: new contents go to a temporary name in the same directory,
 * are fsynced, then renamed, and the directory is fsynced. */
#ifndef TG_BASE_FILE_H
#define TG_BASE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "base/err.h"

/* Cleanup for descriptors: TG_AUTO(tg_fd_closep) int fd = -1; */
void tg_fd_closep(int *fd);
void tg_fd_close(int fd); /* -1 is fine; keeps errno */

/* Read a whole regular file (or descriptor, from offset 0) of at most buf->max bytes.
 * @retval TG_E_NOTFOUND  @retval TG_E_IO  @retval TG_E_LIMIT larger than buf->max */
TG_RC tg_file_read(const char *path, struct tg_buf *buf, struct tg_err *err);
TG_RC tg_fd_read_all(int fd, const char *name, struct tg_buf *buf, struct tg_err *err);

/* Exactly n bytes at off; a short file is TG_E_FORMAT ("<name>: ends at ..., need ..."). */
TG_RC tg_fd_pread(int fd, const char *name, void *p, size_t n, uint64_t off, struct tg_err *err);
TG_RC tg_fd_pwrite(int fd, const char *name, const void *p, size_t n, uint64_t off,
                   struct tg_err *err);
TG_RC tg_fd_write(int fd, const char *name, const void *p, size_t n, struct tg_err *err);
TG_RC tg_fd_size(int fd, const char *name, uint64_t *size, struct tg_err *err);
TG_RC tg_fd_sync(int fd, const char *name, struct tg_err *err);

/* A file being written. Invisible under its name until commit; removed by abort (also run by the
 * cleanup when neither was called). */
struct tg_newfile {
    int fd; /* seekable; write through tg_fd_write / tg_fd_pwrite */
    char *tmp;
    char *path;
    bool replace;
    bool fleeting; /* commit syncs nothing: see tg_file_write_fleeting */
};

#define TG_NEWFILE_INIT ((struct tg_newfile){.fd = -1})

/* mode: permission bits (exact, umask does not apply).
 * replace false: commit fails with TG_E_EXISTS when path exists (checked again atomically). */
TG_RC tg_newfile_open(struct tg_newfile *f, const char *path, mode_t mode, bool replace,
                      struct tg_err *err);
TG_RC tg_newfile_commit(struct tg_newfile *f, struct tg_err *err);
void tg_newfile_abort(struct tg_newfile *f);

/* tg_newfile in one call. */
TG_RC tg_file_write(const char *path, struct tg_bytes data, mode_t mode, bool replace,
                    struct tg_err *err);

/* Replaces what is there, for contents that are made anew after a power cut and must not wait for
 * the disk: readers see the old or the new whole, and after a power cut either, or an empty file.
 */
TG_RC tg_file_write_fleeting(const char *path, struct tg_bytes data, mode_t mode,
                             struct tg_err *err);

/* mkdir -p with this mode for what is created. */
TG_RC tg_dir_make(const char *path, mode_t mode, struct tg_err *err);
TG_RC tg_dir_sync(const char *path, struct tg_err *err);
/* Remove a tree; never follows symlinks. A missing tree is fine. */
TG_RC tg_dir_remove(const char *path, struct tg_err *err);
/* "dir/name" in fresh memory (tg_free); NULL when out of memory. */
char *tg_path_join(const char *dir, const char *name);

/* From now on every read, write, sync and rename made here fails with "Operation canceled", so that
 * long work ends soon and its ordinary error path removes what was begun. For a program's handler
 * of SIGINT and SIGTERM (async-signal-safe); there is no way back. */
void tg_io_cancel(void);

/* Fault injection for tests: fail the nth of the read, write, fsync or rename calls made here. */
enum tg_io_op { TG_IO_READ, TG_IO_WRITE, TG_IO_SYNC, TG_IO_RENAME, TG_IO_OPS };

void tg_io_fault_set(enum tg_io_op op, uint64_t nth, int errnum);
uint64_t tg_io_fault_count(enum tg_io_op op);

#endif
