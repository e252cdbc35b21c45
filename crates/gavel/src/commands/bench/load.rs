//! Closed loops: N workers that each do one thing after another, and what that took.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// How hard to press, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub concurrency: usize,
    pub time: Duration,
    /// `None`: the next one starts as soon as the last has ended.
    pub pace: Option<Duration>,
}

/// What was measured: latencies in microseconds, and the rate of each round.
#[derive(Debug, Clone)]
pub struct Measured {
    pub latency: Histogram<u64>,
    pub rates: Vec<f64>,
}

impl Measured {
    pub fn new() -> Self {
        // Three digits, and it grows to whatever it has to hold; creating it with these cannot fail.
        Self { latency: Histogram::new(3).expect("three digits are valid"), rates: Vec::new() }
    }

    /// Median of the rounds: one disturbed round does not count.
    pub fn rate(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        match rates.len() {
            0 => 0.0,
            n if n % 2 == 1 => rates[n / 2],
            n => (rates[n / 2 - 1] + rates[n / 2]) / 2.0,
        }
    }

    /// A latency in seconds.
    pub fn quantile(&self, q: f64) -> f64 {
        self.latency.value_at_quantile(q) as f64 / 1e6
    }

    pub fn max(&self) -> f64 {
        self.latency.max() as f64 / 1e6
    }

    pub fn add(&mut self, round: Self) -> Result<()> {
        self.latency.add(round.latency).context("cannot add up histograms")?;
        self.rates.extend(round.rates);
        Ok(())
    }
}

/// One round: each worker is made by `make` before the clock starts, and then called until time is up.
pub fn closed_loop<W>(load: Load, make: impl Fn() -> Result<W> + Sync) -> Result<Measured>
where
    W: FnMut() -> Result<()>,
{
    let start = Barrier::new(load.concurrency);
    let run = || -> Result<(Histogram<u64>, Instant, Instant)> {
        let made = make();
        // Reached by every worker, also by one that failed: the others wait for it.
        start.wait();
        one_worker(load, made?)
    };
    let ended: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..load.concurrency).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut round = Measured::new();
    let mut span: Option<(Instant, Instant)> = None;
    for one in ended {
        let (latency, began, end) = one?;
        round.latency.add(latency).context("cannot add up histograms")?;
        span = Some(span.map_or((began, end), |(first, last)| (first.min(began), last.max(end))));
    }
    if let Some((first, last)) = span {
        round.rates.push(round.latency.len() as f64 / (last - first).as_secs_f64());
    }
    Ok(round)
}

fn one_worker(load: Load, mut work: impl FnMut() -> Result<()>) -> Result<(Histogram<u64>, Instant, Instant)> {
    let mut latency = Histogram::new(3)?;
    let began = Instant::now();
    let mut next = began;
    while began.elapsed() < load.time {
        if let Some(pace) = load.pace {
            next += pace;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let at = Instant::now();
        work()?;
        latency.record(u64::try_from(at.elapsed().as_micros())?.max(1))?;
    }
    Ok((latency, began, Instant::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_counted_once() {
        let calls = std::sync::atomic::AtomicU64::new(0);
        let load = Load { concurrency: 3, time: Duration::from_millis(20), pace: None };
        let measured = closed_loop(load, || {
            Ok(|| {
                calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Ok(())
            })
        });
        assert_eq!(measured.unwrap().latency.len(), calls.into_inner());
    }

    #[test]
    fn one_worker_that_cannot_start_ends_the_round_with_its_error() {
        let load = Load { concurrency: 2, time: Duration::from_millis(1), pace: None };
        let result = closed_loop(load, || -> Result<fn() -> Result<()>> { anyhow::bail!("no server") });
        assert_eq!(result.unwrap_err().to_string(), "no server");
    }

    #[test]
    fn the_rate_is_the_median_of_the_rounds() {
        let mut measured = Measured::new();
        measured.rates = vec![1.0, 100.0, 3.0];
        assert_eq!(measured.rate(), 3.0);
        measured.rates.push(5.0);
        assert_eq!(measured.rate(), 4.0);
    }
}
