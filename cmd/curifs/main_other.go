//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "curifs: mounting works on Linux only; `curi checkout` and --no-mount work everywhere")
	os.Exit(1)
}
