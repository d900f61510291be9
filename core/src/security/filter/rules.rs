//! What a filter of system calls is to do: plain data.

/// An instruction set with the numbers of its system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SeccompArch {
    /// 64-bit x86, without the x32 interface.
    X86_64,
    /// 32-bit x86, which x86-64 kernels run as well.
    I386,
    /// 64-bit Arm.
    Aarch64,
}

impl SeccompArch {
    /// All of them, by name.
    pub const ALL: [Self; 3] = [Self::X86_64, Self::I386, Self::Aarch64];

    /// The one that this library is built for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// The one that this library is built for.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;

    /// The name in a spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::I386 => "i386",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The architecture of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.name() == name)
    }

    /// Those whose programs a kernel of this architecture runs, itself first.
    pub fn family(self) -> &'static [Self] {
        match self {
            Self::X86_64 => &[Self::X86_64, Self::I386],
            Self::I386 => &[Self::I386],
            Self::Aarch64 => &[Self::Aarch64],
        }
    }
}

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SeccompAction {
    /// It is done.
    Allow,
    /// It fails with this errno (0 to 4095; 0: it does nothing and answers 0).
    Errno(u16),
    /// The whole process is killed, by SIGSYS with a core file.
    KillProcess,
    /// The calling thread alone is killed, which leaves the others of a program in the middle of what they did.
    KillThread,
    /// It gets SIGSYS, which it can handle.
    Trap,
    /// A tracer of the process decides, to which this number is given; without one it fails with ENOSYS.
    Trace(u16),
    /// It is done, and logged where the kernel logs (seccomp(2), `actions_logged`).
    Log,
    /// The host decides, call by call: see [`SyscallListener`](crate::SyscallListener).
    Notify,
}

impl SeccompAction {
    /// What a filter returns for it.
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
            Self::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Self::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::Trace(data) => libc::SECCOMP_RET_TRACE | u32::from(data),
            Self::Log => libc::SECCOMP_RET_LOG,
            Self::Notify => libc::SECCOMP_RET_USER_NOTIF,
        }
    }

    /// Whether a program that is refused this way can go on, or is stopped: nobody is asked.
    pub(crate) fn refuses(self) -> bool {
        matches!(self, Self::Errno(_) | Self::KillProcess | Self::KillThread | Self::Trap)
    }
}

/// How an argument is compared with a value: both as unsigned 64-bit numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SeccompOp {
    /// It is another number.
    NotEqual,
    /// It is less.
    Less,
    /// It is less, or the same.
    LessOrEqual,
    /// It is the same.
    Equal,
    /// It is the same, or more.
    GreaterOrEqual,
    /// It is more.
    Greater,
    /// Of the argument only the bits of this mask are compared.
    MaskedEqual(u64),
}

impl SeccompOp {
    /// Whether it holds.
    pub fn holds(self, argument: u64, value: u64) -> bool {
        match self {
            Self::NotEqual => argument != value,
            Self::Less => argument < value,
            Self::LessOrEqual => argument <= value,
            Self::Equal => argument == value,
            Self::GreaterOrEqual => argument >= value,
            Self::Greater => argument > value,
            Self::MaskedEqual(mask) => argument & mask == value,
        }
    }
}

/// A comparison of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeccompArg {
    /// Which: 0 to 5. Of a 32-bit program the upper half is zero. The kernel gives filters the registers: what an argument points
    /// to cannot be compared, and of an `int` the upper half may be anything, which is what masks are for.
    pub index: u8,
    /// How.
    pub op: SeccompOp,
    /// With what.
    pub value: u64,
}

/// On which machines and for which containers a rule counts: everything that is set has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SeccompWhen {
    /// All of these capabilities are in the bounding set of the process (bits of capability numbers).
    pub capabilities: u64,
    /// None of these is.
    pub without_capabilities: u64,
    /// The machine is one of these (names as of Docker's profiles: `amd64`, `arm64`, `x86`); empty: any.
    pub architectures: Vec<String>,
    /// The machine is none of these.
    pub without_architectures: Vec<String>,
    /// The kernel is this one, major and minor number, or newer.
    pub kernel: Option<(u32, u32)>,
    /// The kernel is older than this one.
    pub before_kernel: Option<(u32, u32)>,
}

/// What happens to some system calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeccompRule {
    /// Which, by name; an architecture that does not have one is passed over.
    pub names: Vec<String>,
    /// What happens.
    pub action: SeccompAction,
    /// Only when all of these hold.
    pub args: Vec<SeccompArg>,
    /// Only there.
    pub when: SeccompWhen,
}

impl SeccompRule {
    /// A rule for calls with any arguments.
    pub fn new<I: IntoIterator<Item = S>, S: Into<String>>(names: I, action: SeccompAction) -> Self {
        let names = names.into_iter().map(Into::into).collect();
        Self { names, action, args: Vec::new(), when: SeccompWhen::default() }
    }

    /// Only when this holds, too.
    #[must_use]
    pub fn arg(mut self, index: u8, op: SeccompOp, value: u64) -> Self {
        self.args.push(SeccompArg { index, op, value });
        self
    }
}

/// What a filter is for a machine and a process of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Context {
    pub native: SeccompArch,
    /// The bounding set.
    pub capabilities: u64,
    pub kernel: (u32, u32),
    /// Landlock has rules about TCP ports: the ways round them are closed.
    pub ports: bool,
}

impl SeccompWhen {
    pub(crate) fn holds(&self, context: &Context) -> bool {
        let named = |list: &[String]| list.iter().any(|name| same_machine(name, context.native));
        context.capabilities & self.capabilities == self.capabilities
            && context.capabilities & self.without_capabilities == 0
            && (self.architectures.is_empty() || named(&self.architectures))
            && !named(&self.without_architectures)
            && self.kernel.is_none_or(|kernel| context.kernel >= kernel)
            && self.before_kernel.is_none_or(|kernel| context.kernel < kernel)
    }
}

/// Docker's names are those of the Go compiler, and ours are known, too.
fn same_machine(name: &str, native: SeccompArch) -> bool {
    name == native.name()
        || match native {
            SeccompArch::X86_64 => name == "amd64",
            SeccompArch::I386 => name == "x86" || name == "386",
            SeccompArch::Aarch64 => name == "arm64",
        }
}

/// A whole filter, ready to be compiled. Of each architecture's calls the first rule that names the call and whose arguments
/// hold says what happens, else the default.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Filter {
    pub default: SeccompAction,
    /// What happens to calls that the rules cannot know: numbers that are not in the table, and those that Linux got later than
    /// any that a rule names. `None`: the default.
    pub unknown: Option<SeccompAction>,
    pub architectures: Vec<SeccompArch>,
    /// Those that count here.
    pub rules: Vec<SeccompRule>,
}

impl Filter {
    /// Whether there are arguments with which execve(2) is done.
    pub fn may_execute(&self) -> bool {
        let mut of_execve = self.rules.iter().filter(|rule| rule.names.iter().any(|name| name == "execve"));
        let decided = of_execve.find(|rule| rule.args.is_empty() || !rule.action.refuses());
        !decided.map_or(self.default, |rule| rule.action).refuses()
    }
}

/// Whether the host is asked about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Never,
    /// With some arguments.
    Sometimes,
    Always,
}

impl Filter {
    /// Whether the host is asked about calls of that name.
    pub fn asked(&self, name: &str) -> Asked {
        let mut of_call = self.rules.iter().filter(|rule| rule.names.iter().any(|known| known == name));
        let (mut asks, mut decides) = (false, false);
        let mut count = |action| if action == SeccompAction::Notify { asks = true } else { decides = true };
        loop {
            let Some(rule) = of_call.next() else {
                count(self.default);
                break;
            };
            count(rule.action);
            if rule.args.is_empty() {
                break;
            }
        }
        match (asks, decides) {
            (false, _) => Asked::Never,
            (true, true) => Asked::Sometimes,
            (true, false) => Asked::Always,
        }
    }

    /// Whether the host is asked about any call.
    pub fn notifies(&self) -> bool {
        let actions = self.rules.iter().map(|rule| rule.action).chain([self.default]).chain(self.unknown);
        actions.into_iter().any(|action| action == SeccompAction::Notify)
    }

    /// Two filters that do together what this one does: the first asks the host and allows the rest, the second does the rest and
    /// allows what the first asks about. Of several filters the kernel takes the strictest answer, and any other is stricter than
    /// to allow.
    pub fn split(&self) -> (Self, Self) {
        let mapped = |map: fn(SeccompAction) -> SeccompAction| Self {
            default: map(self.default),
            unknown: self.unknown.map(map),
            architectures: self.architectures.clone(),
            rules: self.rules.iter().map(|rule| SeccompRule { action: map(rule.action), ..rule.clone() }).collect(),
        };
        use SeccompAction::{Allow, Notify};
        let asking = mapped(|action| if action == Notify { Notify } else { Allow });
        (asking, mapped(|action| if action == Notify { Allow } else { action }))
    }
}

/// What happens to programs of other architectures: the numbers of their calls mean something else, and no answer could be
/// right.
pub(crate) const FOREIGN: SeccompAction = SeccompAction::KillProcess;

/// What happens to calls of the x32 interface, whatever the rules say: what a kernel without it answers.
pub(crate) const X32: SeccompAction = SeccompAction::Errno(libc::ENOSYS as u16);

/// The bit of x32 calls; all numbers from there on are refused.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// A profile that comes with the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SeccompProfile {
    /// What containers customarily may do.
    Default,
    /// What programs need that compute, and nothing else.
    Strict,
}

impl SeccompProfile {
    /// All of them, by name.
    pub const ALL: [Self; 2] = [Self::Default, Self::Strict];

    /// The name in a spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Strict => "strict",
        }
    }
}

/// Rules of one's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SeccompRules {
    /// Whose rules follow these; its default action counts. `None`: nobody's.
    pub profile: Option<SeccompProfile>,
    /// What happens to calls that no rule is for; needed without a profile, refused with one.
    pub default_action: Option<SeccompAction>,
    /// Programs of which architectures may run; the machine's own has to be one of them, others that it does not run are passed
    /// over. Empty: those of the profile, without one the machine's own. Others are killed.
    pub architectures: Vec<SeccompArch>,
    /// The first one that is for a call says what happens to it.
    pub rules: Vec<SeccompRule>,
    /// Whether the kernel logs what is refused (SECCOMP_FILTER_FLAG_LOG).
    pub log: bool,
    /// Whether the kernel's mitigation of speculative store bypass is left off where it would come with the filter
    /// (SECCOMP_FILTER_FLAG_SPEC_ALLOW).
    pub spec_allow: bool,
}

/// Which system calls the payload may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Seccomp {
    /// What containers customarily may do, depending on their capabilities.
    #[default]
    Default,
    /// For code that nobody trusts: no network, no namespaces, no tracing, and none of the parts of the kernel that few programs
    /// need.
    Strict,
    /// All of them: weaker.
    Unconfined,
    /// What these say.
    Rules(SeccompRules),
}

impl From<SeccompRules> for Seccomp {
    fn from(rules: SeccompRules) -> Self {
        Self::Rules(rules)
    }
}
