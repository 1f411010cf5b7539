//! What acc finds again that an earlier acc has started.

use super::*;

for_real![
    a_new_driver_finds_what_an_earlier_one_started,
    a_stale_record_is_not_taken_for_a_process,
    a_run_of_another_runner_is_refused,
];

async fn a_run_of_another_runner_is_refused(fixture: Fixture) {
    let (s, a) = (fixture.supervisor(), obedient("a", &fixture, 0));
    let (run, other) = (s.start(&a).await.unwrap(), RunId::new("vm-7"));
    let refusals = [
        s.terminate(&a, &other).await,
        s.kill(&a.name, &a.account, &other).await,
        s.wait(&a.name, &a.account, &other).await.map(drop),
        s.restore_record(&a.name, &other, &a.log).await.map(drop),
    ];
    for refusal in refusals {
        assert_eq!(
            refusal.unwrap_err().to_string(),
            "`a` runs as `vm-7`, which is no process of this host"
        );
    }
    assert!(fixture.is_alive(&run));
}

async fn a_new_driver_finds_what_an_earlier_one_started(fixture: Fixture) {
    let a = obedient("a", &fixture, 6);
    let run = fixture.supervisor().start(&a).await.unwrap();
    let next = fixture.again();
    assert_eq!(next.find(&a.name).await.unwrap(), Some(run.clone()));
    assert_eq!(
        next.running().await.unwrap(),
        [(a.name.clone(), run.clone())]
    );
    assert_eq!(next.start(&a).await.unwrap(), run);
    assert_eq!(fixture.count(&a.name).await, 1);
    let waiting = tokio::spawn({
        let (next, name) = (Arc::clone(&next), a.name.clone());
        async move { next.wait(&name, &Account::SameAsAcc, &run).await.unwrap() }
    });
    fixture.finish(&a.name, Exit::Code(6));
    assert_eq!(waiting.await.unwrap(), Exit::Code(6));
    assert_eq!(next.find(&a.name).await.unwrap(), None);
}

async fn a_stale_record_is_not_taken_for_a_process(fixture: Fixture) {
    let s = fixture.supervisor();
    let a = obedient("a", &fixture, 0);
    fs::create_dir_all(fixture.pid_dir()).unwrap();
    let me = std::process::id();
    for stale in [
        format!("{me} 1 some-boot /log\n"),
        format!("{me}"),
        "junk".to_owned(),
        String::new(),
    ] {
        fs::write(fixture.pid_dir().join("a.pid"), &stale).unwrap();
        assert_eq!(s.find(&a.name).await.unwrap(), None, "{stale}");
    }
    let run = s.start(&a).await.unwrap();
    assert_ne!(run.process().unwrap().pid.unsigned_abs(), me);
    assert_eq!(s.find(&a.name).await.unwrap(), Some(run));
    // A record that cannot be read is an error and not "nothing runs".
    let other = InstanceName::parse("other").unwrap();
    fs::create_dir(fixture.pid_dir().join("other.pid")).unwrap();
    assert!(s.find(&other).await.is_err());
}

#[tokio::test]
async fn builtin_adopts_what_only_the_child_wrote() {
    let fixture = Fixture::builtin();
    let script = ": > full; read x < go-a; echo after";
    fixture.make_fifo("a");
    let a = program("a", fixture.dir(), &["/bin/sh", "-c", script]);
    let run = fixture.supervisor().start(&a).await.unwrap();
    fixture.wait_for_file("full").await;
    // As if acc had died between the fork and the completion of the pid file.
    fs::write(
        fixture.pid_dir().join("a.pid"),
        run.process().unwrap().pid.to_string(),
    )
    .unwrap();
    let next = fixture.again();
    assert_eq!(next.find(&a.name).await.unwrap(), Some(run.clone()));
    assert_eq!(next.start(&a).await.unwrap(), run);
    fixture.finish(&a.name, Exit::Code(0));
    assert_eq!(
        next.wait(&a.name, &a.account, &run).await.unwrap(),
        Exit::Code(0)
    );
    assert_eq!(fs::read_to_string(&a.log).unwrap(), "after\n");
    assert_eq!(fixture.traces("a"), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_child_that_has_not_written_its_pid_yet_is_waited_for() {
    use nix::fcntl::{Flock, FlockArg};
    let fixture = Fixture::builtin();
    let a = obedient("a", &fixture, 0);
    let run = fixture.supervisor().start(&a).await.unwrap();
    // As an acc leaves it that was killed right after its fork: claimed, still empty.
    let path = fixture.pid_dir().join("a.pid");
    let claimed = Flock::lock(fs::File::create(&path).unwrap(), FlockArg::LockExclusive)
        .map_err(|(_, e)| e)
        .unwrap();
    let (s, name) = (fixture.again(), a.name.clone());
    let found = tokio::spawn(async move { s.find(&name).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        !found.is_finished(),
        "an empty pid file of a start under way was taken for no process"
    );
    fs::write(&path, run.process().unwrap().pid.to_string()).unwrap();
    drop(claimed);
    assert_eq!(found.await.unwrap().unwrap(), Some(run));
}
