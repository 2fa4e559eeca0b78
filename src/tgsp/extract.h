/* Writing an opened package's files to a folder (the command `open`; devices never do this). */
#ifndef TG_TGSP_EXTRACT_H
#define TG_TGSP_EXTRACT_H

#include "base/err.h"
#include "tgsp/package.h"

/* Make `dir` (which must not exist, or be empty) and fill it with the files of an unwrapped
 * package. Everything is written under a temporary name beside `dir` (O_EXCL, beneath it, no
 * symlinks followed), and renamed once every chunk has passed; on failure nothing stays behind.
 * With run->only, only those files are made and only their chunks are read. The reserved folder
 * (tgsp/path.h) is not restored. Files are 0600 and folders 0700.
 * @retval TG_E_EXISTS dir exists and is not empty  @retval TG_E_STATE not unwrapped
 * @retval TG_E_IO among others: disk full */
TG_RC tg_tgsp_extract(struct tg_tgsp *p, const char *dir, const struct tg_tgsp_run *run,
                      struct tg_err *err);

#endif
