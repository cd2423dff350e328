package remote

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
)

// Two troubles with a remote are remembered for a minute, so that one call
// after the other does not run into them.
const (
	awayFile   = "away.json"   // it did not answer, and to find that out took long
	failedFile = "failed.json" // what is owed could not be published
)

const troubleTime = time.Minute

type troubleJSON struct {
	Host string    `json:"host"` // of whom it was
	Time time.Time `json:"time"`
	Why  string    `json:"why,omitempty"`
}

func noteTrouble(ctx context.Context, s *cas.Store, name, file, why string) error {
	host, _ := os.Hostname()
	b, err := json.Marshal(troubleJSON{host, fault.Now(), why})
	if err != nil {
		return err
	}
	return s.WriteRemoteFile(ctx, name, file, append(b, '\n'))
}

// trouble reads what was noted, and reports whether that is of this machine
// and less than a minute old.
func trouble(s *cas.Store, name, file string) (j troubleJSON, fresh bool) {
	b, err := os.ReadFile(s.RemoteFile(name, file))
	if err != nil || json.Unmarshal(b, &j) != nil {
		return troubleJSON{}, false
	}
	host, _ := os.Hostname()
	// The clock may have been set back since.
	ago := fault.Now().Sub(j.Time)
	return j, j.Host == host && ago >= 0 && ago < troubleTime
}

// NoteAway remembers that the remote called name did not answer this machine.
func NoteAway(ctx context.Context, s *cas.Store, name string) error {
	return noteTrouble(ctx, s, name, awayFile, "")
}

// NoteBack forgets it.
func NoteBack(s *cas.Store, name string) { _ = os.Remove(s.RemoteFile(name, awayFile)) }

// Away reports how long ago that was, if it is remembered.
func Away(s *cas.Store, name string) (ago time.Duration, away bool) {
	j, fresh := trouble(s, name, awayFile)
	return fault.Now().Sub(j.Time), fresh
}

// NoteFailed remembers why what is owed to a remote could not be published.
func NoteFailed(ctx context.Context, s *cas.Store, name string, why error) error {
	return noteTrouble(ctx, s, name, failedFile, why.Error())
}

// NotePaid forgets it.
func NotePaid(s *cas.Store, name string) { _ = os.Remove(s.RemoteFile(name, failedFile)) }

// Failed returns why the last attempt failed, "" if it did not, and whether
// that was just now.
func Failed(s *cas.Store, name string) (why string, now bool) {
	j, fresh := trouble(s, name, failedFile)
	return j.Why, fresh
}
