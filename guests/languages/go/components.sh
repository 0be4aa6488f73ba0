export GOOS=wasip1 GOARCH=wasm
for example in greet hello; do
    go build -buildmode=c-shared -ldflags='-s -w' -o $example.core.wasm ./$example
    wasm-tools component embed ../wit --world $example $example.core.wasm -o $example.typed.wasm
    # Go's runtime has to be there before anyone may ask it for memory, the adapter included.
    wasm-tools component new $example.typed.wasm --adapt ../wasi_snapshot_preview1.reactor.wasm \
        --realloc-via-memory-grow -o $example.wasm
done
