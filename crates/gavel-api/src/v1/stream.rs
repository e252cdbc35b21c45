//! Jobs in, results out, one line each: for clients with more jobs than they want to keep track of.
//!
//! Nothing is read ahead of what the client takes: a line is read when one of the jobs in work has
//! ended, and a result is made when the connection has room for it.

use super::answer::{BatchItem, JobBody, StreamItem, encode};
use super::body::SubmitBody;
use crate::edge::RequestId;
use crate::error::{ApiError, ProblemBody};
use crate::input::{self, Line, Lines};
use crate::owner::Owner;
use crate::query::Params;
use crate::router::App;
use crate::service::{Waited, raised};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt, stream};
use std::convert::Infallible;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::error;

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Runs a stream of jobs.
///
/// NDJSON both ways. Results come as jobs end, in any order: `index` is the number of the line, from 0,
/// that asked for it; empty lines do not count. A line that is refused gets `{"index":…,"error":{…}}`, and
/// the stream goes on. A full queue slows the stream down instead of failing it.
#[utoipa::path(
    post, path = "/api/v1/jobs/stream", operation_id = "stream_jobs", tag = "jobs",
    request_body(content = SubmitBody, content_type = "application/x-ndjson"),
    responses(
        (status = 200, description = "One line for each line of the request", body = StreamItem, content_type = "application/x-ndjson"),
        (status = 415, description = "Not application/x-ndjson", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A header or parameter that means nothing here", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn create(State(app): State<App>, owner: Owner, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    Params::of(parts.uri.query()).end()?;
    input::require_type(&parts.headers, &["application/x-ndjson", "application/ndjson", "application/jsonl"])?;
    if parts.headers.contains_key("idempotency-key") {
        return Err(ApiError::field("Idempotency-Key", "means nothing on a stream: use single jobs or a batch"));
    }
    // Those beyond the quota would only ask the store for room again and again.
    let most = owner.quota.concurrent.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX).max(1));
    let feed = Feed {
        window: app.options().stream_window.min(most),
        lines: Some(Lines::new(body, app.clone())),
        draining: app.service().draining(),
        owner,
        app,
        index: 0,
        request_id: RequestId::of(&parts.extensions),
        in_work: FuturesUnordered::new(),
    };
    let lines = stream::unfold(feed, |mut feed| async move { Some((Ok::<_, Infallible>(feed.next().await?), feed)) });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(CONTENT_TYPE, NDJSON);
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Feed {
    app: App,
    owner: Owner,
    /// `None`: nothing more will be read.
    lines: Option<Lines>,
    draining: watch::Receiver<bool>,
    index: u64,
    request_id: RequestId,
    in_work: FuturesUnordered<BoxFuture<'static, Bytes>>,
    /// Jobs that are in work at once.
    window: usize,
}

enum Step {
    Read(Option<Line>),
    Ended(Bytes),
    StopReading,
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.lines.is_none() && self.in_work.is_empty() {
                return None;
            }
            match self.step().await {
                Step::Ended(line) => return Some(line),
                Step::Read(Some(line)) => self.begin(line),
                Step::Read(None) | Step::StopReading => self.lines = None,
            }
        }
    }

    async fn step(&mut self) -> Step {
        let room = self.in_work.len() < self.window;
        let idle = self.in_work.is_empty();
        let reading = self.lines.is_some();
        tokio::select! {
            Some(line) = self.in_work.next(), if !idle => Step::Ended(line),
            line = read(&mut self.lines), if room && reading => Step::Read(line),
            () = raised(&mut self.draining), if reading => Step::StopReading,
            () = sleep(self.app.options().stream_idle), if idle => Step::StopReading,
        }
    }

    fn begin(&mut self, line: Line) {
        let index = self.index;
        self.index += 1;
        let work = run(self.app.clone(), self.owner.clone(), line);
        let request_id = self.request_id.clone();
        self.in_work.push(work.map(move |result| result_line(&request_id, index, result)).boxed());
    }
}

async fn read(lines: &mut Option<Lines>) -> Option<Line> {
    lines.as_mut()?.next().await
}

async fn run(app: App, owner: Owner, line: Line) -> Result<Waited, ApiError> {
    let line = match line {
        Line::Whole(line) => line,
        Line::TooLong => return Err(input::too_large(app.options().max_body)),
    };
    let draft = input::parse::<SubmitBody>(&line)?.into_draft()?;
    drop(line);
    Ok(app.service().run_through(&owner, draft).await?)
}

/// `{"index":7,…}` with the fields of the job, or `{"index":7,"error":{…}}`.
fn result_line(request_id: &RequestId, index: u64, result: Result<Waited, ApiError>) -> Bytes {
    let body = match &result {
        Ok(Waited::Read(record)) => encode(&JobBody::of(record)),
        Ok(Waited::Unread(receipt)) => encode(&JobBody::pending(receipt)),
        Err(problem) => encode(&BatchItem::Refused { error: problem.body() }),
    };
    if let Err(ApiError { cause: Some(cause), .. }) = &result {
        error!(%request_id, %cause, index, "a job of a stream failed");
    }
    let body = body.unwrap_or_else(|problem| {
        error!(%request_id, cause = ?problem.cause, index, "cannot write a line of a stream");
        br#"{"error":{"type":"urn:gavel:problem:internal","title":"Internal error","status":500,"detail":"","errors":[]}}"#
            .to_vec()
    });
    let mut line = format!("{{\"index\":{index},").into_bytes();
    line.reserve_exact(body.len());
    line.extend_from_slice(body.get(1..).unwrap_or_default());
    line.push(b'\n');
    line.into()
}
