//! Checks of the source itself: the order of the modules, which module uses which
//! package, the size of files, the words of the prose, and what the pages name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

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

/// Packages, and the files that may name them: a path, or the beginning of one.
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

/// Everything before the stores is pure: it knows no runtime.
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
        // What only tests compile may look everywhere.
        .filter(|source| {
            !source.path.ends_with("/tests.rs") && !source.path.ends_with("exactly_once.rs")
        })
        .collect()
}

/// The module of a file: its first folder, but the platform's client has a place of
/// its own.
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

/// Words of one platform: its name, its hosts, its header, its error codes, its paths.
const VENDOR: [&str; 5] = ["Genesys", "inin-", "purecloud", "ACTION.", "dataactions"];

/// Code and comments that may name the platform: the beginnings of their paths.
const VENDOR_PLACES: [&str; 5] = ["genesys", "testing", "guide", "lib.rs", "bin"];

/// The vendor's words in a text, the crate's own name left out.
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

/// The files of `store/redis` and the files that each of them imports: paths below
/// `store/redis`, without `.rs`.
fn redis_imports() -> BTreeMap<String, BTreeSet<String>> {
    let sources = sources();
    let files: BTreeMap<_, _> = sources
        .iter()
        .filter_map(|source| {
            let path = source.path.strip_prefix("store/redis/")?;
            Some((path.strip_suffix(".rs")?.to_owned(), &source.code))
        })
        .collect();
    let imported = |file: &String, path: Vec<String>| {
        let (mut module, mut target) = (Vec::new(), None);
        if path[0] == "super" {
            module = file.split('/').map(str::to_owned).collect();
        }
        for segment in path {
            match segment.as_str() {
                "super" => _ = module.pop(),
                _ => module.push(segment),
            }
            target = Some(module.join("/"))
                .filter(|it| files.contains_key(it))
                .or(target);
        }
        target.filter(|target| target != file)
    };
    let edges = files.iter().map(|(file, code)| {
        let paths = paths(code).into_iter();
        let targets = paths.filter_map(|path| imported(file, path)).collect();
        (file.clone(), targets)
    });
    edges.collect()
}

/// The paths in a code that begin with `super` or in `crate::store::redis`, which is
/// left out; use trees are expanded.
fn paths(code: &str) -> Vec<Vec<String>> {
    fn tree(rest: &str, path: &[String], paths: &mut Vec<Vec<String>>) -> usize {
        let mut path = path.to_vec();
        let mut at = 0;
        loop {
            let skipped = rest[at..].len() - rest[at..].trim_start().len();
            if rest[at + skipped..].starts_with('{') {
                at += skipped + 1;
                while !rest[at..].trim_start().starts_with('}') {
                    at += tree(&rest[at..], &path, paths);
                    at += rest[at..].find([',', '}']).unwrap();
                    at += usize::from(rest[at..].starts_with(','));
                }
                return at + rest[at..].find('}').unwrap() + 1;
            }
            let start = at + skipped;
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            let length = rest[start..].find(|c| !is_name(c));
            at = start + length.unwrap_or(rest.len() - start);
            path.push(rest[start..at].to_owned());
            if !rest[at..].starts_with("::") {
                paths.push(path);
                return at;
            }
            at += 2;
        }
    }
    let mut paths = Vec::new();
    for (begin, skip) in [("super::", 0), ("crate::store::redis::", 21)] {
        for (at, _) in code.match_indices(begin) {
            let before = code[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                tree(&code[at + skip..], &[], &mut paths);
            }
        }
    }
    paths
}

/// The nodes of a graph that are on a cycle or lead to one.
fn cyclic(mut edges: BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    loop {
        let nodes: BTreeSet<_> = edges.keys().cloned().collect();
        let before = edges.len();
        edges.retain(|_, targets| {
            targets.retain(|target| nodes.contains(target));
            !targets.is_empty()
        });
        if edges.len() == before {
            return edges;
        }
    }
}

/// Red with an import of `topology::node` in `connection/shared.rs`, and with one of
/// `connection::pool` there.
#[test]
fn redis_store_has_no_import_cycle() {
    let files = redis_imports();
    let edges: usize = files.values().map(BTreeSet::len).sum();
    assert!(
        files.len() > 30 && edges > 100,
        "{edges} imports: {files:?}"
    );
    let folder = |file: &String| file.split('/').next().unwrap().to_owned();
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, targets) in &files {
        let others = targets
            .iter()
            .map(folder)
            .filter(|other| *other != folder(file));
        folders.entry(folder(file)).or_default().extend(others);
    }
    assert_eq!(cyclic(folders), BTreeMap::new(), "between folders");
    assert_eq!(cyclic(files), BTreeMap::new(), "between files");
}

#[test]
fn import_paths_are_expanded() {
    let code = "use super::{a, b::{C, d::E}};\nuse crate::store::redis::x::Y;\npub(super) fn f() -> super::super::z {}";
    let found: Vec<_> = paths(code).iter().map(|path| path.join("::")).collect();
    assert_eq!(
        found,
        [
            "super::a",
            "super::b::C",
            "super::b::d::E",
            "super::super::z",
            "x::Y"
        ]
    );
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

/// Red with a link to a file that is not there, and with a guide left out.
#[test]
fn readme_links_to_existing_files_and_every_guide() {
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

/// Text that readers of the project see: code, comments and strings included.
const PROSE: [&str; 9] = [
    "src",
    "tests",
    "examples",
    "benches",
    ".github",
    ".ci",
    "README.md",
    "CHANGELOG.md",
    "Cargo.toml",
];

/// Correct uses of a listed word: the end of a path, and the phrase around the word.
const ALLOWED: [(&str, &str); 3] = [
    // This list.
    ("tests/api/architecture.rs", "unsettled"),
    // The name of a table in the file: its format.
    ("src/store/file/tables.rs", "unsettled  NAMESPACE"),
    ("src/store/file/tables.rs", "new(\"unsettled\")"),
];

/// The words of a text, each with its line. Punctuation is a word, so that no
/// phrase runs across it; what marks a line as a comment or continues a string is none.
fn words(text: &str) -> Vec<(usize, String)> {
    let mut words: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim().trim_start_matches(['/', '!', '#', '-', '>']);
        let mut joins = false;
        for c in line.trim_end_matches('\\').to_lowercase().chars() {
            let part = c.is_alphanumeric() || c == '_';
            match words.last_mut() {
                Some((_, word)) if part && joins => word.push(c),
                _ if c.is_whitespace() => {}
                _ => words.push((number + 1, c.into())),
            }
            // A genitive is two words: without its `'s` it is a listed word, or none.
            joins = part || c == '\'';
        }
    }
    words
}

/// Where a text has one of the phrases: line and phrase.
fn listed(text: &str, phrases: &[String]) -> Vec<(usize, String)> {
    let phrases = phrases.iter().map(|phrase| words(phrase));
    let phrases: Vec<Vec<_>> = phrases
        .map(|phrase| phrase.into_iter().map(|(_, word)| word).collect())
        .collect();
    let text = words(text);
    let mut found = Vec::new();
    for (at, (line, word)) in text.iter().enumerate() {
        for phrase in phrases.iter().filter(|phrase| phrase[0] == *word) {
            let here = text[at..].iter().map(|(_, word)| word);
            if here.take(phrase.len()).eq(phrase) {
                found.push((*line, phrase.join(" ")));
            }
        }
    }
    found
}

/// `tests/support/words.txt`, without its comments.
fn word_list() -> Vec<String> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/words.txt");
    let list = fs::read_to_string(list).unwrap();
    let words = list.lines().map(str::trim);
    let words = words.filter(|line| !line.is_empty() && !line.starts_with('#'));
    words.map(str::to_owned).collect()
}

#[test]
fn prose_has_no_listed_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for place in PROSE {
        let place = root.join(place);
        if place.is_dir() {
            walk_for(
                &["rs", "md", "lua", "toml", "yml", "sh"],
                &place,
                &mut files,
            );
        } else {
            files.push(place);
        }
    }
    assert!(files.len() > 200, "only {} files", files.len());
    let list = word_list();
    let mut wrong = Vec::new();
    for file in files {
        let mut text = fs::read_to_string(&file).unwrap();
        for (_, phrase) in ALLOWED.iter().filter(|(end, _)| file.ends_with(end)) {
            text = text.replace(phrase, "");
        }
        let path = file.strip_prefix(root).unwrap().display();
        let found = listed(&text, &list).into_iter();
        wrong.extend(found.map(|(line, word)| format!("{path}:{line}: {word}")));
    }
    assert!(
        wrong.is_empty(),
        "{}\n{} found",
        wrong.join("\n"),
        wrong.len()
    );
}

#[test]
fn each_listed_word_is_found_with_its_line() {
    let list = word_list();
    assert!(list.len() > 50, "{} words", list.len());
    for word in &list {
        let (first, rest) = word.split_once(' ').unwrap_or((word, ""));
        let text = format!(
            "/// The key.\n//! It `{first}\n    /// {}`'s.",
            rest.to_uppercase()
        );
        let text = if rest.is_empty() {
            text
        } else {
            text.replace('`', "")
        };
        assert!(
            listed(&text, &list).contains(&(2, word.replace('\'', " '"))),
            "{word}"
        );
    }
    assert_eq!(listed("whole any_more, wholly is. To be", &list), []);
}

/// The pages outside of rustdoc's comments: path and text.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for folder in ["src/guide", ".github", "examples", "benches"] {
        walk_for(&["md"], &root.join(folder), &mut files);
    }
    let name = |file: &Path| file.strip_prefix(root).unwrap().display().to_string();
    files
        .iter()
        .map(|file| (name(file), fs::read_to_string(file).unwrap()))
        .collect()
}

/// Red with a file or a test binary that moved.
#[test]
fn pages_name_files_and_test_binaries_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (page, text) in pages() {
        for span in text.split('`').skip(1).step_by(2) {
            let folders = ["src/", "tests/", "benches/", "examples/", ".ci/", ".cargo/"];
            if folders.iter().any(|folder| span.starts_with(folder)) && !span.contains(' ') {
                seen += 1;
                let file = span.split('*').next().unwrap();
                if !root.join(file).exists() {
                    wrong.push(format!("{page}: {span}"));
                }
            }
        }
        for binary in after("--test ", &text) {
            seen += 1;
            if !root.join(format!("tests/{binary}.rs")).is_file() {
                wrong.push(format!("{page}: --test {binary}"));
            }
        }
    }
    assert!(seen > 50, "only {seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Red with a log message that was reworded.
#[test]
fn operating_quotes_log_messages_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("src/guide/operating.md")).unwrap();
    let mut files = Vec::new();
    walk(&root.join("src"), &mut files);
    let sources: Vec<_> = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let before = ["warning `", "log: `", "log says `"];
    let quoted = before.iter().flat_map(|before| page.split(before).skip(1));
    let quoted: Vec<_> = quoted.map(|rest| rest.split('`').next().unwrap()).collect();
    assert!(quoted.len() >= 5, "{quoted:?}");
    for message in quoted {
        let begins = format!("\"{message}");
        let exists = sources.iter().any(|source| source.contains(&begins));
        assert!(exists, "no log message begins with: {message}");
    }
}

/// Red with a module that the table leaves out, or has in another place.
#[test]
fn contributing_lists_the_modules_in_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("src/guide/contributing.md")).unwrap();
    let table = page.split("| module |").nth(1).unwrap();
    let table = table.split("\n\n").next().unwrap();
    let cells = table
        .lines()
        .skip(2)
        .map(|row| row.split('|').nth(1).unwrap());
    let modules: Vec<_> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    assert_eq!(modules, ORDER[..ORDER.len() - 1]);
}

/// Red with an answer of 150 words or more.
#[test]
fn design_answers_in_less_than_150_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let design = fs::read_to_string(root.join("src/guide/design.md")).unwrap();
    let answers: Vec<_> = design.split("\n### ").skip(1).collect();
    assert!(answers.len() > 25, "{} answers", answers.len());
    for answer in answers {
        let (question, answer) = answer.split_once('\n').unwrap();
        let answer = answer.split("\n## ").next().unwrap();
        let is_word = |word: &&str| word.contains(char::is_alphanumeric);
        let words = answer.split_whitespace().filter(is_word).count();
        assert!(words < 150, "{question} {words} words");
        assert!(question.ends_with('?'), "{question}");
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
