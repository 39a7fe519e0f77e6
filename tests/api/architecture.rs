//! The order of the modules and who may name which package, held against the
//! source: each file imports only from those before it in the list.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules in their order.
const ORDER: [&str; 19] = [
    "key",
    "error",
    "canonical",
    "request",
    "outcome",
    "policy",
    "record",
    "ambient",
    "telemetry",
    "lookup",
    "store",
    "upstream",
    "execution",
    "flights",
    "actors",
    "engine",
    "testing",
    "guide",
    "lib",
];

/// Packages, and the files that may name them: a path, or the beginning of one.
const NAMED_ONLY_IN: [(&str, &[&str]); 12] = [
    ("ractor", &["actors", "engine", "lib.rs"]),
    ("reqwest", &["upstream/genesys"]),
    ("http_body", &["upstream/genesys"]),
    ("redis", &["store/redis"]),
    ("redb", &["store/file"]),
    ("dashmap", &["flights.rs", "store/memory.rs"]),
    ("hyper", &["testing"]),
    ("metrics", &["telemetry/recorded.rs"]),
    ("chacha20poly1305", &["store/encrypted"]),
    ("clap", &["bin"]),
    ("humantime", &["bin"]),
    ("tracing_subscriber", &["bin"]),
];

/// Everything before the stores is pure: it knows no runtime.
const NO_TOKIO: [&str; 7] = [
    "key",
    "error",
    "canonical",
    "request",
    "outcome",
    "policy",
    "record",
];

struct Source {
    /// Relative to `src/`.
    path: String,
    module: String,
    /// The file's own code: no tests, no comments.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    assert!(
        files.len() > 20,
        "only {} files below {}",
        files.len(),
        root.display()
    );
    let relative = |file: &Path| {
        file.strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/")
    };
    files
        .iter()
        .map(|file| {
            let path = relative(file);
            let module = path.split(['/', '.']).next().unwrap().to_owned();
            Source {
                module,
                code: code(&fs::read_to_string(file).unwrap()),
                path,
            }
        })
        // What only tests compile may look everywhere.
        .filter(|source| {
            !source.path.ends_with("/tests.rs") && !source.path.ends_with("exactly_once.rs")
        })
        .collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

/// Without comments and without the tests at the end of a file.
fn code(text: &str) -> String {
    let lines = text
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]");
    lines
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The modules of this crate that a file names.
fn imports(code: &str) -> Vec<String> {
    after("crate::", code)
}

/// The words that follow this one.
fn after(word: &str, code: &str) -> Vec<String> {
    code.match_indices(word)
        .map(|(at, found)| {
            let rest = &code[at + found.len()..];
            rest.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

fn names(code: &str, package: &str) -> bool {
    let path = format!("{package}::");
    code.match_indices(&path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn each_module_imports_only_from_those_before_it() {
    let place: BTreeMap<&str, usize> = ORDER.iter().enumerate().map(|(n, m)| (*m, n)).collect();
    // What the root re-exports, by the module that it comes from.
    let root_names = [
        ("IdempotencyKey", "key"),
        ("Namespace", "key"),
        ("RecordName", "key"),
        ("BoxFuture", "store"),
        ("Error", "error"),
        ("StoreError", "error"),
        ("RecordState", "record"),
    ];
    let mut wrong = Vec::new();
    // The command line is a crate of its own, which sees the library from outside.
    for source in sources().iter().filter(|source| source.module != "bin") {
        let own = *place
            .get(source.module.as_str())
            .unwrap_or_else(|| panic!("{} is in no place of the order", source.path));
        let mut all = imports(&source.code);
        if !source.path.contains('/') {
            // Of a file at the top, `super` is the crate.
            all.extend(after("super::", &source.code));
        }
        for import in all {
            let module = root_names.iter().find(|(name, _)| *name == import);
            let module = module.map_or(import.as_str(), |(_, module)| module);
            match place.get(module) {
                Some(of) if *of <= own => {}
                Some(_) => wrong.push(format!("{} imports from {module}", source.path)),
                None => wrong.push(format!(
                    "{} imports {import}, which has no place",
                    source.path
                )),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn packages_are_named_only_where_they_belong() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (package, places) in NAMED_ONLY_IN {
            let allowed = places.iter().any(|place| source.path.starts_with(place));
            if names(&source.code, package) && !allowed {
                wrong.push(format!("{} names {package}", source.path));
            }
        }
        if NO_TOKIO.contains(&source.module.as_str()) && names(&source.code, "tokio") {
            wrong.push(format!("{} names tokio", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_checks_see_what_they_look_for() {
    let code = code(
        "use crate::engine::Engine; // crate::nothing\nlet x = ractor::call!();\n#[cfg(test)]\nuse crate::testing::X;",
    );
    assert_eq!(imports(&code), ["engine"]);
    assert!(names(&code, "ractor") && !names(&code, "redis"));
    assert!(!names("crate::store::redis::x", "redis"));
}

#[test]
fn files_keep_to_one_idea() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().count();
        assert!(
            lines <= 400,
            "{} has {lines} lines: make it a folder",
            file.display()
        );
        assert!(
            text.starts_with("//!"),
            "{} does not say what it owns",
            file.display()
        );
    }
}

/// Red with a link to a file that is not there, and with a guide left out.
#[test]
fn the_readme_links_to_what_is_there_and_to_every_guide() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let links = readme
        .match_indices("](")
        .map(|(at, _)| readme[at + 2..].split(')').next().unwrap());
    let files: Vec<_> = links.filter(|link| !link.contains(':')).collect();
    for file in &files {
        assert!(root.join(file).is_file(), "README links to {file}");
    }
    let mut guides = 0;
    for entry in fs::read_dir(root.join("src/guide")).unwrap() {
        let guide = format!("src/guide/{}", entry.unwrap().file_name().to_str().unwrap());
        assert!(files.contains(&guide.as_str()), "README lacks {guide}");
        guides += 1;
    }
    assert!(guides >= 6, "{guides} guides");
}
