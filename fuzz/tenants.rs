//! What tenants and clients feed acc with: each function takes any bytes and panics when a promise
//! is broken.
//!
//! Driven as those of `targets.rs` are.

use std::cell::OnceCell;
use std::ffi::CString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use acc::config::Scheme;
use acc::domain::account::Account;
use acc::domain::edge_headers::{EDGE_ONLY, OF_PROXIES, SET_BY_NGINX};
use acc::domain::instance::Listen;
use acc::domain::name::InstanceName;
use acc::driver::activity;
use acc::driver::edge::Gate;
use acc::driver::probe;
use acc::driver::supervisor::{self, LaunchRequest, Program};
use acc::driver::upstream::{SendBody, UpstreamError, Upstreams};
use acc::host::limits::{GroupLimits, OpenFiles, ProcessLimits};
use acc::host::spawn::UserIds;
use acc::host::stopped;
use acc::proxy::request::{ParsedRequest, read};
use acc::proxy::{Front, Origin, access_log, headers};
use http_body_util::{BodyExt as _, Limited};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};

/// Longest an answer may be waited for that is there from the beginning.
const AT_ONCE: Duration = Duration::from_secs(10);

/// A message of `sd_notify(3)`: ready by a line that says so and by nothing else, and a status that
/// can be shown on one line.
pub fn notify(data: &[u8]) {
    let message = probe::NotifyMessage::read(data);
    let mut lines: Vec<&[u8]> = data.split(|b| *b == b'\n').collect();
    // What follows the last line end is no line that could have ended with CR LF.
    let last = lines.pop();
    let mut all = lines
        .iter()
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .chain(last);
    assert_eq!(
        message.ready,
        all.any(|line| line == b"READY=1"),
        "{data:?}"
    );
    if let Some(status) = message.status {
        assert!(
            status.chars().count() <= 200 && !status.contains(char::is_control),
            "{status:?}"
        );
    }
}

/// A pid file: what is read is written the same way again, and no pid names a group or everybody.
pub fn record(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some((pid, rest, log)) = supervisor::read_pid_file(&text) else {
        return;
    };
    assert!(pid > 1, "{text:?}");
    if let (Some((start, boot)), Some(log)) = (&rest, &log) {
        let again = format!("{pid} {start} {boot} {}\n", log.display());
        assert_eq!(
            supervisor::read_pid_file(&again),
            Some((pid, rest.clone(), Some(log.clone()))),
            "{text:?}"
        );
    }
}

/// Lines of `/proc` in which a tenant has chosen a name, a path or an address: it cannot pass for
/// another field.
pub fn proc(data: &[u8]) {
    if let Some(inode) = stopped::socket_of_link(data) {
        let number = data
            .strip_prefix(b"socket:[")
            .and_then(|rest| rest.strip_suffix(b"]"))
            .unwrap_or_default();
        let number: Vec<u8> = number
            .iter()
            .copied()
            .skip_while(|byte| b"+0".contains(byte))
            .collect();
        assert!(
            number == inode.to_string().as_bytes() || inode == 0 && number.is_empty(),
            "{data:?}"
        );
    }
    if let Some(status) = probe::status_of(data) {
        assert!(status <= 999 && data.starts_with(b"HTTP/1."), "{data:?}");
    }
    let _ = (stopped::state(data), activity::unix_socket(data));
    // What the kernel shows of a name is 15 bytes at most, without a zero byte.
    let name: Vec<u8> = data
        .iter()
        .copied()
        .filter(|byte| *byte != 0)
        .take(15)
        .collect();
    for state in [b'R', b'T', b'Z'] {
        assert_eq!(
            stopped::state(&[b"7 (", &name[..], b") ", &[state], b" 1 7"].concat()),
            Some(state),
            "{name:?}"
        );
    }
    unix_line(data);
    tcp_line(data);
    let text = String::from_utf8_lossy(data);
    let _ = (activity::tcp_socket(&text), stopped::peer_in_line(&text));
}

/// A line of `/proc/net/unix` for a socket bound there; the kernel writes a zero byte as `@`.
fn unix_line(data: &[u8]) {
    let path: Vec<u8> = data
        .iter()
        .take(107)
        .map(|byte| if *byte == 0 { b'@' } else { *byte })
        .filter(|byte| *byte != b'\n')
        .collect();
    for (state, is_use) in [("01", false), ("02", true), ("03", true)] {
        let line = [
            b"0000000000000000: 00000003 00000000 00000000 0001 ",
            state.as_bytes(),
            b" 41230 ",
            &path,
        ]
        .concat();
        let bound = is_use && path.first().is_some_and(|first| *first != b'@');
        assert_eq!(
            activity::unix_socket(&line).map(|socket| socket.path.to_vec()),
            bound.then_some(path.clone()),
            "{line:?}"
        );
    }
}

/// A line of `/proc/net/tcp` or `tcp6` for these addresses.
fn tcp_line(data: &[u8]) {
    let Some((numbers, rest)) = data.split_first_chunk::<32>() else {
        return;
    };
    let word = |at: usize| {
        numbers
            .get(at..at + 4)
            .and_then(|word| word.try_into().ok())
            .map_or(0, u32::from_ne_bytes)
    };
    let (own, other) = (
        u16::from_ne_bytes([numbers[0], numbers[1]]),
        u16::from_ne_bytes([numbers[2], numbers[3]]),
    );
    let (state, inode) = (numbers[4] % 12, u64::from(word(8)));
    let (ip, shown): (IpAddr, String) = if rest.is_empty() {
        (
            Ipv4Addr::from(word(12).to_ne_bytes()).into(),
            format!("{:08X}", word(12)),
        )
    } else {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&numbers[12..28]);
        let shown = [12, 16, 20, 24]
            .map(|at| format!("{:08X}", word(at)))
            .concat();
        (Ipv6Addr::from(bytes).to_canonical(), shown)
    };
    let line = format!(
        "   0: {shown}:{own:04X} {shown}:{other:04X} {state:02X} 00000000:00000000 00:00000000 00000000 33 0 {inode} 1 0 20"
    );
    let expected = (state != 0x0A).then_some((inode, SocketAddr::new(ip, other)));
    assert_eq!(stopped::peer_in_line(&line), expected, "{line}");
    let seen = activity::tcp_socket(&line).map(|socket| (socket.port, socket.state, socket.held));
    assert_eq!(seen, Some((own, state, inode != 0)), "{line}");
}

/// What the launcher is told: it understands what acc has said, all of it and nothing more; and what
/// it makes of any other text it would understand again as the same.
pub fn launch(data: &[u8]) {
    if let Ok(read) = LaunchRequest::parse(data) {
        assert_eq!(LaunchRequest::parse(&read.text()), Ok(read));
    }
    let (program, user) = described(data);
    let Some(told) = program.launch_request(user.as_ref()) else {
        let zero = program
            .argv
            .iter()
            .chain(program.env.iter().flat_map(|(k, v)| [k, v]))
            .any(|text| text.contains('\0'));
        assert!(
            zero || program
                .env
                .iter()
                .any(|(k, _)| k.is_empty() || k.contains('=')),
            "{program:?}"
        );
        return;
    };
    let text = told.text();
    let Ok(read) = LaunchRequest::parse(&text) else {
        panic!("not understood: {:?}", String::from_utf8_lossy(&text))
    };
    assert_eq!(read, told);
    let strings = |all: &[CString]| {
        all.iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(strings(&[read.program]), program.argv[..1]);
    assert_eq!(strings(&read.args), program.argv[1..]);
    assert_eq!(
        strings(&read.env),
        program
            .env
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>()
    );
    assert_eq!(read.user, user);
    assert_eq!(read.umask, program.umask);
    assert_eq!(read.limits, program.limits.list());
    assert_eq!(strings(&[read.dir, read.log]), ["/srv/a", "/srv/log"]);
    assert!(read.instance.is_some() && read.socket.is_none());
}

/// A program made of lines: a number, then arguments and variables.
fn described(data: &[u8]) -> (Program, Option<UserIds>) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let number = lines.next().and_then(|line| line.parse::<u32>().ok());
    let (args, vars): (Vec<&str>, Vec<&str>) = lines.partition(|line| !line.starts_with('$'));
    let program = Program {
        name: InstanceName::parse("a").expect("a good name"),
        argv: std::iter::once("/bin/a")
            .chain(args)
            .map(str::to_owned)
            .collect(),
        env: vars
            .iter()
            .map(|var| var[1..].split_once(':').unwrap_or((&var[1..], "")))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
        dir: "/srv/a".into(),
        log: "/srv/log".into(),
        stop_signal: 15,
        stop_timeout: AT_ONCE,
        socket: None,
        account: Account::SameAsAcc,
        umask: number.unwrap_or(0o022),
        limits: ProcessLimits {
            open_files: number.map(|n| OpenFiles::exactly(n.into())),
            ..ProcessLimits::default()
        },
        group: GroupLimits::default(),
    };
    (
        program,
        number.map(|uid| UserIds {
            uid,
            gid: uid / 2,
            groups: vec![uid / 2; uid as usize % 70],
        }),
    )
}

/// A field of the access log: one line, no quote, printable, and what was written can be read from
/// it.
pub fn access(data: &[u8]) {
    let mut line = String::new();
    access_log::quote(&mut line, data);
    assert!(
        line.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"'),
        "{line:?}"
    );
    let mut back = Vec::new();
    let mut left = line.as_bytes();
    while let Some((byte, rest)) = left.split_first() {
        if *byte == b'\\' {
            assert_eq!(rest.first(), Some(&b'x'), "{line:?}");
            let digits = std::str::from_utf8(&rest[1..3]).expect("two digits");
            back.push(u8::from_str_radix(digits, 16).expect("hexadecimal ones"));
            left = &rest[3..];
        } else {
            back.push(*byte);
            left = rest;
        }
    }
    assert_eq!(back, data);
}

/// The first line is a target, the others are headers, as far as they are any.
fn message(data: &[u8]) -> (&[u8], HeaderMap) {
    let mut lines = data.split(|b| *b == b'\n');
    let target = lines.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    for line in lines.take(64) {
        let Some(at) = line.iter().position(|b| *b == b':') else {
            continue;
        };
        let (name, value) = (
            HeaderName::from_bytes(&line[..at]),
            HeaderValue::from_bytes(line[at + 1..].trim_ascii()),
        );
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (target, headers)
}

/// Those that concern one connection only.
const HOP_BY_HOP: [&str; 7] = [
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "keep-alive",
    "proxy-connection",
    "http2-settings",
];

/// Where the edge listens.
const PORT: u16 = 8080;

/// Headers on their way to an instance and back: nothing of a connection, nothing that only the
/// edge may say, and done twice it is the same as done once.
pub fn header(data: &[u8]) {
    let (target, given) = message(data);
    let Ok(request) = hyper::Request::builder().uri(target).body(()) else {
        return;
    };
    let mut head = request.into_parts().0;
    head.headers = given;
    for client in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let scheme = if client.is_ipv6() {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let origin = Origin {
            client: Some(client),
            scheme,
            port: PORT,
            by_proxy: false,
        };
        for front in [Front::Public, Front::Wake] {
            let Ok(parsed) = read(front, origin, &head, &[]) else {
                continue;
            };
            let mut sent = head.headers.clone();
            headers::to_instance(front, &mut sent, &parsed);
            assert_from_edge(front, client, &sent, &parsed);
            let mut twice = sent.clone();
            headers::to_instance(front, &mut twice, &parsed);
            assert_eq!(twice, sent);
        }
    }
    for upgraded in [false, true] {
        let mut answer = head.headers.clone();
        headers::to_client(&mut answer, upgraded);
        assert_connectionless(&answer, upgraded);
        let once = answer.clone();
        headers::to_client(&mut answer, upgraded);
        assert_eq!(answer, once);
    }
}

fn assert_from_edge(front: Front, client: IpAddr, sent: &HeaderMap, parsed: &ParsedRequest) {
    assert_eq!(
        sent.get_all("host").iter().collect::<Vec<_>>(),
        [&parsed.host_header]
    );
    assert!(sent.get_all("cookie").iter().count() <= 1);
    for name in sent.keys() {
        // As an application may read it.
        let loose = name.as_str().replace('_', "-");
        assert!(
            !HOP_BY_HOP.contains(&name.as_str()) && !loose.starts_with("x-acc-"),
            "{name}"
        );
        assert!(
            parsed.upgrade || !["connection", "upgrade"].contains(&name.as_str()),
            "{name}"
        );
        if !loose.starts_with("x-forwarded-") && !EDGE_ONLY.contains(&loose.as_str()) {
            continue;
        }
        assert_eq!(*name, *loose, "it is read as what only the edge may say");
        let said = sent.get_all(name).iter().collect::<Vec<_>>();
        let (proto, who) = if client.is_ipv6() {
            ("https", format!("\"[{client}]\""))
        } else {
            ("http", client.to_string())
        };
        let host = parsed.host_header.to_str().expect("it was accepted");
        let own = match (front, loose.as_str()) {
            (Front::Wake, name) => SET_BY_NGINX.contains(&name) || OF_PROXIES.contains(&name),
            (_, "x-real-ip" | "x-forwarded-for") => said == [client.to_string().as_str()],
            (_, "x-forwarded-proto") => said == [proto],
            (_, "x-forwarded-port") => said == [PORT.to_string().as_str()],
            (_, "x-forwarded-host") => said == [host],
            (_, "forwarded") => {
                said == [format!("for={who};host=\"{host}\";proto={proto}").as_str()]
            }
            _ => false,
        };
        assert!(own, "{name}: {said:?}");
    }
}

fn assert_connectionless(answer: &HeaderMap, upgraded: bool) {
    assert!(
        answer
            .keys()
            .all(|name| !HOP_BY_HOP.contains(&name.as_str())),
        "{answer:?}"
    );
    assert!(
        upgraded || !answer.contains_key("connection") && !answer.contains_key("upgrade"),
        "{answer:?}"
    );
    assert!(
        answer.get("connection").is_none_or(|c| c == "upgrade"),
        "{answer:?}"
    );
}

thread_local! {
    /// Where the instance listens.
    static SOCKET: std::path::PathBuf = {
        let thread = format!("acc-fuzz-{}-{:?}.sock", std::process::id(), std::thread::current().id());
        std::env::temp_dir().join(thread)
    };
    static RUNTIME: OnceCell<tokio::runtime::Runtime> = const { OnceCell::new() };
}

/// What an instance sends for one request: an answer or an error, at once; of that answer nothing
/// that was not sent, nothing of its connection, and the body that its head announces. What follows
/// it is the answer to no other request.
pub fn answer(data: &[u8]) {
    let data = &data[..data.len().min(16 * 1024)];
    RUNTIME.with(|runtime| {
        let make = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
        };
        runtime.get_or_init(make).block_on(async {
            for (method, pooling) in [
                (Method::GET, false),
                (Method::GET, true),
                (Method::HEAD, true),
            ] {
                let asked = tokio::time::timeout(AT_ONCE, ask(data, method, pooling)).await;
                assert!(
                    asked.is_ok(),
                    "no end of {:?}",
                    String::from_utf8_lossy(data)
                );
            }
        });
    });
}

fn request(method: &Method) -> Box<hyper::Request<SendBody>> {
    let request = hyper::Request::builder()
        .method(method)
        .uri("/")
        .header("host", "a");
    Box::new(request.body(SendBody::empty()).expect("a request"))
}

async fn ask(data: &[u8], method: Method, pooling: bool) {
    let name = InstanceName::parse("a").expect("a good name");
    let path = SOCKET.with(Clone::clone);
    let gate = Gate {
        name,
        listen: Listen::Unix(path.clone()),
        run: 1,
        process: None,
        account: Account::SameAsAcc,
    };
    let upstreams = Upstreams::new(pooling);
    let _ = std::fs::remove_file(&path);
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let instance = async move {
        let (theirs, _) = listener.accept().await.expect("a connection");
        let theirs = theirs.into_std().expect("the kernel's");
        std::io::Write::write_all(&mut &theirs, data).expect("it fits");
        theirs.shutdown(std::net::Shutdown::Write).expect("its end");
        theirs
    };
    let (response, _theirs) = tokio::join!(upstreams.request(&gate, request(&method)), instance);
    let Ok(response) = response else { return };
    let (mut head, body) = response.into_parts();
    let given = head.headers.clone();
    headers::to_client(&mut head.headers, false);
    assert_connectionless(&head.headers, false);
    if let Ok(body) = Limited::new(body, data.len()).collect().await {
        let body = body.to_bytes();
        assert!(method != Method::HEAD || body.is_empty(), "{body:?}");
        if !given.contains_key("transfer-encoding") && !body.is_empty() {
            assert!(
                data.ends_with(&body) || given.contains_key("content-length"),
                "{body:?} of {data:?}"
            );
            assert!(
                data.windows(body.len()).any(|sent| sent == body),
                "{body:?} of {data:?}"
            );
        }
        let bodiless = method == Method::HEAD
            || head.status.is_informational()
            || [204, 304].contains(&head.status.as_u16());
        if let (Some(length), false) = (
            given.get("content-length"),
            bodiless || given.contains_key("transfer-encoding"),
        ) {
            assert_eq!(
                length.to_str().ok().and_then(|text| text.parse().ok()),
                Some(body.len()),
                "{data:?}"
            );
        }
    }
    // Nobody listens there: an answer could only be what is left of the first.
    let second = upstreams.request(&gate, request(&Method::GET)).await;
    assert!(
        matches!(
            second,
            Err(UpstreamError::Connect { .. } | UpstreamError::Broken { .. })
        ),
        "a second answer of {data:?}"
    );
}
