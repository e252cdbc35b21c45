//! Which parts of the host a sandbox gets to see.

use gavel_agent::wire::Host;
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

/// Top-level directories of an image that a sandbox does not get: its own stand there, or nothing.
const NOT_OF_IMAGES: &[&str] =
    &["box", "boot", "dev", "etc", "gavel", "home", "media", "mnt", "proc", "root", "run", "srv", "sys", "tmp", "var"];

/// Fills in everything of the set-up that depends on files: the host's, or those of an image that was
/// unpacked. `id` is the user's and the group's.
pub fn describe(host: &mut Host, id: u32, root: Option<&Path>) -> std::io::Result<()> {
    let names = match root {
        None => SYSTEM.iter().map(|name| (*name).to_owned()).collect(),
        Some(root) => directories_of_image(root)?,
    };
    let root = root.unwrap_or(Path::new("/"));
    for name in names {
        let path = root.join(name.trim_start_matches('/'));
        if let Ok(target) = fs::read_link(&path) {
            host.links.push((name.trim_start_matches('/').to_owned(), target.to_string_lossy().into_owned()));
        } else if path.is_dir() {
            host.binds.push(name);
        }
    }
    host.root = root.to_string_lossy().into_owned();
    let copies = COPIES.iter().map(|path| (*path).to_owned());
    if host.root == "/" {
        host.copies.extend(copies);
        host.copies.extend(java_configuration());
    } else {
        // Nothing in an image is a secret of the host.
        host.copies.extend(copies.filter(|path| !path.starts_with("/etc")).chain(["/etc".to_owned()]));
    }
    host.hostname = HOSTNAME.to_owned();
    host.files = [
        ("/etc/passwd", format!("root:x:0:0:root:/:/usr/sbin/nologin\n{USER}:x:{id}:{id}:{USER}:/box:/bin/sh\n")),
        ("/etc/group", format!("root:x:0:\n{USER}:x:{id}:\n")),
        ("/etc/hosts", format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {HOSTNAME}\n")),
        ("/etc/hostname", format!("{HOSTNAME}\n")),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
    ]
    .map(|(path, content)| (path.to_owned(), content))
    .into();
    if host.allow_network && host.root == "/" {
        host.copies.push("/etc/resolv.conf".to_owned());
    }
    Ok(())
}

/// Toolchains of images are anywhere: below `/opt`, `/usr/local`, or a directory of their own.
fn directories_of_image(root: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().filter(|name| !NOT_OF_IMAGES.contains(name)) {
            names.push(format!("/{name}"));
        }
    }
    names.sort();
    Ok(names)
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
