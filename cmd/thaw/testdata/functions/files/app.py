"""Files that are written, open, or deleted when the memory is frozen."""

import os
import tempfile

import thaw

app = thaw.App("files")


@app.cls(enable_memory_snapshot=True)
class Files:
    @thaw.enter(snap=True)
    def load(self):
        os.makedirs("/var/data", exist_ok=True)
        with open("/var/data/kept", "w") as file:
            file.write("before the freeze")
        os.chmod("/var/data/kept", 0o640)
        os.symlink("kept", "/var/data/link")
        os.remove("/etc/debian_version")
        with open("/app-was-here", "w") as file:
            file.write(str(sorted(os.listdir("/app"))))
        self.appended = open("/var/data/appended", "a+")
        self.appended.write("one\n")
        self.appended.flush()
        self.read = open("/var/data/kept")
        self.read.read(7)
        self.deleted = tempfile.TemporaryFile()
        self.deleted.write(b"deleted and open")
        self.deleted.flush()
        self.named = open("/tmp/named", "w+")
        self.named.write("deleted with a name")
        self.named.flush()
        os.remove("/tmp/named")
        self.memory = open("/dev/shm/shared", "w+b")
        self.memory.write(b"in memory")
        self.memory.flush()

    @thaw.method()
    def look(self):
        self.deleted.seek(0)
        self.named.seek(0)
        with open("/var/data/link") as file:
            linked = file.read()
        with open("/dev/shm/shared", "rb") as file:
            memory = file.read().decode()
        return {
            "linked": linked,
            "mode": oct(os.stat("/var/data/kept").st_mode & 0o777),
            "removed": os.path.exists("/etc/debian_version"),
            "rest": self.read.read(),
            "same": os.path.samestat(os.fstat(self.read.fileno()), os.stat("/var/data/kept")),
            "deleted": self.deleted.read().decode(),
            "named": self.named.read(),
            "memory": memory,
            "app": os.path.exists("/app/app.py"),
        }

    @thaw.method()
    def append(self, line: str):
        self.appended.write(line + "\n")
        self.appended.flush()
        with open("/var/data/appended") as file:
            return file.read()

    @thaw.method()
    def write(self, path: str, text: str):
        with open(path, "w") as file:
            file.write(text)

    @thaw.method()
    def refused(self, path: str):
        """Whether a file of the author's, or of the server's, cannot be changed."""
        try:
            with open(path, "a") as file:
                file.write("#")
        except OSError:
            return True
        return False
