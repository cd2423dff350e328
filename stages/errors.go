package stages

import (
	"errors"
	"fmt"
	"strings"

	"github.com/curi-store/curi/cas"
)

// ErrUsage marks a stage, option or REF that can never be right.
var ErrUsage = errors.New("usage")

// usageError is a message for a person that wraps [ErrUsage] without showing
// the word: what is wrong is said by the message itself.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }
func (e *usageError) Unwrap() error { return ErrUsage }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// checkName is cas.CheckName as an error of usage.
func checkName(what, name string) error {
	err := cas.CheckName(name)
	if err == nil {
		return nil
	}
	return usagef("%s: %s", what, strings.TrimSuffix(err.Error(), ": "+cas.ErrInvalid.Error()))
}
