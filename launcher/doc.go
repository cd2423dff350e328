// Package launcher runs a command for a stage: places, process tree, signals, logs.
//
// [Exec] is the whole flow. A key with a result is a hit, and nothing starts.
// Else the call takes the key's lock, or waits for the call that has it and
// takes its result or its failure. Then it prepares the key's place in the
// store (inputs, outputs, work directories), finds or starts a mount that shows
// it, and runs the command under a guard: this program re-executed as
// [GuardMain], which is the subreaper of the command's process tree and holds
// the lock too. Whoever is killed, the key is not free before the tree is gone.
// When the tree is empty after success, the outputs are sealed, and record,
// log and refs are written, the result's ref last.
//
// The package meets the filesystem that shows a store at paths only.
package launcher
