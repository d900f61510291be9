//! Filters of libseccomp, made of the same rules, beside ours: a million calls have to have the same fate.
//!
//! libseccomp is loaded where the machine has it (libseccomp.so.2, package libseccomp2); without it the test says so and is
//! passed over.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use super::compile::{Instruction, audit};
use super::interpret::{Call, run};
use super::rules::*;
use super::tests::{self, Dice};
use super::{profile, syscalls, table};
use crate::spec::Capabilities;

#[repr(C)]
struct Compare {
    arg: c_uint,
    op: c_int,
    a: u64,
    b: u64,
}

type Context = *mut c_void;

/// What is used of libseccomp(3).
struct Library {
    init: unsafe extern "C" fn(u32) -> Context,
    release: unsafe extern "C" fn(Context),
    arch_add: unsafe extern "C" fn(Context, u32) -> c_int,
    arch_remove: unsafe extern "C" fn(Context, u32) -> c_int,
    attr_set: unsafe extern "C" fn(Context, c_int, u32) -> c_int,
    rule_add: unsafe extern "C" fn(Context, u32, c_int, c_uint, *const Compare) -> c_int,
    export: unsafe extern "C" fn(Context, c_int) -> c_int,
    resolve: unsafe extern "C" fn(u32, *const c_char) -> c_int,
}

impl Library {
    fn open() -> Option<Self> {
        // SAFETY: the library's constructors do nothing to a process that does not call it.
        let handle = unsafe { libc::dlopen(c"libseccomp.so.2".as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() {
            println!("SKIP: libseccomp.so.2 is not on this machine (package libseccomp2)");
            return None;
        }
        macro_rules! symbol {
            ($name:literal) => {{
                // SAFETY: a symbol of this name has the type that seccomp.h declares, which the field repeats.
                let address = unsafe { libc::dlsym(handle, concat!($name, "\0").as_ptr().cast()) };
                assert!(!address.is_null(), $name);
                // SAFETY: as above; functions are as wide as pointers.
                unsafe { std::mem::transmute_copy(&address) }
            }};
        }
        Some(Self {
            init: symbol!("seccomp_init"),
            release: symbol!("seccomp_release"),
            arch_add: symbol!("seccomp_arch_add"),
            arch_remove: symbol!("seccomp_arch_remove"),
            attr_set: symbol!("seccomp_attr_set"),
            rule_add: symbol!("seccomp_rule_add_array"),
            export: symbol!("seccomp_export_bpf"),
            resolve: symbol!("seccomp_syscall_resolve_name_arch"),
        })
    }

    fn number(&self, name: &str, arch: SeccompArch) -> Option<u32> {
        let name = CString::new(name).unwrap();
        // SAFETY: the name ends with NUL.
        let number = unsafe { (self.resolve)(audit(arch), name.as_ptr()) };
        u32::try_from(number).ok()
    }

    /// Whether it is new enough to know all about the call.
    fn knows(&self, name: &str) -> bool {
        let same = |arch| table::number(name, arch).is_none_or(|number| self.number(name, arch) == Some(number));
        SeccompArch::ALL.into_iter().all(same)
    }

    /// The program that it makes of a filter.
    fn compile(&self, filter: &Filter) -> Vec<Instruction> {
        const ACT_BADARCH: c_int = 2;
        let native = audit(SeccompArch::NATIVE);
        // SAFETY: contexts are used by this thread only and freed once; arrays live through the calls, with the length given.
        unsafe {
            let context = (self.init)(filter.default.code());
            assert!(!context.is_null());
            assert_eq!((self.attr_set)(context, ACT_BADARCH, FOREIGN.code()), 0);
            for &arch in &filter.architectures {
                if audit(arch) != native {
                    assert_eq!((self.arch_add)(context, audit(arch)), 0);
                }
            }
            if !filter.architectures.contains(&SeccompArch::NATIVE) {
                assert_eq!((self.arch_remove)(context, native), 0);
            }
            for rule in filter.rules.iter().filter(|rule| rule.action != filter.default) {
                let compare: Vec<Compare> = rule.args.iter().map(compare).collect();
                for name in &rule.names {
                    let name = CString::new(name.as_str()).unwrap();
                    let number = (self.resolve)(native, name.as_ptr());
                    let (count, list) = (compare.len() as c_uint, compare.as_ptr());
                    let added = (self.rule_add)(context, rule.action.code(), number, count, list);
                    // A rule that is there already, or that says no more than another.
                    assert!(added == 0 || added == -libc::EEXIST, "{name:?}: {added}");
                }
            }
            let mut file = tempfile::tempfile().unwrap();
            assert_eq!((self.export)(context, file.as_raw_fd()), 0);
            (self.release)(context);
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            bytes.as_chunks().0.iter().map(instruction).collect()
        }
    }
}

fn instruction(bytes: &[u8; 8]) -> Instruction {
    let &[c0, c1, jt, jf, k0, k1, k2, k3] = bytes;
    Instruction { code: u16::from_ne_bytes([c0, c1]), jt, jf, k: u32::from_ne_bytes([k0, k1, k2, k3]) }
}

fn compare(arg: &SeccompArg) -> Compare {
    let (op, a, b) = match arg.op {
        SeccompOp::NotEqual => (1, arg.value, 0),
        SeccompOp::Less => (2, arg.value, 0),
        SeccompOp::LessOrEqual => (3, arg.value, 0),
        SeccompOp::Equal => (4, arg.value, 0),
        SeccompOp::GreaterOrEqual => (5, arg.value, 0),
        SeccompOp::Greater => (6, arg.value, 0),
        SeccompOp::MaskedEqual(mask) => (7, mask, arg.value),
    };
    Compare { arg: arg.index.into(), op, a, b }
}

/// Rule sets that libseccomp gets right: of each call there is one rule, or several that have the same action and want one
/// argument to be equal to something. It has no order of rules, and does not go back to another one when the first half of a
/// comparison, or the first comparison of several, held and the next does not (seen with 2.5.4: `arg0 > 2` or `arg0 >= 0`, and it
/// refuses 0). What it would do to calls of socketcall(2) and ipc(2), too, is left out.
fn unordered(library: &Library) -> impl Strategy<Value = Filter> {
    const MULTIPLEXED: &str = "socketcall ipc socket bind connect listen accept accept4 getsockname getpeername socketpair send \
        sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64 shutdown setsockopt getsockopt semop semget semctl \
        semtimedop semtimedop_time64 msgsnd msgrcv msgget msgctl shmat shmdt shmget shmctl";
    let single = |name: &&str| !MULTIPLEXED.split_ascii_whitespace().any(|other| other == *name) && library.knows(name);
    let names: Vec<&'static str> = syscalls::SYSCALLS.iter().map(|(name, _)| *name).filter(single).collect();
    let architectures = match SeccompArch::NATIVE {
        SeccompArch::X86_64 => {
            vec![vec![SeccompArch::X86_64], vec![SeccompArch::X86_64, SeccompArch::I386], vec![SeccompArch::Aarch64]]
        }
        native => vec![vec![native]],
    };
    let action = tests::action;
    let one = prop::collection::vec(prop::collection::vec(tests::arg(), 0..6), 1);
    let equal = (0u8..6, tests::value()).prop_map(|(index, value)| SeccompArg { index, op: SeccompOp::Equal, value });
    let several = prop::collection::vec(prop::collection::vec(equal, 1), 2..5);
    let of_call = (prop::sample::select(names), action(), prop_oneof![one, several]);
    (action(), prop::sample::select(architectures), prop::collection::vec(of_call, 0..16)).prop_map(
        |(default, architectures, calls)| {
            let narrow = architectures.contains(&SeccompArch::I386);
            let everywhere = |name: &str| architectures.iter().all(|&arch| table::number(name, arch).is_some());
            let calls: BTreeMap<_, _> =
                calls.into_iter().filter(|call| everywhere(call.0)).map(|call| (call.0, call)).collect();
            let rules = calls.into_values().flat_map(|(name, action, sets)| {
                sets.into_iter().map(move |args| {
                    // It takes one comparison of an argument, of 32-bit programs with 32 bits.
                    let mut by_index: BTreeMap<u8, SeccompArg> = args.into_iter().map(|a| (a.index, a)).collect();
                    for arg in by_index.values_mut() {
                        if narrow {
                            arg.value &= 0xffff_ffff;
                        }
                        if let SeccompOp::MaskedEqual(mask) = &mut arg.op {
                            if narrow {
                                *mask &= 0xffff_ffff;
                            }
                            arg.value &= *mask;
                        }
                    }
                    SeccompRule { args: by_index.into_values().collect(), ..SeccompRule::new([name], action) }
                })
            });
            Filter { default, unknown: None, architectures, rules: rules.collect() }
        },
    )
}

#[test]
fn a_million_calls_as_libseccomp_has_them() {
    let Some(library) = Library::open() else { return };
    const CALLS: u32 = 1000;
    let seed = *b"ringfence and libseccomp agree!!";
    let mut runner =
        TestRunner::new_with_rng(ProptestConfig::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let strategy = unordered(&library);
    let mut dice = Dice(0x1234_5678_9abc_def1);
    for _ in 0..tests::times(1000) {
        let filter = strategy.new_tree(&mut runner).unwrap().current();
        let (ours, theirs) = (tests::compiled(&filter), library.compile(&filter));
        for _ in 0..CALLS {
            let mut call = tests::call(&filter, &mut dice);
            if call.arch == audit(SeccompArch::X86_64) {
                // x32 is another architecture to libseccomp.
                call.number &= X32_BIT - 1;
            }
            assert_eq!(run(&ours, &call), run(&theirs, &call), "{call:?} of {filter:#?}");
        }
    }
}

#[test]
fn the_default_profile_as_libseccomp_compiles_it() {
    let Some(library) = Library::open() else { return };
    for capabilities in [0, Capabilities::DEFAULT, Capabilities::ALL] {
        let mut context = tests::context(SeccompArch::NATIVE, capabilities);
        context.kernel = (6, 1);
        let mut filter = profile::filter(&Seccomp::Default, false, &context).unwrap();
        filter.unknown = None;
        // The ordered ones, of which the first that holds counts, and what libseccomp of this age does not know.
        const ORDERED: [&str; 4] = ["ioctl", "socket", "socketpair", "socketcall"];
        filter.rules.retain(|rule| !rule.names.iter().any(|name| ORDERED.contains(&name.as_str())));
        for rule in &mut filter.rules {
            rule.names.retain(|name| library.knows(name));
        }
        filter.architectures.truncate(1);
        let ours = tests::compiled(&filter);
        let theirs = library.compile(&filter);
        let mut dice = Dice(7);
        for (name, _) in syscalls::SYSCALLS {
            let Some(number) = library.number(name, SeccompArch::NATIVE) else { continue };
            for _ in 0..50 {
                let call = Call { number, ..tests::call(&filter, &mut dice) };
                assert_eq!(run(&ours, &call), run(&theirs, &call), "{name} {call:?}");
            }
        }
        assert_eq!(ours, tests::compiled(&filter));
        println!("{capabilities:#x}: {} instructions, libseccomp's {}", ours.len(), theirs.len());
    }
}

#[test]
fn numbers_as_libseccomp_has_them() {
    let Some(library) = Library::open() else { return };
    let mut known = 0;
    for (name, _) in syscalls::SYSCALLS {
        for arch in SeccompArch::ALL {
            // Pseudo calls have negative numbers; an older library does not know what is newer than it.
            if let Some(number) = library.number(name, arch) {
                assert_eq!(table::number(name, arch), Some(number), "{name} on {arch:?}");
                known += 1;
            }
        }
    }
    assert!(known > 1000, "{known}");
}
