//! Keeps claims alive, and brings wishes to cancel to the jobs that run here.

use super::{MAX_EARLY, Shared, Why, now};
use gavel_store::{ClaimKey, Lease};
use std::sync::Arc;
use std::time::Duration;

/// Extends every claim well before it runs out.
pub async fn heartbeat(shared: Arc<Shared>) {
    let interval = (shared.options.lease / 3).clamp(Duration::from_millis(100), Duration::from_secs(15));
    loop {
        tokio::time::sleep(interval).await;
        let keys: Vec<ClaimKey> = shared.claims().held.keys().copied().collect();
        if keys.is_empty() {
            continue;
        }
        match shared.parts.store.extend(keys.clone(), now(), shared.options.lease).await {
            Ok(answers) => {
                for (key, answer) in keys.into_iter().zip(answers) {
                    match answer {
                        Lease::Held => {}
                        Lease::CancelWanted => shared.stop(key, Why::Wanted),
                        Lease::Lost => shared.stop(key, Why::LeaseLost),
                    }
                }
            }
            // The leases hold for two more tries.
            Err(e) => tracing::error!(error = %e, "cannot extend leases"),
        }
    }
}

pub async fn listen_for_cancels(shared: Arc<Shared>) {
    loop {
        let id = shared.parts.queue.cancel_wanted().await;
        let mut claims = shared.claims();
        let key = claims.held.keys().find(|key| key.id == id).copied();
        match key {
            Some(key) => {
                drop(claims);
                shared.stop(key, Why::Wanted);
            }
            // Claimed, but not yet handed out, or not ours.
            None => {
                if claims.early.len() >= MAX_EARLY {
                    claims.early.clear();
                }
                claims.early.insert(id);
            }
        }
    }
}
