//! Against real sockets and processes.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::host::process;

/// Instances run as acc's own user.
const ACC: Account = Account::SameAsAcc;

/// An instance: a process that does nothing, or listens.
struct Instance(Child);

impl Instance {
    /// Listens at `address`, with `SO_REUSEPORT` if asked, and reports that it does.
    fn listening(address: SocketAddr, reuse: bool) -> Self {
        let script = "import socket, sys, time
v6 = ':' in sys.argv[1]
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if sys.argv[3] == '1' else socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(9); print('x', flush=True); time.sleep(60)";
        let mut command = Command::new("python3");
        command.args([
            "-c",
            script,
            &address.ip().to_string(),
            &address.port().to_string(),
            if reuse { "1" } else { "0" },
        ]);
        let mut child = command
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        Self(child)
    }

    fn idle() -> Self {
        Self(
            Command::new("/bin/sleep")
                .arg("60")
                .process_group(0)
                .spawn()
                .unwrap(),
        )
    }

    fn process(&self) -> Process {
        process::by_pid(self.0.id().cast_signed()).unwrap().unwrap()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that is free, as far as can be known.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn stranger(found: io::Result<ListenerOwner>) -> String {
    match found {
        Ok(ListenerOwner::Stranger(who)) => who,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_its_own_listener_is_believed_wherever_it_is_bound() {
    let listeners = Listeners::default();
    for ip in ["127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1"] {
        let address = free();
        let instance =
            Instance::listening(SocketAddr::new(ip.parse().unwrap(), address.port()), false);
        let (own, other) = (instance.process(), Instance::idle());
        assert!(!listeners.is_known(address, own), "{ip}");
        assert_eq!(
            listeners.examine_now(address, own, &ACC).unwrap(),
            ListenerOwner::Own,
            "{ip}"
        );
        assert!(
            listeners.is_known(address, own) && !listeners.is_known(address, other.process()),
            "{ip}"
        );
        let all = listeners
            .strangers(&[
                (address, own, ACC),
                (address, other.process(), ACC),
                (free(), own, ACC),
            ])
            .unwrap();
        assert!(
            matches!(
                all[..],
                [
                    Ok(ListenerOwner::Own),
                    Ok(ListenerOwner::Stranger(_)),
                    Ok(ListenerOwner::None)
                ]
            ),
            "{ip}: {all:?}"
        );
        let who = stranger(listeners.examine_now(address, other.process(), &ACC));
        assert!(
            who.contains(&format!("pid {}, `", own.pid)) && who.contains("-c import socket"),
            "{who}"
        );
        drop(instance);
        assert!(!listeners.is_known(address, own), "{ip}");
    }
}

#[test]
fn a_listener_of_another_user_is_nobodys_instance() {
    let address = free();
    let instance = Instance::listening(address, false);
    let me = nix::unistd::geteuid().as_raw();
    // One memory of listeners for instances of different accounts.
    let listeners = Listeners::default();
    let examined_for = |uid| {
        let account = Account::User {
            name: "a".into(),
            uid,
            gid: uid,
        };
        listeners.examine_now(address, instance.process(), &account)
    };
    let who = stranger(examined_for(me + 1));
    assert!(who.contains(&format!("user {me} ")), "{who}");
    assert_eq!(examined_for(me).unwrap(), ListenerOwner::Own);
}

#[test]
fn who_joins_the_same_port_is_found() {
    let (address, listeners) = (free(), Listeners::default());
    let instance = Instance::listening(address, true);
    let own = [(address, instance.process(), ACC)];
    assert_eq!(
        listeners.examine_now(address, own[0].1, &ACC).unwrap(),
        ListenerOwner::Own
    );
    let thief = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    thief.set_reuse_port(true).unwrap();
    thief
        .bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())).into())
        .unwrap();
    assert!(matches!(
        listeners.strangers(&own).unwrap()[..],
        [Ok(ListenerOwner::Own)]
    ));
    thief.listen(9).unwrap();
    assert!(matches!(
        listeners.strangers(&own).unwrap()[..],
        [Ok(ListenerOwner::Stranger(_))]
    ));
    stranger(listeners.examine_now(address, own[0].1, &ACC));
    drop(thief);
    assert!(matches!(
        listeners.strangers(&own).unwrap()[..],
        [Ok(ListenerOwner::Own)]
    ));
}

#[test]
fn a_port_that_changes_hands_is_not_known_any_more() {
    let (address, listeners) = (free(), Listeners::default());
    let instance = Instance::listening(address, false);
    let own = instance.process();
    assert_eq!(
        listeners.examine_now(address, own, &ACC).unwrap(),
        ListenerOwner::Own
    );
    drop(instance);
    let _thief = TcpListener::bind(address).unwrap();
    assert!(!listeners.is_known(address, own));
    assert!(
        listeners.examine_now(address, own, &ACC).is_err(),
        "its process has ended"
    );
}

#[test]
fn what_a_stranger_calls_itself_does_nothing_to_a_terminal() {
    let text = shown(&format!(
        "\u{1b}]0;x\u{7}\n'a' \"b\" \u{202e}{}",
        "é".repeat(300)
    ));
    assert!(
        text.starts_with(r#"\u{1b}]0;x\u{7}\n'a' "b" \u{202e}é"#),
        "{text}"
    );
    assert!(text.len() < 500 && !text.contains(char::is_control));
}
