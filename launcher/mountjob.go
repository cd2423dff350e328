package launcher

import (
	"bytes"
	"cmp"
	"fmt"
	"os"

	"github.com/curi-store/curi/cas"
)

// When a job of Slurm ends, Slurm kills what it left, the server of a mount
// included that was started for it. A run of another job, or of none, must not
// have been in that mount.

// slurmID is the number of the job of Slurm that this call is in.
func (e *execution) slurmID() string {
	id, _ := e.env.get("SLURM_JOB_ID")
	return cmp.Or(id, "local")
}

// leavesWithJob reports whether a mount was started for a job that is not this
// call's.
func (e *execution) leavesWithJob(m cas.Mount) bool {
	if !m.Auto {
		return false // somebody made it to stay
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", m.PID))
	if err != nil {
		return false // another user's, which no job of this one ends
	}
	for v := range bytes.SplitSeq(env, []byte{0}) {
		if id, ok := bytes.CutPrefix(v, []byte("SLURM_JOB_ID=")); ok {
			return string(id) != e.slurmID()
		}
	}
	return false
}
