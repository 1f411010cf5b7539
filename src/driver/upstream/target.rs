//! Request targets that hyper refuses and nginx forwards: `<`, `>`, `"`, a backtick, `#`, and bytes
//! beyond ASCII. hyper gets them escaped, the instance gets what the client sent.
//!
//! It changes only these bytes, and only in the first line of a request. Pure.

use std::fmt::Write as _;

use bytes::Bytes;

/// A target as the client sent it; an extension of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTarget(Bytes);

/// The result of parsing the first bytes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum FirstLine {
    /// The end of the line has not arrived.
    Partial,
    /// hyper can parse it.
    Plain,
    /// hyper can parse the escaped form.
    Escaped {
        /// The first line with its target escaped, the line end included.
        line: Vec<u8>,
        /// How many bytes it replaces.
        replaces: usize,
        /// The target.
        raw: RawTarget,
    },
}

impl RawTarget {
    /// Path and query (RFC 9112 section 3.2.1), also of a target that names a host.
    #[must_use]
    pub fn path_and_query(&self) -> &[u8] {
        let target = &self.0[..];
        let Some(scheme) = target.windows(3).position(|three| three == b"://") else {
            return target;
        };
        if target.starts_with(b"/") {
            return target;
        }
        let rest = &target[scheme + 3..];
        rest.iter()
            .position(|b| b"/?#".contains(b))
            .map_or(b"/", |path| &rest[path..])
    }

    /// The first line of a request with this target in place of the current one, and the length of
    /// the replaced line. `None`: the line is incomplete.
    #[must_use]
    pub fn in_line(&self, head: &[u8]) -> Option<(Bytes, usize)> {
        let end = head.iter().position(|b| *b == b'\n')? + 1;
        let (method, version) = around_target(&head[..end])?;
        let path = self.path_and_query();
        let mut line = Vec::with_capacity(end + path.len());
        line.extend_from_slice(&head[..method]);
        if !path.starts_with(b"/") {
            line.push(b'/');
        }
        line.extend_from_slice(path);
        line.extend_from_slice(&head[version..end]);
        Some((line.into(), end))
    }
}

/// Parses the first line of a client's request. Skips empty lines before it (RFC 9112 section 2.2).
#[must_use]
pub fn first_line(head: &[u8]) -> FirstLine {
    let begin = head
        .iter()
        .position(|b| !b"\r\n".contains(b))
        .unwrap_or(head.len());
    let Some(end) = head[begin..]
        .iter()
        .position(|b| *b == b'\n')
        .map(|end| begin + end + 1)
    else {
        return FirstLine::Partial;
    };
    let line = &head[begin..end];
    let Some((from, to)) =
        around_target(line).filter(|(from, to)| line[*from..*to].iter().any(|b| is_refused(*b)))
    else {
        return FirstLine::Plain;
    };
    let mut target = String::with_capacity(to - from + 16);
    for byte in &line[from..to] {
        if is_refused(*byte) {
            let _ = write!(target, "%{byte:02X}");
        } else {
            target.push(char::from(*byte));
        }
    }
    let escaped = [&head[..begin + from], target.as_bytes(), &line[to..]].concat();
    FirstLine::Escaped {
        line: escaped,
        replaces: end,
        raw: RawTarget(Bytes::copy_from_slice(&line[from..to])),
    }
}

/// The start and end of the target within a line.
fn around_target(line: &[u8]) -> Option<(usize, usize)> {
    let method = line.iter().position(|b| *b == b' ')? + 1;
    let version = line.iter().rposition(|b| *b == b' ')?;
    (method < version).then_some((method, version))
}

fn is_refused(byte: u8) -> bool {
    matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`' | 0x80..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(head: &[u8]) -> (Vec<u8>, usize, Vec<u8>) {
        match first_line(head) {
            FirstLine::Escaped {
                line,
                replaces,
                raw,
            } => (line, replaces, raw.0.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_hyper_can_read_is_left_alone() {
        for plain in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"GET /a%3Cb?x=%22 HTTP/1.1\r\nX: <>\r\n",
            b"\n",
            b"GET\r\n",
            b"<> <>\r\n",
            b"\r\n\r\nGET /{} HTTP/1.1\n",
        ] {
            let expected = if plain == b"\n" {
                FirstLine::Partial
            } else {
                FirstLine::Plain
            };
            assert_eq!(first_line(plain), expected, "{plain:?}");
        }
        assert_eq!(first_line(b"GET /<"), FirstLine::Partial);
        assert_eq!(first_line(b""), FirstLine::Partial);
    }

    #[test]
    fn what_it_refuses_is_escaped_and_comes_back() {
        let (line, replaces, raw) = escaped(b"\r\nGET /\xe4<?q=\"`#> HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(line, b"\r\nGET /%E4%3C?q=%22%60%23%3E HTTP/1.1\r\n");
        assert_eq!(
            (replaces, &raw[..]),
            (
                b"\r\nGET /\xe4<?q=\"`#> HTTP/1.1\r\n".len(),
                &b"/\xe4<?q=\"`#>"[..]
            )
        );
        let (back, replaced) = RawTarget(raw.into())
            .in_line(b"GET /%E4 HTTP/1.1\r\nhost: a\r\n")
            .unwrap();
        assert_eq!(
            (&back[..], replaced),
            (&b"GET /\xe4<?q=\"`#> HTTP/1.1\r\n"[..], 19)
        );
    }

    #[test]
    fn of_a_whole_address_the_instance_gets_path_and_query() {
        for (target, path) in [
            (&b"http://a.org/<"[..], &b"/<"[..]),
            (b"http://a.org?<", b"?<"),
            (b"http://a.org", b"/"),
            (b"/x?u=http://b/<", b"/x?u=http://b/<"),
            (b"*", b"*"),
        ] {
            assert_eq!(RawTarget(Bytes::from_static(target)).path_and_query(), path);
        }
        let (line, _) = RawTarget(Bytes::from_static(b"http://a.org?<"))
            .in_line(b"GET /?%3C HTTP/1.1\r\n")
            .unwrap();
        assert_eq!(&line[..], b"GET /?< HTTP/1.1\r\n");
    }
}
