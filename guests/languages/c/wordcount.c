// Counts lines, words and bytes, as wc does.
#include <ctype.h>
#include <stdio.h>

int main(void) {
    long lines = 0, words = 0, bytes = 0;
    int in_word = 0;
    for (int c; (c = getchar()) != EOF; bytes++) {
        if (c == '\n') lines++;
        if (!isspace(c) && !in_word) words++;
        in_word = !isspace(c);
    }
    printf("%ld %ld %ld\n", lines, words, bytes);
    return 0;
}
