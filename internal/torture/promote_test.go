package torture

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPromotionGoesOn kills a pull while a file that came whole is made a blob
// of the store. The next goes on without the packs that its bytes were in.
func TestPromotionGoesOn(t *testing.T) {
	for _, step := range []string{"partial.proved", "partial.named"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.addRemote()
			r.ok("sh", "-c", `head -c 36700160 /dev/urandom > random && curi add random --name random &&
				curi push random && curi rm random && curi gc`)
			if o := r.run(faults(step+"=kill"), "curi", "pull", "--now", "team/random"); o.status != 137 {
				t.Fatalf("it was not killed: %s", o)
			}
			r.sound()
			if err := os.Rename(r.bucket()+"/packs", r.bucket()+"/gone"); err != nil {
				t.Fatal(err)
			}
			r.ok("curi", "pull", "--now", "team/random")
			r.ok("curi", "checkout", "team/random", "copy")
			r.ok("cmp", "random", "copy/random")
			if err := os.Rename(r.bucket()+"/gone", r.bucket()+"/packs"); err != nil {
				t.Fatal(err)
			}
			r.ok("curi", "gc")
			r.sound()
			if left, _ := filepath.Glob(r.store + "/partial/??/*"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}
