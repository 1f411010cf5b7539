//! The benchmark of the whole system: the real binary, real processes, one table with goals,
//! references and figures.
//!
//! `tests/bench/run` builds a release and runs this. Figures that are compared are measured in the
//! same run, in turns (`round.rs`); the table and its JSON are in `table.rs`. It never asserts a
//! time: a missed goal is a line of the table and, with `--strict`, the exit code.

mod apps;
mod awake;
mod binary;
mod chart;
mod density;
mod herd;
mod limits;
mod machine;
mod peers;
mod procs;
mod round;
mod table;
mod wake;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use self::table::{Report, Verdict};

const HELP: &str = include_str!("help.txt");

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Only a short run, to check that the benchmark works.
    quick: bool,
    /// Turns that warm up and are not counted.
    warm: usize,
    /// Wakes of each side.
    wakes: usize,
    /// Herds of each size.
    herds: usize,
    /// Runs of wrk for each side.
    loads: usize,
    /// Seconds of each run of wrk.
    load_seconds: u32,
    /// Wakes of each peer.
    peers: usize,
    /// The program that measures many sleepers.
    density: Option<PathBuf>,
    /// Rest between the sleep of an instance and the next request.
    settle: Duration,
}

impl Settings {
    const FULL: Self = Self {
        quick: false,
        warm: 2,
        wakes: 40,
        herds: 9,
        loads: 5,
        load_seconds: 2,
        peers: 8,
        density: None,
        settle: Duration::from_millis(60),
    };
    const QUICK: Self = Self {
        quick: true,
        warm: 0,
        wakes: 3,
        herds: 2,
        loads: 1,
        load_seconds: 1,
        peers: 1,
        density: None,
        settle: Duration::from_millis(5),
    };

    /// Connections of wrk.
    fn connections(&self) -> &'static [usize] {
        if self.quick { &[8] } else { &[32, 256] }
    }
}

/// The command line arguments.
#[derive(Debug)]
struct Asked {
    groups: Vec<String>,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
    strict: bool,
    help: bool,
    settings: Settings,
}

const GROUPS: &[&str] = &[
    "wake-tiny",
    "wake-apps",
    "herd",
    "awake-nginx",
    "awake-builtin",
    "density",
    "binary",
    "peers",
];

fn read(arguments: Vec<String>) -> Result<Asked, String> {
    let mut asked = Asked {
        groups: Vec::new(),
        json: None,
        svg: None,
        strict: false,
        help: false,
        settings: Settings::FULL,
    };
    let (mut rounds, mut peers): (Option<usize>, bool) = (None, false);
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        let mut value = || {
            rest.next()
                .ok_or_else(|| format!("`{argument}` needs a value"))
        };
        match argument.as_str() {
            "--json" => asked.json = Some(value()?.into()),
            "--svg" => asked.svg = Some(value()?.into()),
            "--rounds" => {
                rounds = Some(
                    value()?
                        .parse()
                        .map_err(|_| "`--rounds` takes a number".to_owned())?,
                )
            }
            "--quick" => asked.settings = Settings::QUICK,
            "--peers" => peers = true,
            "--strict" => asked.strict = true,
            "--help" | "-h" => asked.help = true,
            // The argument that `cargo bench` adds.
            "--bench" => {}
            "wake" => asked
                .groups
                .extend(["wake-tiny", "wake-apps"].map(str::to_owned)),
            "awake" => asked
                .groups
                .extend(["awake-nginx", "awake-builtin"].map(str::to_owned)),
            group if GROUPS.contains(&group) => asked.groups.push(argument),
            _ => {
                return Err(format!(
                    "`{argument}` is neither a group ({}) nor an option",
                    GROUPS.join(", ")
                ));
            }
        }
    }
    asked.settings.density = density_program();
    if asked.groups.is_empty() {
        asked.groups = GROUPS
            .iter()
            .filter(|g| **g != "peers")
            .map(|g| (*g).to_owned())
            .collect();
    }
    if peers {
        asked.groups.push("peers".to_owned());
    }
    if let Some(rounds) = rounds {
        (asked.settings.wakes, asked.settings.herds) = (rounds, rounds.min(asked.settings.herds));
    }
    Ok(asked)
}

/// The path of the program that measures many sleeping instances, as built by `tests/bench/run`.
#[expect(
    clippy::disallowed_methods,
    reason = "the script that builds the programs says where they are"
)]
fn density_program() -> Option<PathBuf> {
    std::env::var_os("ACC_BENCH_DENSITY").map(PathBuf::from)
}

/// Measures what the arguments ask for and prints it.
pub fn main(arguments: Vec<String>) -> ExitCode {
    let asked = match read(arguments) {
        Ok(asked) if asked.help => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("error: {why}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let machine = machine::describe();
    let mut report = Report::default();
    for group in &asked.groups {
        eprintln!("measuring {group} …");
        report.add(match group.as_str() {
            "wake-tiny" => wake::tiny(&asked.settings),
            "wake-apps" => wake::usual(&asked.settings),
            "herd" => herd::measure(&asked.settings),
            "awake-nginx" => awake::nginx(&asked.settings),
            "awake-builtin" => awake::builtin(&asked.settings),
            "density" => density::measure(&asked.settings),
            "peers" => peers::measure(&asked.settings),
            "binary" => binary::measure(&asked.settings),
            _ => Report::default(),
        });
    }
    print!("{}\n{}", machine::text(&machine), report.text());
    if let Some(path) = &asked.json {
        std::fs::write(path, format!("{:#}\n", report.json(&machine))).unwrap();
    }
    if let Some(dir) = &asked.svg {
        draw(&report, dir);
    }
    let missed = report
        .rows
        .iter()
        .filter(|r| r.verdict() == Verdict::Fail)
        .count();
    if asked.strict && missed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// The charts: fast and slow applications have separate charts, because one axis cannot show a
/// start of a millisecond and one of a hundred.
fn draw(report: &Report, dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let (tiny, apps): (Vec<_>, Vec<_>) = report
        .phases
        .iter()
        .cloned()
        .partition(|p| p.name.contains("tiny"));
    let title = "Where the time of a wake goes (medians)";
    for (file, phases) in [("wake-tiny.svg", tiny), ("wake-apps.svg", apps)] {
        if !phases.is_empty() {
            std::fs::write(dir.join(file), chart::wakes(&phases, title)).unwrap();
        }
    }
    if !report.curves.is_empty() {
        std::fs::write(
            dir.join("cost.svg"),
            chart::costs(
                &report.curves,
                "Cost against the number of sleeping instances",
            ),
        )
        .unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn arguments_are_read() {
        let asked = read(words("wake --rounds 7 --json x.json")).unwrap();
        assert_eq!(
            (asked.groups, asked.settings.wakes, asked.json),
            (words("wake-tiny wake-apps"), 7, Some("x.json".into()))
        );
        assert_eq!(read(Vec::new()).unwrap().groups.len(), GROUPS.len() - 1);
        assert_eq!(
            read(words("wake --peers")).unwrap().groups,
            words("wake-tiny wake-apps peers")
        );
        assert!(
            read(words("awoke"))
                .unwrap_err()
                .contains("neither a group")
        );
        assert!(read(words("--json")).unwrap_err().contains("needs a value"));
    }
}
