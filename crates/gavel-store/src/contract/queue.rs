//! The rules of the bell.

use super::{at, id_at};
use crate::{Event, Input, InputRefused, Listener, Queue, Stream};
use async_trait::async_trait;
use gavel_core::JobId;
use gavel_core::job::Tty;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;

#[async_trait]
pub trait QueueFixture: Send + Sync {
    async fn fresh(&self) -> Arc<dyn Queue>;
}

/// One test for each rule, on the queues of a fixture.
#[macro_export]
macro_rules! queue_contract {
    ($fixture:expr) => {
        $crate::queue_contract!(@ $fixture;
            who_waits_is_woken_by_an_announcement
            an_announcement_before_the_wait_counts
            announcements_before_one_look_are_one
            nothing_is_no_announcement
            deliveries_that_were_announced_before_the_wait_count
            no_announcement_is_lost_however_they_race
            a_listener_hears_everything_in_order
            a_late_listener_hears_the_attempt_from_its_start
            all_listeners_hear_the_same
            a_restart_makes_void_what_was_heard
            a_late_listener_hears_nothing_of_a_void_attempt
            a_listener_hears_only_its_own_job
            after_the_end_comes_nothing
            a_listener_that_goes_disturbs_nobody
            a_wish_to_cancel_is_heard_by_who_comes_later
            no_wish_to_cancel_is_lost
            input_waits_for_the_job_and_arrives_in_order
            whoever_types_too_much_waits
            late_input_is_refused
            input_of_a_void_attempt_is_forgotten
        );
    };
    (@ $fixture:expr; $($rule:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                $crate::contract::queue::$rule(&$fixture).await;
            }
        )*
    };
}

/// Long enough for any machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Short: that something does not happen can only be watched for a while.
const A_WHILE: Duration = Duration::from_millis(50);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("this should have happened by now")
}

async fn not_now<T>(future: impl Future<Output = T>) {
    assert!(timeout(A_WHILE, future).await.is_err(), "this should not have happened");
}

fn job(n: u64) -> JobId {
    id_at(at(n), n)
}

fn started(attempt: u32) -> Event {
    Event::Started { worker: 1, attempt }
}

fn output(text: &str) -> Event {
    Event::Output { stream: Stream::Stdout, bytes: text.as_bytes().to_vec() }
}

async fn hear(listener: &mut Box<dyn Listener>, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(soon(listener.next()).await.expect("an event"));
    }
    events
}

pub async fn who_waits_is_woken_by_an_announcement(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    let waiting = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.wait().await })
    };
    not_now(queue.wait()).await;
    queue.announce(3);
    soon(waiting).await.expect("waiting");
}

pub async fn an_announcement_before_the_wait_counts(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    queue.announce(1);
    soon(queue.wait()).await;
}

pub async fn announcements_before_one_look_are_one(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    for _ in 0..100 {
        queue.announce(10);
    }
    soon(queue.wait()).await;
    not_now(queue.wait()).await;
    queue.announce(1);
    soon(queue.wait()).await;
}

pub async fn deliveries_that_were_announced_before_the_wait_count(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    queue.announce_deliveries();
    queue.announce_deliveries();
    timeout(PATIENCE, queue.wait_for_deliveries()).await.expect("it was announced");
    let again = timeout(Duration::from_millis(20), queue.wait_for_deliveries()).await;
    assert!(again.is_err(), "two rings before one look are one");
    let (late, ()) = tokio::join!(timeout(PATIENCE, queue.wait_for_deliveries()), async {
        tokio::task::yield_now().await;
        queue.announce_deliveries();
    });
    late.expect("who waits is woken");
}

pub async fn nothing_is_no_announcement(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    queue.announce(0);
    not_now(queue.wait()).await;
}

pub async fn no_announcement_is_lost_however_they_race(fixture: &dyn QueueFixture) {
    const EACH: u64 = 5000;
    let queue = fixture.fresh().await;
    let stored = Arc::new(AtomicU64::new(0));
    for _ in 0..2 {
        let (queue, stored) = (queue.clone(), stored.clone());
        tokio::spawn(async move {
            for n in 0..EACH {
                stored.fetch_add(1, Ordering::SeqCst);
                queue.announce(1);
                // Gives the other side the chance to fall asleep.
                if n % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    // Takes everything, then waits: were one announcement lost at the end, it would wait for ever.
    let mut taken = 0;
    soon(async {
        while taken < 2 * EACH {
            queue.wait().await;
            taken += stored.swap(0, Ordering::SeqCst);
        }
    })
    .await;
}

pub async fn a_listener_hears_everything_in_order(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    let mut listener = queue.listen(job(1));
    not_now(listener.next()).await;
    let binary = Event::Output { stream: Stream::Stderr, bytes: b"\xff\0".to_vec() };
    let compiler = Event::Output { stream: Stream::CompileOutput, bytes: b"warning".to_vec() };
    let story = [started(1), compiler, output("a"), binary, output("b"), Event::Ended(None)];
    for event in &story {
        queue.publish(job(1), event.clone());
    }
    assert_eq!(hear(&mut listener, story.len()).await, story);
}

pub async fn a_late_listener_hears_the_attempt_from_its_start(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    queue.publish(job(1), started(1));
    queue.publish(job(1), output("a"));
    queue.publish(job(1), output("b"));
    let mut listener = queue.listen(job(1));
    assert_eq!(hear(&mut listener, 3).await, [started(1), output("a"), output("b")]);
    not_now(listener.next()).await;
    queue.publish(job(1), output("c"));
    queue.publish(job(1), Event::Ended(None));
    assert_eq!(hear(&mut listener, 2).await, [output("c"), Event::Ended(None)]);
}

pub async fn all_listeners_hear_the_same(fixture: &dyn QueueFixture) {
    const PIECES: usize = 500;
    let queue = fixture.fresh().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let mut listener = queue.listen(job(1));
        tasks.spawn(async move {
            let mut heard = Vec::new();
            while let Some(event) = soon(listener.next()).await {
                heard.push(event);
            }
            heard
        });
    }
    let mut story = vec![started(1)];
    story.extend((0..PIECES).map(|n| output(&n.to_string())));
    story.push(Event::Ended(None));
    for event in &story {
        queue.publish(job(1), event.clone());
    }
    for heard in tasks.join_all().await {
        assert_eq!(heard, story);
    }
}

pub async fn a_restart_makes_void_what_was_heard(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    let mut listener = queue.listen(job(1));
    queue.publish(job(1), started(1));
    queue.publish(job(1), output("void"));
    assert_eq!(hear(&mut listener, 2).await, [started(1), output("void")]);
    queue.publish(job(1), output("void and unheard"));
    for event in [Event::Restarted, started(2), output("valid"), Event::Ended(None)] {
        queue.publish(job(1), event);
    }
    let mut heard = hear(&mut listener, 1).await;
    // Whether the rest of the old attempt is still told does not matter: it is void either way.
    while heard.last() != Some(&Event::Restarted) {
        heard.extend(hear(&mut listener, 1).await);
    }
    assert_eq!(hear(&mut listener, 3).await, [started(2), output("valid"), Event::Ended(None)]);
}

pub async fn a_late_listener_hears_nothing_of_a_void_attempt(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    for event in [started(1), output("void"), Event::Restarted] {
        queue.publish(job(1), event);
    }
    let mut listener = queue.listen(job(1));
    not_now(listener.next()).await;
    queue.publish(job(1), started(2));
    assert_eq!(hear(&mut listener, 1).await, [started(2)]);
}

pub async fn a_listener_hears_only_its_own_job(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    let mut listeners: Vec<_> = (0..40).map(|n| queue.listen(job(n))).collect();
    for n in 0..40 {
        queue.publish(job(n), started(n as u32));
    }
    for (n, listener) in (0..).zip(&mut listeners) {
        assert_eq!(hear(listener, 1).await, [started(n)]);
        if n % 16 == 0 {
            not_now(listener.next()).await;
        }
    }
}

pub async fn after_the_end_comes_nothing(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    let mut listener = queue.listen(job(1));
    // Cancelled before it ever started.
    queue.publish(job(1), Event::Ended(None));
    assert_eq!(hear(&mut listener, 1).await, [Event::Ended(None)]);
    for _ in 0..2 {
        assert_eq!(soon(listener.next()).await, None);
    }
}

pub async fn a_listener_that_goes_disturbs_nobody(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    let mut stays = queue.listen(job(1));
    let goes = queue.listen(job(1));
    drop(goes);
    queue.publish(job(1), started(1));
    drop(queue.listen(job(1)));
    queue.publish(job(1), output("a"));
    // A listener whose wait was given up has lost nothing either.
    assert_eq!(hear(&mut stays, 2).await, [started(1), output("a")]);
    not_now(stays.next()).await;
    queue.publish(job(1), Event::Ended(None));
    assert_eq!(hear(&mut stays, 1).await, [Event::Ended(None)]);
}

pub async fn a_wish_to_cancel_is_heard_by_who_comes_later(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    not_now(queue.cancel_wanted()).await;
    queue.want_cancel(job(1));
    queue.want_cancel(job(2));
    let heard = [soon(queue.cancel_wanted()).await, soon(queue.cancel_wanted()).await];
    assert_eq!(BTreeSet::from(heard), BTreeSet::from([job(1), job(2)]));
}

pub async fn no_wish_to_cancel_is_lost(fixture: &dyn QueueFixture) {
    const WISHES: u64 = 3000;
    let queue = fixture.fresh().await;
    let wishing = {
        let queue = queue.clone();
        tokio::spawn(async move {
            for n in 0..WISHES {
                queue.want_cancel(job(n));
                if n % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        })
    };
    let mut heard = BTreeSet::new();
    while (heard.len() as u64) < WISHES {
        heard.insert(soon(queue.cancel_wanted()).await);
    }
    wishing.await.expect("wishing");
}

fn typed(text: &str) -> Input {
    Input::Bytes(text.as_bytes().to_vec())
}

fn size(rows: u16) -> Input {
    Input::Resize(Tty { rows, cols: 80 })
}

pub async fn input_waits_for_the_job_and_arrives_in_order(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    let send = async |input| soon(queue.send_input(job(1), input)).await;
    for input in [typed("a"), size(1), size(2), typed("b")] {
        assert_eq!(send(input).await, Ok(()));
    }
    let rings = Arc::new(AtomicU64::new(0));
    let ring = {
        let rings = rings.clone();
        Box::new(move || {
            rings.fetch_add(1, Ordering::SeqCst);
        })
    };
    let mut inputs = queue.take_input(job(1), ring);
    assert!(rings.load(Ordering::SeqCst) > 0, "it rings for what was there");
    // Of sizes only the last one matters.
    for wanted in [typed("a"), size(2), typed("b")] {
        assert_eq!(inputs.take(), Some(wanted));
    }
    assert_eq!(inputs.take(), None);
    rings.store(0, Ordering::SeqCst);
    assert_eq!(send(typed("c")).await, Ok(()));
    assert!(rings.load(Ordering::SeqCst) > 0);
    assert_eq!(send(Input::End).await, Ok(()));
    assert_eq!(send(typed("d")).await, Err(InputRefused::Closed));
    assert_eq!(send(size(3)).await, Ok(()));
    for wanted in [typed("c"), Input::End, size(3)] {
        assert_eq!(inputs.take(), Some(wanted));
    }
    assert_eq!(soon(queue.send_input(job(2), typed("x"))).await, Ok(()), "another job's input is its own");
    assert_eq!(inputs.take(), None);
}

pub async fn whoever_types_too_much_waits(fixture: &dyn QueueFixture) {
    const PIECES: usize = 1000;
    let piece = |n: usize| Input::Bytes(vec![n as u8; 1000]);
    let queue = fixture.fresh().await;
    let mut sent = 0;
    // Whoever gives up waiting has sent nothing.
    while timeout(A_WHILE, queue.send_input(job(1), piece(sent))).await.is_ok() {
        sent += 1;
        assert!(sent < PIECES / 2, "{sent} pieces were taken for a job that does not run");
    }
    assert!(sent > 0);
    let typing = {
        let queue = queue.clone();
        tokio::spawn(async move {
            for n in sent..PIECES {
                queue.send_input(job(1), piece(n)).await.expect("it is taken");
            }
        })
    };
    let mut inputs = queue.take_input(job(1), Box::new(|| ()));
    let mut got = 0;
    soon(async {
        while got < PIECES {
            match inputs.take() {
                Some(input) => {
                    assert_eq!(input, piece(got));
                    got += 1;
                }
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    typing.await.expect("typing");
}

pub async fn late_input_is_refused(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    while timeout(A_WHILE, queue.send_input(job(1), Input::Bytes(vec![0; 10_000]))).await.is_ok() {}
    let mut waiting = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.send_input(job(1), typed("late")).await })
    };
    not_now(&mut waiting).await;
    queue.publish(job(1), Event::Ended(None));
    assert_eq!(soon(waiting).await.expect("typing"), Err(InputRefused::Ended));
}

pub async fn input_of_a_void_attempt_is_forgotten(fixture: &dyn QueueFixture) {
    let queue = fixture.fresh().await;
    let _first = queue.take_input(job(1), Box::new(|| ()));
    queue.publish(job(1), started(1));
    soon(queue.send_input(job(1), typed("void"))).await.expect("taken");
    soon(queue.send_input(job(1), Input::End)).await.expect("taken");
    queue.publish(job(1), Event::Restarted);
    soon(queue.send_input(job(1), typed("valid"))).await.expect("taken");
    let mut second = queue.take_input(job(1), Box::new(|| ()));
    assert_eq!((second.take(), second.take()), (Some(typed("valid")), None));
}
