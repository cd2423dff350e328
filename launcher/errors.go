package launcher

import "errors"

var (
	// ErrRefused: the stage may not run, or its outputs may not be published.
	ErrRefused = errors.New("stage refused")
	// ErrMount: no mount could be used or made.
	ErrMount = errors.New("mount trouble")
)
