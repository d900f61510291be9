//! Which devices a container may use: rules, and what the kernel takes in their place.
//!
//! In a v2 tree that is a BPF program at the container's group (the kernel's admin-guide/cgroup-v2, "Device controller"), which
//! the kernel runs when a device is opened or a node made; it says no when any of the groups above does. Where there is no
//! such tree, or no BPF, the devices controller of v1 does it (admin-guide/cgroup-v1/devices), which knows a default and
//! exceptions from it. On hybrid machines the program is taken: attaching one that is loaded already takes 2 us, a group in
//! one more v1 hierarchy with these lines in its files 80 us.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;

use super::layout::{self, Controller};
use super::parent::Parent;
use super::{Group, Making, Place, V1Part, failed_at, file, has, sub};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::{DeviceAccess, DeviceKind, DeviceRule};
use crate::sys::bpf::{self, Insn};

/// Rules in order: of those that are about a device and an access the last one decides. What none is about is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceRules {
    list: Vec<DeviceRule>,
    /// Those of them that somebody asked to have allowed.
    asked: Vec<DeviceRule>,
    /// The field of the spec that wants them. `None`: they are what every container has, and a group that cannot have them
    /// does without.
    field: Option<String>,
}

/// A device by its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
}

impl Numbers {
    /// Of a node with this mode's S_IFMT and st_rdev.
    pub fn of(format: u32, number: u64) -> Self {
        let kind = if format == libc::S_IFBLK { DeviceKind::Block } else { DeviceKind::Char };
        Self { kind, major: libc::major(number), minor: libc::minor(number) }
    }

    fn rule(self, allow: bool, access: DeviceAccess) -> DeviceRule {
        let Self { kind, major, minor } = self;
        DeviceRule { allow, kind, major: Some(major), minor: Some(minor), access }
    }
}

/// What every container has, as OCI's runtimes do it: nodes may be made, none but harmless ones opened. (Not /dev/console,
/// which is the machine's, nor tunnels, which belong to a network.)
fn standard() -> Vec<DeviceRule> {
    let all = |kind, major, minor| DeviceRule::allow(kind, Some(major), minor, DeviceAccess::ALL);
    let mut rules = vec![DeviceRule::allow(DeviceKind::All, None, None, DeviceAccess::MKNOD)];
    // null, zero, full, random, urandom; tty, ptmx; the other ends of pseudoterminals.
    rules.extend([3, 5, 7, 8, 9].map(|minor| all(DeviceKind::Char, 1, Some(minor))));
    rules.extend([0, 2].map(|minor| all(DeviceKind::Char, 5, Some(minor))));
    rules.push(all(DeviceKind::Char, 136, None));
    rules
}

impl DeviceRules {
    /// The standard ones, those of the spec, and those of the devices that it gives; `field` wants them.
    pub fn new(explicit: &[DeviceRule], given: &[(Numbers, DeviceAccess)], field: Option<String>) -> Self {
        let mut list = standard();
        list.extend(explicit);
        for (numbers, access) in given {
            let missing = DeviceAccess::default().without(*access);
            if !missing.is_empty() {
                list.push(numbers.rule(false, missing));
            }
            list.push(numbers.rule(true, *access));
        }
        let first = standard().len();
        let asked = list[first..].iter().filter(|rule| rule.allow).copied().collect();
        // What stands before a rule about everything does not matter.
        let last = list.iter().rposition(is_about_everything);
        list.drain(..last.unwrap_or(0));
        Self { list, asked, field }
    }

    /// For a group in which others are to have rules.
    pub fn everything() -> Self {
        let all = DeviceRule::allow(DeviceKind::All, None, None, DeviceAccess::ALL);
        Self { list: vec![all], asked: Vec::new(), field: None }
    }

    fn denies_nothing(&self) -> bool {
        self.list.iter().all(|rule| rule.allow) && self.list.first().is_some_and(is_about_everything)
    }

    /// Whether somebody asked for it to be allowed.
    fn asks(&self, which: Which, access: DeviceAccess) -> bool {
        self.asked.iter().any(|rule| {
            let about = Which { kind: which.kind, major: rule.major, minor: rule.minor };
            rule.access.contains(access)
                && (rule.kind == DeviceKind::All || rule.kind == which.kind)
                && about.both(which).is_some()
        })
    }

    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    fn error(&self, error: Error) -> Error {
        error.with_field(self.field.as_deref().unwrap_or("device_rules"))
    }

    /// From the last rule to the first: what is denied ends it, what is allowed is taken from what is asked for, until
    /// nothing is left of that.
    fn program(&self) -> Vec<Insn> {
        const ASKED: u8 = 3;
        const KIND: u8 = 2;
        const MAJOR: u8 = 4;
        const MINOR: u8 = 5;
        // struct bpf_cgroup_dev_ctx, at register 1: access << 16 | kind, major, minor.
        let mut out = vec![
            insn(LOAD_WORD, KIND, 1, 0, 0),
            insn(MOVE_REGISTER, ASKED, KIND, 0, 0),
            insn(SHIFT_RIGHT, ASKED, 0, 0, 16),
            insn(AND, KIND, 0, 0, 0xffff),
            insn(LOAD_WORD, MAJOR, 1, 4, 0),
            insn(LOAD_WORD, MINOR, 1, 8, 0),
        ];
        for rule in self.list.iter().rev() {
            let access = kernel_access(rule.access);
            let kind = match rule.kind {
                DeviceKind::All => None,
                DeviceKind::Block => Some(1),
                DeviceKind::Char => Some(2),
            };
            let tests = [(KIND, kind), (MAJOR, rule.major), (MINOR, rule.minor)];
            let tests: Vec<_> = tests.into_iter().filter_map(|(register, value)| Some((register, value?))).collect();
            let decide = match rule.allow {
                true => vec![insn(AND, ASKED, 0, 0, !access), insn(JUMP_UNLESS_EQUAL, ASKED, 0, 2, 0)],
                false => vec![insn(JUMP_IF_ANY, ASKED, 0, 1, access), insn(JUMP, 0, 0, 2, 0)],
            };
            let end = [insn(MOVE, 0, 0, 0, rule.allow.into()), insn(EXIT, 0, 0, 0, 0)];
            let rest = decide.len() + end.len();
            for (i, (register, value)) in tests.iter().enumerate() {
                let over = (tests.len() - 1 - i + rest) as i16;
                out.push(insn(JUMP_UNLESS_EQUAL, *register, 0, over, *value as i32));
            }
            out.extend(decide);
            out.extend(end);
        }
        out.extend([insn(MOVE, 0, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
        out
    }

    /// As v1 has them.
    fn exceptions(&self) -> Result<Exceptions> {
        let mut out = Exceptions::default();
        for rule in &self.list {
            if is_about_everything(rule) {
                out = Exceptions { allow: rule.allow, list: BTreeMap::new() };
                continue;
            }
            let kinds = match rule.kind {
                DeviceKind::All => &[DeviceKind::Char, DeviceKind::Block][..],
                DeviceKind::Char => &[DeviceKind::Char],
                DeviceKind::Block => &[DeviceKind::Block],
            };
            for &kind in kinds {
                let which = Which { kind, major: rule.major, minor: rule.minor };
                if rule.allow != out.allow {
                    let access = out.list.entry(which).or_default();
                    access.0 = access.0 | rule.access;
                } else {
                    out.take_back(which, rule.access).map_err(|other| self.error(no_hole(which, other)))?;
                }
            }
        }
        out.complete();
        Ok(out)
    }
}

/// Of a catch-all nothing stands before that matters.
fn is_about_everything(rule: &DeviceRule) -> bool {
    (rule.kind, rule.major, rule.minor, rule.access) == (DeviceKind::All, None, None, DeviceAccess::ALL)
}

fn no_hole(which: Which, other: Which) -> Error {
    let what = format!("cgroup v1 cannot except {which} from what holds for {other}");
    Error::new(ErrorKind::Unsupported, what)
        .with_errno(libc::EOPNOTSUPP)
        .with_hint(format!("name the devices of {other} one by one, or use cgroup v2"))
}

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP: u8 = 0x05;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const JUMP_IF_ANY: u8 = 0x45;
const EXIT: u8 = 0x95;

fn insn(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: to | from << 4, offset, immediate }
}

/// BPF_DEVCG_ACC_*.
fn kernel_access(access: DeviceAccess) -> i32 {
    let bits = [(DeviceAccess::MKNOD, 1), (DeviceAccess::READ, 2), (DeviceAccess::WRITE, 4)];
    bits.into_iter().filter(|(one, _)| access.contains(*one)).map(|(_, bit)| bit).sum()
}

/// What an exception of v1 is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Which {
    kind: DeviceKind,
    major: Option<u32>,
    minor: Option<u32>,
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(f, "{} {}:{}", self.kind.letter(), number(self.major), number(self.minor))
    }
}

impl Which {
    /// What both are about.
    fn both(self, other: Self) -> Option<Self> {
        let number = |one: Option<u32>, other: Option<u32>| match (one, other) {
            (Some(one), Some(other)) if one != other => None,
            (one, other) => Some(one.or(other)),
        };
        let (major, minor) = (number(self.major, other.major)?, number(self.minor, other.minor)?);
        (self.kind == other.kind).then_some(Self { kind: self.kind, major, minor })
    }
}

/// No access, by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Excepted(DeviceAccess);

impl Default for Excepted {
    fn default() -> Self {
        Self(DeviceAccess::ALL.without(DeviceAccess::ALL))
    }
}

const ALLOW: &str = "devices.allow";
const DENY: &str = "devices.deny";

/// What is written to one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// It becomes the default, without exceptions.
    Everything,
    Of(Which, DeviceAccess),
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Everything => f.write_str("a"),
            Self::Of(which, access) => write!(f, "{which} {access}"),
        }
    }
}

/// The state of a group of v1: a default, and what is not as that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Exceptions {
    allow: bool,
    list: BTreeMap<Which, Excepted>,
}

impl Exceptions {
    /// Makes it as the default again. The error is a wider exception, of which the kernel takes no part away.
    fn take_back(&mut self, which: Which, access: DeviceAccess) -> Result<(), Which> {
        for (other, excepted) in &mut self.list {
            let Some(both) = other.both(which) else { continue };
            if excepted.0.and(access).is_empty() {
                continue;
            }
            if both != *other {
                return Err(*other);
            }
            excepted.0 = excepted.0.without(access);
        }
        self.list.retain(|_, excepted| !excepted.0.is_empty());
        Ok(())
    }

    /// The kernel allows an open for reading and writing only by one exception that has both.
    fn complete(&mut self) {
        if self.allow {
            return;
        }
        loop {
            let known: Vec<_> = self.list.iter().map(|(which, excepted)| (*which, excepted.0)).collect();
            let mut grew = false;
            for (i, (one, access)) in known.iter().enumerate() {
                for (other, of_other) in &known[i + 1..] {
                    let Some(both) = one.both(*other) else { continue };
                    let here = self.list.entry(both).or_default();
                    let all = here.0 | *access | *of_other;
                    grew |= here.0 != all;
                    here.0 = all;
                }
            }
            if !grew {
                return;
            }
        }
    }

    /// The file to write to, and the lines, that lead here from what was before; `None` is a new group, which is as the one above.
    fn writes(&self, before: Option<&Self>) -> Vec<(&'static str, Line)> {
        let (to_default, from_default) = match self.allow {
            true => (ALLOW, DENY),
            false => (DENY, ALLOW),
        };
        let mut out = Vec::new();
        let former = match before {
            Some(before) if before.allow == self.allow => before.list.clone(),
            // The groups above have to allow everything for it, and a new group has what they have.
            None if self.allow => BTreeMap::new(),
            _ => {
                out.push((to_default, Line::Everything));
                BTreeMap::new()
            }
        };
        for (which, excepted) in &self.list {
            let more = excepted.0.without(former.get(which).copied().unwrap_or_default().0);
            if !more.is_empty() {
                out.push((from_default, Line::Of(*which, more)));
            }
        }
        for (which, excepted) in &former {
            let less = excepted.0.without(self.list.get(which).copied().unwrap_or_default().0);
            if !less.is_empty() {
                out.push((to_default, Line::Of(*which, less)));
            }
        }
        out
    }
}

/// By which the programs of this library are told from others at the same group.
const NAME: &bpf::Name = b"ringfence_dev\0\0\0";

/// Programs that were loaded, the last used first: to load one takes 80 us.
static LOADED: Mutex<Vec<(Vec<Insn>, Arc<OwnedFd>)>> = Mutex::new(Vec::new());

/// More than a program with a few kinds of containers has. Each is a descriptor and a page of the kernel's.
const MOST_LOADED: usize = 8;

fn loaded(program: Vec<Insn>) -> Result<Arc<OwnedFd>, i32> {
    let mut all = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let found = all.iter().position(|(known, _)| *known == program).map(|at| all.remove(at));
    let entry = match found {
        Some(entry) => entry,
        None => {
            let fd = Arc::new(bpf::load(&program, NAME)?);
            (program, fd)
        }
    };
    let fd = entry.1.clone();
    all.insert(0, entry);
    all.truncate(MOST_LOADED);
    Ok(fd)
}

/// Whether programs can be had: not without rights, in kernels without CONFIG_CGROUP_BPF, and under filters.
fn has_programs() -> bool {
    loaded(DeviceRules::new(&[], &[], None).program()).is_ok()
}

/// By what this caller's containers would have rules of devices, for people.
///
/// # Errors
/// What a container with `device_rules` would be refused with, but for the field.
pub(crate) fn way() -> Result<String> {
    let (layout, place) = (layout::current()?, Place::choose(None)?);
    let mut why = libc::ENODEV;
    if let Some(h) = layout.v2() {
        match bpf::load(&DeviceRules::new(&[], &[], None).program(), NAME) {
            Ok(_) => {
                let path = super::parent::probe(h, &place, None)?;
                return Ok(format!("a BPF program at each group, in {}", path.display()));
            }
            Err(errno) => why = errno,
        }
    }
    let Some(h) = layout.home(Controller::Devices).filter(|h| !h.v2) else { return Err(cannot_by(why)) };
    let path = super::parent::probe(h, &place, Some(Controller::Devices))?;
    Ok(format!("the devices controller of v1, groups in {}", path.display()))
}

/// The program of this library at a group.
fn attached(group: BorrowedFd<'_>) -> Result<Option<OwnedFd>, i32> {
    for id in bpf::attached(group)? {
        let program = match bpf::by_id(id) {
            Err(libc::ENOENT) => continue,
            program => program?,
        };
        if bpf::name(program.as_fd())? == *NAME {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

/// Puts the program of the rules at a group, at once in the place of the one that is there.
fn attach(group: BorrowedFd<'_>, rules: &DeviceRules, new: bool) -> Result<(), i32> {
    let before = if new { None } else { attached(group)? };
    if rules.denies_nothing() {
        return match before {
            Some(before) => bpf::detach(group, before.as_fd()),
            // Whether it could have one.
            None => {
                if has_programs() {
                    Ok(())
                } else {
                    Err(libc::EPERM)
                }
            }
        };
    }
    let program = loaded(rules.program())?;
    bpf::attach(group, program.as_fd(), before.as_ref().map(AsFd::as_fd))
}

/// The files of v1 in a group and, where its processes are in one inside, in that.
fn write_v1(part: &V1Part, name: &str, writes: &[(&'static str, Line)], rules: &DeviceRules) -> Result<()> {
    let leaf = part.leaf.then(|| format!("{name}/{}", sub::PAYLOAD));
    for (file, line) in writes {
        for group in [name].into_iter().chain(leaf.as_deref()) {
            let path = format!("{group}/{file}");
            let write = |line: &Line| {
                file::write(&part.parent.dir, &path, &line.to_string()).map_err(|e| {
                    let error = failed_at("write", e, &part.parent.path.join(&path)).with_detail(line.to_string());
                    rules.error(match e {
                        Errno::EPERM if *file == ALLOW => {
                            error.with_hint("the groups above do not allow it: see devices.list in them")
                        }
                        Errno::EINVAL => {
                            error.with_hint("cgroup v1 changes the default only of groups without groups in them")
                        }
                        _ => error,
                    })
                })
            };
            let Err(error) = write(line) else { continue };
            // The group above allows a part of it, or nothing. What nobody asked for is had as far as it goes, as in a v2 tree.
            let Line::Of(which, access) = line else { return Err(error) };
            if error.errno() != libc::EPERM || *file != ALLOW {
                return Err(error);
            }
            for one in [DeviceAccess::READ, DeviceAccess::WRITE, DeviceAccess::MKNOD] {
                if access.contains(one)
                    && let Err(error) = write(&Line::Of(*which, one))
                    && rules.asks(*which, one)
                {
                    return Err(error);
                }
            }
            // An open for both takes one exception that has both, which the kernel makes of these two.
        }
    }
    Ok(())
}

fn devices_of(v1: &[V1Part]) -> Option<&V1Part> {
    v1.iter().find(|part| has(&part.parent, Controller::Devices.name()))
}

fn cannot(rules: &DeviceRules, errno: i32) -> Error {
    rules.error(cannot_by(errno))
}

fn cannot_by(errno: i32) -> Error {
    let error = Error::os("bpf", errno).with_kind(ErrorKind::Unsupported);
    error.with_detail("the control group can have no rules of devices").with_hint(
        "it takes a v2 tree and a kernel with CONFIG_CGROUP_BPF, or the devices controller of v1, each to be written by root",
    )
}

impl Making<'_> {
    /// Sets the rules of a new group.
    pub(super) fn device_rules(&mut self, layout: &layout::Layout, place: &Place, rules: &DeviceRules) -> Result<()> {
        let mut why = libc::ENODEV;
        if let Some(v2) = &self.v2 {
            match attach(v2.dir.as_fd(), rules, true) {
                Ok(()) => return Ok(()),
                Err(errno) => why = errno,
            }
        }
        let Some(h) = layout.home(Controller::Devices).filter(|h| !h.v2) else {
            return if rules.field.is_some() { Err(cannot(rules, why)) } else { Ok(()) };
        };
        let writes = rules.exceptions()?.writes(None);
        match self.v1(h, place) {
            Err(e)
                if rules.field.is_none()
                    && matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) =>
            {
                Ok(())
            }
            Err(e) => Err(rules.error(e)),
            Ok(()) => match devices_of(&self.v1) {
                Some(part) => write_v1(part, self.id, &writes, rules),
                None => Ok(()),
            },
        }
    }
}

/// The directory of v1 in which a group for rules would be, where one is needed for them.
pub(super) fn v1_parent(layout: &layout::Layout, place: &Place) -> Option<Arc<Parent>> {
    let h = layout.home(Controller::Devices).filter(|h| !h.v2)?;
    if layout.v2().is_some() && has_programs() {
        return None;
    }
    super::parent::find(h, place, false).ok()
}

impl Group {
    /// Goes from rules to others; `None` is a group that has none.
    ///
    /// In a v2 tree at once. On v1 one line after the other: between the two, what only one of them allows may be denied.
    pub fn set_device_rules(&self, before: Option<&DeviceRules>, rules: &DeviceRules) -> Result<()> {
        let mut why = libc::ENODEV;
        let mut v1 = self.v1();
        if devices_of(&v1).is_none() {
            if let Some(v2) = &self.v2 {
                match attach(v2.dir.as_fd(), rules, false) {
                    Ok(()) => return Ok(()),
                    Err(errno) => why = errno,
                }
            }
            let Some(spare) = self.spare.iter().find(|parent| has(parent, Controller::Devices.name())) else {
                return if rules.field.is_some() { Err(cannot(rules, why)) } else { Ok(()) };
            };
            self.join_late(spare).map_err(|e| rules.error(e))?;
            v1 = self.v1();
        }
        let Some(part) = devices_of(&v1) else { return Err(cannot(rules, why)) };
        let old = before.map(DeviceRules::exceptions).transpose()?;
        let writes = rules.exceptions()?.writes(old.as_ref());
        let done = write_v1(part, &self.name, &writes, rules);
        if done.is_err()
            && let (Some(before), Some(old)) = (before, old)
        {
            // Whatever of it was written: all is written again.
            let all = Exceptions { allow: !old.allow, list: BTreeMap::new() };
            let _ = write_v1(part, &self.name, &old.writes(Some(&all)), before);
        }
        done
    }

    /// What holds the rules: `bpf`, `devices` (the controller of v1), or nothing.
    pub fn device_rules_by(&self) -> Option<&'static str> {
        if devices_of(&self.v1()).is_some() {
            return Some("devices");
        }
        let v2 = self.v2.as_ref()?;
        matches!(attached(v2.dir.as_fd()), Ok(Some(_))).then_some("bpf")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const READ: DeviceAccess = DeviceAccess::READ;
    const WRITE: DeviceAccess = DeviceAccess::WRITE;

    impl DeviceRules {
        /// What the documentation says.
        fn allows(&self, at: Numbers, access: DeviceAccess) -> bool {
            let about = |rule: &&DeviceRule, one: DeviceAccess| {
                (rule.kind == DeviceKind::All || rule.kind == at.kind)
                    && rule.major.is_none_or(|major| major == at.major)
                    && rule.minor.is_none_or(|minor| minor == at.minor)
                    && rule.access.contains(one)
            };
            [READ, WRITE, DeviceAccess::MKNOD]
                .into_iter()
                .filter(|&one| access.contains(one))
                .all(|one| self.list.iter().rev().find(|rule| about(rule, one)).is_some_and(|rule| rule.allow))
        }
    }

    /// What the kernel's interpreter comes to.
    fn run(program: &[Insn], at: Numbers, access: DeviceAccess) -> bool {
        let kind = if at.kind == DeviceKind::Block { 1 } else { 2 };
        let context = [kernel_access(access) as u32 as u64 * 65_536 + kind, at.major.into(), at.minor.into()];
        let mut registers = [0u64; 11];
        let mut pc = 0usize;
        loop {
            let Insn { code, registers: both, offset, immediate } = program[pc];
            let (to, from, value) = (usize::from(both & 15), usize::from(both >> 4), i64::from(immediate) as u64);
            let jump = match code {
                LOAD_WORD => {
                    assert_eq!(from, 1, "only the context is read");
                    registers[to] = context[offset as usize / 4];
                    false
                }
                MOVE_REGISTER => {
                    registers[to] = registers[from];
                    false
                }
                MOVE => {
                    registers[to] = value;
                    false
                }
                AND => {
                    registers[to] &= value;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= value;
                    false
                }
                JUMP => true,
                JUMP_UNLESS_EQUAL => registers[to] != value,
                JUMP_IF_ANY => registers[to] & value != 0,
                EXIT => return registers[0] == 1,
                _ => panic!("{code:#x}"),
            };
            pc += 1 + if jump { offset as usize } else { 0 };
        }
    }

    /// What the controller of v1 comes to: security/device_cgroup.c, match_exception and match_exception_partial.
    fn on_v1(state: &Exceptions, at: Numbers, access: DeviceAccess) -> bool {
        let about = |which: &Which| {
            which.kind == at.kind
                && which.major.is_none_or(|major| major == at.major)
                && which.minor.is_none_or(|minor| minor == at.minor)
        };
        let mut found = state.list.iter().filter(|(which, _)| about(which)).map(|(_, excepted)| excepted.0);
        match state.allow {
            true => !found.any(|denied| !denied.and(access).is_empty()),
            false => found.any(|allowed| allowed.contains(access)),
        }
    }

    /// A group of v1 to which lines are written.
    fn write(state: &mut Exceptions, writes: &[(&str, Line)]) {
        for (file, line) in writes {
            let allow = *file == ALLOW;
            let text = line.to_string();
            if text == "a" {
                *state = Exceptions { allow, list: BTreeMap::new() };
                continue;
            }
            let rule: DeviceRule = text.parse().unwrap();
            let which = Which { kind: rule.kind, major: rule.major, minor: rule.minor };
            if allow != state.allow {
                let access = state.list.entry(which).or_default();
                access.0 = access.0 | rule.access;
            } else if let Some(excepted) = state.list.get_mut(&which) {
                excepted.0 = excepted.0.without(rule.access);
            }
            state.list.retain(|_, excepted| !excepted.0.is_empty());
        }
    }

    fn access() -> impl Strategy<Value = DeviceAccess> {
        (1u8..8).prop_map(|bits| {
            let all = [READ, WRITE, DeviceAccess::MKNOD].into_iter().enumerate();
            all.filter(|(i, _)| bits & 1 << i != 0).fold(Excepted::default().0, |access, (_, one)| access | one)
        })
    }

    fn rule() -> impl Strategy<Value = DeviceRule> {
        let kind = prop_oneof![Just(DeviceKind::All), Just(DeviceKind::Char), Just(DeviceKind::Block)];
        let number = || prop_oneof![Just(None), (0u32..4).prop_map(Some)];
        (any::<bool>(), kind, number(), number(), access()).prop_map(|(allow, kind, major, minor, access)| DeviceRule {
            allow,
            kind,
            major,
            minor,
            access,
        })
    }

    fn rules() -> impl Strategy<Value = DeviceRules> {
        let given = (any::<bool>(), 0u32..4, 0u32..4, access()).prop_map(|(block, major, minor, access)| {
            let kind = if block { DeviceKind::Block } else { DeviceKind::Char };
            (Numbers { kind, major, minor }, access)
        });
        (prop::collection::vec(rule(), 0..8), prop::collection::vec(given, 0..3))
            .prop_map(|(explicit, given)| DeviceRules::new(&explicit, &given, None))
    }

    fn every(mut check: impl FnMut(Numbers, DeviceAccess)) {
        let accesses = ["r", "w", "rw", "m"].map(|text| {
            let rule: DeviceRule = format!("c *:* {text}").parse().unwrap();
            rule.access
        });
        for kind in [DeviceKind::Char, DeviceKind::Block] {
            for (major, minor) in (0..5).flat_map(|major| (0..5).map(move |minor| (major, minor))).chain([(136, 7)]) {
                accesses.iter().for_each(|&access| check(Numbers { kind, major, minor }, access));
            }
        }
    }

    proptest! {
        #[test]
        fn the_program_does_what_the_rules_say(rules in rules()) {
            let program = rules.program();
            every(|at, access| assert_eq!(run(&program, at, access), rules.allows(at, access), "{at:?} {access}: {rules:?}"));
        }

        #[test]
        fn v1_does_what_the_rules_say_or_refuses_them(first in rules(), then in rules()) {
            let mut state = Exceptions { allow: true, list: BTreeMap::new() };
            let Ok(before) = first.exceptions() else { return Ok(()) };
            write(&mut state, &before.writes(None));
            every(|at, access| assert_eq!(on_v1(&state, at, access), first.allows(at, access), "{at:?} {access}: {first:?}"));
            let Ok(after) = then.exceptions() else { return Ok(()) };
            write(&mut state, &after.writes(Some(&before)));
            every(|at, access| assert_eq!(on_v1(&state, at, access), then.allows(at, access), "{at:?} {access}: {then:?}"));
        }
    }

    fn of(explicit: &[&str], given: &[(Numbers, DeviceAccess)]) -> DeviceRules {
        let explicit: Vec<DeviceRule> = explicit.iter().map(|text| text.parse().unwrap()).collect();
        DeviceRules::new(&explicit, given, Some("device_rules".into()))
    }

    const LOOP: Numbers = Numbers { kind: DeviceKind::Block, major: 7, minor: 1 };

    #[test]
    fn lines_of_v1() {
        let lines = |rules: &DeviceRules, before: Option<&DeviceRules>| -> Vec<String> {
            let before = before.map(|before| before.exceptions().unwrap());
            let writes = rules.exceptions().unwrap().writes(before.as_ref());
            writes.into_iter().map(|(file, line)| format!("{}{line}", if file == ALLOW { '+' } else { '-' })).collect()
        };
        let standard = of(&[], &[]);
        assert_eq!(
            lines(&standard, None),
            [
                "-a",
                "+c *:* m",
                "+c 1:3 rwm",
                "+c 1:5 rwm",
                "+c 1:7 rwm",
                "+c 1:8 rwm",
                "+c 1:9 rwm",
                "+c 5:0 rwm",
                "+c 5:2 rwm",
                "+c 136:* rwm",
                "+b *:* m",
            ]
        );
        let read = of(&[], &[(LOOP, READ)]);
        assert_eq!(lines(&read, Some(&standard)), ["+b 7:1 rm"]);
        assert_eq!(lines(&standard, Some(&read)), ["-b 7:1 rm"]);
        assert_eq!(lines(&of(&["a"], &[(LOOP, READ)]), None), ["-b 7:1 w"]);
        assert_eq!(lines(&of(&["a"], &[]), Some(&standard)), ["+a"]);
        assert_eq!(lines(&of(&["deny a", "c 1:3 r"], &[]), None), ["-a", "+c 1:3 r"]);
        let error = of(&["c 1:* rw", "deny c 1:11 w"], &[]).exceptions().unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::Unsupported, Some("device_rules")));
        assert!(error.to_string().contains("cannot except c 1:11 from what holds for c 1:*"), "{error}");
    }

    #[test]
    fn everything_is_nothing_to_hold() {
        assert!(of(&["a"], &[]).denies_nothing() && DeviceRules::everything().denies_nothing());
        assert!(of(&["deny c 1:1 r", "allow a *:* rwm", "c 1:1 r"], &[]).denies_nothing());
        for rules in
            [of(&[], &[]), of(&["a *:* rw"], &[]), of(&["a"], &[(LOOP, READ)]), of(&["a", "deny c 1:1 r"], &[])]
        {
            assert!(!rules.denies_nothing(), "{rules:?}");
        }
    }

    /// As tools for BPF show it.
    #[test]
    fn a_program_in_full() {
        let shown: Vec<String> = of(&["deny a", "b 7:* r"], &[])
            .program()
            .iter()
            .map(|i| format!("{:02x} {:02x} {} {}", i.code, i.registers, i.offset, i.immediate))
            .collect();
        assert_eq!(
            shown,
            [
                "61 12 0 0",
                "bf 23 0 0",
                "77 03 0 16",
                "57 02 0 65535",
                "61 14 4 0",
                "61 15 8 0", // asked, kind, numbers
                "55 02 5 1",
                "55 04 4 7",
                "57 03 0 -3",
                "55 03 2 0",
                "b7 00 0 1",
                "95 00 0 0", // b 7:* r
                "45 03 1 7",
                "05 00 2 0",
                "b7 00 0 0",
                "95 00 0 0", // deny a
                "b7 00 0 0",
                "95 00 0 0",
            ]
        );
    }
}
