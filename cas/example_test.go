package cas_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
)

// Open a store, add a directory, name it, and read it again.
func Example() {
	ctx := context.Background()
	tmp, err := os.MkdirTemp("", "cas-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	digits := filepath.Join(tmp, "digits")
	if err := os.CopyFS(digits, os.DirFS("testdata/example")); err != nil {
		log.Fatal(err)
	}

	store, err := cas.Open(ctx, filepath.Join(tmp, "store"), cas.Options{Create: true})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	added, err := store.AddPath(ctx, digits, cas.AddOptions{
		Attrs: cas.MetaAttrs(map[string]string{"type": "Digits"}),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer added.Release() // until then nothing is collected, named or not
	version, _, err := store.Publish(ctx, "digits", added.Tree, cas.PublishOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s@%d has %d files and is a %s\n", version.Name, version.N, added.Files, meta(ctx, store, version.Tree)["type"])

	newest, err := store.Version(ctx, "digits", "")
	if err != nil {
		log.Fatal(err)
	}
	fsys, err := store.FS(ctx, newest.Tree)
	if err != nil {
		log.Fatal(err)
	}
	err = fs.WalkDir(fsys, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := fs.ReadFile(fsys, path)
		fmt.Printf("%s: %s", path, b)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}

	// Output:
	// digits@1 has 2 files and is a Digits
	// labels.txt: 3 1 4 1 5
	// train/0.txt: 0 0 5 13 9 1 0 0
}

func meta(ctx context.Context, store *cas.Store, tree cas.Digest) map[string]string {
	t, err := store.Tree(ctx, tree)
	if err != nil {
		log.Fatal(err)
	}
	return t.Attrs.Meta()
}

// Find what a digest, a part of one, or a name stands for.
func ExampleStore_ResolvePrefix() {
	ctx := context.Background()
	tmp, err := os.MkdirTemp("", "cas-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	store, err := cas.Open(ctx, tmp, cas.Options{Create: true})
	if err != nil {
		log.Fatal(err)
	}
	added, err := store.AddReader(ctx, strings.NewReader("hello\n"), "hello.txt", cas.AddOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer added.Release()

	digest, isTree, err := store.ResolvePrefix(ctx, added.Digest.String()[:8])
	fmt.Println(digest, isTree, err)
	name, entry, single, err := store.SingleFile(ctx, added.Tree)
	fmt.Println(name, entry.Size, single, err)
	_, err = store.Version(ctx, "nothing", "")
	fmt.Println(errors.Is(err, cas.ErrNotFound))

	// Output:
	// 8e4c7c1b99dbfd50e7a95185fead5ee1448fa904a2fdd778eaf5f2dbfd629a99 false <nil>
	// hello.txt 6 true <nil>
	// true
}

// Remove what no name needs any more.
func ExampleStore_Collect() {
	ctx := context.Background()
	tmp, err := os.MkdirTemp("", "cas-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	store, err := cas.Open(ctx, tmp, cas.Options{Create: true})
	if err != nil {
		log.Fatal(err)
	}
	for _, text := range []string{"kept\n", "given up\n"} {
		added, err := store.AddReader(ctx, strings.NewReader(text), "note.txt", cas.AddOptions{})
		if err != nil {
			log.Fatal(err)
		}
		if text == "kept\n" {
			if _, _, err := store.Publish(ctx, "note", added.Tree, cas.PublishOptions{}); err != nil {
				log.Fatal(err)
			}
		}
		added.Release()
	}
	report, err := store.Collect(ctx, cas.CollectOptions{StagingAge: 24 * time.Hour})
	fmt.Println(report.RemovedBlobs, report.KeptBlobs, err)

	// Output:
	// 1 1 <nil>
}
