//! The whole of acc from outside: the real binary, real sockets, and nginx and supervisord where a
//! combination has them.
//!
//! The cases under `suite!` run on all four combinations of edge and supervisor; those at the end
//! are about one of them, about a broken host, or about the scripts. Each test has a fixture of its
//! own (`support::Fixture`) and leaves nothing behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a test may panic and print"
)]

#[macro_use]
mod support;

mod e2e {
    pub mod access_logs;
    pub mod apps;
    pub mod begin;
    pub mod body;
    pub mod boot;
    pub mod broken;
    pub mod careless;
    pub mod cleaned;
    pub mod clients;
    pub mod codes;
    pub mod crowd;
    pub mod database;
    pub mod edge;
    pub mod gone;
    pub mod handed;
    pub mod hosts;
    pub mod json;
    pub mod killers;
    pub mod life;
    pub mod lines;
    pub mod locked;
    pub mod locks;
    pub mod longer;
    pub mod members;
    pub mod places;
    pub mod ports;
    pub mod proxies;
    pub mod rules;
    pub mod says_why;
    pub mod scripts;
    pub mod server;
    pub mod settings;
    pub mod sleepers;
    pub mod streams;
    pub mod tenants_files;
    pub mod trust;
    pub mod undo;
    pub mod user;
}

suite! {
    e2e:
    begin {
        an_instance_begins_without_marks_and_rights
        an_instance_of_another_user_begins_so_too
        its_limits_are_those_of_the_config
        a_start_that_is_stopped_fails_and_delays_no_other
    }
    life {
        it_is_created_answers_sleeps_and_wakes
        a_verb_on_what_is_already_so_changes_nothing
        disabled_it_never_wakes_and_pinned_it_never_sleeps
        it_listens_on_tcp
        its_port_is_taken_and_there_is_no_other
        it_has_other_hosts_and_is_named_by_number
        the_python_model_works
        the_server_puts_it_to_sleep_by_itself
    }
    locked {
        requests_go_on
    }
    proxies {
        instances_are_told_the_same_by_both_edges
        a_reload_applies_trusted_proxies_and_the_public_scheme
        the_client_named_by_a_trusted_proxy_is_the_one_that_counts
    }
    lines {
        each_request_has_its_line
    }
    careless {
        a_slow_client_holds_no_application
        one_thread_and_kept_connections_are_no_wait
        an_answer_before_the_body_was_read_arrives
        targets_and_headers_pass_as_they_are
        an_answer_with_a_head_that_is_too_large_is_asked_for_once
        odd_targets_on_a_connection_with_other_requests
    }
    streams {
        a_restart_ends_them_in_order
        a_stop_waits_for_what_ends_by_itself
    }
    killers {
        each_is_read_as_often_as_it_may_be
        so_is_one_on_a_kept_connection
    }
    body {
        fifty_megabytes_are_posted_through_a_wake
        a_chunked_body_and_one_that_expects_continue_go_through_a_wake
        a_slow_upload_is_not_cut_by_the_idle_timeout
    }
    longer {
        a_web_socket_opens_through_a_wake_and_keeps_it_awake
        a_stream_longer_than_the_idle_timeout_is_not_cut
        an_operators_stop_waits_for_what_is_in_flight
    }
    crowd {
        two_hundred_first_requests_make_one_start
        a_failed_start_is_reported_to_every_waiting_request
        two_monitor_runs_at_once
        no_request_is_lost_to_idle_stops
    }
    clients {
        an_application_that_closes_nothing_sleeps_all_the_same
        a_slow_body_holds_no_application_that_serves_one_at_a_time
    }
    handed {
        a_crowd_on_a_handed_socket_makes_one_start
        it_ends_before_it_accepts_and_everybody_is_told
        it_is_ready_when_it_says_so
        a_script_says_it_for_the_application
        it_never_says_that_it_is_ready
        the_server_is_killed_while_it_wakes
        the_server_is_upgraded_while_it_wakes
    }
    server {
        it_is_killed_while_instances_are_awake
        it_is_ended_in_order_while_instances_are_awake
        it_reads_its_config_again
        one_that_is_gone_is_told
    }
    settings {
        a_config_with_faults_stops_nothing_that_runs
        what_waits_for_a_restart_is_not_shown_as_if_it_were_in_force
        a_reload_says_what_is_in_force_and_what_waits
    }
    sleepers {
        many_are_made_and_nothing_stirs
    }
    boot {
        halt_and_boot_bring_back_what_is_wanted
        boot_twice_and_halt_twice
        a_worker_without_its_master_serves_on_until_the_next_one
        a_halt_ends_a_worker_without_its_master
        what_dead_writers_left_goes_at_a_boot
        everything_killed_at_once_boots_again
        a_halt_after_a_crash_says_what_it_did_and_nothing_else
        instances_start_from_a_file_system_without_programs
    }
    cleaned {
        the_server_makes_everything_again_by_itself
        commands_right_after_it_find_what_runs
        a_boot_finds_what_runs_without_a_server
        a_halt_after_everything_is_gone_holds
    }
    places {
        other_places_than_before_are_refused
    }
    says_why {
        where_it_listens_instead_and_what_it_said
        why_its_program_cannot_be_run
    }
    members {
        its_name_may_be_any_bytes
        what_it_has_started_ends_with_it
        what_was_left_by_a_crash_ends_at_the_boot
        an_inherited_socket_is_not_in_the_way
        one_that_goes_into_the_background_is_told
        one_that_forks_without_end_is_bounded
        one_beside_it_finishes_its_work
    }
    ports {
        a_stranger_that_listens_first_is_never_asked
        a_stranger_of_another_user_is_never_asked
        a_port_that_an_awake_instance_has_lost_is_noticed
        who_joins_the_port_of_an_awake_instance_is_noticed
        one_that_stops_listening_is_started_again
        one_whose_socket_is_gone_is_started_again
        every_process_of_an_instance_may_listen_for_it
        two_installations_with_one_port_keep_their_requests_apart
    }
    gone {
        destroyed_and_purged_it_leaves_nothing
        a_port_is_free_again_after_purge
    }
    undo {
        a_failed_create_leaves_nothing
        a_full_disk_leaves_nothing
    }
    rules {
        what_may_not_wake_does_not
        what_does_not_count_does_not_keep_it_awake
    }
    hosts {
        one_host_has_many_spellings
        unknown_and_wrong_hosts
        clients_cannot_set_what_only_the_edge_may
        a_browser_gets_the_waiting_page
    }
}
