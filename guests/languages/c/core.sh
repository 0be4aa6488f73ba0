# The linker's own stack, 16 MiB, would be memory that each fresh instance starts with.
zig cc --target=wasm32-freestanding -nostdlib -Oz -s -Wl,--no-entry -Wl,-z,stack-size=16384 -o upper.wasm upper.c
zig cc --target=wasm32-wasi -Oz -s -Wl,-z,stack-size=65536 -o wordcount.wasm wordcount.c
