export GOOS=wasip1 GOARCH=wasm
go build -buildmode=c-shared -ldflags='-s -w' -o upper.wasm ./upper
go build -ldflags='-s -w' -o wordcount.wasm ./wordcount
