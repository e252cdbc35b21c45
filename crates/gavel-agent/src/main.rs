//! The agent: the one program of Gavel that enters a sandbox.
//!
//! Static, one thread, started once per worker. It builds the root directory that all of the worker's
//! sandboxes share, then takes commands over its standard input and reports over its standard output,
//! in the words of [`gavel_agent::wire`]. For each command it forks an init into fresh namespaces,
//! which starts the program ([`jail`]), and watches both from outside ([`supervise`]). The same program
//! is the first process of a container, where there is nothing to build ([`container`]).

mod cgroup;
mod collect;
mod container;
mod counters;
mod failed;
mod feed;
mod jail;
mod link;
mod root;
mod supervise;
mod sys;
mod terminal;
mod watch;

use cgroup::Cgroup;
use container::Container;
use failed::{At, Failed};
use gavel_agent::wire::{self, Failure, Host, Setup};
use link::{Link, Message};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::Resource;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities_secure_bits, set_no_new_privs,
};
use std::fs;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use supervise::{Agent, Outside, Place};

fn main() -> ExitCode {
    let mut link = match Link::new() {
        Ok(link) => link,
        Err(failed) => {
            eprintln!("gavel-agent: {}: {}", failed.step, failed.errno);
            return ExitCode::FAILURE;
        }
    };
    // A failure before READY is final; the server starts another agent or gives up.
    let prepared = greet(&mut link).and_then(|setup| match setup {
        None => Ok(None),
        Some(setup) => prepare(&setup).map(|outside| Some((setup, outside))),
    });
    let (setup, outside) = match prepared {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return ExitCode::SUCCESS,
        Err(failed) => return fail(&mut link, &failed, false),
    };
    match Agent::new(link, &setup, outside) {
        Ok(agent) => serve(agent),
        Err(failed) => {
            eprintln!("gavel-agent: {}: {}", failed.step, failed.errno);
            ExitCode::FAILURE
        }
    }
}

fn greet(link: &mut Link) -> Result<Option<Setup>, Failed> {
    link.send_body(wire::HELLO, &wire::VERSION)?;
    match link.receive()? {
        None => Ok(None),
        Some(Message::Setup(body)) => {
            postcard::from_bytes(&body).map(Some).map_err(|_| Errno::INVAL).at("read the set-up")
        }
        Some(_) => Err(Errno::PROTO).at("wait for the set-up"),
    }
}

/// One command after the other, until the server is gone.
fn serve(mut agent: Agent) -> ExitCode {
    if agent.link.send_body(wire::READY, &()).is_err() {
        return ExitCode::FAILURE;
    }
    loop {
        match agent.next() {
            Ok(Some(Message::Run(mut frame))) => {
                let done = agent.run(&mut frame).and_then(|()| agent.clean()).and_then(|()| agent.recycle(frame));
                if let Err(failed) = done {
                    // What a failed command left behind is unknown: this agent takes no other.
                    return fail(&mut agent.link, &failed, false);
                }
            }
            // Meant for a command that ended while these were on their way.
            Ok(Some(Message::Stdin(_) | Message::End | Message::Resize(_) | Message::Stop)) => {}
            Ok(None) => return ExitCode::SUCCESS,
            Ok(Some(Message::Setup(_))) => {
                eprintln!("gavel-agent: a second set-up");
                return ExitCode::FAILURE;
            }
            Err(failed) => {
                eprintln!("gavel-agent: {}: {}", failed.step, failed.errno);
                return ExitCode::FAILURE;
            }
        }
    }
}

fn fail(link: &mut Link, failed: &Failed, usable: bool) -> ExitCode {
    let failure = Failure { step: failed.step.to_string(), errno: failed.errno.raw_os_error(), usable };
    // If the server is gone, too, there is nobody left to tell.
    let _ = link.send_body(wire::FAILED, &failure);
    ExitCode::FAILURE
}

/// Everything that is done once per worker. The order matters: files of the host are opened before it
/// is out of sight, and privileges are given up last.
fn prepare(setup: &Setup) -> Result<Outside, Failed> {
    rustix::thread::set_name(c"gavel-agent").at("name the agent")?;
    sys::reset_signals().at("reset signals")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    match &setup.place {
        wire::Place::Host(host) => leave_the_host(setup, host),
        wire::Place::Container(container) => settle_in(setup, container),
    }
}

/// Nothing is mounted here and no namespace made, so that agent and jobs are under the same filters, and no
/// job has to install its own.
fn settle_in(setup: &Setup, container: &wire::Container) -> Result<Outside, Failed> {
    // Where the agent's own memory is counted, it must not grow with what it has been sent.
    sys::keep_no_freed_memory();
    let (container, counters) = Container::enter(container)?;
    let clear_refs = keep("/proc/self/clear_refs", OFlags::WRONLY)?;
    limit_for_good()?;
    // The bounding set and the securebits are not the agent's to change here; without new privileges nothing
    // of them can be gained.
    set_no_new_privs(true).at("set no_new_privs")?;
    clear_ambient_capability_set().at("clear ambient capabilities")?;
    sys::not_dumpable().at("make the agent untraceable")?;
    for filter in [&setup.own_filter, &setup.job_filter] {
        sys::install_seccomp(&sys::program(filter)).at("install the agent's seccomp filters")?;
    }
    Ok(Outside { cgroup: Cgroup::Container(counters), clear_refs, place: Place::Container(container) })
}

fn leave_the_host(setup: &Setup, host: &Host) -> Result<Outside, Failed> {
    if host.rootless {
        enter_user_namespace(setup)?;
        fs::write("/proc/self/oom_score_adj", "1000").at("raise the agent's oom_score_adj")?;
    } else {
        protect_from_oom()?;
    }
    let cgroup = Cgroup::open(&host.cgroup)?;
    let network = if host.allow_network { Some(keep("/proc/self/ns/net", OFlags::RDONLY)?) } else { None };
    let clear_refs = keep("/proc/self/clear_refs", OFlags::WRONLY)?;
    let mut namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    // On version 2 each init makes its own: from inside one the agent could not put a child into a group
    // beside its own where cgroup2 is mounted with nsdelegate, as systemd does.
    if cgroup.birthplace_is_own() {
        namespaces |= libc::CLONE_NEWCGROUP;
    }
    sys::unshare(namespaces).at("unshare namespaces")?;
    prepare_network()?;
    rustix::system::sethostname(host.hostname.as_bytes()).at("set the host name")?;
    let dev = root::build(host)?;
    limit_for_good()?;
    give_up_privileges()?;
    // Late, because it also takes away what /proc shows of an ordinary user's own process.
    sys::not_dumpable().at("make the agent untraceable")?;
    sys::install_seccomp(&sys::program(&setup.own_filter)).at("install the agent's seccomp filter")?;
    Ok(Outside { cgroup, clear_refs, place: Place::Host { network, rootless: host.rootless, dev } })
}

fn keep(path: &'static str, flags: OFlags) -> Result<OwnedFd, Failed> {
    open(path, flags | OFlags::CLOEXEC, Mode::empty()).at(path)
}

/// The worker's jobs have this network one after another: making one per job costs more than everything
/// else together. It is empty but for the loopback interface, and nothing in it may outlive a job: its
/// sockets go with its processes, and connections are not kept waiting after their end (TIME_WAIT),
/// which would keep a port from the next job for a minute.
fn prepare_network() -> Result<(), Failed> {
    sys::loopback_up().at("set the loopback interface up")?;
    fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0").at("forbid connections in TIME_WAIT")
}

fn enter_user_namespace(setup: &Setup) -> Result<(), Failed> {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    sys::unshare(libc::CLONE_NEWUSER).at("unshare a user namespace")?;
    fs::write("/proc/self/setgroups", "deny").at("forbid setgroups")?;
    fs::write("/proc/self/uid_map", format!("{} {uid} 1", setup.uid)).at("map the user")?;
    fs::write("/proc/self/gid_map", format!("{} {gid} 1", setup.gid)).at("map the group")
}

/// On version 1 the agent shares a memory group with its jobs. It is the least likely victim as it is:
/// jobs have the highest score there is. Without CAP_SYS_RESOURCE it must stay at that.
fn protect_from_oom() -> Result<(), Failed> {
    match fs::write("/proc/self/oom_score_adj", "-1000") {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::PermissionDenied) => Ok(()),
        other => other.at("write the agent's oom_score_adj"),
    }
}

/// Enough for every compiler and runtime; the agent itself needs a dozen.
const OPEN_FILES: u64 = 1024;

/// Resource limits that are the same for every command; they are inherited.
fn limit_for_good() -> Result<(), Failed> {
    for (resource, value, name) in [
        // 1 and not 0: with 0 the kernel still pipes a dump to a core_pattern helper, with 1 never,
        // and no file is made because it is less than a page (core(5)).
        (Resource::Core, 1, "core dumps"),
        (Resource::Memlock, 64 << 10, "locked memory"),
        (Resource::Nofile, OPEN_FILES, "open files"),
        (Resource::Msgqueue, 0, "message queues"),
        (Resource::Sigpending, 256, "queued signals"),
        (Resource::Nice, 0, "nice"),
        (Resource::Rtprio, 0, "real-time priority"),
    ] {
        jail::limit(resource, value, value).at(format!("limit {name}"))?;
    }
    Ok(())
}

/// Nothing that is executed from here on can gain a privilege. The agent keeps its own, which it needs
/// to mount and to change users; they end with its copies.
fn give_up_privileges() -> Result<(), Failed> {
    set_no_new_privs(true).at("set no_new_privs")?;
    clear_ambient_capability_set().at("clear ambient capabilities")?;
    let locked = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(locked).at("lock the securebits")?;
    for number in 0..64 {
        // Beyond the last capability that this kernel knows it says invalid.
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(e) => return Err(e).at("drop the bounding set"),
        }
    }
    Ok(())
}
