// Upper-cases ASCII letters and leaves every other byte alone, so UTF-8 text stays UTF-8.
#include "wess.h"

EXPORT("process") i32 process(byte *input, u32 len) {
    for (u32 i = 0; i < len; i++) {
        if (input[i] >= 'a' && input[i] <= 'z') input[i] -= 'a' - 'A';
    }
    host_set_output(input, len);
    return 0;
}
