# The C interface through Perl's FFI::Platypus: opaque pointers, ints and strings are all it takes.
use strict;
use warnings;

BEGIN {
    unless (eval { require FFI::Platypus; 1 }) {
        print "1..0 # SKIP no FFI::Platypus for this Perl\n";
        exit 0;
    }
}

my $ffi = FFI::Platypus->new(api => 1, lib => $ENV{RINGFENCE_LIBRARY} || 'libringfence.so.0');
my %functions = (
    version         => [[], 'string'],
    spec_new        => [[], 'opaque'],
    spec_from_json  => [['string', 'opaque*'], 'opaque'],
    spec_set        => [['opaque', 'string', 'string', 'opaque*'], 'int'],
    spec_free       => [['opaque'], 'void'],
    run             => [['opaque', 'opaque', 'size_t', 'int', 'opaque*', 'opaque*'], 'int'],
    output_stdout   => [['opaque'], 'string'],
    output_exit_code => [['opaque'], 'int'],
    output_free     => [['opaque'], 'void'],
    container_start => [['opaque', 'opaque*', 'opaque*'], 'int'],
    container_spawn => [['opaque', 'opaque', 'opaque*', 'opaque*'], 'int'],
    container_close => [['opaque', 'int', 'opaque*'], 'int'],
    container_free  => [['opaque'], 'void'],
    command_new     => [['string'], 'opaque'],
    command_arg     => [['opaque', 'string', 'opaque*'], 'int'],
    command_free    => [['opaque'], 'void'],
    process_wait    => [['opaque', 'int', 'opaque*'], 'int'],
    process_exit_code => [['opaque'], 'int'],
    process_free    => [['opaque'], 'void'],
    error_kind_name => [['opaque'], 'string'],
    error_field     => [['opaque'], 'string'],
    error_message   => [['opaque'], 'string'],
    error_free      => [['opaque'], 'void'],
);
$ffi->attach(["ringfence_$_" => $_], @{ $functions{$_} }) for keys %functions;

my ($number, $failed) = (0, 0);

sub ok {
    my ($condition, $name, $detail) = @_;
    $number++;
    unless ($condition) {
        $failed = 1;
        print defined $detail ? "$detail\n" : '';
    }
    print $condition ? '' : 'not ', "ok $number - $name\n";
    return $condition;
}

$| = 1;
ok(version() =~ /^\d+\.\d+\.\d+$/, 'version');

my ($err, $result);
my $spec = spec_from_json('{"argv": ["sh", "-c", "echo $(uname -n) $((6 * 7))"], "hostname": "perl"}', \$err);
ok($spec, 'spec from JSON', error_message($err));
if (ok(run($spec, undef, 0, 20000, \$result, \$err) == 0, 'run', error_message($err))) {
    ok(output_stdout($result) eq "perl 42\n", 'what it wrote');
    ok(output_exit_code($result) == 0, 'its exit code');
    output_free($result);
}
spec_free($spec);

$spec = spec_new();
undef $err;
ok(spec_set($spec, 'memory', 'much', \$err) == -1, 'a bad value is refused');
ok(error_field($err) eq 'memory', 'and the error names its field');
ok(error_kind_name($err) eq 'invalid_spec', 'and its kind');
error_free($err);

my ($container, $process);
undef $err;
if (ok(container_start($spec, \$container, \$err) == 0, 'a container without a main process', error_message($err))) {
    my $command = command_new('sh');
    command_arg($command, $_, \$err) for '-c', 'exit 7';
    ok(container_spawn($container, $command, \$process, \$err) == 0, 'a process in it', error_message($err));
    ok(process_wait($process, 20000, \$err) == 1, 'wait', error_message($err));
    ok(process_exit_code($process) == 7, 'its exit code');
    ok(waitpid(-1, 1) == -1, 'no child of the host');
    process_free($process);
    command_free($command);
    ok(container_close($container, 5000, \$err) == 0, 'close', error_message($err));
    container_free($container);
}
spec_free($spec);
print "1..$number\n";
exit $failed;
