// Counts lines, words and bytes of its input as wc does. Flags -l, -w and -c choose; an unknown one is exit code 2.
#include <ctype.h>
#include <stdio.h>

enum { LINES = 1, WORDS = 2, BYTES = 4 };

struct counts {
    long lines, words, bytes;
};

static struct counts count(FILE *in) {
    struct counts counts = {0, 0, 0};
    int in_word = 0;
    for (int c; (c = getc(in)) != EOF; counts.bytes++) {
        if (c == '\n') counts.lines++;
        if (!isspace(c) && !in_word) counts.words++;
        in_word = !isspace(c);
    }
    return counts;
}

// The columns that argv asks for; 0 when it holds a flag that we don't know.
static int columns(int argc, char **argv) {
    int chosen = 0;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-' || argv[i][1] == 0) return 0;
        for (const char *flag = argv[i] + 1; *flag; flag++) {
            if (*flag == 'l') chosen |= LINES;
            else if (*flag == 'w') chosen |= WORDS;
            else if (*flag == 'c') chosen |= BYTES;
            else return 0;
        }
    }
    return chosen ? chosen : LINES | WORDS | BYTES;
}

int main(int argc, char **argv) {
    int chosen = columns(argc, argv);
    if (!chosen) {
        fprintf(stderr, "usage: %s [-lwc]\n", argv[0]);
        return 2;
    }
    struct counts counts = count(stdin);
    const char *space = "";
    if (chosen & LINES) printf("%s%ld", space, counts.lines), space = " ";
    if (chosen & WORDS) printf("%s%ld", space, counts.words), space = " ";
    if (chosen & BYTES) printf("%s%ld", space, counts.bytes);
    printf("\n");
    return 0;
}
