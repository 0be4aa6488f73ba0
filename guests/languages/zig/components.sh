for example in greet hello; do
    wit-bindgen c ../wit --world $example --out-dir bindings
    zig translate-c -lc -target wasm32-wasi bindings/$example.h >bindings/$example.zig
    zig build-exe -target wasm32-wasi -mexec-model=reactor -lc -O ReleaseSmall -fstrip --stack 65536 \
        -femit-bin=$example.core.wasm $example.zig bindings/$example.c bindings/${example}_component_type.o
    wasm-tools component new $example.core.wasm -o $example.wasm
done
