//! supervisord dies or cannot be asked, and instances outlive it.

use super::*;

#[tokio::test]
async fn children_of_a_killed_supervisord_are_found_and_not_started_twice() {
    let Some(fixture) = Fixture::supervisord_down() else {
        return;
    };
    let s = fixture.supervisor();
    let services = [service("nginx", &fixture, "exec sleep 1000")];
    s.boot(&services).await.unwrap();
    let a = obedient("a", &fixture, 0);
    let run = s.start(&a).await.unwrap();
    let nginx = s.service("nginx").await.unwrap().unwrap();
    // What it writes later is lost: its output goes through supervisord.
    assert_eq!(fixture.count(&a.name).await, 1);
    let daemon = fixture.daemon().unwrap();
    kill(daemon);
    eventually("the end of supervisord", async || {
        fixture.daemon().is_none().then_some(())
    })
    .await;
    let b = obedient("b", &fixture, 0);
    // Dead for certain: what has no record does not run. To start something is another matter.
    for s in [Arc::clone(&s), fixture.again()] {
        assert_eq!(s.find(&a.name).await.unwrap(), Some(run.clone()));
        assert_eq!(s.find(&b.name).await.unwrap(), None);
        assert_eq!(s.running().await.unwrap(), [(a.name.clone(), run.clone())]);
        assert_eq!(s.service("nginx").await.unwrap(), Some(nginx));
        assert!(matches!(
            s.start(&b).await,
            Err(SupervisorError::Unreachable { .. })
        ));
    }
    assert_eq!(s.boot(&services).await.unwrap(), Ensured::Started);
    assert_eq!(
        s.service("nginx").await.unwrap(),
        Some(nginx),
        "it continues, without a second one beside it"
    );
    assert_eq!(s.find(&a.name).await.unwrap(), Some(run.clone()));
    assert_eq!(s.start(&a).await.unwrap(), run);
    assert_eq!(fixture.count(&a.name).await, 1);
    s.terminate(&a, &run).await.unwrap();
    s.wait(&a.name, &a.account, &run).await.unwrap();
    assert_eq!(s.find(&a.name).await.unwrap(), None);
    assert_ne!(s.start(&a).await.unwrap(), run);
}

async fn killed(fixture: &Fixture) {
    kill(fixture.daemon().unwrap());
    eventually("the end of supervisord", async || {
        fixture.daemon().is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_supervisord_that_died_comes_back_beside_what_outlived_it() {
    let Some(fixture) = Fixture::supervisord_down() else {
        return;
    };
    let s = fixture.supervisor();
    let services = [
        service("nginx", &fixture, "exec sleep 1000"),
        service("server", &fixture, "exec sleep 1000"),
    ];
    assert_eq!(
        s.revive(&services).await.unwrap(),
        Ensured::Already,
        "never booted"
    );
    assert!(fixture.daemon().is_none());
    s.boot(&services).await.unwrap();
    let (nginx, server) = (
        s.service("nginx").await.unwrap().unwrap(),
        s.service("server").await.unwrap().unwrap(),
    );
    assert_eq!(s.revive(&services).await.unwrap(), Ensured::Already);
    // Two that notice it at once: one starts it.
    killed(&fixture).await;
    let other = fixture.again();
    let (one, two) = tokio::join!(s.revive(&services), other.revive(&services));
    let mut both = [one.unwrap(), two.unwrap()];
    both.sort_by_key(|e| *e == Ensured::Started);
    assert_eq!(both, [Ensured::Already, Ensured::Started]);
    assert!(fixture.is_alive(&nginx) && fixture.is_alive(&server));
    assert_eq!(
        s.service("nginx").await.unwrap(),
        Some(nginx),
        "not a second one: it would find the port taken"
    );
    let second = eventually("the server that stands by", async || {
        s.service("server").await.unwrap().filter(|p| *p != server)
    })
    .await;
    // The same again: there is never more than one that stands by.
    killed(&fixture).await;
    assert_eq!(s.revive(&services).await.unwrap(), Ensured::Started);
    assert!(fixture.is_alive(&nginx) && fixture.is_alive(&server) && !fixture.is_alive(&second));
    let third = eventually("the server that stands by", async || {
        s.service("server").await.unwrap().filter(|p| *p != server)
    })
    .await;
    // A boot leaves it all as it is; an nginx that ends is started again, now by supervisord.
    assert_eq!(s.boot(&services).await.unwrap(), Ensured::Already);
    assert_eq!(s.service("nginx").await.unwrap(), Some(nginx));
    kill(nginx);
    eventually("the end of nginx", async || {
        (!fixture.is_alive(&nginx)).then_some(())
    })
    .await;
    assert_eq!(
        s.ensure_service(&services[0]).await.unwrap(),
        Ensured::Started
    );
    assert_eq!(
        s.ensure_service(&services[0]).await.unwrap(),
        Ensured::Already
    );
    // Ended in order all of them end, and nothing comes back.
    for service in &services {
        s.stop_service(service).await.unwrap();
    }
    assert!(!fixture.is_alive(&server) && !fixture.is_alive(&third));
    s.halt().await.unwrap();
    assert_eq!(s.revive(&services).await.unwrap(), Ensured::Already);
    assert!(fixture.daemon().is_none());
}

#[tokio::test]
async fn what_outlived_its_supervisord_may_be_written_down_again() {
    let Some(fixture) = Fixture::supervisord_down() else {
        return;
    };
    let s = fixture.supervisor();
    let services = [service("server", &fixture, "exec sleep 1000")];
    s.boot(&services).await.unwrap();
    let server = s.service("server").await.unwrap().unwrap();
    killed(&fixture).await;
    // As the server does that finds its records taken away.
    s.restore_service_record("server", server).await.unwrap();
    for s in [s, fixture.again()] {
        assert_eq!(s.revive(&services).await.unwrap(), Ensured::Started);
        assert!(
            fixture.is_alive(&server),
            "it was taken for the one that stands by"
        );
        killed(&fixture).await;
    }
    kill(server);
}

#[tokio::test]
async fn what_outlived_its_supervisord_and_is_not_wanted_so_any_more_is_ended() {
    let Some(fixture) = Fixture::supervisord_down() else {
        return;
    };
    let s = fixture.supervisor();
    s.boot(&[service("nginx", &fixture, "exec sleep 1000")])
        .await
        .unwrap();
    let nginx = s.service("nginx").await.unwrap().unwrap();
    killed(&fixture).await;
    s.boot(&[service("nginx", &fixture, "exec sleep 1001")])
        .await
        .unwrap();
    let next = s.service("nginx").await.unwrap().unwrap();
    assert!(
        next != nginx && !fixture.is_alive(&nginx),
        "it would hold the ports of its successor"
    );
}

#[tokio::test]
async fn not_to_be_asked_is_an_error() {
    let Some(fixture) = Fixture::supervisord().await else {
        return;
    };
    let s = fixture.supervisor();
    let a = obedient("a", &fixture, 0);
    // It is alive, but cannot be reached: whether something of this name runs is unknown.
    fs::remove_file(fixture.settings().socket).unwrap();
    for s in [fixture.again(), fixture.again()] {
        assert!(matches!(
            s.find(&a.name).await,
            Err(SupervisorError::Unreachable { .. })
        ));
        assert!(matches!(
            s.running().await,
            Err(SupervisorError::Unreachable { .. })
        ));
        assert!(matches!(
            s.service("nginx").await,
            Err(SupervisorError::Unreachable { .. })
        ));
        assert!(matches!(
            s.start(&a).await,
            Err(SupervisorError::Unreachable { .. })
        ));
        assert!(matches!(
            s.forget(&a.name, &a.account).await,
            Err(SupervisorError::Unreachable { .. })
        ));
    }
    // The connection made before is still good.
    assert_eq!(s.find(&a.name).await.unwrap(), None);
    assert!(fixture.daemon().is_some());
}

/// Its socket was removed: it cannot make it again, and no process can reach it.
#[tokio::test]
async fn one_without_its_socket_is_replaced_or_ended_and_what_it_runs_goes_on() {
    let Some(fixture) = Fixture::supervisord_down() else {
        return;
    };
    let services = [service("nginx", &fixture, "exec sleep 1000")];
    let s = fixture.supervisor();
    s.boot(&services).await.unwrap();
    let a = obedient("a", &fixture, 0);
    let run = s.start(&a).await.unwrap();
    let nginx = s.service("nginx").await.unwrap().unwrap();
    for without_pid_file in [false, true] {
        for revived in [false, true] {
            let before = fixture.daemon().unwrap();
            fs::remove_file(fixture.settings().socket).unwrap();
            if without_pid_file {
                fs::remove_file(fixture.settings().pid_file).unwrap();
            }
            // Also through a connection that was open before.
            let s = if revived {
                fixture.supervisor()
            } else {
                fixture.again()
            };
            let came = if revived {
                s.revive(&services).await
            } else {
                s.boot(&services).await
            };
            assert_eq!(came.unwrap(), Ensured::Started);
            assert_ne!(fixture.daemon().unwrap(), before);
            assert!(!fixture.is_alive(&before), "there are two");
            assert_eq!(
                (
                    s.find(&a.name).await.unwrap(),
                    s.service("nginx").await.unwrap()
                ),
                (Some(run.clone()), Some(nginx))
            );
        }
    }
    // Only its pid file: written again.
    fs::remove_file(fixture.settings().pid_file).unwrap();
    assert_eq!(
        fixture.supervisor().revive(&services).await.unwrap(),
        Ensured::Already
    );
    let last = fixture.daemon().unwrap();
    s.terminate(&a, &run).await.unwrap();
    s.wait(&a.name, &a.account, &run).await.unwrap();
    s.stop_service(&services[0]).await.unwrap();
    fs::remove_file(fixture.settings().socket).unwrap();
    fixture.again().halt().await.unwrap();
    assert!(!fixture.is_alive(&last) && !fixture.is_alive(&nginx));
}
