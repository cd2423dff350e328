package stages

import _ "embed"

// Schema is the JSON Schema of curi.yaml, for editors. [ParseFile] knows more:
// what stands between the parts of a file.
//
//go:embed curi.schema.json
var Schema string
