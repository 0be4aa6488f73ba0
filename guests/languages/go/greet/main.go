// Greets a person by name. There are no bindings here: this is how WIT's types lie in memory.
package main

import (
	"structs"
	"unsafe"
)

// A result: whether it is an error, a string, and the option of a bool. Addresses have 32 bits, Go's pointers 64.
type answer struct {
	_                structs.HostLayout
	isErr            bool
	text, length     uint32
	hasAdult, adult  bool
}

// What the caller reads after the call has to be where Go's collector finds it.
var (
	given  [][]byte
	result answer
	text   string
)

//go:wasmexport cabi_realloc
func realloc(_ unsafe.Pointer, _, _, size uint32) unsafe.Pointer {
	given = append(given, make([]byte, size))
	return unsafe.Pointer(unsafe.SliceData(given[len(given)-1]))
}

func answerWith(words string) unsafe.Pointer {
	text = words
	result.text, result.length = uint32(uintptr(unsafe.Pointer(unsafe.StringData(text)))), uint32(len(text))
	return unsafe.Pointer(&result)
}

//go:wasmexport example:guests/greeter#greet
func greet(name unsafe.Pointer, length uint32, hasAge, age, tone int32) unsafe.Pointer {
	if length == 0 {
		result.isErr = true
		return answerWith("nobody to greet")
	}
	word := "Hello"
	if tone == 1 {
		word = "Welcome"
	}
	result.hasAdult, result.adult = hasAge == 1, age >= 18
	return answerWith(word + ", " + unsafe.String((*byte)(name), length) + "!")
}

func main() {}
