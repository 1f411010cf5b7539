//! What the snapshots show: instances, events, models and proofs with fixed values.

use super::*;

pub(super) fn instances() -> Vec<InstanceView> {
    let shop = InstanceView {
        id: 1,
        name: "shop".to_owned(),
        model: "hello".to_owned(),
        phase: Phase::Awake,
        desired: DesiredState::Auto,
        hosts: vec![
            "shop.apps.localhost".to_owned(),
            "shop.example.org".to_owned(),
        ],
        url: "http://shop.apps.localhost:8080/".to_owned(),
        listen: ListenView::Unix("/run/acc/sock/shop/app.sock".to_owned()),
        handed: true,
        notifies: true,
        pid: Some(4242),
        owner: Some("ann@example.org".to_owned()),
        idle_timeout_s: 900.0,
        created_at: "2025-12-30T10:00:00Z".to_owned(),
        last_wake_at: Some("2026-01-02T03:00:00Z".to_owned()),
        last_active_at: Some("2026-01-02T03:03:59Z".to_owned()),
        wakes: 117,
        failure: None,
        retry_at: None,
        params: BTreeMap::from(
            [("greeting", "hello"), ("password", "****")]
                .map(|(k, v)| (k.to_owned(), v.to_owned())),
        ),
        dir: "/var/lib/acc/instances/shop".to_owned(),
    };
    let wiki = InstanceView {
        id: 12,
        name: "wiki-of-the-whole-department".to_owned(),
        model: "python-http".to_owned(),
        phase: Phase::Failed,
        desired: DesiredState::Up,
        hosts: vec!["wiki-of-the-whole-department.apps.localhost".to_owned()],
        url: "http://wiki-of-the-whole-department.apps.localhost:8080/".to_owned(),
        listen: ListenView::Tcp("127.0.0.1:20001".to_owned()),
        handed: false,
        notifies: false,
        pid: None,
        owner: None,
        idle_timeout_s: 90.5,
        created_at: "2025-10-02T10:00:00Z".to_owned(),
        last_wake_at: None,
        last_active_at: None,
        wakes: 0,
        failure: Some(
            "exited with code 3 before its first answer: \u{1b}[31mno\nmodule".to_owned(),
        ),
        retry_at: Some("2026-01-02T03:04:25Z".to_owned()),
        params: BTreeMap::new(),
        dir: "/var/lib/acc/instances/wiki-of-the-whole-department".to_owned(),
    };
    vec![shop, wiki]
}

/// The last one of each of [`instances`]: one that ended, and one that runs.
pub(super) fn operations() -> [Option<OperationView>; 2] {
    let failed = OperationView {
        kind: OperationKind::Destroy,
        state: OperationState::Failed,
        step: OperationStep::Stop,
        started_at: "2026-01-02T03:00:00Z".to_owned(),
        ended_at: Some("2026-01-02T03:00:01Z".to_owned()),
        error: Some("could not destroy `shop`: it is awake\n".to_owned()),
        last_try_at: None,
        last_error: None,
        asked_by: "control_socket".to_owned(),
    };
    let running = OperationView {
        kind: OperationKind::Purge,
        state: OperationState::Running,
        step: OperationStep::RemoveFiles,
        ended_at: None,
        error: None,
        last_try_at: Some("2026-01-02T03:04:00Z".to_owned()),
        last_error: Some("could not remove everything of `wiki`: no space left\n".to_owned()),
        ..failed.clone()
    };
    [Some(failed), Some(running)]
}

pub(super) fn events() -> Vec<EventView> {
    let event = |at: &str, instance: &str, kind: &str, detail: &str| EventView {
        at: at.to_owned(),
        instance: instance.to_owned(),
        kind: kind.to_owned().into(),
        detail: detail.to_owned(),
        phases: (kind == "woke").then_some(Phases {
            noticed_at_us: 7_200_000_000,
            spawned_us: 900,
            call_us: 700,
            listening_us: 50_000,
            answered_us: 1_100,
        }),
    };
    vec![
        event("2025-12-30T10:00:00Z", "shop", "created", "from `hello`"),
        event(
            "2026-01-02T03:00:00Z",
            "shop",
            "woke",
            "a request, after 52 ms",
        ),
        event("2026-01-02T03:04:00Z", "", "booted", "acc 0.1.0"),
    ]
}

pub(super) fn models() -> Vec<Model> {
    let param = |default: Option<&str>, required: bool, secret: bool| Param {
        default: default.map(str::to_owned),
        description: "what it is for".to_owned(),
        required,
        secret,
    };
    let params = BTreeMap::from([
        ("greeting".to_owned(), param(Some("hello"), false, false)),
        (
            "password".to_owned(),
            param(Some("never shown"), false, true),
        ),
        ("title".to_owned(), param(None, true, false)),
    ]);
    let model = |name: &str, listen: ListenKind, params: BTreeMap<String, Param>| Model {
        name: name.to_owned(),
        dir: PathBuf::from("/var/lib/acc/models").join(name),
        description: format!("The model {name}"),
        runner: RunnerKind::default(),
        listen,
        ready: Ready::Socket,
        command: vec!["true".to_owned()],
        health: None,
        stop_signal: 15,
        env: BTreeMap::new(),
        start_timeout: None,
        stop_timeout: None,
        params,
    };
    vec![
        model("hello", ListenKind::Unix, BTreeMap::new()),
        model("wiki", ListenKind::Tcp, params),
    ]
}

pub(super) fn proof() -> Report {
    let spread = |ms: f64| Spread {
        count: 800,
        p50_ms: ms,
        p95_ms: ms * 2.0,
        p99_ms: ms * 3.0,
        longest_ms: ms * 4.0,
    };
    Report {
        proven: true,
        instance: "prove-1a2b".to_owned(),
        model: "hello".to_owned(),
        edge: "nginx".to_owned(),
        supervisor: "supervisord".to_owned(),
        seed: 42,
        cycles: 100,
        idle_stops: 20,
        clients: 8,
        took_ms: 61_234,
        recorded: true,
        tally: Tally {
            sent: 3000,
            messages: 900,
            right: 3000,
            held: Some(800),
            doubled: Some(0),
            ..Tally::default()
        },
        wake: Some(spread(120.4)),
        wake_from_sleep: Some(spread(30.2)),
        ..Report::default()
    }
}

pub(super) fn broken_proof() -> Report {
    let what = "answered 502: no; the application did not receive it".to_owned();
    Report {
        proven: false,
        recorded: false,
        tally: Tally {
            lost: 1,
            right: 2990,
            broken_by_the_crash: 6,
            cut_by_the_crash: 3,
            retried: 12,
            held: None,
            doubled: None,
            ..proof().tally
        },
        wake: None,
        wake_from_sleep: None,
        streams: Some(Streams {
            opened: 120,
            ended_in_order: 90,
            cut_by_the_crash: 9,
            broken: 1,
        }),
        strikes: Some(Strikes {
            instance: 3,
            server: 2,
            master: 2,
            supervisor: 1,
            worker: 4,
        }),
        verbs_failed: vec!["stop: the connection to the server broke before its answer".to_owned()],
        faults: vec![RequestFault {
            id: "002a1.3.77.1".to_owned(),
            kind: "POST",
            verdict: "lost",
            at_s: 1.25,
            took_s: 0.5,
            what,
        }],
        ..proof()
    }
}
