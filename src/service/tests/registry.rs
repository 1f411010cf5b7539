//! Who asks and who leaves at the same time, on real threads: a handle whose task has left is never
//! handed out.

use super::*;

#[test]
fn a_handle_that_was_handed_out_has_a_task() {
    const ROUNDS: usize = 400;
    let fixture = {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new();
            fixture.create("a", true).await.unwrap();
            fixture.create("b", true).await.unwrap();
            fixture
        })
    };
    // Another world, whose tasks run on many threads.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    let world = runtime.block_on(async { fixture.another() });
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let world = world.clone();
            runtime.spawn(async move {
                for round in 0..ROUNDS {
                    let name = ["a", "b"][(n + round) % 2];
                    // A sleeper's task leaves as soon as nobody holds its handle: each ask meets
                    // one that is about to.
                    let handle = find(&world, &name.into()).await.unwrap();
                    let (answer, _) = handle
                        .ask(crate::domain::lifecycle::Event::Reset)
                        .await
                        .unwrap_or_else(|e| panic!("{e:?}"));
                    assert_eq!(answer, crate::domain::lifecycle::Answer::Already);
                    drop(handle);
                    if round % 3 == 0 {
                        tokio::task::yield_now().await;
                    }
                    let event = if round % 2 == 0 { "up" } else { "auto" };
                    let handle = find(&world, &name.into()).await.unwrap();
                    let desired = crate::domain::instance::DesiredState::parse(event).unwrap();
                    handle
                        .ask(crate::domain::lifecycle::Event::SetDesired(desired))
                        .await
                        .unwrap_or_else(|e| panic!("{e:?}"));
                    // What was written last is what a new task begins with.
                    assert!(world.registry.all().len() <= 2);
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
        // The tasks of sleepers leave by themselves.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !world.registry.all().is_empty() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "a sleeper keeps its task"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}
