package runner

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"thaw/internal/testenv"
)

// fakeEnv has the test program be a runner, whose answers it holds.
const fakeEnv = "THAW_TEST_RUNNER"

func TestMain(m *testing.M) {
	if script := os.Getenv(fakeEnv); script != "" {
		fake(script)
		return
	}
	testenv.Main(m)
}

// fake answers commands by a script: lines of an op and what to do at it, which is
//
//	say TEXT     write a line, with ID for the number of the call
//	log TEXT     write a line to the log
//	raw TEXT     write without the end of the line
//	long         write a line that is too long
//	hold         keep the number of the call
//	free N       answer all that were kept, the last first, if there are N or more
//	exit CODE
//
// At "start" it does so before the first command, at "end" at the end of its input.
func fake(script string) {
	var held []string
	do := func(op, id string) {
		for line := range strings.Lines(script) {
			at, action, _ := strings.Cut(strings.TrimSpace(line), " ")
			if at != op {
				continue
			}
			verb, text, _ := strings.Cut(action, " ")
			text = strings.ReplaceAll(text, "ID", id)
			switch verb {
			case "say":
				fmt.Println(text)
			case "log":
				fmt.Fprintln(os.Stderr, text)
			case "raw":
				fmt.Print(text)
			case "long":
				fmt.Println(strings.Repeat("x", MaxLine+1))
			case "hold":
				held = append(held, id)
			case "free":
				if n, _ := strconv.Atoi(text); len(held) < n {
					break
				}
				for i := len(held) - 1; i >= 0; i-- {
					fmt.Printf(`{"event":"result","id":%s,"value":%s,"seconds":0.5}`+"\n", held[i], held[i])
				}
				held = nil
			case "exit":
				os.Exit(len(text))
			}
		}
	}
	do("start", "")
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, MaxLine)
	for lines.Scan() {
		var command struct {
			Op     string
			ID     uint64
			Method string
		}
		if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
			fmt.Fprintln(os.Stderr, "not JSON:", err)
			os.Exit(1)
		}
		op := command.Op
		if command.Method != "" {
			op = command.Method
		}
		do(op, fmt.Sprint(command.ID))
	}
	do("end", "")
}

// start starts a fake runner and returns a client of it.
func start(t *testing.T, script string) *Client {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fakeEnv+"="+script+"\n")
	return startCommand(t, cmd)
}

// startCommand starts a runner and returns a client of it. The test ends both.
func startCommand(t *testing.T, cmd *exec.Cmd) *Client {
	t.Helper()
	var err error
	pipe := func() (r, w *os.File) {
		if r, w, err = os.Pipe(); err != nil {
			t.Fatal(err)
		}
		return r, w
	}
	stdin, in := pipe()
	out, stdout := pipe()
	stderr, theirErr := pipe()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, theirErr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	stdout.Close()
	theirErr.Close()
	log := NewLog(stderr, nil)
	c := New(in, out, log)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		log.Wait()
	})
	return c
}
