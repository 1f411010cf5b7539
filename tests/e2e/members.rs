//! An instance is all of its processes, whatever their names are and wherever they move.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::fixture::SOON;
use crate::support::wait::holds;
use crate::support::{Combination, Fixture, need, processes, wait_until};

/// An application that listens on the unix socket of its first argument, answers each request with
/// its pid, and executes the code in `BEFORE`, in `AFTER` (once it listens), and in the body of a
/// request.
const APP: &str = r#"
import os, signal, socket, sys, time
BEFORE
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(64)
AFTER
while True:
    c, _ = s.accept()
    try:
        if c.recv(65536):
            body = b"%d" % os.getpid()
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    except OSError:
        pass
    c.close()
"#;

/// A model with this application.
fn model(fixture: &Fixture, name: &str, before: &str, after: &str) {
    let dir = fixture.model(
        name,
        "health = \"/\"\ncommand = [\"python3\", \"-u\", \"app.py\", \"{{ socket }}\"]\n",
    );
    std::fs::create_dir_all(dir.join("files")).unwrap();
    std::fs::write(
        dir.join("files/app.py"),
        APP.replace("BEFORE", before).replace("AFTER", after),
    )
    .unwrap();
}

/// A process chooses its own name (`/proc/PID/comm`): the name hides no process, and stops acc from
/// nothing.
pub fn its_name_may_be_any_bytes(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    if !need::programs(&["python3"]) {
        return;
    }
    for (number, name) in [r"\xff\xfe", r") Z (", r"a) Z 1 1 1 1\n"]
        .into_iter()
        .enumerate()
    {
        let instance = format!("shop{number}");
        model(
            &fixture,
            &instance,
            &format!("open('/proc/self/comm', 'wb').write(b'{name}')"),
            "",
        );
        fixture.create(&instance, &instance);
        let pid = fixture.pid(&instance);
        fixture.get(&instance, "/").status(200);
        let pass = fixture.monitor();
        assert!(
            pass.out.is_empty(),
            "a pass has something to say: {}",
            pass.out
        );
        fixture.acc(&["stop", "--now", &instance]).ok();
        assert!(!processes::alive(pid));
        fixture.get(&instance, "/").status(200);
        let pid = fixture.pid(&instance);
        fixture.acc(&["destroy", "--force", &instance]).ok();
        fixture.acc(&["purge", &instance]).ok();
        wait_until("it has ended", SOON, || holds(!processes::alive(pid), pid));
        fixture.create(&instance, &instance);
    }
    // The fixture is then halted with all of them awake.
}

/// A process that the application starts in a session of its own, forked twice, with no file open:
/// `sleep` for a length that only this test uses.
fn away(length: &str) -> String {
    format!(
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.chdir('/'); os.closerange(0, 99)\n        \
         os.execve('/bin/sleep', ['sleep', '{length}'], {{}})\n    os._exit(0)\nos.wait()"
    )
}

/// The processes that sleep for this length.
fn sleepers(length: &str) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        processes::look(*pid).is_some_and(|seen| seen.command == format!("sleep {length}"))
    })
    .collect()
}

/// Can acc make control groups that count processes here? A host without them is not a failure of
/// the test.
fn has_groups(fixture: &Fixture) -> bool {
    let said = fixture.acc(&["doctor"]).out;
    let has =
        !said.contains("cannot create control groups") && !said.contains("but the controller");
    if !has {
        eprintln!("skipped: no control groups that count processes on this host");
    }
    has
}

/// The process becomes `sleep` a moment after the application answers.
fn wait_for_one(length: &str) {
    wait_until("what it has started runs", SOON, || {
        holds(sleepers(length).len() == 1, "it does not")
    });
}

/// A different length for each call, also between tests in one process.
fn length() -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let length = 1_000_000_000 + u64::from(std::process::id()) * 1000 + call;
    length.to_string()
}

/// However an instance ends, all of its processes end: also one in a session of its own, without a
/// parent and without an environment. Where acc may not make control groups such a process is not
/// found (see the ordinary user below).
pub fn what_it_has_started_ends_with_it(combination: Combination) {
    if !need::root("to make control groups") || !need::programs(&["python3"]) {
        return;
    }
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    if !has_groups(&fixture) {
        return;
    }
    let length = length();
    model(&fixture, "strays", &away(&length), "");
    fixture.create("shop", "strays");
    wait_for_one(&length);
    fixture.acc(&["stop", "shop"]).ok();
    assert_eq!(sleepers(&length), [0; 0], "after a stop");
    fixture.get("shop", "/").status(200);
    wait_for_one(&length);
    fixture.acc(&["stop", "--now", "shop"]).ok();
    assert_eq!(sleepers(&length), [0; 0], "after a stop at once");
    // The first process of the instance is killed.
    fixture.get("shop", "/").status(200);
    wait_for_one(&length);
    processes::signal(fixture.pid("shop"), nix::sys::signal::Signal::SIGKILL);
    fixture.wait_phase("shop", "failed");
    assert_eq!(sleepers(&length), [0; 0], "after its death");
    fixture.acc(&["start", "shop"]).ok();
    wait_for_one(&length);
    fixture.acc(&["destroy", "--force", "shop"]).ok();
    assert_eq!(sleepers(&length), [0; 0], "after destroy");
    fixture.acc(&["purge", "shop"]).ok();
    fixture.create("blog", "strays");
    wait_for_one(&length);
    fixture.acc(&["halt"]).ok();
    assert_eq!(sleepers(&length), [0; 0], "after halt");
}

/// All of acc is killed, and the instance's first process too: the remaining processes of the
/// instance end at the next boot.
pub fn what_was_left_by_a_crash_ends_at_the_boot(combination: Combination) {
    if !need::root("to make control groups") || !need::programs(&["python3"]) {
        return;
    }
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    if !has_groups(&fixture) {
        return;
    }
    let length = length();
    model(&fixture, "strays", &away(&length), "");
    fixture.create("shop", "strays");
    // Nothing visible of this process connects it with the fixture.
    processes::cut_power(&fixture.dir);
    wait_for_one(&length);
    fixture.acc(&["boot"]).ok();
    wait_until("it is ended", SOON, || {
        holds(sleepers(&length).is_empty(), "it runs")
    });
    fixture.get("shop", "/").status(200);
    fixture.acc(&["stop", "shop"]).ok();
    assert_eq!(sleepers(&length), [0; 0]);
}

/// A child that has inherited the listening socket and outlives the application does not prevent
/// the next wake.
pub fn an_inherited_socket_is_not_in_the_way(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    if !need::programs(&["python3"]) {
        return;
    }
    model(
        &fixture,
        "heirs",
        "",
        "if os.fork() == 0:\n    os.setsid()\n    while True: time.sleep(100)",
    );
    fixture.create("shop", "heirs");
    for _ in 0..3 {
        fixture.acc(&["stop", "shop"]).ok();
        fixture.get("shop", "/").status(200);
    }
}

/// Reported at once, and no process of the instance is left.
pub fn one_that_goes_into_the_background_is_told(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    if !need::programs(&["python3"]) {
        return;
    }
    let away = "if os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)";
    // The first process has ended before the other one answers: `create` waits only a moment for
    // that, which a busy host may not keep.
    let alone = "\
        def lives(pid):\n\
        \x20   try: return open('/proc/%d/stat' % pid).read().rpartition(')')[2].split()[0] not in 'ZX'\n\
        \x20   except OSError: return False\n";
    let once_listening =
        format!("{alone}first = os.getpid()\n{away}\nwhile lives(first): time.sleep(0.001)");
    for (name, before, after) in [("early", "", once_listening.as_str()), ("late", away, "")] {
        model(&fixture, name, before, after);
        let done = fixture
            .acc(&["create", "shop", "--model", name])
            .error(1)
            .says(&["hint:"]);
        assert!(
            done.err.contains("exited right after it answered")
                || done.err.contains("exited with code 0"),
            "{done:?}"
        );
        fixture.acc(&["info", "shop"]).error(3);
        wait_until("nothing of it is left", SOON, || {
            let left = processes::of(&fixture.dir)
                .into_iter()
                .find(|p| p.command.contains("app.py"));
            holds(left.is_none(), format!("{left:?}"))
        });
    }
}

/// An instance that forks without end has as many processes as the config says, and its neighbour
/// wakes.
pub fn one_that_forks_without_end_is_bounded(combination: Combination) {
    if !need::root("to make control groups") || !need::programs(&["python3"]) {
        return;
    }
    let limits = "[limits]\nprocesses = 30\n";
    let Some(fixture) = Fixture::with(combination, |s| (s.rules, s.idle) = (limits.into(), "60s"))
    else {
        return;
    };
    if !has_groups(&fixture) {
        return;
    }
    let forks = "\
        n = 0\n\
        try:\n    while n < 200:\n        if os.fork() == 0: os.setsid(); s.close(); time.sleep(1000000)\n        n += 1\n\
        except BlockingIOError: pass\n\
        open('data/forks', 'w').write(str(n))";
    model(&fixture, "forks", "", forks);
    fixture.create("shop", "forks");
    fixture.get("shop", "/").status(200);
    let forks: usize = std::fs::read_to_string(fixture.instance("shop").join("data/forks"))
        .unwrap()
        .parse()
        .unwrap();
    assert!((20..30).contains(&forks), "{forks}");
    fixture.create("blog", "hello");
    fixture.get("blog", "/").status(200);
    fixture.acc(&["stop", "shop"]).ok();
    // And again: a kill forbids new processes, but the next run may start them.
    fixture.get("shop", "/").status(200);
    fixture.acc(&["stop", "--now", "shop"]).ok();
    fixture.get("shop", "/").status(200);
}

/// A second process, which has work to finish when it gets SIGTERM.
pub fn one_beside_it_finishes_its_work(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    if !need::programs(&["python3"]) {
        return;
    }
    // This process runs, and handles SIGTERM, before the instance listens.
    let worker = "\
        def finish(*_):\n    time.sleep(0.3)\n    open('data/done', 'a').write('x')\n    os._exit(0)\n\
        signal.signal(signal.SIGTERM, finish)\n\
        if os.fork() == 0:\n    os.setsid()\n    while True: time.sleep(100)\n\
        signal.signal(signal.SIGTERM, signal.SIG_DFL)";
    model(&fixture, "workers", worker, "");
    fixture.create("shop", "workers");
    for times in 1..=2 {
        fixture.acc(&["stop", "shop"]).ok();
        assert_eq!(
            std::fs::read_to_string(fixture.instance("shop").join("data/done")).unwrap(),
            "x".repeat(times)
        );
        fixture.get("shop", "/").status(200);
    }
}
