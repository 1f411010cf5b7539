//! Another `home` or `run` in the config than the one that instances were made for: refused, with
//! both named, and nothing changed.

use std::fs;

use crate::support::{Bed, Combination};

pub fn other_places_than_before_are_refused(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.idle = "60s") else {
        return;
    };
    bed.create("zebra", "tester");
    let text = fs::read_to_string(bed.config()).unwrap();
    let (home, run) = (
        bed.home().display().to_string(),
        bed.run().display().to_string(),
    );
    let (other_home, other_run) = (
        bed.dir.join("home2").display().to_string(),
        bed.dir.join("run2").display().to_string(),
    );
    let with = |home: &str, run: &str| {
        let lines = text.lines().map(|line| match line.split(" = ").next() {
            Some("home") => format!("home = \"{home}\""),
            Some("run") => format!("run = \"{run}\""),
            _ => line.to_owned(),
        });
        fs::write(bed.config(), lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    };
    // The model becomes another: that concerns nobody who is made.
    let model = bed.home().join("models/tester/model.toml");
    let before = fs::read_to_string(&model).unwrap();
    fs::write(&model, before.replace("\"--name\"", "\"--no-such-word\"")).unwrap();

    // It runs.
    with(&home, &other_run);
    for command in ["boot", "halt", "monitor"] {
        bed.acc(&[command])
            .error(4)
            .says(&[&run, &other_run, "set `run"]);
    }
    with(&other_home, &run);
    bed.acc(&["boot"])
        .error(4)
        .says(&[&home, &other_home, "`home = "]);
    bed.acc(&["halt"])
        .error(4)
        .says(&[&home, &other_home, "nothing was halted"]);
    with(&home, &run);
    bed.get("zebra", "/").status(200);
    bed.acc(&["halt"]).ok();

    // It does not run.
    with(&home, &other_run);
    bed.acc(&["boot"])
        .error(4)
        .says(&[&run, &other_run, "nothing was changed"]);
    fs::rename(&home, &other_home).unwrap();
    with(&other_home, &run);
    bed.acc(&["boot"])
        .error(4)
        .says(&[&home, &other_home, "nothing was changed"]);
    bed.acc(&["create", "okapi", "--model", "hello", "--asleep"])
        .refused();
    assert!(
        !bed.dir.join("run2").exists() && !bed.dir.join("home").exists(),
        "something was made"
    );
    fs::rename(&other_home, &home).unwrap();
    with(&home, &run);
    bed.acc(&["boot"]).ok();
    bed.get("zebra", "/").status(200);
    bed.acc(&["stop", "zebra"]).ok();
    bed.get("zebra", "/").status(200);
    fs::write(&model, before).unwrap();
}
