-- A service for a test, as a harness with a plain FFI has it: started, waited for, reached, its log read, thrown away.
local ffi = require("ffi")

ffi.cdef([[
void *ringfence_spec_from_json(const char *json, void **err);
void ringfence_spec_free(void *spec);
int ringfence_container_start(const void *spec, void **result, void **err);
int ringfence_container_wait_for(const void *container, const char *conditions, int timeout_ms, void **err);
int ringfence_container_port(const void *container, int port, void **err);
int ringfence_container_log_read(const void *container, uint64_t from, void *buffer, size_t size, void **err);
int ringfence_container_close(const void *container, int timeout_ms, void **err);
void ringfence_container_free(void *container);
const char *ringfence_error_message(const void *error);
const char *ringfence_error_log_tail(const void *error);
void ringfence_error_free(void *error);

struct sockaddr_in { uint16_t family, port; uint8_t address[4]; uint8_t zero[8]; };
int socket(int domain, int type, int protocol);
int connect(int fd, const struct sockaddr_in *address, unsigned length);
intptr_t write(int fd, const void *data, size_t length);
intptr_t read(int fd, void *data, size_t length);
int close(int fd);
]])

local lib = ffi.load(os.getenv("RINGFENCE_LIBRARY") or "ringfence")
local number, failed = 0, false

local function ok(condition, name, detail)
  number = number + 1
  failed = failed or not condition
  if not condition then
    print(tostring(detail))
  end
  print((condition and "ok " or "not ok ") .. number .. " - " .. name)
end

local err, container = ffi.new("void *[1]"), ffi.new("void *[1]")
local function message()
  return err[0] == nil and "no error" or ffi.string(lib.ringfence_error_message(err[0]))
end

local spec = lib.ringfence_spec_from_json([[{
  "argv": ["python3", "-u", "-m", "http.server", "80", "--directory", "/srv"],
  "ports": [80],
  "files": {"/srv/index.html": "hello"}
}]], err)
ok(spec ~= nil and lib.ringfence_container_start(spec, container, err) == 0, "start", message())
lib.ringfence_spec_free(spec)
ok(lib.ringfence_container_wait_for(container[0], '{"port": 80}', 60000, err) == 1, "ready", message())

local port = lib.ringfence_container_port(container[0], 80, err)
ok(port > 0, "the port of this machine", message())
local swapped = bit.bor(bit.lshift(bit.band(port, 0xff), 8), bit.rshift(port, 8))
local address = ffi.new("struct sockaddr_in", { 2, swapped, { 127, 0, 0, 1 } })
local fd = ffi.C.socket(2, 1, 0)
ok(ffi.C.connect(fd, address, ffi.sizeof(address)) == 0, "reached")
local request = "GET / HTTP/1.0\r\n\r\n"
ffi.C.write(fd, request, #request)
local buffer, answer = ffi.new("char[4096]"), ""
repeat
  local n = tonumber(ffi.C.read(fd, buffer, 4096))
  answer = answer .. ffi.string(buffer, math.max(n, 0))
until n <= 0
ffi.C.close(fd)
ok(answer:match("hello$"), "answered", answer)

local n = lib.ringfence_container_log_read(container[0], 0, buffer, 4096, err)
ok(n > 0 and ffi.string(buffer, n):find("GET /", 1, true), "its log", message())
ok(lib.ringfence_container_wait_for(container[0], '{"port": 81}', 100, err) == 0, "a port that nobody opens")
ok(err[0] ~= nil and ffi.string(lib.ringfence_error_log_tail(err[0])):find("GET /", 1, true), "the error has the log", message())
lib.ringfence_error_free(err[0])
err[0] = nil
ok(lib.ringfence_container_close(container[0], 60000, err) == 0, "close", message())
lib.ringfence_container_free(container[0])
print("1.." .. number)
os.exit(failed and 1 or 0)
