//! Every verdict, and what decides between two of them.

use super::super::sample::{ClientConnection, ProofRequestId};
use super::*;

const SECOND: u64 = 1_000_000_000;
const ID: ProofRequestId = ProofRequestId { client: 1, n: 5 };

/// The client's end of its connection.
const FROM: &str = "127.0.0.1:50000";

/// Sent at 10 s, ended at 11 s, on a connection opened at 9 s.
fn sample(kind: RequestKind, end: RequestEnd) -> Sample {
    let line = Some(ClientConnection {
        from: FROM.parse().unwrap(),
        opened: 9 * SECOND,
    });
    let (sent, head, ended) = (10 * SECOND, 11 * SECOND, 11 * SECOND);
    Sample {
        id: ID,
        kind,
        tries: 1,
        line,
        sent,
        head,
        ended,
        own_ms: 0,
        messages: 0,
        end,
    }
}

fn arrival(attempt: u8, pid: i32) -> RecordedArrival {
    RecordedArrival {
        attempt,
        pid,
        started: SECOND,
        before_ended: 0,
    }
}

fn strike(what: Struck, pid: i32, at: u64) -> Strike {
    Strike {
        what,
        pid,
        at,
        over: at + 1000,
        held: None,
    }
}

/// The same of a process that clients are connected to, which held this connection.
fn holding(from: &str, strike: Strike) -> Strike {
    Strike {
        held: Some([from.parse().unwrap()].into()),
        ..strike
    }
}

fn tally(sample: Sample, seen: &[RecordedArrival], strikes: &[Strike]) -> Tally {
    let mut record = AppRecord::default();
    if !seen.is_empty() {
        record.requests.insert(ID, seen.to_vec());
    }
    let evidence = Evidence {
        samples: &[sample],
        record: Some(&record),
        strikes,
        began: 0,
        tag: "t",
    };
    let judgement = judge(&evidence);
    assert_eq!(judgement.tally.is_clean(), judgement.faults.is_empty());
    judgement.tally
}

fn only(change: impl FnOnce(&mut Tally)) -> Tally {
    let mut tally = Tally {
        sent: 1,
        doubled: Some(0),
        held: Some(0),
        ..Tally::default()
    };
    change(&mut tally);
    tally
}

fn cut() -> RequestEnd {
    RequestEnd::Cut("broke".into())
}

fn answered(status: u16) -> RequestEnd {
    RequestEnd::Answered(status, "".into())
}

#[test]
fn answered_right_once_is_right() {
    assert_eq!(
        tally(
            sample(RequestKind::Get, RequestEnd::Right),
            &[arrival(1, 7)],
            &[]
        ),
        only(|t| t.right = 1)
    );
    assert_eq!(
        tally(
            sample(RequestKind::Post, RequestEnd::Wrong("other".into())),
            &[arrival(1, 7)],
            &[]
        ),
        only(|t| t.wrong = 1)
    );
}

#[test]
fn without_a_crash_nothing_is_excused() {
    for end in [
        cut(),
        torn(),
        answered(502),
        answered(503),
        RequestEnd::Late,
        RequestEnd::NotConnected("refused".into()),
    ] {
        for kind in [
            RequestKind::Get,
            RequestKind::Post,
            RequestKind::Slow,
            RequestKind::Stream,
            RequestKind::Socket,
        ] {
            assert_eq!(
                tally(sample(kind, end.clone()), &[], &[]),
                only(|t| t.lost = 1),
                "{kind:?} {end:?}"
            );
        }
    }
    assert_eq!(
        tally(
            sample(RequestKind::Socket, RequestEnd::HungUp("closed".into())),
            &[arrival(1, 7)],
            &[]
        ),
        only(|t| t.lost = 1)
    );
    // The application had it and lived, and the client received an error.
    assert_eq!(
        tally(
            sample(RequestKind::Post, answered(502)),
            &[arrival(1, 7)],
            &[]
        ),
        only(|t| t.wrong = 1)
    );
}

#[test]
fn a_try_is_delivered_once() {
    let twice = [arrival(1, 7), arrival(1, 8)];
    let doubled = |t: &mut Tally| (t.right, t.doubled) = (1, Some(1));
    for kind in [RequestKind::Get, RequestKind::Post] {
        assert_eq!(
            tally(sample(kind, RequestEnd::Right), &twice, &[]),
            only(doubled)
        );
    }
    // After a kill acc may send a safe one again, and only a safe one.
    for what in [Struck::Instance, Struck::Server] {
        let kill = [strike(what, 7, 10 * SECOND)];
        assert_eq!(
            tally(sample(RequestKind::Get, RequestEnd::Right), &twice, &kill),
            only(|t| t.right = 1)
        );
        assert_eq!(
            tally(sample(RequestKind::Post, RequestEnd::Right), &twice, &kill),
            only(doubled)
        );
        let thrice = [arrival(1, 7), arrival(1, 8), arrival(1, 9)];
        assert_eq!(
            tally(sample(RequestKind::Get, RequestEnd::Right), &thrice, &kill),
            only(doubled),
            "one kill, two more deliveries"
        );
        let earlier = [strike(what, 7, 8 * SECOND)];
        assert_eq!(
            tally(
                sample(RequestKind::Get, RequestEnd::Right),
                &twice,
                &earlier
            ),
            only(doubled),
            "the kill was long before"
        );
    }
    for what in [Struck::Master, Struck::Supervisor] {
        let kill = [strike(what, 7, 10 * SECOND)];
        assert_eq!(
            tally(sample(RequestKind::Get, RequestEnd::Right), &twice, &kill),
            only(doubled),
            "it carries no requests"
        );
    }
    // What the client itself sent again is not doubled.
    let again = Sample {
        tries: 2,
        ..sample(RequestKind::Get, RequestEnd::Right)
    };
    assert_eq!(
        tally(again, &[arrival(1, 7), arrival(2, 7)], &[]),
        only(|t| (t.right, t.retried) = (1, 1))
    );
}

#[test]
fn what_a_killed_process_had_is_broken() {
    let kill = [strike(Struck::Instance, 7, 10 * SECOND + 1)];
    for end in [cut(), torn(), answered(502), hung_up()] {
        assert_eq!(
            tally(
                sample(RequestKind::Post, end.clone()),
                &[arrival(1, 7)],
                &kill
            ),
            only(|t| t.broken_by_the_crash = 1)
        );
        assert_eq!(
            tally(sample(RequestKind::Post, end.clone()), &[], &kill),
            only(|t| t.broken_by_the_crash = 1),
            "in its socket"
        );
        let early = [strike(Struck::Instance, 7, 2 * SECOND)];
        assert_eq!(
            tally(sample(RequestKind::Post, end), &[], &early),
            only(|t| t.lost = 1),
            "the kill was long before"
        );
    }
    // No client may receive 503 because of it, and a safe one is sent again.
    assert_eq!(
        tally(sample(RequestKind::Post, answered(503)), &[], &kill),
        only(|t| t.lost = 1)
    );
    assert_eq!(
        tally(sample(RequestKind::Get, answered(502)), &[], &kill),
        only(|t| t.lost = 1)
    );
    assert_eq!(
        tally(sample(RequestKind::Get, cut()), &[], &kill),
        only(|t| t.lost = 1)
    );
}

fn torn() -> RequestEnd {
    RequestEnd::Torn("broke".into())
}

fn hung_up() -> RequestEnd {
    RequestEnd::HungUp("broke".into())
}

/// What the server answers that is asked again after it was killed.
fn honest() -> RequestEnd {
    RequestEnd::Answered(502, format!("{{\"detail\":\"{MAYBE_SEEN}\"}}").into())
}

#[test]
fn what_the_killed_edge_held_is_cut() {
    for what in [Struck::Server, Struck::Worker] {
        // However late the client hears of it, and however early it has sent it.
        for at in [9 * SECOND, 10 * SECOND - 1, 11 * SECOND] {
            let kill = [holding(FROM, strike(what, 3, at))];
            for (kind, end) in [
                (RequestKind::Get, cut()),
                (RequestKind::Post, cut()),
                (RequestKind::Stream, torn()),
                (RequestKind::Socket, hung_up()),
            ] {
                assert_eq!(
                    tally(sample(kind, end.clone()), &[], &kill),
                    only(|t| t.cut_by_the_crash = 1),
                    "{kind:?} {end:?}"
                );
                assert_eq!(
                    tally(sample(kind, end.clone()), &[arrival(1, 7)], &kill),
                    only(|t| t.cut_by_the_crash = 1),
                    "{kind:?} {end:?}"
                );
            }
            for end in [answered(502), answered(503), honest(), RequestEnd::Late] {
                assert_eq!(
                    tally(sample(RequestKind::Get, end.clone()), &[], &kill),
                    only(|t| t.lost = 1),
                    "{end:?}: a dead process does not answer"
                );
            }
        }
        let kill = [holding("127.0.0.1:50001", strike(what, 3, 10 * SECOND))];
        for (kind, end) in [
            (RequestKind::Get, cut()),
            (RequestKind::Post, cut()),
            (RequestKind::Stream, torn()),
            (RequestKind::Socket, hung_up()),
        ] {
            assert_eq!(
                tally(sample(kind, end.clone()), &[], &kill),
                only(|t| t.lost = 1),
                "{kind:?} {end:?}: it held another one"
            );
        }
        let earlier = [holding(FROM, strike(what, 3, 8 * SECOND))];
        assert_eq!(
            tally(sample(RequestKind::Post, cut()), &[], &earlier),
            only(|t| t.lost = 1),
            "its connection is younger than the kill"
        );
    }
    let unconnected = Sample {
        line: None,
        ..sample(RequestKind::Get, RequestEnd::NotConnected("refused".into()))
    };
    assert_eq!(
        tally(
            unconnected,
            &[],
            &[holding(FROM, strike(Struck::Server, 3, 10 * SECOND))]
        ),
        only(|t| t.lost = 1)
    );
}

#[test]
fn what_the_killed_server_had_behind_nginx_is_cut() {
    let kill = [strike(Struck::Server, 3, 10 * SECOND - 1)];
    assert_eq!(
        tally(
            sample(RequestKind::Post, answered(502)),
            &[arrival(1, 7)],
            &kill
        ),
        only(|t| t.cut_by_the_crash = 1)
    );
    assert_eq!(
        tally(sample(RequestKind::Post, honest()), &[], &kill),
        only(|t| t.cut_by_the_crash = 1)
    );
    for (kind, end) in [
        (RequestKind::Post, torn()),
        (RequestKind::Stream, torn()),
        (RequestKind::Socket, hung_up()),
    ] {
        assert_eq!(
            tally(sample(kind, end.clone()), &[arrival(1, 7)], &kill),
            only(|t| t.cut_by_the_crash = 1),
            "{kind:?} {end:?}"
        );
    }
    // nginx lives and answers, and asks the next server for what may be asked again.
    for kind in [RequestKind::Get, RequestKind::Post] {
        assert_eq!(
            tally(sample(kind, cut()), &[], &kill),
            only(|t| t.lost = 1),
            "{kind:?}"
        );
        assert_eq!(
            tally(sample(kind, answered(502)), &[], &kill),
            only(|t| t.lost = 1),
            "answered with an error, never delivered"
        );
        assert_eq!(
            tally(sample(kind, honest()), &[], &[]),
            only(|t| t.lost = 1),
            "{kind:?}"
        );
    }
    assert_eq!(
        tally(sample(RequestKind::Get, honest()), &[], &kill),
        only(|t| t.lost = 1)
    );
    let earlier = [strike(Struck::Server, 3, 8 * SECOND)];
    assert_eq!(
        tally(sample(RequestKind::Stream, torn()), &[], &earlier),
        only(|t| t.lost = 1),
        "the kill was long before"
    );
    // Neither of these carries anything: their death is no excuse.
    for what in [Struck::Supervisor, Struck::Master] {
        for end in [cut(), torn(), honest()] {
            assert_eq!(
                tally(
                    sample(RequestKind::Post, end.clone()),
                    &[],
                    &[strike(what, 3, 10 * SECOND)]
                ),
                only(|t| t.lost = 1),
                "{end:?}"
            );
        }
    }
}

#[test]
fn held_is_what_was_sent_before_its_process_was_started() {
    let started = RecordedArrival {
        started: 10 * SECOND + 1,
        before_ended: 9 * SECOND,
        ..arrival(1, 7)
    };
    let mut record = AppRecord::default();
    record.requests.insert(ID, vec![started]);
    let slow = Sample {
        own_ms: 400,
        ..sample(RequestKind::Slow, RequestEnd::Right)
    };
    let judged = |record: &AppRecord| {
        judge(&Evidence {
            samples: std::slice::from_ref(&slow),
            record: Some(record),
            strikes: &[],
            began: 0,
            tag: "t",
        })
    };
    let judgement = judged(&record);
    assert_eq!(
        (
            judgement.tally.held,
            judgement.wake.unwrap().p50_ms,
            judgement.wake_from_sleep.unwrap().count
        ),
        (Some(1), 600.0, 1)
    );
    // Sent while the former process was still there: held, but not by a wake alone.
    record.requests.insert(
        ID,
        vec![RecordedArrival {
            before_ended: 10 * SECOND + 1,
            ..started
        }],
    );
    let judgement = judged(&record);
    assert_eq!(
        (
            judgement.tally.held,
            judgement.wake_from_sleep.unwrap().count
        ),
        (Some(1), 0)
    );
}

#[test]
fn without_a_record_nobody_knows_what_was_held_or_doubled() {
    let judgement = judge(&Evidence {
        samples: &[sample(RequestKind::Get, RequestEnd::Right)],
        record: None,
        strikes: &[],
        began: 0,
        tag: "t",
    });
    assert_eq!(
        judgement.tally,
        Tally {
            sent: 1,
            right: 1,
            ..Tally::default()
        }
    );
    assert_eq!(
        (
            judgement.tally.held,
            judgement.tally.doubled,
            judgement.wake,
            judgement.wake_from_sleep
        ),
        (None, None, None, None)
    );
}

#[test]
fn a_message_is_delivered_once() {
    let mut record = AppRecord::default();
    record.messages.insert((ID, 2), 2);
    let talk = Sample {
        messages: 3,
        ..sample(RequestKind::Socket, RequestEnd::Right)
    };
    let judgement = judge(&Evidence {
        samples: &[talk],
        record: Some(&record),
        strikes: &[],
        began: 0,
        tag: "t",
    });
    assert_eq!(
        (judgement.tally.doubled, judgement.tally.messages),
        (Some(1), 3)
    );
}
