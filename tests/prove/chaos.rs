//! Everything acc is made of is killed while it works.

use super::run::proven;
use crate::support::{Bed, Combination};

fn survives(combination: Combination, killed: &[&str]) {
    let Some(bed) = Bed::new(combination) else { return };
    let report = proven(&bed, &["--cycles", "12", "--clients", "8", "--chaos", "--seed", "7"]);
    for what in killed {
        assert!(report["strikes"][what].as_u64().unwrap() > 0, "no {what} was killed: {report:#}");
    }
}

/// Not on supervisord yet: a supervisord that is killed is brought back by `acc boot`, which takes its nginx and server with it.
#[test]
fn on_nginx_and_the_builtin_supervisor() {
    survives(Combination { edge: "nginx", supervisor: "builtin" }, &["server"]);
}

#[test]
fn on_acc_alone() {
    survives(Combination::BUILTIN, &["server"]);
}
