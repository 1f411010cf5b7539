//! Says beside a command that acc's server does not run although it should: everything else would
//! hide that the server is not running.
//!
//! It changes nothing: the operator, or the next monitor run, repairs what is wrong.

use std::io::ErrorKind;

use tokio::net::UnixStream;

use super::args::Command;
use crate::config::{Booted, Config, EdgeConfig};

/// What is said.
pub(super) fn line(edge: &EdgeConfig) -> &'static str {
    if edge.own_addresses().is_empty() {
        "acc's server is not running, so requests to sleeping instances fail: start it with `acc boot`"
    } else {
        "acc's server is not running, so all requests fail: start it with `acc boot`"
    }
}

/// Is this a command about instances? The others start or end the server, say so themselves, or
/// have nothing to do with it.
pub(super) fn matters(command: &Command) -> bool {
    match command {
        Command::Create(_)
        | Command::Start(_)
        | Command::Stop(_)
        | Command::Restart(_)
        | Command::Enable(_)
        | Command::Disable(_)
        | Command::Pin(_)
        | Command::Reset(_)
        | Command::Destroy(_)
        | Command::Purge(_)
        | Command::List(_)
        | Command::Info(_)
        | Command::Logs(_)
        | Command::Events(_) => true,
        Command::Boot(_)
        | Command::Halt
        | Command::Reload
        | Command::Models(_)
        | Command::Monitor(_)
        | Command::Prove(_)
        | Command::Server(_)
        | Command::Worker(_)
        | Command::Config(_)
        | Command::Doctor
        | Command::Completions(_)
        | Command::Names(_)
        | Command::Man(_)
        | Command::DemoApp(_) => false,
    }
}

/// `false`: acc was booted and not halted since, and no process listens on its control socket.
/// Could not ask is not that.
pub(super) async fn is_served(config: &Config) -> bool {
    if config.booted() == Booted::No {
        return true;
    }
    match UnixStream::connect(config.control_socket()).await {
        Ok(_) => true,
        Err(e) => !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::env::Env;

    #[tokio::test]
    async fn only_a_missing_server_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::bare(0, dir.path())
            .with("ACC_HOME", dir.path().join("h"))
            .with("ACC_RUN", dir.path().join("r"));
        let config = crate::config::load(None, &env).unwrap();
        assert!(is_served(&config).await, "never booted, or halted");
        std::fs::create_dir(&config.run).unwrap();
        std::fs::write(config.booted_file(), Booted::InBackground.as_str()).unwrap();
        assert!(!is_served(&config).await, "no socket");
        let listener = std::os::unix::net::UnixListener::bind(config.control_socket()).unwrap();
        assert!(is_served(&config).await);
        drop(listener);
        assert!(!is_served(&config).await, "the socket was left behind");
        std::fs::remove_file(config.booted_file()).unwrap();
        assert!(is_served(&config).await);
    }
}
