//! Limits the connections of acc's own edge: how many one client may have, and which idle ones are
//! closed (evicted) when one client, or all together, have too many for acc's limit of open files.
//! On HTTP/2, requests are counted beside their connection. Requests through a trusted proxy are
//! counted instead of its connection.
//!
//! It never closes a connection with a current request, nor one whose response may not have been
//! sent completely: if there are no others, the new connection is refused.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use ipnet::IpNet;
use rustix::process::{Resource, getrlimit};
use tokio_util::sync::CancellationToken;

use super::connection_state::{ClientLoad, ConnectionState};
use super::failure::ProxyFailure;
use crate::driver::edge::Gate;
use crate::service::admission::Ticket;
use crate::service::admission::clients::limited;

/// Open files that are reserved for starts, logs and connections to instances: an eighth of all,
/// between these.
const RESERVED_FILES: (u64, u64) = (64, 1024);

const TOO_MANY_OF_CLIENT: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\nretry-after: 2\r\nconnection: close\r\ncontent-length: 135\r\n\r\n{\"type\":\"about:blank\",\"title\":\"Too many requests\",\"status\":429,\"detail\":\"this server already has too many connections of this client\"}\n";
const TOO_MANY_IN_ALL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\nretry-after: 2\r\nconnection: close\r\ncontent-length: 111\r\n\r\n{\"type\":\"about:blank\",\"title\":\"Too many connections\",\"status\":503,\"detail\":\"this server has too many clients\"}\n";

/// The open connections and their limits.
pub(super) struct ConnectionLimits {
    open: Mutex<OpenConnections>,
    /// Incremented with each connection that opens or becomes idle.
    tick: AtomicU64,
    /// From this descriptor on, idle connections are closed in favour of new ones.
    evict_from: u64,
    /// From this descriptor on, a new connection is refused if no other can be closed.
    refuse_from: u64,
    /// The limit of one client, whatever the settings say: a quarter of the open files, because a
    /// request may take two.
    load_max: u32,
}

#[derive(Default)]
struct OpenConnections {
    clients: HashMap<IpAddr, ClientConnections>,
    all: HashMap<usize, Arc<ConnectionState>>,
}

#[derive(Default)]
struct ClientConnections {
    count: Arc<ClientLoad>,
    connections: Vec<Arc<ConnectionState>>,
}

/// One connection, counted for as long as it lasts.
pub(super) struct LimitedConnection {
    limits: Arc<ConnectionLimits>,
    client: Option<(IpAddr, Arc<ClientLoad>)>,
    state: Option<Arc<ConnectionState>>,
    /// The waker of its task is registered.
    waker_set: bool,
}

/// A request that a trusted proxy forwards, counted for its client until this is dropped.
pub(super) struct RequestSlot {
    limits: Arc<ConnectionLimits>,
    client: IpAddr,
    count: Arc<ClientLoad>,
}

/// A ticket with the slot of its request.
struct TicketWithSlot {
    ticket: Box<dyn Ticket>,
    _slot: Box<RequestSlot>,
}

impl ConnectionLimits {
    /// With the open files that this process may have.
    pub(super) fn new() -> Arc<Self> {
        Self::with(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    fn with(files: u64) -> Arc<Self> {
        let kept = (files / 8).clamp(RESERVED_FILES.0, RESERVED_FILES.1);
        let (evict_from, refuse_from) =
            (files.saturating_sub(kept), files.saturating_sub(kept / 2));
        let load_max = u32::try_from(files / 8).unwrap_or(u32::MAX).max(16);
        Arc::new(Self {
            open: Mutex::default(),
            tick: AtomicU64::new(0),
            evict_from,
            refuse_from,
            load_max,
        })
    }

    /// How many requests one client may have at once. `per_client`: `edge.per_client`.
    pub(super) fn max_requests(&self, per_client: Option<u32>) -> Option<u32> {
        per_client.map(|most| most.min(self.load_max))
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a number for this moment.
    pub(super) fn tick(&self) -> u64 {
        self.tick.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a new connection, or refuses it and answers why. `per_client`: how many one client
    /// may have; an address in `shared` stands for many clients and is not limited.
    pub(super) fn try_open(
        self: &Arc<Self>,
        socket: &TcpStream,
        address: IpAddr,
        per_client: Option<u32>,
        shared: &[IpNet],
    ) -> Option<Box<LimitedConnection>> {
        // The kernel uses the lowest free descriptor, so its number shows how many files are open.
        let descriptor = u64::try_from(socket.as_raw_fd()).unwrap_or(0);
        if descriptor >= self.evict_from
            && self.evict_idle(descriptor - self.evict_from + 1) == 0
            && descriptor >= self.refuse_from
        {
            refuse(socket, TOO_MANY_IN_ALL);
            return None;
        }
        let Some((client, max_requests)) =
            limited(address, shared).zip(self.max_requests(per_client))
        else {
            return Some(self.limited_connection(None));
        };
        let mut open = self.lock();
        let ClientConnections { count, connections } = open.clients.entry(client).or_default();
        if count.load(Ordering::Relaxed) >= max_requests && !evict_oldest(connections) {
            drop(open);
            refuse(socket, TOO_MANY_OF_CLIENT);
            return None;
        }
        count.fetch_add(1, Ordering::Relaxed);
        Some(self.limited_connection(Some((client, count.clone()))))
    }

    /// Reserves a slot for a request that a proxy forwards for this client; `None`: it needs none,
    /// because the address stands for many clients.
    pub(super) fn reserve_slot(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        per_client: Option<u32>,
        shared: &[IpNet],
    ) -> Result<Option<Box<RequestSlot>>, ProxyFailure> {
        let limited = client.and_then(|client| limited(client, shared));
        let Some((client, max_requests)) = limited.zip(self.max_requests(per_client)) else {
            return Ok(None);
        };
        let count = self.lock().clients.entry(client).or_default().count.clone();
        let slot = Box::new(RequestSlot {
            limits: self.clone(),
            client,
            count,
        });
        // Counted before it is compared: dropping the slot subtracts it again.
        if slot.count.fetch_add(1, Ordering::Relaxed) < max_requests {
            Ok(Some(slot))
        } else {
            Err(ProxyFailure::TooMany)
        }
    }

    fn limited_connection(
        self: &Arc<Self>,
        client: Option<(IpAddr, Arc<ClientLoad>)>,
    ) -> Box<LimitedConnection> {
        Box::new(LimitedConnection {
            limits: self.clone(),
            client,
            state: None,
            waker_set: false,
        })
    }

    /// Closes `count` of the connections that have been idle for longest, or have not sent anything
    /// yet. Returns how many were closed.
    fn evict_idle(&self, count: u64) -> usize {
        let mut idle: Vec<Arc<ConnectionState>> = self
            .lock()
            .all
            .values()
            .filter(|state| state.may_be_evicted())
            .cloned()
            .collect();
        idle.sort_unstable_by_key(|state| state.last_used());
        // A few more at once, because other clients will follow.
        idle.truncate(
            usize::try_from(count)
                .unwrap_or(usize::MAX)
                .max(idle.len() / 16),
        );
        idle.iter().for_each(|state| state.evict());
        idle.len()
    }
}

/// Closes the connection that has been idle for longest, or has not sent anything yet; `false`:
/// there is none.
fn evict_oldest(connections: &[Arc<ConnectionState>]) -> bool {
    let oldest = connections
        .iter()
        .filter(|state| state.may_be_evicted())
        .min_by_key(|state| state.last_used());
    oldest.inspect(|state| state.evict()).is_some()
}

impl OpenConnections {
    /// Forgets a client without connections and requests.
    fn forget(&mut self, address: IpAddr) {
        if self.clients.get(&address).is_some_and(|client| {
            client.connections.is_empty() && client.count.load(Ordering::Relaxed) == 0
        }) {
            self.clients.remove(&address);
        }
    }
}

impl RequestSlot {
    /// Returns the ticket, which keeps the slot from now on.
    pub(super) fn with(slot: Option<Box<Self>>, ticket: Box<dyn Ticket>) -> Box<dyn Ticket> {
        match slot {
            Some(slot) => Box::new(TicketWithSlot {
                ticket,
                _slot: slot,
            }),
            None => ticket,
        }
    }
}

impl Drop for RequestSlot {
    fn drop(&mut self) {
        let mut open = self.limits.lock();
        self.count.fetch_sub(1, Ordering::Relaxed);
        open.forget(self.client);
    }
}

impl Ticket for TicketWithSlot {
    fn gate(&self) -> &Gate {
        self.ticket.gate()
    }

    fn streams_end(&self) -> CancellationToken {
        self.ticket.streams_end()
    }
}

impl LimitedConnection {
    /// Registers the connection: from now on it may be closed while it is idle.
    pub(super) fn register(&mut self, state: Arc<ConnectionState>) {
        state.note_last_used(self.limits.tick());
        let mut open = self.limits.lock();
        open.all.insert(key(&state), state.clone());
        if let Some((client, count)) = &self.client {
            state.count_towards(count);
            open.clients
                .entry(*client)
                .or_default()
                .connections
                .push(state.clone());
        }
        drop(open);
        self.state = Some(state);
    }

    /// Resolves when the connection is to be closed and is idle. Poll it from one task only.
    pub(super) fn poll_evicted(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Self {
            state, waker_set, ..
        } = self;
        state
            .as_ref()
            .map_or(Poll::Pending, |state| state.poll_evicted(waker_set, cx))
    }
}

impl Drop for LimitedConnection {
    fn drop(&mut self) {
        let mut open = self.limits.lock();
        if let Some(state) = &self.state {
            open.all.remove(&key(state));
        }
        let Some((address, count)) = &self.client else {
            return;
        };
        count.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = open.clients.get_mut(address) else {
            return;
        };
        if let Some(position) = self.state.as_ref().and_then(|state| {
            client
                .connections
                .iter()
                .position(|one| Arc::ptr_eq(one, state))
        }) {
            client.connections.swap_remove(position);
        }
        open.forget(*address);
    }
}

fn key(state: &Arc<ConnectionState>) -> usize {
    Arc::as_ptr(state).addr()
}

/// Sends a refused client the response, as far as the socket accepts it at once: it never blocks.
fn refuse(mut socket: &TcpStream, why: &[u8]) {
    let _ = socket.write(why);
    let _ = socket.shutdown(Shutdown::Write);
    // Closing a socket with unread bytes resets the connection, and the client would lose the
    // answer.
    let _ = socket.read(&mut [0; 16 * 1024]);
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::connection_state::BusyGuard;
    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0;
        // As the edge accepts them.
        accepted.set_nonblocking(true).unwrap();
        (client, accepted)
    }

    /// Its connection, or the answer that refuses it.
    fn open(
        limits: &Arc<ConnectionLimits>,
        client: &str,
    ) -> Result<(Box<LimitedConnection>, Arc<ConnectionState>), String> {
        let (mut client_end, socket) = pair();
        let shared = ["172.16.0.0/12".parse().unwrap()];
        if let Some(mut connection) =
            limits.try_open(&socket, client.parse().unwrap(), Some(2), &shared)
        {
            let state = Arc::new(ConnectionState::default());
            connection.register(state.clone());
            return Ok((connection, state));
        }
        let mut answer = String::new();
        drop(socket);
        client_end.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.ends_with(&format!("content-length: {}", body.len())),
            "{answer}"
        );
        Err(answer)
    }

    #[test]
    fn one_client_has_so_many_requests_and_others_have_theirs() {
        let limits = ConnectionLimits::with(1 << 20);
        let busy = |client: &str| {
            open(&limits, client).map(|(connection, state)| (connection, BusyGuard::new(&state)))
        };
        let (one, two) = (busy("10.0.0.1").unwrap(), busy("10.0.0.1").unwrap());
        assert!(busy("10.0.0.1").err().unwrap().starts_with("HTTP/1.1 429 "));
        let other = busy("10.0.0.2").unwrap();
        drop(one);
        let three = busy("::ffff:10.0.0.1").unwrap();
        drop((two, three, other));
        assert!(limits.lock().clients.is_empty());
        let half = (busy("2001:db8::1").unwrap(), busy("2001:db8::2").unwrap());
        assert!(busy("2001:db8::ffff:3").is_err());
        drop(half);
        for address in ["127.0.0.1", "::1", "172.17.0.1"] {
            let shared: Vec<_> = (0..5).map(|_| busy(address).unwrap()).collect();
            assert_eq!(shared.len(), 5);
        }
    }

    #[test]
    fn a_new_connection_takes_the_place_of_an_idle_one_of_its_client() {
        let limits = ConnectionLimits::with(1 << 20);
        let (one, two) = (
            open(&limits, "10.0.0.1").unwrap(),
            open(&limits, "10.0.0.1").unwrap(),
        );
        let busy = BusyGuard::new(&one.1);
        let three = open(&limits, "10.0.0.1").unwrap();
        assert!(!two.1.may_be_evicted() && three.1.may_be_evicted());
        let also_busy = BusyGuard::new(&three.1);
        assert!(open(&limits, "10.0.0.1").is_err());
        drop((busy, also_busy, one, two, three));
        assert!(limits.lock().clients.is_empty() && limits.lock().all.is_empty());
    }

    #[test]
    fn requests_on_http2_are_counted_beside_their_connections() {
        let limits = ConnectionLimits::with(1 << 20);
        let (one, state) = open(&limits, "10.0.0.1").unwrap();
        state.use_http2();
        let first = BusyGuard::new(&state);
        assert!(!state.exceeds(Some(2)) && state.exceeds(Some(1)) && !state.exceeds(None));
        let second = BusyGuard::new(&state);
        assert!(state.exceeds(Some(2)));
        assert!(open(&limits, "10.0.0.1").is_err());
        drop((first, second));
        assert!(open(&limits, "10.0.0.1").is_ok());
        drop(one);
        assert!(limits.lock().clients.is_empty());
        // Of an address that many share nothing is counted.
        let (_member, state) = open(&limits, "127.0.0.1").unwrap();
        state.use_http2();
        let _busy = [
            BusyGuard::new(&state),
            BusyGuard::new(&state),
            BusyGuard::new(&state),
        ];
        assert!(!state.exceeds(Some(2)));
    }

    #[test]
    fn requests_by_way_of_a_proxy_are_counted_for_their_clients() {
        let limits = ConnectionLimits::with(1 << 20);
        let shared = ["192.0.2.0/24".parse().unwrap()];
        let reserve = |client: &str| limits.reserve_slot(client.parse().ok(), Some(2), &shared);
        let (one, two) = (
            reserve("10.0.0.1").unwrap(),
            reserve("::ffff:10.0.0.1").unwrap(),
        );
        assert!(one.is_some() && reserve("10.0.0.1").is_err() && reserve("10.0.0.2").is_ok());
        assert!(
            open(&limits, "10.0.0.1").is_err(),
            "a connection of its own is one too many"
        );
        drop(one);
        let own = open(&limits, "10.0.0.1").unwrap();
        assert!(reserve("10.0.0.1").is_err());
        // The proxy itself, and a client that it does not name.
        assert!(
            reserve("192.0.2.1").unwrap().is_none()
                && limits
                    .reserve_slot(None, Some(2), &shared)
                    .unwrap()
                    .is_none()
        );
        drop((two, own));
        assert!(limits.lock().clients.is_empty());
    }

    #[test]
    fn the_answer_to_one_too_many_is_whole() {
        let (head, body) = std::str::from_utf8(TOO_MANY_IN_ALL)
            .unwrap()
            .split_once("\r\n\r\n")
            .unwrap();
        assert!(
            head.ends_with(&format!("content-length: {}", body.len())),
            "{head}"
        );
    }

    #[test]
    fn the_oldest_idle_ones_are_closed_and_never_one_in_use() {
        let limits = ConnectionLimits::with(0);
        let (_client, socket) = pair();
        let address = "127.0.0.1".parse().unwrap();
        // No other can be closed: refused.
        assert!(limits.try_open(&socket, address, None, &[]).is_none());
        let limits = ConnectionLimits::with(1 << 20);
        let mut all: Vec<_> = (0..4)
            .map(|_| {
                (
                    limits.try_open(&socket, address, None, &[]).unwrap(),
                    Arc::new(ConnectionState::default()),
                )
            })
            .collect();
        for (connection, state) in &mut all {
            connection.register(state.clone());
        }
        let busy = BusyGuard::new(&all[0].1);
        assert_eq!(limits.evict_idle(2), 2);
        assert!(!all[0].1.may_be_evicted());
        assert_eq!(limits.evict_idle(9), 1, "two are on their way out");
        drop(busy);
        // Its answer may not have left yet; once it rests it has.
        assert_eq!(limits.evict_idle(9), 0);
        all[0].1.note_rest(limits.tick());
        assert_eq!(limits.evict_idle(9), 1);
        all.clear();
        assert!(limits.lock().all.is_empty());
    }
}
