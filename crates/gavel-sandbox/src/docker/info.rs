//! What a daemon is and can do, as its client tells, and which of that a sandbox needs.

use super::cli::{Cli, CliError, Trouble, args, classify};
use crate::native::{Check, Grade};
use gavel_core::Bytes;
use serde_json::Value;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// A daemon, or Podman, which is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Daemon {
    pub version: String,
    pub memory: Bytes,
    storage: String,
    cgroup_driver: String,
    cgroup_version: String,
    /// "seccomp", "apparmor", "userns", "rootless".
    security: Vec<String>,
    runtimes: Vec<String>,
    limits_memory: bool,
    limits_swap: bool,
    limits_processes: bool,
}

/// Asks the daemon about itself.
pub fn ask(cli: &Cli) -> Result<Daemon, CliError> {
    let answer = cli.call(&args(&["info", "--format", "{{json .}}"]), LIMIT)?;
    let odd = |detail: &str| CliError::new(cli, "info", Trouble::Other, detail);
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| odd(&error.to_string()))?;
    // Some clients succeed in saying that they could not ask.
    if let Some(error) = answer["ServerErrors"].as_array().and_then(|errors| errors.first()?.as_str()) {
        return Err(CliError::new(cli, "info", classify(error), error));
    }
    let daemon = if answer["host"].is_object() { podman(&answer) } else { docker(&answer) };
    daemon.ok_or_else(|| odd("it does not say what it is"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn docker(answer: &Value) -> Option<Daemon> {
    let is = |name: &str| answer[name].as_bool().unwrap_or(false);
    // "name=seccomp,profile=default"
    let options = answer["SecurityOptions"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let security = options.filter_map(|option| option.split(',').next()?.strip_prefix("name=")).map(str::to_owned);
    Some(Daemon {
        version: answer["ServerVersion"].as_str()?.to_owned(),
        memory: Bytes(answer["MemTotal"].as_u64()?),
        storage: text(&answer["Driver"]),
        cgroup_driver: text(&answer["CgroupDriver"]),
        cgroup_version: text(&answer["CgroupVersion"]),
        security: security.collect(),
        runtimes: answer["Runtimes"].as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default(),
        limits_memory: is("MemoryLimit"),
        limits_swap: is("SwapLimit"),
        limits_processes: is("PidsLimit"),
    })
}

fn podman(answer: &Value) -> Option<Daemon> {
    let host = &answer["host"];
    let has = |name: &str| {
        let controllers = host["cgroupControllers"].as_array();
        // On version 1 it does not list them, and they are there.
        controllers.is_none_or(|all| all.is_empty() || all.iter().any(|known| known == name))
    };
    let flags = [("seccomp", "seccompEnabled"), ("apparmor", "apparmorEnabled"), ("rootless", "rootless")];
    let on = flags.iter().filter(|(_, flag)| host["security"][flag].as_bool().unwrap_or(false));
    Some(Daemon {
        version: answer["version"]["Version"].as_str()?.to_owned(),
        memory: Bytes(host["memTotal"].as_u64()?),
        storage: text(&answer["store"]["graphDriverName"]),
        cgroup_driver: text(&host["cgroupManager"]),
        cgroup_version: text(&host["cgroupVersion"]).trim_start_matches('v').to_owned(),
        security: on.map(|(name, _)| (*name).to_owned()).collect(),
        runtimes: vec![text(&host["ociRuntime"]["name"])],
        limits_memory: has("memory"),
        limits_swap: has("memory"),
        limits_processes: has("pids"),
    })
}

impl Daemon {
    /// What a sandbox cannot be without, each with its remedy.
    pub fn lacks(&self, runtime: Option<&str>) -> Vec<String> {
        let cgroups = "boot its kernel with the controller (cgroup_enable=memory), or, without root, delegate it to \
                       the user's systemd";
        let needs = [
            (self.limits_memory, format!("the daemon cannot limit memory: {cgroups}")),
            (self.limits_processes, format!("the daemon cannot limit processes: {cgroups}")),
            (
                self.security.iter().any(|option| option == "seccomp"),
                "the daemon cannot filter system calls: use a kernel with CONFIG_SECCOMP_FILTER and a runtime built \
                 with libseccomp"
                    .to_owned(),
            ),
        ];
        let mut lacks: Vec<String> = needs.into_iter().filter(|(has, _)| !has).map(|(_, text)| text).collect();
        if let Some(runtime) = runtime.filter(|runtime| !self.runtimes.iter().any(|known| known == runtime)) {
            let known = self.runtimes.join(", ");
            lacks.push(format!("the daemon has no runtime {runtime}: set sandbox.docker_runtime to one of {known}"));
        }
        lacks
    }
}

/// What the docker backend says about this machine.
pub fn probe(cli: &str, runtime: Option<&str>) -> Vec<Check> {
    let cli = Cli::new(cli);
    let daemon = match ask(&cli) {
        Ok(daemon) => daemon,
        Err(error) => {
            let remedy = error.trouble.remedy();
            return vec![check("docker", Grade::Fail, error.cause(), remedy)];
        }
    };
    let mut checks = vec![
        check("docker", Grade::Ok, format!("{} reaches a daemon of version {}", cli.program(), daemon.version), ""),
        cgroups(&daemon),
        storage(&daemon),
        security(&daemon),
    ];
    checks.extend(daemon.lacks(runtime).into_iter().map(|lack| {
        let (found, remedy) = lack.split_once(": ").unwrap_or((&lack, ""));
        check("docker limits", Grade::Fail, found, remedy)
    }));
    if !daemon.limits_swap {
        let remedy = "boot its kernel with swapaccount=1, or turn swap off";
        checks.push(check("docker swap", Grade::Warn, "the daemon cannot limit swap", remedy));
    }
    checks
}

fn check(name: &'static str, grade: Grade, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name, grade, found: found.into(), remedy: remedy.into() }
}

fn cgroups(daemon: &Daemon) -> Check {
    let found = format!("version {}, driver {}", daemon.cgroup_version, daemon.cgroup_driver);
    match daemon.cgroup_version.as_str() {
        "2" => check("docker cgroups", Grade::Ok, found, ""),
        _ => check(
            "docker cgroups",
            Grade::Warn,
            found,
            "version 2 is safer: boot with systemd.unified_cgroup_hierarchy=1",
        ),
    }
}

fn storage(daemon: &Daemon) -> Check {
    let found = format!("driver {}", daemon.storage);
    match daemon.storage.as_str() {
        "vfs" => {
            let remedy =
                "it copies the image for every container: put the daemon's data on ext4 or xfs and use overlay2";
            check("docker storage", Grade::Warn, found, remedy)
        }
        _ => check("docker storage", Grade::Ok, found, ""),
    }
}

fn security(daemon: &Daemon) -> Check {
    let has = |name: &str| daemon.security.iter().any(|option| option == name);
    let found = if daemon.security.is_empty() { "none".to_owned() } else { daemon.security.join(", ") };
    if has("userns") || has("rootless") {
        return check("docker security", Grade::Ok, found, "");
    }
    let remedy = "with userns-remap in the daemon's configuration, root of a container is nobody on the host";
    check("docker security", Grade::Warn, found, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_dockers_daemon_says_is_understood() {
        let answer = json!({
            "Driver": "overlay2", "MemoryLimit": true, "SwapLimit": false, "PidsLimit": true, "CgroupDriver": "systemd",
            "CgroupVersion": "2", "MemTotal": 25276514304u64, "ServerVersion": "20.10.24",
            "Runtimes": { "runc": { "path": "runc" }, "runsc": { "path": "runsc" } },
            "SecurityOptions": ["name=seccomp,profile=default", "name=userns"],
        });
        let daemon = docker(&answer).unwrap();
        assert_eq!((daemon.version.as_str(), daemon.memory), ("20.10.24", Bytes(25276514304)));
        assert_eq!(daemon.lacks(Some("runsc")), [""; 0]);
        assert!(daemon.lacks(Some("kata"))[0].ends_with("set sandbox.docker_runtime to one of runc, runsc"));
        assert_eq!(security(&daemon).grade, Grade::Ok);
        assert_eq!(docker(&json!({ "ID": "", "Containers": 0 })), None);
    }

    #[test]
    fn what_podman_says_is_understood() {
        let answer = json!({
            "host": {
                "cgroupManager": "systemd", "cgroupVersion": "v2", "cgroupControllers": ["cpu", "pids"],
                "memTotal": 1073741824u64, "ociRuntime": { "name": "crun" },
                "security": { "rootless": true, "seccompEnabled": true, "apparmorEnabled": false },
            },
            "store": { "graphDriverName": "overlay" }, "version": { "Version": "4.3.1" },
        });
        let daemon = podman(&answer).unwrap();
        assert_eq!(
            (daemon.cgroup_version.as_str(), &daemon.security[..]),
            ("2", &["seccomp", "rootless"].map(str::to_owned)[..])
        );
        let lacks = daemon.lacks(None);
        assert!(lacks.len() == 1 && lacks[0].starts_with("the daemon cannot limit memory"), "{lacks:?}");
    }
}
