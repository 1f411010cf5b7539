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

#[test]
fn on_nginx_and_supervisord() {
    survives(Combination::REAL, &["server"]);
}

#[test]
fn on_acc_alone() {
    survives(Combination::BUILTIN, &["server"]);
}
