package lab

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// Workload is a program that is slow to start, and the requests that it is asked.
type Workload struct {
	// Name is what the workload is called on the command line, Title what it is called in reports.
	Name, Title string
	// Script is its Python file below the folder of the examples, Args are its arguments.
	Script string
	Args   []string
	// Port is where it listens for HTTP on the loopback interface of its container. 0: it reads JSON lines from its standard input.
	Port int
	// Request is what the container answers before it is frozen, Other something else that it can be asked.
	Request, Other Request
}

// Request is what a workload is asked.
type Request struct {
	// Sentences are those that a workload which takes sentences is asked for. Nil: Body says what is asked.
	Sentences []string
	// Body is a JSON document in one line.
	Body string
	// Path is where an HTTP service takes it. It is posted there.
	Path string
}

// sentences asks for sentences.
func sentences(s ...string) Request { return Request{Sentences: s} }

// body returns the request as a JSON document in one line.
func (r *Request) body() string {
	if r.Sentences == nil {
		return r.Body
	}
	data, err := json.Marshal(map[string][]string{"sentences": r.Sentences})
	if err != nil {
		panic(err) // any string can be encoded
	}
	return string(data)
}

// request returns what the workload is asked as an input.
func (w *Workload) request(input Input) Request {
	if input == OtherInput {
		return w.Other
	}
	return w.Request
}

// Small returns the workload in a form that starts sooner and has less memory, and of which no figure says anything: for tests. Those
// of [Functions] have one.
func (w Workload) Small() Workload {
	w.Args = append(slices.Clone(w.Args), "--small")
	return w
}

// Functions returns workloads that are what functions are made of: real libraries, answering two different inputs.
func Functions() []Workload {
	return []Workload{minilm, large, classifier, webservice, images}
}

// Workloads returns all workloads that there are.
func Workloads() []Workload {
	return append(Functions(), small, medium)
}

var (
	minilm = Workload{
		Name:   "minilm",
		Title:  "MiniLM sentence embedder",
		Script: "embedder/embedder.py",
		Request: sentences(
			"A process is frozen once and thawed many times.",
			"The pages that it needs first come first.",
			"Everything else arrives behind its back.",
		),
		Other: sentences(
			"Water expands by a tenth when it turns to ice, and so it floats: a lake freezes from above, and fish live on below.",
			"Mountains erode.",
		),
	}
	large = Workload{
		Name:    "large",
		Title:   "Transformer of 335 M parameters",
		Script:  "transformer/transformer.py",
		Request: sentences("Thaw me."),
		Other:   sentences("What has been frozen longest thaws last."),
	}
	classifier = Workload{
		Name:   "classifier",
		Title:  "Classifier of tables, pandas and scikit-learn",
		Script: "classifier/classifier.py",
		Request: Request{Body: `{"csv": "placed,country,channel,items,total,discount,age\n` +
			`2026-03-14,NO,web,3,120.50,10,33\n` +
			`2026-12-01,DE,app,1,400.00,0,40\n` +
			`2026-07-30,PT,shop,12,96.20,0,71\n` +
			`2026-02-02,SE,phone,2,15.80,25,28\n"}`},
		// With gaps, a country that the model has never seen, and the columns in another order.
		Other: Request{Body: `{"csv": "age,discount,total,items,channel,country,placed\n` +
			`52,5,310.00,4,web,IS,2026-12-20\n` +
			`,0,18.25,1,app,FR,2026-01-05\n` +
			`19,,77.70,7,phone,PL,2026-05-17\n` +
			`64,10,,15,web,XX,2026-09-09\n` +
			`38,25,842.10,19,shop,NO,2026-11-27\n` +
			`45,0,64.00,6,web,DE,2026-08-08\n"}`},
	}
	webservice = Workload{
		Name:   "webservice",
		Title:  "Web service, FastAPI with SQLite",
		Script: "webservice/webservice.py",
		Port:   8080,
		Request: Request{Path: "/invoice", Body: `{"customer": "Ice & Sons", "date": "2026-03-14", "lines": [` +
			`{"sku": "C-00017", "quantity": 2}, {"sku": "A-00123", "quantity": 40}, {"sku": "B-00049", "quantity": 1}]}`},
		Other: Request{Path: "/search", Body: `{"words": "copper kettle", "limit": 25}`},
	}
	images = Workload{
		Name:    "images",
		Title:   "Previews of images, Pillow",
		Script:  "images/images.py",
		Request: Request{Body: `{"picture": "shore.jpg", "steps": [["resize", 640, 427], ["sharpen", 2.0]], "format": "JPEG"}`},
		Other:   Request{Body: `{"picture": "badge.png", "steps": [["fit", 400, 400], ["rotate", 15], ["blur", 1.5]], "format": "WEBP"}`},
	}
	small = Workload{
		Name:    "small",
		Title:   "Index in Python's own objects",
		Script:  "lexicon/lexicon.py",
		Request: sentences("freeze the page", "thaw the page"),
		Other:   sentences("the kernel"),
	}
	medium = Workload{
		Name:    "medium",
		Title:   "Table of 256 MiB in numpy",
		Script:  "table/table.py",
		Args:    []string{"--mib", "256"},
		Request: sentences("Thaw me."),
		Other:   sentences("Freeze me."),
	}
)

// FindWorkload returns the workload called name.
func FindWorkload(name string) (Workload, error) {
	for _, w := range Workloads() {
		if w.Name == name {
			return w, nil
		}
	}
	return Workload{}, fmt.Errorf("no workload is called %q", name)
}

// Table returns a workload like medium, with a table of so many MiB and a smaller one of its own: whatever own is, nearly all
// pages of its snapshots are the same.
func Table(mib, own int) Workload {
	w := medium
	w.Name, w.Title = "table", fmt.Sprintf("Table of %d MiB in numpy", mib)
	w.Args = []string{"--mib", strconv.Itoa(mib), "--own", strconv.Itoa(own)}
	return w
}
