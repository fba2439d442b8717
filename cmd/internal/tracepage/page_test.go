package tracepage

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
)

func sample() *Page {
	return &Page{
		Title: "what <was> touched", Facts: []Fact{{"file", "a & b"}}, Warnings: []string{"not complete"},
		Charts: []Chart{
			{
				Title: "over \"time\"", Note: "each as long", Series: []string{"must", "likely", "tail"},
				Columns: []Row{{"1 ms", []uint64{3, 0, 7}}, {"", []uint64{0, 0, 0}}, {"4 ms", []uint64{1, 2, 3}}},
			},
			{Title: "nothing", Series: []string{"must"}},
		},
		Tables: []Table{{Title: "by object", Series: []string{"must", "likely"}, Rows: []Row{{"/usr/<lib>", []uint64{3, 1}}, {"none", []uint64{0, 0}}}, More: "and more"}},
	}
}

func render(t *testing.T, p *Page) string {
	t.Helper()
	var out bytes.Buffer
	if err := p.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestPageShowsAllThatItIsGiven(t *testing.T) {
	page := render(t, sample())
	for _, part := range []string{
		"<h1>what &lt;was&gt; touched</h1>", "a &amp; b", "not complete", "over &#34;time&#34;", "each as long", "1 ms: must 3, likely 0, tail 7",
		"by object", "/usr/&lt;lib&gt;", "and more", "prefers-color-scheme: dark",
	} {
		if !strings.Contains(page, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
}

func TestPageRefersToNothingOutside(t *testing.T) {
	outside := regexp.MustCompile(`(?i)https?:|//[a-z]|<script|<link|<img|<iframe|@import|url\(|\bsrc\s*=|href`)
	if found := outside.FindString(render(t, sample())); found != "" {
		t.Errorf("the page holds %q", found)
	}
}

func TestPicturesAreWellFormed(t *testing.T) {
	pictures := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(render(t, sample()), -1)
	if len(pictures) != 4 {
		t.Fatalf("%d pictures, want 4", len(pictures))
	}
	for _, svg := range pictures {
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") || strings.Contains(svg, `="-`) {
			t.Errorf("a picture has no number, or one below zero: %.300s", svg)
		}
		for dec := xml.NewDecoder(strings.NewReader(svg)); ; {
			if _, err := dec.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %.300s", err, svg)
			}
		}
	}
}

func TestRoundNumbersHaveDoublesThatSuffice(t *testing.T) {
	for n, want := range map[uint64]uint64{0: 1, 1: 1, 2: 1, 3: 2, 4: 2, 5: 3, 11: 6, 13: 8, 17: 10, 1001: 600, 2001: 2000, 1<<64 - 1: 2e18} {
		if got := roundUp(n); got != want {
			t.Errorf("roundUp(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestPageThatCannotBeWrittenIsToldOf(t *testing.T) {
	fails := errors.New("disk on fire")
	if err := sample().Write(writerFunc(func([]byte) (int, error) { return 0, fails })); !errors.Is(err, fails) {
		t.Errorf("Write returns %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
