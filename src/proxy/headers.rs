//! The headers of a forwarded request and its response: removes those that concern one connection
//! only, and sets those that only the edge may set.
//!
//! It never forwards a client's header that only an edge may set (`domain::edge_headers`), nor an
//! upgrade to a protocol other than WebSocket.

use std::fmt::Write;
use std::net::IpAddr;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::front::Front;
use super::nginx_headers::{X_ACC_LOG, X_REAL_IP};
use super::request::{ParsedRequest, tokens};
use super::trusted_proxies::{X_FORWARDED_FOR, X_FORWARDED_PORT, X_FORWARDED_PROTO};
use crate::domain::edge_headers::{OF_PROXIES, SET_BY_NGINX, is_edge_only};

/// nginx's own header, widely used by applications.
pub const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers about one connection instead of the message (RFC 9110 section 7.6.1), including some
/// that were never standardised.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Turns the headers of a client into those that the instance gets.
pub fn to_instance(front: Front, headers: &mut HeaderMap, parsed: &ParsedRequest) {
    let upgrade = parsed
        .upgrade
        .then(|| headers.get(header::UPGRADE).cloned())
        .flatten();
    remove_connection(headers);
    // acc itself sends "100-continue" when it reads the body.
    headers.remove(header::EXPECT);
    remove_forged(front, headers, parsed.origin.by_proxy);
    join_cookies(headers);
    headers.insert(header::HOST, parsed.host_header.clone());
    if front == Front::Public {
        set_forwarded(headers, parsed);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Converts the headers of an instance to those that the client gets; an upgraded response keeps
/// the two that announce the upgrade.
pub fn to_client(headers: &mut HeaderMap, upgraded: bool) {
    let upgrade = if upgraded {
        headers.get(header::UPGRADE).cloned()
    } else {
        None
    };
    // Chunks take precedence over a length (RFC 9112 section 6.3); a repeated length is forwarded
    // once.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    } else if let Some(length) = headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .nth(1)
        .cloned()
    {
        headers.insert(header::CONTENT_LENGTH, length);
    }
    remove_connection(headers);
    headers.remove(X_ACC_LOG);
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Whether a response is a stream of events (WHATWG HTML, "server-sent events"), which has no end
/// of its own.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind
            .as_bytes()
            .split(|b| *b == b';')
            .next()
            .unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    })
}

/// Whether a response asks not to be buffered (`X-Accel-Buffering: no`). The header is removed: it
/// is meant for the edge only.
pub fn is_unbuffered(headers: &mut HeaderMap) -> bool {
    headers
        .remove(X_ACCEL_BUFFERING)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"no"))
}

fn remove_connection(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(tokens)
            .filter_map(|token| token.parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    // Most messages have none of them: one pass over the names is cheaper than nine lookups.
    if headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
}

/// Removes the headers that only an edge may set. nginx has already done so in its requests.
fn remove_forged(front: Front, headers: &mut HeaderMap, by_proxy: bool) {
    let forged: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_forged(front, by_proxy, name.as_str()))
        .cloned()
        .collect();
    for name in forged {
        headers.remove(name);
    }
}

/// Headers that nginx or a trusted proxy may set stay, but not other spellings of their names.
fn is_forged(front: Front, by_proxy: bool, name: &str) -> bool {
    let by_nginx = front == Front::Wake;
    is_edge_only(name)
        && !(by_nginx && SET_BY_NGINX.contains(&name))
        && !((by_nginx || by_proxy) && OF_PROXIES.contains(&name))
}

/// HTTP/2 may split cookies over several headers, HTTP/1 may not (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

fn set_forwarded(headers: &mut HeaderMap, parsed: &ParsedRequest) {
    let proto = parsed.origin.scheme.as_str();
    // All six at once, so that the map grows once.
    headers.reserve(6);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    headers.insert(X_FORWARDED_PORT, HeaderValue::from(parsed.origin.port));
    headers.insert(X_FORWARDED_HOST, parsed.host_header.clone());
    let Some(forwarded) = forwarded(parsed, proto) else {
        return;
    };
    // The address is written once, and reused for the two other headers.
    let place = match parsed.origin.client {
        Some(IpAddr::V4(_)) => forwarded.find(';').map(|end| (4, end)),
        Some(IpAddr::V6(_)) => forwarded.find(']').map(|end| (6, end)),
        None => None,
    };
    let forwarded = Bytes::from(forwarded);
    if let Some(client) = place
        .and_then(|(start, end)| HeaderValue::from_maybe_shared(forwarded.slice(start..end)).ok())
    {
        headers.insert(X_FORWARDED_FOR, client.clone());
        headers.insert(X_REAL_IP, client);
    }
    if let Ok(forwarded) = HeaderValue::from_maybe_shared(forwarded) {
        headers.insert(header::FORWARDED, forwarded);
    }
}

/// RFC 7239, with the host quoted because of its port.
fn forwarded(parsed: &ParsedRequest, proto: &str) -> Option<String> {
    let mut text = String::with_capacity(96);
    match parsed.origin.client {
        Some(IpAddr::V4(ip)) => write!(text, "for={ip};").ok()?,
        Some(IpAddr::V6(ip)) => write!(text, "for=\"[{ip}]\";").ok()?,
        None => {}
    }
    // An accepted host contains no quote and no backslash.
    for part in [
        "host=\"",
        parsed.host_header.to_str().ok()?,
        "\";proto=",
        proto,
    ] {
        text.push_str(part);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Scheme;
    use crate::domain::name::HostName;
    use crate::domain::rule::Verdict;
    use crate::proxy::request::Tried;
    use crate::proxy::trusted_proxies::Origin;

    fn parsed(client: &str, upgrade: bool) -> ParsedRequest {
        ParsedRequest {
            host: HostName::parse("a.org").unwrap(),
            host_header: HeaderValue::from_static("a.org:8080"),
            origin: Origin {
                client: client.parse().ok(),
                scheme: Scheme::Http,
                port: 8080,
                by_proxy: false,
            },
            verdict: Verdict {
                wake: true,
                counts: true,
            },
            navigation: false,
            upgrade,
            tried: Tried::Nothing,
            id: None,
            again: false,
        }
    }

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn nothing_of_one_connection_is_passed_on() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Own"),
            ("connection", "other"),
            ("x-own", "1"),
            ("other", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("proxy-connection", "x"),
            ("proxy-authorization", "x"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
        ]);
        to_instance(Front::Wake, &mut headers, &parsed("1.1.1.1", false));
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "host"]);
    }

    #[test]
    fn nothing_of_the_list_is_passed_on() {
        for front in [Front::Public, Front::Wake] {
            for name in crate::domain::edge_headers::EDGE_ONLY
                .iter()
                .filter(|name| !SET_BY_NGINX.contains(name) && !OF_PROXIES.contains(name))
            {
                let mut headers = map(&[(name, "evil"), (&name.replace('-', "_"), "evil")]);
                to_instance(front, &mut headers, &parsed("1.1.1.1", false));
                assert!(headers.values().all(|value| value != "evil"), "{headers:?}");
            }
        }
    }

    #[test]
    fn clients_cannot_speak_for_the_edge() {
        let forged = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "/evil"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("x_real_ip", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("x-acc-connect", "1"),
            ("x-acc-anything", "1"),
            ("x_acc_host", "1"),
            ("proxy", "http://evil"),
            ("x-other", "kept"),
        ];
        let mut headers = map(&forged);
        let mut parsed = parsed("2001:db8::1", false);
        (parsed.origin.scheme, parsed.origin.port) = (Scheme::Https, 443);
        to_instance(Front::Public, &mut headers, &parsed);
        assert_eq!(headers["x-forwarded-for"], "2001:db8::1");
        assert_eq!(headers["x-real-ip"], "2001:db8::1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "a.org:8080");
        assert_eq!(headers["x-forwarded-port"], "443");
        assert_eq!(
            headers["forwarded"],
            "for=\"[2001:db8::1]\";host=\"a.org:8080\";proto=https"
        );
        assert_eq!(headers["host"], "a.org:8080");
        assert_eq!(headers["x-other"], "kept");
        assert_eq!(headers.len(), 8, "{headers:?}");
    }

    #[test]
    fn the_address_that_a_network_of_proxies_says_is_passed_on_of_a_trusted_one() {
        for (front, by_proxy, passes) in [
            (Front::Public, false, false),
            (Front::Public, true, true),
            (Front::Wake, false, true),
        ] {
            let mut headers = map(&[
                ("cf-connecting-ip", "9.9.9.9"),
                ("cf_connecting_ip", "6.6.6.6"),
                ("x-client-ip", "6.6.6.6"),
            ]);
            let mut parsed = parsed("9.9.9.9", false);
            parsed.origin.by_proxy = by_proxy;
            to_instance(front, &mut headers, &parsed);
            assert_eq!(
                headers.contains_key("cf-connecting-ip"),
                passes,
                "{front:?}"
            );
            assert!(
                headers.values().all(|value| value != "6.6.6.6"),
                "{headers:?}"
            );
        }
    }

    #[test]
    fn what_nginx_said_stays() {
        let mut headers = map(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-acc-connect", "-"),
            ("x-acc-host", "a.org"),
            ("x_real_ip", "6.6.6.6"),
        ]);
        to_instance(Front::Wake, &mut headers, &parsed("1.2.3.4", false));
        assert_eq!(headers["x-forwarded-for"], "1.2.3.4");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers.len(), 4, "{headers:?}");
    }

    #[test]
    fn upgrades_keep_their_two_headers() {
        let mut headers = map(&[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "k"),
        ]);
        to_instance(Front::Public, &mut headers, &parsed("1.1.1.1", true));
        assert_eq!(
            (&headers["connection"], &headers["upgrade"]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
        assert_eq!(headers["sec-websocket-key"], "k");
        let mut answer = map(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        to_client(&mut answer, true);
        assert_eq!(answer.len(), 2);
        to_client(&mut answer, false);
        assert!(answer.is_empty());
    }

    #[test]
    fn cookies_are_one_header() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        to_instance(Front::Public, &mut headers, &parsed("1.1.1.1", false));
        assert_eq!(headers.get_all("cookie").iter().count(), 1);
        assert_eq!(headers["cookie"], "a=1; b=2; c=3");
    }

    #[test]
    fn of_several_lengths_of_an_answer_one_is_told() {
        let length = |all: &[(HeaderName, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in all {
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
            to_client(&mut headers, false);
            headers
                .get_all(header::CONTENT_LENGTH)
                .iter()
                .map(|v| v.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(length(&[(header::CONTENT_LENGTH, "5")]), ["5"]);
        assert_eq!(
            length(&[(header::CONTENT_LENGTH, "5"), (header::CONTENT_LENGTH, "5")]),
            ["5"]
        );
        assert_eq!(
            length(&[
                (header::CONTENT_LENGTH, "3"),
                (header::TRANSFER_ENCODING, "chunked")
            ]),
            [""; 0]
        );
    }
}
