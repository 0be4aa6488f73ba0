// What a plugin guest in C needs: the host's functions and a place for its input.
// Include it in the one file that makes the module. There is no C library here.
#pragma once

typedef unsigned char byte;
typedef unsigned int u32;
typedef int i32;

#define EXPORT(name) __attribute__((export_name(name), used))
#define HOST(name) __attribute__((import_module("host"), import_name(name)))

HOST("log") extern void host_log(const void *text, u32 len);
HOST("set_output") extern void host_set_output(const void *bytes, u32 len);
HOST("get_state") extern i32 host_get_state(const void *key, u32 key_len);
HOST("read_state") extern i32 host_read_state(void *into, u32 capacity);
HOST("set_state") extern void host_set_state(const void *key, u32 key_len, const void *value, u32 value_len);
HOST("delete_state") extern void host_delete_state(const void *key, u32 key_len);
HOST("publish") extern i32 host_publish(const void *subject, u32 subject_len, const void *payload, u32 len);

#define PAGE_BYTES 65536u

extern byte __heap_base;
static byte *heap_next = &__heap_base;

// Every call runs in a fresh instance, so nothing is ever freed. Null when the host grants no more memory.
EXPORT("alloc") byte *alloc(u32 len) {
    byte *start = heap_next;
    u32 end = (u32)start + ((len + 15u) & ~15u);
    u32 have = __builtin_wasm_memory_size(0) * PAGE_BYTES;
    if (end < (u32)start) return 0;
    if (end > have && __builtin_wasm_memory_grow(0, (end - have + PAGE_BYTES - 1) / PAGE_BYTES) == (unsigned long)-1) return 0;
    heap_next = (byte *)end;
    return start;
}
