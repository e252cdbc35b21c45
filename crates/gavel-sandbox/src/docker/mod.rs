//! The docker backend: containers of language images, made ahead, each with the agent inside.
//!
//! The only way to the daemon is the `docker` or `podman` command line, so it may be on any machine that
//! these reach. One call makes a container and stays as long as it does: its pipes are those of the agent,
//! and commands go over them as in the native backend. `recipe` says how a container is made, `container`
//! makes one, `stock` decides which are needed, `pool` does what was decided, and `orphans` clears up
//! after servers that were killed.

pub mod cli;
mod container;
mod info;
mod orphans;
mod pool;
mod profile;
mod recipe;
mod stock;
mod volume;

pub use container::SLOTS as MAX_CONTAINERS;
pub use info::probe;
pub use recipe::{OVERHEAD, Recipe};

use crate::agent;
use crate::{Backend, Cancel, Command, Fault, OnOutput, Sandbox};
use cli::{Cli, CliError, args};
use container::Maker;
use gavel_core::{Bytes, Facts, Stop};
use orphans::Identity;
use pool::{Lease, Pool, PoolOptions};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use stock::Bounds;

/// What becomes of a container after its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It is removed.
    Fresh,
    /// It is cleaned and used again, by at most so many commands and for so long.
    Reuse { jobs: u32, time: Duration },
}

#[derive(Debug, Clone)]
pub struct DockerOptions {
    /// The command line: a name in PATH, or a path.
    pub cli: String,
    /// OCI runtime for the containers; without one the daemon's own.
    pub runtime: Option<String>,
    /// Name of this server's place. Of one name only one server runs at a time: a new one removes what the
    /// last one left. Without a name nothing but the containers of dead processes is removed.
    pub node: Option<String>,
    pub cpus: f64,
    pub policy: Policy,
    /// Start containers before anybody wants them.
    pub ahead: bool,
    /// Kept ready for each kind of container that was announced.
    pub pool_min: u32,
    /// Of all kinds together; the memory as well.
    pub pool_max: u32,
    /// Without it three quarters of the daemon's.
    pub pool_memory: Option<Bytes>,
    pub idle_timeout: Duration,
    pub cleanup_interval: Duration,
    pub allow_network: bool,
    /// Run even where the daemon cannot limit what it should.
    pub allow_weak_isolation: bool,
}

/// How long the daemon may take to say that it is there.
const PING: Duration = Duration::from_secs(10);

/// How long its answer holds: for health checks, and while starts fail.
const HOLDS: Duration = Duration::from_secs(10);
const HOLDS_IN_TROUBLE: Duration = Duration::from_secs(1);

/// How long a worker rests that finds no daemon.
const REST: Duration = Duration::from_secs(2);

pub struct Docker {
    shared: Arc<Shared>,
    /// Of all containers together.
    memory: Bytes,
}

struct Shared {
    pool: Pool,
    policy: Policy,
    allow_network: bool,
    last_ping: Mutex<Option<(Instant, Result<(), Fault>)>>,
}

impl Docker {
    pub fn new(options: DockerOptions) -> Result<Self, Fault> {
        let cli = Cli::new(&options.cli);
        let daemon = info::ask(&cli).map_err(|error| Fault::new("reach the docker daemon", error))?;
        let lacks = daemon.lacks(options.runtime.as_deref());
        if !lacks.is_empty() && !options.allow_weak_isolation {
            return Err(Fault::new("isolate containers", lacks.join("; ")));
        }
        let identity = Identity::of_this_process(options.node.as_deref());
        let memory = options.pool_memory.unwrap_or(Bytes(daemon.memory.0 / 4 * 3));
        let bounds = Bounds {
            memory,
            count: options.pool_max.min(MAX_CONTAINERS),
            floor: options.pool_min,
            idle: options.idle_timeout,
            ahead: options.ahead,
            reuse: options.policy != Policy::Fresh,
        };
        let pool_options = PoolOptions { bounds, policy: options.policy, cleanup_interval: options.cleanup_interval };
        let maker = Maker::new(cli, &options, &identity)?;
        let shared = Shared {
            pool: Pool::start(maker, identity, pool_options)?,
            policy: options.policy,
            allow_network: options.allow_network,
            last_ping: Mutex::new(None),
        };
        Ok(Self { shared: Arc::new(shared), memory })
    }

    /// The most memory that one command can get.
    pub fn largest(&self) -> Bytes {
        Bytes(self.memory.0.saturating_sub(OVERHEAD.0))
    }

    /// Commands of these kinds will come.
    pub fn announce(&self, recipes: impl IntoIterator<Item = Recipe>) {
        self.shared.pool.announce(recipes);
    }

    /// The ids of those images that are there, by the names that were asked for. An id is one image for
    /// ever, and a name whichever was built last.
    pub fn images(&self, wanted: &[&str]) -> Result<BTreeMap<String, String>, Fault> {
        let maker = self.shared.pool.maker();
        let fault = |error: CliError| Fault::new("list the images", error);
        let format = "{{.Repository}}:{{.Tag}}\t{{.ID}}";
        let listing = maker.cli.call(&args(&["image", "ls", "--no-trunc", "--format", format]), PING).map_err(fault)?;
        let listing = String::from_utf8_lossy(&listing).into_owned();
        let mut found = BTreeMap::new();
        for name in wanted {
            let id = match image_in(&listing, name) {
                Some(id) => Some(id),
                // Its repository may be written in more than one way; the daemon knows.
                None if name.contains(['/', '@']) => inspect(&maker.cli, name),
                None => None,
            };
            if let Some(id) = id {
                found.insert((*name).to_owned(), id);
            }
        }
        let names = found.iter().map(|(name, id)| (id.clone(), name.clone()));
        maker.names.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
        Ok(found)
    }
}

fn image_in(listing: &str, name: &str) -> Option<String> {
    let tagged = if name.contains(':') { name.to_owned() } else { format!("{name}:latest") };
    let mut rows = listing.lines().filter_map(|line| line.split_once('\t'));
    // Podman says where a local image is from: here.
    let id = rows.find(|(known, _)| known.trim_start_matches("localhost/") == tagged)?.1.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

/// The id of an image, or nothing: the reason will show when a container of it is to be made.
fn inspect(cli: &Cli, name: &str) -> Option<String> {
    let answer = cli.call(&args(&["image", "inspect", "--format", "{{.Id}}", name]), PING).ok()?;
    let id = String::from_utf8_lossy(&answer).trim().to_owned();
    (!id.is_empty()).then_some(id)
}

impl Shared {
    /// Asks the daemon whether it is there, unless the last answer holds still.
    fn ping(&self) -> Result<(), Fault> {
        // Held while asking: the others wait for this answer.
        let mut last = self.last_ping.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = self.pool.trouble();
        let holds = if trouble.is_some() { HOLDS_IN_TROUBLE } else { HOLDS };
        if let Some((at, answer)) = &*last
            && at.elapsed() < holds
        {
            // A daemon may answer and yet start nothing: its disk is full, say.
            return answer.clone().and(trouble.map_or(Ok(()), Err));
        }
        let list = args(&["ps", "--quiet", "--filter", "label=gavel.node"]);
        let answer = self.pool.maker().cli.call(&list, PING).map(drop);
        let answer = answer.map_err(|error| Fault::new("reach the docker daemon", error));
        *last = Some((Instant::now(), answer.clone()));
        if answer.is_ok() && trouble.is_some() {
            // The next start will tell whether that was all.
            self.pool.up();
        }
        answer
    }
}

impl Backend for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn check(&self) -> Result<(), Fault> {
        self.shared.ping()
    }

    fn open(&self, _slot: u32) -> Result<Box<dyn Sandbox>, Fault> {
        // Without a daemon a worker should wait, and not take one job after the other to let it fail.
        if self.shared.pool.trouble().is_some()
            && let Err(fault) = self.shared.ping()
        {
            self.shared.pool.pause(REST);
            return Err(fault);
        }
        Ok(Box::new(DockerSandbox { shared: Arc::clone(&self.shared) }))
    }

    fn close(&self) {
        self.shared.pool.close();
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.close();
    }
}

/// A way to the pool: every command gets a container of its own.
struct DockerSandbox {
    shared: Arc<Shared>,
}

impl Sandbox for DockerSandbox {
    fn shares_files(&self, _image: Option<&str>) -> bool {
        false
    }

    fn run(&mut self, command: &Command, cancel: &Cancel, on_output: OnOutput) -> Result<Facts, Fault> {
        let Some(image) = command.image else {
            let cause = "the language has none: name one with `image` in its language.toml";
            return Err(Fault::new("choose an image", cause));
        };
        if command.network && !self.shared.allow_network {
            return Err(Fault::new("connect a container", "the network is off: set sandbox.allow_network"));
        }
        if let Some(facts) = agent::too_large(command) {
            return Ok(facts);
        }
        let recipe = Recipe::of(command, image);
        loop {
            let Some(mut lease) = self.shared.pool.take(&recipe, cancel)? else {
                return Ok(agent::never_begun(Some(Stop::Cancelled)));
            };
            let container = lease.container()?;
            if let Err(fault) = container.wait_until_clean() {
                // Each one is thrown away, so that at the latest one that is new comes.
                tracing::warn!(name = container.name, error = %fault, "a container is not clean: throwing it away");
                lease.throw_away("not_clean");
                continue;
            }
            container.commands += 1;
            let result = container.link.run(command, cancel, on_output);
            self.shared.end(lease, &result);
            return result;
        }
    }
}

impl Shared {
    fn end(&self, lease: Lease, result: &Result<Facts, Fault>) {
        match result {
            Err(_) => lease.throw_away("fault"),
            // Who reached the limit may have had others killed besides the job, and who had to be stopped
            // may be what cleaning is not good enough for.
            Ok(facts) if self.policy != Policy::Fresh && facts.oom_kills > 0 => lease.throw_away("memory_limit"),
            Ok(facts) if self.policy != Policy::Fresh && facts.stopped.is_some() => lease.throw_away("stopped"),
            Ok(_) => lease.give_back(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_by_the_names_that_people_use() {
        let listing = "gavel-c:latest\tsha256:1\ngavel-c:old\tsha256:2\nlocalhost/gavel-d:latest\tsha256:3\n";
        for (name, id) in [
            ("gavel-c", Some("sha256:1")),
            ("gavel-c:latest", Some("sha256:1")),
            ("gavel-c:old", Some("sha256:2")),
            ("gavel-d", Some("sha256:3")),
            ("gavel", None),
            ("gavel-c:new", None),
        ] {
            assert_eq!(image_in(listing, name).as_deref(), id, "{name}");
        }
    }
}
