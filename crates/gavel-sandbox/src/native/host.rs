//! Which parts of the host a sandbox gets to see.

use gavel_agent::wire::Setup;
use std::fs;
use std::path::Path;

/// Directories of programs and libraries: mounted read-only where they are real directories, copied
/// where they are links into `/usr`.
const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// What runtimes need besides: how to find libraries and programs, names, time, their settings. Small,
/// so it is copied. Nothing of it is secret, and what is not world-readable is never copied. The table
/// in `languages/README.md` says who needs what.
const COPIES: &[&str] = &[
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/openssl.cnf",
    "/etc/gnucobol",
    "/etc/mono",
    "/etc/nim",
    "/etc/php",
    "/etc/R",
    "/var/lib/ghc",
];

/// The name of the user that programs run as, and of the machine they think they are on.
const USER: &str = "gavel";
const HOSTNAME: &str = "box";

/// Fills in everything of the set-up that depends on the host's files.
pub fn describe(setup: &mut Setup) {
    for name in SYSTEM {
        let path = Path::new(name);
        if let Ok(target) = fs::read_link(path) {
            setup.links.push((name.trim_start_matches('/').to_owned(), target.to_string_lossy().into_owned()));
        } else if path.is_dir() {
            setup.binds.push((*name).to_owned());
        }
    }
    setup.copies.extend(COPIES.iter().map(|path| (*path).to_owned()));
    setup.copies.extend(java_configuration());
    setup.hostname = HOSTNAME.to_owned();
    let (uid, gid) = (setup.uid, setup.gid);
    setup.files = [
        ("/etc/passwd", format!("root:x:0:0:root:/:/usr/sbin/nologin\n{USER}:x:{uid}:{gid}:{USER}:/box:/bin/sh\n")),
        ("/etc/group", format!("root:x:0:\n{USER}:x:{gid}:\n")),
        ("/etc/hosts", format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {HOSTNAME}\n")),
        ("/etc/hostname", format!("{HOSTNAME}\n")),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
    ]
    .map(|(path, content)| (path.to_owned(), content))
    .into();
    if setup.allow_network {
        setup.copies.push("/etc/resolv.conf".to_owned());
    }
}

/// `/etc/java-17-openjdk` and its like, which the files of the runtime link to.
fn java_configuration() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/etc") else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found: Vec<String> =
        names.filter(|name| name.starts_with("java")).map(|name| format!("/etc/{name}")).collect();
    found.sort();
    found
}
