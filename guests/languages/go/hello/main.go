// Serves HTTP: says hello and which path was asked for. There are no bindings here: handles are numbers, and results
// are written where the last argument says, first whether they are an error.
package main

import "unsafe"

//go:wasmimport wasi:http/types@0.2.3 [method]incoming-request.path-with-query
func pathWithQuery(request int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.3 [constructor]fields
func newFields() int32

//go:wasmimport wasi:http/types@0.2.3 [method]fields.append
func appendField(fields int32, name, value string, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.3 [constructor]outgoing-response
func newResponse(headers int32) int32

//go:wasmimport wasi:http/types@0.2.3 [method]outgoing-response.body
func bodyOf(response int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.3 [method]outgoing-body.write
func streamOf(body int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.3 [static]outgoing-body.finish
func finish(body, hasTrailers, trailers int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.3 [static]response-outparam.set
func setResponse(out, isErr, response, e1 int32, e2 int64, e3, e4, e5, e6 int32)

//go:wasmimport wasi:io/streams@0.2.3 [method]output-stream.blocking-write-and-flush
func write(stream int32, bytes string, result unsafe.Pointer)

//go:wasmimport wasi:io/streams@0.2.3 [resource-drop]output-stream
func dropStream(stream int32)

// Large enough for any result here.
var result [8]uint64

func payload(word int) uint32 {
	return *(*uint32)(unsafe.Add(unsafe.Pointer(&result), 4*word))
}

// What the host gives us has to be where Go's collector finds it.
var given [][]byte

//go:wasmexport cabi_realloc
func realloc(_ unsafe.Pointer, _, _, size uint32) unsafe.Pointer {
	given = append(given, make([]byte, size))
	return unsafe.Pointer(unsafe.SliceData(given[len(given)-1]))
}

//go:wasmexport wasi:http/incoming-handler@0.2.3#handle
func handle(request, out int32) {
	at := unsafe.Pointer(&result)
	path := "/"
	if pathWithQuery(request, at); payload(0)&0xff == 1 {
		path = string(given[len(given)-1])
	}
	headers := newFields()
	appendField(headers, "content-type", "text/plain", at)
	response := newResponse(headers)
	bodyOf(response, at)
	body := int32(payload(1))
	streamOf(body, at)
	stream := int32(payload(1))
	setResponse(out, 0, response, 0, 0, 0, 0, 0, 0)

	if write(stream, "hello from "+path+"\n", at); payload(0)&0xff == 1 {
		panic("the client is gone")
	}
	// The stream has to go before its body, and the body has to be finished: else the response breaks off.
	dropStream(stream)
	finish(body, 0, 0, at)
}

func main() {}
