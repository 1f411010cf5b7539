//! What is cleared before a start: sockets that were left, taken ports, the folder.

use super::*;

#[tokio::test]
async fn clear_removes_what_nobody_answers_on() {
    let dir = dir();
    let probe = SocketProbe::new(None, dir.path().join("trash"), Listeners::default());
    let path = dir.path().join("sock/a/app.sock");
    let target = unix(path.clone(), None);
    probe.clear(&target).await.unwrap();
    assert_eq!(
        std::fs::metadata(path.parent().unwrap())
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o750
    );
    assert_eq!(
        std::fs::metadata(dir.path().join("sock"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o711
    );

    let listener = UnixListener::bind(&path).unwrap();
    let refused = probe.clear(&target).await.unwrap_err().to_string();
    assert!(
        refused.contains("another program") && refused.contains("app.sock"),
        "{refused}"
    );
    drop(listener);
    assert!(path.exists());
    probe.clear(&target).await.unwrap();
    assert!(!path.exists());
    probe.clear(&target).await.unwrap();

    // What is no socket has no business there; what a link leads to is left alone.
    let precious = dir.path().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    let plant: [&dyn Fn(); 4] = [
        &|| std::fs::write(&path, "").unwrap(),
        &|| std::os::unix::fs::symlink(&precious, &path).unwrap(),
        &|| nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        &|| std::fs::create_dir_all(path.join("a/b")).unwrap(),
    ];
    for plant in plant {
        plant();
        probe.clear(&target).await.unwrap();
        assert!(std::fs::symlink_metadata(&path).is_err());
    }
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    std::fs::write(&path, "").unwrap();
    let blocked = unix(path.join("b/app.sock"), None);
    assert!(
        probe
            .clear(&blocked)
            .await
            .unwrap_err()
            .to_string()
            .contains("could not create the folder")
    );
}

#[tokio::test]
async fn clear_names_a_port_that_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let probe = SocketProbe::default();
    let Obstacle::Port(said) = probe.clear(&tcp(port, None)).await.unwrap_err() else {
        panic!("not a port")
    };
    let expected = format!(
        "port 127.0.0.1:{port} is taken by another program: pid {}, `",
        std::process::id()
    );
    assert!(said.starts_with(&expected), "{said}");
    // Connections of the last run that linger in the kernel are no obstacle.
    let client = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    let accepted = listener.accept().await.unwrap();
    drop(accepted);
    drop(client);
    drop(listener);
    probe.clear(&tcp(port, None)).await.unwrap();
}

#[tokio::test]
async fn clear_gives_the_folder_to_the_instances_user() {
    let Ok(Some(owner)) = Owner::of(Some("nobody")) else {
        println!("skipped: needs root and the user nobody");
        assert!(std::env::vars().all(|(k, _)| k != "CI"));
        return;
    };
    let dir = dir();
    let path = dir.path().join("sock/a/app.sock");
    let target = ProbeTarget {
        account: Account::User {
            name: "nobody".into(),
            uid: owner.uid,
            gid: owner.gid,
        },
        ..unix(path.clone(), None)
    };
    SocketProbe::new(None, dir.path().join("trash"), Listeners::default())
        .clear(&target)
        .await
        .unwrap();
    let meta = std::fs::metadata(path.parent().unwrap()).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((meta.uid(), meta.gid()), (owner.uid, owner.gid));
    assert!(
        Owner::of(Some("no-such-user"))
            .unwrap_err()
            .contains("`no-such-user`")
    );
    assert_eq!(Owner::of(None).unwrap(), None);
}

#[tokio::test]
async fn a_socket_that_was_left_behind_is_removed_and_one_that_answers_is_not() {
    let dir = dir();
    let path = dir.path().join("s");
    let probe = SocketProbe::new(None, dir.path().join("trash"), Listeners::default());
    let listener = UnixListener::bind(&path).unwrap();
    probe.tidy(&unix(path.clone(), None));
    assert!(path.exists());
    drop(listener);
    probe.tidy(&unix(path.clone(), None));
    assert!(!path.exists());
    std::fs::write(&path, "a file").unwrap();
    probe.tidy(&unix(path.clone(), None));
    assert!(
        !path.exists(),
        "the place of the socket is acc's, whatever lies there"
    );
}
