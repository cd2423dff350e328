//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// startBackground starts this program again in the background and returns when
// that serves, which is how mount(8) expects its helpers to behave.
func startBackground(args []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	defer r.Close()
	// Under its own name it stays in the foreground. mount(8) gives absolute paths.
	cmd := exec.Command(self, append(args[1:len(args):len(args)], "--ready-fd=3")...)
	cmd.Args[0] = "curifs"
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start %s: %w", self, err)
	}
	var answer struct {
		ID    string `json:"id"`
		Error string `json:"error"`
	}
	line, _ := bufio.NewReader(r).ReadBytes('\n')
	switch err := json.Unmarshal(line, &answer); {
	case err != nil:
		return errors.New("the server ended before it served")
	case answer.Error != "":
		return errors.New(answer.Error)
	}
	return nil
}
