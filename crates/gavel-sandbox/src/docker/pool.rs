//! The pool at work: threads that do what [`super::stock`] decides.
//!
//! Starters make containers; one keeper removes what is of no use any more, looks
//! after the ready ones, and clears away what dead servers left. Whoever needs a container waits in
//! [`Pool::take`] with a bell of their own, so that a wish to cancel wakes them as well. Everything is
//! decided under one lock, and nothing that takes time happens under it.

use super::cli::{CliError, Trouble, args, classify};
use super::container::{Container, Maker, Unmade};
use super::orphans::{self, Identity};
use super::recipe::Recipe;
use super::stock::{Bounds, Failure, Id, Next, Stock, Taken, Ticket};
use super::{Policy, container, volume};
use crate::{Cancel, Fault};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a command may wait for its container. A pool that is too small for a moment is no fault; one
/// that gives nothing for so long is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starting takes mostly the daemon's time and some of ours; more at once would start no faster.
const STARTERS: usize = 2;

/// How often the keeper looks at what nobody reports.
const TICK: Duration = Duration::from_secs(1);

/// Removed in one call.
const BATCH: usize = 32;

/// How long those that were asked may take to end and be removed.
const ENDING: Duration = Duration::from_secs(2);

const REMOVAL: Duration = Duration::from_secs(60);

/// When to look again for one that the daemon is removing.
const GOING: Duration = Duration::from_millis(300);

/// When to try again what the daemon was not there for.
const DOWN: Duration = Duration::from_secs(2);

/// A removal that fails so often is left to those who look for orphans.
const TRIES: u32 = 8;

/// How long the end of the server may wait for starts that are under way, and for the last removal.
const LAST_START: Duration = Duration::from_secs(15);
const LAST_REMOVAL: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub struct PoolOptions {
    pub bounds: Bounds,
    pub policy: Policy,
    pub cleanup_interval: Duration,
}

pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    maker: Maker,
    identity: Identity,
    options: PoolOptions,
    inner: Mutex<Inner>,
    /// For the starters.
    work: Condvar,
    /// For the keeper.
    rubbish: Condvar,
    /// For whoever closes the pool.
    ended: Condvar,
}

struct Inner {
    stock: Stock,
    ready: HashMap<Id, Container>,
    /// To be removed.
    rubbish: Vec<Rubbish>,
    bells: HashMap<Ticket, Cancel>,
    /// What those who wait have got.
    handed: HashMap<Ticket, Result<(Id, Container), Fault>>,
    last_ticket: Ticket,
    /// Why the last start failed.
    last_fault: Option<Fault>,
    threads: usize,
    closing: bool,
}

struct Rubbish {
    id: Id,
    container: Option<Container>,
    due: Instant,
    tries: u32,
}

/// A container that is somebody's. It goes when it is dropped, unless it is given back.
pub struct Lease {
    shared: Arc<Shared>,
    id: Id,
    container: Option<Container>,
}

impl Pool {
    pub fn start(maker: Maker, identity: Identity, options: PoolOptions) -> Result<Self, Fault> {
        let seed = u32::from_str_radix(&identity.instance, 16).unwrap_or_default();
        let inner = Inner {
            // Two servers on one machine begin at different places.
            stock: Stock::new(options.bounds, container::SLOTS, seed),
            ready: HashMap::new(),
            rubbish: Vec::new(),
            bells: HashMap::new(),
            handed: HashMap::new(),
            last_ticket: 0,
            last_fault: None,
            threads: 0,
            closing: false,
        };
        let shared = Arc::new(Shared {
            maker,
            identity,
            options,
            inner: Mutex::new(inner),
            work: Condvar::new(),
            rubbish: Condvar::new(),
            ended: Condvar::new(),
        });
        let pool = Self { shared };
        for number in 0..STARTERS {
            pool.spawn(format!("docker-start-{number}"), Shared::start_containers)?;
        }
        pool.spawn("docker-keep".to_owned(), Shared::keep)?;
        Ok(pool)
    }

    fn spawn(&self, name: String, run: fn(&Arc<Shared>)) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        self.shared.lock().threads += 1;
        let body = move || {
            run(&shared);
            shared.lock().threads -= 1;
            shared.ended.notify_all();
        };
        let spawned = std::thread::Builder::new().name(name).spawn(body);
        spawned.map(drop).map_err(|error| {
            self.shared.lock().threads -= 1;
            Fault::new("start the pool of containers", error)
        })
    }

    pub fn maker(&self) -> &Maker {
        &self.shared.maker
    }

    /// Containers of these kinds will be wanted.
    pub fn announce(&self, recipes: impl IntoIterator<Item = Recipe>) {
        let mut inner = self.shared.lock();
        recipes.into_iter().for_each(|recipe| inner.stock.announce(recipe));
        self.shared.work.notify_all();
    }

    /// A container of this kind; `None` when the wish to cancel comes first.
    pub fn take(&self, recipe: &Recipe, cancel: &Cancel) -> Result<Option<Lease>, Fault> {
        let started = Instant::now();
        let taken = self.shared.take(recipe, cancel);
        metrics::histogram!("gavel_pool_wait_seconds").record(started.elapsed().as_secs_f64());
        Ok(taken?.map(|(id, container)| Lease { shared: Arc::clone(&self.shared), id, container: Some(container) }))
    }

    /// Why no container can be started at present, if none can.
    pub fn trouble(&self) -> Option<Fault> {
        let inner = self.shared.lock();
        inner.last_fault.clone().filter(|_| inner.stock.is_down())
    }

    /// Waits for a moment, unless the pool closes.
    pub fn pause(&self, time: Duration) {
        let inner = self.shared.lock();
        let open = |inner: &mut Inner| !inner.closing;
        // Woken by the end of the threads, which closing brings about.
        drop(self.shared.ended.wait_timeout_while(inner, time, open));
    }

    /// The daemon has answered.
    pub fn up(&self) {
        self.shared.lock().stock.up();
        self.shared.work.notify_all();
    }

    /// Removes every container, those that are in use as well. After it none can be had any more.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Lease {
    pub fn container(&mut self) -> Result<&mut Container, Fault> {
        self.container.as_mut().ok_or_else(|| Fault::new("use a container", "it was given back"))
    }

    /// Its command has ended well; it may serve another one where the policy has it so.
    pub fn give_back(mut self) {
        let Some(container) = self.container.take() else { return };
        let Policy::Reuse { jobs, time } = self.shared.options.policy else {
            return self.shared.discard(self.id, Some(container), None);
        };
        if container.commands >= jobs || container.age() >= time {
            return self.shared.discard(self.id, Some(container), None);
        }
        // Its agent makes it as good as new meanwhile; the next command waits for that.
        let mut inner = self.shared.lock();
        self.shared.offer(&mut inner, self.id, container);
    }

    /// Nothing may run in it any more.
    pub fn throw_away(mut self, why: &'static str) {
        let container = self.container.take();
        self.shared.discard(self.id, container, Some(why));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(container) = self.container.take() {
            self.shared.discard(self.id, Some(container), Some("panic"));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Under the lock nothing can panic halfway but a failed allocation, which ends the process.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, recipe: &Recipe, cancel: &Cancel) -> Result<Option<(Id, Container)>, Fault> {
        let step = "take a container";
        let deadline = Instant::now() + PATIENCE;
        let (ticket, bell) = {
            let mut inner = self.lock();
            loop {
                if inner.closing {
                    return Err(Fault::new(step, "the pool is closed"));
                }
                inner.last_ticket += 1;
                let ticket = inner.last_ticket;
                let taken = inner.stock.take(recipe.clone(), ticket, Instant::now());
                self.work.notify_one();
                match taken {
                    Taken::Ready(id) => {
                        let mut container = inner.ready.remove(&id);
                        if container.as_mut().is_some_and(Container::is_alive) {
                            gauge(&inner);
                            return Ok(container.map(|container| (id, container)));
                        }
                        // Somebody killed it while it waited.
                        self.put_away(&mut inner, id, container, Some("died"));
                    }
                    Taken::Waiting => {
                        let bell = Cancel::new().map_err(|error| {
                            inner.stock.leave(ticket);
                            Fault::new(step, error)
                        })?;
                        inner.bells.insert(ticket, bell.clone());
                        break (ticket, bell);
                    }
                    Taken::TooLarge => {
                        let (needs, has) = (recipe.footprint(), self.options.bounds.memory);
                        return Err(Fault::new(
                            step,
                            format!("it would need {needs}, and all together have {has}: raise sandbox.pool_memory"),
                        ));
                    }
                }
            }
        };
        let waited = wait(&bell, cancel, deadline);
        let mut inner = self.lock();
        inner.bells.remove(&ticket);
        match inner.handed.remove(&ticket) {
            Some(Ok((id, container))) if cancel.is_wanted() => {
                self.offer(&mut inner, id, container);
                Ok(None)
            }
            Some(handed) => handed.map(Some),
            None => {
                inner.stock.leave(ticket);
                waited.map_err(|error| Fault::new(step, error))?;
                if cancel.is_wanted() {
                    return Ok(None);
                }
                let why = inner.last_fault.as_ref().map_or_else(
                    || "the containers in use are too many or too slow: raise sandbox.pool_max".to_owned(),
                    ToString::to_string,
                );
                Err(Fault::new(step, format!("none came free within {} s; {why}", PATIENCE.as_secs())))
            }
        }
    }

    /// A container that works goes to whoever waits longest, or waits itself.
    fn offer(&self, inner: &mut Inner, id: Id, container: Container) {
        if inner.closing {
            return self.put_away(inner, id, Some(container), None);
        }
        match inner.stock.ready(id, Instant::now()) {
            Some(ticket) => self.hand(inner, ticket, Ok((id, container))),
            None => _ = inner.ready.insert(id, container),
        }
        gauge(inner);
    }

    fn hand(&self, inner: &mut Inner, ticket: Ticket, result: Result<(Id, Container), Fault>) {
        match inner.bells.get(&ticket) {
            Some(bell) => {
                inner.handed.insert(ticket, result);
                bell.cancel();
            }
            // It left in this moment.
            None => {
                if let Ok((id, container)) = result {
                    self.put_away(inner, id, Some(container), None);
                }
            }
        }
    }

    fn discard(&self, id: Id, container: Option<Container>, why: Option<&'static str>) {
        self.put_away(&mut self.lock(), id, container, why);
    }

    /// Leaves a container to the keeper. `why`: it failed.
    fn put_away(&self, inner: &mut Inner, id: Id, container: Option<Container>, why: Option<&'static str>) {
        if let Some(why) = why {
            metrics::counter!("gavel_containers_failed_total", "why" => why).increment(1);
        }
        inner.stock.removing(id, Instant::now());
        inner.rubbish.push(Rubbish { id, container, due: Instant::now(), tries: 0 });
        gauge(inner);
        self.rubbish.notify_one();
    }

    fn start_containers(self: &Arc<Self>) {
        let mut inner = self.lock();
        while !inner.closing {
            let now = Instant::now();
            match inner.stock.next(now) {
                Next::Start { id, recipe, slot } => {
                    drop(inner);
                    let made = self.maker.make(id, &recipe, slot);
                    inner = self.lock();
                    self.made(&mut inner, id, made);
                }
                Next::Evict(ids) => {
                    for id in ids {
                        let container = inner.ready.remove(&id);
                        self.put_away(&mut inner, id, container, None);
                    }
                }
                Next::Nothing(until) => {
                    let pause = until.map_or(TICK, |until| until.saturating_duration_since(now).min(TICK));
                    inner = self.work.wait_timeout(inner, pause).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn made(&self, inner: &mut Inner, id: Id, made: Result<Container, Unmade>) {
        match made {
            Ok(container) => {
                metrics::counter!("gavel_containers_started_total").increment(1);
                inner.last_fault = None;
                self.offer(inner, id, container);
            }
            Err(Unmade { failure, why, fault }) => {
                tracing::warn!(error = %fault, "cannot start a container");
                let told = inner.stock.failed(id, failure, Instant::now());
                // The daemon may have made it all the same.
                self.put_away(inner, id, None, Some(why));
                inner.last_fault = Some(fault.clone());
                for ticket in told {
                    self.hand(inner, ticket, Err(fault.clone()));
                }
                if failure == Failure::Daemon {
                    // They would find out one after the other.
                    let dead = inner.stock.all_ready().into_iter();
                    let dead: Vec<Id> = dead.filter(|id| !is_alive(&mut inner.ready, *id)).collect();
                    self.put_away_dead(inner, dead);
                }
            }
        }
        self.work.notify_all();
    }

    fn put_away_dead(&self, inner: &mut Inner, dead: Vec<Id>) {
        for id in dead {
            tracing::warn!(name = self.maker.name(id), "a container that was ready has ended");
            let container = inner.ready.remove(&id);
            self.put_away(inner, id, container, Some("died"));
        }
    }

    fn keep(self: &Arc<Self>) {
        let mut cleanup = Instant::now();
        // While the daemon is down: when to try again.
        let mut down: Option<Instant> = None;
        let mut inner = self.lock();
        while !inner.closing {
            let now = Instant::now();
            for id in inner.stock.shrink(now) {
                let container = inner.ready.remove(&id);
                self.put_away(&mut inner, id, container, None);
            }
            let ready: Vec<Id> = inner.ready.keys().copied().collect();
            let dead = ready.into_iter().filter(|id| !is_alive(&mut inner.ready, *id)).collect();
            self.put_away_dead(&mut inner, dead);
            let waits = |rubbish: &mut Rubbish| rubbish.due <= now && down.is_none_or(|until| until <= now);
            let batch: Vec<Rubbish> = inner.rubbish.extract_if(.., waits).take(BATCH).collect();
            if !batch.is_empty() {
                drop(inner);
                let removed = self.remove(batch);
                if let (Err(error), None) = (&removed, down) {
                    tracing::warn!(%error, "containers cannot be removed until the daemon works again");
                }
                down = removed.err().map(|_| Instant::now() + DOWN);
                inner = self.lock();
                continue;
            }
            if cleanup <= now {
                let known = inner.stock.all().into_iter().map(|id| self.maker.name(id)).collect();
                drop(inner);
                self.remove_orphans(&known);
                cleanup = Instant::now() + self.options.cleanup_interval;
                inner = self.lock();
                continue;
            }
            let due = inner.rubbish.iter().map(|rubbish| down.map_or(rubbish.due, |until| until.max(rubbish.due)));
            let next = due.min().map_or(cleanup, |due| due.min(cleanup));
            let pause = next.saturating_duration_since(now).min(TICK);
            inner = self.rubbish.wait_timeout(inner, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn remove(&self, batch: Vec<Rubbish>) -> Result<(), CliError> {
        let batch = self.let_end(batch);
        if batch.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = batch.iter().map(|rubbish| self.maker.name(rubbish.id)).collect();
        let (gone, why) = match self.remove_names(&names, REMOVAL) {
            Ok(outcome) => outcome,
            Err(error) => {
                // No container is to blame; they wait for the daemon.
                self.lock().rubbish.extend(batch);
                return Err(error);
            }
        };
        let mut failed = Vec::new();
        let mut inner = self.lock();
        let mut ended = Vec::new();
        for (mut rubbish, name) in batch.into_iter().zip(names) {
            if gone.contains(&name) {
                inner.stock.gone(rubbish.id);
                ended.extend(rubbish.container);
                metrics::counter!("gavel_containers_removed_total").increment(1);
                continue;
            }
            if says(&why, &name, "already in progress") {
                // It ended by itself, and the daemon is faster than we are.
                rubbish.due = Instant::now() + GOING;
                inner.rubbish.push(rubbish);
                continue;
            }
            metrics::counter!("gavel_containers_failed_total", "why" => "remove").increment(1);
            rubbish.tries += 1;
            if rubbish.tries < TRIES {
                rubbish.due = Instant::now() + Duration::from_millis(100 << rubbish.tries);
                inner.rubbish.push(rubbish);
            } else {
                // Room for others; the look for orphans goes on trying.
                inner.stock.gone(rubbish.id);
                ended.extend(rubbish.container);
            }
            failed.push(name);
        }
        drop(inner);
        self.work.notify_all();
        if !failed.is_empty() {
            tracing::warn!(names = ?failed, why, "cannot remove containers yet");
        }
        // Ending the clients takes a moment, too.
        drop(ended);
        Ok(())
    }

    /// Lets them end by themselves, all at once, and the daemon remove them, which costs no call of the command
    /// line. Returns those that do not.
    fn let_end(&self, mut batch: Vec<Rubbish>) -> Vec<Rubbish> {
        for container in batch.iter_mut().filter_map(|rubbish| rubbish.container.as_mut()) {
            if let Err(error) = container.ask_to_end() {
                tracing::warn!(%error, name = container.name, "cannot ask a container to end: it is killed");
            }
        }
        let until = Instant::now() + ENDING;
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let is_removed = |rubbish: &mut Rubbish| {
            rubbish.container.as_mut().is_some_and(|container| container.is_removed_within(left(until)))
        };
        let ended: Vec<Rubbish> = batch.extract_if(.., is_removed).collect();
        let mut inner = self.lock();
        for rubbish in &ended {
            inner.stock.gone(rubbish.id);
            metrics::counter!("gavel_containers_removed_total").increment(1);
        }
        drop(inner);
        if !ended.is_empty() {
            self.work.notify_all();
        }
        batch
    }

    /// Those that do not exist any more, and what was said of the others.
    fn remove_names(&self, names: &[String], limit: Duration) -> Result<(HashSet<String>, String), CliError> {
        let mut call = args(&["rm", "--force"]);
        call.extend(names.iter().cloned());
        let (removed, said) = self.maker.cli.call_for_each(&call, limit)?;
        let mut gone: HashSet<String> = removed.lines().map(|line| line.trim().to_owned()).collect();
        gone.extend(names.iter().filter(|name| is_gone(&said, name)).cloned());
        Ok((gone, said))
    }

    fn remove_orphans(&self, known: &HashSet<String>) {
        match orphans::remove(&self.maker.cli, &self.identity, known) {
            Ok(0) => {}
            Ok(count) => {
                metrics::counter!("gavel_containers_removed_total").increment(count as u64);
                tracing::info!(count, "removed containers that belonged to nobody");
            }
            Err(fault) => tracing::warn!(error = %fault, "cannot look for containers that belong to nobody"),
        }
        if let Err(fault) = volume::remove_old(&self.maker.cli) {
            tracing::warn!(error = %fault, "cannot remove the agents of other versions");
        }
    }

    fn close(&self) {
        let mut inner = self.lock();
        if inner.closing && inner.threads == 0 && inner.stock.all().is_empty() {
            return;
        }
        inner.closing = true;
        self.work.notify_all();
        self.rubbish.notify_all();
        let waiting: Vec<Ticket> = inner.bells.keys().copied().collect();
        for ticket in waiting {
            inner.stock.leave(ticket);
            self.hand(&mut inner, ticket, Err(Fault::new("take a container", "the server is stopping")));
        }
        // A start that is under way would make its container after we have removed it.
        let busy = |inner: &mut Inner| inner.threads > 0;
        let ended = self.ended.wait_timeout_while(inner, LAST_START, busy);
        let mut inner = ended.unwrap_or_else(PoisonError::into_inner).0;
        let slow = inner.threads > 0;
        let ids = inner.stock.all();
        let names: Vec<String> = ids.iter().map(|id| self.maker.name(*id)).collect();
        let ended: Vec<Container> = inner.ready.drain().map(|(_, container)| container).collect();
        let rubbish: Vec<Rubbish> = inner.rubbish.drain(..).collect();
        ids.iter().for_each(|id| inner.stock.gone(*id));
        gauge(&inner);
        drop(inner);
        if !names.is_empty() {
            let removed = self.remove_names(&names, LAST_REMOVAL);
            let all = removed.as_ref().is_ok_and(|(gone, _)| gone.len() == names.len());
            if let Ok((gone, _)) = &removed {
                metrics::counter!("gavel_containers_removed_total").increment(gone.len() as u64);
            }
            if slow || !all {
                self.remove_last();
            }
        }
        drop((ended, rubbish));
    }

    /// Whatever else has our label. What cannot be removed now is left to the next server.
    fn remove_last(&self) {
        let left = orphans::own(&self.maker.cli, &self.identity).and_then(|mut left| {
            if !left.is_empty() {
                let (gone, _) = self.remove_names(&left, LAST_REMOVAL)?;
                left.retain(|name| !gone.contains(name));
            }
            Ok(left)
        });
        match left {
            Ok(left) if left.is_empty() => {}
            Ok(left) => tracing::error!(names = ?left, "cannot remove containers; the next server will try again"),
            Err(error) => tracing::error!(%error, "cannot remove containers; the next server will try again"),
        }
    }
}

fn is_alive(ready: &mut HashMap<Id, Container>, id: Id) -> bool {
    ready.get_mut(&id).is_some_and(Container::is_alive)
}

/// Whether one of the messages says that there is no such container.
fn is_gone(said: &str, name: &str) -> bool {
    lines_about(said, name).any(|line| classify(line) == Trouble::NoContainer)
}

fn says(said: &str, name: &str, words: &str) -> bool {
    lines_about(said, name).any(|line| line.contains(words))
}

fn lines_about<'a>(said: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    said.lines().filter(move |line| line.split(|c: char| !is_part_of_name(c)).any(|word| word == name))
}

fn is_part_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn gauge(inner: &Inner) {
    metrics::gauge!("gavel_pool_ready").set(inner.ready.len() as f64);
}

/// Until the bell rings, somebody wants to cancel, or the time is up.
fn wait(bell: &Cancel, cancel: &Cancel, deadline: Instant) -> Result<(), Errno> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let bells = [bell.bell(), cancel.bell()];
        let mut fds = bells.map(|bell| PollFd::from_borrowed_fd(bell, PollFlags::IN));
        match poll(&mut fds, Some(&super::cli::timespec(left))) {
            Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_gone_when_the_client_says_so_of_this_one() {
        let said = "Error response from daemon: No such container: gavel-a-1\n\
                    Error response from daemon: removal of container gavel-a-3 is already in progress\n";
        assert!(is_gone(said, "gavel-a-1"));
        assert!(!is_gone(said, "gavel-a") && !is_gone(said, "gavel-a-11") && !is_gone(said, "gavel-a-3"));
        assert!(says(said, "gavel-a-3", "already in progress") && !says(said, "gavel-a-1", "already in progress"));
        assert!(is_gone("Error: no container with name or ID \"gavel-a-1\" found: no such container", "gavel-a-1"));
    }
}
