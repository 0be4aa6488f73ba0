for example in greet hello; do
    npx asc $example.ts -O3 --runtime stub --use abort= --transform ./names.js -o $example.core.wasm
    wasm-tools component embed ../wit --world $example $example.core.wasm -o $example.typed.wasm
    wasm-tools component new $example.typed.wasm -o $example.wasm
done
