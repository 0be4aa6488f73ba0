zig build-exe -target wasm32-freestanding -O ReleaseSmall -fstrip -fno-entry -rdynamic --stack 16384 -femit-bin=upper.wasm upper.zig
zig build-exe -target wasm32-wasi -O ReleaseSmall -fstrip --stack 65536 -femit-bin=wordcount.wasm wordcount.zig
