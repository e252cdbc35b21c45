//! Compiled programs, kept on disk under a hash of everything that went into them.
//!
//! Bounded: the least recently used go first. Checked: a file that is not what was stored is dropped
//! and compiled again; every file is hashed when this process first uses it, and nobody else may write
//! below the directory. Single flight: of several jobs that need the same program, one compiles.
//!
//! An entry is a directory `<first two digits>/<hash>.<unique>` with files `0`, `1`, … and a `manifest`.
//! It appears by renaming a finished directory, so it is whole or absent; its name never comes again,
//! so that removing an old entry cannot hit a new one.

use gavel_core::{CollectedFile, Language};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

const MANIFEST: &str = "manifest";

/// More are not kept, so that taking stock at start stays quick.
const MAX_ENTRIES: usize = 8192;

/// Changes when the meaning of what is stored changes: old entries are then never found.
const FORMAT: &[u8] = b"gavel compile cache 1";

/// Collects what an entry depends on. Lengths go in, too, so that no two inputs run together.
pub struct Key(blake3::Hasher);

impl Key {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let mut key = Self(blake3::Hasher::new());
        key.add(FORMAT);
        key
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub fn add_list<'a>(&mut self, list: impl Iterator<Item = &'a [u8]>) {
        let before = self.0.count();
        list.for_each(|item| self.add(item));
        let length = self.0.count() - before;
        self.0.update(&length.to_le_bytes());
    }

    fn name(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    pub path: String,
    pub executable: bool,
    pub size: u64,
    /// BLAKE3 of its content, in hexadecimal digits.
    pub hash: String,
    /// Its name in the entry's directory.
    number: usize,
}

/// One compiled program. Its files stay on disk for as long as anybody holds it.
#[derive(Debug)]
pub struct Entry {
    /// Relative to the cache's directory.
    directory: String,
    root: PathBuf,
    pub files: Vec<StoredFile>,
    /// What the compiler printed.
    pub output: Vec<u8>,
    size: u64,
    used: AtomicU64,
    verified: AtomicBool,
    evicted: AtomicBool,
}

impl Entry {
    /// Where a file lies, relative to the cache's directory.
    pub fn shared_path(&self, file: &StoredFile) -> String {
        format!("{}/{}", self.directory, file.number)
    }

    /// Where a file lies.
    pub fn path(&self, file: &StoredFile) -> PathBuf {
        self.root.join(self.shared_path(file))
    }

    /// Path, content and executability of every file.
    #[cfg(test)]
    pub fn read_all(&self) -> io::Result<Vec<(String, Vec<u8>, bool)>> {
        let read = |file: &StoredFile| {
            let content = fs::read(self.path(file))?;
            Ok((file.path.clone(), content, file.executable))
        };
        self.files.iter().map(read).collect()
    }

    /// Compares every file with its hash, once.
    fn verify(&self) -> io::Result<()> {
        if self.verified.load(Ordering::Acquire) {
            return Ok(());
        }
        for file in &self.files {
            let content = fs::read(self.path(file))?;
            if content.len() as u64 != file.size || blake3::hash(&content).to_hex().as_str() != file.hash {
                return Err(damaged(format!("file {} of {}", file.number, self.directory)));
            }
        }
        self.verified.store(true, Ordering::Release);
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Evicted while in use: the last user cleans up.
        if *self.evicted.get_mut() {
            remove(&self.root.join(&self.directory));
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<String, Arc<Entry>>,
    total: u64,
    /// Names of the programs that somebody compiles right now.
    under_way: HashMap<String, Arc<Flight>>,
    toolchains: HashMap<String, [u8; 32]>,
}

#[derive(Debug, Default)]
struct Flight {
    over: Mutex<bool>,
    bell: Condvar,
}

impl Flight {
    fn wait(&self) {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*over {
            over = self.bell.wait(over).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
    }
}

#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    max_size: u64,
    inner: Mutex<Inner>,
    clock: AtomicU64,
    /// Tells apart processes that had the same id.
    started: u128,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What [`Cache::look_up`] says.
pub enum Found<'a> {
    Entry(Arc<Entry>),
    /// The caller compiles; whoever else needs the program waits until the lookup is dropped.
    Missing(Lookup<'a>),
}

/// The right and duty to compile one program.
pub struct Lookup<'a> {
    cache: &'a Cache,
    name: String,
    flight: Arc<Flight>,
}

impl Cache {
    /// Opens the directory, forgets what is unfinished in it, and takes stock of the rest.
    pub fn open(directory: impl Into<PathBuf>, max_size: u64) -> io::Result<Self> {
        let directory = directory.into();
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        let cache = Self {
            directory: directory.canonicalize()?,
            max_size,
            inner: Mutex::default(),
            clock: AtomicU64::new(1),
            started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        };
        cache.take_stock()?;
        Ok(cache)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// (hits, misses) since the start.
    pub fn counts(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// Finds a program, waiting for it if somebody else is compiling it.
    pub fn look_up(&self, key: &Key) -> Found<'_> {
        let name = key.name();
        loop {
            match self.look_once(&name) {
                Ok(Some(entry)) => match entry.verify() {
                    Ok(()) => {
                        self.hits.fetch_add(1, Ordering::Relaxed);
                        return Found::Entry(entry);
                    }
                    Err(e) => {
                        tracing::warn!(entry = %entry.directory, error = %e, "dropping a damaged entry of the compile cache");
                        self.forget(&entry);
                    }
                },
                Ok(None) => {
                    self.misses.fetch_add(1, Ordering::Relaxed);
                    let flight = Arc::clone(self.lock().under_way.entry(name.clone()).or_default());
                    return Found::Missing(Lookup { cache: self, name, flight });
                }
                // If the one who compiles fails, the next of those that wait takes over.
                Err(flight) => flight.wait(),
            }
        }
    }

    /// The entry, or the right to make it, or whom to wait for.
    fn look_once(&self, name: &str) -> Result<Option<Arc<Entry>>, Arc<Flight>> {
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.get(name) {
            entry.used.store(self.tick(), Ordering::Relaxed);
            return Ok(Some(Arc::clone(entry)));
        }
        match inner.under_way.get(name) {
            Some(flight) => Err(Arc::clone(flight)),
            None => {
                inner.under_way.insert(name.to_owned(), Arc::default());
                Ok(None)
            }
        }
    }

    /// Drops a program that could not be used, so that the next job compiles it again.
    pub fn forget(&self, entry: &Entry) {
        let mut inner = self.lock();
        let same = |known: &Arc<Entry>| known.directory == entry.directory;
        let name = inner.entries.iter().find(|(_, known)| same(known)).map(|(name, _)| name.clone());
        let evicted = name.and_then(|name| inner.entries.remove(&name));
        if let Some(entry) = &evicted {
            inner.total -= entry.size;
            entry.evicted.store(true, Ordering::SeqCst);
        }
        // Its files may go now, and that takes time.
        drop(inner);
    }

    /// A hash of what a language's toolchain consists of, its image or files of the host: a new compiler
    /// compiles anew.
    pub fn toolchain(&self, language: &Language) -> [u8; 32] {
        if let Some(image) = &language.image {
            return *blake3::hash(image.as_bytes()).as_bytes();
        }
        // The directory has the name of its image's digest, and never changes.
        if let Some(root) = &language.rootfs {
            return *blake3::hash(root.as_os_str().as_encoded_bytes()).as_bytes();
        }
        if let Some(known) = self.lock().toolchains.get(&language.id) {
            return *known;
        }
        let mut hasher = blake3::Hasher::new();
        for path in &language.requires {
            let real = fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
            hasher.update(real.as_os_str().as_encoded_bytes());
            if let Ok(meta) = fs::metadata(&real) {
                for number in [meta.size() as i64, meta.mtime(), meta.mtime_nsec()] {
                    hasher.update(&number.to_le_bytes());
                }
            }
        }
        let hash = *hasher.finalize().as_bytes();
        self.lock().toolchains.insert(language.id.clone(), hash);
        hash
    }

    fn insert(&self, name: &str, entry: Entry) -> Arc<Entry> {
        entry.used.store(self.tick(), Ordering::Relaxed);
        let entry = Arc::new(entry);
        let mut inner = self.lock();
        inner.total += entry.size;
        let old = inner.entries.insert(name.to_owned(), Arc::clone(&entry));
        if let Some(old) = &old {
            inner.total -= old.size;
            old.evicted.store(true, Ordering::SeqCst);
        }
        let victims = self.choose_victims(&mut inner, name);
        drop(inner);
        // Their files go when the last of their users does; that may be now.
        drop((old, victims));
        entry
    }

    /// Takes the least recently used out until the rest fits; never the newest, however large.
    fn choose_victims(&self, inner: &mut Inner, newest: &str) -> Vec<Arc<Entry>> {
        let mut victims = Vec::new();
        while inner.total > self.max_size || inner.entries.len() > MAX_ENTRIES {
            let oldest = inner
                .entries
                .iter()
                .filter(|(name, _)| *name != newest)
                .min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed))
                .map(|(name, _)| name.clone());
            let Some(entry) = oldest.and_then(|name| inner.entries.remove(&name)) else { break };
            inner.total -= entry.size;
            entry.evicted.store(true, Ordering::SeqCst);
            victims.push(entry);
        }
        victims
    }

    /// Reads the manifests that are there, the oldest first, and removes what does not fit.
    fn take_stock(&self) -> io::Result<()> {
        let mut found = Vec::new();
        for shard in fs::read_dir(&self.directory)? {
            let shard = shard?;
            if shard.file_name().len() != 2 {
                // Unfinished, by a process that was killed.
                remove(&shard.path());
                continue;
            }
            for entry in fs::read_dir(shard.path())? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let modified = entry.metadata()?.mtime();
                found.push((modified, name));
            }
        }
        found.sort();
        for (_, file_name) in found {
            let name = file_name.split('.').next().unwrap_or_default();
            let directory = format!("{}/{file_name}", shard(name));
            match self.load(&directory) {
                Ok(entry) => drop(self.insert(name, entry)),
                Err(_) => remove(&self.directory.join(&directory)),
            }
        }
        Ok(())
    }

    fn load(&self, directory: &str) -> io::Result<Entry> {
        let text = fs::read(self.directory.join(directory).join(MANIFEST))?;
        let (files, output) = parse_manifest(&text).ok_or_else(|| damaged(format!("the manifest of {directory}")))?;
        Ok(self.entry(directory.to_owned(), files, output))
    }

    fn entry(&self, directory: String, files: Vec<StoredFile>, output: Vec<u8>) -> Entry {
        let size = files.iter().map(|file| file.size).sum::<u64>() + output.len() as u64;
        Entry {
            directory,
            root: self.directory.clone(),
            files,
            output,
            size,
            used: AtomicU64::new(0),
            verified: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change under the lock leaves the maps consistent, so a panic elsewhere does no harm.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lookup<'_> {
    /// Stores what the compiler made, for this job and for those that wait.
    pub fn store(self, output: Vec<u8>, files: Vec<CollectedFile>) -> io::Result<Arc<Entry>> {
        let cache = self.cache;
        let unique = format!("{}-{}-{}", std::process::id(), cache.started, cache.tick());
        let temporary = cache.directory.join(format!("new-{unique}"));
        let directory = format!("{}/{}.{unique}", shard(&self.name), self.name);
        let target = cache.directory.join(&directory);
        let written = write_entry(&temporary, &output, &files).and_then(|stored| {
            fs::create_dir_all(target.parent().unwrap_or(&target))?;
            fs::rename(&temporary, &target).map(|()| stored)
        });
        if written.is_err() {
            remove(&temporary);
        }
        let entry = cache.entry(directory, written?, output);
        // We have just written it.
        entry.verified.store(true, Ordering::Release);
        Ok(cache.insert(&self.name, entry))
    }
}

impl Drop for Lookup<'_> {
    fn drop(&mut self) {
        self.cache.lock().under_way.remove(&self.name);
        self.flight.end();
    }
}

/// Entries are spread over 256 directories.
fn shard(name: &str) -> &str {
    name.get(..2).unwrap_or("--")
}

fn damaged(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} is damaged"))
}

/// Removes an entry; one that cannot be removed only takes up room.
fn remove(path: &Path) {
    if let Err(e) = fs::remove_dir_all(path)
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), error = %e, "cannot remove an entry of the compile cache");
    }
}

fn write_entry(directory: &Path, output: &[u8], files: &[CollectedFile]) -> io::Result<Vec<StoredFile>> {
    fs::create_dir(directory)?;
    let mut stored = Vec::with_capacity(files.len());
    for (number, file) in files.iter().enumerate() {
        let mode = if file.executable { 0o555 } else { 0o444 };
        let path = directory.join(number.to_string());
        let mut target = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        io::Write::write_all(&mut target, &file.content)?;
        stored.push(StoredFile {
            path: file.path.clone(),
            executable: file.executable,
            size: file.content.len() as u64,
            hash: blake3::hash(&file.content).to_hex().to_string(),
            number,
        });
    }
    fs::write(directory.join(MANIFEST), manifest(&stored, output))?;
    Ok(stored)
}

/// Lines `x|- size hash path`, an empty line, the compiler's output. The last line is its hash, so
/// that a cut file is noticed.
fn manifest(files: &[StoredFile], output: &[u8]) -> Vec<u8> {
    let mut text = String::new();
    for file in files {
        let kind = if file.executable { 'x' } else { '-' };
        // Paths come from a compiler that a client may steer: a line break must not make a line.
        text.push_str(&format!("{kind} {} {} {}\n", file.size, file.hash, file.path.escape_default()));
    }
    let mut bytes = text.into_bytes();
    bytes.push(b'\n');
    bytes.extend_from_slice(output);
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

fn parse_manifest(bytes: &[u8]) -> Option<(Vec<StoredFile>, Vec<u8>)> {
    let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if blake3::hash(content).as_bytes() != hash {
        return None;
    }
    let mut files = Vec::new();
    let mut rest = content;
    loop {
        let end = rest.iter().position(|b| *b == b'\n')?;
        let (line, tail) = (std::str::from_utf8(&rest[..end]).ok()?, &rest[end + 1..]);
        if line.is_empty() {
            return Some((files, tail.to_vec()));
        }
        let mut words = line.splitn(4, ' ');
        let (kind, size, hash, path) = (words.next()?, words.next()?, words.next()?, words.next()?);
        files.push(StoredFile {
            path: unescape(path)?,
            executable: kind == "x",
            size: size.parse().ok()?,
            hash: hash.to_owned(),
            number: files.len(),
        });
        rest = tail;
    }
}

/// The inverse of `escape_default`.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next()? {
            't' => '\t',
            'r' => '\r',
            'n' => '\n',
            'u' => {
                let digits: String = chars.by_ref().skip(1).take_while(|c| *c != '}').collect();
                char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
            }
            other => other,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn key(text: &str) -> Key {
        let mut key = Key::new();
        key.add(text.as_bytes());
        key
    }

    fn file(path: &str, content: &[u8]) -> CollectedFile {
        CollectedFile { path: path.to_owned(), executable: true, content: content.to_vec() }
    }

    fn put(cache: &Cache, name: &str, content: &[u8]) -> Arc<Entry> {
        match cache.look_up(&key(name)) {
            Found::Missing(lookup) => lookup.store(b"warning: x\n".to_vec(), vec![file("main", content)]).unwrap(),
            Found::Entry(_) => panic!("{name} is there already"),
        }
    }

    fn get(cache: &Cache, name: &str) -> Option<Vec<u8>> {
        match cache.look_up(&key(name)) {
            Found::Entry(entry) => Some(entry.read_all().unwrap().remove(0).1),
            Found::Missing(_) => None,
        }
    }

    fn directories(cache: &Cache) -> usize {
        let shards = fs::read_dir(cache.directory()).unwrap();
        shards.map(|shard| fs::read_dir(shard.unwrap().path()).unwrap().count()).sum()
    }

    #[test]
    fn what_is_stored_is_found_again_even_by_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 1 << 20).unwrap();
        put(&cache, "a", b"program");
        assert_eq!(get(&cache, "a").unwrap(), b"program");
        drop(cache);
        let cache = Cache::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(get(&cache, "a").unwrap(), b"program");
        assert_eq!(get(&cache, "b"), None);
        assert_eq!(cache.counts(), (1, 1));
    }

    #[test]
    fn inputs_do_not_run_together() {
        let mut left = Key::new();
        left.add_list([b"ab".as_slice(), b"c"].into_iter());
        let mut right = Key::new();
        right.add_list([b"a".as_slice(), b"bc"].into_iter());
        assert_ne!(left.name(), right.name());
    }

    #[test]
    fn a_damaged_file_is_compiled_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 1 << 20).unwrap();
        let entry = put(&cache, "a", b"program");
        let path = cache.directory().join(entry.shared_path(&entry.files[0]));
        drop((entry, cache));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, b"progrbm").unwrap();
        let cache = Cache::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(get(&cache, "a"), None);
        put(&cache, "a", b"program");
        assert_eq!(get(&cache, "a").unwrap(), b"program");
        assert_eq!(directories(&cache), 1);
    }

    #[test]
    fn a_cut_manifest_and_unfinished_entries_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 1 << 20).unwrap();
        let entry = put(&cache, "a", b"program");
        let manifest = cache.directory().join(&entry.directory).join(MANIFEST);
        let whole = fs::read(&manifest).unwrap();
        fs::write(&manifest, &whole[..whole.len() - 1]).unwrap();
        fs::create_dir(dir.path().join("new-1-2-3")).unwrap();
        drop((entry, cache));
        let cache = Cache::open(dir.path(), 1 << 20).unwrap();
        assert_eq!((get(&cache, "a"), directories(&cache)), (None, 0));
        assert!(!dir.path().join("new-1-2-3").exists());
    }

    #[test]
    fn the_least_recently_used_go_first_and_stay_while_they_are_held() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 3000).unwrap();
        let held = put(&cache, "a", &[b'a'; 1000]);
        put(&cache, "b", &[b'b'; 1000]);
        assert!(get(&cache, "b").is_some());
        put(&cache, "c", &[b'c'; 1000]);
        assert_eq!(get(&cache, "a"), None, "a is the oldest");
        assert!(get(&cache, "b").is_some() && get(&cache, "c").is_some());
        assert_eq!(held.read_all().unwrap()[0].1, [b'a'; 1000]);
        drop(held);
        assert_eq!(directories(&cache), 2);
    }

    #[test]
    fn of_many_who_need_a_program_one_compiles() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 1 << 20).unwrap();
        let compiled = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| match cache.look_up(&key("a")) {
                    Found::Entry(entry) => assert_eq!(entry.output, b"warning: x\n"),
                    Found::Missing(lookup) => {
                        compiled.fetch_add(1, Ordering::SeqCst);
                        lookup.store(b"warning: x\n".to_vec(), vec![file("main", b"p")]).unwrap();
                    }
                });
            }
        });
        assert_eq!(compiled.into_inner(), 1);
    }

    #[test]
    fn when_the_one_who_compiles_fails_another_takes_over() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 1 << 20).unwrap();
        let Found::Missing(first) = cache.look_up(&key("a")) else { panic!() };
        std::thread::scope(|scope| {
            let second = scope.spawn(|| matches!(cache.look_up(&key("a")), Found::Missing(_)));
            drop(first);
            assert!(second.join().unwrap());
        });
    }

    #[test]
    fn odd_paths_survive_the_manifest() {
        for path in ["a b", "a\nb", "ü\\x", "'\"\t"] {
            let stored = StoredFile { path: path.into(), executable: false, size: 1, hash: "h".into(), number: 0 };
            let (files, output) = parse_manifest(&manifest(std::slice::from_ref(&stored), b"out\n\nput")).unwrap();
            assert_eq!((files, output), (vec![stored], b"out\n\nput".to_vec()));
        }
    }
}
