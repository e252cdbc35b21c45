//! Unpacked images in the data directory, and which language runs on which of them.
//!
//! `rootfs/<image id>/` is the root file system of one image: complete, or not there. A link
//! `rootfs/languages/<language id>` leads to the one that a language runs on. An image id names a
//! content, so a directory never changes, and an upgrade is a new directory and a new link.

use anyhow::{Context, Result, bail};
use gavel_core::Language;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, ResolveFlags, flock, openat2};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const LANGUAGES: &str = "languages";

/// A directory that is not complete yet; an export that was killed leaves one.
const UNFINISHED: &str = "unfinished-";

#[derive(Debug, Clone)]
pub struct Roots {
    dir: PathBuf,
}

impl Roots {
    pub fn of(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("rootfs") }
    }

    /// The root that a language runs on, if its image was unpacked.
    pub fn of_language(&self, id: &str) -> Option<PathBuf> {
        let target = fs::read_link(self.dir.join(LANGUAGES).join(id)).ok()?;
        let root = self.dir.join(target.file_name()?);
        // Absolute, because an agent has another working directory.
        root.is_dir().then(|| std::path::absolute(&root).ok()).flatten()
    }

    /// Where the image is, if it was unpacked.
    pub fn of_image(&self, image: &ImageId) -> Option<PathBuf> {
        let root = self.dir.join(&image.0);
        root.is_dir().then_some(root)
    }

    /// Keeps other exports out until the lock is dropped.
    pub fn lock(&self) -> Result<File> {
        fs::create_dir_all(self.dir.join(LANGUAGES)).with_context(|| format!("cannot make {}", self.dir.display()))?;
        let path = self.dir.join("lock");
        let lock = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(lock),
            Err(_) => bail!("another export into {} is under way: wait for its end", self.dir.display()),
        }
    }

    /// Makes the root of an image: `fill` puts the files into an empty directory, which gets its name only
    /// when it is complete and on the disk.
    pub fn add<T>(&self, image: &ImageId, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let unfinished = self.dir.join(format!("{UNFINISHED}{}", image.0));
        remove(&unfinished)?;
        fs::create_dir(&unfinished).with_context(|| format!("cannot make {}", unfinished.display()))?;
        let filled = fill(&unfinished).and_then(|filled| {
            // All of it is on the disk before the name says that it is complete.
            rustix::fs::syncfs(File::open(&unfinished)?)?;
            fs::rename(&unfinished, self.dir.join(&image.0))?;
            File::open(&self.dir)?.sync_all()?;
            Ok(filled)
        });
        if filled.is_err() {
            // What failed matters more than what stays behind; the next export removes it.
            _ = remove(&unfinished);
        }
        filled
    }

    /// From now on the language runs on this image.
    pub fn assign(&self, language: &str, image: &ImageId) -> Result<()> {
        let link = self.dir.join(LANGUAGES).join(language);
        let fresh = self.dir.join(LANGUAGES).join(format!(".{language}"));
        remove(&fresh)?;
        std::os::unix::fs::symlink(Path::new("..").join(&image.0), &fresh)?;
        // In one step: whoever looks finds the old one or the new one.
        fs::rename(&fresh, &link).with_context(|| format!("cannot make {}", link.display()))
    }

    /// Removes roots that no language runs on any more. Not while a server may have mounted them.
    pub fn sweep(&self) -> Result<usize> {
        let mut used = BTreeSet::new();
        for entry in fs::read_dir(self.dir.join(LANGUAGES))? {
            used.extend(fs::read_link(entry?.path()).ok().and_then(|to| Some(to.file_name()?.to_owned())));
        }
        let mut removed = 0;
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            let ours =
                ImageId::parse(&name.to_string_lossy()).is_some() || name.to_string_lossy().starts_with(UNFINISHED);
            if ours && !used.contains(name) {
                remove(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Whatever has this name, and nothing that it leads to.
fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context(format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The digest by which a daemon knows an image, as a file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageId(String);

impl ImageId {
    /// From `sha256:…`, or the digits alone. Anything else could be a path.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim().strip_prefix("sha256:").unwrap_or(text.trim());
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (digits.len() == 64 && digits.bytes().all(hex)).then(|| Self(digits.to_owned()))
    }

    /// As the daemon writes it.
    pub fn digest(&self) -> String {
        format!("sha256:{}", self.0)
    }

    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

/// Is there such a file, seen from inside the root? Its links lead to places inside as well.
pub fn has(root: &Path, path: &str) -> bool {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = openat2(CWD, root, directory, Mode::empty(), ResolveFlags::empty()) else { return false };
    openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT).is_ok()
}

/// The first file that a language requires and its root does not have.
pub fn missing<'a>(language: &'a Language, root: &Path) -> Option<&'a String> {
    language.requires.iter().find(|path| !has(root, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: &str) -> ImageId {
        ImageId::parse(&format!("sha256:{}", digit.repeat(64))).unwrap()
    }

    fn fill(dir: &Path) -> Result<()> {
        Ok(fs::write(dir.join("file"), "x")?)
    }

    #[test]
    fn a_language_runs_on_the_image_it_was_given_last() {
        let data = tempfile::tempdir().unwrap();
        let roots = Roots::of(data.path());
        assert_eq!(roots.of_language("c"), None);
        let _lock = roots.lock().unwrap();
        for digit in ["a", "b"] {
            roots.add(&id(digit), fill).unwrap();
            roots.assign("c", &id(digit)).unwrap();
            assert_eq!(roots.of_language("c"), roots.of_image(&id(digit)));
        }
        assert_eq!(roots.sweep().unwrap(), 1);
        assert_eq!(roots.of_image(&id("a")), None);
        assert!(roots.of_language("c").unwrap().join("file").is_file());
    }

    #[test]
    fn what_could_not_be_filled_does_not_exist() {
        let data = tempfile::tempdir().unwrap();
        let roots = Roots::of(data.path());
        let _lock = roots.lock().unwrap();
        let failed = roots.add(&id("a"), |dir| {
            fill(dir)?;
            bail!("cut") as Result<()>
        });
        assert_eq!(failed.unwrap_err().to_string(), "cut");
        assert_eq!(roots.of_image(&id("a")), None);
        assert_eq!(roots.sweep().unwrap(), 0, "something was left behind");
    }

    #[test]
    fn two_exports_do_not_meet() {
        let data = tempfile::tempdir().unwrap();
        let roots = Roots::of(data.path());
        let first = roots.lock().unwrap();
        assert!(roots.lock().unwrap_err().to_string().contains("another export"));
        drop(first);
        roots.lock().unwrap();
    }

    #[test]
    fn ids_that_are_no_digest_are_no_directory() {
        for text in ["", "sha256:", "../../etc", "sha256:../etc", &"g".repeat(64), &"A".repeat(64)] {
            assert_eq!(ImageId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn links_of_a_root_lead_to_places_inside_it() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/alternatives")).unwrap();
        fs::write(root.path().join("etc/alternatives/tool"), "").unwrap();
        std::os::unix::fs::symlink("/etc/alternatives/tool", root.path().join("tool")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("outside")).unwrap();
        assert!(has(root.path(), "/tool"));
        assert!(!has(root.path(), "/outside"));
    }
}
