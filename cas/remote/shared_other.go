//go:build !linux

package remote

import (
	"errors"
	"os"
)

func sharedFile(int64) (*os.File, error) { return nil, errors.ErrUnsupported }

func sealed(int, int64) bool { return false }

func punch(*os.File, int64) error { return errors.ErrUnsupported }
