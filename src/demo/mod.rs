//! Placeholder.

/// Stub.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {}

/// Stub.
pub fn start(_options: Options) -> anyhow::Result<()> {
    Ok(())
}
