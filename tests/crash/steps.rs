//! acc is stopped, or a step fails, after each single step of each verb with several steps: the
//! next acc finishes the verb or undoes it.

use std::collections::BTreeSet;
use std::fs;

use acc::host::failpoint::POINTS;

use super::truth;
use crate::support::wait::holds;
use crate::support::{Combination, Done, Fixture, need, processes, wait_until};

/// Which process runs the verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Server,
    Command,
}

/// What happens at the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Killed,
    Failed,
}

const CREATE: &[&str] = &[
    "create.insert",
    "create.row",
    "create.files",
    "create.owner",
    "create.edge",
    "create.made",
    "effect.arm",
    "effect.spawn",
    "effect.spawned",
    "effect.watch",
    "effect.probe",
    "effect.open_gate",
    "effect.record",
    "create.started",
    "create.done",
];
const UNDO: &[&str] = &[
    "effect.close_gate",
    "effect.count",
    "effect.end_streams",
    "effect.terminate",
    "destroy.stopped",
    "undo.stopped",
    "undo.condemned",
    "remove.supervisor",
    "remove.gate",
    "remove.edge",
    "remove.socket",
    "remove.folder",
    "remove.logs",
    "remove.row",
    "remove.done",
];
const DESTROY: &[&str] = &[
    "effect.close_gate",
    "effect.terminate",
    "effect.record",
    "destroy.begun",
    "destroy.stopped",
    "destroy.phase",
    "destroy.supervisor",
    "destroy.edge",
    "destroy.done",
];
const PURGE: &[&str] = &[
    "purge.begun",
    "remove.supervisor",
    "remove.gate",
    "remove.edge",
    "remove.socket",
    "remove.folder",
    "remove.logs",
    "remove.row",
    "remove.done",
];
const STOP: &[&str] = &[
    "effect.close_gate",
    "effect.arm",
    "effect.count",
    "effect.end_streams",
    "effect.terminate",
    "effect.kill",
    "effect.record",
];

/// A fixture, and which process runs verbs in it.
struct WalkFixture {
    fixture: Fixture,
    by: By,
}

impl WalkFixture {
    fn new(combination: Combination, by: By) -> Option<Self> {
        if !cfg!(debug_assertions) {
            need::skipped("a release build has no points to stop at");
            return None;
        }
        let fixture = Fixture::with(combination, |s| (s.idle, s.stop_timeout) = ("60s", "1s"))?;
        fixture.model(
            "deaf",
            "description = \"takes no notice of SIGTERM\"\nlisten = \"unix\"\ncommand = [\"{{ acc }}\", \"demo-app\", \"--socket\", \
             \"{{ socket }}\", \"--name\", \"{{ name }}\", \"--ignore-term\"]\n",
        );
        if by == By::Command {
            truth::without_server(&fixture);
        }
        Some(Self { fixture, by })
    }

    /// Runs a verb with these lines in the fault file; each fault must have been triggered.
    #[track_caller]
    fn with_faults(&self, faults: &str, arguments: &[&str]) -> Done {
        let file = self.fixture.run().join("fault");
        let server = truth::working(&self.fixture);
        fs::write(&file, faults).unwrap();
        let done = self.fixture.acc(arguments);
        let left = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            left,
            "",
            "`acc {}` never came to this point: {done:?}",
            arguments.join(" ")
        );
        fs::remove_file(&file).unwrap();
        if faults.contains("kill ") && self.by == By::Server {
            let server = server.expect("a server runs");
            wait_until("it was killed", truth::SETTLED, || {
                holds(!processes::alive(server), server)
            });
        }
        done
    }

    /// The next acc starts: it recovers before it does anything else.
    #[track_caller]
    fn next(&self) {
        // A command without a server recovers first; a server has recovered before it answers.
        drop(self.fixture.acc(&["monitor"]));
        truth::becomes_true(&self.fixture, || {
            if self.by == By::Command {
                self.fixture.acc(&["monitor"]);
            }
        });
    }

    #[track_caller]
    fn create(&self, faults: &str, model: &str) -> Done {
        self.with_faults(
            faults,
            &[
                "create",
                "shop",
                "--model",
                model,
                "--host",
                "shop.example.org",
            ],
        )
    }

    /// Nothing of the instance is left, and its name can be used again.
    #[track_caller]
    fn gone(&self) {
        truth::gone(&self.fixture, "shop");
        self.make("tester");
        self.remove();
        truth::gone(&self.fixture, "shop");
    }

    #[track_caller]
    fn make(&self, model: &str) {
        self.fixture
            .acc(&[
                "create",
                "shop",
                "--model",
                model,
                "--host",
                "shop.example.org",
            ])
            .ok();
    }

    #[track_caller]
    fn remove(&self) {
        self.fixture.acc(&["destroy", "--force", "shop"]).ok();
        self.fixture.acc(&["purge", "shop"]).ok();
    }

    fn phase(&self) -> String {
        self.fixture.phase("shop")
    }
}

/// Alternates between a model with a port and a route, and one with a socket.
fn model(number: usize) -> &'static str {
    ["tester-tcp", "tester"][number % 2]
}

fn fails(point: &str) -> bool {
    // An effect cannot report a failure, and after the last step nothing can fail any more.
    !point.starts_with("effect.") && !point.ends_with(".done")
}

fn say(point: &str, how: How, walk: &WalkFixture) {
    eprintln!(
        "==== {how:?} at `{point}`, by the {:?}, {:?}",
        walk.by, walk.fixture.combination
    );
}

fn walk_create(combination: Combination, by: By) {
    let Some(walk) = WalkFixture::new(combination, by) else {
        return;
    };
    for (n, point) in CREATE.iter().enumerate() {
        say(point, How::Killed, &walk);
        walk.create(&format!("kill {point}"), model(n));
        walk.next();
        if *point == "create.done" {
            assert_eq!(walk.phase(), "awake", "it was made");
            walk.remove();
        }
        walk.gone();
        if fails(point) {
            say(point, How::Failed, &walk);
            walk.create(&format!("error {point}"), model(n))
                .error(1)
                .says(&["all changes were undone", point]);
            walk.gone();
        }
    }
}

fn walk_undo(combination: Combination, by: By) {
    let Some(walk) = WalkFixture::new(combination, by) else {
        return;
    };
    for (n, point) in UNDO.iter().enumerate() {
        say(point, How::Killed, &walk);
        walk.create(&format!("error create.started\nkill {point}"), model(n));
        walk.next();
        walk.gone();
        if fails(point) {
            say(point, How::Failed, &walk);
            walk.create(&format!("error create.started\nerror {point}"), model(n))
                .error(1);
            // No other acc starts: the same one tries again.
            walk.fixture.acc(&["monitor"]);
            truth::becomes_true(&walk.fixture, || drop(walk.fixture.acc(&["monitor"])));
            walk.gone();
        }
    }
}

fn walk_destroy(combination: Combination, by: By) {
    let Some(walk) = WalkFixture::new(combination, by) else {
        return;
    };
    for (n, point) in DESTROY.iter().enumerate() {
        for how in [How::Killed, How::Failed] {
            if how == How::Failed && !fails(point) {
                continue;
            }
            say(point, how, &walk);
            walk.make(model(n));
            let word = if how == How::Killed { "kill" } else { "error" };
            let done =
                walk.with_faults(&format!("{word} {point}"), &["destroy", "--force", "shop"]);
            assert!(done.code != Some(0), "{done:?}");
            match how {
                How::Killed => walk.next(),
                How::Failed => {
                    truth::becomes_true(&walk.fixture, || drop(walk.fixture.acc(&["monitor"])))
                }
            }
            if [
                "destroy.phase",
                "destroy.supervisor",
                "destroy.edge",
                "destroy.done",
            ]
            .contains(point)
            {
                assert_eq!(walk.phase(), "destroyed", "what was written was not done");
                destroyed_leaves_only_its_files(&walk.fixture);
            } else {
                assert_ne!(walk.phase(), "destroyed");
            }
            walk.remove();
            walk.gone();
        }
    }
}

/// No section, no route, no gate, no pid file.
#[track_caller]
fn destroyed_leaves_only_its_files(fixture: &Fixture) {
    let mut files = Vec::new();
    for dir in [
        fixture.home().join("nginx"),
        fixture.home().join("supervisor"),
        fixture.run().join("gate"),
        fixture.run().join("pid"),
    ] {
        crate::support::fixture::files(&dir, &mut files);
    }
    for file in files {
        let text = fs::read(&file)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default();
        let shown = file.display().to_string();
        assert!(
            !shown.contains("shop") && !text.contains("shop"),
            "{shown} knows of it:\n{text}"
        );
    }
}

fn walk_purge(combination: Combination, by: By) {
    let Some(walk) = WalkFixture::new(combination, by) else {
        return;
    };
    for (n, point) in PURGE.iter().enumerate() {
        for how in [How::Killed, How::Failed] {
            if how == How::Failed && !fails(point) {
                continue;
            }
            say(point, how, &walk);
            walk.make(model(n));
            walk.fixture.acc(&["destroy", "--force", "shop"]).ok();
            let word = if how == How::Killed { "kill" } else { "error" };
            let done = walk.with_faults(&format!("{word} {point}"), &["purge", "shop"]);
            assert!(done.code != Some(0), "{done:?}");
            match how {
                How::Killed => walk.next(),
                How::Failed => {
                    truth::becomes_true(&walk.fixture, || drop(walk.fixture.acc(&["monitor"])))
                }
            }
            walk.gone();
        }
    }
}

fn walk_stop(combination: Combination, by: By) {
    let Some(walk) = WalkFixture::new(combination, by) else {
        return;
    };
    for (n, point) in STOP.iter().enumerate() {
        say(point, How::Killed, &walk);
        walk.make(if *point == "effect.kill" {
            "deaf"
        } else {
            model(n)
        });
        walk.with_faults(&format!("kill {point}"), &["stop", "shop"]);
        walk.next();
        assert!(
            ["awake", "asleep"].contains(&walk.phase().as_str()),
            "{}",
            walk.phase()
        );
        walk.fixture.acc(&["start", "shop"]).ok();
        if by == By::Server {
            walk.fixture.get("shop", "/").status(200);
        }
        walk.remove();
        walk.gone();
    }
}

macro_rules! walks {
    ($($by:ident($who:expr))+) => {
        $(mod $by {
            walks! { $who, nginx_supervisord(Combination::REAL) builtin_builtin(Combination::BUILTIN) }
        })+
    };
    ($by:expr, $($module:ident($combination:expr))+) => {
        $(mod $module {
            use super::super::*;
            #[test]
            fn create() {
                walk_create($combination, $by);
            }
            #[test]
            fn undo() {
                walk_undo($combination, $by);
            }
            #[test]
            fn destroy() {
                walk_destroy($combination, $by);
            }
            #[test]
            fn purge() {
                walk_purge($combination, $by);
            }
            #[test]
            fn stop() {
                walk_stop($combination, $by);
            }
        })+
    };
}

walks! {
    by_the_server(By::Server)
    by_a_command(By::Command)
}

/// A point that no walk reaches would be a step that is never tested.
#[test]
fn every_point_is_walked_through() {
    let walked: BTreeSet<&str> = [CREATE, UNDO, DESTROY, PURGE, STOP]
        .concat()
        .into_iter()
        .collect();
    let all: BTreeSet<&str> = POINTS.iter().copied().collect();
    assert_eq!(walked, all);
}
