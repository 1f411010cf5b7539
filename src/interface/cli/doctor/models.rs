//! Models: can an instance be made from each of them?

use std::path::Path;

use super::finding::{Finding, ok, warn};
use crate::config::Config;
use crate::models::{ModelError, list_models};
use crate::service::error::chain;
use crate::service::launch_spec::bad_model;

/// One finding for each model that is wrong, else one for all of them.
pub(super) fn all(config: &Config) -> Vec<Finding> {
    let folder = config.models();
    let all = match list_models(&folder) {
        Ok(all) => all,
        Err(e) => return vec![warn(chain(&e), "check its owner and mode")],
    };
    let wrong: Vec<Finding> = all
        .iter()
        .filter_map(|model| {
            let error = model.as_ref().err()?;
            let error = bad_model(&name_of(error), error);
            Some(warn(error.message, error.hint))
        })
        .collect();
    match (all.len(), wrong.is_empty()) {
        (0, _) => vec![ok("no models yet: `acc boot` installs the shipped models")],
        (1, true) => vec![ok(format!("1 model in `{}`, valid", folder.display()))],
        (n, true) => vec![ok(format!(
            "{n} models in `{}`, all valid",
            folder.display()
        ))],
        (_, false) => wrong,
    }
}

/// Which model it is about; of a file that could not be read, the folder it lies in.
fn name_of(error: &ModelError) -> String {
    match error {
        ModelError::Missing { name, .. } | ModelError::Wrong { name, .. } => name.clone(),
        ModelError::Read { path, .. } => path
            .parent()
            .and_then(Path::file_name)
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use crate::config::env::Env;

    #[test]
    fn the_wrong_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let config =
            crate::config::load(None, &Env::bare(0, dir.path()).with("ACC_HOME", dir.path()))
                .unwrap();
        assert!(all(&config)[0].what.starts_with("no models yet"));
        for (name, text) in [("good", "command = [\"a\"]"), ("bad", "command = 5")] {
            std::fs::create_dir_all(config.models().join(name)).unwrap();
            std::fs::write(config.models().join(name).join("model.toml"), text).unwrap();
        }
        std::fs::create_dir(config.models().join("empty")).unwrap();
        let found = all(&config);
        assert!(
            found.len() == 2 && found.iter().all(|f| f.level == Level::Warn),
            "{found:?}"
        );
        assert!(
            found[0].what.contains("bad/model.toml`: command: ")
                && found[0].hint.contains("docs/models.md"),
            "{found:?}"
        );
        assert!(
            found[1].what.starts_with("model `empty` is incomplete"),
            "{found:?}"
        );
        for name in ["bad", "empty"] {
            std::fs::remove_dir_all(config.models().join(name)).unwrap();
        }
        assert!(all(&config)[0].what.starts_with("1 model in `"));
    }
}
