//! Sleepers disturb nobody: nginx is not told of them, the server does not run because of them, and they are shown in pages.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crate::support::bed::SOON;
use crate::support::wait::{holds, pause};
use crate::support::{Bed, Combination, processes, wait_until};

const MANY: usize = 40;

pub fn many_are_made_and_nothing_stirs(combination: Combination) {
    let Some(bed) = Bed::new(combination) else { return };
    let workers = || -> BTreeSet<i32> {
        processes::of(&bed.dir).into_iter().filter(|p| p.command.starts_with("nginx: worker")).map(|p| p.pid).collect()
    };
    let before = workers();
    for _ in 0..MANY {
        bed.acc(&["create", "--model", "tester", "--asleep"]).ok();
    }
    assert_eq!(workers(), before, "nginx was reloaded");

    let all: BTreeSet<String> = bed.json(&["list"]).as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(all.len(), MANY);
    let (mut pages, mut after) = (Vec::new(), String::new());
    loop {
        let page = bed.json(&["list", "--phase", "asleep", "--limit", "7", "--after", &after]);
        let names: Vec<String> = page.as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap().to_owned()).collect();
        let Some(last) = names.last() else { break };
        after = last.clone();
        pages.extend(names);
    }
    assert_eq!(pages, all.into_iter().collect::<Vec<_>>(), "every one once, in order");
    assert!(bed.json(&["list", "--phase", "awake", "--limit", "7"]).as_array().unwrap().is_empty());

    let server = bed.server().unwrap().pid;
    let own: Vec<i32> = processes::of(&bed.dir).iter().filter(|p| p.pid == server || p.parent == server).map(|p| p.pid).collect();
    wait_until("the server does nothing at all for two seconds", SOON * 2, || {
        let before = own.iter().map(|pid| switches(*pid)).sum::<u64>();
        pause(Duration::from_secs(2));
        let times = own.iter().map(|pid| switches(*pid)).sum::<u64>().saturating_sub(before);
        holds(times == 0, format!("it ran {times} times"))
    });
}

/// How often the threads of a process have waited for something.
fn switches(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of = |status: String| status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok());
    tasks.filter_map(|t| of(fs::read_to_string(t.path().join("status")).ok()?)).sum()
}
