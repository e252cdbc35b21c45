//! Statistics: what the latest ended jobs, the queue and the board say together.

use crate::languages::Shelf;
use crate::times::ms;
use gavel_core::board::{WorkerEntry, WorkerState};
use gavel_core::{Status, Timestamp, Verdict};
use gavel_store::{Depth, Ended};
use serde::Serialize;
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;

/// A value that is read at most once in a while, by one reader at a time.
#[derive(Debug)]
pub struct Cached<T> {
    ttl: Duration,
    value: Mutex<Option<(Instant, T)>>,
}

impl<T: Clone> Cached<T> {
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, value: Mutex::new(None) }
    }

    /// Whoever comes while it is read waits for that reading. A failure is not kept.
    pub async fn get<E, F: Future<Output = Result<T, E>>>(&self, read: impl FnOnce() -> F) -> Result<T, E> {
        let mut slot = self.value.lock().await;
        if let Some((at, value)) = &*slot
            && at.elapsed() < self.ttl
        {
            return Ok(value.clone());
        }
        let value = read().await?;
        *slot = Some((Instant::now(), value.clone()));
        Ok(value)
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Stats {
    /// Jobs ended per second, over the last minute.
    pub jobs_per_second: f64,
    /// How many of the latest ended jobs the numbers below are made of.
    pub sample: usize,
    pub queue: QueueStats,
    pub by_language: Vec<LanguageStats>,
    pub workers: WorkerStats,
    pub compile_cache: CacheStats,
    pub sandboxes: SandboxStats,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct QueueStats {
    pub pending: u64,
    pub running: u64,
    /// Age of the oldest pending job; 0 when none is pending.
    pub oldest_seconds: f64,
    /// Pending jobs beyond which new ones are refused.
    pub max_depth: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct LanguageStats {
    pub language: String,
    /// Jobs that got a verdict.
    pub completed: u64,
    /// Faults of the server.
    pub failed: u64,
    pub cancelled: u64,
    pub accepted: u64,
    pub wrong_answer: u64,
    pub compile_error: u64,
    pub runtime_error: u64,
    pub time_limit_exceeded: u64,
    pub memory_limit_exceeded: u64,
    pub output_limit_exceeded: u64,
    /// Share of the completed jobs that were accepted, 0 to 1; null when none completed.
    pub success_rate: Option<f64>,
    pub queue_time_ms: Percentiles,
    pub compile_time_ms: Percentiles,
    /// CPU time of the run.
    pub execution_time_ms: Percentiles,
    pub wall_time_ms: Percentiles,
}

#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Percentiles {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

/// The workers of this node.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkerStats {
    pub total: usize,
    pub busy: usize,
    pub idle: usize,
    pub recovering: usize,
    /// Mean share of their time that the workers spent on jobs, 0 to 1.
    pub utilisation: f64,
    /// Jobs that the workers ended, with a result, since they started.
    pub jobs_done: u64,
}

/// Of the jobs in the sample whose language is compiled.
#[derive(Debug, Serialize, ToSchema)]
pub struct CacheStats {
    pub hits: u64,
    pub misses: u64,
    /// 0 to 1; null when there was none of both.
    pub hit_rate: Option<f64>,
}

/// The sandboxes of this node's workers.
#[derive(Debug, Serialize, ToSchema)]
pub struct SandboxStats {
    /// Ready or in use.
    pub open: usize,
    /// Being opened for the first time.
    pub starting: usize,
    /// Being opened again after a fault.
    pub recovering: usize,
    /// Times that a job met a fault of the server, since the workers started.
    pub faults: u64,
}

/// How far back the rate looks.
const RATE_WINDOW: Duration = Duration::from_secs(60);

impl Stats {
    pub fn of(
        recent: &[Ended],
        depth: Depth,
        max_depth: u64,
        board: &[WorkerEntry],
        shelf: &Shelf,
        now: Timestamp,
    ) -> Self {
        Self {
            jobs_per_second: rate(recent, now),
            sample: recent.len(),
            queue: QueueStats {
                pending: depth.pending,
                running: depth.running,
                oldest_seconds: depth.oldest_pending.map_or(0.0, |oldest| now.since(oldest).as_secs_f64()),
                max_depth,
            },
            by_language: by_language(recent),
            workers: workers(board, now),
            compile_cache: compile_cache(recent, shelf),
            sandboxes: sandboxes(board),
        }
    }
}

fn rate(recent: &[Ended], now: Timestamp) -> f64 {
    let since = now.minus(RATE_WINDOW);
    let young: Vec<_> = recent.iter().map(|ended| ended.completed_at).filter(|at| *at > since).collect();
    // When the whole sample is young, it does not reach back a full window.
    let window = match young.iter().min() {
        Some(oldest) if young.len() == recent.len() => now.since(*oldest).max(Duration::from_secs(1)),
        _ => RATE_WINDOW,
    };
    // A few jobs on a young server are a low rate over a minute, not a high one over their moment.
    let window = if recent.len() < SMALL_SAMPLE { RATE_WINDOW } else { window };
    young.len() as f64 / window.as_secs_f64()
}

/// Below this many jobs the sample is everything there is.
const SMALL_SAMPLE: usize = 1000;

fn by_language(recent: &[Ended]) -> Vec<LanguageStats> {
    let mut groups: BTreeMap<&str, Vec<&Ended>> = BTreeMap::new();
    for ended in recent {
        groups.entry(&ended.language).or_default().push(ended);
    }
    groups.into_iter().map(|(language, jobs)| language_stats(language, &jobs)).collect()
}

fn language_stats(language: &str, jobs: &[&Ended]) -> LanguageStats {
    let status = |wanted| jobs.iter().filter(|job| job.status == wanted).count() as u64;
    let verdict = |wanted| jobs.iter().filter(|job| job.verdict == Some(wanted)).count() as u64;
    let times = |time: fn(&Ended) -> Duration| {
        percentiles(jobs.iter().filter(|job| job.status == Status::Completed).map(|job| time(job)).collect())
    };
    let (completed, accepted) = (status(Status::Completed), verdict(Verdict::Accepted));
    LanguageStats {
        language: language.to_owned(),
        completed,
        failed: status(Status::Failed),
        cancelled: status(Status::Cancelled),
        accepted,
        wrong_answer: verdict(Verdict::WrongAnswer),
        compile_error: verdict(Verdict::CompileError),
        runtime_error: verdict(Verdict::RuntimeError),
        time_limit_exceeded: verdict(Verdict::TimeLimitExceeded),
        memory_limit_exceeded: verdict(Verdict::MemoryLimitExceeded),
        output_limit_exceeded: verdict(Verdict::OutputLimitExceeded),
        success_rate: share(accepted, completed),
        queue_time_ms: times(|job| job.queue),
        compile_time_ms: times(|job| job.compile),
        execution_time_ms: times(|job| job.cpu),
        wall_time_ms: times(|job| job.wall),
    }
}

/// Nearest rank; zeros when there is nothing.
fn percentiles(mut times: Vec<Duration>) -> Percentiles {
    times.sort_unstable();
    let at = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).map_or(0.0, |time| ms(*time))
    };
    Percentiles { p50: at(50), p95: at(95), p99: at(99) }
}

fn workers(board: &[WorkerEntry], now: Timestamp) -> WorkerStats {
    let count = |state| board.iter().filter(|worker| worker.state == state).count();
    let alive: Vec<_> = board.iter().filter(|worker| worker.state != WorkerState::Stopped).collect();
    let shares: f64 = alive.iter().map(|worker| busy_share(worker, now)).sum();
    WorkerStats {
        total: alive.len(),
        busy: count(WorkerState::Busy),
        idle: count(WorkerState::Idle),
        recovering: count(WorkerState::Recovering),
        utilisation: if alive.is_empty() { 0.0 } else { shares / alive.len() as f64 },
        jobs_done: board.iter().map(|worker| worker.jobs_done).sum(),
    }
}

/// The part of its life that a worker spent on jobs, 0 to 1; the present job counts.
pub fn busy_share(worker: &WorkerEntry, now: Timestamp) -> f64 {
    let current = if worker.state == WorkerState::Busy { now.since(worker.since) } else { Duration::ZERO };
    let life = now.since(worker.started_at).as_secs_f64();
    if life <= 0.0 { 0.0 } else { ((worker.busy + current).as_secs_f64() / life).min(1.0) }
}

fn compile_cache(recent: &[Ended], shelf: &Shelf) -> CacheStats {
    let compiled = |language: &str| shelf.get(language).is_some_and(|language| language.compile.is_some());
    let jobs = || recent.iter().filter(|job| job.status == Status::Completed && compiled(&job.language));
    let hits = jobs().filter(|job| job.compile_cached).count() as u64;
    let all = jobs().count() as u64;
    CacheStats { hits, misses: all - hits, hit_rate: share(hits, all) }
}

fn sandboxes(board: &[WorkerEntry]) -> SandboxStats {
    let count = |wanted: &[WorkerState]| board.iter().filter(|worker| wanted.contains(&worker.state)).count();
    SandboxStats {
        open: count(&[WorkerState::Idle, WorkerState::Busy]),
        starting: count(&[WorkerState::Starting]),
        recovering: count(&[WorkerState::Recovering]),
        faults: board.iter().map(|worker| worker.faults).sum(),
    }
}

fn share(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000_000);

    fn ended(language: &str, verdict: Verdict, cpu_ms: u64, age: Duration) -> Ended {
        Ended {
            language: language.into(),
            status: Status::Completed,
            verdict: Some(verdict),
            queue: Duration::from_millis(1),
            compile: Duration::ZERO,
            compile_cached: false,
            cpu: Duration::from_millis(cpu_ms),
            wall: Duration::from_millis(cpu_ms),
            completed_at: NOW.minus(age),
        }
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentiles(times), Percentiles { p50: 50.0, p95: 95.0, p99: 99.0 });
        assert_eq!(percentiles(vec![Duration::from_millis(7)]), Percentiles { p50: 7.0, p95: 7.0, p99: 7.0 });
        assert_eq!(percentiles(vec![]), Percentiles::default());
    }

    #[test]
    fn the_rate_is_of_the_last_minute() {
        let second = Duration::from_secs(1);
        let slow: Vec<_> = (0..120).map(|age| ended("c", Verdict::Accepted, 1, second * age)).collect();
        assert_eq!(rate(&slow, NOW), 1.0);
        let fast: Vec<_> =
            (0..10_000).map(|n| ended("c", Verdict::Accepted, 1, Duration::from_millis(n / 5))).collect();
        assert!((rate(&fast, NOW) - 5000.0).abs() < 5.0, "{}", rate(&fast, NOW));
        assert_eq!(rate(&[], NOW), 0.0);
        assert_eq!(rate(&slow[..6], NOW), 0.1);
    }

    #[test]
    fn success_is_counted_by_language() {
        let jobs = [
            ended("c", Verdict::Accepted, 1, Duration::ZERO),
            ended("c", Verdict::WrongAnswer, 3, Duration::ZERO),
            ended("java", Verdict::Accepted, 9, Duration::ZERO),
            Ended { status: Status::Failed, verdict: None, ..ended("c", Verdict::Accepted, 99, Duration::ZERO) },
        ];
        let stats = by_language(&jobs);
        assert_eq!((stats[0].language.as_str(), stats[0].completed, stats[0].failed), ("c", 2, 1));
        assert_eq!((stats[0].accepted, stats[0].wrong_answer, stats[0].success_rate), (1, 1, Some(0.5)));
        assert_eq!(stats[0].execution_time_ms.p99, 3.0, "a failed job has no times");
        assert_eq!((stats[1].language.as_str(), stats[1].success_rate), ("java", Some(1.0)));
    }
}
