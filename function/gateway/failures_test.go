package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

func TestACallerThatGoesOrBreaksOffIsNoFailureOfTheServer(t *testing.T) {
	for name, tt := range map[string]struct {
		err    error
		body   io.Reader
		status int
		logged bool
	}{
		"it goes":         {context.Canceled, strings.NewReader(""), statusClientGone, false},
		"it breaks off":   {nil, io.MultiReader(strings.NewReader("{"), iotest.ErrReader(io.ErrUnexpectedEOF)), http.StatusBadRequest, false},
		"the server's is": {errors.New("a disk fails"), strings.NewReader(""), http.StatusInternalServerError, true},
	} {
		var log bytes.Buffer
		w := httptest.NewRecorder()
		h := NewHandler(&fake{err: tt.err}, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/apps/a/f", tt.body))
		if w.Code != tt.status || (log.Len() > 0) != tt.logged {
			t.Errorf("%s: answered %d, logged %q, want %d, and logged: %t", name, w.Code, log.String(), tt.status, tt.logged)
		}
	}
}
