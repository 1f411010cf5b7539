//! Sockets that a program is handed.

use super::*;

for_real![
    a_socket_is_handed_over_and_ends_with_the_program,
    a_socket_handed_to_another_user_is_that_users,
];

/// Records the variables of its socket and runs until a test lets it finish.
fn listener(name: &str, fixture: &Fixture) -> Program {
    fixture.make_fifo(name);
    let script = format!(
        "[ \"$LISTEN_PID\" = $$ ] && echo \"$LISTEN_FDS $LISTEN_FDNAMES $A\" > reported; read x < go-{name}"
    );
    let mut program = program(name, fixture.dir(), &["/bin/sh", "-c", &script]);
    program.env = vec![("A".to_owned(), "its own".to_owned())];
    program.socket = Some(fixture.dir().join(format!("{name}.sock")));
    program
}

async fn a_socket_is_handed_over_and_ends_with_the_program(fixture: Fixture) {
    use std::io::{ErrorKind, Read as _};
    use std::os::unix::fs::FileTypeExt as _;
    use std::os::unix::net::UnixStream;
    let s = fixture.supervisor();
    let a = listener("a", &fixture);
    let path = a.socket.clone().unwrap();
    for _ in 0..2 {
        let run = s.start(&a).await.unwrap();
        // A supervisor may start it by way of another program.
        let mut waiting =
            eventually("a connection", async || UnixStream::connect(&path).ok()).await;
        assert_eq!(
            read_eventually(fixture.dir().join("reported")).await,
            b"1 acc its own\n"
        );
        let handed = fs::read_link(format!("/proc/{}/fd/3", run.process().unwrap().pid)).unwrap();
        assert!(
            handed.to_str().unwrap().starts_with("socket:"),
            "{handed:?}"
        );
        let others = fs::read_dir(format!("/proc/{}/fd", run.process().unwrap().pid))
            .unwrap()
            .filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
        assert!(others.filter(|fd| *fd > 3).all(|fd| {
            fs::read_link(format!("/proc/{}/fd/{fd}", run.process().unwrap().pid))
                .map_or(true, |to| to != handed)
        }));
        // No process accepts what waits there, and no other process has the socket: it is closed
        // with the process.
        fixture.finish(&a.name, Exit::Code(0));
        assert_eq!(
            s.wait(&a.name, &a.account, &run).await.unwrap(),
            Exit::Code(0)
        );
        assert_eq!(
            waiting.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        assert_eq!(
            UnixStream::connect(&path).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        assert!(fs::metadata(&path).unwrap().file_type().is_socket());
        fs::remove_file(&path).unwrap();
        fs::remove_file(fixture.dir().join("reported")).unwrap();
    }
}

async fn a_socket_handed_to_another_user_is_that_users(fixture: Fixture) {
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::net::UnixStream;
    if !crate::host::spawn::may_change_user() {
        println!("skipped: only root can start a process as another user");
        return;
    }
    let nobody = crate::host::spawn::user_ids("nobody").unwrap().unwrap();
    let folder = fixture.dir().join("theirs");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::chown(&folder, Some(nobody.uid), Some(nobody.gid)).unwrap();
    let path = folder.join("s");
    let a = Program {
        account: account_of(&nobody),
        socket: Some(path.clone()),
        umask: 0o007,
        ..program("a", fixture.dir(), &["/bin/sleep", "60"])
    };
    let run = fixture.supervisor().start(&a).await.unwrap();
    let stream = eventually("a connection", async || UnixStream::connect(&path).ok()).await;
    let listens = rustix::net::sockopt::socket_peercred(&stream).unwrap();
    assert_eq!(
        (listens.uid.as_raw(), listens.pid.as_raw_nonzero().get()),
        (nobody.uid, run.process().unwrap().pid)
    );
    let found = fs::metadata(&path).unwrap();
    // Its group may connect: that of the edge, which the folder passes on (setgid).
    assert_eq!((found.uid(), found.mode() & 0o777), (nobody.uid, 0o770));
    fixture
        .supervisor()
        .kill(&a.name, &a.account, &run)
        .await
        .unwrap();
    fixture
        .supervisor()
        .wait(&a.name, &a.account, &run)
        .await
        .unwrap();
}

#[tokio::test]
async fn builtin_names_a_socket_that_cannot_be_made() {
    let fixture = Fixture::builtin();
    let mut a = listener("a", &fixture);
    fs::write(fixture.dir().join("a.sock"), "precious").unwrap();
    let error = fixture
        .supervisor()
        .start(&a)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("its socket `")
            && error.contains("a.sock`: Address")
            && error.contains("in use"),
        "{error}"
    );
    a.socket = Some(fixture.dir().join("x".repeat(108)));
    let error = fixture
        .supervisor()
        .start(&a)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("its socket `") && error.contains("File name too long"),
        "{error}"
    );
    assert_eq!(fixture.supervisor().find(&a.name).await.unwrap(), None);
    assert_eq!(fs::read(fixture.dir().join("a.sock")).unwrap(), b"precious");
}
