//! The server dies, is replaced and is upgraded while clients keep sending requests: nothing may be
//! lost that could be kept.
//!
//! Real binary, real nginx and supervisord, on a fixture per test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a test may panic and print"
)]

#[macro_use]
mod support;

mod upgrade {
    pub mod handover;
    pub mod http2;
    pub mod idle;
    pub mod killed;
    pub mod load;
    pub mod phases;
    pub mod wake;
}

suite! {
    upgrade:
    handover {
        an_upgrade_under_load_loses_nothing
        a_program_that_does_not_come_up_changes_nothing
        an_upgrade_that_has_to_wait_for_its_turn_changes_nothing
        requests_held_for_another_users_instance_go_on
        a_command_at_work_is_finished_before_the_upgrade
    }
    killed {
        a_killed_worker_is_replaced_and_no_client_is_refused
        a_killed_master_costs_nothing
        held_requests_outlive_the_worker
        a_post_that_was_sent_on_is_never_sent_twice
    }
    phases {
        killed_while_waking
        killed_while_draining
        killed_while_stopping
    }
    idle {
        what_is_open_is_never_cut_by_an_idle_stop
        a_silent_web_socket_ends_when_the_config_says_so
    }
    http2 {
        streams_are_never_cut_by_an_idle_stop
        streams_go_on_through_an_operators_stop
        streams_go_on_through_an_upgrade
    }
    wake {
        a_thousand_first_requests_make_one_start
        two_hundred_sleepers_are_woken_in_turn
    }
}
