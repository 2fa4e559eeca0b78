/* Model formats told by content: any bytes get an answer, within the promised number of reads. */
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tensor/format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("model", MFD_CLOEXEC);
    enum tg_format f = TG_FORMAT_OTHER;
    struct tg_err err = TG_ERR_INIT;

    if (fd < 0)
        return 0;
    if (write(fd, data, size) == (ssize_t)size && tg_format_probe(fd, "model", &f, &err) != TG_OK)
        __builtin_trap();
    (void)close(fd);
    return 0;
}
