//! What the typestates forbid does not compile: each program in
//! `tests/api/typestates/` is refused, with the error beside it. The last one, which
//! walks through all states in order, does compile.

#[test]
fn wrong_orders_do_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/api/typestates/wrong_*.rs");
    cases.pass("tests/api/typestates/right_order.rs");
}
