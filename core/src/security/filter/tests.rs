use std::collections::BTreeSet;

use proptest::prelude::*;

use super::compile::{Instruction, MOST, compile};
use super::interpret::{Call, Naive, assert_sound, run};
use super::rules::*;
use super::table;
use super::{profile, syscalls};
use crate::spec::Capabilities;
use SeccompAction::{Allow, Errno, KillProcess, KillThread, Log, Notify, Trace, Trap};

pub(super) fn context(native: SeccompArch, capabilities: u64) -> Context {
    Context { native, capabilities, kernel: (6, 12), ports: false }
}

pub(super) fn compiled(filter: &Filter) -> Vec<Instruction> {
    let program = compile(filter).unwrap();
    assert_sound(&program);
    program
}

fn names() -> Vec<&'static str> {
    syscalls::SYSCALLS.iter().map(|(name, _)| *name).collect()
}

pub(super) fn action() -> impl Strategy<Value = SeccompAction> {
    prop_oneof![
        3 => Just(Allow),
        3 => (0u16..200).prop_map(Errno),
        1 => Just(KillProcess),
        1 => Just(KillThread),
        1 => Just(Trap),
        1 => (0u16..9).prop_map(Trace),
        1 => Just(Log),
        1 => Just(Notify),
    ]
}

/// Values near each other, so that comparisons come out both ways, and some with an upper half.
pub(super) fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0u64..6,
        1 => Just(0xffff_ffff),
        1 => Just(0x8000_0000),
        2 => (0u64..3, 0u64..4).prop_map(|(high, low)| high << 32 | low),
        1 => any::<u64>(),
        1 => Just(u64::MAX),
    ]
}

pub(super) fn arg() -> impl Strategy<Value = SeccompArg> {
    let mask = prop_oneof![0u64..8, Just(0xffff_ffff), Just(!0), Just(0x1_0000_0003), any::<u64>()];
    let op = prop_oneof![
        Just(SeccompOp::NotEqual),
        Just(SeccompOp::Less),
        Just(SeccompOp::LessOrEqual),
        Just(SeccompOp::Equal),
        Just(SeccompOp::GreaterOrEqual),
        Just(SeccompOp::Greater),
        mask.prop_map(SeccompOp::MaskedEqual),
    ];
    (0u8..6, op, value()).prop_map(|(index, op, value)| SeccompArg { index, op, value })
}

fn rule() -> impl Strategy<Value = SeccompRule> {
    let names = prop::collection::vec(prop::sample::select(names()), 1..8);
    (names, action(), prop::collection::vec(arg(), 0..4))
        .prop_map(|(names, action, args)| SeccompRule { args, ..SeccompRule::new(names, action) })
}

fn architectures() -> impl Strategy<Value = Vec<SeccompArch>> {
    prop::sample::select(vec![
        vec![SeccompArch::X86_64],
        vec![SeccompArch::X86_64, SeccompArch::I386],
        vec![SeccompArch::Aarch64],
    ])
}

fn any_filter() -> impl Strategy<Value = Filter> {
    (action(), prop::option::of(action()), architectures(), prop::collection::vec(rule(), 0..24))
        .prop_map(|(default, unknown, architectures, rules)| Filter { default, unknown, architectures, rules })
}

/// How often a pure function is tried: in full once, by root on the machine itself, and a little elsewhere.
pub(super) fn times(n: u32) -> u32 {
    let is = |name, value| std::env::var(name).map_or(true, |text| text == value);
    if is("RINGFENCE_TEST_AS", "root") && is("RINGFENCE_TEST_TIER", "machine") { n } else { n / 20 }
}

/// Numbers that come out the same on every machine.
pub(super) struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8) % sides.min(1 << 40)
    }

    pub fn word(&mut self) -> u64 {
        self.roll(1 << 32) << 32 | self.roll(1 << 32)
    }
}

/// A call near what the rules are about.
pub(super) fn call(filter: &Filter, dice: &mut Dice) -> Call {
    let arch = filter.architectures[dice.roll(filter.architectures.len() as u64) as usize];
    let mut args = [0; 6];
    let mut number = None;
    if !filter.rules.is_empty() && dice.roll(8) != 0 {
        let rule = &filter.rules[dice.roll(filter.rules.len() as u64) as usize];
        let name = &rule.names[dice.roll(rule.names.len() as u64) as usize];
        number = table::number(name, arch);
        for given in &rule.args {
            let mask = if let SeccompOp::MaskedEqual(mask) = given.op { mask } else { u64::MAX };
            let near = given.value.wrapping_add(dice.roll(3)).wrapping_sub(1);
            args[usize::from(given.index)] = match dice.roll(6) {
                0 => near,
                1 => near ^ 1 << 32,
                2 => near & 0xffff_ffff,
                3 => given.value | !mask & dice.word(),
                _ => given.value,
            };
        }
    }
    for arg in &mut args {
        if dice.roll(3) == 0 {
            *arg = [dice.roll(6), dice.word(), 1 << 32, u64::MAX, 0xffff_ffff][dice.roll(5) as usize];
        }
    }
    if arch == SeccompArch::I386 {
        args = args.map(|arg| arg & 0xffff_ffff);
    }
    let number = number.unwrap_or_else(|| match dice.roll(10) {
        0 => dice.roll(1 << 32) as u32,
        1 => dice.roll(u64::from(X32_BIT)) as u32,
        _ => dice.roll(600) as u32,
    });
    Call::new(number, arch, args)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: times(400), ..ProptestConfig::default() })]

    #[test]
    fn the_program_does_what_the_rules_say(filter in any_filter(), seed in 1u64..) {
        let (program, naive) = (compiled(&filter), Naive::new(&filter));
        let mut dice = Dice(seed);
        for _ in 0..100 {
            let call = call(&filter, &mut dice);
            prop_assert_eq!(run(&program, &call), naive.run(&call), "{:?}", call);
        }
        let mut foreign = Call::new(0, SeccompArch::X86_64, [0; 6]);
        foreign.arch = 0xc000_00f3;
        prop_assert_eq!(run(&program, &foreign), FOREIGN.code());
        prop_assert_eq!(compile(&filter).unwrap(), program);
    }
}

/// What a process may do under a profile: `None` is allowed, else the errno.
fn answers(
    profile: &Seccomp,
    nesting: bool,
    capabilities: u64,
    native: SeccompArch,
) -> impl Fn(&str, [u64; 6]) -> Option<u32> {
    let filter = profile::filter(profile, nesting, &context(native, capabilities)).unwrap();
    let program = compiled(&filter);
    move |name, args| match run(&program, &Call::new(table::number(name, native).expect(name), native, args)) {
        libc::SECCOMP_RET_ALLOW => None,
        other => Some(other & 0xffff),
    }
}

const EPERM: Option<u32> = Some(libc::EPERM as u32);
const ENOSYS: Option<u32> = Some(libc::ENOSYS as u32);

#[test]
fn tables_have_every_name_of_the_profiles() {
    let known: BTreeSet<&str> = names().into_iter().collect();
    assert_eq!(known.len(), syscalls::SYSCALLS.len());
    assert!(syscalls::LINUX >= (6, 17));
    for native in [SeccompArch::X86_64, SeccompArch::Aarch64] {
        for profile in [Seccomp::Default, Seccomp::Strict] {
            let filter = profile::filter(&profile, true, &context(native, Capabilities::ALL)).unwrap();
            for name in filter.rules.iter().flat_map(|rule| &rule.names) {
                assert!(known.contains(&**name), "{name}");
            }
        }
    }
}

#[test]
fn profiles() {
    for native in [SeccompArch::X86_64, SeccompArch::Aarch64] {
        let default = answers(&Seccomp::Default, false, Capabilities::DEFAULT, native);
        let admin = answers(&Seccomp::Default, false, Capabilities::ALL, native);
        let nesting = answers(&Seccomp::Default, true, Capabilities::DEFAULT, native);
        let strict = answers(&Seccomp::Strict, false, Capabilities::ALL, native);
        let args = |first: u64| [first, 0, 0, 0, 0, 0];
        for name in ["read", "openat", "execve", "futex", "statx", "rseq", "landlock_restrict_self"] {
            for answer in [&default as &dyn Fn(&str, [u64; 6]) -> Option<u32>, &admin, &nesting, &strict] {
                assert_eq!(answer(name, [0; 6]), None, "{name}");
            }
        }
        for name in ["mount", "unshare", "setns", "bpf", "perf_event_open", "move_mount", "quotactl", "sethostname"] {
            assert_eq!((default(name, [0; 6]), admin(name, [0; 6])), (EPERM, None), "{name}");
            assert_eq!((nesting(name, [0; 6]), strict(name, [0; 6])), (None, EPERM), "{name}");
        }
        for name in ["keyctl", "add_key", "io_uring_setup", "userfaultfd", "kexec_load", "swapon", "nfsservctl"] {
            for answer in [&default as &dyn Fn(&str, [u64; 6]) -> Option<u32>, &admin, &nesting, &strict] {
                assert_eq!(answer(name, [0; 6]), EPERM, "{name}");
            }
        }
        assert_eq!((default("pivot_root", [0; 6]), nesting("pivot_root", [0; 6])), (EPERM, None));
        for (answer, clone3) in
            [(&default as &dyn Fn(&str, [u64; 6]) -> Option<u32>, ENOSYS), (&strict, ENOSYS), (&admin, None)]
        {
            assert_eq!(answer("clone3", [0; 6]), clone3);
            assert_eq!(answer("clone", args(libc::CLONE_VM as u64 | 17)), None);
            let refused = if clone3.is_some() { EPERM } else { None };
            assert_eq!(answer("clone", args(libc::CLONE_NEWUSER as u64 | 17)), refused);
        }
        for (family, here) in [(1, None), (2, None), (16, None), (38, EPERM), (40, EPERM), (41, None)] {
            assert_eq!(default("socket", args(family)), here);
            // The kernel takes an int: the upper half is nothing.
            assert_eq!(default("socket", args(family | 1 << 32)), here);
            let unknown_family = (family != 1).then_some(libc::EAFNOSUPPORT as u32);
            assert_eq!(strict("socket", args(family)), unknown_family);
            assert_eq!(
                (default("socketpair", args(family)), strict("socketpair", args(family))),
                (here, unknown_family)
            );
        }
        assert_eq!((default("ptrace", [0; 6]), strict("ptrace", [0; 6])), (None, EPERM));
        let typed = [0, libc::TIOCSTI | 7 << 32, 0, 0, 0, 0];
        for answer in [&default as &dyn Fn(&str, [u64; 6]) -> Option<u32>, &admin, &nesting, &strict] {
            assert_eq!((answer("ioctl", typed), answer("ioctl", args(0))), (EPERM, None));
        }
        let discipline = [0, libc::TIOCSETD | 7 << 32, 0, 0, 0, 0];
        assert_eq!((default("ioctl", discipline), strict("ioctl", discipline)), (None, EPERM));
        for (name, flags) in [("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)] {
            let with = |flag: i32| std::array::from_fn(|i| if i == flags { flag as u64 } else { !0 });
            let urgent = with(libc::MSG_OOB | libc::MSG_NOSIGNAL);
            assert_eq!((default(name, urgent), strict(name, urgent)), (None, Some(libc::EOPNOTSUPP as u32)), "{name}");
            assert_eq!(strict(name, with(libc::MSG_NOSIGNAL)), None, "{name}");
        }
        assert_eq!((default("cachestat", [0; 6]), strict("cachestat", [0; 6])), (None, EPERM));
        assert_eq!(strict("mknodat", [0, 0, libc::S_IFIFO as u64 | 0o600, 0, 0, 0]), None);
        assert_eq!(strict("mknodat", [0, 0, libc::S_IFCHR as u64 | 0o600, 0, 0, 0]), EPERM);
    }
}

/// A program of 64 bits makes calls of 32-bit ones too (int 0x80): what is refused has no other name there.
#[test]
fn multiplexed_sockets() {
    let filter = profile::filter(&Seccomp::Default, true, &context(SeccompArch::X86_64, Capabilities::ALL)).unwrap();
    let program = compiled(&filter);
    let answer = |name, first| {
        let number = table::number(name, SeccompArch::I386).unwrap();
        run(&program, &Call::new(number, SeccompArch::I386, [first, 0, 0, 0, 0, 0]))
    };
    let (enosys, eperm) = (Errno(libc::ENOSYS as u16).code(), Errno(libc::EPERM as u16).code());
    // SYS_SOCKET, SYS_BIND, SYS_SOCKETPAIR, SYS_SENDMSG of linux/net.h.
    assert_eq!([1, 2, 8, 16].map(|call| answer("socketcall", call)), [enosys, Allow.code(), enosys, Allow.code()]);
    for name in ["socket", "socketpair"] {
        assert_eq!([1, 2, 38, 40].map(|family| answer(name, family)), [Allow.code(), Allow.code(), eperm, eperm]);
    }
}

#[test]
fn calls_that_nobody_knew_are_not_there() {
    let filter = profile::filter(&Seccomp::Default, false, &context(SeccompArch::X86_64, 0)).unwrap();
    let program = compiled(&filter);
    let answer = |number, arch| run(&program, &Call::new(number, arch, [0; 6]));
    let enosys = Errno(libc::ENOSYS as u16).code();
    for arch in [SeccompArch::X86_64, SeccompArch::I386] {
        for number in [390, 470, 471, 600, 0x3fff_ffff] {
            assert_eq!(answer(number, arch), enosys, "{number}");
        }
        assert_eq!(answer(467, arch), Errno(1).code());
    }
    // x32: of getpid, and of anything.
    assert_eq!(answer(X32_BIT | 39, SeccompArch::X86_64), enosys);
    assert_eq!(answer(u32::MAX, SeccompArch::X86_64), enosys);
    assert_eq!(answer(0, SeccompArch::Aarch64), KillProcess.code());
    // Rules from the time before clone3.
    let old = SeccompRules {
        default_action: Some(KillProcess),
        rules: vec![SeccompRule::new(["pidfd_send_signal", "execve"], Allow)],
        ..SeccompRules::default()
    };
    let filter = profile::filter(&old.into(), false, &context(SeccompArch::X86_64, 0)).unwrap();
    let program = compiled(&filter);
    let answer = |number| run(&program, &Call::new(number, SeccompArch::X86_64, [0; 6]));
    assert_eq!([answer(0), answer(424), answer(425), answer(435)], [KillProcess.code(), Allow.code(), enosys, enosys]);
}

#[test]
fn too_long_is_an_error() {
    let mut rules = Vec::new();
    for (i, name) in names().into_iter().enumerate() {
        for arg in 0..6 {
            rules.push(SeccompRule::new([name], Log).arg(arg, SeccompOp::Greater, (i as u64) << 33 | u64::from(arg)));
        }
    }
    let filter = Filter { default: Allow, unknown: None, architectures: vec![SeccompArch::X86_64], rules };
    assert!(compile(&filter).unwrap_err() > MOST);
    let rules: SeccompRules =
        SeccompRules { default_action: Some(Allow), rules: filter.rules, ..SeccompRules::default() };
    let context = context(SeccompArch::NATIVE, 0);
    let error = super::program(&rules.into(), false, context).unwrap_err();
    assert!(error.to_string().contains("the kernel takes 4096"), "{error}");
}

#[test]
fn programs_are_compiled_once() {
    let context = context(SeccompArch::NATIVE, Capabilities::DEFAULT);
    let program = |seccomp: &Seccomp| super::program(seccomp, false, context).unwrap();
    let (first, second) = (program(&Seccomp::Default).unwrap(), program(&Seccomp::Default).unwrap());
    assert!(std::sync::Arc::ptr_eq(&first, &second));
    assert_ne!(first, program(&Seccomp::Strict).unwrap());
    assert!(program(&Seccomp::Unconfined).is_none());
}

/// Their sizes, which a change of the compiler should not let grow unseen.
#[test]
fn profiles_are_short() {
    for (native, default, strict) in [(SeccompArch::X86_64, 320, 170), (SeccompArch::Aarch64, 170, 170)] {
        for (profile, most) in [(Seccomp::Default, default), (Seccomp::Strict, strict)] {
            let filter = profile::filter(&profile, false, &context(native, Capabilities::DEFAULT)).unwrap();
            let length = compiled(&filter).len();
            println!("{native:?} {profile:?}: {length} instructions");
            assert!(length <= most, "{native:?} {profile:?}: {length}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: times(2000), failure_persistence: None, ..ProptestConfig::default() })]

    /// The strictest answer of two filters is the kernel's: in the order of its codes as signed numbers.
    #[test]
    fn a_filter_that_asks_is_two(filter in any_filter(), seed in 1u64..) {
        let whole = compiled(&filter);
        let (first, second) = filter.split();
        prop_assert!(!second.notifies() && first.notifies() == filter.notifies());
        let (first, second) = (compiled(&first), compiled(&second));
        let mut dice = Dice(seed);
        for _ in 0..20 {
            let call = call(&filter, &mut dice);
            let answers = [run(&first, &call), run(&second, &call)];
            // Of equal actions the newest filter's, which is the second.
            let action = |answer: u32| (answer & libc::SECCOMP_RET_ACTION_FULL) as i32;
            let strictest = if action(answers[0]) < action(answers[1]) { answers[0] } else { answers[1] };
            prop_assert_eq!(strictest, run(&whole, &call), "{:?} {:?}", call, filter);
        }
    }
}

#[test]
fn what_is_asked_of_the_host() {
    let of = |rules: Vec<SeccompRule>| Filter {
        default: Allow,
        unknown: None,
        architectures: vec![SeccompArch::NATIVE],
        rules,
    };
    let asks = |names: [&str; 1]| SeccompRule::new(names, Notify);
    let some = asks(["execve"]).arg(1, SeccompOp::Equal, 0);
    assert_eq!(of(vec![]).asked("execve"), Asked::Never);
    assert_eq!(of(vec![asks(["execve"])]).asked("execve"), Asked::Always);
    assert_eq!(of(vec![some.clone()]).asked("execve"), Asked::Sometimes);
    assert_eq!(of(vec![some.clone(), asks(["execve"])]).asked("execve"), Asked::Always);
    assert_eq!(of(vec![SeccompRule::new(["execve"], Allow), asks(["execve"])]).asked("execve"), Asked::Never);
    assert_eq!(Filter { default: Notify, ..of(vec![]) }.asked("read"), Asked::Always);
    assert_eq!(table::name(libc::SYS_openat2 as u32, SeccompArch::NATIVE), Some("openat2"));
    assert_eq!((table::name(20, SeccompArch::I386), table::name(9999, SeccompArch::I386)), (Some("getpid"), None));
    // The listener is handed over by whichever of the two nobody is asked about.
    for (rules, by) in [(vec![asks(["getsid"])], libc::SYS_sendmsg), (vec![asks(["sendmsg"])], libc::SYS_sendmmsg)] {
        let own = SeccompRules { profile: Some(SeccompProfile::Default), rules, ..SeccompRules::default() };
        for (kernel, flags) in [((5, 18), 8), ((5, 19), 8 | 32)] {
            let context = Context { kernel, ..context(SeccompArch::NATIVE, 0) };
            let made = super::program(&own.clone().into(), false, context).unwrap().unwrap();
            let listener = made.listener.as_ref().unwrap();
            assert_eq!((listener.sends_by, listener.flags), (by as u32, flags));
        }
    }
}
