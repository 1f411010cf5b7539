//! All clients' connections of acc's own edge: how many one client may have, and which are closed when there are too many, of one
//! client or for the open files that acc may have. On HTTP/2 requests are counted beside their connection, and those that come by
//! way of a trusted proxy in place of it.
//!
//! It never closes a connection with a request under way, nor one whose answer may not have left yet: only when all are such, a new
//! one is refused.

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
use crate::service::clients::limited;
use crate::service::door::Pass;

/// Open files that are kept for starts, logs and connections to instances: an eighth of all, between these.
const KEPT: (u64, u64) = (64, 1024);

const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\nretry-after: 2\r\nconnection: close\r\ncontent-length: 135\r\n\r\n{\"type\":\"about:blank\",\"title\":\"Too many requests\",\"status\":429,\"detail\":\"this server already has too many connections of this client\"}\n";
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\nretry-after: 2\r\nconnection: close\r\ncontent-length: 111\r\n\r\n{\"type\":\"about:blank\",\"title\":\"Too many connections\",\"status\":503,\"detail\":\"this server has too many clients\"}\n";

/// The connections.
pub(super) struct ConnectionLimits {
    members: Mutex<OpenConnections>,
    /// Grows with each connection that comes, or comes to rest.
    now: AtomicU64,
    /// From this descriptor on idle connections are closed for new ones.
    many: u64,
    /// From this one on a new connection is refused if there is none to close.
    full: u64,
    /// No client has more than this, whatever the settings say: a quarter of the open files, as a request may take two.
    share_max: u32,
}

#[derive(Default)]
struct OpenConnections {
    clients: HashMap<IpAddr, ClientConnections>,
    all: HashMap<usize, Arc<ConnectionState>>,
}

#[derive(Default)]
struct ClientConnections {
    share: Arc<ClientLoad>,
    connections: Vec<Arc<ConnectionState>>,
}

/// One connection, as long as it lasts.
pub(super) struct LimitedConnection {
    crowd: Arc<ConnectionLimits>,
    client: Option<(IpAddr, Arc<ClientLoad>)>,
    used: Option<Arc<ConnectionState>>,
    /// Its task is woken when its place is needed.
    left: bool,
}

/// A request of a client whose connection is a proxy's.
pub(super) struct RequestSlot {
    crowd: Arc<ConnectionLimits>,
    client: IpAddr,
    share: Arc<ClientLoad>,
}

/// A pass, and the place for as long as it lasts.
struct PassWithSlot {
    pass: Box<dyn Pass>,
    _place: Box<RequestSlot>,
}

impl ConnectionLimits {
    /// With as many open files as this process may have.
    pub(super) fn new() -> Arc<Self> {
        Self::with(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    fn with(files: u64) -> Arc<Self> {
        let kept = (files / 8).clamp(KEPT.0, KEPT.1);
        let (many, full) = (files.saturating_sub(kept), files.saturating_sub(kept / 2));
        let share_max = u32::try_from(files / 8).unwrap_or(u32::MAX).max(16);
        Arc::new(Self { members: Mutex::default(), now: AtomicU64::new(0), many, full, share_max })
    }

    /// So many requests one client may have at once. `per_client`: `edge.per_client`.
    pub(super) fn most(&self, per_client: Option<u32>) -> Option<u32> {
        per_client.map(|most| most.min(self.share_max))
    }

    fn members(&self) -> MutexGuard<'_, OpenConnections> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for this moment.
    pub(super) fn now(&self) -> u64 {
        self.now.fetch_add(1, Ordering::Relaxed)
    }

    /// Lets a connection in, or tells its client why not. `per_client`: as many as one client may have; an address in `shared` is none.
    pub(super) fn let_in(
        self: &Arc<Self>,
        socket: &TcpStream,
        address: IpAddr,
        per_client: Option<u32>,
        shared: &[IpNet],
    ) -> Option<Box<LimitedConnection>> {
        // The kernel gives out the lowest number that is free: so it says how many there are.
        let descriptor = u64::try_from(socket.as_raw_fd()).unwrap_or(0);
        if descriptor >= self.many && self.close_idle(descriptor - self.many + 1) == 0 && descriptor >= self.full {
            refuse(socket, FULL);
            return None;
        }
        let Some((client, most)) = limited(address, shared).zip(self.most(per_client)) else { return Some(self.member(None)) };
        let mut members = self.members();
        let ClientConnections { share, connections } = members.clients.entry(client).or_default();
        if share.load(Ordering::Relaxed) >= most && !close_oldest(connections) {
            drop(members);
            refuse(socket, TOO_MANY);
            return None;
        }
        share.fetch_add(1, Ordering::Relaxed);
        Some(self.member(Some((client, share.clone()))))
    }

    /// A place for a request that a proxy passes on for this client; `None`: it needs none, because the address stands for many.
    pub(super) fn place(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        per_client: Option<u32>,
        shared: &[IpNet],
    ) -> Result<Option<Box<RequestSlot>>, ProxyFailure> {
        let limited = client.and_then(|client| limited(client, shared));
        let Some((client, most)) = limited.zip(self.most(per_client)) else { return Ok(None) };
        let share = self.members().clients.entry(client).or_default().share.clone();
        let place = Box::new(RequestSlot { crowd: self.clone(), client, share });
        // Counted before it is looked at: dropping the place counts it down again.
        if place.share.fetch_add(1, Ordering::Relaxed) < most { Ok(Some(place)) } else { Err(ProxyFailure::TooMany) }
    }

    fn member(self: &Arc<Self>, client: Option<(IpAddr, Arc<ClientLoad>)>) -> Box<LimitedConnection> {
        Box::new(LimitedConnection { crowd: self.clone(), client, used: None, left: false })
    }

    /// Closes so many of those that have been idle for longest, or have not said anything yet. Says how many.
    fn close_idle(&self, count: u64) -> usize {
        let mut idle: Vec<Arc<ConnectionState>> = self.members().all.values().filter(|used| used.may_be_closed()).cloned().collect();
        idle.sort_unstable_by_key(|used| used.since());
        // A few at once: the next clients are at the door.
        idle.truncate(usize::try_from(count).unwrap_or(usize::MAX).max(idle.len() / 16));
        idle.iter().for_each(|used| used.close());
        idle.len()
    }
}

/// Closes the connection of a client that has been idle for longest, or has not said anything yet; `false`: there is none.
fn close_oldest(connections: &[Arc<ConnectionState>]) -> bool {
    let oldest = connections.iter().filter(|used| used.may_be_closed()).min_by_key(|used| used.since());
    oldest.inspect(|used| used.close()).is_some()
}

impl OpenConnections {
    /// Forgets a client of whom there is nothing left.
    fn forget(&mut self, address: IpAddr) {
        if self.clients.get(&address).is_some_and(|client| client.connections.is_empty() && client.share.load(Ordering::Relaxed) == 0) {
            self.clients.remove(&address);
        }
    }
}

impl RequestSlot {
    /// Held for as long as the pass.
    pub(super) fn with(place: Option<Box<Self>>, pass: Box<dyn Pass>) -> Box<dyn Pass> {
        match place {
            Some(place) => Box::new(PassWithSlot { pass, _place: place }),
            None => pass,
        }
    }
}

impl Drop for RequestSlot {
    fn drop(&mut self) {
        let mut members = self.crowd.members();
        self.share.fetch_sub(1, Ordering::Relaxed);
        members.forget(self.client);
    }
}

impl Pass for PassWithSlot {
    fn gate(&self) -> &Gate {
        self.pass.gate()
    }

    fn streams_end(&self) -> CancellationToken {
        self.pass.streams_end()
    }
}

impl LimitedConnection {
    /// What is known of its connection; it may be closed while it is idle.
    pub(super) fn joins(&mut self, used: Arc<ConnectionState>) {
        used.note_since(self.crowd.now());
        let mut members = self.crowd.members();
        members.all.insert(key(&used), used.clone());
        if let Some((client, share)) = &self.client {
            used.belongs_to(share);
            members.clients.entry(*client).or_default().connections.push(used.clone());
        }
        drop(members);
        self.used = Some(used);
    }

    /// Resolves when its place is needed and it is idle. To be polled by one task only.
    pub(super) fn poll_unwanted(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Self { used, left, .. } = self;
        used.as_ref().map_or(Poll::Pending, |used| used.poll_unwanted(left, cx))
    }
}

impl Drop for LimitedConnection {
    fn drop(&mut self) {
        let mut members = self.crowd.members();
        if let Some(used) = &self.used {
            members.all.remove(&key(used));
        }
        let Some((address, share)) = &self.client else { return };
        share.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = members.clients.get_mut(address) else { return };
        if let Some(place) = self.used.as_ref().and_then(|used| client.connections.iter().position(|one| Arc::ptr_eq(one, used))) {
            client.connections.swap_remove(place);
        }
        members.forget(*address);
    }
}

fn key(used: &Arc<ConnectionState>) -> usize {
    Arc::as_ptr(used).addr()
}

/// The last word to a client that is not let in, as far as it can be said at once: its socket never blocks.
fn refuse(mut socket: &TcpStream, why: &[u8]) {
    let _ = socket.write(why);
    let _ = socket.shutdown(Shutdown::Write);
    // What is unread when a socket is closed would take the answer away from the client.
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

    /// Its connection, or what it was told.
    fn enter(crowd: &Arc<ConnectionLimits>, client: &str) -> Result<(Box<LimitedConnection>, Arc<ConnectionState>), String> {
        let (mut asks, socket) = pair();
        let shared = ["172.16.0.0/12".parse().unwrap()];
        if let Some(mut member) = crowd.let_in(&socket, client.parse().unwrap(), Some(2), &shared) {
            let used = Arc::new(ConnectionState::default());
            member.joins(used.clone());
            return Ok((member, used));
        }
        let mut said = String::new();
        drop(socket);
        asks.read_to_string(&mut said).unwrap();
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{said}");
        Err(said)
    }

    #[test]
    fn one_client_has_so_many_requests_and_others_have_theirs() {
        let crowd = ConnectionLimits::with(1 << 20);
        let busy = |client: &str| enter(&crowd, client).map(|(member, used)| (member, BusyGuard::new(&used)));
        let (one, two) = (busy("10.0.0.1").unwrap(), busy("10.0.0.1").unwrap());
        assert!(busy("10.0.0.1").err().unwrap().starts_with("HTTP/1.1 429 "));
        let other = busy("10.0.0.2").unwrap();
        drop(one);
        let three = busy("::ffff:10.0.0.1").unwrap();
        drop((two, three, other));
        assert!(crowd.members().clients.is_empty());
        let half = (busy("2001:db8::1").unwrap(), busy("2001:db8::2").unwrap());
        assert!(busy("2001:db8::ffff:3").is_err());
        drop(half);
        for many in ["127.0.0.1", "::1", "172.17.0.1"] {
            let shared: Vec<_> = (0..5).map(|_| busy(many).unwrap()).collect();
            assert_eq!(shared.len(), 5);
        }
    }

    #[test]
    fn a_new_connection_takes_the_place_of_an_idle_one_of_its_client() {
        let crowd = ConnectionLimits::with(1 << 20);
        let (one, two) = (enter(&crowd, "10.0.0.1").unwrap(), enter(&crowd, "10.0.0.1").unwrap());
        let busy = BusyGuard::new(&one.1);
        let three = enter(&crowd, "10.0.0.1").unwrap();
        assert!(!two.1.may_be_closed() && three.1.may_be_closed());
        let also_busy = BusyGuard::new(&three.1);
        assert!(enter(&crowd, "10.0.0.1").is_err());
        drop((busy, also_busy, one, two, three));
        assert!(crowd.members().clients.is_empty() && crowd.members().all.is_empty());
    }

    #[test]
    fn requests_on_http2_are_counted_beside_their_connections() {
        let crowd = ConnectionLimits::with(1 << 20);
        let (one, used) = enter(&crowd, "10.0.0.1").unwrap();
        used.speaks_http2();
        let first = BusyGuard::new(&used);
        assert!(!used.has_too_many(Some(2)) && used.has_too_many(Some(1)) && !used.has_too_many(None));
        let second = BusyGuard::new(&used);
        assert!(used.has_too_many(Some(2)));
        assert!(enter(&crowd, "10.0.0.1").is_err());
        drop((first, second));
        assert!(enter(&crowd, "10.0.0.1").is_ok());
        drop(one);
        assert!(crowd.members().clients.is_empty());
        // Of an address that many share nothing is counted.
        let (_member, used) = enter(&crowd, "127.0.0.1").unwrap();
        used.speaks_http2();
        let _busy = [BusyGuard::new(&used), BusyGuard::new(&used), BusyGuard::new(&used)];
        assert!(!used.has_too_many(Some(2)));
    }

    #[test]
    fn requests_by_way_of_a_proxy_are_counted_for_their_clients() {
        let crowd = ConnectionLimits::with(1 << 20);
        let shared = ["192.0.2.0/24".parse().unwrap()];
        let place = |client: &str| crowd.place(client.parse().ok(), Some(2), &shared);
        let (one, two) = (place("10.0.0.1").unwrap(), place("::ffff:10.0.0.1").unwrap());
        assert!(one.is_some() && place("10.0.0.1").is_err() && place("10.0.0.2").is_ok());
        assert!(enter(&crowd, "10.0.0.1").is_err(), "a connection of its own is one too many");
        drop(one);
        let own = enter(&crowd, "10.0.0.1").unwrap();
        assert!(place("10.0.0.1").is_err());
        // The proxy itself, and a client that it does not name.
        assert!(place("192.0.2.1").unwrap().is_none() && crowd.place(None, Some(2), &shared).unwrap().is_none());
        drop((two, own));
        assert!(crowd.members().clients.is_empty());
    }

    #[test]
    fn the_answer_to_one_too_many_is_whole() {
        let (head, body) = std::str::from_utf8(FULL).unwrap().split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
    }

    #[test]
    fn the_oldest_idle_ones_are_closed_and_never_one_in_use() {
        let crowd = ConnectionLimits::with(0);
        let (_client, socket) = pair();
        let address = "127.0.0.1".parse().unwrap();
        // Nobody can be closed: refused.
        assert!(crowd.let_in(&socket, address, None, &[]).is_none());
        let crowd = ConnectionLimits::with(1 << 20);
        let mut members: Vec<_> =
            (0..4).map(|_| (crowd.let_in(&socket, address, None, &[]).unwrap(), Arc::new(ConnectionState::default()))).collect();
        for (member, used) in &mut members {
            member.joins(used.clone());
        }
        let busy = BusyGuard::new(&members[0].1);
        assert_eq!(crowd.close_idle(2), 2);
        assert!(!members[0].1.may_be_closed());
        assert_eq!(crowd.close_idle(9), 1, "two are on their way out");
        drop(busy);
        // Its answer may not have left yet; once it rests it has.
        assert_eq!(crowd.close_idle(9), 0);
        members[0].1.comes_to_rest(crowd.now());
        assert_eq!(crowd.close_idle(9), 1);
        members.clear();
        assert!(crowd.members().all.is_empty());
    }
}
