// Command curi-bucket speaks to object stores for curi and curifs, which start
// it themselves where a remote's URL is s3://, gs:// or azblob://. It serves
// one bucket to the program that started it, over standard input and output,
// and ends with it.
package main

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/term"

	"github.com/curi-store/curi/cas/remote"
	"github.com/curi-store/curi/cas/remote/bucket"
)

func main() {
	in, out := os.Stdin, os.Stdout
	if len(os.Args) > 1 || term.IsTerminal(int(in.Fd())) {
		fmt.Fprintln(os.Stderr, "curi-bucket: curi starts this program itself, to speak to s3://, gs:// and azblob:// (curi help remote)")
		os.Exit(120)
	}
	// Whatever a library prints must not come between answers.
	os.Stdout = os.Stderr
	if err := remote.Serve(context.Background(), in, out, bucket.Open); err != nil {
		fmt.Fprintln(os.Stderr, "curi-bucket:", err)
		os.Exit(125)
	}
}
