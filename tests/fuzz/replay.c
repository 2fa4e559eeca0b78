/* Runs a harness over its corpus without libFuzzer: every file, every file cut at up to 64 places,
 * and every file with up to 64 of its bits flipped. Fails when there is no corpus. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { places = 64, biggest = 4 << 20 };

/* A copy of exactly n bytes, so that a sanitizer sees a read past the end. */
static void run(const uint8_t *data, size_t n)
{
    uint8_t *exact = malloc(n > 0 ? n : 1);
    if (exact == NULL)
        abort();
    if (n > 0)
        memcpy(exact, data, n);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
}

static void run_variants(uint8_t *data, size_t n)
{
    run(data, n);
    for (size_t i = 0; i < places && i < n; i++) {
        size_t at = n <= places ? i : i * (n / places);
        run(data, at);
        data[at] ^= (uint8_t)(1U << (i % 8));
        run(data, n);
        data[at] ^= (uint8_t)(1U << (i % 8));
    }
}

static int run_file(const char *folder, const char *name)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return 1;
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 1;
    }
    uint8_t *data = malloc(biggest);
    if (data == NULL)
        abort();
    size_t n = fread(data, 1, biggest, f);
    fclose(f);
    run_variants(data, n);
    free(data);
    return 0;
}

int main(int argc, char **argv)
{
    size_t files = 0;
    int failed = 0;
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        if (dir == NULL) {
            fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
            return 1;
        }
        for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
            if (e->d_name[0] == '.')
                continue;
            failed |= run_file(argv[i], e->d_name);
            files++;
        }
        closedir(dir);
    }
    printf("%zu corpus files replayed\n", files);
    return failed || files == 0;
}
