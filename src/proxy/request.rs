//! Reads the head of a request: which host it is for, whether it may wake an instance, whether it
//! is a browser's navigation, whether it may be sent again.
//!
//! Pure: it reads the head only, never the body, and changes nothing.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Version};

use super::front::Front;
use super::nginx_headers::{
    X_ACC_AGAIN, X_ACC_CONNECT, X_ACC_HOST, X_ACC_REQUEST, X_ACC_STATUS, X_REAL_IP,
};
use super::replay_notes::{RequestId, request_id};
use super::trusted_proxies::Origin;
use crate::config::Scheme;
use crate::domain::name::{HostName, NameFault};
use crate::domain::rule::{Facts, Rule, Verdict, judge};
use crate::driver::upstream::RawTarget;

/// Why a request is for no instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostFault {
    /// It names no host.
    Missing,
    /// It names more than one.
    Twice,
    /// The name is not a valid host.
    Malformed,
    /// The host is valid, but no application can have it (an address, `_`, longer than DNS allows).
    Foreign,
}

/// What the edge before acc has tried already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// Nothing reached the instance.
    Nothing,
    /// The instance may have read it.
    MaybeSeen,
    /// The instance got it and did not respond in time.
    TimedOut,
}

/// The content of a request's head.
#[derive(Debug, Clone)]
pub struct ParsedRequest {
    /// The host that it is for.
    pub host: HostName,
    /// The host with the port, as the instance gets it.
    pub host_header: HeaderValue,
    /// The client, and how it reached the edge.
    pub origin: Origin,
    /// Whether it may wake an instance, and whether it counts as use.
    pub verdict: Verdict,
    /// A browser shows the response to a person.
    pub navigation: bool,
    /// The client wants another protocol on this connection.
    pub upgrade: bool,
    /// What was tried before.
    pub tried: Tried,
    /// The id that nginx gave it.
    pub id: Option<RequestId>,
    /// nginx has asked another worker before, which ended without a response.
    pub again: bool,
}

/// Reads the head of a request that arrived at `front`; `origin`: its client.
///
/// # Errors
/// It is for no instance: see [`HostFault`].
pub fn read(
    front: Front,
    origin: Origin,
    head: &Parts,
    rules: &[Rule],
) -> Result<ParsedRequest, HostFault> {
    let host_header = named_host(head)?;
    let routed = match front {
        Front::Wake => head.headers.get(X_ACC_HOST).unwrap_or(&host_header),
        Front::Public => &host_header,
    };
    let host = parse_host(routed.as_bytes())?;
    let facts = Facts {
        path: path(head),
        method: head.method.as_str(),
        user_agent: text(&head.headers, &header::USER_AGENT),
        client: origin.client,
    };
    Ok(ParsedRequest {
        origin,
        verdict: judge(rules, &facts),
        navigation: is_navigation(&head.method, &head.headers),
        upgrade: asks_for_websocket(head),
        tried: if front == Front::Wake {
            tried(&head.headers)
        } else {
            Tried::Nothing
        },
        id: if front == Front::Wake {
            request_id(text(&head.headers, &X_ACC_REQUEST))
        } else {
            None
        },
        again: front == Front::Wake && !text(&head.headers, &X_ACC_AGAIN).is_empty(),
        host_header: if front == Front::Public {
            normalized(host_header, &host)
        } else {
            host_header
        },
        host,
    })
}

/// The path as the client sent it, which is what nginx compares with the rules.
fn path(head: &Parts) -> &str {
    let raw = head
        .extensions
        .get::<RawTarget>()
        .and_then(|raw| std::str::from_utf8(raw.path_and_query()).ok());
    raw.map_or_else(
        || head.uri.path(),
        |raw| raw.split('?').next().unwrap_or(raw),
    )
}

/// The host in lower case and without a final dot, and the port as it was sent: the form that nginx
/// forwards.
fn normalized(host_header: HeaderValue, host: &HostName) -> HeaderValue {
    let (bytes, host) = (host_header.as_bytes(), host.as_str().as_bytes());
    if bytes == host {
        return host_header;
    }
    let port = bytes
        .iter()
        .rposition(|byte| *byte == b':')
        .map_or(&[][..], |colon| &bytes[colon..]);
    let port = if port.len() > 1 { port } else { &[] };
    if bytes.strip_prefix(host) == Some(port) {
        return host_header;
    }
    HeaderValue::from_bytes(&[host, port].concat()).unwrap_or(host_header)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
}

/// The one host that a request names: `:authority` or an absolute target before the `Host` header
/// (RFC 9112 section 3.2).
fn named_host(head: &Parts) -> Result<HeaderValue, HostFault> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(HostFault::Twice);
    }
    let Some(authority) = head.uri.authority() else {
        return host.cloned().ok_or(HostFault::Missing);
    };
    if authority.as_str().contains('@') {
        return Err(HostFault::Malformed);
    }
    // On HTTP/2 the two must agree (RFC 9113 section 8.3.1); on HTTP/1 the target simply wins.
    if head.version == Version::HTTP_2
        && host.is_some_and(|host| {
            !host
                .as_bytes()
                .eq_ignore_ascii_case(authority.as_str().as_bytes())
        })
    {
        return Err(HostFault::Twice);
    }
    HeaderValue::from_str(authority.as_str()).map_err(|_| HostFault::Malformed)
}

fn parse_host(host_header: &[u8]) -> Result<HostName, HostFault> {
    let text = std::str::from_utf8(host_header)
        .ok()
        .filter(|text| text.is_ascii())
        .ok_or(HostFault::Malformed)?;
    HostName::parse(text).map_err(|fault| match fault {
        NameFault::Empty if text.is_empty() => HostFault::Missing,
        NameFault::TooLong(..) if is_host(text) => HostFault::Foreign,
        NameFault::Character if is_host(text) => HostFault::Foreign,
        _ => HostFault::Malformed,
    })
}

/// Whether it has the form of a host (RFC 3986 section 3.2.2) although no application can have it.
fn is_host(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        let port = port
            .strip_prefix(':')
            .unwrap_or(if port.is_empty() { "" } else { "x" });
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && port.bytes().all(|b| b.is_ascii_digit());
    }
    let host = text.rsplit_once(':').map_or(text, |(host, port)| {
        if port.bytes().all(|b| b.is_ascii_digit()) {
            host
        } else {
            text
        }
    });
    let host = host.strip_suffix('.').unwrap_or(host);
    host.split('.').all(|label| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_~".contains(&b))
    })
}

/// The client of a request from nginx, which sets all other headers for the instance itself.
pub(super) fn origin_from_nginx(headers: &HeaderMap) -> Origin {
    let client = text(headers, &X_REAL_IP)
        .parse()
        .ok()
        .map(|ip: std::net::IpAddr| ip.to_canonical());
    Origin {
        client,
        scheme: Scheme::Http,
        port: 0,
        by_proxy: false,
    }
}

/// Whether a browser will show the response to a person. Only then a page is useful; a prefetch is
/// not shown.
fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    let shown = || {
        matches!(
            text(headers, &HeaderName::from_static("sec-fetch-dest")),
            "" | "document"
        )
    };
    *method == Method::GET
        && text(headers, &header::ACCEPT).contains("text/html")
        && shown()
        && !text(headers, &HeaderName::from_static("sec-purpose")).contains("prefetch")
}

/// Whether it asks for WebSocket and nothing else. Any other protocol, above all `h2c` (deprecated
/// by RFC 9113 section 3.1), would be a tunnel in which the client could set headers that only the
/// edge may set.
fn asks_for_websocket(head: &Parts) -> bool {
    let mut parsed = head.headers.get_all(header::UPGRADE).iter();
    head.version == Version::HTTP_11
        && parsed.next().is_some_and(|to| {
            to.as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"websocket")
        })
        && parsed.next().is_none()
        && head
            .headers
            .get_all(header::CONNECTION)
            .iter()
            .any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case("upgrade")))
}

/// Whether the body is sent as it is, or in chunks and in no other coding.
pub(super) fn is_chunked_or_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|first| {
        first
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"chunked")
    }) && codings.next().is_none()
}

/// The elements of a comma-separated header.
pub(super) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value
        .to_str()
        .unwrap_or("")
        .split(',')
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// nginx lists one entry for each upstream it tried, `-` for one it never reached.
fn tried(headers: &HeaderMap) -> Tried {
    if text(headers, &X_ACC_STATUS).contains("504") {
        return Tried::TimedOut;
    }
    if text(headers, &X_ACC_CONNECT)
        .bytes()
        .any(|b| b.is_ascii_digit())
    {
        Tried::MaybeSeen
    } else {
        Tried::Nothing
    }
}

/// Whether the method itself says that sending it twice does no harm. The body is checked
/// elsewhere.
#[must_use]
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::proxy::TrustedProxies;
    use hyper::Request;

    fn read(
        front: Front,
        peer: Option<IpAddr>,
        head: &Parts,
        rules: &[Rule],
    ) -> Result<ParsedRequest, HostFault> {
        let origin = match front {
            Front::Public => TrustedProxies::default().origin(peer, 80, &head.headers),
            Front::Wake => origin_from_nginx(&head.headers),
        };
        super::read(front, origin, head, rules)
    }

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        request.body(()).unwrap().into_parts().0
    }

    fn host_of(target: &str, hosts: &[&str]) -> Result<String, HostFault> {
        let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        read(Front::Public, None, &head(target, &headers), &[])
            .map(|parsed| parsed.host.as_str().to_owned())
    }

    #[test]
    fn exactly_one_host() {
        assert_eq!(
            host_of("/", &["Shop.Example.org:8080"]),
            Ok("shop.example.org".into())
        );
        assert_eq!(
            host_of("/", &["shop.example.org."]),
            Ok("shop.example.org".into())
        );
        assert_eq!(host_of("/", &[]), Err(HostFault::Missing));
        assert_eq!(host_of("/", &[""]), Err(HostFault::Missing));
        assert_eq!(host_of("/", &["a.org", "a.org"]), Err(HostFault::Twice));
        assert_eq!(host_of("http://a.org/x", &["b.org"]), Ok("a.org".into()));
        assert_eq!(host_of("http://a.org:81/x", &[]), Ok("a.org".into()));
        assert_eq!(
            host_of("http://a.org/x", &["b.org", "c.org"]),
            Err(HostFault::Twice)
        );
        assert_eq!(host_of("http://me@a.org/x", &[]), Err(HostFault::Malformed));
    }

    #[test]
    fn the_host_is_told_as_nginx_tells_it() {
        for (host_header, expected) in [
            ("a.org", "a.org"),
            ("a.org:80", "a.org:80"),
            ("A.Org", "a.org"),
            ("a.org:", "a.org"),
            ("a.org.", "a.org"),
            ("a.org.:8080", "a.org:8080"),
            ("A.org.:8080", "a.org:8080"),
        ] {
            let parsed = read(
                Front::Public,
                None,
                &head("/", &[("host", host_header)]),
                &[],
            )
            .unwrap();
            assert_eq!(parsed.host_header, expected, "{host_header}");
        }
    }

    #[test]
    fn malformed_is_not_the_same_as_unknown() {
        let long = format!("{}example.org", "a.".repeat(145));
        for foreign in [
            "a_b.org",
            "[::1]",
            "[::1]:80",
            &long,
            "-a.org",
            &format!("{}.org", "a".repeat(64)),
        ] {
            assert_eq!(
                host_of("/", &[foreign]),
                Err(HostFault::Foreign),
                "{foreign}"
            );
        }
        for bad in [
            "a..b",
            "..",
            ".",
            "a b",
            "a/b",
            "../a",
            "ä.org",
            "a.org:x",
            "a.org:80:90",
            "[::1",
            "[x]",
            "[::1]x",
            "a%2eb",
            "a\tb",
        ] {
            assert_eq!(host_of("/", &[bad]), Err(HostFault::Malformed), "{bad}");
        }
        assert_eq!(host_of("/", &["127.0.0.1"]), Ok("127.0.0.1".into()));
    }

    #[test]
    fn on_http2_the_two_names_must_agree() {
        let mut parts = head("http://a.org/", &[("host", "b.org")]);
        parts.version = Version::HTTP_2;
        assert_eq!(
            read(Front::Public, None, &parts, &[]).unwrap_err(),
            HostFault::Twice
        );
        parts
            .headers
            .insert("host", HeaderValue::from_static("A.org"));
        assert_eq!(
            read(Front::Public, None, &parts, &[])
                .unwrap()
                .host
                .as_str(),
            "a.org"
        );
    }

    #[test]
    fn only_nginx_says_who_the_client_is() {
        let headers = [
            ("host", "a.org"),
            ("x-real-ip", "9.9.9.9"),
            ("x-acc-host", "b.org"),
            ("x-acc-connect", "0.001"),
        ];
        let peer = "::ffff:10.0.0.1".parse().ok();
        let public = read(Front::Public, peer, &head("/", &headers), &[]).unwrap();
        assert_eq!(public.origin.client, "10.0.0.1".parse().ok());
        assert_eq!(
            (public.host.as_str(), public.tried),
            ("a.org", Tried::Nothing)
        );
        let wake = read(Front::Wake, None, &head("/", &headers), &[]).unwrap();
        assert_eq!(wake.origin.client, "9.9.9.9".parse().ok());
        assert_eq!(
            (wake.host.as_str(), wake.tried),
            ("b.org", Tried::MaybeSeen)
        );
    }

    #[test]
    fn what_nginx_tried() {
        let tried_of = |connect: &str, status: &str| {
            read(
                Front::Wake,
                None,
                &head(
                    "/",
                    &[
                        ("host", "a"),
                        ("x-acc-connect", connect),
                        ("x-acc-status", status),
                    ],
                ),
                &[],
            )
            .unwrap()
            .tried
        };
        assert_eq!(tried_of("-", "502"), Tried::Nothing);
        assert_eq!(tried_of("", ""), Tried::Nothing);
        assert_eq!(tried_of("0.000", "502"), Tried::MaybeSeen);
        assert_eq!(tried_of("-, 0.001", "502, 502"), Tried::MaybeSeen);
        assert_eq!(tried_of("0.001", "504"), Tried::TimedOut);
    }

    #[test]
    fn a_page_is_for_people_only() {
        let is = |method: Method, headers: &[(&str, &str)]| {
            is_navigation(&method, &head("/", headers).headers)
        };
        let html = ("accept", "text/html,application/xhtml+xml");
        assert!(is(Method::GET, &[html]));
        assert!(is(Method::GET, &[html, ("sec-fetch-dest", "document")]));
        assert!(!is(Method::POST, &[html]));
        assert!(!is(Method::HEAD, &[html]));
        assert!(!is(Method::GET, &[]));
        assert!(!is(Method::GET, &[("accept", "*/*")]));
        assert!(!is(Method::GET, &[html, ("sec-fetch-dest", "iframe")]));
        assert!(!is(
            Method::GET,
            &[html, ("sec-purpose", "prefetch;prerender")]
        ));
    }

    #[test]
    fn upgrades_need_both_headers() {
        let is = |headers: &[(&str, &str)]| asks_for_websocket(&head("/", headers));
        assert!(is(&[
            ("upgrade", "websocket"),
            ("connection", "keep-alive, Upgrade")
        ]));
        assert!(!is(&[("upgrade", "websocket")]));
        assert!(!is(&[("connection", "upgrade")]));
        assert!(is(&[("upgrade", "WebSocket"), ("connection", "upgrade")]));
        for other in [
            "h2c",
            "H2C",
            "h2c, websocket",
            "websocket, h2c",
            "TLS/1.0",
            "websocketx",
            "",
        ] {
            assert!(
                !is(&[
                    ("upgrade", other),
                    ("connection", "upgrade, http2-settings")
                ]),
                "{other}"
            );
        }
        assert!(!is(&[
            ("upgrade", "websocket"),
            ("upgrade", "h2c"),
            ("connection", "upgrade")
        ]));
    }

    #[test]
    fn rules_see_path_method_agent_and_client() {
        let rule = Rule {
            path: Some("/ping".into()),
            client: "10.0.0.0/8".parse().ok(),
            ..Rule::default()
        };
        let verdict = |peer: &str| {
            read(
                Front::Public,
                peer.parse().ok(),
                &head("/ping?x", &[("host", "a")]),
                std::slice::from_ref(&rule),
            )
            .unwrap()
            .verdict
        };
        assert_eq!(
            verdict("10.1.1.1"),
            Verdict {
                wake: false,
                counts: false
            }
        );
        assert_eq!(
            verdict("11.1.1.1"),
            Verdict {
                wake: true,
                counts: true
            }
        );
    }
}
