//! Documents with members in any order, compared with another implementation of RFC 8785: for
//! numbers that a double holds, both must write the same bytes. The other implementation does
//! not share the shortcuts of this crate's reader.

use genesys_once::canonical::canonicalize;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::config;

/// A document as text, with unsorted members.
fn document() -> impl Strategy<Value = String> {
    let quoted = |text: String| serde_json::to_string(&text).unwrap();
    // Short enough that serde_json reads exactly the double that the text spells.
    let number = "-?(0|[1-9][0-9]{0,5})(\\.[0-9]{1,5}0{0,3})?(e[-+]?[0-9])?";
    // About the lengths at which the reader takes shortcuts: 8 bytes of a name, 32 of a
    // member.
    let leaf = prop_oneof![
        number,
        "[a-c\"\\\\\n\u{1}é😂/]{0,12}".prop_map(quoted),
        "[a-d]{16,40}".prop_map(quoted),
        Just("null".to_owned()),
    ];
    leaf.prop_recursive(5, 60, 8, move |inner| {
        let name = "[ab\u{e000}😂é\"]{0,3}[abc]{0,8}";
        let members = btree_map(name, inner.clone(), 0..8);
        let members = members.prop_map(|members| members.into_iter().collect::<Vec<_>>());
        prop_oneof![
            3 => members.prop_shuffle().prop_map(move |members| {
                let member = |(name, value)| format!("{}:{value}", quoted(name));
                format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
            }),
            1 => vec(inner, 0..5).prop_map(|elements| format!("[{}]", elements.join(","))),
        ]
    })
}

proptest! {
    #![proptest_config(config())]

    /// Red if a block is copied to the wrong position, if a number loses a zero too many,
    /// or if members stay unsorted.
    #[test]
    fn reference_implementation_writes_the_same(text in document()) {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json_canonicalizer::to_string(&value).unwrap();
        let canonical = String::from_utf8(canonicalize(text.as_bytes()).unwrap()).unwrap();
        prop_assert_eq!(canonical, expected, "{}", text);
    }
}
