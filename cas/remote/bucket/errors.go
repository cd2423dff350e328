package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	"gocloud.dev/gcerrors"
	"google.golang.org/api/googleapi"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
)

// Where credentials come from, for people who lack them.
const (
	s3Chain    = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile (AWS_PROFILE, aws configure), or the machine's role"
	gcsChain   = "GOOGLE_APPLICATION_CREDENTIALS, gcloud auth application-default login, or the machine's service account"
	azureChain = "AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, az login, or the machine's identity"
)

func noCredentials(name, chain string, err error) error {
	text := ""
	if err != nil {
		text = " (" + brief(err) + ")"
	}
	return fmt.Errorf("%s: no credentials found%s; they come from %s: %w", name, text, chain, fs.ErrPermission)
}

// fail words what a store answered to a request for an object, as an error
// that keeps its meaning for callers.
func (b *bucket) fail(ctx context.Context, what, key string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	say := func(text string, is error) error { return fmt.Errorf("%s %s: %s: %w", what, key, text, is) }
	code, status := answer(err)
	switch {
	case code == "NoSuchBucket" || code == "ContainerNotFound":
		// That an object is missing would be taken for an empty remote.
		return say("there is no bucket "+b.name+"; make it, or correct the URL", cas.ErrInvalid)
	case status == http.StatusRequestedRangeNotSatisfiable:
		return io.EOF
	case status == http.StatusNotFound:
		return fmt.Errorf("%s: %w", key, cas.ErrNotFound)
	case status == http.StatusPreconditionFailed || code == "BlobAlreadyExists":
		return fmt.Errorf("%s: %w", key, cas.ErrExists)
	case status == http.StatusUnauthorized || status == http.StatusForbidden || stale[code]:
		return say("refused ("+brief(err)+"); check the credentials and what they are allowed to do with "+b.name, fs.ErrPermission)
	case status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status == http.StatusConflict || damaged[code]:
		return say(brief(err), remote.ErrAway)
	case status >= 400:
		return say(brief(err), cas.ErrInvalid)
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		// Without an answer: a host that is not found.
		if status == 0 && code == "" && !strings.Contains(err.Error(), "no such host") {
			return fmt.Errorf("%s: %w", key, cas.ErrNotFound)
		}
	case gcerrors.FailedPrecondition, gcerrors.AlreadyExists:
		return fmt.Errorf("%s: %w", key, cas.ErrExists)
	case gcerrors.PermissionDenied:
		return say(brief(err), fs.ErrPermission)
	}
	return say(brief(err), remote.ErrAway)
}

// stale are codes of credentials that were right, whatever status comes with
// them.
var stale = map[string]bool{"ExpiredToken": true, "InvalidToken": true, "TokenRefreshRequired": true, "ExpiredTokenException": true}

// damaged are codes that say that a request was damaged on its way.
var damaged = map[string]bool{
	"BadDigest": true, "InvalidDigest": true, "IncompleteBody": true, "XAmzContentSHA256Mismatch": true, "XAmzContentChecksumMismatch": true,
	"RequestTimeout": true, "SlowDown": true, "Md5Mismatch": true, "Crc64Mismatch": true,
}

// answer takes the code and the HTTP status out of an error; "" and 0 where
// the store did not answer.
func answer(err error) (code string, status int) {
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	var aws *awshttp.ResponseError
	var azure *azcore.ResponseError
	var google *googleapi.Error
	switch {
	case errors.As(err, &aws):
		status = aws.HTTPStatusCode()
	case errors.As(err, &azure):
		code, status = azure.ErrorCode, azure.StatusCode
	case errors.As(err, &google):
		status = google.Code
	}
	if status < 400 { // an answer that could not be read to its end
		status = 0
	}
	return code, status
}

// query is what follows a question mark, which may be a signature.
var query = regexp.MustCompile(`\?\S+`)

// wrapped is what gocloud.dev puts before each error.
var wrapped = regexp.MustCompile(`^blob \(key "[^"]*"\) \(code=\w+\): `)

// brief words an error of a library in one line, without the request.
func brief(err error) string {
	var api smithy.APIError
	var azure *azcore.ResponseError
	var google *googleapi.Error
	var web *url.Error
	text := ""
	switch {
	case errors.As(err, &api):
		text = api.ErrorCode() + ": " + api.ErrorMessage()
	case errors.As(err, &azure):
		text = fmt.Sprintf("%s, status %d", azure.ErrorCode, azure.StatusCode)
	case errors.As(err, &google):
		text = fmt.Sprintf("status %d, %s", google.Code, google.Message)
	case errors.As(err, &web):
		text = web.Err.Error()
	default:
		text = err.Error()
	}
	text = wrapped.ReplaceAllString(text, "")
	text = query.ReplaceAllString(strings.Join(strings.Fields(text), " "), "?…")
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "…"
	}
	return text
}
