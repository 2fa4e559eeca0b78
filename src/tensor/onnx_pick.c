#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "tensor/onnx.h"

static bool is_onnx(const char *path)
{
    size_t n = strlen(path);

    return n > 5 && strcasecmp(path + n - 5, ".onnx") == 0 && strncmp(path, "golden/", 7) != 0;
}

static bool find(const struct tg_onnx_files *files, const char *path, size_t *out)
{
    for (size_t i = 0; i < files->n; i++)
        if (strcmp(files->path(files->arg, i), path) == 0) {
            *out = i;
            return true;
        }
    return false;
}

static enum tg_rc only_one(const struct tg_onnx_files *files, size_t *out, struct tg_err *err)
{
    size_t found = 0, last = 0;

    for (size_t i = 0; i < files->n; i++)
        if (is_onnx(files->path(files->arg, i))) {
            last = i;
            found++;
        }
    if (found == 0)
        return TG_FAIL(err, TG_E_FORMAT,
                       "the package holds no .onnx file; name the one to run in --metadata "
                       "model_file=PATH when building");
    if (found > 1)
        return TG_FAIL(err, TG_E_FORMAT,
                       "the package holds %zu .onnx files; name the one to run in --metadata "
                       "model_file=PATH when building",
                       found);
    *out = last;
    return TG_OK;
}

enum tg_rc tg_onnx_pick(const struct tg_onnx_files *files, const char *named, size_t *out,
                        struct tg_err *err)
{
    if (named != NULL) {
        if (find(files, named, out))
            return TG_OK;
        return TG_FAIL(err, TG_E_FORMAT,
                       "metadata model_file names '%.200s', which is not in the package; name a "
                       "file of it, by its path from the folder's root, in --metadata "
                       "model_file=PATH when building",
                       named);
    }
    if (find(files, "model.onnx", out))
        return TG_OK;
    return only_one(files, out, err);
}
