//go:build !linux

package cas

// renameNew cannot be done in one call here.
func renameNew(from, to string) error { return errRenameNew }
