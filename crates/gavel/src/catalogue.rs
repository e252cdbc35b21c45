//! Languages: folders with a language.toml and a sample, built in and from `languages_dir`.

use crate::rootfs::{self, Roots};
use gavel_core::language::{Compile, Sample};
use gavel_core::units::parse_duration;
use gavel_core::{Bytes, Catalogue, File, Language, Limits};
use include_dir::{Dir, include_dir};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

static BUILT_IN: Dir = include_dir!("$CARGO_MANIFEST_DIR/../../languages");

const FILE: &str = "language.toml";

/// What a language's image is built from, beside the language.toml.
pub const DOCKERFILE: &str = "Dockerfile";

/// A sample is a few lines; a larger file is a mistake.
const MAX_SAMPLE: u64 = 1 << 20;

/// One language.toml as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    name: String,
    source_file: Option<String>,
    #[serde(default)]
    extensions: Vec<String>,
    #[serde(default)]
    packages: Vec<String>,
    #[serde(default)]
    requires: Vec<String>,
    #[serde(default)]
    version_command: Vec<String>,
    compile: Option<Vec<String>>,
    #[serde(default)]
    compile_only_with: Vec<String>,
    #[serde(default)]
    artifacts: Vec<String>,
    run: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    image: Option<String>,
    backend: Option<String>,
    timeout: Option<Span>,
    wall_timeout: Option<Span>,
    memory_limit: Option<Size>,
    processes: Option<u32>,
    compile_timeout: Option<Span>,
    compile_memory_limit: Option<Size>,
    #[serde(default)]
    oom_markers: Vec<String>,
    #[serde(default)]
    judge0_ids: Vec<u32>,
    sample: Option<SampleSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleSpec {
    /// A file beside the language.toml.
    source: Option<String>,
    /// Files beside the language.toml, under the names that the job gives them.
    #[serde(default)]
    files: Vec<String>,
    #[serde(default)]
    stdin: String,
    expected: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Span(Duration);

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match parse_duration(&text)? {
            Duration::ZERO => Err("a time limit cannot be zero".to_owned()),
            span => Ok(Self(span)),
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Size(Bytes);

impl TryFrom<String> for Size {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Bytes::parse(&text).map(Self)
    }
}

/// What the operator allows and has prepared, whatever the language.
pub struct Bounds {
    pub default: Limits,
    pub cap: Limits,
    /// Images that were unpacked on this machine.
    pub roots: Roots,
}

impl Bounds {
    pub fn of(config: &crate::config::Config) -> Self {
        let roots = Roots::of(&config.place.data_dir);
        Self { default: config.limits_default.limits(), cap: config.limits_cap.limits(), roots }
    }
}

/// Reads all languages. The error names the file, and the key and line where there is one.
pub fn load(languages_dir: Option<&Path>, bounds: &Bounds) -> Result<Catalogue, String> {
    let mut languages = BTreeMap::new();
    for folder in BUILT_IN.dirs() {
        let id = folder.path().to_string_lossy().into_owned();
        let shown = format!("languages/{id}/{FILE} (built in)");
        let read = |name: &str| {
            let file = folder.get_file(folder.path().join(name)).ok_or("there is no such file")?;
            Ok(file.contents().to_vec())
        };
        languages.insert(id.clone(), language(&id, &shown, &read, bounds)?);
    }
    if let Some(dir) = languages_dir {
        for language in from_directory(dir, bounds)? {
            languages.insert(language.id.clone(), language);
        }
    }
    Ok(Catalogue::new(languages.into_values()))
}

fn from_directory(dir: &Path, bounds: &Bounds) -> Result<Vec<Language>, String> {
    let cannot = |error: std::io::Error| format!("languages_dir {}: {error}", dir.display());
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    let one = |folder: &std::path::PathBuf| {
        let id = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let shown = folder.join(FILE).display().to_string();
        language(&id, &shown, &|name| read_small(&folder.join(name)), bounds)
    };
    folders.iter().map(one).collect()
}

/// Where the Dockerfile of a language is.
#[derive(Debug, PartialEq)]
pub enum Folder {
    /// In this program; this is its text.
    BuiltIn(&'static str),
    /// In a folder, with whatever it copies.
    Own(PathBuf),
}

/// The Dockerfile of a language. A folder that replaces a built-in language replaces its image too.
pub fn dockerfile(id: &str, languages_dir: Option<&Path>) -> Option<Folder> {
    if let Some(own) = languages_dir.map(|dir| dir.join(id)).filter(|own| own.is_dir()) {
        return own.join(DOCKERFILE).is_file().then_some(Folder::Own(own));
    }
    let file = BUILT_IN.get_file(Path::new(id).join(DOCKERFILE))?;
    file.contents_utf8().map(Folder::BuiltIn)
}

fn read_small(path: &Path) -> Result<Vec<u8>, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_SAMPLE {
        return Err(format!("has {size} bytes; at most {MAX_SAMPLE} are read"));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

type Read<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, String>;

/// One language from its folder, whose files `read` finds.
fn language(id: &str, shown: &str, read: Read, bounds: &Bounds) -> Result<Language, String> {
    let wrong = |message: String| format!("{shown}: {message}");
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
        return Err(wrong("the folder's name is the language's id: use a-z, 0-9, - and _".to_owned()));
    }
    let text = String::from_utf8(read(FILE).map_err(wrong)?).map_err(|_| wrong("is not UTF-8".to_owned()))?;
    let spec: Spec = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        format!("{shown} line {line}: {}", error.message())
    })?;
    check(&spec).map_err(wrong)?;
    let sample = spec.sample.as_ref().map(|sample| read_sample(sample, read)).transpose().map_err(wrong)?;
    Ok(resolve(id, spec, sample, bounds))
}

fn read_sample(sample: &SampleSpec, read: Read) -> Result<Sample, String> {
    let read = |name: &String| read(name).map_err(|error| format!("sample {name}: {error}"));
    let file = |name: &String| Ok(File { path: name.clone(), content: read(name)? });
    Ok(Sample {
        source: sample.source.as_ref().map(read).transpose()?.unwrap_or_default(),
        files: sample.files.iter().map(file).collect::<Result<_, String>>()?,
        stdin: sample.stdin.clone().into_bytes(),
        expected: sample.expected.clone().into_bytes(),
    })
}

fn check(spec: &Spec) -> Result<(), String> {
    for (key, names) in [("source_file", spec.source_file.as_slice()), ("compile_only_with", &spec.compile_only_with)] {
        for name in names {
            gavel_core::path::check(name).map_err(|message| format!("{key}: {message}"))?;
        }
    }
    if spec.run.is_empty() {
        return Err("run: name the command that runs the program".to_owned());
    }
    for (key, argv) in [("run", Some(&spec.run)), ("compile", spec.compile.as_ref())] {
        let Some(argv) = argv else { continue };
        let first = argv.first().map_or("", String::as_str);
        if !(first.starts_with('/') || first.starts_with("./")) {
            return Err(format!("{key}: {first:?} must be an absolute path or start with ./"));
        }
    }
    if spec.compile.is_some() && spec.artifacts.is_empty() {
        return Err("artifacts: name the files that the compiler makes and the run needs".to_owned());
    }
    if spec.compile.is_none() && !spec.artifacts.is_empty() {
        return Err("artifacts: there is no compile command that could make them".to_owned());
    }
    if spec.compile.is_none() && !spec.compile_only_with.is_empty() {
        return Err("compile_only_with: there is no compile command".to_owned());
    }
    if let Some(sample) = &spec.sample
        && sample.source.is_some() != spec.source_file.is_some()
    {
        return Err(match &sample.source {
            None => "sample: name its source".to_owned(),
            Some(_) => {
                "sample.source: without source_file a program is all in its files: name them in files".to_owned()
            }
        });
    }
    for path in &spec.requires {
        if !path.starts_with('/') {
            return Err(format!("requires: {path:?} must be an absolute path"));
        }
    }
    match spec.backend.as_deref() {
        None | Some("native" | "docker") => Ok(()),
        Some(other) => Err(format!("backend: {other:?} must be native or docker")),
    }
}

/// Language over operator's default, and never above the operator's cap.
fn resolve(id: &str, spec: Spec, sample: Option<Sample>, bounds: &Bounds) -> Language {
    let cpu_time = spec.timeout.map_or(bounds.default.cpu_time, |span| span.0).min(bounds.cap.cpu_time);
    let wall_time = match (spec.wall_timeout, spec.timeout) {
        (Some(span), _) => span.0,
        (None, Some(_)) => Limits::wall_for(cpu_time),
        (None, None) => bounds.default.wall_time,
    };
    let limits = Limits {
        cpu_time,
        wall_time: wall_time.min(bounds.cap.wall_time),
        memory: spec.memory_limit.map_or(bounds.default.memory, |size| size.0).min(bounds.cap.memory),
        stack: bounds.default.stack.min(bounds.cap.stack),
        processes: spec.processes.unwrap_or(bounds.default.processes).min(bounds.cap.processes),
        output: bounds.default.output.min(bounds.cap.output),
        file_size: bounds.default.file_size.min(bounds.cap.file_size),
    };
    let compile = spec.compile.map(|argv| Compile {
        argv,
        artifacts: spec.artifacts,
        only_with: spec.compile_only_with,
        limits: compile_limits(spec.compile_timeout, spec.compile_memory_limit),
    });
    Language {
        id: id.to_owned(),
        name: spec.name,
        source_file: spec.source_file,
        extensions: spec.extensions,
        compile,
        run: spec.run,
        env: spec.env,
        limits,
        cap: bounds.cap.clone(),
        oom_markers: spec.oom_markers,
        image: spec.image,
        rootfs: bounds.roots.of_language(id),
        backend: spec.backend,
        requires: spec.requires,
        packages: spec.packages,
        version_command: spec.version_command,
        judge0_ids: spec.judge0_ids,
        sample,
    }
}

/// Compilers have limits of their own: a client can neither raise them nor pay for them.
fn compile_limits(timeout: Option<Span>, memory: Option<Size>) -> Limits {
    let standard = Limits::standard_compile();
    let cpu_time = timeout.map_or(standard.cpu_time, |span| span.0);
    Limits {
        cpu_time,
        wall_time: standard.wall_time.max(Limits::wall_for(cpu_time)),
        memory: memory.map_or(standard.memory, |size| size.0),
        ..standard
    }
}

/// Why the native backend cannot run a language here, with the remedy; `None` if it can.
pub fn missing(language: &Language) -> Option<String> {
    if let Some(root) = &language.rootfs {
        let file = rootfs::missing(language, root)?;
        return Some(format!("needs {file} in {}: `gavel languages export {}`", root.display(), language.id));
    }
    let file = language.requires.iter().find(|path| !Path::new(path).exists())?;
    match language.packages.is_empty() {
        true => Some(format!("needs {file}")),
        false => Some(format!("needs {file}: apt-get install {}", language.packages.join(" "))),
    }
}

/// The language of a file, by its extension: one that is available before one that is not.
pub fn for_file<'a>(
    catalogue: &'a Catalogue,
    file: &Path,
    is_available: impl Fn(&Language) -> bool,
) -> Option<&'a Language> {
    let extension = file.extension()?.to_str()?;
    let speakers = || catalogue.iter().filter(|language| language.extensions.iter().any(|e| e == extension));
    speakers().find(|language| is_available(language)).or_else(|| speakers().next()).map(|language| &**language)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::ImageId;

    fn bounds() -> Bounds {
        Bounds { default: Limits::standard(), cap: Limits::standard_cap(), roots: Roots::of(Path::new("/nowhere")) }
    }

    fn read_spec(text: &str) -> Result<Language, String> {
        let read = |name: &str| match name {
            FILE => Ok(text.as_bytes().to_vec()),
            "sample.x" => Ok(b"sample".to_vec()),
            _ => Err("there is no such file".to_owned()),
        };
        language("x", "languages/x/language.toml", &read, &bounds())
    }

    const PLAIN: &str = "name = \"X\"\nsource_file = \"main.x\"\nrun = [\"/usr/bin/x\", \"main.x\"]\n";

    #[test]
    fn every_built_in_language_can_be_read_and_has_a_sample() {
        let catalogue = load(None, &bounds()).unwrap();
        for core in ["python3", "javascript", "java", "cpp", "c"] {
            assert!(catalogue.get(core).is_some(), "{core}");
        }
        for language in catalogue.iter() {
            assert!(language.sample.is_some(), "{} has no sample", language.id);
            assert!(!language.requires.is_empty() || language.packages.is_empty(), "{} requires nothing", language.id);
        }
    }

    /// What stands in all Dockerfiles, with the language's name, id and packages.
    fn common_dockerfile(language: &Language) -> String {
        let Language { id, name, packages, .. } = language;
        format!(
            r"# The image of {name}: `gavel languages build {id}`. A test compares it with language.toml.
ARG BASE=debian:bookworm-slim
FROM ${{BASE}}

# Slim bases have no directory for manuals, and Java's packages want to put links there.
RUN mkdir -p /usr/share/man/man1 \
    && apt-get update -q -o Acquire::Retries=3 \
    && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends -o Acquire::Retries=3 \
        {} \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*

# /box is where jobs work: a container's tmpfs takes over the mode of the directory below it. And no
# program of the image changes the user that runs it.
RUN mkdir -p -m 1777 /box && find / -xdev -perm /6000 -exec chmod a-s {{}} +
",
            packages.join(" ")
        )
    }

    #[test]
    fn every_dockerfile_installs_the_packages_of_its_language_and_nothing_else() {
        for language in load(None, &bounds()).unwrap().iter() {
            let expected = common_dockerfile(language);
            assert_eq!(language.image, Some(format!("gavel-{}", language.id)));
            let path = Path::new("languages").join(&language.id).join(DOCKERFILE);
            let Some(Folder::BuiltIn(text)) = dockerfile(&language.id, None) else {
                panic!("{} is missing; it should be:\n{expected}", path.display());
            };
            assert!(text == expected, "{} should be:\n{expected}", path.display());
        }
    }

    #[test]
    fn a_folder_that_replaces_a_language_replaces_its_dockerfile_too() {
        let dir = tempfile::tempdir().unwrap();
        for id in ["python3", "mine"] {
            std::fs::create_dir(dir.path().join(id)).unwrap();
        }
        std::fs::write(dir.path().join("mine").join(DOCKERFILE), "FROM x").unwrap();
        assert_eq!(dockerfile("python3", Some(dir.path())), None);
        assert_eq!(dockerfile("mine", Some(dir.path())), Some(Folder::Own(dir.path().join("mine"))));
        assert!(matches!(dockerfile("c", Some(dir.path())), Some(Folder::BuiltIn(_))));
        assert_eq!(dockerfile("mine", None), None);
    }

    #[test]
    fn an_unpacked_image_is_known() {
        let data = tempfile::tempdir().unwrap();
        let roots = Roots::of(data.path());
        let image = ImageId::parse(&"a".repeat(64)).unwrap();
        let _lock = roots.lock().unwrap();
        roots.add(&image, |dir| Ok(std::fs::create_dir_all(dir.join("bin"))?)).unwrap();
        for id in ["c", "bash"] {
            roots.assign(id, &image).unwrap();
        }
        let catalogue = load(None, &Bounds { roots: roots.clone(), ..bounds() }).unwrap();
        assert_eq!(catalogue.get("c").unwrap().rootfs, roots.of_image(&image));
        assert_eq!(catalogue.get("cpp").unwrap().rootfs, None);
        // Its files count, and not the host's.
        let bash = catalogue.get("bash").unwrap();
        assert!(missing(bash).unwrap().starts_with("needs /bin/bash in /"), "{:?}", missing(bash));
        std::fs::write(roots.of_image(&image).unwrap().join("bin/bash"), "").unwrap();
        assert_eq!(missing(bash), None);
    }

    #[test]
    fn what_is_not_said_comes_from_the_operator() {
        let language = read_spec(PLAIN).unwrap();
        assert_eq!((language.limits, language.cap), (Limits::standard(), Limits::standard_cap()));
    }

    #[test]
    fn a_languages_own_limits_stay_below_the_cap() {
        let language = read_spec(&format!("{PLAIN}timeout = \"4s\"\nmemory_limit = \"64g\"\n")).unwrap();
        assert_eq!(language.limits.cpu_time, Duration::from_secs(4));
        assert_eq!(language.limits.wall_time, Duration::from_secs(12));
        assert_eq!(language.limits.memory, Limits::standard_cap().memory);
    }

    #[test]
    fn mistakes_are_named_by_file_line_and_key() {
        let table = [
            ("colour = 1\n", "languages/x/language.toml line 4: unknown field `colour`"),
            ("timeout = \"2\"\n", "line 4: \"2\" is not a duration"),
            ("timeout = \"0s\"\n", "line 4: a time limit cannot be zero"),
            ("memory_limit = \"2x\"\n", "line 4: unknown unit"),
            ("compile = [\"gcc\"]\nartifacts = [\"a\"]\n", "compile: \"gcc\" must be an absolute path"),
            ("compile = [\"/usr/bin/gcc\"]\n", "artifacts: name the files"),
            ("requires = [\"gcc\"]\n", "requires: \"gcc\" must be"),
            ("compile_only_with = [\"a\"]\n", "compile_only_with: there is no compile command"),
            ("[sample]\nexpected = \"7\"\n", "sample: name its source"),
            ("backend = \"vm\"\n", "backend: \"vm\" must be"),
            ("[sample]\nsource = \"other\"\nexpected = \"7\"\n", "sample other: there is no such file"),
            ("[sample]\nsource = \"sample.x\"\n", "missing field `expected`"),
        ];
        for (addition, expected) in table {
            let error = read_spec(&format!("{PLAIN}{addition}")).unwrap_err();
            assert!(error.contains(expected), "{addition}: {error}");
        }
    }

    #[test]
    fn a_language_without_a_source_is_all_in_files() {
        let spec = "name = \"X\"\nrun = [\"/bin/sh\", \"run\"]\ncompile = [\"/bin/sh\", \"make\"]\n\
            compile_only_with = [\"make\"]\nartifacts = [\"**\"]\n[sample]\nexpected = \"7\"\n";
        let language = read_spec(&format!("{spec}files = [\"sample.x\"]\n")).unwrap();
        assert_eq!(language.source_file, None);
        let sample = language.sample.as_ref().unwrap();
        assert_eq!((sample.source.len(), sample.files.len(), &*sample.files[0].path), (0, 1, "sample.x"));
        let file = |path: &str| [File { path: path.to_owned(), content: vec![] }];
        assert!(language.compile_with(&file("make")).is_some_and(Compile::keeps_everything));
        assert!(language.compile_with(&file("a/make")).is_none() && language.compile_with(&[]).is_none());
        let error = read_spec(&format!("{spec}source = \"sample.x\"\n")).unwrap_err();
        assert!(error.contains("sample.source: without source_file"), "{error}");
    }

    #[test]
    fn a_folder_replaces_a_built_in_language_and_adds_its_own() {
        let dir = tempfile::tempdir().unwrap();
        for id in ["python3", "mine"] {
            std::fs::create_dir(dir.path().join(id)).unwrap();
            std::fs::write(dir.path().join(id).join(FILE), PLAIN).unwrap();
        }
        let catalogue = load(Some(dir.path()), &bounds()).unwrap();
        assert_eq!(catalogue.get("python3").unwrap().name, "X");
        assert_eq!(catalogue.get("mine").unwrap().name, "X");
        assert!(catalogue.get("cpp").is_some());
    }
}
