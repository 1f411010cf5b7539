//! Sleeping instances cost nothing: nginx has no configuration for them, the server does no work
//! for them, and lists show them in pages.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crate::support::fixture::SOON;
use crate::support::wait::{holds, pause};
use crate::support::{Combination, Fixture, processes, wait_until};

const MANY: usize = 40;

pub fn many_are_made_and_nothing_stirs(combination: Combination) {
    let Some(fixture) = Fixture::new(combination) else {
        return;
    };
    let workers = || -> BTreeSet<i32> {
        processes::of(&fixture.dir)
            .into_iter()
            .filter(|p| p.command.starts_with("nginx: worker"))
            .map(|p| p.pid)
            .collect()
    };
    if combination.edge == "nginx" {
        // nginx listens a moment before it has workers.
        fixture.get("nobody", "/");
        wait_until("nginx has workers", SOON, || {
            holds(!workers().is_empty(), "none")
        });
    }
    let before = workers();
    for _ in 0..MANY {
        fixture
            .acc(&["create", "--model", "tester", "--asleep"])
            .ok();
    }
    assert_eq!(workers(), before, "nginx was reloaded");

    let all: BTreeSet<String> = fixture
        .json(&["list"])
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(all.len(), MANY);
    let (mut pages, mut after) = (Vec::new(), String::new());
    loop {
        let page = fixture.json(&[
            "list", "--phase", "asleep", "--limit", "7", "--after", &after,
        ]);
        let names: Vec<String> = page
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["name"].as_str().unwrap().to_owned())
            .collect();
        let Some(last) = names.last() else { break };
        after = last.clone();
        pages.extend(names);
    }
    assert_eq!(
        pages,
        all.into_iter().collect::<Vec<_>>(),
        "every one once, in order"
    );
    assert!(
        fixture
            .json(&["list", "--phase", "awake", "--limit", "7"])
            .as_array()
            .unwrap()
            .is_empty()
    );

    // The hint of a page is the command for the next page, and the last page has no hint.
    let (mut command, mut shown) = (
        "acc list --phase asleep --model tester --limit 20".to_owned(),
        Vec::new(),
    );
    loop {
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        let page = fixture.acc(&words).ok();
        shown.extend(
            page.out
                .lines()
                .skip(1)
                .map(|line| line.split_whitespace().nth(1).unwrap().to_owned()),
        );
        let Some((_, next)) = page.err.split_once("there are more: `") else {
            break;
        };
        command = next.split('`').next().unwrap().to_owned();
        assert!(
            command.ends_with(&format!("--limit 20 --after {}", shown.last().unwrap())),
            "{command}"
        );
    }
    assert_eq!(shown, pages);

    let server = fixture.server().unwrap().pid;
    let own: Vec<i32> = processes::of(&fixture.dir)
        .iter()
        .filter(|p| p.pid == server || p.parent == server)
        .map(|p| p.pid)
        .collect();
    wait_until(
        "the server does nothing at all for two seconds",
        SOON * 2,
        || {
            let before = own.iter().map(|pid| switches(*pid)).sum::<u64>();
            pause(Duration::from_secs(2));
            let times = own
                .iter()
                .map(|pid| switches(*pid))
                .sum::<u64>()
                .saturating_sub(before);
            holds(times == 0, format!("it ran {times} times"))
        },
    );
}

/// How often the threads of a process have waited for something.
fn switches(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let of = |status: String| {
        status.lines().find_map(|l| {
            l.strip_prefix("voluntary_ctxt_switches:")?
                .trim()
                .parse::<u64>()
                .ok()
        })
    };
    tasks
        .filter_map(|t| of(fs::read_to_string(t.path().join("status")).ok()?))
        .sum()
}
