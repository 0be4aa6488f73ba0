cargo build --release --target wasm32-wasip2 --example greet --example hello
cp target/wasm32-wasip2/release/examples/greet.wasm target/wasm32-wasip2/release/examples/hello.wasm .
