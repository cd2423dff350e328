package fault

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// What is built for users has none of this: neither the environment variable
// nor the name of a step. The build for tests shows that the look finds them.
func TestReleaseHasNoFaults(t *testing.T) {
	for tags, has := range map[string]bool{"": false, "curifault": true} {
		for _, program := range []string{"curi", "curifs"} {
			bin := filepath.Join(t.TempDir(), program)
			if out, err := exec.Command("go", "build", "-tags", tags, "-o", bin, "../../cmd/"+program).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			b, err := os.ReadFile(bin)
			if err != nil {
				t.Fatal(err)
			}
			for _, word := range []string{"CURI_FAULT", string(FileStaged), "injected "} {
				if got := bytes.Contains(b, []byte(word)); got != has {
					t.Errorf("%s, tags %q: has %q: %v", program, tags, word, got)
				}
			}
		}
	}
}
