//! The API of Judge0 1.13.1, for clients that were written for it. Translation only: a submission becomes a
//! draft, a job becomes a submission; what is done is in [`crate::service`].
//!
//! Reading order: the routes below, [`submissions`] (what happens to a request), [`attributes`] (what comes in),
//! [`answer`] and [`status`] (what goes out).

mod answer;
mod attributes;
mod base64;
pub(crate) mod batch;
mod document;
mod error;
pub(crate) mod info;
mod languages;
mod options;
mod origin;
mod params;
mod status;
pub(crate) mod submissions;
pub mod token;

pub use answer::callback_body;
pub use attributes::most_unpacked;
pub use options::{Bound, Options, Version};

use crate::owner::Owner;
use crate::router::App;
use axum::Router;
use axum::extract::Extension;
use axum::middleware::from_fn;
use axum::routing::{MethodRouter, get, post};
use error::Refusal;
use serde::{Deserialize, Serialize};

/// Judge0 exists twice, with different numbers for languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    Ce,
    /// Below `/extra`.
    Extra,
}

/// The routes, all of them in both flavours.
pub const ROUTES: [&str; 17] = [
    "/submissions",
    "/submissions/batch",
    "/submissions/{token}",
    "/languages",
    "/languages/all",
    "/languages/{id}",
    "/statuses",
    "/system_info",
    "/config_info",
    "/about",
    "/version",
    "/isolate",
    "/license",
    "/statistics",
    "/workers",
    "/authenticate",
    "/authorize",
];

fn handler(route: &str) -> MethodRouter<App> {
    match route {
        // Listing needs authorization, see `authorized`; so do DELETE and `/authorize`.
        "/submissions" => post(submissions::create).get(submissions::list),
        "/submissions/batch" => post(batch::create).get(batch::find),
        "/submissions/{token}" => get(submissions::find).delete(submissions::delete),
        "/languages" => get(info::languages),
        "/languages/all" => get(info::all_languages),
        "/languages/{id}" => get(info::language),
        "/statuses" => get(info::statuses),
        "/system_info" => get(info::system),
        "/config_info" => get(info::config),
        "/about" => get(info::about),
        "/version" => get(info::version),
        "/isolate" => get(info::isolate),
        "/license" => get(info::license),
        "/statistics" => get(info::statistics),
        "/workers" => get(info::workers),
        "/authenticate" => post(info::authenticate),
        _ => post(info::authorize),
    }
}

/// Everything below `/` and `/extra`. A slash at the end is fine, and so is `.json`.
pub fn routes() -> Router<App> {
    let of = |flavour, prefix: &str| {
        let mut router = Router::new();
        for route in ROUTES {
            // Judge0 does not tell a wrong method from a wrong path.
            let handler = || handler(route).fallback(async || Refusal::NOT_FOUND);
            let path = format!("{prefix}{route}");
            router = router.route(&format!("{path}/"), handler());
            if !route.ends_with('}') {
                // Where the path ends in a name, that takes the suffix along.
                router = router.route(&format!("{path}.json"), handler());
            }
            router = router.route(&path, handler());
        }
        router.layer(Extension(flavour))
    };
    let home = || get(info::home).fallback(async || Refusal::NOT_FOUND);
    let both = of(Flavour::Ce, "").merge(of(Flavour::Extra, "/extra"));
    both.route("/", home()).route("/extra", home()).route("/extra/", home()).layer(from_fn(error::frame))
}

/// May this owner list and delete? Where no tokens are configured, everybody is the operator.
fn authorized(owner: &Owner) -> Result<(), Refusal> {
    if owner.sees_all { Ok(()) } else { Err(Refusal::Empty(axum::http::StatusCode::FORBIDDEN)) }
}
