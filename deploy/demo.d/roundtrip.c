/* The program that the demo links from the objects it compiled: compresses what it is given, takes it
 * apart again, and says whether the bytes are the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zstd.h"

static int fail(const char *what)
{
    fprintf(stderr, "roundtrip: %s\n", what);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return fail("give one file");
    FILE *file = fopen(argv[1], "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0)
        return fail("can't read the file");
    const long length = ftell(file);
    if (length <= 0 || fseek(file, 0, SEEK_SET) != 0)
        return fail("the file is empty");
    const size_t size = (size_t)length, bound = ZSTD_compressBound(size);
    char *plain = malloc(size), *packed = malloc(bound), *back = malloc(size);
    if (!plain || !packed || !back || fread(plain, 1, size, file) != size)
        return fail("can't read the file");
    fclose(file);

    const size_t packed_size = ZSTD_compress(packed, bound, plain, size, 19);
    if (ZSTD_isError(packed_size))
        return fail(ZSTD_getErrorName(packed_size));
    const size_t back_size = ZSTD_decompress(back, size, packed, packed_size);
    if (back_size != size || memcmp(plain, back, size) != 0)
        return fail("the bytes came back different");
    printf("zstd %s: %zu bytes, packed to %zu, and back again: the same\n", ZSTD_versionString(), size, packed_size);
    free(plain), free(packed), free(back);
    return 0;
}
