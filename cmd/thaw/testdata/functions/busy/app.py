"""Handlers that fork, use threads, or are killed."""

import os
import signal
import subprocess
import sys
import threading

import thaw

app = thaw.App("busy")


@app.cls(enable_memory_snapshot=True)
class Busy:
    @thaw.enter(snap=True)
    def load(self):
        # A child and a thread that live through the freeze.
        self.child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ask, self.answer = threading.Event(), threading.Event()
        self.asked = 0
        threading.Thread(target=self.serve, daemon=True).start()
        self.lines = open(__file__)
        self.first = self.lines.readline()

    def serve(self):
        while True:
            self.ask.wait()
            self.ask.clear()
            self.asked += 1
            self.answer.set()

    @thaw.method()
    def thread(self):
        self.answer.clear()
        self.ask.set()
        return self.answer.wait(60) and self.asked

    @thaw.method()
    def old_child(self, text: str):
        self.child.stdin.write(text.encode() + b"\n")
        self.child.stdin.flush()
        return self.child.stdout.readline().decode()

    @thaw.method()
    def new_children(self):
        run = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True)
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        return [run.stdout, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]

    @thaw.method()
    def new_threads(self):
        done = []
        threads = [threading.Thread(target=done.append, args=(i,)) for i in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return sorted(done)

    @thaw.method()
    def next_line(self):
        return [self.first, self.lines.readline()]

    @thaw.method()
    def hang(self):
        print("hanging", flush=True)
        signal.pause()

    @thaw.method()
    def ping(self):
        return "pong"
