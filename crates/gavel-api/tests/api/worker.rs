//! A worker that runs nothing: what a job's source says is what happens to it.

use gavel_core::verdict::Evidence;
use gavel_core::{Bytes, CollectedFile, Job, Outcome, Timestamp, Verdict};
use gavel_store::{Claim, Claimant, Event, Input, Queue, Settlement, Store, StoreError, Stream};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

pub const NODE: &str = "test-node";

pub fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

/// Plays until it is dropped. `hold` ends jobs whose source begins with "hold" when it rings.
pub async fn play(store: Arc<dyn Store>, queue: Arc<dyn Queue>, hold: Arc<Semaphore>) {
    let mut at_work = JoinSet::new();
    let mut running: HashMap<_, Arc<Notify>> = HashMap::new();
    loop {
        tokio::select! {
            () = queue.wait() => {}
            id = queue.cancel_wanted() => {
                if let Some(stop) = running.get(&id) {
                    stop.notify_one();
                }
                continue;
            }
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        loop {
            let by = Claimant { node: NODE.into(), workers: (1..=64).collect() };
            let Ok(claims) = store.claim(by, now(), Duration::from_secs(60)).await else { break };
            if claims.is_empty() {
                break;
            }
            for claim in claims {
                let stop = Arc::new(Notify::new());
                running.insert(claim.key.id, stop.clone());
                at_work.spawn(work(store.clone(), queue.clone(), hold.clone(), stop, claim));
            }
        }
    }
}

async fn work(store: Arc<dyn Store>, queue: Arc<dyn Queue>, hold: Arc<Semaphore>, stop: Arc<Notify>, claim: Claim) {
    let (id, key) = (claim.key.id, claim.key);
    let source = String::from_utf8_lossy(&claim.job.source).into_owned();
    queue.publish(id, Event::Started { worker: claim.worker, attempt: key.attempt });
    let end = match source.split_whitespace().next().unwrap_or("") {
        "hold" => {
            queue.publish(id, Event::Output { stream: Stream::Stdout, bytes: b"begun ".to_vec() });
            tokio::select! {
                place = hold.acquire() => {
                place.unwrap().forget();
                completed(&claim.job)
            }
                () = stop.notified() => Settlement::Cancelled,
            }
        }
        "live" => {
            // Two halves of one character, then bytes that are none.
            for bytes in [&b"a\xc3"[..], b"\xa9b", b"\xff"] {
                queue.publish(id, Event::Output { stream: Stream::Stdout, bytes: bytes.to_vec() });
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            completed(&claim.job)
        }
        // Says back what is typed.
        "echo" if claim.job.interactive.is_some() => {
            let typed = Arc::new(Notify::new());
            let ring = typed.clone();
            let mut inputs = queue.take_input(id, Box::new(move || ring.notify_one()));
            let told = |text: Vec<u8>| queue.publish(id, Event::Output { stream: Stream::Stdout, bytes: text });
            loop {
                match inputs.take() {
                    Some(Input::Bytes(bytes)) => told(bytes),
                    Some(Input::Resize(tty)) => told(format!("<{}x{}>", tty.rows, tty.cols).into()),
                    Some(Input::End) => {
                        // Long enough to type something that comes too late.
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        break completed(&claim.job);
                    }
                    None => tokio::select! {
                        () = typed.notified() => {}
                        () = stop.notified() => break Settlement::Cancelled,
                    },
                }
            }
        }
        // Never reads what is typed.
        "deaf" => {
            let _inputs = queue.take_input(id, Box::new(|| ()));
            stop.notified().await;
            Settlement::Cancelled
        }
        "flood" => loop {
            queue.publish(id, Event::Output { stream: Stream::Stdout, bytes: vec![b'x'; 16 << 10] });
            tokio::select! {
                () = tokio::time::sleep(Duration::from_micros(100)) => {}
                () = stop.notified() => break Settlement::Cancelled,
            }
        },
        "again" if key.attempt == 1 => {
            queue.publish(id, Event::Output { stream: Stream::Stdout, bytes: b"void".to_vec() });
            Settlement::Released { delay: Duration::ZERO, count_attempt: true }
        }
        "fault" => Settlement::Failed { message: "the sandbox could not be opened".into() },
        _ => completed(&claim.job),
    };
    let event = if matches!(end, Settlement::Released { .. }) { Event::Restarted } else { Event::Ended(None) };
    match store.settle(key, now(), end).await {
        Ok(()) | Err(StoreError::LeaseLost) => {}
        Err(error) => panic!("{error}"),
    }
    queue.publish(id, event);
    queue.announce_deliveries();
    queue.announce(1);
}

fn completed(job: &Job) -> Settlement {
    Settlement::Completed(Arc::new(outcome(job)))
}

/// Says back what came in as stdin.
pub fn outcome(job: &Job) -> Outcome {
    let source = String::from_utf8_lossy(&job.source);
    let stdout = match source.split_whitespace().next() {
        Some("live") => b"a\xc3\xa9b\xff".to_vec(),
        Some("hold") => b"begun and ended".to_vec(),
        Some("big") => vec![b'x'; 1 << 20],
        _ => job.stdin.clone(),
    };
    let wrong = job.expected_output.as_ref().is_some_and(|expected| *expected != stdout);
    Outcome {
        verdict: if wrong { Verdict::WrongAnswer } else { Verdict::Accepted },
        reason: if wrong { "line 1 differs".into() } else { "exited with code 0".into() },
        evidence: Evidence::from([("cpu_time_ms".to_owned(), 1.204)]),
        stdout,
        stderr: b"warning: none\n".to_vec(),
        compile_output: Vec::new(),
        stdout_truncated: false,
        stderr_truncated: false,
        files: vec![CollectedFile { path: "out/a.bin".into(), executable: false, content: vec![0, 255] }],
        exit_code: Some(0),
        signal: None,
        cpu: Duration::from_micros(1204),
        wall: Duration::from_micros(2310),
        memory: Bytes::kib(1532),
        compile_time: Duration::ZERO,
        compile_cached: true,
    }
}
