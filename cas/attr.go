package cas

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// MetaPrefix is the extended-attribute namespace of Curi's metadata: the
// metadata "type" of an artifact is the attribute "user.curi.type".
const MetaPrefix = "user.curi."

// Limits of attributes. They are what Linux takes for extended attributes, so
// that everything stored can be shown.
const (
	MaxAttrs     = 256       // attributes in one list
	MaxAttrKey   = 255       // bytes of a key
	MaxAttrBytes = 64 * 1024 // bytes of all keys and values in one list
)

// Attr is one attribute of a tree or of an entry. Keys unknown to this version
// are kept as they are.
type Attr struct{ Key, Value string }

// Attrs is a list of attributes, sorted by key, without duplicates.
type Attrs []Attr

// MetaAttrs turns metadata (keys without [MetaPrefix]) into attributes.
func MetaAttrs(meta map[string]string) Attrs {
	if len(meta) == 0 {
		return nil
	}
	a := make(Attrs, 0, len(meta))
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		a = append(a, Attr{MetaPrefix + k, meta[k]})
	}
	return a
}

func (a Attrs) search(key string) (int, bool) {
	return slices.BinarySearchFunc(a, key, func(x Attr, key string) int { return strings.Compare(x.Key, key) })
}

// Get returns the value of key.
func (a Attrs) Get(key string) (string, bool) {
	if i, ok := a.search(key); ok {
		return a[i].Value, true
	}
	return "", false
}

// With returns a copy of a with key set to value; an empty value is kept.
func (a Attrs) With(key, value string) Attrs {
	i, ok := a.search(key)
	b := slices.Clone(a)
	if ok {
		b[i].Value = value
		return b
	}
	return slices.Insert(b, i, Attr{key, value})
}

// Without returns a copy of a that lacks key.
func (a Attrs) Without(key string) Attrs {
	b := slices.Clone(a)
	if i, ok := b.search(key); ok {
		b = slices.Delete(b, i, i+1)
	}
	return b
}

// Meta returns the attributes under [MetaPrefix], keys without it. Never nil.
func (a Attrs) Meta() map[string]string {
	m := map[string]string{}
	for _, x := range a {
		if k, ok := strings.CutPrefix(x.Key, MetaPrefix); ok {
			m[k] = x.Value
		}
	}
	return m
}

// check reports why a cannot stand in a tree.
func (a Attrs) check() error {
	if len(a) > MaxAttrs {
		return fmt.Errorf("%d attributes, at most %d are kept", len(a), MaxAttrs)
	}
	total := 0
	for i, x := range a {
		switch {
		case x.Key == "":
			return fmt.Errorf("an attribute without a key")
		case len(x.Key) > MaxAttrKey:
			return fmt.Errorf("attribute key %.40q… is longer than %d bytes", x.Key, MaxAttrKey)
		case strings.IndexByte(x.Key, 0) >= 0:
			return fmt.Errorf("attribute key %q has a NUL byte", x.Key)
		case i > 0 && x.Key <= a[i-1].Key:
			return fmt.Errorf("attributes %q and %q are not in order", a[i-1].Key, x.Key)
		}
		total += len(x.Key) + len(x.Value)
	}
	if total > MaxAttrBytes {
		return fmt.Errorf("attributes hold %d bytes, at most %d are kept", total, MaxAttrBytes)
	}
	return nil
}
