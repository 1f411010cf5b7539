//! The headers that nginx and acc exchange, never with clients. `templates/nginx` has the other
//! side of the protocol.
//!
//! It never reads a header: `request` and `headers` do.

use hyper::header::HeaderName;

/// The host nginx chose; only nginx can set it.
pub const X_ACC_HOST: HeaderName = HeaderName::from_static("x-acc-host");
/// nginx's `$upstream_connect_time`: a number means that the instance may have read the request.
pub const X_ACC_CONNECT: HeaderName = HeaderName::from_static("x-acc-connect");
/// nginx's `$upstream_status` of its earlier tries.
pub const X_ACC_STATUS: HeaderName = HeaderName::from_static("x-acc-status");
/// nginx's id of the request, the same for every try.
pub const X_ACC_REQUEST: HeaderName = HeaderName::from_static("x-acc-request");
/// nginx has asked another worker before, which ended without a response.
pub const X_ACC_AGAIN: HeaderName = HeaderName::from_static("x-acc-again");
/// Set by nginx only, and only when acc checks whether nginx answers, see
/// `driver::edge::nginx::ask`.
pub const X_ACC_CHECK: HeaderName = HeaderName::from_static("x-acc-check");
/// The client's address, set by the edge.
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// In a response to nginx: the outcome of the request, for nginx's log only.
pub(super) const X_ACC_LOG: HeaderName = HeaderName::from_static("x-acc-log");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::edge_headers::EDGE_ONLY;

    const TEMPLATES: [&str; 3] = [
        include_str!("../../templates/nginx/headers.conf"),
        include_str!("../../templates/nginx/nginx.conf"),
        include_str!("../../templates/nginx/wake.conf"),
    ];

    /// What the templates do with headers of acc: directive, name and value.
    fn directives(template: &str) -> BTreeSet<(String, String, String)> {
        let lines = template.lines().filter_map(|line| {
            let mut words = line.trim().trim_end_matches(';').split_whitespace();
            let (directive, name) = (words.next()?, words.next()?.to_lowercase());
            let value = words.collect::<Vec<_>>().join(" ");
            name.starts_with("x-acc-")
                .then(|| (directive.to_owned(), name, value))
        });
        lines.collect()
    }

    fn all(expected: &[(&str, &HeaderName, &str)]) -> BTreeSet<(String, String, String)> {
        let owned = expected.iter().map(|(directive, name, value)| {
            (
                (*directive).to_owned(),
                name.to_string(),
                (*value).to_owned(),
            )
        });
        owned.collect()
    }

    #[test]
    fn the_templates_and_acc_mean_the_same_headers() {
        let [headers, main, wake] = TEMPLATES.map(directives);
        let set = "proxy_set_header";
        assert_eq!(
            wake,
            all(&[
                (set, &X_ACC_CONNECT, "$acc_first_connect"),
                (set, &X_ACC_STATUS, "$acc_first_status"),
                (set, &X_ACC_HOST, "$host"),
                (set, &X_ACC_REQUEST, "$request_id"),
            ]),
            "what acc is told with a request"
        );
        assert_eq!(headers, all(&[(set, &X_ACC_CHECK, "\"\"")]));
        assert_eq!(
            main,
            all(&[
                (set, &X_ACC_AGAIN, "1"),
                (set, &X_ACC_CHECK, "$acc_check"),
                (set, &X_ACC_HOST, "_"),
                ("proxy_hide_header", &X_ACC_LOG, ""),
                // What clients send of them reaches no instance.
                (set, &X_ACC_CONNECT, "\"\""),
                (set, &X_ACC_STATUS, "\"\""),
                (set, &X_ACC_HOST, "\"\""),
                (set, &X_ACC_REQUEST, "\"\""),
                (set, &X_ACC_AGAIN, "\"\""),
            ])
        );
        for name in [
            X_ACC_CONNECT,
            X_ACC_STATUS,
            X_ACC_HOST,
            X_ACC_REQUEST,
            X_ACC_AGAIN,
        ] {
            assert!(EDGE_ONLY.contains(&name.as_str()), "{name}");
        }
    }
}
