//! The commands that a job accepts in a state, so that no hint suggests a command that would fail.

use super::design::Design;
use super::shell::word;
use super::state::{State, Step};

/// The text of a hint that lists the commands to end a job that cannot continue.
pub fn way_out(name: &str, design: &Design, state: State) -> String {
    let shown = name;
    let name = word(name);
    if state.next(Step::Abort).is_some() {
        return format!("abort the job and run it again: `pgstrata abort {name}`");
    }
    if state == State::Swapped {
        let result = design.planned().result();
        return format!("keep the {result}, and give up the rollback: `pgstrata finalize --now {name}`");
    }
    format!("job {shown} is {state}: `pgstrata run PLAN` starts a new job")
}

/// The text of a hint that lists the commands to end a job in a state.
pub fn ending(name: &str, state: State) -> String {
    let name = word(name);
    if state.next(Step::Abort).is_some() {
        return format!("`pgstrata abort {name}`");
    }
    format!(
        "`pgstrata finalize --now {name}`, or `pgstrata rollback {name}` and then `pgstrata abort {name}`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blueprint::tests::blueprint;

    #[test]
    fn hints_list_only_commands_that_the_state_allows() {
        let design = Design::Partition(Box::new(blueprint()));
        for state in State::ALL {
            let offered = way_out("job", &design, state).contains("pgstrata abort");
            assert_eq!(offered, state.next(Step::Abort).is_some(), "{state}");
        }
        let swapped = way_out("job", &design, State::Swapped);
        insta::assert_snapshot!(ending("job", State::Verified), @"`pgstrata abort job`");
        insta::assert_snapshot!(ending("job", State::Swapped), @"`pgstrata finalize --now job`, or `pgstrata rollback job` and then `pgstrata abort job`");
        insta::assert_snapshot!(swapped, @"keep the partitioned table, and give up the rollback: `pgstrata finalize --now job`");
    }
}
