//! The compiler refuses each wrong program in `tests/api/typestates/`, with the error in the
//! file of the same name. The right one passes all states in order, and compiles.

#[test]
fn wrong_order_does_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/api/typestates/wrong_*.rs");
    cases.pass("tests/api/typestates/right_order.rs");
}
