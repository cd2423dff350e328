// Package remote keeps trees in object stores and shared directories, so that
// several stores have one cache.
//
// A [Bucket] holds objects; this package knows no object store itself but the
// directory (file://) and talks to all others through a helper program, so
// that programs which need none do not carry their libraries. A [Remote] is a
// bucket with what Curi keeps in it: packs of compressed chunks, one recipe
// for each tree that was pushed, and refs. docs/format.md describes every
// byte.
//
// Nothing that comes out of a bucket is believed: bytes are verified against
// the digest that was asked for, whatever recipe led to them, and every length
// is bounded before memory is taken for it. What a name or a key maps to is
// the word of those who can write the bucket.
package remote
