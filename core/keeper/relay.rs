//! The relay of a container's ports: it carries connections between listeners of the host and the container's loopback.
//!
//! A task of its own, in the container's network namespace and beside its processes in its control group, without
//! capabilities, under a filter of its own. It resolves no path, allocates nothing and holds nothing but sockets.
//!
//! TCP: two sockets for each connection. Bytes are spliced through a pipe, which a direction has only while bytes are in it;
//! where there is none, they are sent from where they lie and taken off the queue behind that. So a reader that stops stops
//! its own writer and nobody else. The end of one direction is passed on as that; a reset as a reset.
//!
//! UDP: one connected socket for each address of a client, as far as there is room, for a minute after its last datagram.

use crate::confine;
use crate::interp::{Plan, send_record};
use crate::nr;
use crate::proto::{MAGIC, Record, RelayEntry, record, relay, slot};
use crate::sys::{self, Event, recv_from};

/// Connections at once; the table is touched only as far as it was ever filled.
const CONNECTIONS: usize = 32 * 1024;
/// Clients of UDP at once.
const CLIENTS: usize = 1024;
/// How long a client of UDP may be silent.
const IDLE_MS: u64 = 60_000;
/// How often idle clients are looked for.
const SWEEP_MS: u64 = 5_000;
/// How long nothing is accepted after the kernel had no room for a connection.
const PAUSE_MS: u64 = 100;
/// Pipes that wait for the next use. Each is memory of the kernel only while bytes are in it.
const SPARE_PIPES: usize = 32;
/// Descriptors that are not for connections: listeners, pipes, and some.
const OTHERS: u64 = 512;
/// Bytes of one splice: what an ordinary pipe holds.
const CHUNK: usize = 64 * 1024;
/// Chunks that one connection may move before it is another's turn.
const TURN: u32 = 16;
/// Connections that are taken from one listener before others have their turn.
const ACCEPTS: u32 = 64;
const EVENTS: usize = 256;
const NOBODY: u32 = u32::MAX;

/// What an event is about, in its upper half.
const LISTENER: u64 = 1;
const CLIENT: u64 = 2;
const LIFELINE: u64 = 3;
const SIDE: u64 = 4;

const EPOLLIN: u32 = 1;
const EPOLLOUT: u32 = 4;
const EPOLLERR: u32 = 8;
const EPOLLHUP: u32 = 0x10;
const EPOLLRDHUP: u32 = 0x2000;
const EPOLLET: u32 = 1 << 31;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOCK_STREAM: i32 = 1;
const SOCK_DGRAM: i32 = 2;
const SOCK_FLAGS: i32 = 0o2004000;
const MSG_PEEK: i32 = 2;
const MSG_DONTWAIT: i32 = 0x40;
const MSG_NOSIGNAL: i32 = 0x4000;

const AGAIN: i64 = -(nr::EAGAIN as i64);

#[derive(Clone, Copy)]
struct Address {
    bytes: [u8; 28],
    len: u32,
}

impl Address {
    /// The container's loopback.
    fn loopback(v6: bool, port: u16) -> Address {
        let mut bytes = [0u8; 28];
        let family = if v6 { AF_INET6 } else { AF_INET };
        bytes[..2].copy_from_slice(&family.to_ne_bytes());
        bytes[2..4].copy_from_slice(&port.to_be_bytes());
        if v6 {
            bytes[23] = 1;
        } else {
            bytes[4..8].copy_from_slice(&[127, 0, 0, 1]);
        }
        Address { bytes, len: if v6 { 28 } else { 16 } }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.bytes.len().min(self.len as usize)]
    }
}

/// One end of a connection: 0 is the host's, 1 the container's.
#[derive(Clone, Copy)]
struct Side {
    fd: i32,
    readable: bool,
    writable: bool,
    /// Its peer sends nothing more.
    ended: bool,
    /// Nothing more is sent to it.
    shut: bool,
    /// What was taken from it and is not sent yet: how much, and the pipe.
    held: u32,
    pipe: [i32; 2],
}

#[derive(Clone, Copy)]
struct Connection {
    sides: [Side; 2],
    used: bool,
    connecting: bool,
    v6: bool,
    port: u16,
    /// In the list of those that could go on.
    queued: bool,
    /// In that list, or in the one of those that are free.
    next: u32,
}

#[derive(Clone, Copy)]
struct Client {
    /// -1 is a free entry.
    fd: i32,
    v6: bool,
    listener: u32,
    address: Address,
    last: u64,
}

struct Relay {
    epoll: i32,
    /// The plan's slots and entries stay mapped: they name the listeners.
    listeners: [(i32, RelayEntry); relay::MAX],
    count: usize,
    /// UDP: whether the container's service was last seen on ::1.
    v6: [bool; relay::MAX],
    /// These two are of zeroes that were never touched, from `ever_used` and `clients_used` on.
    table: &'static mut [Connection],
    ever_used: u32,
    free: u32,
    /// Closed since the last look at events, some of which may still be about them.
    closed: u32,
    open: u32,
    most: u32,
    first: u32,
    last: u32,
    clients: &'static mut [Client],
    clients_used: usize,
    clients_open: usize,
    sweep_at: u64,
    spare: [[i32; 2]; SPARE_PIPES],
    spares: usize,
    paused_until: u64,
}

/// Says STARTED on the plan's channel and serves; ends with the container.
// Not inlined, as `Relay::datagrams`.
#[inline(never)]
pub fn run(plan: &Plan, entries: u64, count: u64) -> i64 {
    let open = raise_descriptors();
    let table = sys::map(CONNECTIONS * core::mem::size_of::<Connection>(), false);
    let clients = sys::map(CLIENTS * core::mem::size_of::<Client>(), false);
    let epoll = sys::epoll_create();
    for r in [table, clients, epoll] {
        if r < 0 {
            return r;
        }
    }
    // SAFETY: two whole mappings, of nobody else's, which are never unmapped; zeroes are a `Connection` and a `Client`.
    let (table, clients) = unsafe {
        (
            core::slice::from_raw_parts_mut(table as *mut Connection, CONNECTIONS),
            core::slice::from_raw_parts_mut(clients as *mut Client, CLIENTS),
        )
    };
    let mut relay = Relay {
        epoll: epoll as i32,
        listeners: [(-1, RelayEntry { slot: 0, kind: 0, port: 0 }); relay::MAX],
        count: relay::MAX.min(count as usize),
        v6: [false; relay::MAX],
        table,
        ever_used: 0,
        free: NOBODY,
        closed: NOBODY,
        open: 0,
        most: (open.saturating_sub(OTHERS) / 2).clamp(16, CONNECTIONS as u64) as u32,
        first: NOBODY,
        last: NOBODY,
        clients,
        clients_used: 0,
        clients_open: 0,
        sweep_at: 0,
        spare: [[-1; 2]; SPARE_PIPES],
        spares: 0,
        paused_until: 0,
    };
    for i in 0..relay.count {
        let entry = plan.relay_entry(entries, i as u64);
        let fd = plan.slot(entry.slot) as i32;
        relay.listeners[i] = (fd, entry);
        let r = relay.watch(fd, EPOLLIN, LISTENER << 32 | i as u64);
        if r < 0 {
            return r;
        }
    }
    let r = relay.watch(plan.slot(slot::LIFELINE) as i32, EPOLLIN, LIFELINE << 32);
    if r < 0 {
        return r;
    }
    relay.let_go(plan);
    let no_capabilities = confine::keep_capabilities(0);
    if no_capabilities < 0 {
        return no_capabilities;
    }
    confine::allow_only(&[
        nr::EPOLL_PWAIT,
        nr::EPOLL_CTL,
        nr::ACCEPT4,
        nr::SOCKET,
        nr::CONNECT,
        nr::SPLICE,
        nr::PIPE2,
        nr::CLOSE,
        nr::SHUTDOWN,
        nr::SETSOCKOPT,
        nr::GETSOCKOPT,
        nr::RECVFROM,
        nr::SENDTO,
        nr::SENDMSG,
        nr::CLOCK_GETTIME,
        nr::EXIT_GROUP,
    ]);
    plan.started().set(1);
    let channel = plan.slot(slot::CHANNEL) as i32;
    send_record(channel, &Record { magic: MAGIC, kind: record::STARTED, ..Record::default() }, -1);
    sys::close(channel);
    loop {
        relay.turn()
    }
}

/// As many descriptors as this process may have.
fn raise_descriptors() -> u64 {
    const RLIMIT_NOFILE: u32 = 7;
    let mut limit = [1024u64, 1024];
    sys::get_limit(RLIMIT_NOFILE, &mut limit);
    limit[0] = limit[1];
    sys::set_limit(RLIMIT_NOFILE, &limit);
    limit[1]
}

impl Relay {
    /// Closes what the plan brought for the way here: the keeper's /proc, the container's pid 1, files of its groups.
    fn let_go(&self, plan: &Plan) {
        let kept = [slot::CHANNEL, slot::LIFELINE].map(|index| plan.slot(index) as i32);
        for index in 0..plan.nslots().get() {
            let fd = plan.slot(index) as i32;
            if fd > 2
                && !kept.contains(&fd)
                && !self.listeners[..self.count].iter().any(|(listener, _)| *listener == fd)
            {
                sys::close(fd);
            }
        }
    }

    fn watch(&self, fd: i32, events: u32, data: u64) -> i64 {
        const EPOLL_CTL_ADD: i32 = 1;
        sys::epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &Event { events, data })
    }

    fn watch_listeners(&self, events: u32) {
        const EPOLL_CTL_MOD: i32 = 3;
        for (i, (fd, entry)) in self.listeners[..self.count].iter().enumerate() {
            if entry.kind == relay::UDP {
                continue;
            }
            let event = Event { events, data: LISTENER << 32 | i as u64 };
            sys::epoll_ctl(self.epoll, EPOLL_CTL_MOD, *fd, &event);
        }
    }

    fn connection(&mut self, index: u32) -> &mut Connection {
        &mut self.table[index as usize]
    }

    fn client(&mut self, index: usize) -> &mut Client {
        &mut self.clients[index]
    }

    fn turn(&mut self) {
        let timeout: i64 = if self.first != NOBODY {
            0
        } else if self.paused_until != 0 {
            PAUSE_MS as i64
        } else if self.clients_open > 0 {
            SWEEP_MS as i64
        } else {
            -1
        };
        let mut events = [Event { events: 0, data: 0 }; EVENTS];
        let n = sys::epoll_wait(self.epoll, &mut events, timeout);
        for event in &events[..n.max(0) as usize] {
            let (flags, data) = (event.events, event.data);
            let index = data as u32;
            match data >> 32 {
                LISTENER => {
                    let (fd, entry) = self.listeners[index as usize];
                    if entry.kind == relay::UDP { self.datagrams(fd, index) } else { self.accept(fd, entry.port) }
                }
                CLIENT => self.answers(index as usize),
                LIFELINE => sys::exit(0),
                side => self.happened(index, (side - SIDE) as usize, flags),
            }
        }
        while self.closed != NOBODY {
            let (index, free) = (self.closed, self.free);
            self.closed = self.connection(index).next;
            self.connection(index).next = free;
            self.free = index;
        }
        if self.paused_until != 0 && sys::now_ms() >= self.paused_until {
            self.paused_until = 0;
            self.watch_listeners(EPOLLIN);
        }
        if self.clients_open > 0 {
            self.sweep();
        }
        // As many as are in the list now: those that come back into it have their turn after the next look at events.
        let end = self.last;
        while self.first != NOBODY {
            let index = self.first;
            self.first = self.connection(index).next;
            if self.first == NOBODY {
                self.last = NOBODY;
            }
            self.connection(index).queued = false;
            self.pump(index);
            if index == end {
                break;
            }
        }
    }

    fn queue(&mut self, index: u32) {
        let connection = self.connection(index);
        if connection.queued {
            return;
        }
        connection.queued = true;
        connection.next = NOBODY;
        if self.last == NOBODY {
            self.first = index;
        } else {
            self.table[self.last as usize].next = index;
        }
        self.last = index;
    }

    /// The kernel has no room: what waits in the backlog waits on.
    fn pause(&mut self) {
        self.paused_until = sys::now_ms() + PAUSE_MS;
        self.watch_listeners(0);
    }

    fn accept(&mut self, listener: i32, port: u16) {
        for _ in 0..ACCEPTS {
            if self.open >= self.most {
                return self.pause();
            }
            let fd = sys::accept(listener, SOCK_FLAGS as u64);
            if fd < 0 {
                const GONE: [i64; 3] = [AGAIN, -103, -(nr::EINTR as i64)];
                if !GONE.contains(&fd) {
                    self.pause();
                }
                return;
            }
            no_delay(fd as i32);
            let index = if self.free != NOBODY {
                let index = self.free;
                self.free = self.connection(index).next;
                index
            } else {
                self.ever_used += 1;
                self.ever_used - 1
            };
            let side =
                |fd| Side { fd, readable: false, writable: false, ended: false, shut: false, held: 0, pipe: [-1; 2] };
            *self.connection(index) = Connection {
                sides: [side(fd as i32), side(-1)],
                used: true,
                connecting: true,
                v6: false,
                port,
                queued: false,
                next: NOBODY,
            };
            self.open += 1;
            if !self.watch_side(index, 0) || !self.connect(index) {
                self.reset(index);
            }
        }
    }

    fn watch_side(&self, index: u32, side: usize) -> bool {
        let fd = self.table[index as usize].sides[side].fd;
        let all = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
        self.watch(fd, all, (SIDE + side as u64) << 32 | u64::from(index)) >= 0
    }

    /// Begins a connection to the container's loopback.
    fn connect(&mut self, index: u32) -> bool {
        let Connection { v6, port, .. } = *self.connection(index);
        let family = if v6 { AF_INET6 } else { AF_INET };
        let fd = sys::socket(family, SOCK_STREAM | SOCK_FLAGS);
        if fd < 0 {
            return false;
        }
        self.connection(index).sides[1].fd = fd as i32;
        no_delay(fd as i32);
        let to = Address::loopback(v6, port);
        let r = sys::connect(fd as i32, to.as_bytes());
        const EINPROGRESS: i64 = -115;
        if r < 0 && r != EINPROGRESS {
            return self.connect_otherwise(index);
        }
        self.watch_side(index, 1)
    }

    /// The service may listen on ::1 alone.
    fn connect_otherwise(&mut self, index: u32) -> bool {
        let connection = self.connection(index);
        sys::close(connection.sides[1].fd);
        connection.sides[1].fd = -1;
        if connection.v6 {
            return false;
        }
        connection.v6 = true;
        self.connect(index)
    }

    fn happened(&mut self, index: u32, side: usize, flags: u32) {
        let connection = self.connection(index);
        // It may have been closed by an event before this one.
        if !connection.used {
            return;
        }
        if connection.connecting && side == 1 {
            if sys::socket_error(connection.sides[1].fd) != 0 {
                if !self.connect_otherwise(index) {
                    self.reset(index);
                }
                return;
            }
            if flags & EPOLLOUT == 0 {
                return;
            }
            connection.connecting = false;
        } else if flags & EPOLLERR != 0 {
            return self.reset(index);
        }
        let end = &mut self.connection(index).sides[side];
        end.readable |= flags & (EPOLLIN | EPOLLRDHUP | EPOLLHUP) != 0;
        end.writable |= flags & (EPOLLOUT | EPOLLHUP) != 0;
        self.queue(index);
    }

    fn pump(&mut self, index: u32) {
        let connection = self.connection(index);
        if !connection.used || connection.connecting {
            return;
        }
        let mut left = TURN;
        for from in 0..2 {
            while left > 0 {
                match self.carry(index, from) {
                    Some(true) => left -= 1,
                    Some(false) => break,
                    None => return self.reset(index),
                }
            }
        }
        let sides = &self.connection(index).sides;
        if sides[0].shut && sides[1].shut {
            self.close(index);
        } else if left == 0 {
            self.queue(index);
        }
    }

    /// Moves bytes from one side to the other: `Some(true)` when there may be more, `None` when a side has failed.
    fn carry(&mut self, index: u32, from: usize) -> Option<bool> {
        const SPLICE: u32 = 1 | 2;
        let [source, sink] = [from, 1 - from].map(|side| self.connection(index).sides[side]);
        if source.held > 0 {
            if !sink.writable {
                return Some(false);
            }
            let n = sys::splice(source.pipe[0], sink.fd, source.held as usize, SPLICE);
            if n == AGAIN {
                self.connection(index).sides[1 - from].writable = false;
                return Some(false);
            }
            if n <= 0 {
                return None;
            }
            let here = &mut self.connection(index).sides[from];
            here.held = here.held.saturating_sub(n as u32);
            if here.held == 0 {
                self.give_pipe(source.pipe);
                self.connection(index).sides[from].pipe = [-1; 2];
            }
            return Some(true);
        }
        if source.ended {
            if !sink.shut {
                const SHUT_WR: i32 = 1;
                self.connection(index).sides[1 - from].shut = true;
                sys::shutdown(sink.fd, SHUT_WR);
            }
            return Some(false);
        }
        if !source.readable || !sink.writable {
            return Some(false);
        }
        let pipe = self.take_pipe();
        if pipe[0] >= 0 {
            let n = sys::splice(source.fd, pipe[1], CHUNK, SPLICE);
            if n > 0 {
                let end = &mut self.connection(index).sides[from];
                end.held = n as u32;
                end.pipe = pipe;
                return Some(true);
            }
            self.give_pipe(pipe);
            if n != AGAIN && n != 0 {
                return None;
            }
        }
        // splice(2) stops before urgent data for ever, and takes it for the end: it has the last word on neither.
        let n = copy(source.fd, sink.fd);
        match n {
            0 => {
                self.connection(index).sides[from].ended = true;
                Some(true)
            }
            SINK_IS_FULL => {
                self.connection(index).sides[1 - from].writable = false;
                Some(false)
            }
            AGAIN => {
                self.connection(index).sides[from].readable = false;
                Some(false)
            }
            n if n < 0 => None,
            _ => Some(true),
        }
    }

    /// An empty pipe, or -1 when no more can be made.
    fn take_pipe(&mut self) -> [i32; 2] {
        if self.spares > 0 {
            self.spares -= 1;
            return self.spare[self.spares];
        }
        let mut pipe = [-1i32; 2];
        if sys::pipe(&mut pipe, SOCK_FLAGS as u64) < 0 { [-1; 2] } else { pipe }
    }

    fn give_pipe(&mut self, pipe: [i32; 2]) {
        if self.spares < SPARE_PIPES {
            self.spare[self.spares] = pipe;
            self.spares += 1;
        } else {
            pipe.iter().for_each(|&fd| sys::close(fd));
        }
    }

    /// Ends both sides as a failure is ended, so that nobody takes what came so far for all.
    fn reset(&mut self, index: u32) {
        const SO_LINGER: i32 = 13;
        for side in &self.connection(index).sides {
            if side.fd >= 0 {
                sys::set_option(side.fd, sys::SOL_SOCKET, SO_LINGER, &[1, 0]);
            }
        }
        self.close(index);
    }

    fn close(&mut self, index: u32) {
        let connection = self.connection(index);
        if !connection.used {
            return;
        }
        for side in &connection.sides {
            for fd in [side.fd, side.pipe[0], side.pipe[1]] {
                if fd >= 0 {
                    sys::close(fd);
                }
            }
        }
        connection.used = false;
        if connection.queued {
            self.unqueue(index);
        }
        self.open -= 1;
        let closed = self.closed;
        self.connection(index).next = closed;
        self.closed = index;
    }

    /// Takes one out of the list of those that could go on.
    fn unqueue(&mut self, index: u32) {
        let (mut before, mut at) = (NOBODY, self.first);
        while at != NOBODY && at != index {
            (before, at) = (at, self.connection(at).next);
        }
        let next = self.connection(index).next;
        if before == NOBODY {
            self.first = next;
        } else {
            self.connection(before).next = next;
        }
        if self.last == index {
            self.last = before;
        }
        self.connection(index).queued = false;
    }

    /// What clients of UDP have sent.
    // Not inlined: entering a function touches all pages of its frame, and in a caller's frame these would be resident in each
    // process that runs a plan, every container's init among them.
    #[inline(never)]
    fn datagrams(&mut self, listener: i32, number: u32) {
        let mut data = [0u8; 65536];
        for _ in 0..ACCEPTS {
            let mut from = Address { bytes: [0; 28], len: 28 };
            let n = recv_from(listener, &mut data, MSG_DONTWAIT, &mut from.bytes, &mut from.len);
            let Some(data) = received(&data, n) else { return };
            from.len = from.len.min(28);
            let Some(index) = self.client_of(number, &from) else { continue };
            let client = self.client(index);
            client.last = sys::now_ms();
            let sent = sys::send_to(client.fd, data, MSG_DONTWAIT | MSG_NOSIGNAL, &[]);
            self.refused(index, sent);
        }
    }

    fn client_of(&mut self, listener: u32, address: &Address) -> Option<usize> {
        let (mut free, mut oldest) = (None, 0);
        for (i, client) in self.clients[..self.clients_used].iter().enumerate() {
            let least: &Client = &self.clients[oldest];
            if client.fd < 0 {
                free = Some(i);
            } else if client.listener == listener && client.address.as_bytes() == address.as_bytes() {
                return Some(i);
            } else if least.fd < 0 || client.last < least.last {
                oldest = i;
            }
        }
        let index = match free {
            Some(index) => index,
            None if self.clients_used < CLIENTS => {
                self.clients_used += 1;
                self.clients_used - 1
            }
            None => {
                self.forget_client(oldest);
                oldest
            }
        };
        self.client(index).fd = -1;
        let port = self.listeners[listener as usize].1.port;
        let mut v6 = self.v6[listener as usize];
        let mut fd = self.datagram_socket(v6, port, index);
        if fd < 0 && v6 {
            // There is no IPv6 inside.
            self.v6[listener as usize] = false;
            v6 = false;
            fd = self.datagram_socket(v6, port, index);
        }
        if fd < 0 {
            return None;
        }
        *self.client(index) = Client { fd, v6, listener, address: *address, last: 0 };
        self.clients_open += 1;
        Some(index)
    }

    /// A socket that is connected to the container's loopback; negative when that cannot be had.
    fn datagram_socket(&self, v6: bool, port: u16, index: usize) -> i32 {
        let family = if v6 { AF_INET6 } else { AF_INET };
        let fd = sys::socket(family, SOCK_DGRAM | SOCK_FLAGS) as i32;
        if fd < 0 {
            return fd;
        }
        let to = Address::loopback(v6, port);
        if sys::connect(fd, to.as_bytes()) < 0 || self.watch(fd, EPOLLIN, CLIENT << 32 | index as u64) < 0 {
            sys::close(fd);
            return -1;
        }
        fd
    }

    /// Nobody is there: the next datagram tries the other loopback address.
    fn refused(&mut self, index: usize, result: i64) {
        const ECONNREFUSED: i64 = -111;
        if result == ECONNREFUSED {
            let Client { listener, v6, .. } = *self.client(index);
            self.v6[listener as usize] = !v6;
            self.forget_client(index);
        }
    }

    fn forget_client(&mut self, index: usize) {
        let client = self.client(index);
        if client.fd >= 0 {
            sys::close(client.fd);
            client.fd = -1;
            self.clients_open -= 1;
        }
    }

    /// What the container answers to a client of UDP.
    // Not inlined, as above.
    #[inline(never)]
    fn answers(&mut self, index: usize) {
        let mut data = [0u8; 65536];
        for _ in 0..ACCEPTS {
            let fd = self.client(index).fd;
            if fd < 0 {
                return;
            }
            let n = sys::recv(fd, &mut data, MSG_DONTWAIT);
            let Some(data) = received(&data, n) else { return self.refused(index, n) };
            self.client(index).last = sys::now_ms();
            let Client { listener, address, .. } = *self.client(index);
            let listener = self.listeners[listener as usize].0;
            sys::send_to(listener, data, MSG_DONTWAIT | MSG_NOSIGNAL, address.as_bytes());
        }
    }

    fn sweep(&mut self) {
        let now = sys::now_ms();
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now + SWEEP_MS;
        for index in 0..self.clients_used {
            let client = self.client(index);
            if client.fd >= 0 && client.last + IDLE_MS <= now {
                self.forget_client(index);
            }
        }
    }
}

/// So many bytes of a buffer as the kernel said; none after a failure.
fn received(data: &[u8], n: i64) -> Option<&[u8]> {
    usize::try_from(n).ok().and_then(|n| data.get(..n))
}

/// `copy` found no room at the sink.
const SINK_IS_FULL: i64 = i64::MIN;

/// Sends what waits at the source without taking it, then takes what was sent. As splice: 0 at the end.
// Not inlined, as above.
#[inline(never)]
fn copy(source: i32, sink: i32) -> i64 {
    let mut data = [0u8; 16 * 1024];
    let n = sys::recv(source, &mut data, MSG_PEEK | MSG_DONTWAIT);
    if n <= 0 {
        return n;
    }
    let sent = sys::send_to(sink, received(&data, n).unwrap_or_default(), MSG_DONTWAIT | MSG_NOSIGNAL, &[]);
    if sent == AGAIN {
        return SINK_IS_FULL;
    }
    if sent <= 0 {
        return sent.min(-1);
    }
    sys::discard(source, sent)
}

fn no_delay(fd: i32) {
    const IPPROTO_TCP: i32 = 6;
    const TCP_NODELAY: i32 = 1;
    sys::set_option(fd, IPPROTO_TCP, TCP_NODELAY, &[1]);
}
