//! How clients reach the edge, as far as the edge cannot know it: a proxy in front may end TLS and
//! use another port.
//!
//! It reads no request: `proxy::trusted_proxies` and nginx check what requests say about this.

use std::net::SocketAddr;

use ipnet::IpNet;
use toml::de::DeValue;

use super::rules::network;
use super::scheme::Scheme;
use super::value::Parsed;
use super::{EdgeConfig, EdgeKind};

impl EdgeConfig {
    /// The port that a client uses to reach the edge by `scheme`: the public port if it is the
    /// public scheme. Defaults: the usual port for `https`, the edge's first port for `http`.
    #[must_use]
    pub fn port(&self, scheme: Scheme) -> u16 {
        let own = match scheme {
            Scheme::Http => self.listen.first().map_or(80, SocketAddr::port),
            Scheme::Https => scheme.default_port(),
        };
        match self.public_port {
            _ if scheme != self.public_scheme => scheme.default_port(),
            Some(port) => port,
            None => own,
        }
    }

    /// The addresses that acc's own server listens on: none behind nginx.
    #[must_use]
    pub fn own_addresses(&self) -> &[SocketAddr] {
        match self.kind {
            EdgeKind::Nginx => &[],
            EdgeKind::Builtin => &self.listen,
        }
    }

    /// Where a client reaches a host.
    #[must_use]
    pub fn url(&self, host: &str) -> String {
        let (scheme, port) = (self.public_scheme.as_str(), self.port(self.public_scheme));
        if port == self.public_scheme.default_port() {
            format!("{scheme}://{host}/")
        } else {
            format!("{scheme}://{host}:{port}/")
        }
    }

    /// Addresses that stand for many clients. A trusted proxy does, even in requests that do not
    /// name a client.
    #[must_use]
    pub fn of_many(&self) -> Vec<IpNet> {
        self.shared_addresses
            .iter()
            .chain(&self.trusted_proxies)
            .copied()
            .collect()
    }
}

/// A network of proxies, or the address of one. IPv4 clients are identified by their IPv4 address,
/// whichever way they connect.
pub(super) fn proxies(value: &DeValue<'_>) -> Parsed<IpNet> {
    match network(value)? {
        IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some() => {
            Err("must be written as an IPv4 address".to_owned())
        }
        net => Ok(net),
    }
}

#[cfg(test)]
mod tests {
    use super::super::env::Env;
    use super::super::parse;

    #[test]
    fn urls_are_those_that_clients_use() {
        let url = |edge: &str| {
            let config = parse(&format!("[edge]\n{edge}"), None, &Env::bare(0, "/nowhere"))
                .unwrap_or_else(|e| panic!("{e}"));
            config.edge.url("a.org")
        };
        let (usual, odd) = (
            "listen = [\"127.0.0.1:80\"]\n",
            "listen = [\"127.0.0.1:8080\", \"127.0.0.1:80\"]\n",
        );
        assert_eq!(
            (url(usual), url(odd)),
            ("http://a.org/".into(), "http://a.org:8080/".into())
        );
        let https = "public_scheme = \"https\"\n";
        assert_eq!(url(&format!("{odd}{https}")), "https://a.org/");
        assert_eq!(
            url(&format!("{odd}{https}public_port = 8443")),
            "https://a.org:8443/"
        );
        assert_eq!(url(&format!("{odd}public_port = 80")), "http://a.org/");
        assert_eq!(
            url(&format!("{usual}public_port = 443")),
            "http://a.org:443/"
        );
    }
}
