//! How a proof uses acc: runs verbs like any other command, and boots what was killed. It decides
//! nothing.

use std::time::Duration;

use async_trait::async_trait;

use crate::service::error::{ErrorKind, ServiceError, unexpected};
use crate::service::outcome::{InstanceView, Outcome};
use crate::service::request::Request;

/// Time limit to restore everything that was killed; beyond it the proof ends.
pub(super) const BACK: Duration = Duration::from_secs(60);

/// Pause between two boots.
const AGAIN: Duration = Duration::from_millis(100);

/// Runs verbs like any other command. Passed in, because the code is in layers above this one.
#[async_trait(?Send)]
pub trait Operator {
    /// Runs one verb.
    async fn ask(&self, request: Request) -> Result<Outcome, ServiceError>;
    /// `acc boot`: restores what is missing.
    async fn boot(&self) -> Result<(), ServiceError>;
}

/// Boots until the server answers.
pub(super) async fn boot_again(
    operator: &dyn Operator,
    limit: Duration,
) -> Result<(), ServiceError> {
    let mut last = ServiceError::new(
        ErrorKind::TimedOut,
        "acc did not start again",
        "run `acc boot`",
    );
    let back = async {
        loop {
            match operator.boot().await {
                Ok(()) if server(operator).await.is_some() => return,
                Ok(()) => {}
                Err(e) => last = e,
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    match tokio::time::timeout(limit, back).await {
        Ok(()) => Ok(()),
        Err(_) => Err(ServiceError {
            message: format!("what was killed did not start again: {}", last.message),
            ..last
        }),
    }
}

/// One instance.
pub(super) async fn find(
    operator: &dyn Operator,
    name: &str,
) -> Result<InstanceView, ServiceError> {
    let instance = name.into();
    match operator.ask(Request::Info { instance }).await? {
        Outcome::Info(info) => Ok(info.instance),
        _ => Err(unexpected()),
    }
}

/// The pid of the server. Without one this process answers itself, and that is `None`.
pub(super) async fn server(operator: &dyn Operator) -> Option<i32> {
    match operator.ask(Request::Ping).await {
        Ok(Outcome::Pong { pid, .. }) if pid != std::process::id() => i32::try_from(pid).ok(),
        _ => None,
    }
}
