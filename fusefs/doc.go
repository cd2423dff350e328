// Package fusefs shows a store as a mounted filesystem: artifacts, blobs and
// trees by address, the places of running stages, and runs.
//
// A process that serves a mount must never touch it: an open or a fork that
// waits for an answer of its own process waits for ever. Use the mount from
// other processes only. The package serves on Linux; elsewhere it is empty.
package fusefs
