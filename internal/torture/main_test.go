// Package torture has no code but tests: of what the programs do when they are
// killed, when the disk fails and when the clock jumps, and of writers that
// race the sealing of outputs. They use the real binaries, built with the
// faults of package fault.
package torture

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var (
	seed          = flag.Uint64("seed", 0, "`number` that decides what is random; 0 takes another one each time")
	kills         = flag.Int("kills", 1000, "`number` of processes that are killed at random")
	remoteKills   = flag.Int("remotekills", 40, "`number` of processes that are killed at random while they push, pull and collect a remote, of each kind")
	graphKills    = flag.Int("graphkills", 8, "`number` of processes that are killed at random while graphs of stages run")
	lazyKillCount = flag.Int("lazykills", 10, "`number` of times that a process is killed while a file of a remote is read")
	sealing       = flag.Duration("sealing", 60*time.Second, "`how long` writers race the seal, each way")
	everything    = flag.Bool("everything", false, "faults at every step and call of every operation, not a choice")
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "writer" {
		os.Exit(writerMain(os.Getenv(writerEnv)))
	}
	if filepath.Base(os.Args[0]) == "loopback" {
		os.Exit(loopbackMain())
	}
	if path := os.Getenv(lazyReaderEnv); path != "" {
		os.Exit(lazyReaderMain(path))
	}
	flag.Parse()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	os.Exit(m.Run())
}
