//! The paths of an installation, and which run folder a faulty config file still names: that folder
//! contains the settings in force.
//!
//! It creates nothing and guesses nothing: if the file may name another folder after the last
//! readable line, the run folder is unknown.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::booted::{Booted, booted_file};
use super::env::Env;
use super::load::{find, run_folder};
use super::reader::{Faults, Section};
use super::settings::{Config, EdgeKind};

/// The paths. Everything below `home` and `run` is named here and nowhere else.
impl Config {
    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.home.join("acc.db")
    }
    /// Models.
    #[must_use]
    pub fn models(&self) -> PathBuf {
        self.home.join("models")
    }
    /// An instance's folder.
    #[must_use]
    pub fn instance_dir(&self, name: &str) -> PathBuf {
        self.home.join("instances").join(name)
    }
    /// An instance's lasting data.
    #[must_use]
    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.instance_dir(name).join("data")
    }
    /// Standard output and error of an instance.
    #[must_use]
    pub fn app_log(&self, name: &str) -> PathBuf {
        self.instance_dir(name).join("log/app.log")
    }
    /// The folders of the access logs, one for each instance.
    #[must_use]
    pub fn access_logs(&self) -> PathBuf {
        self.home.join("log/access")
    }
    /// The access logs of an instance: only the edge may use this folder, not the instance's user.
    #[must_use]
    pub fn access_dir(&self, name: &str) -> PathBuf {
        self.access_logs().join(name)
    }
    /// Requests to an instance that count as use, a line each.
    #[must_use]
    pub fn access_log(&self, name: &str) -> PathBuf {
        self.access_dir(name).join("access.log")
    }
    /// Requests to an instance that do not count as use.
    #[must_use]
    pub fn uncounted_log(&self, name: &str) -> PathBuf {
        self.access_dir(name).join("uncounted.log")
    }
    /// The user that writes the access logs if acc is root: that of nginx's workers; `None`: acc's
    /// own.
    #[must_use]
    pub fn access_logs_user(&self) -> Option<&str> {
        self.edge
            .user
            .as_deref()
            .filter(|_| self.edge.kind == EdgeKind::Nginx)
    }
    /// Where files from `home` are moved to be removed: only acc may enter.
    #[must_use]
    pub fn trash(&self) -> PathBuf {
        self.home.join("trash")
    }
    /// The same for files from `run`.
    #[must_use]
    pub fn run_trash(&self) -> PathBuf {
        self.run.join("trash")
    }
    /// Log of acc's own parts.
    #[must_use]
    pub fn own_log(&self, part: &str) -> PathBuf {
        self.home.join("log").join(format!("{part}.log"))
    }
    /// Logs of instances that could not be created.
    #[must_use]
    pub fn failed_logs(&self) -> PathBuf {
        self.home.join("log/failed")
    }
    /// nginx's configuration.
    #[must_use]
    pub fn nginx_dir(&self) -> PathBuf {
        self.home.join("nginx")
    }
    /// supervisord's configuration.
    #[must_use]
    pub fn supervisor_dir(&self) -> PathBuf {
        self.home.join("supervisor")
    }
    /// Records that acc was booted and how; `halt` removes it. Earlier versions look here.
    #[must_use]
    pub fn booted_file(&self) -> PathBuf {
        booted_file(&self.run)
    }
    /// The same record where no cleaner of temporary folders removes it.
    #[must_use]
    pub fn home_booted_file(&self) -> PathBuf {
        booted_file(&self.home)
    }
    /// The limit of open files with which acc was booted.
    #[must_use]
    pub fn open_files_file(&self) -> PathBuf {
        self.run.join("open-files")
    }
    /// The same limit where no cleaner of temporary folders removes it.
    #[must_use]
    pub fn home_open_files_file(&self) -> PathBuf {
        self.home.join("open-files")
    }
    /// How acc was booted, and so what restarts its supervisor.
    #[must_use]
    pub fn booted(&self) -> Booted {
        Booted::in_folders(&self.home, &self.run)
    }
    /// Held by the process that runs verbs.
    #[must_use]
    pub fn owner_lock(&self) -> PathBuf {
        self.run.join("owner.lock")
    }
    /// Held by the server's master.
    #[must_use]
    pub fn server_lock(&self) -> PathBuf {
        self.run.join("server.lock")
    }
    /// Held by the process that runs verbs, besides [`Self::owner_lock`]: no cleaner of temporary
    /// folders removes it, and two installations with the same home share it.
    #[must_use]
    pub fn home_owner_lock(&self) -> PathBuf {
        self.home.join("owner.lock")
    }
    /// Held by the server's master besides [`Self::server_lock`].
    #[must_use]
    pub fn home_server_lock(&self) -> PathBuf {
        self.home.join("server.lock")
    }
    /// The control socket of the server.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }
    /// Where a new master accepts a worker whose own master has died.
    #[must_use]
    pub fn master_socket(&self) -> PathBuf {
        self.run.join("master.sock")
    }
    /// Where nginx sends requests that it cannot serve.
    #[must_use]
    pub fn wake_socket(&self) -> PathBuf {
        self.run.join("wake.sock")
    }
    /// Records of requests that were sent to instances, see `proxy::replay_notes`.
    #[must_use]
    pub fn sent_dir(&self) -> PathBuf {
        self.run.join("sent")
    }
    /// supervisord's XML-RPC socket.
    #[must_use]
    pub fn supervisor_socket(&self) -> PathBuf {
        self.run.join("supervisor.sock")
    }
    /// supervisord's pid file.
    #[must_use]
    pub fn supervisord_pid(&self) -> PathBuf {
        self.run.join("supervisord.pid")
    }
    /// Gates.
    #[must_use]
    pub fn gate_dir(&self) -> PathBuf {
        self.run.join("gate")
    }
    /// The folder of an instance's own socket.
    #[must_use]
    pub fn socket_dir(&self, name: &str) -> PathBuf {
        self.run.join("sock").join(name)
    }
    /// An instance's own socket.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.socket_dir(name).join("app.sock")
    }
    /// Where an instance reports that it is ready, if it does.
    #[must_use]
    pub fn notify_socket(&self, name: &str) -> PathBuf {
        self.run.join("notify").join(format!("{name}.sock"))
    }
    /// Pid files of the builtin supervisor.
    #[must_use]
    pub fn pid_dir(&self) -> PathBuf {
        self.run.join("pid")
    }
}

/// The run folder of a faulty file; `None`: unknown.
#[must_use]
pub fn run_of_faulty(explicit: Option<&Path>, env: &Env) -> Option<PathBuf> {
    let text = find(explicit, env)
        .ok()?
        .map(|(_, text)| text)
        .unwrap_or_default();
    let head = readable(&text);
    let table = DeTable::parse(head).ok()?.into_inner();
    let faults = Faults::new(head);
    let root = Section::root(&faults, &table);
    let said = env.os("ACC_RUN").is_some() || root.line_of("run").is_some();
    if !said && text.get(head.len()..)?.lines().any(may_name_run) {
        return None;
    }
    run_folder(&root, env, &faults).filter(|_| faults.is_empty())
}

/// The lines before the first one that is not TOML.
fn readable(text: &str) -> &str {
    let mut head = text;
    while let Err(e) = DeTable::parse(head) {
        let at = e
            .span()
            .map_or(head.len(), |span| span.start)
            .min(head.len().saturating_sub(1));
        let end = head
            .get(..at)
            .and_then(|before| before.rfind('\n'))
            .map_or(0, |newline| newline + 1);
        head = head.get(..end).unwrap_or_default();
    }
    head
}

fn may_name_run(line: &str) -> bool {
    let line = line.trim_start().trim_start_matches(['"', '\'']);
    line.strip_prefix("run").is_some_and(|rest| {
        !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_told_is_told_and_nothing_is_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("acc.toml");
        let run = |text: &str| {
            std::fs::write(&file, text).unwrap();
            run_of_faulty(Some(&file), &Env::bare(0, dir.path()))
        };
        for text in [
            "run = \"/a/run\"\n[idle]\ntimeout = \"soon\"\n",
            "run = \"/a/run\"\nhome = \"relative\"\nnonsense = 1\n",
            "run = \"/a/run\"\n[idle\ntimeout = \"5m\"\n",
            "run = \"/a/run\"\n[idle]\ntimeout = \"5m\nrun = \"/b\"\n",
            "home = \"/a/home\"\nrun = \"/a/run\"\n[idle]\nrunning = 1\ntimeout = 5m\n[edge]\nx = '''\n",
        ] {
            assert_eq!(run(text), Some("/a/run".into()), "{text}");
        }
        for text in [
            "[idle]\ntimeout = soon\n",
            "home = \"/a\nrunning = 3\n",
            "",
            "=",
            "= \"\n\n",
        ] {
            assert_eq!(run(text), Some("/run/acc".into()), "{text}");
        }
        for text in [
            "run = \"/a/run\n",
            "home = \"/a\nrun = \"/a/run\"\n",
            "x = \n \"run\" = \"/a\"",
            "run = 5\n",
            "run = \"relative\"\n",
        ] {
            assert_eq!(run(text), None, "{text}");
        }
        std::fs::write(&file, "home = \"/a\nrun = \"/a/run\"\n").unwrap();
        assert_eq!(
            run_of_faulty(
                Some(&file),
                &Env::bare(0, dir.path()).with("ACC_RUN", "/b/run")
            ),
            Some("/b/run".into())
        );
        assert_eq!(
            run_of_faulty(Some(&dir.path().join("missing")), &Env::bare(0, dir.path())),
            None
        );
    }
}
