// Counts its invocations in the state that all workers share, and prints the count. Input "reset" starts over.
// Two calls at the same instant may read the same count: state has no compare-and-set.
#include "wess.h"

#define DIGITS 20

static const char KEY[] = "count";
static const u32 KEY_LEN = sizeof KEY - 1;

static int is_reset(const byte *input, u32 len) {
    const char *word = "reset";
    if (len != 5) return 0;
    for (u32 i = 0; i < len; i++) {
        if (input[i] != word[i]) return 0;
    }
    return 1;
}

static unsigned long long stored_count(void) {
    byte text[DIGITS];
    unsigned long long count = 0;
    if (host_get_state(KEY, KEY_LEN) < 0) return 0;
    i32 len = host_read_state(text, DIGITS);
    for (i32 i = 0; i < len; i++) count = count * 10 + (text[i] - '0');
    return count;
}

EXPORT("process") i32 process(const byte *input, u32 len) {
    if (is_reset(input, len)) {
        host_delete_state(KEY, KEY_LEN);
        host_set_output("0", 1);
        return 0;
    }
    byte text[DIGITS];
    u32 start = DIGITS;
    for (unsigned long long count = stored_count() + 1; count > 0; count /= 10) text[--start] = '0' + count % 10;
    host_set_state(KEY, KEY_LEN, text + start, DIGITS - start);
    host_set_output(text + start, DIGITS - start);
    return 0;
}
