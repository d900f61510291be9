-- The C interface through LuaJIT's FFI: opaque pointers, ints and strings are all it takes.
local ffi = require("ffi")

ffi.cdef([[
const char *ringfence_version(void);
void *ringfence_spec_new(void);
void *ringfence_spec_from_json(const char *json, void **err);
int ringfence_spec_set(void *spec, const char *key, const char *value, void **err);
void ringfence_spec_free(void *spec);
int ringfence_run(const void *spec, const void *input, size_t len, int timeout_ms, void **result, void **err);
const char *ringfence_output_stdout(const void *output);
int ringfence_output_exit_code(const void *output);
void ringfence_output_free(void *output);
int ringfence_container_start(const void *spec, void **result, void **err);
int ringfence_container_spawn(const void *container, const void *command, void **result, void **err);
int ringfence_container_close(const void *container, int timeout_ms, void **err);
void ringfence_container_free(void *container);
void *ringfence_command_new(const char *program);
int ringfence_command_arg(void *command, const char *arg, void **err);
void ringfence_command_free(void *command);
int ringfence_process_wait(const void *process, int timeout_ms, void **err);
int ringfence_process_exit_code(const void *process);
void ringfence_process_free(void *process);
const char *ringfence_error_kind_name(const void *error);
const char *ringfence_error_field(const void *error);
const char *ringfence_error_message(const void *error);
void ringfence_error_free(void *error);
]])

local lib = ffi.load(os.getenv("RINGFENCE_LIBRARY") or "ringfence")
local number, failed = 0, false

local function ok(condition, name, detail)
  number = number + 1
  if not condition then
    failed = true
    print(tostring(detail))
  end
  print((condition and "ok " or "not ok ") .. number .. " - " .. name)
end

local function out()
  return ffi.new("void *[1]")
end

local function message(err)
  return err[0] == nil and "no error" or ffi.string(lib.ringfence_error_message(err[0]))
end

ok(ffi.string(lib.ringfence_version()):match("^%d+%.%d+%.%d+$"), "version")

local err, result = out(), out()
local spec = lib.ringfence_spec_from_json('{"argv": ["sh", "-c", "echo $(uname -n) $((6 * 7))"], "hostname": "lua"}', err)
ok(spec ~= nil, "spec from JSON", message(err))
local code = lib.ringfence_run(spec, nil, 0, 20000, result, err)
ok(code == 0, "run", message(err))
if code == 0 then
  ok(ffi.string(lib.ringfence_output_stdout(result[0])) == "lua 42\n", "what it wrote")
  ok(lib.ringfence_output_exit_code(result[0]) == 0, "its exit code")
  lib.ringfence_output_free(result[0])
end
lib.ringfence_spec_free(spec)

spec = lib.ringfence_spec_new()
err = out()
ok(lib.ringfence_spec_set(spec, "memory", "much", err) == -1, "a bad value is refused")
ok(ffi.string(lib.ringfence_error_field(err[0])) == "memory", "and the error names its field")
ok(ffi.string(lib.ringfence_error_kind_name(err[0])) == "invalid_spec", "and its kind")
lib.ringfence_error_free(err[0])

local container, process
err, container, process = out(), out(), out()
code = lib.ringfence_container_start(spec, container, err)
ok(code == 0, "a container without a main process", message(err))
if code == 0 then
  local command = lib.ringfence_command_new("sh")
  lib.ringfence_command_arg(command, "-c", err)
  lib.ringfence_command_arg(command, "exit 7", err)
  ok(lib.ringfence_container_spawn(container[0], command, process, err) == 0, "a process in it", message(err))
  ok(lib.ringfence_process_wait(process[0], 20000, err) == 1, "wait", message(err))
  ok(lib.ringfence_process_exit_code(process[0]) == 7, "its exit code")
  lib.ringfence_process_free(process[0])
  lib.ringfence_command_free(command)
  ok(lib.ringfence_container_close(container[0], 5000, err) == 0, "close", message(err))
  lib.ringfence_container_free(container[0])
end
lib.ringfence_spec_free(spec)
print("1.." .. number)
os.exit(failed and 1 or 0)
