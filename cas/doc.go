// Package cas is a content-addressed store of immutable blobs and trees, and
// of mutable refs that name trees: every ref names a tree, everything else is
// a view or a function of those.
//
// A [Store] is a directory that several goroutines, processes and, over a
// network filesystem, machines use at once. [Store.AddPath] and its siblings
// bring files in, [Store.Publish] names the result as the next version of an
// artifact, [Store.FS] shows it as an [io/fs.FS] whose files are io.ReaderAt,
// [Store.Checkout] makes a copy of one's own, [Store.Verify] rehashes, and
// [Store.Collect] removes what nothing names. docs/format.md describes every
// byte on the disk.
//
// The package reads no environment and prints nothing; it logs to the
// [log/slog.Logger] of [Options]. Errors say what was being done to which
// path; those that a caller tests for with [errors.Is] are named in this
// package.
package cas
