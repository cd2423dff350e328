package remote

import (
	"context"
	"encoding/json"
	"os"

	"github.com/curi-store/curi/cas"
)

// identityFile has the identity of the remote that the store last met under a
// name. Where there was one, none is to be made: a directory that is not
// mounted looks like one in which there never was any.
const identityFile = "identity.json"

type identityJSON struct {
	ID string `json:"id"`
}

// Met notes that the remote called name is r.
func (r *Remote) Met(ctx context.Context, s *cas.Store, name string) error {
	if Identity(s, name) == r.id {
		return nil
	}
	b, err := json.Marshal(identityJSON{r.id})
	if err != nil {
		return err
	}
	return s.WriteRemoteFile(ctx, name, identityFile, append(b, '\n'))
}

// Identity is that of the remote which was last met under a name, "" if none was.
func Identity(s *cas.Store, name string) string {
	b, err := os.ReadFile(s.RemoteFile(name, identityFile))
	var j identityJSON
	if err != nil || json.Unmarshal(b, &j) != nil {
		return ""
	}
	return j.ID
}
