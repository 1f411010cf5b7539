//! What a command that runs verbs by itself does last: it waits for the instances it has set in
//! motion.
//!
//! With it their tasks end, and with those the timers that kill what does not stop and fail what
//! does not answer.

use std::sync::Arc;

use crate::domain::lifecycle::Phase;
use crate::service::world::World;

/// Waits until no instance with a task is on its way from one phase to another; each for as long as
/// its limits allow, and not for those whose state is unknown.
pub async fn settle(world: &Arc<World>) {
    for handle in world.registry.all() {
        let limits = world.limits(&handle.launched());
        let longest = limits.start + limits.longest_stop();
        let mut changes = handle.follow();
        let moving =
            |phase: Phase| matches!(phase, Phase::Waking | Phase::Draining | Phase::Stopping);
        if handle.known() {
            let _ = tokio::time::timeout(longest, changes.wait_for(|s| !moving(s.phase))).await;
            handle.caught_up(world).await;
        }
    }
}
