//! What every kind of edge must do, run against each of them. No edge's program runs here: a gate
//! is the edge's own word.

use std::sync::Arc;

use super::builtin::{BuiltinEdge, ConnectionPool};
use super::fake::FakeEdge;
use super::{Edge, Gate, Route};
use crate::domain::account::Account;
use crate::domain::instance::Listen;
use crate::domain::name::{HostName, InstanceName};

struct NoPool;

impl ConnectionPool for NoPool {
    fn close(&self, _: &Gate) {}
    fn pooled(&self, _: &Gate) -> u32 {
        0
    }
}

fn name(text: &str) -> InstanceName {
    InstanceName::parse(text).unwrap()
}

async fn suite(edge: &dyn Edge, dir: &std::path::Path) {
    let unix = Gate {
        name: name("a"),
        listen: Listen::Unix(dir.join("app.sock")),
        run: 1,
        process: None,
        account: Account::SameAsAcc,
    };
    let tcp = Gate {
        name: name("b"),
        listen: Listen::Tcp("127.0.0.1:9".parse().unwrap()),
        run: 2,
        process: None,
        account: Account::SameAsAcc,
    };
    let open = async || edge.open_gates().await.unwrap();
    assert!(open().await.is_empty());
    for _ in 0..2 {
        edge.close(&unix).await.unwrap();
        edge.forget(&unix.name).await.unwrap();
    }
    for _ in 0..2 {
        edge.open(&tcp).await.unwrap();
        edge.open(&unix).await.unwrap();
        assert_eq!(open().await, [name("a"), name("b")]);
    }
    // The next run of an instance opens the gate again, perhaps elsewhere.
    let moved = Gate {
        run: 3,
        listen: Listen::Tcp("127.0.0.1:10".parse().unwrap()),
        ..tcp.clone()
    };
    edge.open(&moved).await.unwrap();
    assert_eq!(open().await, [name("a"), name("b")]);
    assert_eq!(edge.pooled(&unix), 0);
    for gate in [&unix, &moved] {
        for _ in 0..2 {
            edge.close(gate).await.unwrap();
            assert!(!open().await.contains(&gate.name));
        }
    }
    edge.open(&unix).await.unwrap();
    for _ in 0..2 {
        edge.forget(&unix.name).await.unwrap();
        assert!(open().await.is_empty());
    }
}

async fn routes(edge: &dyn Edge) {
    let routes = [Route {
        name: name("a"),
        hosts: vec![HostName::parse("a.example").unwrap()],
        tcp: None,
    }];
    edge.prepare(&routes).await.unwrap();
    for some in [&routes[..], &routes[..], &[]] {
        edge.apply(some).await.unwrap();
    }
}

#[tokio::test]
async fn builtin() {
    let dir = tempfile::tempdir().unwrap();
    let edge = BuiltinEdge::new(Arc::new(NoPool));
    suite(&edge, dir.path()).await;
    routes(&edge).await;
}

#[tokio::test]
async fn fake() {
    let dir = tempfile::tempdir().unwrap();
    let edge = FakeEdge::new();
    suite(&edge, dir.path()).await;
    routes(&edge).await;
    edge.set_failing(super::fake::Method::Open, true);
    let gate = Gate {
        name: name("a"),
        listen: Listen::Unix("/x".into()),
        run: 1,
        process: None,
        account: Account::SameAsAcc,
    };
    assert!(edge.open(&gate).await.is_err() && edge.gate(&gate.name).is_none());
}

#[tokio::test]
async fn nginx() {
    let (edge, dir) = super::nginx::for_suite();
    suite(edge.as_ref(), dir.path()).await;
    if super::nginx::is_installed() {
        routes(edge.as_ref()).await;
    }
}
