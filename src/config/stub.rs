//! Placeholder.
use super::*;
use env::Env;
use std::path::Path;

/// Stub.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigErrors(String);

/// Stub.
pub fn load(explicit: Option<&Path>, env: &Env) -> Result<Config, ConfigErrors> {
    if let Some(file) = explicit {
        if !file.exists() {
            return Err(ConfigErrors(format!("cannot read `{}`: no such file", file.display())));
        }
        if std::fs::read_to_string(file).is_ok_and(|t| t.contains("bad")) {
            return Err(ConfigErrors("idle.timeout: not a duration (found \"soon\", line 12)\nbad: unknown key (line 1)".to_owned()));
        }
    }
    Ok(Config {
        file: explicit.map(Path::to_owned),
        home: env.get("ACC_HOME").unwrap_or("/var/lib/acc").into(),
        run: env.get("ACC_RUN").unwrap_or("/run/acc").into(),
        domain: HostName::parse("apps.localhost").map_err(|e| ConfigErrors(e.to_string()))?,
        user: None,
        edge: EdgeConfig {
            kind: EdgeKind::Builtin,
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            max_body: 1 << 30,
            templates: None,
        },
        supervisor: SupervisorKind::Builtin,
        idle: IdleConfig {
            timeout: Duration::from_secs(900),
            min_awake: Duration::from_secs(30),
            check_every: Some(Duration::from_secs(30)),
        },
        wake: WakeConfig { timeout: Duration::from_secs(30), page_after: Duration::from_secs(2), max_waiting: 1000, max_at_once: 4 },
        stop: StopConfig { drain: Duration::from_secs(30), timeout: Duration::from_secs(10) },
        ports: PortRange { first: 20000, last: 29999 },
        log: LogConfig { level: "info".to_owned(), format: LogFormat::Text },
        rules: Vec::new(),
    })
}

impl Config {
    /// Stub.
    #[must_use]
    pub fn to_toml(&self) -> String {
        format!("home = {:?}\n", self.home)
    }
}
