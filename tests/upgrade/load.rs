//! Clients that send requests without a pause and count the result of each.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::{Ask, Fixture, http, now};

/// The results of the requests of all clients.
#[derive(Debug, Default)]
pub struct Count {
    /// Answered 200.
    pub answered: u64,
    /// Every other result, in words.
    pub lost: Vec<String>,
    /// Ids of POSTs that were answered.
    pub posted: Vec<String>,
    /// The longest time to an answer.
    pub longest: Duration,
}

/// Clients at work.
pub struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Count>>,
}

impl Load {
    /// For each instance two clients: one with a new connection for each POST, one with a
    /// connection for many GETs.
    pub fn start(fixture: &Fixture, names: &[&str]) -> Self {
        let (over, answered) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let mut clients = Vec::new();
        for name in names {
            let (host, to) = (fixture.host(name), fixture.address());
            let (stop, sum, called) = (over.clone(), answered.clone(), (*name).to_owned());
            clients.push(std::thread::spawn(move || {
                let mut count = Count::default();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = format!("{called}-{n}");
                    let ask = Ask::new("POST", &host, "/echo")
                        .header("X-Id", &id)
                        .body("x".repeat(500));
                    let began = now();
                    count.add(&sum, began, ask.send(to).map(|r| r.status), Some(id));
                }
                count
            }));
            let (host, stop, sum) = (fixture.host(name), over.clone(), answered.clone());
            clients.push(std::thread::spawn(move || {
                let (mut count, mut kept) = (Count::default(), None);
                while !stop.load(Ordering::Relaxed) {
                    let began = now();
                    count.add(&sum, began, ask_again(&mut kept, to, &host), None);
                }
                count
            }));
        }
        Self {
            over,
            answered,
            clients,
        }
    }

    /// Waits until this many more were answered.
    #[track_caller]
    pub fn wait_for(&self, more: u64) {
        let enough = self.answered.load(Ordering::Relaxed) + more;
        crate::support::wait_until("requests are answered", Duration::from_secs(40), || {
            let answered = self.answered.load(Ordering::Relaxed);
            crate::support::wait::holds(answered >= enough, answered)
        });
    }

    /// Ends the clients.
    pub fn stop(self) -> Count {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Count::default();
        for client in self.clients {
            let one = client.join().unwrap();
            all.answered += one.answered;
            all.lost.extend(one.lost);
            all.posted.extend(one.posted);
            all.longest = all.longest.max(one.longest);
        }
        all
    }
}

impl Count {
    fn add(
        &mut self,
        sum: &AtomicU64,
        began: std::time::Instant,
        status: std::io::Result<u16>,
        id: Option<String>,
    ) {
        match status {
            Ok(200) => {
                self.answered += 1;
                sum.fetch_add(1, Ordering::Relaxed);
                self.posted.extend(id);
            }
            Ok(status) => self.lost.push(format!("{id:?}: {status}")),
            Err(e) => self.lost.push(format!("{id:?}: {e}")),
        }
        self.longest = self.longest.max(began.elapsed());
    }

    /// Panics when a request was lost, or a POST was not executed exactly once.
    #[track_caller]
    pub fn assert_nothing_lost(&self, fixture: &Fixture, names: &[&str]) {
        assert!(
            self.lost.is_empty(),
            "{} answered, {} lost: {:#?}",
            self.answered,
            self.lost.len(),
            &self.lost[..self.lost.len().min(8)]
        );
        let posts: usize = names
            .iter()
            .map(|n| {
                fixture
                    .told(n, "REQ")
                    .iter()
                    .filter(|l| l.contains("POST"))
                    .count()
            })
            .sum();
        assert_eq!(posts, self.posted.len(), "a POST was executed twice");
    }
}

/// A GET on the connection kept from the previous request; a connection that breaks without an
/// answer is an error, as in `wrk`.
fn ask_again(
    kept: &mut Option<BufReader<TcpStream>>,
    to: std::net::SocketAddr,
    host: &str,
) -> std::io::Result<u16> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => BufReader::new(http::connect(to)?),
    };
    write!(stream.get_mut(), "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    let (mut status, mut length, mut close, mut chunked) = (0, 0, false, false);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::Error::other("closed without an answer"));
        }
        let line = line.trim_end().to_ascii_lowercase();
        if status == 0 {
            status = line
                .split(' ')
                .nth(1)
                .and_then(|s| s.parse().ok())
                .unwrap_or(0);
        }
        length = line
            .strip_prefix("content-length: ")
            .map_or(length, |l| l.parse().unwrap());
        close |= line == "connection: close";
        chunked |= line == "transfer-encoding: chunked";
        if line.is_empty() {
            break;
        }
    }
    if chunked {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
            stream.read_exact(&mut vec![0; size + 2])?;
            if size == 0 {
                break;
            }
        }
    } else {
        stream.read_exact(&mut vec![0; length])?;
    }
    if !close {
        *kept = Some(stream);
    }
    Ok(status)
}
