cargo build --release --target wasm32-unknown-unknown --example upper
cargo build --release --target wasm32-wasip1 --example wordcount
cp target/wasm32-unknown-unknown/release/examples/upper.wasm target/wasm32-wasip1/release/examples/wordcount.wasm .
