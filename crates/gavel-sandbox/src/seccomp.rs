//! The seccomp policy: read from data, compiled to classic BPF.
//!
//! The program is a binary search over ranges of system call numbers. When a filter is installed the kernel
//! tries it for every number, to find those that are always allowed and then skips it for them
//! (seccomp_cache_prepare in kernel/seccomp.c, since 5.11): a long chain of comparisons would cost
//! each job a tenth of a millisecond.

use crate::Fault;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The policy that every sandbox gets.
pub const POLICY: &str = include_str!("../policy/seccomp.toml");

/// `code, jt, jf, k` of the kernel's `struct sock_filter`.
pub type Instruction = (u16, u8, u8, u32);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub rule: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    why: String,
    errno: String,
    /// Only for jobs, not for the agent.
    #[serde(default)]
    late: bool,
    pub calls: Vec<String>,
    /// All of them must hold; none: always.
    #[serde(default)]
    pub when: Vec<When>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    pub arg: u32,
    pub mask: Option<u32>,
    #[serde(default)]
    pub any: bool,
    /// Some bit of all 64 is set: a pointer that is not null.
    #[serde(default)]
    pub non_null: bool,
    pub r#in: Option<Vec<u32>>,
    pub not_in: Option<Vec<u32>>,
}

impl Policy {
    pub fn read(text: &str) -> Result<Self, String> {
        let policy: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        match policy.rule.iter().find(|rule| rule.why.trim().is_empty()) {
            Some(rule) => Err(format!("the rule for {:?} gives no reason", rule.calls)),
            None => Ok(policy),
        }
    }
}

impl Rule {
    pub fn errno(&self) -> Result<u32, String> {
        match self.errno.as_str() {
            "EPERM" => Ok(libc::EPERM as u32),
            "ENOSYS" => Ok(libc::ENOSYS as u32),
            "EAFNOSUPPORT" => Ok(libc::EAFNOSUPPORT as u32),
            other => Err(format!("unknown errno {other:?}")),
        }
    }
}

/// What is done with one system call: each check in turn, and allowed if none applies.
type Checks = Vec<(Vec<When>, u32)>;

const LD_W_ABS: u16 = 0x20;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const JA: u16 = 0x05;
const AND: u16 = 0x54;
const RET: u16 = 0x06;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;

/// Offsets in `struct seccomp_data`.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// Numbers with this bit are the x32 ABI's.
const X32_BIT: u32 = 0x4000_0000;

/// The policy as programs.
#[derive(Debug, Clone)]
pub struct Filters {
    /// For the agent and everything that comes from it.
    pub early: Vec<Instruction>,
    /// For jobs, on top of that.
    pub late: Vec<Instruction>,
}

pub fn filters() -> Result<Filters, Fault> {
    let compile = |late| compile(POLICY, late).map_err(|cause| Fault::new("compile the seccomp policy", cause));
    Ok(Filters { early: compile(false)?, late: compile(true)? })
}

fn compile(text: &str, late: bool) -> Result<Vec<Instruction>, String> {
    let policy = Policy::read(text)?;
    let mut calls: BTreeMap<u32, Checks> = BTreeMap::new();
    for rule in &policy.rule {
        if rule.late != late {
            continue;
        }
        let errno = rule.errno()?;
        for name in &rule.calls {
            let number = number(name).ok_or_else(|| format!("unknown system call {name:?}"))?;
            calls.entry(number).or_default().push((rule.when.clone(), errno));
        }
    }
    let mut program = Vec::new();
    if !late {
        // Whatever the early filter kills never comes back from the late one.
        program.extend([
            (LD_W_ABS, 0, 0, OFFSET_ARCH),
            (JEQ, 1, 0, AUDIT_ARCH_X86_64),
            (RET, 0, 0, RET_KILL_PROCESS),
            (LD_W_ABS, 0, 0, OFFSET_NR),
            (JGE, 0, 1, X32_BIT),
            (RET, 0, 0, RET_KILL_PROCESS),
        ]);
    } else {
        program.push((LD_W_ABS, 0, 0, OFFSET_NR));
    }
    program.extend(search(&ranges(calls))?);
    Ok(program)
}

/// Neighbouring system calls with the same checks.
struct Range {
    first: u32,
    last: u32,
    checks: Checks,
}

fn ranges(calls: BTreeMap<u32, Checks>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for (number, checks) in calls {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == number && range.checks == checks => range.last = number,
            _ => ranges.push(Range { first: number, last: number, checks }),
        }
    }
    ranges
}

/// Finds the number in the accumulator among `ranges`.
fn search(ranges: &[Range]) -> Result<Vec<Instruction>, String> {
    let mut out = Vec::new();
    if ranges.len() <= 2 {
        for Range { first, last, checks } in ranges {
            let body = checks_of(checks)?;
            let skip = u8::try_from(body.len() + 1).map_err(|_| format!("too many checks for call {first}"))?;
            if first == last {
                out.push((JEQ, 0, skip - 1, *first));
            } else {
                out.push((JGE, 0, skip, *first));
                out.push((JGE, skip - 1, 0, *last + 1));
            }
            out.extend(body);
        }
        out.push((RET, 0, 0, RET_ALLOW));
        return Ok(out);
    }
    let (left, right) = ranges.split_at(ranges.len() / 2);
    let left = search(left)?;
    // A conditional jump reaches 255 instructions; the plain one behind it reaches everywhere.
    out.push((JGE, 0, 1, right[0].first));
    out.push((JA, 0, 0, left.len() as u32));
    out.extend(left);
    out.extend(search(right)?);
    Ok(out)
}

fn checks_of(checks: &Checks) -> Result<Vec<Instruction>, String> {
    let mut out = Vec::new();
    for (conditions, errno) in checks {
        // From the last to the first: each jumps over all that follows it in this rule if it fails.
        let mut rule = vec![(RET, 0, 0, RET_ERRNO | errno)];
        for when in conditions.iter().rev() {
            let mut test = condition(when, rule.len())?;
            test.extend(rule);
            rule = test;
        }
        out.extend(rule);
        if conditions.is_empty() {
            return Ok(out);
        }
    }
    out.push((RET, 0, 0, RET_ALLOW));
    Ok(out)
}

/// Goes on behind itself if the condition holds, and `skip` instructions further if not.
fn condition(when: &When, skip: usize) -> Result<Vec<Instruction>, String> {
    let far = |more: usize| u8::try_from(skip + more).map_err(|_| "a rule is too long".to_owned());
    // The low half of a 64-bit argument comes first: little endian.
    let low = (LD_W_ABS, 0, 0, OFFSET_ARGS + 8 * when.arg);
    let high = (LD_W_ABS, 0, 0, OFFSET_ARGS + 8 * when.arg + 4);
    let mut out = vec![low];
    if let Some(mask) = when.mask {
        out.push((AND, 0, 0, mask));
    }
    match (when.any, when.non_null, &when.r#in, &when.not_in) {
        (true, false, None, None) => out.push((JSET, 0, far(0)?, u32::MAX)),
        (false, true, None, None) => {
            out.push((JSET, 2, 0, u32::MAX));
            out.push(high);
            out.push((JSET, 0, far(0)?, u32::MAX));
        }
        (false, false, Some(list), None) => {
            for (at, value) in list.iter().enumerate() {
                let behind = list.len() - at - 1;
                // The last one decides; the others jump behind it if they match.
                let miss = if behind == 0 { far(0)? } else { 0 };
                out.push((JEQ, behind as u8, miss, *value));
            }
        }
        (false, false, None, Some(list)) => {
            for (at, value) in list.iter().enumerate() {
                out.push((JEQ, far(list.len() - at - 1)?, 0, *value));
            }
        }
        _ => return Err("a condition needs exactly one of any, non_null, in and not_in".to_owned()),
    }
    Ok(out)
}

macro_rules! numbers {
    ($($name:ident = $constant:ident),* $(,)?) => {
        &[$((stringify!($name), libc::$constant as u32)),*]
    };
}

/// Numbers of the system calls that the policy may name, for this architecture.
const NUMBERS: &[(&str, u32)] = numbers![
    _sysctl = SYS__sysctl,
    acct = SYS_acct,
    add_key = SYS_add_key,
    adjtimex = SYS_adjtimex,
    bpf = SYS_bpf,
    chroot = SYS_chroot,
    clock_adjtime = SYS_clock_adjtime,
    clock_settime = SYS_clock_settime,
    clone = SYS_clone,
    clone3 = SYS_clone3,
    delete_module = SYS_delete_module,
    fanotify_init = SYS_fanotify_init,
    fanotify_mark = SYS_fanotify_mark,
    finit_module = SYS_finit_module,
    fsconfig = SYS_fsconfig,
    fsmount = SYS_fsmount,
    fsopen = SYS_fsopen,
    fspick = SYS_fspick,
    init_module = SYS_init_module,
    io_destroy = SYS_io_destroy,
    io_getevents = SYS_io_getevents,
    io_setup = SYS_io_setup,
    io_submit = SYS_io_submit,
    io_uring_enter = SYS_io_uring_enter,
    io_uring_register = SYS_io_uring_register,
    io_uring_setup = SYS_io_uring_setup,
    ioctl = SYS_ioctl,
    ioperm = SYS_ioperm,
    iopl = SYS_iopl,
    kcmp = SYS_kcmp,
    kexec_file_load = SYS_kexec_file_load,
    kexec_load = SYS_kexec_load,
    keyctl = SYS_keyctl,
    lookup_dcookie = SYS_lookup_dcookie,
    mbind = SYS_mbind,
    memfd_secret = SYS_memfd_secret,
    migrate_pages = SYS_migrate_pages,
    modify_ldt = SYS_modify_ldt,
    mount = SYS_mount,
    mount_setattr = SYS_mount_setattr,
    move_mount = SYS_move_mount,
    move_pages = SYS_move_pages,
    name_to_handle_at = SYS_name_to_handle_at,
    nfsservctl = SYS_nfsservctl,
    open_by_handle_at = SYS_open_by_handle_at,
    open_tree = SYS_open_tree,
    perf_event_open = SYS_perf_event_open,
    personality = SYS_personality,
    pidfd_getfd = SYS_pidfd_getfd,
    pivot_root = SYS_pivot_root,
    prlimit64 = SYS_prlimit64,
    process_madvise = SYS_process_madvise,
    process_vm_readv = SYS_process_vm_readv,
    process_vm_writev = SYS_process_vm_writev,
    ptrace = SYS_ptrace,
    quotactl = SYS_quotactl,
    quotactl_fd = SYS_quotactl_fd,
    reboot = SYS_reboot,
    request_key = SYS_request_key,
    set_mempolicy = SYS_set_mempolicy,
    set_mempolicy_home_node = SYS_set_mempolicy_home_node,
    setdomainname = SYS_setdomainname,
    sethostname = SYS_sethostname,
    setrlimit = SYS_setrlimit,
    setns = SYS_setns,
    settimeofday = SYS_settimeofday,
    socket = SYS_socket,
    socketpair = SYS_socketpair,
    swapoff = SYS_swapoff,
    swapon = SYS_swapon,
    sysfs = SYS_sysfs,
    syslog = SYS_syslog,
    umount2 = SYS_umount2,
    unshare = SYS_unshare,
    uselib = SYS_uselib,
    userfaultfd = SYS_userfaultfd,
    ustat = SYS_ustat,
    vhangup = SYS_vhangup,
];

fn number(name: &str) -> Option<u32> {
    NUMBERS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARCH: u32 = AUDIT_ARCH_X86_64;

    /// What the kernel would do with one call: the value of the RET instruction that is reached.
    fn decide(program: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
        let load = |offset: u32| match offset {
            OFFSET_NR => number,
            OFFSET_ARCH => arch,
            _ => {
                let at = offset - OFFSET_ARGS;
                (args[(at / 8) as usize] >> (8 * (at % 8))) as u32
            }
        };
        let (mut pc, mut acc) = (0usize, 0u32);
        for _ in 0..1000 {
            let (code, jt, jf, k) = program[pc];
            pc += 1;
            let jump = |holds: bool| usize::from(if holds { jt } else { jf });
            match code {
                LD_W_ABS => acc = load(k),
                AND => acc &= k,
                JEQ => pc += jump(acc == k),
                JGE => pc += jump(acc >= k),
                JSET => pc += jump(acc & k != 0),
                JA => pc += k as usize,
                RET => return k,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
        panic!("the program does not end");
    }

    /// What both filters together do: the kernel takes the stricter answer, which is the lower number
    /// once the kills, the highest ones, are seen as negative (seccomp_run_filters).
    fn decide_both(arch: u32, number: u32, args: [u64; 6]) -> u32 {
        let Filters { early, late } = filters().unwrap();
        let (early, late) = (decide(&early, arch, number, args), decide(&late, arch, number, args));
        if (early as i32) < (late as i32) { early } else { late }
    }

    fn call(name: &str, args: [u64; 6]) -> u32 {
        decide_both(ARCH, number(name).unwrap(), args)
    }

    const fn refused(errno: i32) -> u32 {
        RET_ERRNO | errno as u32
    }

    #[test]
    fn every_unconditional_rule_refuses_and_every_other_call_passes() {
        let policy: Policy = toml::from_str(POLICY).unwrap();
        let mut mentioned = Vec::new();
        for rule in &policy.rule {
            for name in &rule.calls {
                let number = number(name).unwrap();
                mentioned.push(number);
                if rule.when.is_empty() {
                    assert_eq!(decide_both(ARCH, number, [0; 6]), RET_ERRNO | rule.errno().unwrap(), "{name}");
                }
            }
        }
        for number in (0..1000).filter(|n| !mentioned.contains(n)) {
            assert_eq!(decide_both(ARCH, number, [u64::MAX; 6]), RET_ALLOW, "{number}");
        }
    }

    #[test]
    fn foreign_architectures_are_killed() {
        const AUDIT_ARCH_I386: u32 = 0x4000_0003;
        for number in 0..1000 {
            assert_eq!(decide_both(AUDIT_ARCH_I386, number, [0; 6]), RET_KILL_PROCESS);
            assert_eq!(decide_both(ARCH, X32_BIT | number, [0; 6]), RET_KILL_PROCESS);
        }
    }

    #[test]
    fn conditions_look_at_the_low_half_of_arguments_only() {
        let high = 0xffff_ffff_0000_0000u64;
        let table = [
            ("clone", [0x0001_1200, 0, 0, 0, 0, 0], RET_ALLOW),
            ("clone", [0x1000_0011, 0, 0, 0, 0, 0], refused(libc::EPERM)),
            ("clone", [high | 0x0002_0000, 0, 0, 0, 0, 0], refused(libc::EPERM)),
            ("socket", [1, 1, 0, 0, 0, 0], RET_ALLOW),
            ("socket", [2, 0x80801, 0, 0, 0, 0], RET_ALLOW),
            ("socket", [10, 2, 0, 0, 0, 0], RET_ALLOW),
            ("socket", [2, 3, 0, 0, 0, 0], refused(libc::EPERM)),
            ("socket", [2, 0x80803, 0, 0, 0, 0], refused(libc::EPERM)),
            ("socket", [40, 1, 0, 0, 0, 0], refused(libc::EAFNOSUPPORT)),
            ("socket", [high | 38, 5, 0, 0, 0, 0], refused(libc::EAFNOSUPPORT)),
            ("socket", [high | 2, 1, 0, 0, 0, 0], RET_ALLOW),
            ("ioctl", [0, 0x5412, 0, 0, 0, 0], refused(libc::EPERM)),
            ("ioctl", [0, high | 0x541c, 0, 0, 0, 0], refused(libc::EPERM)),
            ("ioctl", [0, 0x5413, 0, 0, 0, 0], RET_ALLOW),
            ("setrlimit", [4, 1, 0, 0, 0, 0], refused(libc::EPERM)),
            ("setrlimit", [3, 1, 0, 0, 0, 0], RET_ALLOW),
            ("prlimit64", [0, 4, 0, 1, 0, 0], RET_ALLOW),
            ("prlimit64", [0, 4, 8, 0, 0, 0], refused(libc::EPERM)),
            ("prlimit64", [0, high | 4, high, 0, 0, 0], refused(libc::EPERM)),
            ("prlimit64", [0, 3, 8, 0, 0, 0], RET_ALLOW),
            ("personality", [0xffff_ffff, 0, 0, 0, 0, 0], RET_ALLOW),
            ("personality", [0x0040_0000, 0, 0, 0, 0, 0], refused(libc::EPERM)),
        ];
        for (name, args, want) in table {
            assert_eq!(call(name, args), want, "{name} {args:x?}");
        }
    }

    #[test]
    fn what_is_installed_for_each_job_is_short() {
        let late = filters().unwrap().late;
        assert!(late.len() < 30, "{} instructions", late.len());
    }

    #[test]
    fn the_agent_may_do_what_it_must() {
        let early = filters().unwrap().early;
        for name in ["clone3", "mount", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "setns", "unshare"]
        {
            assert_eq!(decide(&early, ARCH, number(name).unwrap(), [0; 6]), RET_ALLOW, "{name}");
        }
    }

    #[test]
    fn a_policy_that_is_wrong_is_refused() {
        for (text, what) in [
            ("[[rule]]\nwhy='x'\nerrno='EPERM'\ncalls=['nosuch']", "nosuch"),
            ("[[rule]]\nwhy='x'\nerrno='EWHAT'\ncalls=['mount']", "EWHAT"),
            ("[[rule]]\nwhy=''\nerrno='EPERM'\ncalls=['mount']", "no reason"),
            ("[[rule]]\nwhy='x'\nerrno='EPERM'\ncalls=['mount']\nwhen=[{arg=0}]", "exactly one"),
        ] {
            assert!(compile(text, false).unwrap_err().contains(what), "{text}");
        }
    }
}
