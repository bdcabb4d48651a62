//! The walls between the modules of `src/`: one crate has no compiler wall, so this test reads the sources.
//!
//! [`WALLS`] says for each module which other modules and which crates it may name. It is a list of what is allowed:
//! a module or a dependency that is new has to be put into it, which is the moment to think about it. Tests
//! (`#[cfg(test)]`), comments and texts are not looked at. `ARCHITECTURE.md` has the same table in words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What one module may name.
struct Wall {
    /// The module: a first level of `src/`, or one of the doors.
    module: &'static str,
    /// Other modules, or parts of them, beside its own. `*` is everything.
    modules: &'static [&'static str],
    /// Crates beside [`COMMON`]; for `model` these are all. `*` is everything.
    crates: &'static [&'static str],
}

/// Values, errors, tasks and logging: of no framework, and for all modules but `model`.
const COMMON: &[&str] = &[
    "async_trait",
    "base64",
    "bytes",
    "futures",
    "getrandom",
    "jiff",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    "tokio",
    "tokio_util",
    "tracing",
    "uuid",
];

/// Modules that any but `model` may use: they know of no other.
const LEAVES: &[&str] = &["shutdown", "telemetry"];

const WALLS: &[Wall] = &[
    Wall {
        module: "model",
        modules: &[],
        // Times, and the hash in Velero's rule for label values, are values too.
        crates: &["jiff", "serde", "serde_json", "sha2", "thiserror"],
    },
    Wall { module: "archive", modules: &["model"], crates: &["flate2", "rustix", "tar", "tempfile"] },
    // `velero`: a location and the files beside a backup come in Velero's own types.
    Wall { module: "storage", modules: &["model", "velero"], crates: &["flate2", "http", "object_store", "tempfile"] },
    Wall { module: "velero", modules: &["model"], crates: &["k8s_openapi", "kube", "schemars"] },
    Wall { module: "engine", modules: &["model", "archive"], crates: &["json_patch", "regex", "serde_yaml_ng"] },
    Wall { module: "progress", modules: &["model", "engine::events"], crates: &["tempfile"] },
    // `engine::discovery`: the port's own answer to what an API server serves.
    Wall {
        module: "cluster",
        modules: &["model", "engine::ports", "engine::discovery"],
        // k8s_openapi for the Pod whose exec subresource it asks, and the Status that a command ends with.
        crates: &["http", "http_body_util", "k8s_openapi", "kube"],
    },
    Wall {
        module: "sandbox",
        modules: &[],
        // axum for its body type alone: the sandbox is a tower service and has no port.
        crates: &[
            "axum",
            "http",
            "http_body",
            "http_body_util",
            "json_patch",
            "k8s_openapi",
            "kube",
            "regex",
            "serde_path_to_error",
            "serde_yaml_ng",
            "tower",
        ],
    },
    Wall { module: "sample", modules: &["model", "archive"], crates: &["flate2", "k8s_openapi"] },
    Wall { module: "service", modules: &["model", "progress"], crates: &[] },
    Wall {
        module: "controller",
        modules: &[
            "model",
            "archive",
            "storage",
            "velero",
            "progress",
            "service",
            // What restores are written with and under which field manager.
            "cluster::FIELD_MANAGER",
            // The engine's front, not its rooms.
            "engine::self",
            "engine::run",
            "engine::events",
            "engine::ports",
            "engine::preview",
            "engine::call_off",
            "engine::BackupMethod",
            "engine::BackupVolumes",
            "engine::DataDownloads",
            "engine::DataMover",
            "engine::ExecHooks",
            "engine::Job",
            "engine::NativeSnapshot",
            "engine::PodVolumeBackups",
            "engine::PodVolumeOptions",
            "engine::Report",
            "engine::RestoredPodVolume",
            "engine::Settings",
            "engine::VolumeBackup",
            "engine::collect::needs_labels",
            "engine::modifiers::Modifiers",
            "engine::operations",
            "engine::versions::VersionPolicy",
            // One rule for trying a request again.
            "engine::retry",
        ],
        crates: &["k8s_openapi", "kube"],
    },
    Wall {
        module: "api",
        modules: &["model", "service", "api::grpc", "api::http"],
        crates: &["axum", "http", "hyper_util", "prometheus_client", "tonic", "tonic_reflection", "tower"],
    },
    Wall {
        module: "api::grpc",
        modules: &["model", "service", "api"],
        crates: &["http", "prost", "prost_types", "tonic", "tonic_health", "tonic_prost", "tonic_reflection"],
    },
    Wall {
        module: "api::http",
        modules: &["model", "service", "api"],
        crates: &["axum", "http", "http_body_util", "serde_path_to_error", "serde_yaml_ng", "utoipa", "utoipa_axum"],
    },
    Wall { module: "shutdown", modules: &[], crates: &[] },
    Wall { module: "telemetry", modules: &["model"], crates: &["prometheus_client", "tracing_subscriber"] },
    // A client of the service and a starter of it; `app` does the wiring.
    Wall { module: "cli", modules: &["*"], crates: &["*"] },
    Wall { module: "app", modules: &["*"], crates: &["*"] },
    Wall { module: "main", modules: &["*"], crates: &["*"] },
];

/// Files that may have more than [`MAX_LINES`], each with its reason.
const LONG_FILES: &[(&str, &str)] =
    &[("sample/service.rs", "the objects of one made-up service, one after the other: data in the form of code")];

/// Lines of a file without its tests; past that it has more than one subject.
const MAX_LINES: usize = 600;

/// What was named in a file.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    /// A path within the crate, without `crate::`.
    Module(Vec<String>),
    /// Another crate.
    Crate(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

/// Identifiers, `::` and single signs; comments, texts, characters and lifetimes are left out.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    let is_ident = |c: char| c.is_alphanumeric() || c == '_';
    while at < chars.len() {
        let rest = &chars[at..];
        let skip = match rest {
            ['/', '/', ..] => rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['"', ..] => text(rest),
            ['r' | 'b' | 'c', ..] if raw_text(rest).is_some() => raw_text(rest).unwrap_or(1),
            ['b' | 'c', '"', ..] => 1 + text(&rest[1..]),
            ['\'', '\\', ..] => 3 + rest[3..].iter().position(|&c| c == '\'').unwrap_or(0),
            ['\'', _, '\'', ..] => 3,
            ['\'', ..] => 1 + rest[1..].iter().take_while(|&&c| is_ident(c)).count(),
            _ => 0,
        };
        if skip > 0 {
            line += rest[..skip.min(rest.len())].iter().filter(|&&c| c == '\n').count();
            at += skip;
            continue;
        }
        let length = match rest {
            [c, ..] if is_ident(*c) => rest.iter().take_while(|&&c| is_ident(c)).count(),
            [':', ':', ..] => 2,
            _ => 1,
        };
        if rest[0] == '\n' {
            line += 1;
        }
        if !rest[0].is_whitespace() {
            tokens.push(Token { text: rest[..length].iter().collect(), line });
        }
        at += length;
    }
    tokens
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at + 1 < rest.len() {
        match (rest[at], rest[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn text(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_text(rest: &[char]) -> Option<usize> {
    let prefix = rest.iter().take_while(|c| matches!(c, 'r' | 'b' | 'c')).count();
    let hashes = rest[prefix..].iter().take_while(|&&c| c == '#').count();
    if prefix > 2 || rest[prefix - 1] != 'r' || rest.get(prefix + hashes) != Some(&'"') {
        return None;
    }
    let body = prefix + hashes + 1;
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let length = rest[body..].windows(end.len()).position(|window| window == end.as_slice())?;
    Some(body + length + end.len())
}

/// A file without what is compiled for tests only.
#[derive(Debug, Default)]
struct Stripped {
    tokens: Vec<Token>,
    /// Lines of the blocks that were taken out.
    test_lines: usize,
    /// Modules that are for tests only and lie in files of their own.
    test_modules: Vec<String>,
}

fn without_tests(tokens: &[Token]) -> Stripped {
    let mut stripped = Stripped::default();
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.text == text);
    let starts = |at: usize| ["#", "[", "cfg", "(", "test", ")", "]"].iter().zip(at..).all(|(text, at)| is(at, text));
    let mut at = 0;
    while at < tokens.len() {
        if !starts(at) {
            stripped.tokens.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let begin = at;
        at += 7;
        let item = at;
        let mut depth = 0_usize;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token.text.as_str() {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" => depth = depth.saturating_sub(1),
                "}" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        break;
                    }
                }
                ";" if depth == 0 => break,
                _ => {}
            }
        }
        let item = &tokens[item..at];
        if let Some(place) = item.iter().position(|token| token.text == "mod")
            && item.last().is_some_and(|token| token.text == ";")
            && let Some(name) = item.get(place + 1)
        {
            stripped.test_modules.push(name.text.clone());
        }
        stripped.test_lines += tokens[at - 1].line + 1 - tokens[begin].line;
    }
    stripped
}

/// All paths that are named, from `crate`, `super`, a name imported from there, or another crate on; groups in braces
/// are taken apart.
fn named(tokens: &[Token], file_module: &[String], crates: &BTreeSet<String>) -> Vec<(Named, usize)> {
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_path = text_at(tokens, at + 1) == "::";
        let is_bare_use = at > 0 && text_at(tokens, at - 1) == "use";
        if is_word(text_at(tokens, at)) && (is_path || is_bare_use) && !goes_on(tokens, at) {
            let (mut expanded, line) = (Vec::new(), tokens[at].line);
            at = expand(tokens, at, &mut Vec::new(), &mut expanded);
            paths.extend(expanded.into_iter().map(|path| (path, line)));
        } else {
            at += 1;
        }
    }
    let mut imported = BTreeMap::new();
    let mut found = Vec::new();
    for (path, line) in &paths {
        let is_ours = matches!(path[0].as_str(), "crate" | "super");
        if let Some(module) = absolute(path, file_module).filter(|module| is_ours && !module.is_empty()) {
            let as_module = module.strip_suffix(&["self".to_owned()]).unwrap_or(&module);
            if let Some(last) = as_module.last() {
                imported.insert(last.clone(), as_module.to_vec());
            }
            found.push((Named::Module(module), *line));
        }
    }
    for (path, line) in paths {
        if let (Some(module), true) = (imported.get(&path[0]), path.len() > 1) {
            found.push((Named::Module([module, &path[1..]].concat()), line));
        } else if crates.contains(&path[0]) {
            found.push((Named::Crate(path[0].clone()), line));
        }
    }
    found.sort_by_key(|(_, line)| *line);
    found
}

/// The path from the crate's root on; `None` for a path that begins elsewhere.
fn absolute(path: &[String], file_module: &[String]) -> Option<Vec<String>> {
    let mut module = match path[0].as_str() {
        "crate" => Vec::new(),
        "super" => file_module.to_vec(),
        _ => return None,
    };
    for part in path {
        match part.as_str() {
            "crate" => {}
            "super" => drop(module.pop()),
            part => module.push(part.to_owned()),
        }
    }
    Some(module)
}

/// Whether the word at this place stands within a path that began before it.
fn goes_on(tokens: &[Token], at: usize) -> bool {
    if at < 2 || text_at(tokens, at - 1) != "::" {
        return false;
    }
    let before = text_at(tokens, at - 2);
    before != "use" && (is_word(before) || before == ">")
}

fn text_at(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| token.text.as_str())
}

/// Reads a path at `at`, with groups; returns where it ends.
fn expand(tokens: &[Token], mut at: usize, prefix: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
    let text = |at: usize| text_at(tokens, at);
    let before = prefix.len();
    loop {
        if text(at) == "{" {
            at += 1;
            while at < tokens.len() && text(at) != "}" {
                at = expand(tokens, at, prefix, paths);
                // ` as other` and the comma.
                while !matches!(text(at), "," | "}" | "") {
                    at += 1;
                }
                if text(at) == "," {
                    at += 1;
                }
            }
            at += 1;
            break;
        }
        prefix.push(text(at).to_owned());
        at += 1;
        if text(at) != "::" || !(text(at + 1) == "{" || is_word(text(at + 1))) {
            paths.push(prefix.clone());
            break;
        }
        at += 1;
    }
    prefix.truncate(before);
    at
}

fn is_word(text: &str) -> bool {
    text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
}

fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All Rust files below `src/`, by their path from there.
fn files() -> BTreeMap<String, String> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![source_dir()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of src") {
            let path = entry.expect("an entry of src").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(source_dir()).expect("a path below src");
                let name: Vec<_> = name.iter().map(|part| part.to_string_lossy()).collect();
                files.insert(name.join("/"), fs::read_to_string(&path).expect("a source file"));
            }
        }
    }
    files
}

/// `api/grpc/mod.rs` is `api::grpc`.
fn module_of(file: &str) -> Vec<String> {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').map(str::to_owned).collect()
}

/// The wall that a path stands behind: the longest row of the table that begins it.
fn wall_of(module: &[String]) -> Option<&'static Wall> {
    let path = module.join("::");
    WALLS.iter().filter(|wall| begins(wall.module, &path)).max_by_key(|wall| wall.module.len())
}

fn begins(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether code behind `wall` may name this path of the crate.
fn may_name(wall: &Wall, path: &[String]) -> bool {
    let target = wall_of(path).map(|target| target.module);
    if target == Some(wall.module) || wall.modules.contains(&"*") {
        return true;
    }
    if wall.module != "model" && target.is_some_and(|target| LEAVES.contains(&target)) {
        return true;
    }
    let path = path.join("::");
    // A row of its own is opened by that row alone: `api` does not open `api::http`.
    wall.modules.iter().any(|&allowed| {
        let is_in = begins(allowed, &path) || allowed.strip_suffix("::self") == Some(path.as_str());
        is_in && target.is_none_or(|target| !begins(allowed, target) || target == allowed)
    })
}

/// Names of the crates in `[dependencies]`, as code spells them.
fn dependencies() -> BTreeSet<String> {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("Cargo.toml");
    manifest
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().replace('-', "_"))
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .collect()
}

/// The files that are compiled into the program, without their tests.
fn program() -> BTreeMap<String, (String, Stripped)> {
    let files: BTreeMap<String, (String, Stripped)> = files()
        .into_iter()
        .map(|(file, source)| {
            let stripped = without_tests(&tokens(&source));
            (file, (source, stripped))
        })
        .collect();
    let mut test_modules = BTreeSet::new();
    for (file, (_, stripped)) in &files {
        for name in &stripped.test_modules {
            let mut module = module_of(file);
            if file == "lib.rs" {
                module.clear();
            }
            module.push(name.clone());
            test_modules.insert(module.join("::"));
        }
    }
    files
        .into_iter()
        .filter(|(file, _)| {
            let module = module_of(file).join("::");
            !test_modules.iter().any(|test| begins(test, &module))
        })
        .collect()
}

#[test]
fn no_module_names_what_it_must_not_see() {
    let crates = dependencies();
    let mut broken = String::new();
    for (file, (_, stripped)) in program() {
        let module = module_of(&file);
        if file == "lib.rs" {
            continue;
        }
        let Some(wall) = wall_of(&module) else {
            let _ = writeln!(broken, "src/{file}: module {} has no row in WALLS", module[0]);
            continue;
        };
        for (named, line) in named(&stripped.tokens, &module, &crates) {
            let (is_allowed, what) = match named {
                Named::Module(path) => (may_name(wall, &path), format!("crate::{}", path.join("::"))),
                Named::Crate(name) => {
                    let common = wall.module != "model" && COMMON.contains(&name.as_str());
                    let listed = wall.crates.contains(&"*") || wall.crates.contains(&name.as_str());
                    (common || listed, name)
                }
            };
            if !is_allowed {
                let _ = writeln!(broken, "src/{file}:{line}: {} must not name {what}", wall.module);
            }
        }
    }
    assert!(broken.is_empty(), "the walls of tests/it/architecture.rs are broken:\n{broken}");
}

#[test]
fn no_file_has_more_than_one_subject() {
    let files = program();
    let mut long = String::new();
    for (file, (source, stripped)) in &files {
        let lines = source.lines().count() - stripped.test_lines;
        let is_excused = LONG_FILES.iter().any(|(excused, _)| excused == file);
        if (lines > MAX_LINES) != is_excused {
            let _ = writeln!(long, "src/{file}: {lines} lines without tests, excused: {is_excused}");
        }
    }
    for (excused, _) in LONG_FILES {
        assert!(files.contains_key(*excused), "src/{excused} is excused and not there");
    }
    assert!(long.is_empty(), "a file past {MAX_LINES} lines asks to be split, and an excuse must be needed:\n{long}");
}

#[test]
fn the_reader_of_sources_sees_through_groups_comments_and_tests() {
    let source = r##"
        //! use kube::Client;
        use super::{grpc::{self, Server}, Context as C};
        use crate::{model, engine::events::Event};
        /* axum::Router */
        const TEXT: &str = "tonic::Code";
        const RAW: &str = r#"tonic::"Code"#;
        fn f<'a>(c: char) -> kube::Result<()> { c == '"' && Vec::<u8>::new().is_empty(); ::http::x() }
        #[cfg(test)]
        mod tests { use crate::controller; fn g() { [1; 2]; } }
        #[cfg(test)]
        mod testing;
        use axum;
        fn h() { grpc::router(); model::Phase::New; other::x(); }
    "##;
    let crates = ["kube", "axum", "tonic", "http"].map(str::to_owned).into();
    let stripped = without_tests(&tokens(source));
    let module = ["api", "server"].map(str::to_owned);
    let seen: Vec<String> = named(&stripped.tokens, &module, &crates)
        .into_iter()
        .map(|(named, line)| match named {
            Named::Module(path) => format!("{line} {}", path.join("::")),
            Named::Crate(name) => format!("{line} {name}"),
        })
        .collect();
    assert_eq!(
        seen,
        [
            "3 api::grpc::self",
            "3 api::grpc::Server",
            "3 api::Context",
            "4 model",
            "4 engine::events::Event",
            "8 kube",
            "8 http",
            "13 axum",
            "14 api::grpc::router",
            "14 model::Phase::New"
        ]
    );
    assert_eq!((stripped.test_modules, stripped.test_lines), (vec!["testing".to_owned()], 4));
}

#[test]
fn a_row_is_opened_by_its_own_name_only() {
    let wall = |module: &str| WALLS.iter().find(|wall| wall.module == module).expect("a row");
    let path = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
    for (module, named, allowed) in [
        ("api::grpc", "api::Context", true),
        ("api::grpc", "api::http::Problem", false),
        ("api::http", "api::grpc", false),
        ("api", "api::http::router", true),
        ("progress", "engine::events::Event", true),
        ("progress", "engine::Job", false),
        ("controller", "engine::actions::BUILT_IN", false),
        ("controller", "engine::self", true),
        ("engine", "cluster::KubeCluster", false),
        ("engine", "telemetry::metrics::Metrics", true),
        ("model", "telemetry::metrics::Metrics", false),
        ("model", "model::Phase", true),
        ("app", "api::grpc", true),
    ] {
        assert_eq!(may_name(wall(module), &path(named)), allowed, "{module} {named}");
    }
}
