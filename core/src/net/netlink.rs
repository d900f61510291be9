//! Requests over netlink(7): several messages in one datagram, the answer waited for, the kernel's own words in errors.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use nix::sys::socket::{MsgFlags, NetlinkAddr, recvmsg, send};

use crate::error::{Error, ErrorKind, Result};
use crate::launch::HostOnly;
use crate::sys::rtnl;

/// A transaction of nftables is one message. Nothing is taken of it before it is sent.
const LONGEST: i32 = 16 << 20;
const NLMSG_ERROR: u16 = 2;
const HEADER: usize = 16;
/// Flags of an answer: the request is not repeated in it; attributes follow.
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
/// The attribute with the kernel's words.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// What a message is for, as errors tell it.
#[derive(Debug)]
struct Tag {
    step: &'static str,
    about: String,
}

/// Messages that are sent together. The kernel takes them one after the other, and goes on after one that it refuses.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Where each begins.
    starts: Vec<usize>,
    tags: Vec<Tag>,
    /// The one whose answer is asked for in any case.
    last: usize,
}

impl Batch {
    /// Adds a message. `flags`: NLM_F_CREATE and others.
    pub fn push<T: NetlinkSerializable>(&mut self, flags: u16, message: T, step: &'static str, about: &str) {
        self.last = self.tags.len();
        self.frame(flags, message, step, about);
    }

    /// Adds a message that is not answered, unless it is refused.
    pub fn frame<T: NetlinkSerializable>(&mut self, flags: u16, message: T, step: &'static str, about: &str) {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let start = self.bytes.len();
        self.bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut self.bytes[start..]);
        self.starts.push(start);
        self.tags.push(Tag { step, about: about.to_owned() });
    }

    /// For somebody else to send, who wants no answer.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Numbers them, from `first` on, and asks for the answer to the last one.
    fn seal(&mut self, first: u32) -> &[u8] {
        for (number, &start) in self.starts.iter().enumerate() {
            let sequence = first.wrapping_add(number as u32);
            self.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        }
        if let Some(&at) = self.starts.get(self.last) {
            let flags = u16::from_ne_bytes([self.bytes[at + 6], self.bytes[at + 7]]) | NLM_F_ACK;
            self.bytes[at + 6..at + 8].copy_from_slice(&flags.to_ne_bytes());
        }
        &self.bytes
    }
}

/// Of the kind of an attribute that has attributes itself.
pub(super) const NLA_F_NESTED: u16 = 1 << 15;

/// Attributes as nlattr(3) has them: length, kind, value, padding.
#[derive(Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl From<Vec<u8>> for Attributes {
    /// Behind a structure.
    fn from(front: Vec<u8>) -> Self {
        Self(front)
    }
}

impl From<Attributes> for Vec<u8> {
    fn from(attributes: Attributes) -> Self {
        attributes.0
    }
}

impl Attributes {
    /// Adds one.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("values of attributes are short");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Adds one that has attributes itself.
    pub fn nested(&mut self, kind: u16, build: impl FnOnce(&mut Self)) {
        let mut inside = Self::default();
        build(&mut inside);
        self.put(NLA_F_NESTED | kind, &inside.0);
    }
}

/// A socket of one network namespace, which is that in which it was made, wherever it is used.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: HostOnly,
    /// The next number. Held during a request: the next answer is this one's.
    sequence: Mutex<u32>,
}

/// A message of the kernel.
struct Answer<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

/// The messages of a datagram; what is not one ends it.
fn answers(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let word = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        let half = |at: usize| bytes.get(at..at + 2).map(|b| u16::from_ne_bytes([b[0], b[1]]));
        let length = word(0)? as usize;
        let payload = bytes.get(HEADER..length)?;
        let answer = Answer { kind: half(4)?, flags: half(6)?, sequence: word(8)?, payload };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(answer)
    })
}

/// Kinds and values of attributes; what is none ends them.
pub(super) fn attributes_of(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Without NLA_F_NESTED and NLA_F_NET_BYTEORDER.
    const NLA_TYPE_MASK: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Up to its NUL.
pub(super) fn text_of(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}

/// The kinds of the messages of a datagram.
pub(super) fn kinds(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    answers(bytes).map(|answer| answer.kind)
}

impl Answer<'_> {
    /// Of an error, or an acknowledgement.
    fn errno(&self) -> i32 {
        let number = self.payload.get(..4).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        number.and_then(i32::checked_neg).unwrap_or(libc::EBADMSG)
    }

    /// What the kernel says about it.
    fn words(&self) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        // Behind the errno comes the request's header, and unless it is capped all of the request.
        let request = self.payload.get(4..8).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]) as usize)?;
        let skipped = if self.flags & NLM_F_CAPPED != 0 { HEADER } else { request.next_multiple_of(4) };
        let mut attributes = attributes_of(self.payload.get(4 + skipped..)?);
        attributes.find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG).map(|(_, value)| text_of(value))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// `fd`: a socket of family AF_NETLINK.
    pub fn new(fd: OwnedFd) -> Self {
        // A kernel without one of them does without: fewer words, more bytes, other checks.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, libc::NETLINK_GET_STRICT_CHK] {
            let _ = rtnl::netlink_option(fd.as_fd(), option);
        }
        rtnl::long_messages(fd.as_fd(), LONGEST);
        Self { fd: HostOnly::new(fd), sequence: Mutex::new(1) }
    }

    /// A socket of the calling thread's network namespace.
    pub fn open(protocol: i32) -> Result<Self> {
        rtnl::netlink_socket(protocol).map(Self::new).map_err(|e| Error::io("socket AF_NETLINK", &e))
    }

    /// Its network namespace.
    pub fn namespace(&self) -> Result<OwnedFd> {
        rtnl::namespace_of(self.fd.as_fd()).map_err(|e| Error::io("ioctl SIOCGSKNS", &e))
    }

    /// The number of a device of its namespace.
    pub fn index_of(&self, device: &str) -> std::io::Result<u32> {
        rtnl::index_at(self.fd.as_fd(), device)
    }

    /// Sends the messages, which the kernel has dealt with when that is done: there is nothing to wait for.
    ///
    /// It has no time limit, because there is none to be had. The kernel does the work in the thread that sends, and waits for its own
    /// lock (rtnl_mutex) as long as others hold it; SO_SNDTIMEO is for room at the socket of another program (netlink_unicast() in the kernel's
    /// net/netlink/af_netlink.c). The answers are in the queue then, so that receiving does not wait at all.
    ///
    /// # Errors
    /// The first that was refused. The kernel may have taken those behind it.
    pub fn request(&self, mut batch: Batch) -> Result<()> {
        if batch.tags.is_empty() {
            return Ok(());
        }
        let mut sequence = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *sequence;
        *sequence = first.wrapping_add(batch.tags.len() as u32);
        let socket = self.fd.as_fd().as_raw_fd();
        let failed = |step, e: nix::Error| Error::os(step, e as i32);
        while let Err(e) = send(socket, batch.seal(first), MsgFlags::empty()) {
            if e != nix::Error::EINTR {
                return Err(failed("send to netlink", e));
            }
        }
        let mut refused: Option<(usize, i32, Option<String>)> = None;
        let mut done = false;
        let mut buffer = vec![0; 8 << 10];
        loop {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let (length, from) = match recvmsg::<NetlinkAddr>(socket, &mut parts, None, MsgFlags::MSG_DONTWAIT) {
                Ok(got) => (got.bytes, got.address),
                Err(nix::Error::EINTR) => continue,
                Err(nix::Error::EAGAIN) => break,
                Err(e) => return Err(failed("receive from netlink", e)),
            };
            // Anybody may write to a netlink socket that has a number; the kernel's is 0.
            if from.is_none_or(|from| from.pid() != 0) {
                continue;
            }
            for answer in answers(&buffer[..length]) {
                // What is left of an earlier request is not this one's.
                let number = answer.sequence.wrapping_sub(first) as usize;
                if number >= batch.tags.len() || answer.kind != NLMSG_ERROR {
                    continue;
                }
                done |= number == batch.last;
                let errno = answer.errno();
                if errno != 0 && refused.as_ref().is_none_or(|(other, ..)| number < *other) {
                    refused = Some((number, errno, answer.words()));
                }
            }
        }
        match refused {
            Some((number, errno, words)) => Err(batch.explain(number, errno, words)),
            None if done => Ok(()),
            None => Err(batch.explain(batch.last, libc::EPROTO, Some("nothing".to_owned()))),
        }
    }
}

impl Socket {
    /// What the kernel answers to one question: the payloads. `flags`: NLM_F_DUMP for all there are. As long as [`request`](Self::request).
    ///
    /// # Errors
    /// What it says instead; EBUSY for a list that has changed each time it was read.
    pub fn ask<T: NetlinkSerializable>(
        &self,
        flags: u16,
        question: T,
        step: &'static str,
        about: &str,
    ) -> Result<Vec<Vec<u8>>> {
        const NLMSG_DONE: u16 = 3;
        const NLM_F_DUMP_INTR: u16 = 0x10;
        /// Of one list. It takes a change in the middle of each, which is some microseconds.
        const READINGS: u32 = 100;
        let mut batch = Batch::default();
        batch.push(flags, question, step, about);
        let mut sequence = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = self.fd.as_fd().as_raw_fd();
        let mut buffer = vec![0; 32 << 10];
        'again: for _ in 0..READINGS {
            let number = *sequence;
            *sequence = number.wrapping_add(1);
            while let Err(e) = send(socket, batch.seal(number), MsgFlags::empty()) {
                if e != nix::Error::EINTR {
                    return Err(Error::os("send to netlink", e as i32));
                }
            }
            let (mut found, mut interrupted) = (Vec::new(), false);
            loop {
                let mut parts = [IoSliceMut::new(&mut buffer)];
                // The kernel has answered, or does so while it is read.
                let (length, from) = match recvmsg::<NetlinkAddr>(socket, &mut parts, None, MsgFlags::MSG_DONTWAIT) {
                    Ok(got) => (got.bytes, got.address),
                    Err(nix::Error::EINTR) => continue,
                    Err(e) => return Err(Error::os("receive from netlink", e as i32)),
                };
                if from.is_none_or(|from| from.pid() != 0) {
                    continue;
                }
                for answer in answers(&buffer[..length]).filter(|answer| answer.sequence == number) {
                    interrupted |= answer.flags & NLM_F_DUMP_INTR != 0;
                    match answer.kind {
                        NLMSG_ERROR if answer.errno() != 0 => {
                            return Err(batch.explain(0, answer.errno(), answer.words()));
                        }
                        // What changed meanwhile is read once more.
                        NLMSG_DONE if interrupted => continue 'again,
                        NLMSG_ERROR | NLMSG_DONE => return Ok(found),
                        _ => found.push(answer.payload.to_vec()),
                    }
                }
            }
        }
        Err(batch
            .explain(0, libc::EBUSY, None)
            .with_detail(format!("it has changed while it was read, {READINGS} times")))
    }
}

impl Batch {
    fn explain(&self, number: usize, errno: i32, words: Option<String>) -> Error {
        let tag = &self.tags[number];
        let error = Error::os(tag.step, errno);
        let error = if tag.about.is_empty() { error } else { error.with_path(tag.about.clone()) };
        // A kind of device, a discipline or an expression that the kernel has not: ENOENT from nftables, too.
        let error = match errno {
            libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT => error.with_kind(ErrorKind::Unsupported),
            _ => error,
        };
        match words {
            Some(words) if !words.is_empty() => error.with_detail(format!("the kernel says: {words}")),
            _ => error,
        }
    }
}

#[cfg(any(fuzzing, test))]
pub(super) fn fuzz(bytes: &[u8]) {
    fn all(bytes: &[u8], depth: usize) {
        for (_, value) in attributes_of(bytes) {
            text_of(value);
            if depth < 4 {
                all(value, depth + 1);
            }
        }
    }
    for answer in answers(bytes) {
        answer.errno();
        answer.words();
        all(answer.payload, 0);
    }
    kinds(bytes).for_each(drop);
}

/// What is encoded: whole messages, one behind the other, of attributes that fill them.
#[cfg(any(fuzzing, test))]
impl Batch {
    /// `attributes`: where those of a message of this kind begin, or nothing is known of it.
    pub(super) fn assert_sound(mut self, attributes: impl Fn(u16) -> Option<usize>) {
        let (count, starts) = (self.tags.len(), self.starts.clone());
        let bytes = self.seal(7).to_owned();
        let found: Vec<Answer<'_>> = answers(&bytes).collect();
        assert_eq!((found.len(), starts.len()), (count, count));
        let mut end = 0;
        for (number, (start, answer)) in starts.into_iter().zip(&found).enumerate() {
            assert_eq!((start, start % 4), (end, 0));
            end = start + (HEADER + answer.payload.len()).next_multiple_of(4);
            assert_eq!((answer.sequence, answer.flags & NLM_F_REQUEST), (7 + number as u32, NLM_F_REQUEST));
            if let Some(front) = attributes(answer.kind) {
                assert_filled(&answer.payload[front..]);
            }
        }
        assert_eq!(end, bytes.len());
        let asked: Vec<_> = found.iter().enumerate().filter(|(_, one)| one.flags & NLM_F_ACK != 0).collect();
        assert!(count == 0 || asked.iter().any(|(number, _)| *number == self.last));
    }
}

/// Attributes to the last byte, and so are those in them that say that they have some.
#[cfg(any(fuzzing, test))]
pub(super) fn assert_filled(bytes: &[u8]) {
    let mut at = 0;
    for (kind, value) in attributes_of(bytes) {
        let word = u16::from_ne_bytes([bytes[at + 2], bytes[at + 3]]);
        assert_eq!(word & 0x3fff, kind);
        if word & NLA_F_NESTED != 0 {
            assert_filled(value);
        }
        let end = at + 4 + value.len();
        at = end.next_multiple_of(4);
        assert!(bytes[end..at.min(bytes.len())].iter().all(|byte| *byte == 0), "the padding is zero");
    }
    assert_eq!(at, bytes.len());
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::{LinkAttribute, LinkMessage};
    use proptest::prelude::*;

    use super::*;

    fn by_name(name: &str) -> RouteNetlinkMessage {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        RouteNetlinkMessage::DelLink(link)
    }

    #[test]
    fn the_kernel_answers_for_the_message_that_it_refuses() {
        let socket = Socket::open(libc::NETLINK_ROUTE).unwrap();
        let mut batch = Batch::default();
        batch.push(0, by_name("rf-none"), "delete device", "rf-none");
        batch.push(0, by_name("rf-other"), "delete device", "rf-other");
        let error = socket.request(batch).unwrap_err();
        // Who has no rights is told so before the kernel looks for it.
        assert!(matches!(error.errno(), libc::ENODEV | libc::EPERM), "{error}");
        assert_eq!((error.step(), error.path()), (Some("delete device"), Some("rf-none")));
        socket.request(Batch::default()).unwrap();
    }

    #[test]
    fn messages_are_aligned_and_numbered() {
        let mut batch = Batch::default();
        for name in ["a", "ab", "abc", "abcd"] {
            batch.push(0, by_name(name), "delete device", name);
        }
        let bytes = batch.seal(u32::MAX).to_owned();
        let found: Vec<(u32, u16)> = answers(&bytes).map(|answer| (answer.sequence, answer.flags)).collect();
        assert_eq!(found.iter().map(|one| one.0).collect::<Vec<_>>(), [u32::MAX, 0, 1, 2]);
        assert_eq!(found.iter().filter(|one| one.1 & NLM_F_ACK != 0).count(), 1);
    }

    fn error(capped: bool, words: &[u8]) -> Vec<u8> {
        let request = if capped { 16 } else { 24 };
        let mut payload = (-libc::EBUSY).to_ne_bytes().to_vec();
        payload.extend_from_slice(&24u32.to_ne_bytes());
        payload.resize(4 + request, 0);
        payload.extend_from_slice(&(4 + words.len() as u16).to_ne_bytes());
        payload.extend_from_slice(&NLMSGERR_ATTR_MSG.to_ne_bytes());
        payload.extend_from_slice(words);
        let mut message = ((HEADER + payload.len()) as u32).to_ne_bytes().to_vec();
        message.extend_from_slice(&NLMSG_ERROR.to_ne_bytes());
        message.extend_from_slice(&(NLM_F_ACK_TLVS | if capped { NLM_F_CAPPED } else { 0 }).to_ne_bytes());
        message.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0]);
        message.extend(payload);
        message
    }

    #[test]
    fn a_number_that_is_no_errno() {
        let mut bytes = error(true, b"words");
        bytes[HEADER..HEADER + 4].copy_from_slice(&i32::MIN.to_ne_bytes());
        assert_eq!(answers(&bytes).next().unwrap().errno(), libc::EBADMSG);
    }

    #[test]
    fn the_kernels_words() {
        for capped in [true, false] {
            let bytes = error(capped, b"Device is busy\0");
            let found: Vec<_> = answers(&bytes).map(|answer| (answer.errno(), answer.words())).collect();
            assert_eq!(found, [(libc::EBUSY, Some("Device is busy".to_owned()))]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answers_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..40, byte: u8) {
            answers(&bytes).for_each(|answer| {
                let _ = (answer.errno(), answer.words());
            });
            let mut torn = error(true, b"words");
            if let Some(one) = torn.get_mut(at) {
                *one = byte;
            }
            answers(&torn).for_each(|answer| {
                let _ = (answer.errno(), answer.words());
            });
        }
    }
}
