//! The request headers in which only an edge speaks: who the client is, and what it asked for
//! before anything was rewritten. One list, for both edges.
//!
//! It never names what clients say of themselves with good reason (`X-HTTP-Method-Override`, say),
//! nor what an edge sets.

/// Names in lower case that frameworks, or servers behind a proxy, are known to believe. acc's own
/// edge takes away everything that begins with `x-acc-` or `x-forwarded-` as well; nginx can only
/// be told names, so those in use stand here.
pub const EDGE_ONLY: &[&str] = &[
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "client-ip",
    "fastly-client-ip",
    "forwarded",
    "forwarded-for",
    "front-end-https",
    "http-client-ip",
    // Read as HTTP_PROXY by CGI-like applications ("httpoxy").
    "proxy",
    "proxy-client-ip",
    "true-client-ip",
    "wl-proxy-client-ip",
    "x-acc-again",
    "x-acc-connect",
    "x-acc-host",
    "x-acc-request",
    "x-acc-status",
    // Rack and others answer with files from where these say.
    "x-accel-mapping",
    "x-appengine-user-ip",
    "x-arr-ssl",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-forward-for",
    "x-forwarded",
    "x-forwarded-access-token",
    "x-forwarded-by",
    "x-forwarded-client-cert",
    "x-forwarded-client-ip",
    "x-forwarded-email",
    "x-forwarded-for",
    "x-forwarded-for-original",
    "x-forwarded-groups",
    "x-forwarded-host",
    "x-forwarded-hostname",
    "x-forwarded-ip",
    "x-forwarded-method",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-preferred-username",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-role",
    "x-forwarded-roles",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-tls-client-cert",
    "x-forwarded-tls-client-cert-info",
    "x-forwarded-uri",
    "x-forwarded-url",
    "x-forwarded-user",
    "x-forwarded-username",
    "x-host",
    "x-http-host-override",
    "x-original-for",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-method",
    "x-original-proto",
    "x-original-uri",
    "x-original-url",
    "x-originating-ip",
    "x-proxy-user-ip",
    "x-proxyuser-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-rewrite-url",
    "x-scheme",
    "x-sendfile-type",
    "x-url-scheme",
];

/// In which a network of proxies names its client: of a trusted proxy they are passed on as they
/// are.
pub const OF_PROXIES: &[&str] = &[
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "fastly-client-ip",
    "true-client-ip",
];

/// What acc's nginx says in place of a client, to instances and to acc; it takes all others of
/// [`EDGE_ONLY`] away.
pub const SET_BY_NGINX: &[&str] = &[
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
];

/// Is this header, its name in lower case, one in which only an edge speaks? In any spelling: many
/// applications read `X_Real_Ip` as the same.
#[must_use]
pub fn is_edge_only(name: &str) -> bool {
    let begins = |word: &str| {
        name.len() >= word.len() && name.bytes().zip(word.bytes()).all(|(a, b)| same(a, b))
    };
    let is = |word: &&str| name.len() == word.len() && begins(word);
    // The first letters settle nearly every header with a comparison or two.
    match name.as_bytes() {
        [b'x', b'-' | b'_', ..] => {
            begins("x-acc-") || begins("x-forwarded-") || EDGE_ONLY.iter().any(is)
        }
        [b'c' | b'f' | b'h' | b'p' | b't' | b'w', ..] => EDGE_ONLY
            .iter()
            .take_while(|word| !word.starts_with("x-"))
            .any(is),
        _ => false,
    }
}

fn same(sent: u8, listed: u8) -> bool {
    sent == listed || (sent == b'_' && listed == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_spelling_and_others_are_not() {
        for name in EDGE_ONLY {
            assert!(
                is_edge_only(name) && is_edge_only(&name.replace('-', "_")),
                "{name}"
            );
            assert_eq!(*name, name.to_ascii_lowercase());
        }
        for name in ["x-acc-anything", "x-forwarded-anything", "x_forwarded-for"] {
            assert!(is_edge_only(name), "{name}");
        }
        for name in [
            "x-requested-with",
            "x-request-id",
            "x-http-method-override",
            "x-accept",
            "host",
            "cookie",
            "cache-control",
            "via",
            "",
        ] {
            assert!(!is_edge_only(name), "{name}");
        }
        assert!(EDGE_ONLY.is_sorted(), "kept in order");
        assert!(
            SET_BY_NGINX
                .iter()
                .chain(OF_PROXIES)
                .all(|name| EDGE_ONLY.contains(name))
        );
    }
}
