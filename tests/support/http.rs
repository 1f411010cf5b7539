//! A small HTTP/1.1 client on a plain socket: it sends exactly the bytes it is given, also invalid
//! ones, and has time limits.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for any single read or write.
const PATIENCE: Duration = Duration::from_secs(130);

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Ask {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    chunked: bool,
}

impl Ask {
    /// A request for this host and target.
    pub fn new(method: &str, host: &str, target: &str) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            headers: vec![("Host".into(), host.into())],
            body: Vec::new(),
            chunked: false,
        }
    }

    /// With this header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With this body and its length.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the body in chunks, without its length.
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// With the headers of a browser that opens a page.
    pub fn browser(self) -> Self {
        self.header("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
            .header("Sec-Fetch-Dest", "document")
            .header("User-Agent", "Mozilla/5.0")
    }

    /// The first line and the headers.
    fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if self.chunked {
            head += "Transfer-Encoding: chunked\r\n";
        } else if !self.body.is_empty() || self.method == "POST" {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        head + "Connection: close\r\n\r\n"
    }

    /// Sends the request on a new connection and reads the whole answer.
    pub fn send(&self, to: SocketAddr) -> std::io::Result<Reply> {
        let mut open = self.open(to)?;
        let mut body = Vec::new();
        open.body.read_to_end(&mut body)?;
        Ok(Reply { body, ..open.reply })
    }

    /// Sends the request and returns when the head of the answer has arrived.
    pub fn open(&self, to: SocketAddr) -> std::io::Result<Open> {
        let stream = connect(to)?;
        let mut writing = stream.try_clone()?;
        writing.write_all(self.head().as_bytes())?;
        let (body, chunked) = (self.body.clone(), self.chunked);
        // On its own thread, so that an early answer is read; a server may close the connection
        // because it does not want the body.
        let writer = std::thread::spawn(move || {
            let _ = if chunked {
                write_chunks(&mut writing, &body)
            } else {
                writing.write_all(&body)
            };
        });
        let open = read_head(stream, &self.method)?;
        if !self.body.is_empty() && open.reply.status < 400 {
            let _ = writer.join();
        }
        Ok(open)
    }
}

/// An answer whose body has not been read yet.
pub struct Open {
    /// The head of the answer; its body is empty.
    pub reply: Reply,
    /// The body, to be read.
    pub body: Box<dyn Read + Send>,
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }

    /// Panics unless the status is this one.
    #[track_caller]
    pub fn status(self, expected: u16) -> Self {
        assert_eq!(self.status, expected, "{:?}\n{}", self.headers, self.text());
        self
    }
}

/// A connection with time limits.
pub fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends exactly these bytes and reads the answer.
pub fn raw(to: SocketAddr, bytes: &[u8]) -> std::io::Result<Reply> {
    let mut stream = connect(to)?;
    stream.write_all(bytes)?;
    let mut open = read_head(stream, "GET")?;
    let mut body = Vec::new();
    open.body.read_to_end(&mut body)?;
    Ok(Reply { body, ..open.reply })
}

fn write_chunks(to: &mut TcpStream, body: &[u8]) -> std::io::Result<()> {
    for part in body.chunks(64 * 1024) {
        write!(to, "{:x}\r\n", part.len())?;
        to.write_all(part)?;
        to.write_all(b"\r\n")?;
    }
    to.write_all(b"0\r\n\r\n")
}

/// Reads the head of an answer and skips `100 Continue`.
pub fn read_head(stream: TcpStream, method: &str) -> std::io::Result<Open> {
    let mut reader = BufReader::new(stream);
    let mut reply = one_head(&mut reader)?;
    while reply.status == 100 {
        reply = one_head(&mut reader)?;
    }
    let length = reply
        .header("content-length")
        .and_then(|l| l.parse::<u64>().ok());
    let chunked = reply
        .header("transfer-encoding")
        .is_some_and(|t| t.eq_ignore_ascii_case("chunked"));
    let body: Box<dyn Read + Send> = match length {
        _ if method == "HEAD" || reply.status == 204 || reply.status == 304 => {
            Box::new(std::io::empty())
        }
        _ if chunked => Box::new(Chunks {
            from: reader,
            left: 0,
            ended: false,
        }),
        Some(length) => Box::new(Exactly {
            from: reader,
            left: length,
        }),
        None => Box::new(reader),
    };
    Ok(Open { reply, body })
}

fn one_head(reader: &mut impl BufRead) -> std::io::Result<Reply> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status =
        status.ok_or_else(|| std::io::Error::other(format!("not an HTTP answer: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()))
            }
            None => {
                return Ok(Reply {
                    status,
                    headers,
                    body: Vec::new(),
                });
            }
        }
    }
}

/// A body of known length: a body that ends early is an error, not a short body.
struct Exactly<R> {
    from: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let most = into
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.from.read(&mut into[..most])?;
        if n == 0 {
            return Err(std::io::Error::other(format!(
                "the body was cut, {} bytes are missing",
                self.left
            )));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// A chunked body: a body without its last chunk is an error.
struct Chunks<R> {
    from: R,
    left: u64,
    ended: bool,
}

impl<R: BufRead> Read for Chunks<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        if self.left == 0 {
            let mut line = String::new();
            self.from.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or(""), 16);
            self.left = size.map_err(|_| {
                std::io::Error::other(format!("the body was cut: {line:?} is not a chunk"))
            })?;
            if self.left == 0 {
                self.ended = true;
                return Ok(0);
            }
        }
        let most = into
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.from.read(&mut into[..most])?;
        if n == 0 {
            return Err(std::io::Error::other("the body was cut in a chunk"));
        }
        self.left -= n as u64;
        if self.left == 0 {
            let mut end = [0; 2];
            self.from.read_exact(&mut end)?;
        }
        Ok(n)
    }
}
