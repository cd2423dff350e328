// Package stages knows what a stage is: its parameters, its key, its record
// and the runs of the past.
//
// [Bind] turns a [Stage], as it was asked for, into a [Plan]: inputs by digest,
// code found and hashed, and from all of it the [Preimage], whose hash is the
// [Key]. [FindResult] looks a key up; [Resolve] finds what a REF names.
// [CheckpointSearch], [FindPython] and [Capture] are for a run that begins,
// [Explain], [Ancestors] and [Descendants] for people who ask.
//
// The package runs no stage. It starts processes in two places only: the
// --tool commands, whose output is keyed, and git in Capture.
package stages
