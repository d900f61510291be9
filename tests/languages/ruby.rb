# The C interface through Ruby's Fiddle: opaque pointers, ints and strings are all it takes.
require "fiddle"

P = Fiddle::TYPE_VOIDP
I = Fiddle::TYPE_INT
S = Fiddle::TYPE_SIZE_T
V = Fiddle::TYPE_VOID

module Ringfence
  LIBRARY = Fiddle.dlopen(ENV["RINGFENCE_LIBRARY"] || "libringfence.so.0")
  {
    version: [[], P],
    spec_new: [[], P], spec_from_json: [[P, P], P], spec_set: [[P, P, P, P], I], spec_free: [[P], V],
    run: [[P, P, S, I, P, P], I],
    output_stdout: [[P], P], output_exit_code: [[P], I], output_free: [[P], V],
    container_start: [[P, P, P], I], container_spawn: [[P, P, P, P], I], container_close: [[P, I, P], I],
    container_free: [[P], V],
    command_new: [[P], P], command_arg: [[P, P, P], I], command_free: [[P], V],
    process_wait: [[P, I, P], I], process_exit_code: [[P], I], process_free: [[P], V],
    error_kind_name: [[P], P], error_field: [[P], P], error_message: [[P], P], error_free: [[P], V]
  }.each do |name, (arguments, result)|
    function = Fiddle::Function.new(LIBRARY["ringfence_#{name}"], arguments, result)
    define_singleton_method(name) { |*values| function.call(*values) }
  end
end

# A place for a pointer, as outputs and errors need it.
def place
  Fiddle::Pointer.malloc(Fiddle::SIZEOF_VOIDP, Fiddle::RUBY_FREE).tap { |p| p[0, Fiddle::SIZEOF_VOIDP] = "\0" * Fiddle::SIZEOF_VOIDP }
end

def message(err)
  err.ptr.null? ? "no error" : Ringfence.error_message(err.ptr).to_s
end

$number = 0
$failed = false
def ok(condition, name, detail = nil)
  $number += 1
  unless condition
    $failed = true
    puts detail
  end
  puts "#{condition ? 'ok' : 'not ok'} #{$number} - #{name}"
end

ok(Ringfence.version.to_s.match?(/\A\d+\.\d+\.\d+\z/), "version")

err = place
result = place
spec = Ringfence.spec_from_json('{"argv": ["sh", "-c", "echo $(uname -n) $((6 * 7))"], "hostname": "ruby"}', err)
ok(!spec.null?, "spec from JSON", message(err))
code = Ringfence.run(spec, nil, 0, 20_000, result, err)
ok(code == 0, "run", message(err))
if code == 0
  ok(Ringfence.output_stdout(result.ptr).to_s == "ruby 42\n", "what it wrote")
  ok(Ringfence.output_exit_code(result.ptr) == 0, "its exit code")
  Ringfence.output_free(result.ptr)
end
Ringfence.spec_free(spec)

spec = Ringfence.spec_new
err = place
ok(Ringfence.spec_set(spec, "memory", "much", err) == -1, "a bad value is refused")
ok(Ringfence.error_field(err.ptr).to_s == "memory", "and the error names its field")
ok(Ringfence.error_kind_name(err.ptr).to_s == "invalid_spec", "and its kind")
Ringfence.error_free(err.ptr)

err = place
container = place
process = place
code = Ringfence.container_start(spec, container, err)
ok(code == 0, "a container without a main process", message(err))
if code == 0
  command = Ringfence.command_new("sh")
  Ringfence.command_arg(command, "-c", err)
  Ringfence.command_arg(command, "exit 7", err)
  ok(Ringfence.container_spawn(container.ptr, command, process, err) == 0, "a process in it", message(err))
  ok(Ringfence.process_wait(process.ptr, 20_000, err) == 1, "wait", message(err))
  ok(Ringfence.process_exit_code(process.ptr) == 7, "its exit code")
  # Ruby's own children are its own business: ours are not among them.
  begin
    Process.wait(-1, Process::WNOHANG)
    ok(false, "no child of the host")
  rescue Errno::ECHILD
    ok(true, "no child of the host")
  end
  Ringfence.process_free(process.ptr)
  Ringfence.command_free(command)
  ok(Ringfence.container_close(container.ptr, 5000, err) == 0, "close", message(err))
  Ringfence.container_free(container.ptr)
end
Ringfence.spec_free(spec)
puts "1..#{$number}"
exit($failed ? 1 : 0)
