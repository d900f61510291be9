"""The C interface through ctypes: opaque pointers, ints and strings are all it takes."""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p

library = ctypes.CDLL(os.environ.get("RINGFENCE_LIBRARY", "libringfence.so.0"))
POINTERS = ("spec_new", "spec_from_json", "command_new")
TEXTS = ("version", "output_stdout", "error_field", "error_kind_name", "error_message")
for name in POINTERS:
    getattr(library, f"ringfence_{name}").restype = c_void_p
for name in TEXTS:
    getattr(library, f"ringfence_{name}").restype = c_char_p

number = 0
failed = False


def ok(condition: bool, what: str, detail: object = "") -> None:
    global number, failed
    number += 1
    if not condition:
        failed = True
        print(detail)
    print(f"{'ok' if condition else 'not ok'} {number} - {what}", flush=True)


def message(err: c_void_p) -> str:
    return library.ringfence_error_message(err).decode()


ok(library.ringfence_version().count(b".") == 2, "version")

err, result = c_void_p(), c_void_p()
json = b'{"argv": ["sh", "-c", "echo $(uname -n) $((6 * 7))"], "hostname": "ctypes"}'
spec = c_void_p(library.ringfence_spec_from_json(json, byref(err)))
ok(bool(spec), "spec from JSON", message(err))
code = library.ringfence_run(spec, None, c_size_t(0), c_int(20000), byref(result), byref(err))
ok(code == 0, "run", message(err))
if code == 0:
    ok(library.ringfence_output_stdout(result) == b"ctypes 42\n", "what it wrote")
    ok(library.ringfence_output_exit_code(result) == 0, "its exit code")
    library.ringfence_output_free(result)
library.ringfence_spec_free(spec)

spec, err = c_void_p(library.ringfence_spec_new()), c_void_p()
ok(library.ringfence_spec_set(spec, b"memory", b"much", byref(err)) == -1, "a bad value is refused")
ok(library.ringfence_error_field(err) == b"memory", "and the error names its field")
ok(library.ringfence_error_kind_name(err) == b"invalid_spec", "and its kind")
library.ringfence_error_free(err)

err, container, process = c_void_p(), c_void_p(), c_void_p()
code = library.ringfence_container_start(spec, byref(container), byref(err))
ok(code == 0, "a container without a main process", message(err))
if code == 0:
    command = c_void_p(library.ringfence_command_new(b"sh"))
    for word in (b"-c", b"exit 7"):
        library.ringfence_command_arg(command, word, byref(err))
    spawned = library.ringfence_container_spawn(container, command, byref(process), byref(err))
    ok(spawned == 0, "a process in it", message(err))
    ok(library.ringfence_process_wait(process, 20000, byref(err)) == 1, "wait", message(err))
    ok(library.ringfence_process_exit_code(process) == 7, "its exit code")
    library.ringfence_process_free(process)
    library.ringfence_command_free(command)
    ok(library.ringfence_container_close(container, 5000, byref(err)) == 0, "close", message(err))
    library.ringfence_container_free(container)
library.ringfence_spec_free(spec)
print(f"1..{number}")
sys.exit(failed)
