package tracer

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"thaw/restore/tracer/trace"
)

func TestBestPointThatTheKernelOffersIsChosen(t *testing.T) {
	all := []trace.Point{trace.PointFentry, trace.PointKprobe, trace.PointTracepoints, trace.PointUserTracepoint}
	refusal := errors.New("not here")
	for i, best := range all {
		t.Run(best.String(), func(t *testing.T) {
			var tried []trace.Point
			point, attached, refused, err := choose(func(p trace.Point) (string, error) {
				tried = append(tried, p)
				if slices.Contains(all[:i], p) {
					return "", refusal
				}
				return p.String(), nil
			})
			if err != nil || point != best || attached != best.String() || !slices.Equal(tried, all[:i+1]) {
				t.Errorf("chose %v (%s) after trying %v: %v", point, attached, tried, err)
			}
			for n, r := range refused {
				if r.Point != all[n] || !errors.Is(r.Err, refusal) || !strings.Contains(r.String(), "not here") {
					t.Errorf("refusal %d is %v", n, r)
				}
			}
			if len(refused) != i {
				t.Errorf("%d refusals, want %d", len(refused), i)
			}
		})
	}
}

func TestWithoutAnyPointTheErrorNamesAll(t *testing.T) {
	_, _, refused, err := choose(func(p trace.Point) (int, error) {
		if p == trace.PointKprobe {
			return 0, os.ErrPermission
		}
		return 0, os.ErrNotExist
	})
	if len(refused) != 4 || !errors.Is(err, os.ErrPermission) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("choose returns %v, %v", refused, err)
	}
	for _, part := range []string{"fentry", "kprobe", "page_fault_kernel"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
}

func TestPointsThatSeeLessSayMore(t *testing.T) {
	for p := trace.PointFentry; p < trace.PointUserTracepoint; p++ {
		better, worse := p.Blind(), (p + 1).Blind()
		if better&^worse != 0 || better == worse {
			t.Errorf("%v is blind to %v, %v to %v", p, better, p+1, worse)
		}
	}
}

const format = `name: task_newtask
ID: 92
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:pid_t pid;	offset:8;	size:4;	signed:1;
	field:char comm[16];	offset:12;	size:16;	signed:0;
	field:u64 clone_flags;	offset:32;	size:8;	signed:0;
	field:u64 broken;	size:8;	signed:0;

print fmt: "pid=%d", REC->pid
`

func TestFieldsOfTracepointsAreFound(t *testing.T) {
	for field, want := range map[string]uint32{"pid": 8, "clone_flags": 32} {
		if got, err := fieldOffset(format, field); err != nil || got != want {
			t.Errorf("%s is at %d, %v; want %d", field, got, err, want)
		}
	}
	if _, err := fieldOffset(format, "group_dead"); !errors.Is(err, errNoField) {
		t.Errorf("a field that is not there: %v", err)
	}
	if _, err := fieldOffset(format, "broken"); err == nil || errors.Is(err, errNoField) {
		t.Errorf("a field without offset: %v", err)
	}
}
