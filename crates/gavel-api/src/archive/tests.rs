//! Archives as tools make them, and as nobody but an attacker does, byte by byte.

use super::*;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;
use std::process::Command;
use std::time::{Duration, Instant};

/// Made by Info-ZIP of three files, one of them empty, and a directory: nothing is compressed.
const INFO_ZIP: &str = "\
    UEsDBAoAAAAAABm0d10zRq4KCAAAAAgAAAADABwAcnVuVVQJAAMRvwRrEb8Ea3V4CwABBAAAAAAEAAAAAGVjaG8gaGkKUEsDBAoA\
    AAAAABm0d10AAAAAAAAAAAAAAAAEABwAc3JjL1VUCQADEb8EaxG/BGt1eAsAAQQAAAAABAAAAABQSwMECgAAAAAAGbR3XfF7Q24d\
    AAAAHQAAAAoAHABzcmMvbWFpbi5jVVQJAAMRvwRrEb8Ea3V4CwABBAAAAAAEAAAAAGludCBtYWluKHZvaWQpIHsgcmV0dXJuIDA7\
    IH0KUEsDBAoAAAAAABm0d10AAAAAAAAAAAAAAAAFABwAZW1wdHlVVAkAAxG/BGsRvwRrdXgLAAEEAAAAAAQAAAAAUEsBAh4DCgAA\
    AAAAGbR3XTNGrgoIAAAACAAAAAMAGAAAAAAAAQAAAO2BAAAAAHJ1blVUBQADEb8Ea3V4CwABBAAAAAAEAAAAAFBLAQIeAwoAAAAA\
    ABm0d10AAAAAAAAAAAAAAAAEABgAAAAAAAAAEADtQUUAAABzcmMvVVQFAAMRvwRrdXgLAAEEAAAAAAQAAAAAUEsBAh4DCgAAAAAA\
    GbR3XfF7Q24dAAAAHQAAAAoAGAAAAAAAAQAAAKSBgwAAAHNyYy9tYWluLmNVVAUAAxG/BGt1eAsAAQQAAAAABAAAAABQSwECHgMK\
    AAAAAAAZtHddAAAAAAAAAAAAAAAABQAYAAAAAAAAAAAApIHkAAAAZW1wdHlVVAUAAxG/BGt1eAsAAQQAAAAABAAAAABQSwUGAAAA\
    AAQABAAuAQAAIwEAAAAA";

/// Made by Python's zipfile: deflated, with a name beyond ASCII.
const PYTHON: &str = "\
    UEsDBBQAAAAIABi0d10zRq4KCgAAAAgAAAADAAAAcnVuS03OyFfIyOQCAFBLAwQUAAAICAAYtHddgAWUNgkAAADIAAAACwAAAMO8\
    L2RhdGEudHh0M1Qw4jIcBhgAUEsBAhQDFAAAAAgAGLR3XTNGrgoKAAAACAAAAAMAAAAAAAAAAAAAAIABAAAAAHJ1blBLAQIUAxQA\
    AAgIABi0d12ABZQ2CQAAAMgAAAALAAAAAAAAAAAAAACAASsAAADDvC9kYXRhLnR4dFBLBQYAAAAAAgACAGoAAABdAAAAAAA=";

const STORE: u16 = 0;
const DEFLATE: u16 = 8;

/// One entry, every field of which may lie.
#[derive(Clone)]
struct Raw {
    name: Vec<u8>,
    method: u16,
    flags: u16,
    /// What stands in the archive.
    data: Vec<u8>,
    size: u32,
    crc: u32,
    mode: u32,
    /// Where the list says that it is, if not where it is.
    offset: Option<u32>,
}

fn raw(name: &str, content: &[u8]) -> Raw {
    Raw {
        name: name.into(),
        method: STORE,
        flags: 0,
        data: content.to_vec(),
        size: content.len() as u32,
        crc: rawzip::crc32(content),
        mode: 0o100_644,
        offset: None,
    }
}

fn deflated(name: &str, content: &[u8]) -> Raw {
    let mut data = Vec::with_capacity(content.len() + 64);
    let status = Compress::new(Compression::best(), false).compress_vec(content, &mut data, FlushCompress::Finish);
    assert_eq!(status.unwrap(), flate2::Status::StreamEnd);
    Raw { method: DEFLATE, data, ..raw(name, content) }
}

fn local_header(entry: &Raw) -> Vec<u8> {
    let mut out = b"PK\x03\x04".to_vec();
    for half in [20, entry.flags, entry.method, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    for word in [entry.crc, entry.data.len() as u32, entry.size] {
        out.extend(word.to_le_bytes());
    }
    out.extend((entry.name.len() as u16).to_le_bytes());
    out.extend(0u16.to_le_bytes());
    out.extend(&entry.name);
    out
}

fn zip(entries: &[Raw]) -> Vec<u8> {
    let (mut out, mut list) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = entry.offset.unwrap_or(out.len() as u32);
        if entry.offset.is_none() {
            out.extend(local_header(entry));
            out.extend(&entry.data);
        }
        list.extend(record(entry, offset));
    }
    finish(out, &list, entries.len() as u16)
}

fn record(entry: &Raw, offset: u32) -> Vec<u8> {
    let mut out = b"PK\x01\x02".to_vec();
    // Made by Unix.
    for half in [(3u16 << 8) | 20, 20, entry.flags, entry.method, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    for word in [entry.crc, entry.data.len() as u32, entry.size] {
        out.extend(word.to_le_bytes());
    }
    for half in [entry.name.len() as u16, 0, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    out.extend((entry.mode << 16).to_le_bytes());
    out.extend(offset.to_le_bytes());
    out.extend(&entry.name);
    out
}

fn finish(mut out: Vec<u8>, list: &[u8], count: u16) -> Vec<u8> {
    let start = out.len() as u32;
    out.extend(list);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend((list.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend(0u16.to_le_bytes());
    out
}

fn unpacked(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let files = unpack(bytes, &Limits::default()).unwrap();
    files.into_iter().map(|file| (file.path, file.content)).collect()
}

fn why(bytes: &[u8]) -> String {
    unpack(bytes, &Limits::default()).expect_err("it was unpacked").to_string()
}

#[test]
fn what_common_tools_make_is_unpacked() {
    let expected = [("run", "echo hi\n"), ("src/main.c", "int main(void) { return 0; }\n"), ("empty", "")];
    let expected = expected.map(|(path, content)| (path.to_owned(), content.as_bytes().to_vec()));
    assert_eq!(unpacked(&BASE64_STANDARD.decode(INFO_ZIP).unwrap()), expected);
    let expected = [("run".to_owned(), b"echo hi\n".to_vec()), ("ü/data.txt".to_owned(), b"1 2\n".repeat(50))];
    assert_eq!(unpacked(&BASE64_STANDARD.decode(PYTHON).unwrap()), expected);
    assert_eq!(unpacked(&zip(&[])), []);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let long = "x".repeat(256);
    let deep = "d/".repeat(17) + "x";
    for (name, reason) in [
        ("../x", "contains \".\" or \"..\""),
        ("a/../../x", "contains \".\" or \"..\""),
        ("..", "contains \".\" or \"..\""),
        ("./../x", "contains \".\" or \"..\""),
        ("a/./x", "contains \".\" or \"..\""),
        (".//x", "is absolute"),
        (".", "contains \".\" or \"..\""),
        ("/etc/passwd", "is absolute"),
        ("/", "is empty"),
        ("", "is empty"),
        ("a//b", "has an empty component"),
        ("a\\..\\x", "backslash"),
        ("C:\\x", "backslash"),
        ("x\0.txt", "NUL"),
        (&long, "longer than 255"),
        (&deep, "deeper than 16"),
    ] {
        let error = why(&zip(&[raw("good", b"1"), raw(name, b"2")]));
        assert!(error.starts_with("the entry ") && error.contains(reason), "{name:?}: {error}");
        assert!(error.len() < 500, "{error}");
    }
    let odd = Raw { name: b"\xff\xfe".to_vec(), ..raw("", b"1") };
    assert!(why(&zip(&[odd])).contains("not UTF-8"));
}

#[test]
fn names_may_begin_at_the_directory_itself() {
    let names = ["./", "./a", "././b/c"].map(|name| Raw { mode: 0, ..raw(name, b"1") });
    assert_eq!(unpacked(&zip(&names)), [("a".to_owned(), b"1".to_vec()), ("b/c".to_owned(), b"1".to_vec())]);
    assert_eq!(why(&zip(&[raw("a", b"1"), raw("./a", b"2")])), "the entry \"./a\" appears twice");
}

#[test]
fn everything_but_files_and_directories_is_refused() {
    for (mode, reason) in [
        (0o120_777, "is a symbolic link"),
        (0o020_666, "is neither a plain file nor a directory"),
        (0o060_666, "is neither"),
        (0o010_666, "is neither"),
        (0o140_666, "is neither"),
        (0o040_755, "is neither"),
    ] {
        let error = why(&zip(&[Raw { mode, ..raw("x", b"/etc/passwd") }]));
        assert!(error.starts_with("the entry \"x\"") && error.contains(reason), "{mode:o}: {error}");
    }
    // No right travels, and so no set-user-ID either.
    assert_eq!(unpacked(&zip(&[Raw { mode: 0o104_755, ..raw("x", b"1") }])), [("x".to_owned(), b"1".to_vec())]);
    for flags in [1, 1 << 6, 1 << 13] {
        assert!(why(&zip(&[Raw { flags, ..raw("x", b"1") }])).contains("is encrypted"));
    }
    for method in [9, 12, 14, 93, 99, 12345] {
        assert!(why(&zip(&[Raw { method, ..raw("x", b"1") }])).contains("is compressed by method"));
    }
}

#[test]
fn no_two_entries_may_claim_one_place() {
    for (names, reason) in [
        (vec!["x", "x"], "the entry \"x\" appears twice"),
        (vec!["x", "x/"], "the entry \"x/\" is a file and a directory"),
        (vec!["x/", "x"], "the entry \"x\" is a file and a directory"),
        (vec!["x/y", "x"], "the entry \"x\" is a file and a directory"),
        (vec!["x", "x/y"], "the entry \"x/y\" is inside of \"x\", which is a file"),
        (vec!["x", "x/y/"], "the entry \"x/y/\" is inside of \"x\", which is a file"),
        (vec!["x/y", "x/y/z/w"], "the entry \"x/y/z/w\" is inside of \"x/y\", which is a file"),
    ] {
        // Without a kind, which many tools leave out.
        let entries: Vec<Raw> = names.iter().map(|name| Raw { mode: 0, ..raw(name, b"") }).collect();
        assert_eq!(why(&zip(&entries)), reason);
    }
    let directories = ["a/", "a/b/c", "a/b/", "a/"]
        .map(|name| Raw { mode: if name.ends_with('/') { 0o040_755 } else { 0o100_644 }, ..raw(name, b"") });
    assert_eq!(unpacked(&zip(&directories)), [("a/b/c".to_owned(), vec![])]);
}

#[test]
fn the_number_of_entries_is_bounded_whatever_the_archive_says() {
    let many = |count: usize| (0..count).map(|i| raw(&format!("{i}"), b"")).collect::<Vec<_>>();
    assert_eq!(unpack(&zip(&many(1000)), &Limits::default()).unwrap().len(), 1000);
    assert_eq!(why(&zip(&many(1001))), "has more than 1000 entries");
    // The count of the end has 16 bits: this archive says that it has 34464 entries, and the last one 3.
    assert_eq!(why(&zip(&many(100_000))), "has more than 1000 entries");
    let said = |count: u16| {
        let list: Vec<u8> = many(2000).iter().flat_map(|entry| record(entry, 0)).collect();
        finish(local_header(&raw("0", b"")), &list, count)
    };
    assert_eq!(why(&said(3)), "has more than 1000 entries");
    let few = |count| finish(local_header(&raw("0", b"")), &record(&raw("0", b""), 0), count);
    assert_eq!(why(&few(2)), "says that it has 2 entries, and has 1");
    assert_eq!(unpacked(&few(1)).len(), 1);
}

#[test]
fn what_comes_out_is_bounded_and_not_what_is_said() {
    let limits = Limits { entries: 10, total: 1000, ratio: 100, left: u64::MAX };
    let two = |a: usize, b: usize| zip(&[deflated("a", &vec![0; a]), raw("b", &vec![0; b])]);
    assert_eq!(unpack(&two(500, 500), &limits).unwrap().len(), 2);
    let error = unpack(&two(500, 501), &limits).unwrap_err();
    assert_eq!(error.to_string(), "the entry \"b\" makes the files larger than 1000 bytes");
    assert_eq!(error.entry.as_deref(), Some("b"));

    for size in [0, 499, 501, u32::MAX - 1] {
        let error = unpack(&zip(&[Raw { size, ..deflated("a", &[0; 500]) }]), &limits).unwrap_err().to_string();
        let reason = if size < 1000 { "is damaged" } else { "makes the files larger than 1000 bytes" };
        assert!(error.contains(reason), "{size}: {error}");
    }
    let lie = Raw { crc: 1, ..deflated("a", b"good") };
    assert!(why(&zip(&[lie])).contains("is damaged"));
}

#[test]
fn a_small_archive_does_not_become_a_large_one() {
    // Within the allowance any ratio is fine.
    let lines = b"1 1 1 1 1 1 1 1\n".repeat(60_000);
    assert_eq!(unpacked(&zip(&[deflated("x", &lines)])), [("x".to_owned(), lines)]);
    let error = why(&zip(&[deflated("x", &vec![0; 30 << 20])]));
    assert_eq!(error, "the entry \"x\" makes the files larger than 100 times the archive's size and 1048576 bytes");
}

#[test]
fn entries_that_share_bytes_are_refused() {
    // The same bytes under many names.
    let first = deflated("0", &vec![0; 4 << 20]);
    let again = |i: u32| Raw { name: i.to_string().into(), offset: Some(0), ..first.clone() };
    let error = why(&zip(&[vec![first.clone()], (1..1000).map(again).collect()].concat()));
    assert!(error.contains("overlaps with another part"), "{error}");

    // Each entry's first block quotes the header of the next one, and goes on with that one's data.
    let mut data = deflated("", &vec![0; 1 << 20]).data;
    let (mut list, mut count) = (Vec::new(), 0);
    let mut quoted: Vec<(Raw, usize)> = Vec::new();
    for i in 0..50 {
        let entry = Raw { data: data.clone(), method: DEFLATE, ..raw(&i.to_string(), b"") };
        let header = local_header(&entry);
        let length = header.len() as u16;
        let mut outer = vec![0];
        outer.extend(length.to_le_bytes());
        outer.extend((!length).to_le_bytes());
        outer.extend(header);
        outer.extend(&data);
        quoted.push((entry, outer.len()));
        data = outer;
    }
    let end = data.len();
    for (entry, length) in &quoted {
        list.extend(record(entry, (end - length + 5) as u32));
        count += 1;
    }
    let error = why(&finish(data, &list, count));
    assert!(error.contains("overlaps with another part"), "{error}");

    // One whose data goes on into the list of entries.
    let long = Raw { data: vec![0; 40], ..raw("x", b"") };
    let error = why(&finish(local_header(&long), &record(&long, 0), 1));
    assert!(error.contains("overlaps") || error.contains("cut off"), "{error}");
}

#[test]
fn an_archive_that_was_cut_is_refused_wherever_it_was_cut() {
    let whole = zip(&[raw("a", b"some text"), deflated("b", &b"more text ".repeat(20)), raw("c/d", b"")]);
    assert_eq!(unpacked(&whole).len(), 3);
    for length in 0..whole.len() {
        assert!(unpack(&whole[..length], &Limits::default()).is_err(), "{length}");
    }
}

/// A bomb of 10 GB in 10 MB: the same compressed megabyte of zeros, 10,240 times.
fn bomb(size: u32) -> Raw {
    let (zeros, mut megabyte) = (vec![0; 1 << 20], Vec::with_capacity(1 << 16));
    let mut compress = Compress::new(Compression::best(), false);
    compress.compress_vec(&zeros, &mut megabyte, FlushCompress::Full).unwrap();
    Raw { method: DEFLATE, data: megabyte.repeat(10 << 10), size, ..raw("zeros", b"") }
}

/// The highest memory use of this process so far.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Memory can only be measured where nothing else runs: the test starts itself once more, alone.
#[test]
fn a_bomb_costs_little_time_and_memory() {
    const ALONE: &str = "GAVEL_TEST_BOMB";
    const NAME: &str = "archive::tests::a_bomb_costs_little_time_and_memory";
    if std::env::var_os(ALONE).is_none() {
        let this = std::env::current_exe().unwrap();
        let child = Command::new(this).args([NAME, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let limits = Limits::default();
    // It says 4 GB, little enough to be believed, and the truth as far as it fits.
    for size in [u32::MAX - 1, (limits.total - 1) as u32, 10] {
        let bytes = zip(&[bomb(size)]);
        assert!(bytes.len() < 12 << 20, "{}", bytes.len());
        let (before, start) = (peak(), Instant::now());
        let error = unpack(&bytes, &limits).unwrap_err().to_string();
        let (grown, took) = (peak() - before, start.elapsed());
        assert!(error.contains("makes the files larger") || error.contains("is damaged"), "{error}");
        // The limit, and once more while the buffer grows.
        assert!(grown < 2 * limits.total + (8 << 20), "{size}: {grown} bytes");
        assert!(took < Duration::from_secs(5), "{size}: {took:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = unpack(&bytes, &Limits::default());
    }

    /// Bytes that are nearly an archive get further than random ones.
    #[test]
    fn damaged_archives_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = zip(&[raw("a", b"text"), deflated("b/c", &[7; 3000]), raw("b/", b"")]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(files) = unpack(&bytes, &Limits::default()) {
            prop_assert!(files.iter().all(|file| path::check(&file.path).is_ok()));
        }
    }
}
