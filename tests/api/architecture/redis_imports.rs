//! No import cycle between the folders and files of the Redis store.

use super::*;

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

/// The paths in a code that begin with `super` or in `crate::store::redis`, which is left
/// out; use trees are expanded.
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

/// The nodes of a graph that are on a cycle or lead to a cycle.
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

/// Red if `connection/shared.rs` imports `topology::node`, and if it imports
/// `connection::pool`.
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
