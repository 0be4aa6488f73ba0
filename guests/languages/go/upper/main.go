// Upper-cases ASCII letters and leaves every other byte as it is.
package main

import "unsafe"

//go:wasmimport host set_output
func setOutput(bytes unsafe.Pointer, length uint32)

var input []byte

// Wess puts the input here. Go owns its memory, so it is asked for the room.
//
//go:wasmexport alloc
func alloc(length uint32) unsafe.Pointer {
	input = make([]byte, length)
	return unsafe.Pointer(unsafe.SliceData(input))
}

//go:wasmexport process
func process(_ unsafe.Pointer, length uint32) int32 {
	for i, b := range input {
		if 'a' <= b && b <= 'z' {
			input[i] -= 'a' - 'A'
		}
	}
	setOutput(unsafe.Pointer(unsafe.SliceData(input)), length)
	return 0
}

func main() {}
