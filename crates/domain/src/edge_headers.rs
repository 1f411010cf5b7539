//! The request headers that only an edge may set: who the client is, and what it requested before
//! any rewriting. One list for both edges.
//!
//! It contains no header that clients set legitimately (`X-HTTP-Method-Override`, for example), nor
//! those that an edge sets.

/// Names in lower case that frameworks, or servers behind a proxy, are known to trust. acc's own
/// edge also removes all names that begin with `x-acc-` or `x-forwarded-`; nginx needs full names,
/// so this list includes the known ones.
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
    // Rack and others send files from the paths in these headers.
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

/// Headers in which a chain of proxies names its client: those of a trusted proxy are forwarded
/// unchanged.
pub const OF_PROXIES: &[&str] = &[
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "fastly-client-ip",
    "true-client-ip",
];

/// Headers that acc's nginx sets itself, for instances and for acc; it removes all others of
/// [`EDGE_ONLY`].
pub const SET_BY_NGINX: &[&str] = &[
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
];

/// Whether only an edge may set this header, given its name in lower case. Covers every spelling:
/// many applications treat `X_Real_Ip` the same.
#[must_use]
pub fn is_edge_only(name: &str) -> bool {
    let begins = |word: &str| {
        name.len() >= word.len() && name.bytes().zip(word.bytes()).all(|(a, b)| same(a, b))
    };
    let is = |word: &&str| name.len() == word.len() && begins(word);
    // The first letters decide about nearly every header with a comparison or two.
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
