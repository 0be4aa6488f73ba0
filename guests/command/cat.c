// Copies stdin to stdout byte by byte and says on stderr how many there were. First, with `-e NAME`, the line
// NAME=value from its environment; last, with `-x CODE`, that exit code. A missing variable is exit code 1.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int usage(const char *name) {
    fprintf(stderr, "usage: %s [-e NAME] [-x CODE]\n", name);
    return 2;
}

static long copy(FILE *in, FILE *out) {
    char buffer[65536];
    long total = 0;
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, in)) > 0; total += n) fwrite(buffer, 1, n, out);
    return total;
}

int main(int argc, char **argv) {
    int exit_code = 0;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) return usage(argv[0]);
        if (strcmp(argv[i], "-x") == 0) {
            exit_code = atoi(argv[i + 1]);
        } else if (strcmp(argv[i], "-e") == 0) {
            const char *value = getenv(argv[i + 1]);
            if (!value) {
                fprintf(stderr, "%s: no %s in the environment\n", argv[0], argv[i + 1]);
                return 1;
            }
            printf("%s=%s\n", argv[i + 1], value);
        } else {
            return usage(argv[0]);
        }
    }
    fprintf(stderr, "%s: %ld bytes\n", argv[0], copy(stdin, stdout));
    return exit_code;
}
