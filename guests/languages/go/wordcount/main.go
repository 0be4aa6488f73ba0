// Counts lines, words and bytes, as wc does.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
)

func main() {
	in := bufio.NewReader(os.Stdin)
	lines, words, bytes, inWord := 0, 0, 0, false
	for {
		b, err := in.ReadByte()
		if err == io.EOF {
			break
		} else if err != nil {
			panic(err)
		}
		space := b == ' ' || '\t' <= b && b <= '\r'
		if b == '\n' {
			lines++
		}
		if !space && !inWord {
			words++
		}
		inWord = !space
		bytes++
	}
	fmt.Println(lines, words, bytes)
}
