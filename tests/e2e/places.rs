//! Another `home` or `run` in the config than the one that instances were created with: refused,
//! with both named, and nothing changed.

use std::fs;

use crate::support::{Combination, Fixture};

pub fn other_places_than_before_are_refused(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let text = fs::read_to_string(fixture.config()).unwrap();
    let (home, run) = (
        fixture.home().display().to_string(),
        fixture.run().display().to_string(),
    );
    let (other_home, other_run) = (
        fixture.dir.join("home2").display().to_string(),
        fixture.dir.join("run2").display().to_string(),
    );
    let with = |home: &str, run: &str| {
        let lines = text.lines().map(|line| match line.split(" = ").next() {
            Some("home") => format!("home = \"{home}\""),
            Some("run") => format!("run = \"{run}\""),
            _ => line.to_owned(),
        });
        fs::write(
            fixture.config(),
            lines.collect::<Vec<_>>().join("\n") + "\n",
        )
        .unwrap();
    };
    // The model changes: existing instances are not affected.
    let model = fixture.home().join("models/tester/model.toml");
    let before = fs::read_to_string(&model).unwrap();
    fs::write(&model, before.replace("\"--name\"", "\"--no-such-word\"")).unwrap();

    // With acc running.
    with(&home, &other_run);
    for command in ["boot", "halt", "monitor"] {
        fixture
            .acc(&[command])
            .error(4)
            .says(&[&run, &other_run, "set `run"]);
    }
    with(&other_home, &run);
    fixture
        .acc(&["boot"])
        .error(4)
        .says(&[&home, &other_home, "`home = "]);
    fixture
        .acc(&["halt"])
        .error(4)
        .says(&[&home, &other_home, "nothing was halted"]);
    with(&home, &run);
    fixture.get("shop", "/").status(200);
    fixture.acc(&["halt"]).ok();

    // With acc halted.
    with(&home, &other_run);
    fixture
        .acc(&["boot"])
        .error(4)
        .says(&[&run, &other_run, "nothing was changed"]);
    fs::rename(&home, &other_home).unwrap();
    with(&other_home, &run);
    fixture
        .acc(&["boot"])
        .error(4)
        .says(&[&home, &other_home, "nothing was changed"]);
    fixture
        .acc(&["create", "blog", "--model", "hello", "--asleep"])
        .refused();
    assert!(
        !fixture.dir.join("run2").exists() && !fixture.dir.join("home").exists(),
        "something was made"
    );
    fs::rename(&other_home, &home).unwrap();
    with(&home, &run);
    fixture.acc(&["boot"]).ok();
    fixture.get("shop", "/").status(200);
    fixture.acc(&["stop", "shop"]).ok();
    fixture.get("shop", "/").status(200);
    fs::write(&model, before).unwrap();
}
