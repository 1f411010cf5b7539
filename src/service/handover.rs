//! Hands the instances over: another acc manages them while this one carries its requests to their
//! end.
//!
//! From then on this acc decides nothing: its tasks end between two events, as they would in a
//! crash, and the next acc finds out from the database and the supervisor what is true.
//! Requests that are held here, and those that still come in by connections already made, go on to
//! the other acc's wake socket, which holds, wakes and counts for them. It stops nothing and starts
//! nothing.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::domain::account::Account;
use crate::domain::instance::Listen;
use crate::domain::name::InstanceName;
use crate::driver::edge::Gate;
use crate::service::admission::Ticket;
use crate::service::error::chain;
use crate::service::world::World;
use crate::store::LogCheck;

/// How long a start that has just been given to the supervisor may take to be known.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends a request to the acc that manages the instances now.
struct Onward {
    gate: Gate,
}

impl Ticket for Onward {
    fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The other acc ends them.
    fn streams_end(&self) -> CancellationToken {
        CancellationToken::new()
    }
}

/// A ticket to the acc that has taken over, for a request to this instance.
pub(super) fn onward(world: &World, name: InstanceName) -> Box<dyn Ticket> {
    Box::new(Onward {
        gate: Gate {
            name,
            listen: Listen::Unix(world.config().wake_socket()),
            run: 0,
            process: None,
            // It is in a folder of acc's own, where no other user can have put a socket.
            account: Account::SameAsAcc,
        },
    })
}

/// Hands the instances over: returns when no task of an instance acts any more and what is only in memory
/// has been written down. The owner's lock may be let go of then, and not before.
pub async fn retire(world: &Arc<World>) {
    world.set_retired();
    world.hands.close();
    if tokio::time::timeout(PATIENCE, world.hands.wait())
        .await
        .is_err()
    {
        warn!(
            "the supervisor is slow: {} starts or stops continue during the handover",
            world.hands.len()
        );
    }
    for handle in world.registry.all() {
        let (phase, tickets, quiet, used) = {
            let machine = handle.machine();
            (
                machine.phase(),
                machine.tickets(),
                machine.quiet_since(),
                machine.used(),
            )
        };
        if !phase.is_live() || !handle.known() {
            continue;
        }
        // With the builtin edge only this process knows when the last request ended.
        let (quiet, used) = if tickets > 0 {
            (world.now(), Some(world.now()))
        } else {
            (quiet, used)
        };
        let last = *handle
            .last_check
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let log_mark = (last.mark.inode, last.mark.size, last.mark.modified);
        let active_at = used.map(|at| world.wall_at(at));
        let check = LogCheck {
            log_mark,
            at: last.at,
            quiet_since: quiet,
            active_at,
            clock: last.offset,
        };
        let (id, name) = (handle.instance.id, handle.instance.name.clone());
        drop(world.write(move |store| {
            store.log_checked(id, &check).inspect_err(
                |e| warn!(instance = %name, "could not record its last use: {}", chain(e)),
            )
        }));
    }
    end_writing(world).await;
}

/// Finishes the queued writes, or drops those that a slow database does not take in time.
async fn end_writing(world: &World) {
    if tokio::time::timeout(PATIENCE, world.written())
        .await
        .is_err()
    {
        warn!("the database is slow: some writes were not finished before the handover");
    }
    world.write_no_more();
    // A write that is under way still waits for the lock of another program: it must not come after
    // those of the next acc.
    let _ = tokio::time::timeout(PATIENCE, world.written()).await;
}
