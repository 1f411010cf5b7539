//! The one place at which the demo application ends its process without unwinding. It decides
//! nothing.

/// Ends the process at once, for `/crash` and `--exit-at-start`.
#[expect(
    clippy::disallowed_methods,
    reason = "the demo application must be able to die without unwinding"
)]
pub(super) fn leave(code: i32) -> ! {
    std::process::exit(code)
}
