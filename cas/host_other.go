//go:build !linux

package cas

import "errors"

func bootID() string                  { return "" }
func processStart(pid int) uint64     { return 0 }
func mountNamespace() uint64          { return 0 }
func mountedDevice(string) string     { return "" }
func askRefresh(dir string) error     { return errors.ErrUnsupported }
func askStats(string) ([]byte, error) { return nil, errors.ErrUnsupported }
