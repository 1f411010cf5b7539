//! Placeholder.

/// Stub.
#[derive(Debug, Clone, Default)]
pub struct Env(std::collections::BTreeMap<String, String>);

impl Env {
    /// Stub.
    #[must_use]
    pub fn from_process() -> Self {
        Self(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect())
    }
    /// Stub.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}
