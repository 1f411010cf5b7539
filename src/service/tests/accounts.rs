//! Two instances of one installation that run under different accounts.

use super::*;
use crate::domain::instance::Instance;
use crate::service::launch_spec;

#[tokio::test(start_paused = true)]
async fn each_reaches_its_own_account_by_program_probe_and_gate() {
    let fixture = Fixture::new();
    let mut all = Vec::new();
    for (text, uid) in [("a", 61_001), ("b", 61_002)] {
        fixture.create(text, true).await.unwrap();
        let row = find_row(&*fixture.world.store, &text.into()).unwrap();
        let handle = fixture.world.handle(&row).await.unwrap();
        let account = Account::User {
            name: text.into(),
            uid,
            gid: uid,
        };
        handle.relaunch(Instance {
            account: account.clone(),
            ..Instance::clone(&handle.launched())
        });
        all.push((handle, account));
    }
    fixture.supervisor.run_processes();
    for (handle, account) in &all {
        let name = &handle.instance.name;
        let ticket = pass(&fixture.world, name.as_str()).await.unwrap();
        assert_eq!(ticket.gate().account, *account);
        assert_eq!(fixture.edge.gate(name).unwrap().account, *account);
        let program = launch_spec::program(&fixture.world, &handle.launched());
        assert_eq!((&program.account, program.umask), (account, 0o007));
    }
    fixture.monitor().await;
    for (handle, account) in &all {
        let name = &handle.instance.name;
        fixture.ask(stop(name.as_str())).await.unwrap();
        let verbs: Vec<String> = fixture.supervisor.calls();
        for verb in ["start", "wait", "terminate"] {
            assert!(verbs.contains(&format!("{verb} {name}")), "{verbs:?}");
        }
        for given in fixture.supervisor.accounts(name) {
            assert_eq!(given, *account, "{name}");
        }
        let host = handle.instance.hosts[0].to_string();
        let targets = fixture.probe.targets.lock().unwrap();
        let mut of_it = targets.iter().filter(|target| target.host == host);
        assert!(
            of_it.clone().count() > 1 && of_it.all(|target| target.account == *account),
            "{targets:?}"
        );
    }
}
