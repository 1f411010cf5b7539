//! Who listens at the address of an instance: its own processes, or another program.

use super::*;

#[tokio::test]
async fn a_stranger_on_the_port_is_never_asked_and_named() {
    let port = free_port().await;
    let probe = SocketProbe::default();
    let mut instance = std::process::Command::new("/bin/sleep")
        .arg("60")
        .process_group(0)
        .spawn()
        .unwrap();
    let process = crate::host::process::by_pid(instance.id().cast_signed())
        .unwrap()
        .unwrap();
    // This test's own process is not of the instance that `sleep` stands for.
    let stranger = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let heard = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Ok(Ok((mut stream, _))) = timeout(Duration::from_secs(2), stranger.accept()).await
        {
            let _ = timeout(Duration::from_secs(2), stream.read_to_end(&mut all)).await;
        }
        all
    });
    let target = tcp(port, Some("/health"));
    let why = timeout(
        Duration::from_secs(20),
        probe.ready(&target, Some(process), None),
    )
    .await
    .unwrap()
    .unwrap_err();
    assert!(
        why.contains(&format!("pid {}, `", std::process::id()))
            && why.contains(&format!("`127.0.0.1:{port}`")),
        "{why}"
    );
    let places = [
        (target.clone(), process),
        (tcp(free_port().await, None), process),
    ];
    let misplaced = probe.misplaced(&places).await;
    assert!(
        misplaced[0]
            .as_ref()
            .is_some_and(|w| w.contains("is not part of the instance")),
        "{misplaced:?}"
    );
    assert!(
        misplaced[1]
            .as_ref()
            .is_some_and(|w| w.contains("no longer listens")),
        "{misplaced:?}"
    );
    assert!(heard.await.unwrap().is_empty(), "a stranger was asked");
    instance.kill().unwrap();
    instance.wait().unwrap();
}

#[tokio::test]
async fn a_stranger_on_the_unix_socket_is_not_the_instance() {
    let dir = dir();
    let path = dir.path().join("s");
    let probe = SocketProbe::default();
    let mut instance = std::process::Command::new("/bin/sleep")
        .arg("60")
        .process_group(0)
        .spawn()
        .unwrap();
    let process = crate::host::process::by_pid(instance.id().cast_signed())
        .unwrap()
        .unwrap();
    let _stranger = UnixListener::bind(&path).unwrap();
    let target = unix(path.clone(), None);
    assert!(probe.at_once(&target, Some(process)).is_none());
    assert!(
        timeout(
            Duration::from_millis(300),
            probe.ready(&target, Some(process), None)
        )
        .await
        .is_err()
    );
    timeout(
        Duration::from_secs(10),
        probe.ready(&target, Some(me()), None),
    )
    .await
    .unwrap()
    .unwrap();
    // Nothing of the instance runs, and its place is acc's to clear.
    assert!(matches!(
        probe.clear(&target).await.unwrap_err(),
        Obstacle::Socket(_)
    ));
    probe.evict(&target);
    probe.clear(&target).await.unwrap();
    assert!(!path.exists());
    instance.kill().unwrap();
    instance.wait().unwrap();
}

#[tokio::test]
async fn a_parent_that_listened_and_ended_leaves_a_socket_that_is_the_instances() {
    let dir = dir();
    let path = dir.path().join("s");
    let script = "import os, socket, sys, time
s = socket.socket(socket.AF_UNIX)
if os.fork() == 0:
    s.bind(sys.argv[1]); s.listen(9); os._exit(0)
os.wait(); time.sleep(60)";
    let mut command = std::process::Command::new("python3");
    let mut instance = command
        .args(["-c", script])
        .arg(&path)
        .process_group(0)
        .spawn()
        .unwrap();
    let process = crate::host::process::by_pid(instance.id().cast_signed())
        .unwrap()
        .unwrap();
    let probe = SocketProbe::default();
    timeout(
        Duration::from_secs(20),
        probe.ready(&unix(path.clone(), None), Some(process), None),
    )
    .await
    .unwrap()
    .unwrap();
    instance.kill().unwrap();
    instance.wait().unwrap();
}
