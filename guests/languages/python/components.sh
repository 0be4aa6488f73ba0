for example in upper greet; do
    componentize-py -d ../wit -w $example componentize --stub-wasi $example -o $example.wasm
done
for example in wordcount hello; do
    componentize-py -d ../wit -w $example componentize $example -o $example.wasm
done
