package launcher

import (
	"time"

	"github.com/curi-store/curi/stages"
)

// GuardArg is the hidden first argument that makes curi the guard.
const GuardArg = "__guard"

// The descriptors of the guard. From fdHeld on it only holds what it was
// given: the key's lock, the pin, the use of the mount.
const (
	fdOrders = 3 + iota // curi → guard: a guardSpec, then guardOrders
	fdReports
	fdStdin
	fdStdout
	fdStderr
	fdHeld
)

// guardSpec says what the guard runs. It goes through a pipe, since argv and
// environment may hold secrets that no process list should show.
type guardSpec struct {
	Argv  []string      `json:"argv"` // Argv[0] is what the command sees
	Path  string        `json:"path"` // of the program, absolute
	Dir   string        `json:"dir"`
	Env   []string      `json:"env"`
	TTY   bool          `json:"tty"`   // stdout is a terminal to be controlled by
	Grace time.Duration `json:"grace"` // for what outlives the command
	Held  int           `json:"held"`  // number of descriptors from fdHeld on
	Trees *guardTrees   `json:"trees"` // nil: no input is to be mounted

	// What to settle when curi dies: the run is marked lost.
	Store string     `json:"store"`
	Run   stages.Run `json:"run"`
	// Mark is the variable, with its value, by which a process that got away
	// is found.
	Mark string `json:"mark"`

	Share *share `json:"share,omitempty"` // who else is to have what the command leaves
}

// guardOrder is a message to the guard.
type guardOrder struct {
	// Signal is sent to the command alone; what lives After that long is
	// killed. Signal 0 kills at once.
	Signal int           `json:"signal"`
	After  time.Duration `json:"after"`
}

// guardReport is a message of the guard. Exactly one field is set.
type guardReport struct {
	Started int       `json:"started,omitempty"` // pid of the command
	Failed  string    `json:"failed,omitempty"`  // why it could not start
	Slow    string    `json:"slow,omitempty"`    // why inputs of small files are as the mount shows them
	Errno   int       `json:"errno,omitempty"`   // with Failed
	Exited  *exit     `json:"exited,omitempty"`
	Left    []process `json:"left,omitempty"`    // what outlives the command
	Killing []process `json:"killing,omitempty"` // what outlived the grace
	Done    bool      `json:"done,omitempty"`    // nothing is left
	Stuck   []process `json:"stuck,omitempty"`   // what cannot be killed
}

// exit is how the command ended.
type exit struct {
	Code   int `json:"code"`   // 128+n for a signal
	Signal int `json:"signal"` // 0: it exited
}

// process is one that a person may know.
type process struct {
	PID  int    `json:"pid"`
	Name string `json:"name"`

	start uint64 // when it began, so that no other is taken for it
}
