//! Checks the application's triggers, which fire on partitions after the swap.

use super::words::Words;
use super::{Found, Report};
use crate::model::ident::{Ident, plain, plain_list};
use crate::model::table::Trigger;

pub(super) fn check(report: &mut Report, found: &Found, by: &Ident) {
    on_move(report, found);
    for trigger in found.table.triggers.iter().filter(|t| t.row) {
        let name = plain(trigger.name.as_str());
        if trigger.transition {
            report.error(
                "trigger_with_transition_table",
                &name,
                format!(
                    "row trigger {name} uses a transition table, which row triggers of a partitioned \
                    table do not support"
                ),
                "make it a statement trigger, or rewrite it without the transition table",
            );
        }
        let function = found.around.trigger_functions.iter().find(|f| f.trigger == trigger.name);
        let words = Words::of(function.map_or("", |f| &f.source));
        before_insert(report, found, trigger, &words, by);
        on_leaf(report, &name, &words);
    }
}

/// Checks BEFORE INSERT row triggers. The server chooses the partition before such a trigger fires.
fn before_insert(report: &mut Report, found: &Found, trigger: &Trigger, words: &Words, by: &Ident) {
    if !trigger.before_insert {
        return;
    }
    let (name, column) = (plain(trigger.name.as_str()), plain(by.as_str()));
    if assigns(words, by) {
        report.error(
            "trigger_moves_row",
            &name,
            format!(
                "row trigger {name} sets column {column} before an insert, when the partition has already \
                 been chosen: the insert fails if the value belongs in another partition"
            ),
            format!(
                "set the value with a default, in the application, or with a trigger on a view; then drop \
                 the trigger: drop trigger {name} on {}",
                found.table.name.plain()
            ),
        );
    } else {
        report.warning(
            "before_insert_trigger",
            &name,
            format!(
                "row trigger {name} fires before an insert: on a partitioned table, it must not change \
                 the partition column so that the row belongs in another partition"
            ),
            "read the trigger function",
        );
    }
}

/// Whether a trigger's code sets the column of the new row, with `:=`, with `=` at the start of a statement, or with
/// `INTO`.
fn assigns(words: &Words, column: &Ident) -> bool {
    let statement_starts = [";", "begin", "then", "else", "loop", ""];
    words.after(&["new", ".", column.as_str()]).any(|i| {
        let before = words.before(i - 3).next().map_or("", |(_, word)| word);
        match (words.get(i), words.get(i + 1)) {
            (":", "=") => true,
            ("=", _) => statement_starts.contains(&before),
            _ => before == "into",
        }
    })
}

fn on_leaf(report: &mut Report, name: &str, words: &Words) {
    let leaf = ["tg_table_name", "tg_relname", "tg_relid"].iter().find(|word| words.has(&[word]));
    if let Some(word) = leaf {
        let word = word.to_uppercase();
        report.warning(
            "trigger_names_partition",
            name,
            format!(
                "the function of row trigger {name} reads {word}, which identifies the partition after \
                 the swap"
            ),
            "pass the name of the table as an argument of the trigger (TG_ARGV)",
        );
    }
}

fn on_move(report: &mut Report, found: &Found) {
    let fire = found.around.trigger_functions.iter().filter(|f| f.fires_for_moves).map(|f| &f.trigger);
    let triggers = plain_list(fire);
    if !triggers.is_empty() {
        report.warning(
            "trigger_on_move",
            found.table.name.plain(),
            format!(
                "an update that moves a row to another partition fires the row triggers for DELETE and \
                 INSERT, but of those for UPDATE only BEFORE triggers: {triggers}"
            ),
            "check that this is correct if the application updates the partition column",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_is_not_an_assignment() {
        let sets = |text: &str| assigns(&Words::of(text), &Ident::new("at"));
        for text in [
            "begin new.at := now(); return new; end",
            "BEGIN\n  NEW.at = now();",
            "if new.at is null then new.\"at\" = now(); end if",
            "select max(at) into new.at from u;",
        ] {
            assert!(sets(text), "{text}");
        }
        for text in [
            "begin if new.at = old.at then return null; end if; end",
            "begin new.note := new.at; end",
            "begin -- new.at := 1\n return new; end",
            "begin new.attribute := 1; end",
        ] {
            assert!(!sets(text), "{text}");
        }
    }
}
