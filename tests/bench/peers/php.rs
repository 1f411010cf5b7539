//! php-fpm with `pm = ondemand`, asked over FastCGI.

use super::*;

/// One FastCGI record.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[1, kind, 0, 1, length[0], length[1], 0, 0], content].concat()
}

/// Asks php-fpm for a script; until the first byte of the answer, in milliseconds.
fn fast_cgi(socket: &Path, script: &str) -> f64 {
    let pair = |name: &str, value: &str| {
        [
            &[
                u8::try_from(name.len()).unwrap(),
                u8::try_from(value.len()).unwrap(),
            ],
            name.as_bytes(),
            value.as_bytes(),
        ]
        .concat()
    };
    let params = [
        pair("SCRIPT_FILENAME", script),
        pair("REQUEST_METHOD", "GET"),
        pair("SERVER_PROTOCOL", "HTTP/1.1"),
    ]
    .concat();
    let request = [
        record(1, &[0, 1, 0, 0, 0, 0, 0, 0]),
        record(4, &params),
        record(4, &[]),
        record(5, &[]),
    ]
    .concat();
    let began = clock_us();
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(&request).unwrap();
    let mut answer = vec![0; 4096];
    let first = stream.read(&mut answer).unwrap();
    let took = (clock_us() - began) / 1000.0;
    answer.truncate(first);
    stream.read_to_end(&mut answer).unwrap();
    assert!(
        String::from_utf8_lossy(&answer).contains("hello"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    took
}

/// php-fpm with `pm = ondemand`. Its master stays and forks, so the reference is a request that
/// finds a worker.
pub(super) fn php(settings: &Settings) -> Result<Vec<Row>, String> {
    let found = fs::read_dir("/usr/sbin")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path());
    let program = found
        .filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("php-fpm"))
        })
        .max()
        .ok_or("not installed")?;
    let dir = folder();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let user = if need::is_root() {
        "user = root\ngroup = root\n"
    } else {
        ""
    };
    let config = format!(
        "[global]\nerror_log = {}\ndaemonize = no\n[www]\n{user}listen = {}\npm = ondemand\npm.max_children = 4\npm.process_idle_timeout = 1s\n",
        at("fpm.log"),
        at("fpm.sock")
    );
    fs::write(at("fpm.conf"), config).map_err(|e| e.to_string())?;
    fs::write(at("index.php"), "<?php echo \"hello\\n\";\n").map_err(|e| e.to_string())?;
    let (socket, script) = (dir.path().join("fpm.sock"), at("index.php"));
    let start = || {
        let mut argv = vec![
            program.to_str().unwrap().to_owned(),
            "-F".into(),
            "-n".into(),
            "-y".into(),
            at("fpm.conf"),
        ];
        argv.extend(need::is_root().then(|| "-R".to_owned()));
        background(
            dir.path(),
            &argv.iter().map(String::as_str).collect::<Vec<_>>(),
        );
    };
    let peer = Peer {
        name: "php-fpm",
        dir: dir.path(),
        address: free_address(),
        start: Box::new(start),
        word: "php-fpm: pool",
        ends: false,
    };
    (peer.start)();
    wait_until("php-fpm listens", LIMIT, || {
        UnixStream::connect(&socket).map(drop)
    });
    let first = || {
        peer.sleep();
        pause(settings.settle);
        fast_cgi(&socket, &script)
    };
    let again = || {
        fast_cgi(&socket, &script);
        fast_cgi(&socket, &script)
    };
    let round = Round::run(
        settings.peers,
        1,
        vec![
            Side::new("no worker", first),
            Side::new("a worker waits", again),
        ],
    );
    let took = |side: &str| round.sample(side, "ms", |v| *v).expect("taken");
    let pair: (Sample, Sample) = (took("no worker"), took("a worker waits"));
    peer.sleep();
    let memory = Round::run(1, 0, vec![Side::new("php-fpm", || peer.memory())])
        .sample("php-fpm", "MiB", |v| *v)
        .expect("taken");
    Ok(vec![
        Row::added(
            GROUP,
            "first request without a worker, php-fpm ondemand",
            (&pair.0, &pair.1),
            0.5,
            Goal::None,
        )
        .expect("one round"),
        Row::plain(
            GROUP,
            "memory at rest, php-fpm ondemand",
            &memory,
            0.5,
            Goal::None,
        )
        .note("own memory, no worker"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fastcgi_record_has_its_length() {
        assert_eq!(record(5, b"ab"), [1, 5, 0, 1, 0, 2, 0, 0, b'a', b'b']);
    }
}
