for example in greet hello; do
    wit-bindgen c ../wit --world $example --out-dir bindings
    zig cc --target=wasm32-wasi -mexec-model=reactor -Oz -s -Wl,-z,stack-size=65536 -o $example.core.wasm \
        $example.c bindings/$example.c bindings/${example}_component_type.o
    wasm-tools component new $example.core.wasm -o $example.wasm
done
