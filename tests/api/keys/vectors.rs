//! RFC 8785's published files, byte for byte. They are not in this repository:
//! `GENESYS_ONCE_VECTORS` names the folder with `input/` and `output/`. The unit tests of
//! `canonical` cover the same cases with vectors of their own.

use std::io::Write;
use std::path::Path;

use genesys_once::canonical::canonicalize;

/// 333333333.33333329 is the only number in the files that is not the shortest form of a
/// double. RFC 8785 rounds it, and this crate keeps its digits: the only difference.
const NOT_SHORTEST: (&str, &str) = ("333333333.33333329", "333333333.3333333");

#[test]
fn published_vectors_match_byte_for_byte() {
    let Some(folder) = std::env::var_os("GENESYS_ONCE_VECTORS") else {
        // Written directly, since the test harness would capture a print.
        let _ = writeln!(
            std::io::stderr(),
            "RFC 8785's vectors did NOT run: GENESYS_ONCE_VECTORS names no folder"
        );
        return;
    };
    let folder = Path::new(&folder);
    let mut names: Vec<_> = std::fs::read_dir(folder.join("input"))
        .expect("GENESYS_ONCE_VECTORS names a folder with input/ and output/")
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert!(names.len() >= 6, "the RFC's files are six: {names:?}");
    let mut kept_digits = 0;
    for name in names {
        let input = std::fs::read(folder.join("input").join(&name)).unwrap();
        let expected = std::fs::read_to_string(folder.join("output").join(&name)).unwrap();
        let expected = if name == "values.json" {
            assert_eq!(expected.matches(NOT_SHORTEST.1).count(), 1);
            kept_digits += 1;
            expected.replace(NOT_SHORTEST.1, NOT_SHORTEST.0)
        } else {
            expected
        };
        let canonical = String::from_utf8(canonicalize(&input).unwrap()).unwrap();
        assert_eq!(canonical, expected, "{name:?}");
        assert_eq!(
            canonicalize(expected.as_bytes()).unwrap(),
            expected.as_bytes()
        );
    }
    assert_eq!(kept_digits, 1);
}
