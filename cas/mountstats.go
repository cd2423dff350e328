package cas

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// MountStats is what the server of a mount counted since it began to serve.
// What the kernel serves by itself nobody counts: reads and writes of a file
// opened by passthrough, and what lies in its caches.
type MountStats struct {
	UptimeSeconds float64 `json:"uptime_seconds"`

	Opens            int64 `json:"opens"`             // files opened
	PassthroughOpens int64 `json:"passthrough_opens"` // of these, by passthrough
	OpenFiles        int64 `json:"open_files"`        // open now
	OpenDirs         int64 `json:"open_dirs"`         // directories open now

	Reads        int64 `json:"reads"` // requests
	Writes       int64 `json:"writes"`
	ReadBytes    int64 `json:"read_bytes"` // that went through the server
	WrittenBytes int64 `json:"written_bytes"`
	Lookups      int64 `json:"lookups"` // names that the kernel did not know, or no more

	// Of the opens of stored files without passthrough: those during which the
	// kernel asked for no byte, because its cache had all that the program
	// read, and those during which it asked. An open counts once it is closed,
	// or when the kernel asks.
	CacheHits   int64 `json:"cache_hits"`
	CacheMisses int64 `json:"cache_misses"`

	Refreshes int64       `json:"refreshes"` // times the names were looked through for changes
	Errors    MountErrors `json:"errors"`
}

// MountErrors counts the requests of programs that a mount answered with an
// error, by what kind of error it was.
type MountErrors struct {
	IO      int64 `json:"io"`      // damage, failures of the disk, and what nobody foresaw
	Space   int64 `json:"space"`   // no space, no quota
	Refused int64 `json:"refused"` // read-only, no permission
	Busy    int64 `json:"busy"`    // in use, or interrupted
	Limit   int64 `json:"limit"`   // too many, too long or too large
	Absent  int64 `json:"absent"`  // no such name or attribute: programs look for what may not be there
	Other   int64 `json:"other"`   // exists, not empty, not a directory, not supported, …
}

// Stats asks the server of a mount for its counters, for as long as ctx lasts.
// [ErrNotFound] where the mount cannot be asked: it is in another mount
// namespace, or this process is its server.
func (m Mount) Stats(ctx context.Context) (MountStats, error) {
	var st MountStats
	if !m.askable() {
		return st, fmt.Errorf("ask the mount at %s: it is not to be reached from here: %w", m.Dir, ErrNotFound)
	}
	type answer struct {
		json []byte
		err  error
	}
	// The call cannot be interrupted where the server hangs; its thread ends
	// with the mount.
	done := make(chan answer, 1)
	go func() {
		b, err := askStats(m.Dir)
		done <- answer{b, err}
	}()
	select {
	case a := <-done:
		if a.err == nil {
			a.err = json.Unmarshal(a.json, &st)
		}
		if a.err != nil {
			return st, fmt.Errorf("ask the mount at %s: %w", m.Dir, a.err)
		}
		return st, nil
	case <-ctx.Done():
		err := context.Cause(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("its server, process %d, does not answer: %w", m.PID, err)
		}
		return st, fmt.Errorf("ask the mount at %s: %w", m.Dir, err)
	}
}
