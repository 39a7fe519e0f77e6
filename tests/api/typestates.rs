//! The compiler refuses each wrong program in `tests/api/typestates/`, with the error in the
//! file of the same name. The correct program passes all states in order.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The newest library that cargo has built in this folder. It might have other features than
/// the one that these tests are linked with; the programs need none.
fn library() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let beside = fs::read_dir(own.parent().unwrap()).unwrap();
    let built = beside.filter_map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().ok()?;
        let is_it = name.starts_with("libgenesys_once-") && name.ends_with(".rlib");
        is_it.then(|| (entry.metadata().unwrap().modified().unwrap(), entry.path()))
    });
    built.max().expect("the library is built").1
}

/// The compiler's errors with their places, without explanations.
fn errors(program: &Path, folder: &Path) -> String {
    let library = library();
    let mut with_library = OsString::from("genesys_once=");
    with_library.push(&library);
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let ran = Command::new(compiler)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["--edition", "2024", "--emit", "metadata", "--out-dir"])
        .arg(folder)
        .arg("--extern")
        .arg(with_library)
        .arg("-L")
        .arg(library.parent().unwrap())
        .arg(program)
        .output()
        .unwrap();
    let text = String::from_utf8(ran.stderr).unwrap();
    let errors = errors_in(&text);
    assert_eq!(ran.status.success(), errors.is_empty(), "{text}");
    errors
}

fn errors_in(text: &str) -> String {
    let mut lines = text.lines();
    let mut errors = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with("error") && !line.starts_with("error: aborting") {
            errors.extend([line, lines.next().expect("its place").trim()]);
        }
    }
    errors.join("\n")
}

/// The compiler is called directly: `trybuild` checks all dependencies again in a folder of
/// its own, which took three of the test run's minutes.
#[test]
fn wrong_order_does_not_compile() {
    let folder = Path::new("tests/api/typestates");
    let built = std::env::temp_dir().join(format!("typestates-{}", std::process::id()));
    fs::create_dir_all(&built).unwrap();
    // The same command compiles a program that is right.
    let right = built.join("right.rs");
    fs::write(
        &right,
        "fn main() { drop(genesys_once::MemoryStore::new()) }",
    )
    .unwrap();
    assert_eq!(errors(&right, &built), "");
    let mut wrong = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
        let program = folder.join(entry.unwrap().file_name());
        if program
            .extension()
            .is_some_and(|extension| extension == "rs")
        {
            let expected = program.with_extension("stderr");
            let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join(expected);
            let expected = errors_in(&fs::read_to_string(expected).unwrap());
            assert!(!expected.is_empty(), "{program:?}");
            assert_eq!(errors(&program, &built), expected, "{program:?}");
            wrong += 1;
        }
    }
    assert_eq!(wrong, 7);
    fs::remove_dir_all(built).unwrap();
}

#[cfg(feature = "testing")]
#[tokio::test(start_paused = true)]
async fn right_order_executes() {
    use genesys_once::execution::{Attempt, Execution, Lock, Terms};
    use genesys_once::testing::{ScriptedUpstream, Step};
    use genesys_once::{DataActionRequest, MemoryStore, Served, Upstream as _};

    let upstream = ScriptedUpstream::new(|_| Step::ok(r#"{"receipt": "R-1"}"#));
    let store = MemoryStore::new();
    let request = DataActionRequest::new("custom_-_refund", r#"{"order": 42}"#).unwrap();

    let hashed = Execution::new(request.clone(), upstream.namespace());
    let Ok(Lock::Locked(locked)) = hashed.lock(&store, &Terms::default()).await else {
        panic!("the key is free");
    };
    let Ok(Attempt::Executed(executed)) = locked.execute(&store, &upstream, None).await else {
        panic!("the answer is final");
    };
    let cached = executed.cache(&store).await.map_err(|(_, error)| error);
    assert_eq!(cached.unwrap().into_reply().served(), Served::Upstream);

    let hashed = Execution::new(request, upstream.namespace());
    let Ok(Lock::Cached(cached)) = hashed.lock(&store, &Terms::default()).await else {
        panic!("the outcome is recorded");
    };
    assert_eq!(cached.into_reply().served(), Served::Store);
    assert_eq!(upstream.ledger().total(), 1);
}
