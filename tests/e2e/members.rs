//! An instance is all of its processes, whatever they call themselves and wherever they go.

use crate::support::bed::SOON;
use crate::support::wait::holds;
use crate::support::{Bed, Combination, need, processes, wait_until};

/// Listens on the unix socket of its first argument, answers each request with its pid, and runs what stands in `BEFORE`, `AFTER`
/// (once it listens), and in the body of a request.
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
fn model(bed: &Bed, name: &str, before: &str, after: &str) {
    let dir = bed.model(name, "command = [\"python3\", \"-u\", \"app.py\", \"{{ socket }}\"]\n");
    std::fs::create_dir_all(dir.join("files")).unwrap();
    std::fs::write(dir.join("files/app.py"), APP.replace("BEFORE", before).replace("AFTER", after)).unwrap();
}

/// The name of a process (`/proc/PID/comm`) is its own choice: it hides nothing, and keeps acc from nothing.
pub fn its_name_may_be_any_bytes(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.idle = "60s") else { return };
    if !need::programs(&["python3"]) {
        return;
    }
    for (number, name) in [r"\xff\xfe", r") Z (", r"a) Z 1 1 1 1\n"].into_iter().enumerate() {
        let instance = format!("zebra{number}");
        model(&bed, &instance, &format!("open('/proc/self/comm', 'wb').write(b'{name}')"), "");
        bed.create(&instance, &instance);
        let pid = bed.pid(&instance);
        bed.get(&instance, "/").status(200);
        let pass = bed.acc(&["monitor"]).ok();
        assert!(pass.out.is_empty(), "a pass has something to say: {}", pass.out);
        bed.acc(&["stop", "--now", &instance]).ok();
        assert!(!processes::alive(pid));
        bed.get(&instance, "/").status(200);
        let pid = bed.pid(&instance);
        bed.acc(&["destroy", "--force", &instance]).ok();
        bed.acc(&["purge", &instance]).ok();
        wait_until("it has ended", SOON, || holds(!processes::alive(pid), pid));
        bed.create(&instance, &instance);
    }
    // And the bed is halted with all of them awake.
}
