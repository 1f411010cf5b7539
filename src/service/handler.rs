//! The one way in for every request, from any caller: whether it may, and a line in the log for
//! each request that changes something.
//!
//! It never does what is asked for: the [`Handler`] does.

use async_trait::async_trait;
use tracing::debug;

use crate::host::users;
use crate::service::error::{ErrorKind, ServiceError};
use crate::service::outcome::Outcome;
use crate::service::request::Request;

/// Answers requests: the server, a command without one, or only the files of an installation.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Answers one request, and ends no sooner than what it does. Only [`handle()`] calls it, or
    /// another handler that passes a request on. A `Ping` must be answered at once, whatever else is
    /// under way: clients use it to tell a slow verb from a hung server.
    async fn answer(
        &self,
        caller: &RequestCaller,
        request: Request,
    ) -> Result<Outcome, ServiceError>;
}

/// By which way a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryPoint {
    /// The server's control socket.
    ControlSocket,
    /// A command that does it by itself.
    CommandLine,
    /// A timer of the server.
    Timer,
}

impl EntryPoint {
    /// Its word, in the records of operations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlSocket => "control_socket",
            Self::CommandLine => "command_line",
            Self::Timer => "timer",
        }
    }
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything: root, or the user who runs acc.
    Operator,
}

/// Who makes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestCaller {
    /// The user on this host.
    pub uid: u32,
    /// By which way it came.
    pub entry: EntryPoint,
    /// What the caller may do.
    pub role: Role,
}

impl RequestCaller {
    /// A user of this host who operates acc.
    #[must_use]
    pub fn operator(uid: u32, entry: EntryPoint) -> Self {
        let role = Role::Operator;
        Self { uid, entry, role }
    }

    /// The user of this process.
    #[must_use]
    pub fn own(entry: EntryPoint) -> Self {
        Self::operator(rustix::process::geteuid().as_raw(), entry)
    }

    /// The name of that user, if the host knows one. It asks the host's list of users, which may be
    /// on another host: a ping must not wait for it.
    #[must_use]
    pub fn user_name(&self) -> Option<String> {
        users::name(self.uid)
    }
}

/// May one of this role ask for this?
#[must_use]
pub fn may(role: Role, _request: &Request) -> bool {
    match role {
        Role::Operator => true,
    }
}

/// Has `handler` answer what `caller` asks for, if that is allowed.
///
/// # Errors
/// The caller may not ask for it, or it did not work.
pub async fn handle(
    handler: &(impl Handler + ?Sized),
    caller: &RequestCaller,
    request: Request,
) -> Result<Outcome, ServiceError> {
    if !may(caller.role, &request) {
        return Err(ServiceError::new(
            ErrorKind::Denied,
            format!("`{}` is not allowed for {:?}", request.verb(), caller.role),
            "ask the operator of acc",
        ));
    }
    if request.changes() {
        // Of a create only the name: its parameters may be secrets.
        debug!(
            uid = caller.uid,
            user = caller.user_name(),
            entry = ?caller.entry,
            verb = request.verb(),
            instance = request.instance(),
            "request"
        );
    }
    handler.answer(caller, request).await
}
