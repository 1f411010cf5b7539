//! Many sleepers: they cost rows and folders, and nothing of a monitor run, a name or the memory.

use std::collections::BTreeSet;

use super::*;

/// More than a monitor run checks.
const MANY: usize = 250;

async fn populate(fixture: &Fixture) {
    for n in 0..MANY {
        fixture.create(&format!("s{n}"), true).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn sleepers_keep_no_task_and_a_monitor_run_asks_none_of_them() {
    let fixture = Fixture::new();
    populate(&fixture).await;
    fixture.create("up", false).await.unwrap();
    // Their tasks leave by themselves.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(fixture.world.registry.all().len(), 1);
    assert!(fixture.monitor().await.is_empty());
    assert_eq!(
        fixture.world.registry.all().len(),
        1,
        "the pass woke the task of a sleeper"
    );
}

#[tokio::test(start_paused = true)]
async fn names_that_nobody_chose_are_different_also_when_asked_for_at_once() {
    let fixture = Fixture::new();
    let new = NewInstance {
        model: "test".into(),
        asleep: true,
        ..NewInstance::default()
    };
    let mut tasks = Vec::new();
    for _ in 0..20 {
        let (world, new) = (fixture.world.clone(), new.clone());
        tasks.push(tokio::spawn(async move {
            handle(&world, &caller(), Request::Create(new)).await
        }));
    }
    let mut names = BTreeSet::new();
    for task in tasks {
        match task.await.unwrap().unwrap() {
            Outcome::Instance { instance, .. } => names.insert(instance.name),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(names.len(), 20);
    assert!(
        names.contains("test") && names.contains("test-20"),
        "{names:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_logs_of_all_sleepers_are_checked_after_a_few_monitor_runs() {
    let fixture = Fixture::new();
    fixture.world.set_serving();
    populate(&fixture).await;
    let config = fixture.world.config();
    let logs = [0, 120, MANY - 1].map(|n| config.access_log(&format!("s{n}")));
    for log in &logs {
        // Sparse: it takes no room.
        std::fs::File::create(log)
            .unwrap()
            .set_len(11 * 1024 * 1024)
            .unwrap();
    }
    let mut left = Vec::new();
    for _ in 0..3 {
        fixture.monitor().await;
        left.push(
            logs.iter()
                .filter(|log| std::fs::metadata(log).unwrap().len() > 0)
                .count(),
        );
    }
    assert_eq!(left, [2, 1, 0], "a hundred of them in each pass");
}

/// A page has many parts, and they come at once.
#[tokio::test(start_paused = true)]
async fn one_client_wakes_only_so_many_and_a_page_is_one_wake() {
    let fixture = Fixture::new();
    let most = u64::from(fixture.world.config().wake.per_client.unwrap());
    for n in 0..2 * most {
        fixture.create(&format!("s{n}"), true).await.unwrap();
    }
    let knock = |name: String, client: &str| {
        let caller = Caller {
            client: Some(client.parse().unwrap()),
        };
        let world = fixture.world.clone();
        async move { world.admit_for(&host(&name), USE, caller).await }
    };
    let (began, mut waits, mut woken) = (fixture.clock.now(), Vec::new(), 0);
    let refused = loop {
        match knock(format!("s{woken}"), "192.0.2.1").await {
            Ok(wait) => waits.push(wait),
            Err(refused) => break refused,
        }
        for _ in 0..4 {
            waits.push(knock(format!("s{woken}"), "192.0.2.1").await.unwrap());
        }
        woken += 1;
    };
    assert!(
        matches!(refused, Refusal::TooManyWakes { retry_s: 1..=2 }),
        "{refused:?}"
    );
    // A new one each second.
    let passed = fixture.clock.now().since(began).as_secs() + 1;
    assert!(
        (most..=most + passed).contains(&woken),
        "{woken} in {passed} s"
    );
    // Another client, and an address that many share.
    let last = format!("s{woken}");
    waits.push(knock(last.clone(), "192.0.2.2").await.unwrap());
    waits.push(knock(format!("s{}", woken + 1), "10.0.0.1").await.unwrap());
    // What is waking already, or awake, is for everybody.
    waits.push(knock(last, "192.0.2.1").await.unwrap());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(knock(format!("s{}", woken + 2), "192.0.2.1").await.is_ok());
}
