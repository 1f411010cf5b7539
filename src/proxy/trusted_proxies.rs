//! The client of a request and how it reached the edge: from the connection, and from the headers
//! of a trusted proxy.
//!
//! It reads headers exactly as nginx does (`real_ip_header X-Forwarded-For`, `real_ip_recursive
//! on`), so that an instance gets the same from either edge. It trusts only the proxies of the
//! settings, and no host that they name: a request belongs to its `Host`.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::config::{EdgeConfig, Scheme};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// The trusted proxies, and the defaults for what they do not say.
#[derive(Debug, Clone)]
pub struct TrustedProxies {
    /// `edge.trusted_proxies`.
    proxies: Vec<IpNet>,
    /// `edge.public_scheme`.
    scheme: Scheme,
    /// The public ports of `http` and `https`.
    ports: [u16; 2],
}

/// The client, and how it reached the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The client's address, when known.
    pub client: Option<IpAddr>,
    /// How the client reached the edge, or the trusted proxy before it.
    pub scheme: Scheme,
    /// The port that it used there.
    pub port: u16,
    /// The connection is from a trusted proxy.
    pub by_proxy: bool,
}

impl Default for TrustedProxies {
    /// Trusts no proxy.
    fn default() -> Self {
        Self {
            proxies: Vec::new(),
            scheme: Scheme::Http,
            ports: Scheme::ALL.map(Scheme::default_port),
        }
    }
}

impl TrustedProxies {
    /// Reads them from the configuration.
    #[must_use]
    pub fn new(edge: &EdgeConfig) -> Self {
        Self {
            proxies: edge.trusted_proxies.clone(),
            scheme: edge.public_scheme,
            ports: Scheme::ALL.map(|scheme| edge.port(scheme)),
        }
    }

    /// Whether this is one of the proxies.
    fn includes(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|net| net.contains(&address))
    }

    /// The origin of a request that `peer` sent to `port`.
    pub(super) fn origin(&self, peer: Option<IpAddr>, port: u16, headers: &HeaderMap) -> Origin {
        let peer = peer.map(|ip| ip.to_canonical());
        let Some(proxy) = peer
            .filter(|_| !self.proxies.is_empty())
            .filter(|ip| self.includes(*ip))
        else {
            return Origin {
                client: peer,
                scheme: Scheme::Http,
                port,
                by_proxy: false,
            };
        };
        let scheme = scheme(headers).unwrap_or(self.scheme);
        let port = self::port(headers).unwrap_or(self.ports[usize::from(scheme == Scheme::Https)]);
        Origin {
            client: Some(self.client(proxy, headers)),
            scheme,
            port,
            by_proxy: true,
        }
    }

    /// The last address of the chain that is not a trusted proxy; where the chain ends or is
    /// invalid, the address before.
    fn client(&self, proxy: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = proxy;
        for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            let mut entries = value
                .as_bytes()
                .rsplit(|byte| b" ,".contains(byte))
                .filter(|entry| !entry.is_empty())
                .peekable();
            if entries.peek().is_none() {
                return client;
            }
            for entry in entries {
                if !self.includes(client) {
                    return client;
                }
                let Some(before) = address(entry) else {
                    return client;
                };
                client = before;
            }
        }
        client
    }
}

/// `1.2.3.4`, `1.2.3.4:567`, `::1` or `[::1]:567`.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry)
        .ok()
        .filter(|text| !text.contains('%'))?;
    let with_port = || {
        text.parse::<SocketAddr>()
            .ok()
            .filter(|address| address.port() != 0)
            .map(|address| address.ip())
    };
    text.parse::<IpAddr>()
        .ok()
        .or_else(with_port)
        .map(|ip| ip.to_canonical())
}

/// The only value of a header; several values count as none.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut all = headers.get_all(name).iter();
    all.next().filter(|_| all.next().is_none())
}

fn scheme(headers: &HeaderMap) -> Option<Scheme> {
    let value = one(headers, &X_FORWARDED_PROTO)?.as_bytes();
    Scheme::ALL
        .into_iter()
        .find(|scheme| value.eq_ignore_ascii_case(scheme.as_str().as_bytes()))
}

fn port(headers: &HeaderMap) -> Option<u16> {
    let value = one(headers, &X_FORWARDED_PORT)?.to_str().ok()?;
    value
        .parse()
        .ok()
        .filter(|_| value.starts_with(|first: char| ('1'..='9').contains(&first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXIES: [&str; 3] = ["127.0.0.1", "10.0.0.0/8", "2001:db8:7::/48"];

    fn trust(more: &str) -> TrustedProxies {
        let text =
            format!("[edge]\nlisten = [\"127.0.0.1:8080\"]\ntrusted_proxies = {PROXIES:?}\n{more}");
        let config = crate::config::parse(&text, None, &crate::config::Env::bare(0, "/nowhere"));
        TrustedProxies::new(&config.unwrap_or_else(|e| panic!("{e}")).edge)
    }

    fn headers(all: &[(HeaderName, &str)]) -> HeaderMap {
        all.iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn the_client_is_the_last_that_is_no_proxy() {
        let client = |peer: &str, chain: &[&str]| {
            let chain = headers(
                &chain
                    .iter()
                    .map(|value| (X_FORWARDED_FOR, *value))
                    .collect::<Vec<_>>(),
            );
            trust("")
                .origin(peer.parse().ok(), 8080, &chain)
                .client
                .unwrap()
                .to_string()
        };
        for (chain, expected) in [
            (&[][..], "127.0.0.1"),
            (&["203.0.113.9"], "203.0.113.9"),
            (&["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
            (&["6.6.6.6,203.0.113.9 , 10.1.2.3,10.4.5.6"], "203.0.113.9"),
            (&["6.6.6.6", "203.0.113.9", "10.1.2.3"], "203.0.113.9"),
            (&["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
            (&["203.0.113.9:5678"], "203.0.113.9"),
            (&["[2001:db8::1]:123"], "2001:db8::1"),
            (&["2001:DB8:0::1"], "2001:db8::1"),
            (&["203.0.113.9, 2001:db8:7::5"], "203.0.113.9"),
            (&["::ffff:203.0.113.9, ::ffff:10.1.1.1"], "203.0.113.9"),
            (&["unknown"], "127.0.0.1"),
            (&["203.0.113.9, unknown, 10.1.1.1"], "10.1.1.1"),
            (&["203.0.113.9, _hidden"], "127.0.0.1"),
            (&["203.0.113.9", ""], "127.0.0.1"),
            (&["203.0.113.9", " , "], "127.0.0.1"),
            (&["203.0.113.9:0"], "127.0.0.1"),
            (&["[fe80::1%1]:80"], "127.0.0.1"),
        ] {
            assert_eq!(client("127.0.0.1", chain), expected, "{chain:?}");
            assert_eq!(
                client("192.0.2.1", chain),
                "192.0.2.1",
                "{chain:?}, of a stranger"
            );
        }
        assert_eq!(client("::ffff:10.1.1.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("2001:db8:7::1", &["203.0.113.9"]), "203.0.113.9");
    }

    #[test]
    fn scheme_and_port_are_believed_of_a_proxy_alone() {
        let value = |trust: &TrustedProxies, peer: &str, all: &[(HeaderName, &str)]| {
            let Origin { scheme, port, .. } = trust.origin(peer.parse().ok(), 8081, &headers(all));
            (scheme.as_str(), port)
        };
        let (usual, https) = (
            trust(""),
            trust("public_scheme = \"https\"\npublic_port = 8443\n"),
        );
        let (proto, port) = (X_FORWARDED_PROTO, X_FORWARDED_PORT);
        for (all, first, second) in [
            (&[][..], ("http", 8080), ("https", 8443)),
            (&[(proto.clone(), "HTTPS")], ("https", 443), ("https", 8443)),
            (&[(proto.clone(), "http")], ("http", 8080), ("http", 80)),
            (
                &[(proto.clone(), "ftp"), (port.clone(), "8000")],
                ("http", 8000),
                ("https", 8000),
            ),
            (
                &[(proto.clone(), "https"), (proto.clone(), "https")],
                ("http", 8080),
                ("https", 8443),
            ),
            (&[(port.clone(), "065")], ("http", 8080), ("https", 8443)),
            (&[(port.clone(), "+65")], ("http", 8080), ("https", 8443)),
            (&[(port.clone(), "65536")], ("http", 8080), ("https", 8443)),
        ] {
            assert_eq!(value(&usual, "127.0.0.1", all), first, "{all:?}");
            assert_eq!(value(&https, "127.0.0.1", all), second, "{all:?}");
            assert_eq!(
                value(&https, "192.0.2.1", all),
                ("http", 8081),
                "{all:?}, of a stranger"
            );
        }
    }
}
