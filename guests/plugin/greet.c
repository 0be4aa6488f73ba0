// Greets whom the input names, with the word in env GREETING ("Hello" without one), and logs whom it greeted.
// Without a name it says so and ends with exit code 1.
#include "wess.h"

struct text {
    const byte *bytes;
    u32 len;
};

#define TEXT(literal) ((struct text){(const byte *)(literal), sizeof(literal) - 1})

// The value of `key` in a flat JSON object of strings, as it stands there: escapes are not undone.
static struct text env_value(struct text json, struct text key, struct text otherwise) {
    struct text last_string = {0, 0}, wanted = {0, 0};
    int after_colon = 0;
    for (u32 i = 0; i < json.len; i++) {
        if (json.bytes[i] == ':') after_colon = 1;
        if (json.bytes[i] == ',') after_colon = 0;
        if (json.bytes[i] != '"') continue;
        u32 start = ++i;
        while (i < json.len && json.bytes[i] != '"') i += json.bytes[i] == '\\' ? 2 : 1;
        if (i >= json.len) return otherwise;
        struct text found = {json.bytes + start, i - start};
        if (!after_colon) {
            last_string = found;
            continue;
        }
        if (last_string.len != key.len) continue;
        u32 same = 0;
        while (same < key.len && last_string.bytes[same] == key.bytes[same]) same++;
        if (same == key.len) wanted = found;
    }
    return wanted.bytes ? wanted : otherwise;
}

static byte *append(byte *to, struct text text) {
    for (u32 i = 0; i < text.len; i++) *to++ = text.bytes[i];
    return to;
}

EXPORT("process") i32 process(const byte *input, u32 len, const byte *env, u32 env_len) {
    if (len == 0) {
        struct text complaint = TEXT("whom shall I greet?");
        host_set_output(complaint.bytes, complaint.len);
        return 1;
    }
    struct text name = {input, len};
    struct text greeting = env_value((struct text){env, env_len}, TEXT("GREETING"), TEXT("Hello"));

    byte *line = alloc(greeting.len + name.len + 16);
    if (!line) __builtin_trap();
    byte *end = append(append(line, TEXT("greeting ")), name);
    host_log(line, end - line);

    end = append(append(append(append(line, greeting), TEXT(", ")), name), TEXT("!"));
    host_set_output(line, end - line);
    return 0;
}
