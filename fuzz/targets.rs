//! What is fuzzed: each function takes any bytes and panics when a promise is broken.
//!
//! `cargo fuzz` drives them from `fuzz_targets/`, and `tests/fuzz.rs` for a few seconds in every
//! test run.

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use acc::config::env::Env;
use acc::config::{self, Config, Scheme};
use acc::domain::name::{HostName, InstanceName};
use acc::domain::rule::Rule;
use acc::driver::supervisor::supervisord;
use acc::host::stat::parse_stat;
use acc::models::load_model;
use acc::proxy::nginx_headers::X_ACC_HOST;
use acc::proxy::request::read;
use acc::proxy::{Front, Origin};
use acc::render::Templates;
use acc::render::nginx::{Allowance, NginxEntry, text};
use acc::service::request::Request;

fn utf8(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}

/// The way of a host header to an instance: whatever is accepted is a name that is safe in a path,
/// a map and a log, and is read the same way again.
pub fn host(data: &[u8]) {
    let given = utf8(data);
    if let Ok(host) = HostName::parse(&given) {
        let name = host.as_str();
        assert!(
            name.len() <= 253 && !name.starts_with(['.', '-']) && !name.contains(".."),
            "{name:?}"
        );
        assert!(
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.'),
            "{name:?}"
        );
        assert_eq!(HostName::parse(name).as_ref(), Ok(&host), "{given:?}");
    }
    if let Ok(name) = InstanceName::parse(&given) {
        assert_eq!(name.as_str(), given);
        assert!(HostName::parse(&given).is_ok(), "{given:?}");
    }
    let mut lines = data.split(|b| *b == b'\n');
    let target = lines.next().unwrap_or_default();
    let mut builder = hyper::Request::builder().uri(utf8(target));
    for (number, line) in lines.take(4).enumerate() {
        let key = [
            hyper::header::HOST,
            X_ACC_HOST,
            hyper::header::HOST,
            hyper::header::UPGRADE,
        ][number]
            .clone();
        builder = builder.header(key, line);
    }
    let Ok(request) = builder.body(()) else {
        return;
    };
    let head = request.into_parts().0;
    let client = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let origin = Origin {
        client,
        scheme: Scheme::Http,
        port: 80,
        by_proxy: false,
    };
    for front in [Front::Public, Front::Wake] {
        if let Ok(parsed) = read(front, origin, &head, &[]) {
            assert_eq!(
                HostName::parse(parsed.host.as_str()).as_ref(),
                Ok(&parsed.host)
            );
            if front == Front::Public {
                // What only the edge may say is not believed from a client.
                let host_header = parsed.host_header.to_str().unwrap_or_default();
                assert_eq!(HostName::parse(host_header).as_ref(), Ok(&parsed.host));
            }
        }
    }
}

/// A config file: never a panic, every fault on a line that exists, and what is good is good again.
pub fn config(data: &[u8]) {
    let text = utf8(data);
    let parse = || config::parse(&text, None, &Env::bare(0, "/srv"));
    match parse() {
        Ok(good) => assert_eq!(parse().as_ref().ok(), Some(&good)),
        Err(faults) => assert!(!faults.to_string().is_empty()),
    }
}

thread_local! {
    static MODEL: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
    static TEMPLATES: Templates = Templates::new(None).expect("the built-in templates are good");
    static CONFIG: Config = config::parse("", None, &Env::bare(0, "/srv")).expect("no setting is good");
}

/// A `model.toml`: never a panic, and faults with a message.
pub fn model(data: &[u8]) {
    MODEL.with(|dir| {
        let dir = dir.get_or_init(|| tempfile::tempdir().expect("a folder"));
        let model = dir.path().join("it");
        let _ = std::fs::create_dir(&model);
        if std::fs::write(model.join("model.toml"), data).is_err() {
            return;
        }
        if let Err(e) = load_model(&model) {
            assert!(!e.to_string().is_empty());
        }
    });
}

/// A request on the control socket: what is read is written the same way again.
pub fn control(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        let again = serde_json::to_vec(&request).expect("a request can be written");
        assert_eq!(
            serde_json::from_slice::<Request>(&again).ok(),
            Some(request)
        );
    }
}

/// An answer of supervisord: a value, a fault, or an error that says so; never a panic, however
/// deep or broken.
pub fn xmlrpc(data: &[u8]) {
    if let Err(e) = supervisord::read_answer(&utf8(data)) {
        assert!(!e.is_empty());
    }
}

/// `/proc/PID/stat` of a process that has chosen its own name: whatever the name is, the fields are
/// the kernel's.
pub fn stat(data: &[u8]) {
    let _ = parse_stat(data);
    // What the kernel shows of a name is 15 bytes at most, without a zero byte.
    let name: Vec<u8> = data
        .iter()
        .copied()
        .filter(|byte| *byte != 0)
        .take(15)
        .collect();
    let with = |name: &[u8]| {
        parse_stat(
            &[
                b"42 (",
                name,
                b") S 1 43 44 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 777 9 9\n",
            ]
            .concat(),
        )
    };
    assert!(with(b"a").is_some());
    assert_eq!(with(&name), with(b"a"), "{name:?}");
}

/// Texts from the config and from operators in nginx's configuration: each stays one word, whatever
/// it holds.
pub fn nginx(data: &[u8]) {
    let all = utf8(data);
    let mut parts = all.splitn(4, '\n');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    let rule = Rule {
        path: Some(part()),
        method: Some(part()),
        user_agent: Some(part()),
        ..Rule::default()
    };
    let host = HostName::parse(&part()).ok();
    let harmless = Rule {
        path: Some("/x".into()),
        method: Some("GET".into()),
        user_agent: Some("x".into()),
        ..Rule::default()
    };
    let harmless_host = host
        .as_ref()
        .map(|_| HostName::parse("x.example.org").expect("a good host"));
    let Some(rendered) = render(rule, host) else {
        return;
    };
    let expected = render(harmless, harmless_host).expect("harmless texts are rendered");
    let (shape, expected) = (shape(&rendered), shape(&expected));
    assert!(
        shape.is_ok() && shape == expected,
        "{all:?} is not one word: {shape:?}"
    );
}

fn render(rule: Rule, host: Option<HostName>) -> Option<String> {
    let mut config = CONFIG.with(Config::clone);
    config.home = Path::new("/srv/home").into();
    config.run = Path::new("/srv/run").into();
    config.rules = vec![rule];
    let name = InstanceName::parse("a").expect("a good name");
    let hosts: Vec<HostName> = host.into_iter().collect();
    let entries = [NginxEntry {
        name: &name,
        hosts: &hosts,
        tcp: None,
    }];
    let allowance = Allowance {
        run_as: None,
        open_files: None,
        connections: 64,
    };
    TEMPLATES.with(|templates| text(templates, &config, &allowance, &entries).ok())
}

/// What nginx sees but for the texts themselves: how many words stand before each `;`, `{` and `}`
/// (see `ngx_conf_read_token`).
fn shape(text: &str) -> Result<Vec<(usize, char)>, String> {
    let mut shape = Vec::new();
    let (mut words, mut chars) = (0, text.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            _ if c.is_ascii_whitespace() => {}
            '#' => while chars.next().is_some_and(|c| c != '\n') {},
            ';' | '{' | '}' => {
                shape.push((words, c));
                words = 0;
            }
            '"' | '\'' => {
                quoted(&mut chars, c)?;
                words += 1;
                if chars
                    .peek()
                    .is_some_and(|next| !next.is_ascii_whitespace() && !";{)".contains(*next))
                {
                    return Err(format!("unexpected {:?} after a quoted word", chars.peek()));
                }
            }
            _ => {
                plain(&mut chars, c);
                words += 1;
            }
        }
    }
    Ok(shape)
}

fn quoted(chars: &mut impl Iterator<Item = char>, quote: char) -> Result<(), String> {
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            _ if c == quote => return Ok(()),
            _ => {}
        }
    }
    Err("a quoted word without an end".into())
}

fn plain(chars: &mut std::iter::Peekable<impl Iterator<Item = char>>, first: char) {
    let mut last = first;
    if first == '\\' {
        chars.next();
    }
    while let Some(next) = chars.peek() {
        match next {
            _ if next.is_ascii_whitespace() || *next == ';' => return,
            '{' if last != '$' => return,
            _ => {}
        }
        last = *next;
        chars.next();
        if last == '\\' {
            chars.next();
        }
    }
}
