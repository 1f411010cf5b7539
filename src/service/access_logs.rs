//! The folders of the access logs: `log/access/NAME` below home, for the process that writes them
//! alone. They belong to no tenant, because root and the edge open names in there.
//!
//! It makes folders and gives them to their writer. It writes no log, and removes nothing: `purge`
//! does.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::config::Config;
use crate::host::{fs, users};

/// Makes the folder of one instance, or gives it to its writer.
pub(super) fn make(config: &Config, name: &str) -> io::Result<()> {
    fs::make_dir(&config.access_logs(), 0o711)?;
    users::private_folder(&config.access_dir(name), config.access_logs_user())
}

/// Makes the folder of a new instance, and in its own folder a link that leads there: for people,
/// acc never goes by it.
pub(super) fn make_new(config: &Config, name: &str) -> io::Result<()> {
    make(config, name)?;
    let link = config.instance_dir(name).join("log/access");
    match symlink(Path::new("../../../log/access").join(name), link) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// The same as `make` for these instances: older installations have no such folders, and the writer
/// may be another user than before. Without its folder an instance is served all the same, only its
/// requests are not written down.
pub fn make_all<'a>(config: &Config, names: impl IntoIterator<Item = &'a String>) {
    for name in names {
        if let Err(error) = make(config, name) {
            tracing::warn!(instance = name, %error, "could not create the folder of its access logs");
        }
    }
}
