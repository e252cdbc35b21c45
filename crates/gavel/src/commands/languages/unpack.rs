//! A root file system out of a tar archive that nobody has to trust: everything stays below one
//! directory, no path is followed through a link, and nothing comes out that could act by itself.

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RawMode, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, linkat, mkdirat, openat2,
    symlinkat, utimensat,
};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, copy};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use tar::{Archive, Entry, EntryType};

/// An image larger than this is a mistake, or an attack on the disk.
const MAX_BYTES: u64 = 64 << 30;
const MAX_ENTRIES: u64 = 4_000_000;

/// What came out, and what did not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    pub files: u64,
    pub bytes: u64,
    /// Devices, pipes and sockets.
    pub left_out: u64,
}

/// Unpacks into an empty directory. Files belong to whoever calls; the set-user-id and set-group-id bits
/// and what belongs to a file besides (capabilities, access lists) are dropped.
pub fn unpack(from: &mut dyn Read, into: &Path) -> Result<Unpacked> {
    let root =
        openat2(CWD, into, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty())
            .with_context(|| format!("cannot open {}", into.display()))?;
    let mut tree = Tree { root, done: Unpacked::default(), directories: Vec::new() };
    let mut archive = Archive::new(from);
    let mut count = 0;
    for entry in archive.entries().context("cannot read the archive")? {
        let mut entry = entry.context("cannot read the archive")?;
        count += 1;
        ensure!(count <= MAX_ENTRIES, "the archive has more than {MAX_ENTRIES} entries");
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        tree.add(&mut entry).with_context(|| format!("the archive's entry {name:?}"))?;
    }
    tree.finish()
}

struct Tree {
    root: OwnedFd,
    done: Unpacked,
    /// With the times that they get when nothing more is put into them.
    directories: Vec<(PathBuf, Mode, Timestamps)>,
}

impl Tree {
    fn add(&mut self, entry: &mut Entry<impl Read>) -> Result<()> {
        let path = inside(&entry.path()?)?;
        let Some(name) = path.file_name() else { return Ok(()) };
        let header = entry.header();
        let mode = Mode::from_raw_mode((header.mode()? & 0o777) as RawMode);
        let times = times(header.mtime()?);
        let kind = header.entry_type();
        if !matches!(kind, EntryType::Directory) {
            self.done.files += 1;
        }
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        match kind {
            EntryType::Directory => {
                match mkdirat(&parent, name, Mode::RWXU) {
                    Ok(()) => {}
                    // Something in it came first. That it is a directory shows when it is opened.
                    Err(Errno::EXIST) => _ = self.directory(&path)?,
                    Err(error) => return Err(error.into()),
                }
                self.directories.push((path, mode, times));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.done.bytes = self.done.bytes.saturating_add(entry.size());
                ensure!(self.done.bytes <= MAX_BYTES, "more than {MAX_BYTES} bytes");
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?);
                copy(entry, &mut file)?;
                // After the content, which would change the time, and past the umask.
                rustix::fs::fchmod(&file, mode)?;
                rustix::fs::futimens(&file, &times)?;
            }
            EntryType::Symlink => {
                // Where it leads is for those who are locked in below this root; nobody outside follows it.
                let target = entry.link_name()?.context("a link to nothing")?;
                symlinkat(&*target, &parent, name)?;
                utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            EntryType::Link => {
                let target = inside(&entry.link_name()?.context("a link to nothing")?)?;
                let target_name = target.file_name().context("a link to the root")?;
                let from = self.directory(target.parent().unwrap_or(Path::new("")))?;
                linkat(&from, target_name, &parent, name, AtFlags::empty())?;
            }
            _ => {
                self.done.files -= 1;
                self.done.left_out += 1;
            }
        }
        Ok(())
    }

    /// A directory below the root, made if it is missing. No link on the way is followed.
    fn directory(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &Path| {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
        };
        match open(path) {
            Ok(found) => return Ok(found),
            Err(Errno::NOENT) => {}
            Err(Errno::LOOP) => bail!("{} leads through a link", path.display()),
            Err(error) => return Err(error.into()),
        }
        // Archives name directories before what is in them, as a rule.
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        let name = path.file_name().context("a directory without a name")?;
        mkdirat(&parent, name, Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH)?;
        Ok(open(path)?)
    }

    /// Modes and times of directories come last: a read-only one could not be filled, and filling one
    /// changes its time. The inner ones first, for the same reason.
    fn finish(self) -> Result<Unpacked> {
        for (path, mode, times) in self.directories.iter().rev() {
            let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
            let name = path.file_name().context("a directory without a name")?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
            rustix::fs::fchmod(&directory, *mode)?;
            rustix::fs::futimens(&directory, times)?;
        }
        Ok(self.done)
    }
}

/// The path as one below the root: relative, and never upwards.
fn inside(path: &Path) -> Result<PathBuf> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                bail!("{} leads outside", path.display())
            }
        }
    }
    Ok(inside)
}

/// Python and others compare the times of files with those they have noted.
fn times(modified: u64) -> Timestamps {
    let seconds = i64::try_from(modified).unwrap_or(i64::MAX);
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use tar::{Builder, Header};

    /// An archive written by hand: well-behaved writers refuse what is tested here.
    #[derive(Default)]
    struct Written(Vec<u8>);

    impl Written {
        fn entry(mut self, kind: EntryType, name: &str, mode: u32, content: &str) -> Self {
            let mut header = Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_mtime(1_000_000);
            header.set_uid(1234);
            let links = matches!(kind, EntryType::Link | EntryType::Symlink);
            let data = if links { "" } else { content };
            if links {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_size(data.len() as u64);
            header.set_cksum();
            self.0.extend_from_slice(header.as_bytes());
            self.0.extend_from_slice(data.as_bytes());
            self.0.resize(self.0.len().next_multiple_of(512), 0);
            self
        }

        fn file(self, name: &str, mode: u32, content: &str) -> Self {
            self.entry(EntryType::Regular, name, mode, content)
        }

        fn unpacked(self) -> (tempfile::TempDir, Result<Unpacked>) {
            let outer = tempfile::tempdir().unwrap();
            let root = outer.path().join("root");
            std::fs::create_dir(&root).unwrap();
            let result = unpack(&mut self.0.as_slice(), &root);
            (outer, result)
        }

        fn refused_because(self, expected: &str) {
            let (outer, result) = self.unpacked();
            let error = format!("{:#}", result.unwrap_err());
            assert!(error.contains(expected), "{error}");
            let names: Vec<_> = std::fs::read_dir(outer.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(names, ["root"], "something came out beside the root");
        }
    }

    #[test]
    fn files_links_and_directories_come_out_with_modes_and_times_but_without_power() {
        let (outer, result) = Written::default()
            .entry(EntryType::Directory, "./", 0o755, "")
            .entry(EntryType::Directory, "locked/", 0o2555, "")
            .file("locked/tool", 0o4755, "tool")
            .file("deep/er/secret", 0o600, "secret")
            .entry(EntryType::Symlink, "bin", 0o777, "/etc")
            .entry(EntryType::Link, "same", 0o755, "locked/tool")
            .entry(EntryType::Char, "null", 0o666, "")
            .entry(EntryType::Fifo, "pipe", 0o666, "")
            .unpacked();
        assert_eq!(result.unwrap(), Unpacked { files: 4, bytes: 10, left_out: 2 });
        let root = outer.path().join("root");
        let meta = |name: &str| std::fs::symlink_metadata(root.join(name)).unwrap();
        assert_eq!(meta("locked").mode() & 0o7777, 0o555);
        assert_eq!(meta("locked/tool").mode() & 0o7777, 0o755);
        assert_eq!(meta("deep/er/secret").mode() & 0o7777, 0o600);
        assert_ne!(meta("locked/tool").uid(), 1234);
        for name in ["locked", "locked/tool", "bin"] {
            assert_eq!(meta(name).mtime(), 1_000_000, "{name}");
        }
        assert_eq!(meta("same").ino(), meta("locked/tool").ino());
        assert_eq!(std::fs::read_link(root.join("bin")).unwrap(), Path::new("/etc"));
        for name in ["null", "pipe"] {
            assert!(!root.join(name).exists());
        }
        // So that the directory can be removed by whoever is not root.
        std::fs::set_permissions(root.join("locked"), PermissionsExt::from_mode(0o755)).unwrap();
    }

    #[test]
    fn paths_that_lead_outside_are_refused() {
        Written::default().file("/tmp/escaped", 0o644, "x").refused_because("leads outside");
        Written::default().file("../escaped", 0o644, "x").refused_because("leads outside");
        Written::default().file("a/../../escaped", 0o644, "x").refused_because("leads outside");
        Written::default().entry(EntryType::Directory, "../escaped", 0o755, "").refused_because("leads outside");
        Written::default().entry(EntryType::Link, "a", 0o644, "../../etc/passwd").refused_because("leads outside");
        Written::default().entry(EntryType::Link, "a", 0o644, "/etc/passwd").refused_because("leads outside");
    }

    #[test]
    fn no_link_is_followed_while_unpacking() {
        let link = |target: &str| Written::default().entry(EntryType::Symlink, "way", 0o777, target);
        link("..").file("way/escaped", 0o644, "x").refused_because("leads through a link");
        link("../escaped").file("way", 0o644, "x").refused_because("File exists");
        link("..").entry(EntryType::Directory, "way/escaped", 0o755, "").refused_because("leads through a link");
        link("..").entry(EntryType::Directory, "way", 0o755, "").refused_because("leads through a link");
        link("/etc").entry(EntryType::Link, "a", 0o644, "way/passwd").refused_because("leads through a link");
    }

    #[test]
    fn a_hard_link_to_a_link_is_the_link_itself() {
        let (outer, result) = Written::default()
            .entry(EntryType::Symlink, "way", 0o777, "/etc/passwd")
            .entry(EntryType::Link, "same", 0o777, "way")
            .unpacked();
        result.unwrap();
        assert!(std::fs::symlink_metadata(outer.path().join("root/same")).unwrap().is_symlink());
    }

    #[test]
    fn an_archive_that_is_cut_is_an_error() {
        let mut written = Written::default().file("a", 0o644, &"x".repeat(5000));
        written.0.truncate(2000);
        assert!(written.unpacked().1.is_err());
    }

    #[test]
    fn what_tar_writes_for_long_names_is_understood() {
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        builder.append_data(&mut header, &long, b"x".as_slice()).unwrap();
        let (outer, result) = Written(builder.into_inner().unwrap()).unpacked();
        result.unwrap();
        assert!(outer.path().join("root").join(long).is_file());
    }
}
