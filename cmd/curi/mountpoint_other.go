//go:build !linux

package main

import "errors"

func unmount(string, bool) error { return errors.New("mounts exist on Linux only") }

func isBusy(error) bool { return false }

func isMountPoint(string) bool { return false }

func endServer(int) {}
