//! The root directory of a worker's sandboxes: built once, read-only, holding system directories only.

use crate::failed::{At, Failed};
use crate::sys;
use gavel_agent::wire::Host;
use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, open, symlink};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
    mount_remount, open_tree, unmount,
};
use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The working directory of every command. Below it, hidden by the tmpfs that each command gets, the
/// shared files are mounted; see [`crate::jail`].
pub const WORK: &str = "/box";

/// Character devices that programs need and that cannot do harm: (name, major, minor).
const DEVICES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9)];

/// A file larger than this is not copied.
const MAX_COPY: u64 = 1 << 20;

/// Builds the root and makes it this process's own. Whoever is forked later inherits it. Returns its /dev, which
/// is read-only for everybody else.
pub fn build(host: &Host) -> Result<OwnedFd, Failed> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).at("make mounts private")?;
    // Everything of the host is opened before the new root hides any of it.
    let from = Path::new(&host.root);
    let binds = open_all(from, &host.binds)?;
    let shared = host.shared.as_deref().map(|dir| open_path(dir, dir)).transpose()?;
    let proc = if host.rootless { Some(open_path("/proc", "/proc")?) } else { None };
    let devices =
        DEVICES.iter().map(|(name, ..)| open_path(&format!("/dev/{name}"), name)).collect::<Result<Vec<_>, _>>()?;
    let copies: Vec<Copied> = host.copies.iter().filter_map(|path| Copied::read_in(from, path)).collect();

    let tmpfs = MountFlags::NOSUID | MountFlags::NODEV;
    mount("gavel", "/tmp", "tmpfs", tmpfs, Some(c"mode=755,size=16m")).at("mount the new root")?;
    std::env::set_current_dir("/tmp").at("enter the new root")?;
    for directory in ["box", "tmp", "dev", "proc", "etc", "var"] {
        make_dir(directory)?;
    }
    symlink("/tmp", "var/tmp").at("link /var/tmp")?;
    for (path, fd) in host.binds.iter().zip(&binds) {
        bind(fd, relative(path))?;
    }
    if let Some(fd) = &shared {
        bind(fd, relative(WORK))?;
    }
    if let Some(fd) = &proc {
        // A user namespace may mount a /proc of its own only where it already sees one. Each job's own
        // hides this one.
        mount_bind_recursive(magic(fd).as_c_str(), "proc").at("bind /proc")?;
    }
    for (name, target) in &host.links {
        symlink(target.as_str(), name.as_str()).at(format!("link /{name}"))?;
    }
    copies.iter().try_for_each(Copied::write)?;
    for (path, content) in &host.files {
        write_file(relative(path), content.as_bytes(), 0o644)?;
    }
    let dev = make_devices(host, &devices)?;
    enter_for_good()?;
    Ok(dev)
}

fn make_devices(host: &Host, devices: &[OwnedFd]) -> Result<OwnedFd, Failed> {
    mount("gavel", "dev", "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, Some(c"mode=755,size=64k"))
        .at("mount /dev")?;
    for ((name, major, minor), fd) in DEVICES.iter().zip(devices) {
        let path = format!("dev/{name}");
        if host.rootless {
            // Without privileges no device can be made, only borrowed.
            write_file(&path, b"", 0o666)?;
            mount_bind_recursive(magic(fd).as_c_str(), path.as_str()).at(format!("bind /dev/{name}"))?;
        } else {
            let mode = Mode::from_raw_mode(0o666);
            mknodat(CWD, path.as_str(), FileType::CharacterDevice, mode, sys::device_number(*major, *minor))
                .at(format!("make /dev/{name}"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).at(format!("open /dev/{name} to all"))?;
        }
    }
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        symlink(target, format!("dev/{name}")).at(format!("link /dev/{name}"))?;
    }
    make_dir("dev/shm")?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let writable = open_tree(CWD, "dev", flags).at("keep /dev")?;
    lock("dev", true, false)?;
    Ok(writable)
}

/// pivot_root(".", "."): the old root is stacked on the new one, then taken away.
fn enter_for_good() -> Result<(), Failed> {
    rustix::process::pivot_root(".", ".").at("pivot_root")?;
    unmount(".", UnmountFlags::DETACH).at("detach the host's root")?;
    std::env::set_current_dir("/").at("enter /")?;
    // Alone: what is mounted below has its own rules already, and /dev its devices.
    lock("/", false, false)
}

fn lock(path: &str, devices: bool, with_submounts: bool) -> Result<(), Failed> {
    let c_path = CString::new(path).map_err(|_| Errno::INVAL).at("lock a mount")?;
    match sys::lock_mount(&c_path, devices, with_submounts) {
        // Before Linux 5.12: this mount alone, which is all there is on a plain host.
        Err(Errno::NOSYS) => {
            let mut flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID;
            flags.set(MountFlags::NODEV, !devices);
            mount_remount(path, flags, c"").at(format!("make {path} read-only"))
        }
        other => other.at(format!("make {path} read-only")),
    }
}

fn bind(fd: &OwnedFd, target: &str) -> Result<(), Failed> {
    make_dirs(target)?;
    mount_bind_recursive(magic(fd).as_c_str(), target).at(format!("bind /{target}"))?;
    lock(target, false, true)
}

/// The path by which the kernel finds what a descriptor refers to, wherever mounts have moved.
fn magic(fd: &OwnedFd) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

fn open_all(from: &Path, paths: &[String]) -> Result<Vec<OwnedFd>, Failed> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open_one = |path: &String| open(from.join(relative(path)), flags, Mode::empty()).at(format!("open {path}"));
    paths.iter().map(open_one).collect()
}

fn open_path(path: &str, name: &str) -> Result<OwnedFd, Failed> {
    open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(format!("open {name}"))
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn make_dir(path: &str) -> Result<(), Failed> {
    match mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) | Ok(()) => Ok(()),
        Err(e) => Err(e).at(format!("make /{path}")),
    }
}

fn make_dirs(path: &str) -> Result<(), Failed> {
    fs::create_dir_all(path).at(format!("make /{path}"))
}

fn write_file(path: &str, content: &[u8], mode: u32) -> Result<(), Failed> {
    if let Some(parent) = Path::new(path).parent() {
        fs::create_dir_all(parent).at(format!("make the directory of /{path}"))?;
    }
    // A file that is ours takes the place of one that was copied, or of a link.
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).at(format!("replace /{path}")),
        _ => {}
    }
    fs::write(path, content).at(format!("write /{path}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at(format!("set the mode of /{path}"))
}

/// A small piece of the host, read before the host is out of sight.
enum Copied {
    File(String, Vec<u8>, u32),
    Link(String, String),
    Directory(String, Vec<Copied>),
}

impl Copied {
    /// From a root directory. Whoever made that has no say over the host: a path that leads out of it by a
    /// link is not there.
    fn read_in(root: &Path, path: &str) -> Option<Self> {
        let source = root.join(relative(path));
        let parent = fs::canonicalize(source.parent()?).ok()?;
        if !parent.starts_with(fs::canonicalize(root).ok()?) {
            return None;
        }
        Self::read(&source, path.to_owned())
    }

    /// `None` for what is absent, unreadable to everybody, or neither file, link nor directory: the
    /// list names what runtimes may need, not what must be there.
    fn read(path: &Path, name: String) -> Option<Self> {
        let meta = fs::symlink_metadata(path).ok()?;
        if meta.is_symlink() {
            return Some(Self::Link(name, fs::read_link(path).ok()?.to_str()?.to_owned()));
        }
        let mode = meta.permissions().mode();
        // What others may not read on the host is not for jobs either.
        if mode & 0o004 == 0 {
            return None;
        }
        if meta.is_dir() {
            let entries = fs::read_dir(path).ok()?.filter_map(|entry| {
                let entry = entry.ok()?;
                Self::read(&entry.path(), format!("{name}/{}", entry.file_name().to_str()?))
            });
            let entries: Vec<_> = entries.collect();
            return Some(Self::Directory(name, entries));
        }
        (meta.is_file() && meta.len() <= MAX_COPY).then_some(())?;
        Some(Self::File(name, fs::read(path).ok()?, mode & 0o755))
    }

    fn write(&self) -> Result<(), Failed> {
        match self {
            Self::File(path, content, mode) => write_file(relative(path), content, *mode),
            Self::Link(path, target) => {
                let path = relative(path);
                if let Some(parent) = Path::new(path).parent() {
                    fs::create_dir_all(parent).at(format!("make the directory of /{path}"))?;
                }
                symlink(target.as_str(), path).at(format!("link /{path}"))
            }
            Self::Directory(path, entries) => {
                make_dirs(relative(path))?;
                entries.iter().try_for_each(Self::write)
            }
        }
    }
}

/// Mount data of a job's tmpfs.
pub fn tmpfs_data(size: u64, inodes: u32, mode: &str, (uid, gid): (u32, u32)) -> CString {
    // No interior NUL is possible: numbers and a fixed mode.
    CString::new(format!("size={size},nr_inodes={inodes},mode={mode},uid={uid},gid={gid}")).unwrap_or_default()
}

/// Private processes only, and only their own: no kernel knobs, no other users' entries.
pub const PROC_DATA: &CStr = c"hidepid=invisible,subset=pid";
