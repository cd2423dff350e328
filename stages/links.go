package stages

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/curi-store/curi/cas"
)

// mostLinks is how many symbolic links are followed in one path, as in Linux.
const mostLinks = 40

// followLinks returns where a path inside a tree leads, as in a mount: links on
// its way and at its end are followed. link is the target of the one at its
// end, "" if there is none; where that leads nowhere, real is the link itself.
func followLinks(ctx context.Context, s *cas.Store, tree cas.Digest, path string) (real, link string, err error) {
	var at []string
	todo := strings.Split(path, "/")
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(at) == 0 {
				return dangling(path, link, errors.New("a link leads out of it"))
			}
			at = at[:len(at)-1]
			continue
		}
		here := strings.Join(append(at, part), "/")
		e, err := s.Lookup(ctx, tree, here)
		if errors.Is(err, cas.ErrNotFound) {
			return dangling(path, link, err)
		}
		if err != nil {
			return "", "", err
		}
		if e.Kind != cas.KindSymlink {
			at = append(at, part)
			continue
		}
		if links++; links > mostLinks || strings.HasPrefix(e.Target, "/") {
			return dangling(path, link, errors.New("its links lead nowhere"))
		}
		if here == path {
			link = e.Target
		}
		todo = append(strings.Split(e.Target, "/"), todo...)
	}
	return strings.Join(at, "/"), link, nil
}

// dangling is the end of a way that leads nowhere: the link at the end of the
// path, if that is what it is.
func dangling(path, link string, why error) (real, to string, err error) {
	if link != "" {
		return path, link, nil
	}
	if errors.Is(why, cas.ErrNotFound) {
		return "", "", why
	}
	return "", "", fmt.Errorf("look up %q: %w: %w", path, why, cas.ErrNotFound)
}
