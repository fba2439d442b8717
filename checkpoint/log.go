package checkpoint

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"strings"
)

// maxLogTail is how much of the end of a log is searched for errors. CRIU says what went wrong in its last lines; with
// all messages on, the log before them may have any size.
const maxLogTail = 256 << 10

// criuErrors returns the last lines of CRIU's log that tell of an error, or the last lines if none does.
func criuErrors(path string, most int) ([]string, error) {
	tail, err := readTail(path, maxLogTail)
	if err != nil {
		return nil, err
	}
	all := nonEmptyLines(tail)
	var errs []string
	for _, line := range all {
		if strings.Contains(line, "Error (") {
			errs = append(errs, line)
		}
	}
	if len(errs) == 0 {
		errs = all
	}
	return errs[max(0, len(errs)-most):], nil
}

// runcErrors returns the messages of runc's log (in its JSON format) that tell of an error. A log that is not there or
// not readable has none.
func runcErrors(path string) []string {
	if path == "" {
		return nil
	}
	tail, err := readTail(path, maxLogTail)
	if err != nil {
		return nil
	}
	var messages []string
	for _, line := range nonEmptyLines(tail) {
		var record struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &record) != nil {
			continue
		}
		if record.Level == "error" || record.Level == "fatal" {
			messages = append(messages, strings.TrimSpace(record.Msg))
		}
	}
	return messages
}

// readTail returns the last most bytes of a file.
func readTail(path string, most int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if _, err := f.Seek(max(0, info.Size()-most), io.SeekStart); err != nil {
		return "", err
	}
	data, err := io.ReadAll(bufio.NewReader(f))
	return string(data), err
}

func nonEmptyLines(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}
