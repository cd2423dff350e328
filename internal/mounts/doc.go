// Package mounts reads the kernel's list of what is mounted where. Looking at a
// mount itself would wait for its server, which may be dead, or this process.
package mounts
