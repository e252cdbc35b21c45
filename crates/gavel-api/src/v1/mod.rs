//! `/api/v1`: the native API. Translation only; what is done is in [`crate::service`].

pub mod answer;
pub mod batch;
pub mod body;
pub mod deliveries;
pub mod events;
pub mod fields;
pub mod jobs;
pub mod languages;
pub mod pieces;
pub mod socket;
pub mod stream;
pub mod workers;

use crate::router::App;
use axum::Router;
use axum::routing::{get, post};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/jobs", post(jobs::create).get(jobs::list))
        .route("/jobs/batch", post(batch::create))
        .route("/jobs/stream", post(stream::create))
        .route("/jobs/{id}", get(jobs::find).delete(jobs::erase))
        .route("/jobs/{id}/cancel", post(jobs::cancel))
        .route("/jobs/{id}/deliveries", get(deliveries::list))
        .route("/jobs/{id}/events", get(events::follow))
        .route("/jobs/{id}/ws", get(socket::attach))
        .route("/languages", get(languages::list))
        .route("/languages/{id}", get(languages::find))
        .route("/workers", get(workers::list))
        .route("/stats", get(workers::stats))
}
