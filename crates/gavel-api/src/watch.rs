//! Follows one job: what happened so far, then the rest as it happens, then how it ended.

use crate::places::Place;
use crate::service::{Service, raised};
use gavel_core::job::Interactive;
use gavel_core::{JobId, Status};
use gavel_store::{Event, JobRecord, Listener, Stream};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

#[derive(Debug)]
pub enum Seen {
    /// `restarted`: what was shown of its output is void.
    Status {
        status: Status,
        worker: Option<i32>,
        attempt: u32,
        restarted: bool,
    },
    Output {
        stream: Stream,
        bytes: Vec<u8>,
    },
    /// Output is missing here; the row has it when the job has ended.
    Dropped {
        bytes: u64,
    },
    /// The last one of a job.
    Done(Arc<JobRecord>),
    /// The job was erased while it was watched.
    Gone,
    /// The server is going away; the job is not.
    Draining,
}

/// A pulled stream: nothing is read ahead of a slow client. Dropping it frees its place.
pub struct Watch {
    service: Arc<Service>,
    _place: Place,
    listener: Box<dyn Listener>,
    listening: bool,
    /// The row should be read before anything else; survives a dropped `next`.
    must_look: bool,
    draining: watch::Receiver<bool>,
    id: JobId,
    interactive: Option<Interactive>,
    shown: (Status, u32),
    /// Bytes shown of stdout, stderr and the compiler's output.
    sent: [usize; 3],
    /// What was shown is no beginning of the output, so its rest cannot be shown either.
    gap: bool,
    next: VecDeque<Seen>,
    over: bool,
}

enum Heard {
    Bell(Option<Event>),
    Nothing,
    Drain,
}

/// What is replayed comes in pieces of at most this size, as it does live.
const PIECE: usize = 64 << 10;

const STREAMS: [Stream; 3] = [Stream::CompileOutput, Stream::Stdout, Stream::Stderr];

impl Watch {
    pub(crate) fn new(service: Arc<Service>, place: Place, listener: Box<dyn Listener>, record: JobRecord) -> Self {
        let draining = service.draining();
        let mut watch = Self {
            service,
            _place: place,
            listener,
            listening: true,
            must_look: false,
            draining,
            id: record.id,
            interactive: record.job.interactive,
            shown: (record.status, record.attempt),
            sent: [0; 3],
            gap: false,
            next: VecDeque::new(),
            over: false,
        };
        if record.status.has_ended() {
            watch.end(Arc::new(record));
        } else {
            watch.next.push_back(Seen::Status {
                status: record.status,
                worker: record.worker_id,
                attempt: record.attempt,
                restarted: false,
            });
        }
        watch
    }

    pub fn id(&self) -> JobId {
        self.id
    }

    /// Does the job take input while it runs?
    pub fn interactive(&self) -> Option<Interactive> {
        self.interactive
    }

    /// The end is known, if not yet shown.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// `None` after the last one. Nothing is lost when the future is dropped before it is ready.
    pub async fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some(seen) = self.next.pop_front() {
                return Some(seen);
            }
            if self.over {
                return None;
            }
            self.advance().await;
        }
    }

    async fn advance(&mut self) {
        if self.must_look {
            self.look().await;
            self.must_look = false;
            return;
        }
        let look = Instant::now() + self.service.options().poll;
        let heard = tokio::select! {
            event = self.listener.next(), if self.listening => Heard::Bell(event),
            () = sleep_until(look) => Heard::Nothing,
            () = raised(&mut self.draining) => Heard::Drain,
        };
        match heard {
            Heard::Bell(Some(event)) => self.hear(event),
            Heard::Bell(None) => {
                self.listening = false;
                self.must_look = true;
            }
            Heard::Nothing => self.must_look = true,
            Heard::Drain => self.close(Seen::Draining),
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Started { worker, attempt } => self.started(worker, attempt),
            Event::Output { stream, bytes } => {
                self.sent[stream as usize] += bytes.len();
                self.next.push_back(Seen::Output { stream, bytes });
            }
            Event::Dropped { bytes } => {
                self.gap = true;
                self.next.push_back(Seen::Dropped { bytes });
            }
            Event::Restarted => self.restarted(),
            Event::Ended(Some(record)) => self.end(record),
            Event::Ended(None) => self.must_look = true,
        }
    }

    fn started(&mut self, worker: i32, attempt: u32) {
        // The row may have been read after the job began and before its ring arrived.
        if self.shown != (Status::Running, attempt) {
            self.shown = (Status::Running, attempt);
            self.next.push_back(Seen::Status {
                status: Status::Running,
                worker: Some(worker),
                attempt,
                restarted: false,
            });
        }
    }

    fn restarted(&mut self) {
        self.sent = [0; 3];
        self.gap = false;
        let attempt = self.shown.1;
        self.shown = (Status::Pending, attempt);
        self.next.push_back(Seen::Status { status: Status::Pending, worker: None, attempt, restarted: true });
    }

    async fn look(&mut self) {
        match self.service.read(self.id).await {
            Ok(Some(record)) if record.status.has_ended() => self.end(Arc::new(record)),
            Ok(Some(_)) => {}
            Ok(None) => self.close(Seen::Gone),
            // The next look may succeed.
            Err(error) => warn!(job.id = %self.id, %error, "cannot read a job that is watched"),
        }
    }

    /// Shows what the row has and the bell did not bring, then how it ended.
    fn end(&mut self, record: Arc<JobRecord>) {
        if let Some(outcome) = record.outcome.as_ref().filter(|_| !self.gap) {
            for stream in STREAMS {
                let bytes = match stream {
                    Stream::Stdout => &outcome.stdout,
                    Stream::Stderr => &outcome.stderr,
                    Stream::CompileOutput => &outcome.compile_output,
                };
                if let Some(rest) = bytes.get(self.sent[stream as usize]..).filter(|rest| !rest.is_empty()) {
                    let pieces = rest.chunks(PIECE);
                    self.next.extend(pieces.map(|piece| Seen::Output { stream, bytes: piece.to_vec() }));
                }
            }
        }
        self.next.push_back(Seen::Status {
            status: record.status,
            worker: record.worker_id,
            attempt: record.attempt,
            restarted: false,
        });
        self.close(Seen::Done(record));
    }

    fn close(&mut self, last: Seen) {
        self.next.push_back(last);
        self.over = true;
    }
}
