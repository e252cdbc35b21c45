//! Takes back claims that ran out, and erases what is too old.

use super::{Shared, now};
use std::sync::Arc;

/// Jobs erased in one transaction.
const ERASE_AT_ONCE: usize = 500;

pub async fn run(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(shared.options.cleanup_interval);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        match shared.parts.store.sweep(now(), shared.options.max_attempts).await {
            Ok(swept) => {
                if swept.requeued + swept.failed > 0 {
                    tracing::warn!(requeued = swept.requeued, failed = swept.failed, "took back claims that ran out");
                }
                // Also for rings that were lost.
                shared.parts.queue.announce(swept.requeued as usize);
                shared.parts.queue.announce_deliveries();
            }
            Err(e) => tracing::error!(error = %e, "cannot sweep"),
        }
        erase_old(&shared).await;
    }
}

async fn erase_old(shared: &Shared) {
    let Some(retention) = shared.options.retention else { return };
    loop {
        match shared.parts.store.retain(now().minus(retention), ERASE_AT_ONCE).await {
            Ok(erased) if erased == ERASE_AT_ONCE as u64 => {}
            Ok(_) => return,
            Err(e) => {
                tracing::error!(error = %e, "cannot erase old jobs");
                return;
            }
        }
    }
}
