//! Values as text for people: tables, one instance, what a verb came to. Pure: the same value gives
//! the same text.

use std::time::Duration;

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};

use super::human::{NEVER, NONE, ago, clean, duration, maybe_ago};
use crate::domain::instance::DesiredState;
use crate::domain::lifecycle::Phase;
use crate::domain::model::{ListenKind, Ready};
use crate::domain::time::WallTime;
use crate::service::outcome::{
    EventView, InstanceChange, InstanceView, ListenView, ModelView, MonitorLine, OperationView,
    Outcome, ParamView,
};

/// An empty table: no lines, columns set apart by two spaces.
fn table(colour: bool, header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.force_no_tty();
    if colour {
        table.enforce_styling();
    }
    table.set_header(header.iter().map(|text| match colour {
        true => Cell::new(text).add_attribute(Attribute::Bold),
        false => Cell::new(text),
    }));
    for index in 0..header.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
        }
    }
    table
}

/// The text of a table, without blanks at the ends of lines.
fn text(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn phase_cell(phase: Phase) -> Cell {
    let cell = Cell::new(phase.as_str());
    match phase {
        Phase::Awake => cell.fg(Color::Green),
        Phase::Waking | Phase::Draining | Phase::Stopping | Phase::Creating => {
            cell.fg(Color::Yellow)
        }
        Phase::Failed => cell.fg(Color::Red),
        Phase::Destroyed => cell.fg(Color::DarkGrey),
        Phase::Asleep => cell,
    }
}

/// `acc list`.
#[must_use]
pub fn list(instances: &[InstanceView], now: WallTime, colour: bool) -> String {
    let mut table = table(
        colour,
        &[
            "ID",
            "NAME",
            "MODEL",
            "PHASE",
            "DESIRED",
            "LAST USED",
            "WAKES",
            "URL",
        ],
    );
    right(&mut table, 0);
    right(&mut table, 6);
    for i in instances {
        table.add_row(vec![
            Cell::new(i.id),
            Cell::new(clean(&i.name)),
            Cell::new(clean(&i.model)),
            phase_cell(i.phase),
            Cell::new(i.desired.as_str()),
            Cell::new(maybe_ago(now, i.last_active_at.as_deref())),
            Cell::new(i.wakes),
            Cell::new(clean(&i.url)),
        ]);
    }
    text(&table)
}

/// Where an instance listens.
fn listen(listen: &ListenView) -> String {
    match listen {
        ListenView::Unix(path) => format!("unix {}", clean(path)),
        ListenView::Tcp(address) => format!("tcp {}", clean(address)),
    }
}

/// A time with how long ago it was.
fn when(now: WallTime, at: Option<&str>) -> String {
    let Some(at) = at else {
        return NEVER.to_owned();
    };
    match ago(now, at) {
        // Too old, or not a time: shown as it is.
        long if !long.ends_with("ago") && long != "just now" => clean(at),
        ago => format!("{} ({ago})", clean(at)),
    }
}

/// A time to come, with how long that is.
fn until(now: WallTime, at: &str) -> String {
    let left = at
        .parse::<jiff::Timestamp>()
        .ok()
        .and_then(|time| u64::try_from(time.as_millisecond() - now.0).ok());
    let left = left.map_or_else(String::new, |ms| {
        format!(" (in {})", duration(Duration::from_secs(ms.div_ceil(1000))))
    });
    format!(
        "at the first request after {}{left}; `acc start` tries at once",
        clean(at)
    )
}

/// Where it listens, and what is out of the ordinary about that.
fn listen_of(i: &InstanceView) -> String {
    let handed = if i.handed { ", handed over" } else { "" };
    let notifies = if i.notifies {
        ", reports when it is ready"
    } else {
        ""
    };
    format!("{}{handed}{notifies}", listen(&i.listen))
}

/// `acc info`.
#[must_use]
pub fn info(i: &InstanceView, now: WallTime) -> String {
    let phase = match i.pid {
        Some(pid) => format!("{}, pid {pid}", i.phase.as_str()),
        None => i.phase.as_str().to_owned(),
    };
    let idle =
        Duration::try_from_secs_f64(i.idle_timeout_s).map_or_else(|_| NONE.to_owned(), duration);
    let mut lines = vec![
        ("name", clean(&i.name)),
        ("id", i.id.to_string()),
        ("model", clean(&i.model)),
        ("phase", phase),
        ("desired", i.desired.as_str().to_owned()),
        ("url", clean(&i.url)),
        ("hosts", clean(&i.hosts.join(", "))),
        ("listen", listen_of(i)),
        (
            "owner",
            i.owner.as_deref().map_or_else(|| NONE.to_owned(), clean),
        ),
        ("idle after", idle),
        ("created", when(now, Some(&i.created_at))),
        ("last wake", when(now, i.last_wake_at.as_deref())),
        ("last used", when(now, i.last_active_at.as_deref())),
        ("wakes", i.wakes.to_string()),
        ("folder", clean(&i.dir)),
    ];
    lines.extend(
        i.params
            .iter()
            .map(|(name, value)| ("parameter", clean(&format!("{name} = {value}")))),
    );
    if let Some(failure) = &i.failure {
        lines.push(("failure", clean(failure)));
    }
    // A disabled one is not started by any request.
    if i.phase == Phase::Failed && i.desired != DesiredState::Down {
        let next = i
            .retry_at
            .as_deref()
            .map_or_else(|| "at the next request".to_owned(), |at| until(now, at));
        lines.push(("next try", next));
    }
    keyed(&lines)
}

/// The running or last operation of an instance; nothing when there is none.
#[must_use]
pub fn operation(operation: Option<&OperationView>, now: WallTime) -> String {
    let Some(o) = operation else {
        return String::new();
    };
    let (kind, state, step) = (o.kind.as_str(), o.state.as_str(), o.step.as_str());
    let mut lines = vec![
        ("operation", format!("{kind}, {state}, step {step}")),
        ("  started", when(now, Some(&o.started_at))),
    ];
    if o.ended_at.is_some() {
        lines.push(("  ended", when(now, o.ended_at.as_deref())));
    }
    if let Some(error) = &o.error {
        lines.push(("  error", clean(error)));
    }
    if let Some(error) = &o.last_error {
        let tried = when(now, o.last_try_at.as_deref());
        lines.push(("  last try", format!("{tried}: {}", clean(error))));
    }
    keyed(&lines)
}

fn keyed(lines: &[(&str, String)]) -> String {
    lines
        .iter()
        .map(|(key, value)| format!("{key:<12}{value}\n"))
        .collect()
}

/// The last lines of a log, below everything else.
#[must_use]
pub fn log_tail(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: String = lines
        .iter()
        .map(|line| format!("  {}\n", clean(line)))
        .collect();
    format!("last lines of its log:\n{lines}")
}

/// `acc events`: oldest first, as they come.
#[must_use]
pub fn events(events: &[EventView], now: WallTime, colour: bool) -> String {
    let mut table = table(colour, &["WHEN", "INSTANCE", "EVENT", "DETAIL"]);
    for e in events {
        let instance = if e.instance.is_empty() {
            NONE.to_owned()
        } else {
            clean(&e.instance)
        };
        table.add_row(vec![
            ago(now, &e.at),
            instance,
            clean(e.kind.as_str()),
            clean(&e.detail),
        ]);
    }
    text(&table)
}

/// How a model's instances listen, in one word.
fn listen_kind(kind: ListenKind) -> &'static str {
    match kind {
        ListenKind::Unix => "unix",
        ListenKind::Tcp => "tcp",
        ListenKind::Fd => "fd",
    }
}

/// What tells that a model's instances are ready, in one word.
fn ready_kind(ready: Ready) -> &'static str {
    match ready {
        Ready::Socket => "socket",
        Ready::Notify => "notify",
    }
}

/// A parameter in a table: `name` must be given, `[name=default]` may be.
fn param(p: &ParamView) -> String {
    match &p.default {
        Some(default) => format!("[{}={}]", p.name, clean(default)),
        None if p.required && !p.hidden_default => p.name.clone(),
        None => format!("[{}]", p.name),
    }
}

/// `acc models`.
#[must_use]
pub fn models(models: &[ModelView], colour: bool) -> String {
    let mut table = table(colour, &["MODEL", "LISTEN", "PARAMETERS", "DESCRIPTION"]);
    for m in models {
        let params: Vec<String> = m.params.iter().map(param).collect();
        let params = if params.is_empty() {
            NONE.to_owned()
        } else {
            params.join(" ")
        };
        table.add_row(vec![
            m.name.clone(),
            listen_kind(m.listen).to_owned(),
            params,
            clean(&m.description),
        ]);
    }
    text(&table)
}

/// What the signs in the table of [`models`] mean; nothing when there are none.
#[must_use]
pub fn legend(models: &[ModelView]) -> Option<&'static str> {
    let any = models.iter().any(|m| !m.params.is_empty());
    any.then_some(
        "parameters in [ ] are optional; the default follows =; details: `acc models NAME`",
    )
}

/// `acc models NAME`.
#[must_use]
pub fn model(m: &ModelView, colour: bool) -> String {
    let mut lines = vec![
        ("model", m.name.clone()),
        ("about", clean(&m.description)),
        ("listen", listen_kind(m.listen).to_owned()),
    ];
    lines.push(("ready", ready_kind(m.ready).to_owned()));
    lines.push((
        "health",
        m.health.as_deref().map_or_else(|| NONE.to_owned(), clean),
    ));
    lines.push(("folder", clean(&m.dir)));
    let head = keyed(&lines);
    if m.params.is_empty() {
        return head + "\nThe model has no parameters.\n";
    }
    let mut table = table(
        colour,
        &["PARAMETER", "DEFAULT", "REQUIRED", "SECRET", "DESCRIPTION"],
    );
    let yes = |truth: bool| if truth { "yes" } else { "no" }.to_owned();
    for p in &m.params {
        let default = match &p.default {
            None if p.hidden_default => "(hidden)".to_owned(),
            Some(default) if default.is_empty() => "\"\"".to_owned(),
            Some(default) => clean(default),
            None => NONE.to_owned(),
        };
        table.add_row(vec![
            p.name.clone(),
            default,
            yes(p.required),
            yes(p.secret),
            clean(&p.description),
        ]);
    }
    format!("{head}\n{}", text(&table))
}

/// `acc monitor`.
#[must_use]
pub fn monitor(lines: &[MonitorLine], colour: bool) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut table = table(colour, &["INSTANCE", "ACTION", "WHY"]);
    for l in lines {
        table.add_row(vec![
            clean(&l.instance),
            l.action.as_str().to_owned(),
            clean(&l.why),
        ]);
    }
    text(&table)
}

/// What a verb came to, as a sentence.
#[must_use]
pub fn sentence(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Upgrading => "the server is being upgraded".to_owned(),
        Outcome::Reloaded(r) => format!(
            "reloaded the config: {} settings changed, {} pending",
            r.changed.len(),
            r.waiting.len()
        ),
        Outcome::Settings { toml } => toml.clone(),
        Outcome::Pong { pid, version, .. } => {
            format!("the server answers: pid {pid}, version {version}")
        }
        Outcome::Instance {
            did,
            already,
            took_ms,
            instance,
        } => instance_sentence(*did, *already, *took_ms, instance),
        Outcome::Monitor(run) => format!("checked all instances: {} findings", run.lines.len()),
        Outcome::Busy => "another monitor run is in progress; nothing was done".to_owned(),
        Outcome::Quiesced { stopped } => format!("put {stopped} instances to sleep"),
        Outcome::Instances { .. }
        | Outcome::Info(_)
        | Outcome::Names { .. }
        | Outcome::Events { .. }
        | Outcome::Models { .. }
        | Outcome::Model(_)
        | Outcome::Logs { .. } => "read".to_owned(),
    }
}

fn instance_sentence(did: InstanceChange, already: bool, took_ms: u64, i: &InstanceView) -> String {
    let name = clean(&i.name);
    let took = duration(Duration::from_millis(took_ms));
    let (phase, desired) = (i.phase.as_str(), i.desired.as_str());
    match (did, already) {
        (InstanceChange::Changed, true) => {
            format!("the desired state of `{name}` is already {desired}")
        }
        (InstanceChange::Changed, false) => {
            format!("the desired state of `{name}` is now {desired}; it is {phase}")
        }
        (InstanceChange::Reset, true) => format!("`{name}` has no failure to clear: it is {phase}"),
        (InstanceChange::Reset, false) => format!("cleared the failure of `{name}`"),
        (_, true) => format!("`{name}` is already {phase}"),
        (InstanceChange::Created, false) => format!("created `{name}` in {took}: {phase}"),
        (InstanceChange::Destroyed, false) => format!(
            "destroyed `{name}`: files are kept in `{}` until `acc purge {name}`",
            clean(&i.dir)
        ),
        (InstanceChange::Started, false) => format!("started `{name}` in {took}"),
        (InstanceChange::Stopped, false) if i.desired == DesiredState::Up => format!(
            "stopped `{name}` in {took}; its desired state is up: the next monitor run starts it again"
        ),
        (InstanceChange::Stopped, false) => format!("stopped `{name}` in {took}"),
        (InstanceChange::Restarted, false) => format!("restarted `{name}` in {took}"),
        (InstanceChange::Purged, false) => format!("purged `{name}` in {took}"),
    }
}
