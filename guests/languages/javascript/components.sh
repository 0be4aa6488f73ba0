for example in upper wordcount greet; do
    npx componentize-qjs --wit ../wit --world $example --js $example.js --sync --opt-size -o $example.wasm
done
npx componentize-js hello.js --wit ../wit --world-name hello -o hello.wasm
