# A file system with a file, `hello`, and one whose opening is never answered, `never`: spoken over /dev/fuse without a library
# (the kernel's include/uapi/linux/fuse.h, on x86-64). Mounts itself at the path that is given, says so, and serves in the
# background; its number is in /tmp/fuse.pid.
use strict;
use warnings;

my ($target) = @ARGV;
my $content = "served from inside\n";
open(my $fuse, '+<', '/dev/fuse') or die "/dev/fuse: $!\n";
# Inherited by the server only.
my $options = 'fd=' . fileno($fuse) . ',rootmode=40000,user_id=0,group_id=0';
my ($source, $kind) = ('hello', 'fuse');
my $NOSUID_NODEV = 6;
syscall(165, $source, $target, $kind, $NOSUID_NODEV, $options) == 0 or die "mount: $!\n";

my $server = fork() // die "fork: $!\n";
if ($server) {
    open(my $file, '>', '/tmp/fuse.pid');
    print $file "$server\n";
    close($file);
    print "mounted\n";
    exit 0;
}
open($_, '+<', '/dev/null') for (*STDIN, *STDOUT, *STDERR);

sub attributes {
    my ($node) = @_;
    my ($mode, $size) = $node == 1 ? (040755, 0) : (0100644, length $content);
    return pack('Q6 L10', $node, $size, 1, 0, 0, 0, 0, 0, 0, $mode, 1, 0, 0, 0, 4096, 0);
}

sub entry {
    my ($node, $offset, $type, $name) = @_;
    my $entry = pack('Q Q L L', $node, $offset, length $name, $type) . $name;
    return $entry . "\0" x (-length($entry) % 8);
}

my ($ENOENT, $ENOSYS) = (2, 38);
my %answers = (
    1 => sub {    # LOOKUP
        my $name = unpack('Z*', $_[1]);
        my $found = {hello => 2, never => 3}->{$name} or return ($ENOENT, '');
        return (0, pack('Q4 L2', $found, 1, 0, 0, 0, 0) . attributes($found));
    },
    3 => sub { return (0, pack('Q L L', 0, 0, 0) . attributes($_[0])) },    # GETATTR
    14 => sub { return (0, pack('Q L L', 0, 1, 0)) },                       # OPEN: without a cache
    15 => sub {                                                             # READ
        my (undef, $offset, $size) = unpack('Q Q L', $_[1]);
        return (0, $offset < length $content ? substr($content, $offset, $size) : '');
    },
    18 => sub { return (0, '') },                                           # RELEASE
    25 => sub { return (0, '') },                                           # FLUSH
    26 => sub { return (0, pack('L4 S2 L2 S2 L8', 7, 31, 4096, 0, 16, 12, 4096, 1, 1, 0, (0) x 8)) },    # INIT
    27 => sub { return (0, pack('Q L L', 0, 0, 0)) },                       # OPENDIR
    28 => sub {                                                             # READDIR
        my (undef, $offset) = unpack('Q Q', $_[1]);
        return (0, $offset ? '' : entry(1, 1, 4, '.') . entry(1, 2, 4, '..') . entry(2, 3, 8, 'hello') . entry(3, 4, 8, 'never'));
    },
    29 => sub { return (0, '') },                                           # RELEASEDIR
);
my %unanswered = map { $_ => 1 } (2, 36, 42);    # FORGET, INTERRUPT, BATCH_FORGET

while (sysread($fuse, my $request, 65536)) {
    my (undef, $call, $unique, $node) = unpack('L L Q Q', $request);
    next if $unanswered{$call} || $call == 14 && $node == 3;
    my ($error, $data) = $answers{$call} ? $answers{$call}->($node, substr($request, 40)) : ($ENOSYS, '');
    syswrite($fuse, pack('L l Q', 16 + length $data, -$error, $unique) . $data);
}
