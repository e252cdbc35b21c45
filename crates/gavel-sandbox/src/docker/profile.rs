//! The seccomp policy in the daemon's format: the first net, from before the agent's first instruction.
//!
//! Only what that format can say exactly. A list of allowed values is no part of it: libseccomp takes one
//! comparison for each argument of a rule. And only what the agent need not do when it starts. It puts
//! itself and each job under the whole policy.

use crate::Fault;
use crate::seccomp::{POLICY, Policy, When};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

/// The agent sets the core limit that no job may change.
const USED_BY_THE_AGENT: [&str; 2] = ["setrlimit", "prlimit64"];

/// The profile as a file that a client can read for as long as this lives, and that nobody else sees.
#[derive(Debug)]
pub struct Profile {
    file: File,
}

impl Profile {
    pub fn new() -> Result<Self, Fault> {
        let step = "write the seccomp profile";
        let text = json(POLICY).map_err(|cause| Fault::new(step, cause))?;
        let fd = memfd_create("gavel-seccomp.json", MemfdFlags::CLOEXEC).map_err(|e| Fault::new(step, e))?;
        let mut file = File::from(fd);
        file.write_all(text.as_bytes()).map_err(|e| Fault::new(step, e))?;
        Ok(Self { file })
    }

    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

fn json(policy: &str) -> Result<String, String> {
    let policy = Policy::read(policy)?;
    let mut calls = Vec::new();
    for rule in &policy.rule {
        // A rule for jobs only is one for all here: in a container no such call is needed before the job.
        let errno = rule.errno()?;
        let names: Vec<&String> =
            rule.calls.iter().filter(|call| !USED_BY_THE_AGENT.contains(&call.as_str())).collect();
        if names.is_empty() {
            continue;
        }
        for arguments in comparisons(&rule.when) {
            calls.push(json!({
                "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": arguments,
            }));
        }
    }
    // With one architecture listed, calls of all others end the program: i386 and x32.
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": calls,
    });
    Ok(profile.to_string())
}

/// The ways in which all conditions hold, each as a list of comparisons; none if the format cannot say it.
fn comparisons(when: &[When]) -> Vec<Vec<Value>> {
    let mut ways = vec![Vec::new()];
    for condition in when {
        let choices = choices(condition);
        ways = ways
            .iter()
            .flat_map(|way| choices.iter().map(move |choice| [way.clone(), vec![choice.clone()]].concat()))
            .collect();
    }
    ways
}

fn choices(when: &When) -> Vec<Value> {
    let masked = |mask: u32, value: u32| {
        // The name of the operands is misleading: `value` is the mask, `valueTwo` what must be left.
        json!({ "index": when.arg, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" })
    };
    // Low halves only, as the kernel takes an int.
    let mask = when.mask.unwrap_or(u32::MAX);
    if when.any {
        return (0..32).map(|bit| 1 << bit).filter(|bit| mask & bit != 0).map(|bit| masked(bit, bit)).collect();
    }
    if when.non_null {
        return vec![json!({ "index": when.arg, "value": 0, "valueTwo": 0, "op": "SCMP_CMP_NE" })];
    }
    match (&when.r#in, &when.not_in) {
        (Some(list), None) => list.iter().map(|value| masked(mask, *value)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Value {
        serde_json::from_str(&json(POLICY).unwrap()).unwrap()
    }

    /// What the profile does with a call: an errno, or nothing.
    fn decide(name: &str, args: [u64; 6]) -> Option<u64> {
        let profile = profile();
        let compare = |c: &Value| {
            let arg = args[c["index"].as_u64().unwrap() as usize];
            let (value, two) = (c["value"].as_u64().unwrap(), c["valueTwo"].as_u64().unwrap());
            match c["op"].as_str().unwrap() {
                "SCMP_CMP_MASKED_EQ" => arg & value == two,
                "SCMP_CMP_NE" => arg != value,
                other => panic!("{other}"),
            }
        };
        let rules = profile["syscalls"].as_array().unwrap();
        let holds = |rule: &&Value| {
            rule["names"].as_array().unwrap().iter().any(|call| call == name)
                && rule["args"].as_array().unwrap().iter().all(compare)
        };
        rules.iter().find(holds).map(|rule| rule["errnoRet"].as_u64().unwrap())
    }

    #[test]
    fn it_decides_as_the_policy_says() {
        let high = 0xffff_ffff_0000_0000u64;
        let errno = |errno: i32| Some(errno as u64);
        let table = [
            ("unshare", [0; 6], errno(libc::EPERM)),
            ("clone3", [0; 6], errno(libc::ENOSYS)),
            ("read", [0; 6], None),
            ("clone", [0x0001_1200, 0, 0, 0, 0, 0], None),
            ("clone", [0x1000_0011, 0, 0, 0, 0, 0], errno(libc::EPERM)),
            ("clone", [high | 0x0002_0000, 0, 0, 0, 0, 0], errno(libc::EPERM)),
            ("socket", [2, 0x80801, 0, 0, 0, 0], None),
            ("socket", [2, 0x80803, 0, 0, 0, 0], errno(libc::EPERM)),
            ("ioctl", [0, high | 0x541c, 0, 0, 0, 0], errno(libc::EPERM)),
            ("ioctl", [0, 0x5413, 0, 0, 0, 0], None),
        ];
        for (name, args, want) in table {
            assert_eq!(decide(name, args), want, "{name} {args:x?}");
        }
    }

    #[test]
    fn pointers_are_compared_in_all_their_bits() {
        let when = When { arg: 2, mask: None, any: false, non_null: true, r#in: None, not_in: None };
        let expected = json!([{ "index": 2, "value": 0, "valueTwo": 0, "op": "SCMP_CMP_NE" }]);
        assert_eq!(comparisons(&[when]), [expected.as_array().unwrap().clone()]);
    }

    #[test]
    fn what_the_format_cannot_say_is_left_to_the_agent() {
        // Refused by its family, which is on no list of refused ones.
        assert_eq!(decide("socket", [40, 1, 0, 0, 0, 0]), None);
        // Used by the agent itself.
        assert_eq!(decide("setrlimit", [4, 1, 0, 0, 0, 0]), None);
        let rules = profile()["syscalls"].as_array().unwrap().clone();
        for rule in rules {
            let mut indices: Vec<u64> =
                rule["args"].as_array().unwrap().iter().map(|c| c["index"].as_u64().unwrap()).collect();
            let all = indices.len();
            indices.dedup();
            assert_eq!(indices.len(), all, "one comparison for each argument: {rule}");
        }
    }

    #[test]
    fn a_client_can_read_it() {
        let profile = Profile::new().unwrap();
        let text = std::fs::read_to_string(profile.path()).unwrap();
        assert_eq!(text, json(POLICY).unwrap());
    }
}
