//! Checks of the source itself: the order of the modules, which module uses which
//! package, the size of files, the words of the prose, and what the pages name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

mod prose;
mod redis_imports;

/// The modules in their order.
const ORDER: [&str; 21] = [
    "key",
    "error",
    "canonical",
    "request",
    "outcome",
    "policy",
    "genesys",
    "record",
    "ambient",
    "telemetry",
    "lookup",
    "store",
    "upstream",
    "genesys/client",
    "execution",
    "flights",
    "actors",
    "engine",
    "testing",
    "guide",
    "lib",
];

/// Packages, and the files that may name them: a path, or the beginning of a path.
const NAMED_ONLY_IN: [(&str, &[&str]); 13] = [
    ("ractor", &["actors", "engine", "lib.rs"]),
    ("reqwest", &["genesys/client"]),
    ("http_body", &["genesys/client"]),
    ("redis", &["store/redis"]),
    ("redb", &["store/file"]),
    ("dashmap", &["flights.rs", "store/memory.rs"]),
    ("hyper", &["testing"]),
    ("metrics", &["telemetry/facade.rs"]),
    ("chacha20poly1305", &["store/encrypted"]),
    ("tower_service", &["engine/tower.rs"]),
    ("clap", &["bin"]),
    ("humantime", &["bin"]),
    ("tracing_subscriber", &["bin"]),
];

/// All modules before the stores are pure: they use no runtime.
const NO_TOKIO: [&str; 8] = [
    "key",
    "error",
    "canonical",
    "request",
    "outcome",
    "policy",
    "genesys",
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
            let module = module(&path).to_owned();
            Source {
                module,
                code: code(&fs::read_to_string(file).unwrap()),
                path,
            }
        })
        // Code that only tests compile may import from any module.
        .filter(|source| {
            !source.path.ends_with("/tests.rs") && !source.path.ends_with("exactly_once.rs")
        })
        .collect()
}

/// The module of a file: its first folder; only the platform's client is a module of its
/// own.
fn module(path: &str) -> &str {
    match path.strip_prefix("genesys/client") {
        Some(_) => "genesys/client",
        None => path.split(['/', '.']).next().unwrap(),
    }
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    walk_for(&["rs"], folder, files);
}

/// The files with one of these endings, below a folder.
fn walk_for(endings: &[&str], folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                walk_for(endings, &path, files);
            }
        } else if path
            .extension()
            .is_some_and(|e| endings.iter().any(|x| e == *x))
        {
            files.push(path);
        }
    }
}

/// The code without comments, and without the tests at the end of a file.
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

/// The identifiers that directly follow this text.
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
fn module_imports_only_from_earlier_modules() {
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
    // The command line is a separate crate, which sees the library from outside.
    for source in sources().iter().filter(|source| source.module != "bin") {
        let own = *place
            .get(source.module.as_str())
            .unwrap_or_else(|| panic!("{} is in no place of the order", source.path));
        let mut all = imports(&source.code);
        if !source.path.contains('/') {
            // In a file at the top, `super` is the crate.
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

/// Words of one platform: its name, its hosts, its header, its error codes, its paths.
const VENDOR: [&str; 5] = ["Genesys", "inin-", "purecloud", "ACTION.", "dataactions"];

/// Code and comments that may name the platform: the beginnings of their paths.
const VENDOR_PLACES: [&str; 5] = ["genesys", "testing", "guide", "lib.rs", "bin"];

/// The vendor's words in a text, without the crate's own name.
fn vendor_words(text: &str) -> Vec<&'static str> {
    let text = text
        .replace("ININ-", "inin-")
        .replace("DataActions", "dataactions");
    VENDOR
        .into_iter()
        .filter(|word| text.contains(word))
        .collect()
}

/// Red with a vendor's word in a file of the core.
#[test]
fn vendor_words_stand_only_in_the_vendor_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk_for(&["rs", "md", "lua"], &root, &mut files);
    let (mut wrong, mut own) = (Vec::new(), 0);
    for file in files {
        let path = file.strip_prefix(&root).unwrap().display().to_string();
        let found = vendor_words(&fs::read_to_string(&file).unwrap());
        if path.starts_with("genesys") {
            own += found.len();
        }
        if !VENDOR_PLACES.iter().any(|place| path.starts_with(place)) {
            wrong.extend(found.iter().map(|word| format!("{path} names {word}")));
        }
    }
    assert!(own > 10, "only {own} in the vendor's own module");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn packages_are_named_only_in_their_modules() {
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
fn checks_find_imports_and_package_names() {
    let code = code(
        "use crate::engine::Engine; // crate::nothing\nlet x = ractor::call!();\n#[cfg(test)]\nuse crate::testing::X;",
    );
    assert_eq!(imports(&code), ["engine"]);
    assert!(names(&code, "ractor") && !names(&code, "redis"));
    assert!(!names("crate::store::redis::x", "redis"));
}

#[test]
fn files_have_at_most_400_lines_and_a_purpose() {
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

/// Red with a test file that no `[[test]]` names: cargo would never run it.
#[test]
fn each_test_file_is_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let metadata = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(root)
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let targets: Vec<_> = packages
        .iter()
        .flat_map(|package| package["targets"].as_array().unwrap())
        .filter_map(|target| fs::canonicalize(target["src_path"].as_str().unwrap()).ok())
        .collect();
    for entry in fs::read_dir(root.join("tests")).unwrap() {
        let path = fs::canonicalize(entry.unwrap().path()).unwrap();
        let main = path.join("main.rs");
        let file = if main.is_file() { main } else { path };
        if file.extension().is_some_and(|extension| extension == "rs") {
            assert!(targets.contains(&file), "{} is no target", file.display());
        }
    }
}

/// Other items are exported only by the module that they belong to. Red with one more `pub
/// use`.
#[test]
fn crate_root_exports_25_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let lib = fs::read_to_string(root).unwrap();
    let exports = lib.split("pub use self::").skip(1);
    let names = exports.flat_map(|export| {
        let (names, _) = export.split_once(';').unwrap();
        names.split(',')
    });
    let names = names.filter(|name| name.contains(char::is_alphabetic));
    assert_eq!(names.count(), 25);
}
