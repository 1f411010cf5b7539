//! `acc prove` against the real binary, on all four combinations: nothing is lost, and a loss would
//! be noticed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a test may panic and print"
)]

#[macro_use]
mod support;

mod prove {
    pub mod chaos;
    pub mod itself;
    pub mod run;
    pub mod stops;
}

suite! {
    prove:
    chaos {
        everything_is_killed_and_nothing_is_lost
    }
    stops {
        nothing_is_lost_on_a_unix_socket
        nothing_is_lost_on_a_port
        nothing_is_lost_on_a_handed_socket
        streams_end_in_order
        nothing_is_lost_when_it_takes_long_to_end
        a_request_that_outlasts_the_drain_is_finished_by_the_application
    }
}
