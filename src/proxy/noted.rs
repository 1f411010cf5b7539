//! Behind nginx: a request that may not be sent twice is noted for as long as another acc may be asked about it.
//!
//! It decides nothing; see `forward::hopeless` for what is done with a note.

use std::sync::Arc;
use std::time::Duration;

use crate::host::sent::{Id, Sent};

/// Within this, what was answered has reached nginx.
const ANSWER_ARRIVES: Duration = Duration::from_secs(10);

/// A request that may not be sent twice is on its way to an instance; dropped when its answer is on the way back.
pub(super) struct ReplayNote {
    sent: Arc<Sent>,
    id: Id,
    seen: bool,
}

impl ReplayNote {
    /// Notes it.
    ///
    /// # Errors
    /// It could not be noted, so it must not be sent.
    pub(super) fn note(sent: &Arc<Sent>, id: Id) -> std::io::Result<Option<Self>> {
        sent.note(id)?;
        Ok(Some(Self { sent: sent.clone(), id, seen: true }))
    }

    /// The instance was not reached.
    pub(super) fn unseen(mut self) {
        self.seen = false;
        self.sent.done(self.id);
    }
}

impl Drop for ReplayNote {
    fn drop(&mut self) {
        if !self.seen {
            return;
        }
        let (sent, id) = (self.sent.clone(), self.id);
        tokio::spawn(async move {
            // Until nginx has the answer for certain.
            tokio::time::sleep(ANSWER_ARRIVES).await;
            sent.done(id);
        });
    }
}
