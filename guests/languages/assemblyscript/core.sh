# Every call has an instance of its own: nothing needs to be freed, which is what the stub runtime does.
npx asc upper.ts -O3 --runtime stub --use abort= -o upper.wasm
npx asc wordcount.ts -O3 --runtime stub --use abort= -o wordcount.wasm
