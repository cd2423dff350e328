package remote

import (
	"os"
	"path/filepath"
)

// FindHelper is the program that speaks to object stores, for
// [BucketOptions]: beside the running one where it is there, else by its name,
// which is looked for in PATH.
func FindHelper() string {
	const name = "curi-bucket"
	if self, err := os.Executable(); err == nil {
		p := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return name
}
