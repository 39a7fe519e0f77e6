//! Own vectors: what the canonical form is, and what is refused where.

use super::*;

fn canonical(json: &str) -> String {
    let bytes = canonicalize(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"));
    String::from_utf8(bytes).unwrap()
}

fn without(json: &str, pointers: &[&str]) -> String {
    let pointers: Vec<_> = pointers.iter().map(|p| Pointer::read(p).unwrap()).collect();
    let set = PointerSet::new(&pointers);
    let bytes = with_canonical(json.as_bytes(), &set, <[u8]>::to_vec).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn refusal(json: impl AsRef<[u8]>) -> (usize, &'static str) {
    let json = json.as_ref();
    match canonicalize(json) {
        Ok(canonical) => panic!(
            "{:?} became {:?}",
            String::from_utf8_lossy(json),
            String::from_utf8_lossy(&canonical)
        ),
        Err(error) => (error.offset, error.reason),
    }
}

#[test]
fn white_space_is_removed() {
    for json in [
        "{\"a\":[1,{}],\"b\":[]}",
        " {\t\"a\" :\n[ 1 , { } ]\r,\"b\":[ ] } \n",
    ] {
        assert_eq!(canonical(json), r#"{"a":[1,{}],"b":[]}"#);
    }
    assert_eq!(canonical(" null "), "null");
    assert_eq!(canonical("\n7"), "7");
    assert_eq!(canonical("\"x\"\n"), "\"x\"");
}

#[test]
fn members_are_sorted_at_every_level() {
    for (json, expected) in [
        (r#"{"b":1,"a":2}"#, r#"{"a":2,"b":1}"#),
        (r#"{"c":1,"a":2,"b":3}"#, r#"{"a":2,"b":3,"c":1}"#),
        (
            r#"[{"b":{"d":1,"c":[{"f":1,"e":2},0]},"a":{"h":3,"g":4}},{"z":1}]"#,
            r#"[{"a":{"g":4,"h":3},"b":{"c":[{"e":2,"f":1},0],"d":1}},{"z":1}]"#,
        ),
        (
            r#"{"a":{"y":1,"x":2},"b":[{"y":1,"x":2},{"y":3,"x":4}]}"#,
            r#"{"a":{"x":2,"y":1},"b":[{"x":2,"y":1},{"x":4,"y":3}]}"#,
        ),
        (r#"{"aa":1,"a":2,"":3}"#, r#"{"":3,"a":2,"aa":1}"#),
        (r#"{"10":1,"9":2,"1":3}"#, r#"{"1":3,"10":1,"9":2}"#),
        (r#"{"a":1,"B":2,"_":3}"#, r#"{"B":2,"_":3,"a":1}"#),
        (
            r#"{"a long name, 2":1,"a long name, 1":2,"a long name":3}"#,
            r#"{"a long name":3,"a long name, 1":2,"a long name, 2":1}"#,
        ),
        (
            r#"{"a":1,"\u0000":2,"a\u0000":3}"#,
            r#"{"\u0000":2,"a":1,"a\u0000":3}"#,
        ),
    ] {
        assert_eq!(canonical(json), expected, "{json}");
        assert_eq!(canonical(expected), expected, "again: {json}");
    }
}

#[test]
fn names_are_compared_by_utf16_code_units() {
    // In UTF-8 and by code points, U+FB33 comes before U+1F602.
    let expected = "{\"\\r\":1,\"1\":2,\"\u{80}\":3,\"ö\":4,\"€\":5,\"\u{d7ff}\":6,\"😂\":7,\"\u{10ffff}\":8,\"\u{e000}\":9,\"\u{fb33}\":10,\"\u{ffff}\":11}";
    let shuffled = "{\"\u{ffff}\":11,\"\u{fb33}\":10,\"\\u00f6\":4,\"😂\":7,\"\u{10ffff}\":8,\"\u{e000}\":9,\"\\u000d\":1,\"1\":2,\"\\u20ac\":5,\"\u{80}\":3,\"\u{d7ff}\":6}";
    assert_eq!(canonical(shuffled), expected);
    // The same behind a common beginning, escaped and not.
    for beginning in ["123456", "1234567", "12345678", "\u{fb33}\u{fb33}😂x"] {
        let expected = format!("{{\"{beginning}😂\":1,\"{beginning}\u{fb33}\":2}}");
        for (smiley, dagesh) in [("😂", "\u{fb33}"), ("\\ud83D\\ude02", "\\ufB33")] {
            let json = format!("{{\"{beginning}{dagesh}\":2,\"{beginning}{smiley}\":1}}");
            assert_eq!(canonical(&json), expected, "{json}");
        }
    }
}

#[test]
fn string_has_one_spelling() {
    for (json, expected) in [
        (r#""\u0041\/\u00e9""#, "\"A/é\""),
        (r#""\u0022\u005c\"\\""#, r#""\"\\\"\\""#),
        (r#""\u0008\u0009\u000a\u000c\u000d""#, r#""\b\t\n\f\r""#),
        (r#""\b\t\n\f\r""#, r#""\b\t\n\f\r""#),
        (r#""\u000B\u001F\u0000""#, r#""\u000b\u001f\u0000""#),
        (r#""\uD83D\uDE02 \ud83d\ude02""#, "\"😂 😂\""),
        (
            "\"\u{7f}\u{80}\u{2028}\u{feff}\"",
            "\"\u{7f}\u{80}\u{2028}\u{feff}\"",
        ),
        (r#""\u007f\u2028\ufeff""#, "\"\u{7f}\u{2028}\u{feff}\""),
        (r#""plain \u0078 plain \u0079""#, r#""plain x plain y""#),
        (r#"["\u0061","b"]"#, r#"["a","b"]"#),
        // Composed and decomposed stay apart.
        (r#"["\u00c5","A\u030a"]"#, "[\"\u{c5}\",\"A\u{30a}\"]"),
    ] {
        assert_eq!(canonical(json), expected, "{json}");
    }
}

#[test]
fn number_is_an_exact_decimal() {
    for (json, expected) in [
        ("0", "0"),
        ("-0", "0"),
        ("0.0", "0"),
        ("-0.000e5", "0"),
        ("0e99999999999999999999", "0"),
        ("1", "1"),
        ("1.0", "1"),
        ("10e-1", "1"),
        ("1E0", "1"),
        ("1e+00", "1"),
        ("0.1e1", "1"),
        ("-1.50", "-1.5"),
        ("150e-2", "1.5"),
        ("-0.5", "-0.5"),
        ("100", "100"),
        ("1e2", "100"),
        ("1e20", "100000000000000000000"),
        ("1e21", "1e+21"),
        ("123e20", "1.23e+22"),
        ("100000000000000000000", "100000000000000000000"),
        ("1000000000000000000000", "1e+21"),
        ("123456789012345678901", "123456789012345678901"),
        ("1234567890123456789012", "1.234567890123456789012e+21"),
        ("123456789012345678901.5", "123456789012345678901.5"),
        ("1234567890123456789012.5", "1.2345678901234567890125e+21"),
        ("0.000001", "0.000001"),
        ("0.0000001", "1e-7"),
        ("1e-6", "0.000001"),
        ("1e-7", "1e-7"),
        ("0.00000012300", "1.23e-7"),
        ("0.00000123", "0.00000123"),
        ("12.3e-7", "0.00000123"),
        ("-1234.5e-9", "-0.0000012345"),
        ("1234.5e2", "123450"),
        ("12.345e1", "123.45"),
        ("1e400", "1e+400"),
        ("-1E400", "-1e+400"),
        ("10e399", "1e+400"),
        ("1e-400", "1e-400"),
        ("9007199254740992", "9007199254740992"),
        ("9007199254740993", "9007199254740993"),
        ("18446744073709551616", "18446744073709551616"),
        (
            "0.1000000000000000055511151231257827",
            "0.1000000000000000055511151231257827",
        ),
        ("1e1000000000000000", "1e+1000000000000000"),
        ("0.001e1000000000000003", "1e+1000000000000000"),
        ("1000e-1000000000000003", "1e-1000000000000000"),
    ] {
        assert_eq!(canonical(json), expected, "{json}");
        assert_eq!(canonical(expected), expected, "again: {json}");
    }
}

#[test]
fn malformed_json_is_refused_at_its_offset() {
    for (json, offset) in [
        ("", 0),
        ("  ", 2),
        ("{", 1),
        ("[", 1),
        ("[1", 2),
        ("[1,", 3),
        ("{\"a\"", 4),
        ("{\"a\":", 5),
        ("{\"a\":1", 6),
        ("{\"a\":1,", 7),
        ("[1,]", 3),
        ("{\"a\":1,}", 7),
        ("{,}", 1),
        ("[,1]", 1),
        ("[1 2]", 3),
        ("{\"a\" 1}", 5),
        ("{a:1}", 1),
        ("{'a':1}", 1),
        ("{1:1}", 1),
        ("]", 0),
        ("[1}", 2),
        ("{\"a\":1]", 6),
        ("tru", 3),
        ("trux", 3),
        ("nul", 3),
        ("True", 0),
        ("falsey", 5),
        ("NaN", 0),
        ("Infinity", 0),
        ("+1", 0),
        (".5", 0),
        ("-", 1),
        ("-x", 1),
        ("1.", 2),
        ("1.e5", 2),
        ("1e", 2),
        ("1e+", 3),
        ("1ex", 2),
        ("01", 1),
        ("-01", 2),
        ("00", 1),
        ("0x10", 1),
        ("1_000", 1),
        ("\"", 1),
        ("\"abc", 4),
        ("\"a\nb\"", 2),
        ("\"a\u{1f}\"", 2),
        ("\"\\x\"", 1),
        ("\"\\", 2),
        ("\"\\u12", 5),
        ("\"\\u12x4\"", 5),
        ("\"\\u+123\"", 3),
        ("// x\n1", 0),
        ("1 // x", 2),
        ("\u{a0}1", 0),
        ("1 2", 2),
        ("{} {}", 3),
        ("null,", 4),
        ("[\u{c}1]", 1),
    ] {
        assert_eq!(refusal(json).0, offset, "{json:?}");
    }
}

#[test]
fn ambiguous_json_is_refused() {
    assert_eq!(
        refusal(r#"{"a":1,"b":2,"a":3}"#),
        (13, "duplicate member name")
    );
    assert_eq!(
        refusal(r#"{"a":1,"\u0061":3}"#),
        (7, "duplicate member name")
    );
    assert_eq!(
        refusal(r#"[{"x":{"😂":1,"\ud83d\ude02":1}}]"#),
        (16, "duplicate member name")
    );
    assert_eq!(
        refusal(r#"{"c":0,"b":1,"a":2,"b":3,"a":4,"b":5}"#),
        (19, "duplicate member name")
    );
    assert_eq!(refusal(r#"{"":0,"":1}"#), (6, "duplicate member name"));
    assert_eq!(refusal(r#"["\ud83d"]"#), (2, "lone surrogate"));
    assert_eq!(refusal(r#"["ab\ude02\ud83d"]"#), (4, "lone surrogate"));
    assert_eq!(refusal(r#""\ud83dx""#), (1, "lone surrogate"));
    assert_eq!(refusal(r#""\ud83d\n""#), (1, "lone surrogate"));
    assert_eq!(refusal(r#""\ud83d\u0041""#), (1, "lone surrogate"));
    assert_eq!(refusal(r#""\ud83d\ud83d\ude02""#), (1, "lone surrogate"));
    assert_eq!(refusal(r#"{"\udc00":1}"#), (2, "lone surrogate"));
    assert_eq!(refusal("\u{feff}{}"), (0, "byte order mark"));
    assert_eq!(refusal("{} \u{feff}"), (3, "text after the value"));
    assert_eq!(refusal("1e1000000000000001"), (0, "number out of range"));
    assert_eq!(refusal("[10e1000000000000000]"), (1, "number out of range"));
    assert_eq!(
        refusal("[0, -1e-99999999999999999999999]"),
        (4, "number out of range")
    );
    assert_eq!(refusal(b"\"a\xff\""), (2, "invalid UTF-8"));
    assert_eq!(refusal(b"\"\xed\xa0\xbd\""), (1, "invalid UTF-8"));
    assert_eq!(refusal(b"\"\xc0\x80\""), (1, "invalid UTF-8"));
    assert_eq!(refusal(b"{}\xff"), (2, "invalid UTF-8"));
    assert_eq!(refusal(b"{x\xff"), (1, "expected a member name"));
    assert_eq!(refusal(b"\xff\xfe{\0}\0"), (0, "invalid UTF-8"));
}

#[test]
fn depth_128_is_the_deepest() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"b\":1,\"a\":", "}]")] {
        let containers = 1 + usize::from(open.starts_with("[{"));
        let nested = |depth: usize| {
            let times = depth / containers;
            format!("{}0{}", open.repeat(times), close.repeat(times))
        };
        canonical(&nested(128));
        let deep = nested(130);
        let offset = open.len() * 128 / containers;
        assert_eq!(refusal(&deep), (offset, "nested too deeply"), "{deep}");
    }
    // Siblings do not add up.
    canonical(&format!("[{}0]", "[[]],".repeat(1000)));
}

#[test]
fn ignored_part_is_read_and_omitted() {
    let json = r#"{"b":{"x":1,"y":[1,2,3]},"a":2,"a/b":3,"m~n":4,"é":5,"0":[[6]]}"#;
    for (pointers, expected) in [
        (
            &[][..],
            r#"{"0":[[6]],"a":2,"a/b":3,"b":{"x":1,"y":[1,2,3]},"m~n":4,"é":5}"#,
        ),
        (
            &["/a", "/é", "/0", "/nothing"],
            r#"{"a/b":3,"b":{"x":1,"y":[1,2,3]},"m~n":4}"#,
        ),
        (
            &["/a~1b", "/m~0n", "/b/y/1", "/0/0/0"],
            r#"{"0":[[]],"a":2,"b":{"x":1,"y":[1,3]},"é":5}"#,
        ),
        (
            &["/b/y/01", "/b/y/-", "/b/y/3", "/b/y/+1", "/a/0", "/b/z/x"],
            r#"{"0":[[6]],"a":2,"a/b":3,"b":{"x":1,"y":[1,2,3]},"m~n":4,"é":5}"#,
        ),
        (
            &["/b/x", "/b/y", "/b/y/0", "/a", "/a~1b", "/m~0n", "/é", "/0"],
            r#"{"b":{}}"#,
        ),
        (
            &["/b/y/0", "/b/y/1", "/b/y/2"],
            r#"{"0":[[6]],"a":2,"a/b":3,"b":{"x":1,"y":[]},"m~n":4,"é":5}"#,
        ),
    ] {
        assert_eq!(without(json, pointers), expected, "{pointers:?}");
    }
    assert_eq!(without(r#"{"\u0061":1,"b":2}"#, &["/a"]), r#"{"b":2}"#);
    assert_eq!(
        without("[[3,[1],{\"b\":1,\"a\":2}]]", &["/0/1"]),
        r#"[[3,{"a":2,"b":1}]]"#
    );
    let set = PointerSet::new(&[Pointer::read("/a").unwrap()]);
    for (json, offset) in [
        (r#"{"a":1,"a":2}"#, 7),
        (r#"{"a":01}"#, 6),
        (r#"{"a":"\ud800"}"#, 6),
    ] {
        let error = with_canonical(json.as_bytes(), &set, |_| ()).unwrap_err();
        assert_eq!(error.offset, offset, "{json}");
    }
}

#[test]
fn malformed_pointer_is_refused() {
    for bad in ["", "a", "#/a", "/a~", "/a~2", "/~~0", "~0/a"] {
        assert!(Pointer::read(bad).is_err(), "{bad}");
    }
    let pointer = Pointer::read("/a~1b//~01/0").unwrap();
    assert_eq!(pointer.tokens().collect::<Vec<_>>(), ["a/b", "", "~1", "0"]);
}

/// Deep, wide and out of order at every level: the work stays linear. Moving
/// every byte once per level would be 128 times as much.
#[test]
fn hostile_nesting_is_refused_in_linear_time() {
    let mut json = String::from("0");
    for _ in 0..127 {
        json = format!("{{\"b\":{json},\"a\":[{}0]}}", "1,".repeat(4000));
    }
    assert!(json.len() > 1_000_000);
    let canonical = canonical(&json);
    assert_eq!(canonical.len(), json.len());
    assert!(canonical.starts_with("{\"a\":[1,"));
}

#[test]
fn sink_may_canonicalize_again() {
    let outer = with_canonical(b"{\"b\":1,\"a\":2}", &PointerSet::default(), |outer| {
        assert_eq!(canonical("{\"d\":1,\"c\":2}"), "{\"c\":2,\"d\":1}");
        outer.to_vec()
    });
    assert_eq!(outer.unwrap(), b"{\"a\":2,\"b\":1}");
}
