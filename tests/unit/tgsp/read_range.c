/* A byte range of a package's plaintext to standard output, through the library's ranged read:
 *
 *   read_range F.tgsp encryption.priv signing.pub OFFSET LENGTH
 */
#include "../../open_package.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"

int main(int argc, char **argv)
{
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    TG_AUTO(tg_freep) uint8_t *out = NULL;
    if (argc != 6)
        return 2;
    const struct package_files files = {argv[1], argv[2], argv[3]};
    uint64_t off = strtoull(argv[4], NULL, 10);
    size_t n = strtoull(argv[5], NULL, 10);
    out = tg_alloc(n);
    if (!out || package_open(&files, &p, &err) != TG_OK ||
        tg_tgsp_read(p, off, out, n, 0, &err) != TG_OK) {
        (void)fprintf(stderr, "read_range: %s\n", err.msg);
        return 1;
    }
    return fwrite(out, 1, n, stdout) == n && fflush(stdout) == 0 ? 0 : 1;
}
