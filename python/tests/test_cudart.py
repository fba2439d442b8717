"""That CUDA's runtime is not asked for a GPU before the freeze, with libraries that stand for it and for its users: no GPU is needed."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Iterator

import pytest

from thaw import cudart, gpu, loaded

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="needs amd64 or arm64")

# As CUDA's: the first answer is the only one.
RUNTIME = """
static int asked, answer;
int there;
int times(void) { return asked; }
static int ask(void) { if (!asked++) answer = there ? 0 : 100; return answer; }
int cudaGetDeviceCount(int *n) { int r = ask(); if (!r) *n = 1; return r; }
int cudaGetLastError(void) { return ask(); }
const char *cudaGetErrorString(int code) { ask(); return code == 100 ? "none" : "fine"; }
const char *cudaGetErrorName(int code) { ask(); return code == 100 ? "cudaErrorNoDevice" : "cudaSuccess"; }
void **__cudaRegisterFatBinary(void *code) { return code; }
"""
USER = """
const char *cudaGetErrorString(int); const char *cudaGetErrorName(int);
int cudaGetDeviceCount(int *); int cudaGetLastError(void); void **__cudaRegisterFatBinary(void *);
static void *registered;
__attribute__((constructor)) static void load(void) { registered = __cudaRegisterFatBinary(&registered); }
int is_registered(void) { return registered == &registered; }
int count(void) { int n = -1; int r = cudaGetDeviceCount(&n); return r ? -r : n; }
int last(void) { return cudaGetLastError(); }
const char *text(int code) { return cudaGetErrorString(code); }
const char *name(int code) { return cudaGetErrorName(code); }
"""
MODULE = """
#include <Python.h>
int cudaGetDeviceCount(int *);
static PyObject *count(PyObject *self, PyObject *none) { int n = -1; int r = cudaGetDeviceCount(&n); return PyLong_FromLong(r ? -r : n); }
static PyMethodDef methods[] = {{"count", count, METH_NOARGS, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "usesgpu", "", -1, methods};
PyMODINIT_FUNC PyInit_usesgpu(void) { return PyModule_Create(&module); }
"""


class Libraries:
    """Compiles them in a folder of the test's. Each test has its own: a library is loaded once in a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # The loader knows a library by the name within it.
        name = f"libcudart-{os.urandom(4).hex()}.so.13"
        self.runtime_path = self._compile(name, RUNTIME, "-Wl,-soname," + name)
        self.runtime = ctypes.CDLL(str(self.runtime_path))

    def user(self, name: str, *flags: str) -> ctypes.CDLL:
        user = ctypes.CDLL(str(self._compile(name, USER, *flags, str(self.runtime_path))))
        user.text.restype = user.name.restype = ctypes.c_char_p
        return user

    def module(self) -> None:
        self._compile("usesgpu.so", MODULE, "-I" + sysconfig.get_paths()["include"], str(self.runtime_path))

    def appear(self) -> None:
        ctypes.c_int.in_dll(self.runtime, "there").value = 1

    def asked(self) -> int:
        return int(self.runtime.times())

    def _compile(self, name: str, source: str, *flags: str) -> Path:
        code = self.folder / (name + ".c")
        code.write_text(source)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(self.folder / name), str(code), *flags], check=True)
        return self.folder / name


@pytest.fixture
def libraries(tmp_path: Path) -> Iterator[Libraries]:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler: cc is missing")
    yield Libraries(tmp_path)
    cudart.release()


# How a program's linker may have been told to bind: at the first call, or at the start, which makes the slots read-only.
BINDING = {
    "lazy": ["-Wl,-z,lazy", "-Wl,-z,norelro"],
    "partly read-only": ["-Wl,-z,lazy", "-Wl,-z,relro"],
    "read-only": ["-Wl,-z,now", "-Wl,-z,relro"],
    "without a linkage table": ["-fno-plt"],
}


def test_the_first_answer_is_for_good_without_us(libraries: Libraries) -> None:
    user = libraries.user("libuser.so")
    assert user.count() == -100
    libraries.appear()
    assert user.count() == -100


@pytest.mark.parametrize("flags", BINDING.values(), ids=list(BINDING))
@pytest.mark.parametrize("early", [True, False], ids=["loaded before", "loaded while held"])
def test_a_held_runtime_is_not_asked(libraries: Libraries, flags: list[str], early: bool) -> None:
    if early:
        user = libraries.user("libuser.so", *flags)
    cudart.hold()
    if not early:
        user = libraries.user("libuser.so", *flags)
    assert user.count() == -100
    assert user.last() == 100
    assert b"before the freeze" in user.text(100)
    assert user.name(100) == b"cudaErrorNoDevice"
    # What is called when a library is loaded works.
    assert user.is_registered() == 1
    assert libraries.asked() == 0

    libraries.appear()
    cudart.release()
    assert user.count() == 1
    assert user.last() == 0
    assert user.text(100) == b"none"
    assert user.name(0) == b"cudaSuccess"
    assert libraries.asked() == 4


def test_it_is_held_again_and_again(libraries: Libraries) -> None:
    user = libraries.user("libuser.so", *BINDING["read-only"])
    for _ in range(3):
        cudart.hold()
        cudart.hold()
        assert user.count() == -100
        cudart.release()
        cudart.release()
    assert libraries.asked() == 0
    libraries.appear()
    assert user.count() == 1


def test_a_library_that_has_gone_is_left_alone(libraries: Libraries) -> None:
    cudart.hold()
    gone, stays = libraries.user("libgone.so"), libraries.user("libstays.so")
    assert gone.count() == stays.count() == -100
    _ctypes.dlclose(gone._handle)
    # Has those that are loaded looked through again, for one of them has gone.
    later = libraries.user("liblater.so")
    assert later.count() == stays.count() == -100
    libraries.appear()
    cudart.release()
    assert later.count() == stays.count() == 1


def test_a_module_of_the_interpreters_is_held_too(libraries: Libraries, monkeypatch: pytest.MonkeyPatch) -> None:
    libraries.module()
    monkeypatch.syspath_prepend(str(libraries.folder))
    cudart.hold()
    import usesgpu  # type: ignore[import-not-found]

    try:
        assert usesgpu.count() == -100
        libraries.appear()
        cudart.release()
        assert usesgpu.count() == 1
    finally:
        del sys.modules["usesgpu"]


def test_a_library_that_cannot_be_held_is_loaded_all_the_same(
    libraries: Libraries, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cudart.hold()

    def refuse(page: int, protection: int) -> None:
        raise OSError(13, "refused")

    with monkeypatch.context() as patch:
        patch.setattr(loaded, "protect", refuse)
        user = libraries.user("libuser.so", *BINDING["read-only"])
    assert "refused" in capsys.readouterr().err
    libraries.appear()
    assert user.count() == 1
    cudart.release()
    assert user.count() == 1


def test_hiding_holds_and_revealing_releases(libraries: Libraries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    user = libraries.user("libuser.so")
    gpu.hide()
    try:
        assert user.count() == -100
    finally:
        libraries.appear()
        gpu.reveal()
        monkeypatch.delenv("PYTORCH_NVML_BASED_CUDA_CHECK")
    assert user.count() == 1
